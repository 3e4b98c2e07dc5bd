"""Tests of the settings and the TOML file, and of the texts of their errors."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from exporter import settings
from exporter.config import Config, SourceConfig, load_config
from exporter.core.rates import Rate
from exporter.errors import ConfigurationError

BOARD = """\
[sources.board]
type = "hirebase"
base_url = "http://127.0.0.1:8810"
"""


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Removes all EXPORTER_* variables, and uses a directory without an exporter.toml."""
    for name in os.environ:
        if name.startswith("EXPORTER_") or name == "BOARD_KEY":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    settings.load.cache_clear()
    yield
    settings.load.cache_clear()


def refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> str:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as error:
        settings.load()
    return str(error.value)


def config(tmp_path: Path, text: str | bytes) -> Config:
    file = tmp_path / "own.toml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_config(file)


def test_without_any_variable_there_is_a_default_for_all() -> None:
    # When
    found = settings.load()
    # Then
    assert found.redis_url == "redis://127.0.0.1:6379/0"
    assert found.part_size == 8 * 1024**2
    assert found.link_ttl == timedelta(hours=24)
    assert found.retention == timedelta(days=7)


def test_a_rate_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given
    assert settings.load().hirebase_rate == Rate(100, 60)
    settings.load.cache_clear()
    monkeypatch.setenv("EXPORTER_HIREBASE_RATE", "500/10s")
    # When / Then
    assert settings.load().hirebase_rate == Rate(500, 10)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("15m", 900),
        (" 24 h ", 86_400),
        ("7d", 604_800),
        ("0.5s", 0.5),
        ("1.5h", 5_400),
    ],
)
def test_durations_are_written_as_a_number_and_a_unit(
    monkeypatch: pytest.MonkeyPatch, text: str, seconds: float
) -> None:
    # Given
    monkeypatch.setenv("EXPORTER_SLICE_SECONDS", text)
    # When
    found = settings.load()
    # Then
    assert found.slice_seconds == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "soon", "-5", "5w", "1h30m", "PT5M", "1e3", "٣", "9" * 30])
