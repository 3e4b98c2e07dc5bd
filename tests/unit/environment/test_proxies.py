"""Tests of the choice of a proxy by HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY."""

from __future__ import annotations

import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exporter.environment import proxies
from exporter.environment.proxies import Proxy
from exporter.errors import ConfigurationError


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "127.0.0.1", "127.8.9.1", "[::1]", "[::ffff:127.0.0.1]", "LOCALHOST"),
        *("api.localhost", "localhost."),
    ],
)
@pytest.mark.parametrize("value", ["http://127.0.0.1:9", "socks5://h:1", "nonsense://"])
def test_this_machine_is_reached_without_a_proxy(
    monkeypatch: pytest.MonkeyPatch, host: str, value: str
) -> None:
    # Given
    monkeypatch.setenv("HTTP_PROXY", value)
    monkeypatch.setenv("ALL_PROXY", value)
    # When / Then
    assert proxies.find(f"http://{host}:8333/x") is None


@pytest.mark.parametrize(
    ("variables", "url", "found"),
    [
        ({"HTTP_PROXY": "http://p:1"}, "http://h", Proxy("http://p:1", "HTTP_PROXY")),
        ({"http_proxy": "http://p:1/"}, "http://h", Proxy("http://p:1", "http_proxy")),
        ({"http_proxy": "p:1", "HTTP_PROXY": "q:1"}, "http://h", Proxy("http://p:1", "http_proxy")),
        ({"http_proxy": "", "HTTP_PROXY": "q:1"}, "http://h", Proxy("http://q:1", "HTTP_PROXY")),
        ({"HTTP_PROXY": "http://p:1"}, "https://h", None),
        ({"HTTPS_PROXY": "https://p"}, "https://h", Proxy("https://p", "HTTPS_PROXY")),
        ({"ALL_PROXY": "http://u:a@p"}, "https://h", Proxy("http://u:a@p", "ALL_PROXY")),
        (
            {"all_proxy": "socks5://p", "http_proxy": "p"},
            "http://h",
            Proxy("http://p", "http_proxy"),
        ),
        (
            {"HTTP_PROXY": "http://[fd00::1]:3128"},
            "http://h",
            Proxy("http://[fd00::1]:3128", "HTTP_PROXY"),
        ),
        ({"HTTP_PROXY": " "}, "http://h", None),
        ({}, "http://h", None),
    ],
)
def test_the_proxy_of_the_scheme_comes_before_that_of_all(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str, found: Proxy | None
) -> None:
    # Given
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    # When / Then
    assert proxies.find(url) == found


@pytest.mark.parametrize(
    ("no_proxy", "host", "direct"),
    [
        ("*", "h.example.com", True),
        ("example.com", "example.com", True),
        ("example.com", "api.example.com", True),
        ("example.com", "myexample.com", False),
        (".example.com", "api.example.com", True),
        ("*.example.com", "api.example.com", True),
        ("EXAMPLE.com", "api.example.COM", True),
        ("example.com:8333", "example.com:8333", True),
        ("example.com:8333", "example.com:1", False),
        ("example.com:80", "example.com", True),
        ("10.0.0.7", "10.0.0.7", True),
        ("10.0.0.7", "10.0.0.70", False),
        ("10.0.0.0/8", "10.9.8.7", True),
        ("10.0.0.1/8", "10.9.8.7", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("10.0.0.0/8", "10.example.com", False),
        ("127.0.0.1,fd00::/8", "[fd00::5]", True),
        ("fd00::/8", "[fe00::5]", False),
        ("fd00::5", "[fd00::5]:9000", True),
        ("[fd00::5]", "[fd00::5]", True),
        ("[fd00::5]:9000", "[fd00::5]:9000", True),
        ("[fd00::5]:9000", "[fd00::5]:1", False),
        ("a.com b.com", "b.com", True),
        (" a.com , b.com ", "b.com", True),
        ("http://b.com", "b.com", True),
        ("", "b.com", False),
        (",,", "b.com", False),
        ("fd00::/200, b.com", "b.com", True),
    ],
)
@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
def test_a_host_that_no_proxy_names_is_reached_directly(
    monkeypatch: pytest.MonkeyPatch, variable: str, no_proxy: str, host: str, direct: bool
) -> None:
    # Given
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    monkeypatch.setenv(variable, no_proxy)
    # When / Then
    assert (proxies.find(f"http://{host}/x") is None) == direct


@pytest.mark.parametrize(
    "value", ["socks5://u:s3cret@p:1080", "socks4a://p", "ftp://p", "http://p:x", "http://", "p/x"]
)
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
def test_a_proxy_that_cannot_be_used_is_named_with_its_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    # Given
    monkeypatch.setenv(variable, value)
    # When
    with pytest.raises(ConfigurationError) as error:
        proxies.find("https://api.example.com/x")
    # Then
    said = str(error.value)
    assert said.startswith(f"{variable}: ")
    assert f"correct {variable}, or add api.example.com to NO_PROXY" in said
    assert "s3cret" not in said
    assert [text.split(":")[0] for text in proxies.warnings()] == [variable]


@pytest.mark.parametrize("entry", ["fd00::/200", "10.0.0.0/99", "a_b c?d", "x:y", "[fd00::5"])
def test_an_exception_that_means_nothing_is_named(
    monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    # Given
    monkeypatch.setenv("NO_PROXY", f"localhost,*.a.com,10.0.0.0/8,{entry}")
    # When
    (said,) = proxies.warnings()
    # Then
    assert said.startswith("NO_PROXY: ")
    assert "has no effect" in said


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20))
@example("::1,[::")
@example("http://[")
def test_no_value_of_no_proxy_ends_in_another_error(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        # Given
        patch.setenv("HTTP_PROXY", "http://p")
        patch.setenv("NO_PROXY", text)
        # When / Then
        assert proxies.find("http://h.example.com") in (None, Proxy("http://p", "HTTP_PROXY"))
        assert isinstance(proxies.warnings(), list)
