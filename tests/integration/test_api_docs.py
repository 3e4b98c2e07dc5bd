"""The page of documentation, as a browser meets it: all of it comes from this service."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

import pytest

from exporter.api.openapi import docs
from tests.integration.api_server import Service


class Links(HTMLParser):
    """Collects what a page loads, and whether it has a script or a style within."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.urls += [url for name in ("src", "href") if (url := given.get(name))]
        if tag == "style" or (tag == "script" and "src" not in given) or "style" in given:
            self.inline.append(tag)


def links(api: Service) -> Links:
    found = Links()
    found.feed(api.http.get("/docs").text)
    return found


def directives(policy: str) -> dict[str, list[str]]:
    """A Content-Security-Policy's sources by directive."""
    parts = [part.split() for part in policy.split(";")]
    return {name: sources for name, *sources in parts}


def test_the_page_needs_no_key_and_no_other_host(api: Service) -> None:
    # When
    answer = api.http.get("/docs", headers={"X-API-Key": ""})

    # Then
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/html")
    found = links(api)
    assert len(found.urls) == 5
    for url in found.urls:
        parts = urlsplit(url)
        assert (parts.scheme, parts.netloc) == ("", ""), url
        assert not url.startswith("/"), "it would leave out the path that a proxy puts before it"


def test_all_that_the_page_loads_is_there_and_is_what_it_is_loaded_as(api: Service) -> None:
    # Given
    types = {"js": "text/javascript", "css": "text/css", "png": "image/png"}

    # When
    for url in links(api).urls:
        answer = api.http.get(urljoin("/docs", url), headers={"X-API-Key": ""})

        # Then
        assert answer.status_code == 200, url
        assert answer.headers["Content-Type"].partition(";")[0] == types[url.rpartition(".")[2]]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.content


def test_the_page_reads_a_document_of_all_operations(api: Service) -> None:
    # Given
    (name,) = re.findall(r'url: "([^"]+)"', docs.SCRIPT.decode())

    # When
    shown = api.http.get(urljoin("/docs", name), headers={"X-API-Key": ""}).json()

    # Then
    whole = api.http.get("/openapi.json").json()
    assert {path: set(methods) for path, methods in shown["paths"].items()} == {
        path: set(methods) for path, methods in whole["paths"].items()
    }
    assert shown["components"]["schemas"] == whole["components"]["schemas"]
    assert list(shown["paths"]["/v1/exports"]["post"]["responses"]) == ["200", "202", "default"]
    assert shown["info"]["description"].startswith("For code generators: [openapi.json]")
    assert shown["servers"] == [{"url": ".."}], "the host of the page, whatever its path"
    assert shown["info"]["description"].endswith(whole["info"]["description"])


def test_the_policy_lets_the_page_speak_to_this_service_alone(api: Service) -> None:
    # When
    policy = directives(api.http.get("/docs").headers["Content-Security-Policy"])

    # Then
    assert policy["default-src"] == ["'none'"]
    for name, sources in policy.items():
        assert set(sources) <= {"'self'", "'none'", "data:"}, name
    assert policy["script-src"] == policy["connect-src"] == policy["style-src"] == ["'self'"]
    assert policy["frame-ancestors"] == ["'none'"]
    assert not links(api).inline, "the policy forbids what stands within the page"


def test_the_stylesheet_and_our_script_name_no_other_host(api: Service) -> None:
    # When
    style = api.http.get("/docs/swagger-ui.css").text
    script = api.http.get("/docs/page.js").text

    # Then
    loaded = re.findall(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)", style)
    assert loaded
    assert all("".join(url).startswith("data:") for url in loaded)
    assert "//" not in script


def test_the_page_shows_the_document_that_is_served(api: Service) -> None:
    # Given
    script = api.http.get("/docs/page.js").text

    # When
    (url,) = re.findall(r'url: "([^"]+)"', script)
    document = api.http.get(urljoin("/docs", url), headers={"X-API-Key": ""}).json()

    # Then
    assert document["openapi"].startswith("3.1"), "which Swagger UI 4 does not show"
    bundle = api.http.get("/docs/swagger-ui-bundle.js").text
    versions = re.findall(r'PACKAGE_VERSION:"(\d+)\.', bundle)
    assert versions
    assert int(versions[0]) >= 5


def test_the_makers_of_swagger_ui_are_not_asked_to_validate_and_keys_are_not_kept(
    api: Service,
) -> None:
    # When
    script = api.http.get("/docs/page.js").text

    # Then
    assert "validatorUrl: null" in script
    assert "persistAuthorization: false" in script


@pytest.mark.parametrize("name", ["main.py", "..%2Fmain.py", "__init__.py", "", "page.js/x"])
def test_nothing_else_of_the_package_is_served(api: Service, name: str) -> None:
    # When
    answer = api.http.get(f"/docs/{name}")

    # Then
    assert answer.status_code == 404
    assert answer.json()["detail"].startswith("nothing is at")