def test_an_invalid_duration_is_named_with_its_variable(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    # When
    said = refused(monkeypatch, "EXPORTER_LINK_TTL", text)
    # Then
    assert said.startswith("EXPORTER_LINK_TTL: ")
    assert repr(text) in said


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("EXPORTER_PART_SIZE", "5242879", r"EXPORTER_PART_SIZE is 5242879 bytes.*5 MiB"),
        ("EXPORTER_PART_SIZE", "big", r"EXPORTER_PART_SIZE: "),
        ("EXPORTER_LINK_TTL", "8d", r"EXPORTER_LINK_TTL is over 7d"),
        ("EXPORTER_LINK_TTL", "0", r"EXPORTER_LINK_TTL: a duration must be longer than 0"),
        (
            "EXPORTER_LEASE_SECONDS",
            "0s",
            r"EXPORTER_LEASE_SECONDS: a duration must be longer than 0",
        ),
        ("EXPORTER_MAX_ATTEMPTS", "0", r"EXPORTER_MAX_ATTEMPTS: .*greater than or equal to 1"),
        ("EXPORTER_HIREBASE_RATE", "often", r"EXPORTER_HIREBASE_RATE: .*write 100/60s"),
        ("EXPORTER_TENANT_SLOTS", "-1", r"EXPORTER_TENANT_SLOTS: .*greater than or equal to 0"),
        ("EXPORTER_REDIS_URL", "localhost:6379", r"EXPORTER_REDIS_URL: .*redis://HOST"),
        ("EXPORTER_REDIS_URL", "redis://h/db", r"EXPORTER_REDIS_URL: .*redis://HOST"),
        ("EXPORTER_BROKER_URL", "amqp://h", r"EXPORTER_BROKER_URL: .*redis://HOST"),
        ("EXPORTER_WEBHOOK_ALLOW_PRIVATE", "10.0.0.0/8,lan", r"EXPORTER_WEBHOOK_ALLOW.*'lan'"),
        ("EXPORTER_WEBHOOK_ALLOW_PRIVATE", "10.0.0.1/8", r"EXPORTER_WEBHOOK_ALLOW.*host bits"),
        ("EXPORTER_WEBHOOK_TIMEOUT", "5m", r"EXPORTER_WEBHOOK_TIMEOUT is over 60s"),
        ("EXPORTER_WEBHOOK_CONCURRENCY", "1", r"EXPORTER_WEBHOOK_CONCURRENCY: .*equal to 2"),
    ],
)
def test_the_error_of_a_setting_out_of_bounds_has_its_name_and_its_correction(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    # When
    text = refused(monkeypatch, name, value)
    # Then
    assert re.match(said, text)
    assert "\n" not in text


def test_networks_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given
    monkeypatch.setenv("EXPORTER_WEBHOOK_ALLOW_PRIVATE", "10.1.0.0/16, fd00::/8,127.0.0.1")
    # When
    allowed = settings.load().webhook_allow_private
    # Then
    assert [str(one) for one in allowed] == ["10.1.0.0/16", "fd00::/8", "127.0.0.1/32"]


def test_every_wrong_setting_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given
    monkeypatch.setenv("EXPORTER_MAX_ATTEMPTS", "many")
    # When
    said = refused(monkeypatch, "EXPORTER_PATIENCE", "long")
    # Then
    assert "EXPORTER_MAX_ATTEMPTS: " in said
    assert "EXPORTER_PATIENCE: " in said


def test_sizes_may_have_a_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given
    monkeypatch.setenv("EXPORTER_PART_SIZE", "16 MiB")
    # When
    found = settings.load()
    # Then
    assert found.part_size == 16 * 1024**2


@pytest.mark.parametrize(
    ("redis_url", "broker"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/1"),
        ("redis://127.0.0.1:6379/7", "redis://127.0.0.1:6379/8"),
        ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379/1"),
        ("redis://127.0.0.1:6379/", "redis://127.0.0.1:6379/1"),
        ("redis://10", "redis://10/1"),
        (
            "rediss://:p%2Fa@h:6380/2?ssl_cert_reqs=none",
            "rediss://:p%2Fa@h:6380/3?ssl_cert_reqs=none",
        ),
    ],
)
def test_the_broker_is_the_next_database_of_the_same_redis(
    monkeypatch: pytest.MonkeyPatch, redis_url: str, broker: str
) -> None:
    # Given
    monkeypatch.setenv("EXPORTER_REDIS_URL", redis_url)
    # When
    found = settings.load()
    # Then
    assert found.broker == broker


def test_the_url_of_a_separate_broker_is_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given
    monkeypatch.setenv("EXPORTER_BROKER_URL", "redis://elsewhere:6379/4")
    # When
    found = settings.load()
    # Then
    assert found.broker == "redis://elsewhere:6379/4"


def test_without_a_file_the_board_of_the_local_stack_is_configured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given
    monkeypatch.setenv("BOARD_KEY", "sk_test_1")
    # When
    found = load_config(None)
    # Then
    assert list(found.sources) == ["board", "qwestly", "bindbee", "coresignal", "pipeline"]
    board = found.sources["board"]
    assert isinstance(board, SourceConfig)
    assert board.api_key == "sk_test_1"
    assert found.surfaces.hirebase == "board"


def test_exporter_toml_in_the_current_directory_is_the_default(tmp_path: Path) -> None:
    # Given
    (tmp_path / "exporter.toml").write_text(BOARD.replace("board", "mine"))
    # When
    found = load_config(None)
    # Then
    assert list(found.sources) == ["mine"]


def test_variables_are_replaced_by_their_values_without_line_breaks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Given
    monkeypatch.setenv("KEY_ONE", " sk_live_1\n")
    monkeypatch.setenv("HOST_ONE", "api.example.com")
    text = BOARD.replace("127.0.0.1:8810", "${HOST_ONE}") + 'api_key = "${KEY_ONE}"\n'
    # When
    found = config(tmp_path, text)
    # Then: a file of secrets often ends with a line break
    board = found.sources["board"]
    assert isinstance(board, SourceConfig)
    assert board.api_key == "sk_live_1"
    assert board.base_url == "http://api.example.com"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('api_key = "${NO_SUCH}"', r"sources\.board\.api_key: .*variable NO_SUCH is not set"),
        ("page_size = 0", r"sources\.board\.page_size: .*greater than or equal to 1"),
        ('page_size = "many"', r"sources\.board\.page_size: "),
        ("pagesize = 5", r"sources\.board\.pagesize: Extra inputs"),
        ('columns = ["_id", "_id"]', r"sources\.board\.columns: every column needs a name"),
        ('columns = [""]', r"sources\.board\.columns: every column needs a name"),
        ("[source.other]", r"source: Extra inputs"),
        ('[surfaces]\nnosuch = "board"', r"surfaces\.nosuch: Extra inputs"),
        ('[sources.other]\ntype = "nosuch"', r"sources\.other\.type: .*'hirebase'"),
        ('[sources.other]\ntype = "hirebase"', r"sources\.other\.base_url: Field required"),
        ("not toml", r"is not TOML: .*line 4"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_file_table_and_key(
    tmp_path: Path, text: str, said: str
) -> None:
    # When
    with pytest.raises(ConfigurationError) as error:
        config(tmp_path, f"{BOARD}{text}\n")
    # Then
    assert str(error.value).startswith(f"{tmp_path / 'own.toml'}")
    assert re.search(said, str(error.value))


@pytest.mark.parametrize(
    "url",
    [
        *("127.0.0.1:8810", "ftp://h", "http://", "http://h:port", "http://h:99999"),
        *("http://[::1", "http://h/?key=1", "", "http://:80"),
    ],
)
def test_an_invalid_address_is_refused_before_any_request(tmp_path: Path, url: str) -> None:
    # When
    with pytest.raises(ConfigurationError) as error:
        config(tmp_path, BOARD.replace("http://127.0.0.1:8810", url))
    # Then
    assert "sources.board.base_url: this is not the address of an API" in str(error.value)


@pytest.mark.parametrize("key", [r"sk_\u00e9", r"sk_live\n1", r"sk_\u0000"])
def test_a_key_that_fits_no_header_is_refused_without_showing_it(tmp_path: Path, key: str) -> None:
    # When
    with pytest.raises(ConfigurationError) as error:
        config(tmp_path, f'{BOARD}api_key = "{key}"\n')
    # Then
    assert "sources.board.api_key: the value has characters" in str(error.value)
    assert "sk_" not in str(error.value)


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    # When
    with pytest.raises(ConfigurationError) as error:
        load_config(tmp_path / name)
    # Then
    assert f"EXPORTER_CONFIG names {tmp_path / name}, which cannot be read" in str(error.value)


def test_a_file_in_another_encoding_is_refused_as_not_toml(tmp_path: Path) -> None:
    # When / Then
    with pytest.raises(ConfigurationError, match="is not TOML"):
        config(tmp_path, BOARD.encode("utf-16"))
