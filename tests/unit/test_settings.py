"""Tests of the settings and the TOML file, and of the texts of their errors."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import assume, example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from exporter import settings
from exporter.config import Config, Surfaces, load_config
from exporter.core.rates import Rate
from exporter.errors import ConfigurationError
from exporter.sources.config import HttpConfig
from exporter.sources.hirebase import HirebaseConfig
from exporter.sources.sql.config import SqlConfig

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


@pytest.mark.parametrize("text", ["soon", "-5", "5w", "1h30m", "PT5M", "1e3", "٣", "9" * 30])
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
        ("EXPORTER_REDIS_PREFIX", "{staging}", r"EXPORTER_REDIS_PREFIX: '{staging}' is no prefix"),
        ("EXPORTER_REDIS_PREFIX", "a" * 65, r"EXPORTER_REDIS_PREFIX: 'a+' is no prefix"),
        ("EXPORTER_BROKER_URL", "amqp://h", r"EXPORTER_BROKER_URL: .*redis://HOST"),
        ("EXPORTER_WEBHOOK_ALLOW_PRIVATE", "10.0.0.0/8,lan", r"EXPORTER_WEBHOOK_ALLOW.*'lan'"),
        ("EXPORTER_WEBHOOK_ALLOW_PRIVATE", "10.0.0.1/8", r"EXPORTER_WEBHOOK_ALLOW.*host bits"),
        ("EXPORTER_WEBHOOK_TIMEOUT", "5m", r"EXPORTER_WEBHOOK_TIMEOUT is over 60s"),
        ("EXPORTER_NATIVE", "false", r"EXPORTER_NATIVE: 'false' is neither 0 nor 1: write 0 to"),
        ("EXPORTER_NATIVE", "2", r"EXPORTER_NATIVE: '2' is neither 0 nor 1: write 0 to"),
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


@pytest.mark.parametrize("value", ["", "  \n"])
def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    # Given
    default = settings.load()
    settings.load.cache_clear()
    for name in settings.Settings.model_fields:
        monkeypatch.setenv(f"EXPORTER_{name.upper()}", value)
    # When / Then
    assert settings.load() == default


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("S3_ENDPOINT_URL", "minio:9000"),
        ("S3_PUBLIC_ENDPOINT_URL", "files.example.com"),
        ("PUBLIC_URL", "ftp://h"),
        ("REDIS_URL", "redis://h:99999"),
        ("BROKER_URL", "redis://h:abc"),
    ],
)
def test_a_wrong_url_is_refused_with_its_variable_its_value_and_the_right_form(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    # When
    text = refused(monkeypatch, f"EXPORTER_{name}", value)
    # Then
    assert text.startswith(f"EXPORTER_{name}: {value!r} ")
    assert re.search("write .*(redis|https?)://", text)


@pytest.mark.parametrize("name", ["S3_ENDPOINT_URL", "S3_PUBLIC_ENDPOINT_URL", "PUBLIC_URL"])
def test_a_password_has_no_place_in_the_url_of_a_store_or_of_the_api(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    # When
    text = refused(monkeypatch, f"EXPORTER_{name}", "http://key:s3cret@h:9000")
    # Then
    assert "s3cret" not in text
    assert "a user or a password" in text


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (" http://minio:9000/ ", "http://minio:9000"),
        ("HTTP://Minio:9000", "http://Minio:9000"),
        ("http://[::1]:9000", "http://[::1]:9000"),
        ("https://p.example.co/storage/v1/s3", "https://p.example.co/storage/v1/s3"),
        ("https://xn--bcher-kva.de", "https://xn--bcher-kva.de"),
    ],
)
def test_a_url_of_a_store_may_have_blanks_around_a_path_and_a_slash_at_its_end(
    monkeypatch: pytest.MonkeyPatch, given: str, meant: str
) -> None:
    # Given
    monkeypatch.setenv("EXPORTER_S3_ENDPOINT_URL", given)
    # When / Then
    assert settings.load().s3_endpoint_url == meant


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("redis://h/?db=3", "redis://h/3"),
        ("redis://h:6379//3/", "redis://h:6379/3"),
        ("redis://u:p%40@h", "redis://u:p%40@h"),
        ("rediss://h:6380/2", "rediss://h:6380/2?ssl_cert_reqs=required"),
        ("rediss://h?ssl_cert_reqs=CERT_NONE", "rediss://h?ssl_cert_reqs=none"),
        (
            "rediss://h?ssl_check_hostname=no",
            "rediss://h?ssl_check_hostname=false&ssl_cert_reqs=required",
        ),
    ],
)
def test_the_url_of_a_redis_is_written_as_all_its_clients_read_it(
    monkeypatch: pytest.MonkeyPatch, given: str, meant: str
) -> None:
    # Given
    monkeypatch.setenv("EXPORTER_REDIS_URL", given)
    # When / Then
    assert settings.load().redis_url == meant


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("redis://h/0/1", "which is not a number"),
        ("redis://h/-1", "which is not a number"),
        ("redis://h/٣", "which is not a number"),
        ("redis://h/99999999999", "which is not a number"),
        ("redis://h/1?db=2", "another as db"),
        ("redis://h?db=x", "which is not a number"),
        ("redis://h?ssl_ca_certs=/ca.pem", "rediss://"),
        ("redis://h?timeout=3", "none of db"),
        ("rediss://h?ssl_cert_reqs=maybe", "required, optional, none"),
        ("rediss://h?ssl_check_hostname=perhaps", "neither true nor false"),
        ("rediss://h?ssl_ca_certs=/no/such.pem", "No such file"),
        ("rediss://h?ssl_ca_certs=/dev/null", "no certificate or key"),
        ("rediss://h?ssl_keyfile=/dev/null", "without ssl_certfile"),
        ("sentinel://h:26379", "Sentinel is not supported"),
    ],
)
def test_a_url_that_redis_clients_would_read_otherwise_is_refused(
    monkeypatch: pytest.MonkeyPatch, value: str, said: str
) -> None:
    assert said in refused(monkeypatch, "EXPORTER_REDIS_URL", value)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        *(
            ("S3_BUCKET", value, "cannot be the name of a bucket")
            for value in ("s3://b", "my bucket", "b/folder", "ab", "b" * 64, "-ab", "büch")
        ),
        *(("S3_BUCKET", value, "which AWS refuses") for value in ("My_Bucket", "a..b", "1.2.3.4")),
        *(("S3_REGION", value, "name of a region") for value in ("us east", "eu_1", "-", "a" * 64)),
        ("S3_ENDPOINT_URL", "http://minio_s3:9000", "underscore in its host"),
        ("S3_ENDPOINT_URL", "http://h:9000/exports", "ends with the bucket"),
        *(("MAX_ATTEMPTS", value, "whole number") for value in ("many", "1.5", "0x5", "9" * 5000)),
        ("MAX_ATTEMPTS", "9" * 30, "less than or equal to"),
        ("PARTITIONS", "1001", "less than or equal to 1000"),
        ("WEBHOOK_CONCURRENCY", "65", "less than or equal to 64"),
        ("WORKER_MEMORY", "0,5GiB", "is not a size"),
        ("PART_SIZE", "8MiB or more", "is not a size"),
        ("REDIS_URL", "rediss://h?ssl_cert_reqs=required&ssl_cert_reqs=none", "an option twice"),
        ("S3_ENDPOINT_URL", "http://minio:9000:9000", "no valid port"),
        ("PARTITION_ROWS", "-5", "greater than or equal to 0"),
        *(("PART_SIZE", value, "EXPORTER_PART_SIZE") for value in ("-8MiB", "8XB", "nan", "6GiB")),
        ("WORKER_MEMORY", "9EiB", "less than or equal to"),
        ("RETENTION", "9999d", "3650d or less"),
        *(("CHARGE_CANCELED", value, "write true or false") for value in ("maybe", "2", "ja")),
        *(("CREATE_RATE", value, "100/60s") for value in ("-1/s", "0/s", "5", "5/", "5/0s")),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    # When
    text = refused(monkeypatch, f"EXPORTER_{name}", value)
    # Then
    assert f"EXPORTER_{name}" in text
    assert said in text
    assert len(text) < 500


@pytest.mark.parametrize("text", ["true", "True", "1", "yes", "on", " TRUE "])
def test_true_may_be_written_in_the_usual_ways(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("EXPORTER_CHARGE_CANCELED", text)
    assert settings.load().charge_canceled


def test_a_redis_whose_next_database_does_not_exist_needs_a_broker_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # When
    text = refused(monkeypatch, "EXPORTER_REDIS_URL", "redis://h:6379/15")
    # Then
    assert "database 16" in text
    assert "set EXPORTER_BROKER_URL to another database" in text
    # And: with that, it is accepted
    monkeypatch.setenv("EXPORTER_BROKER_URL", "redis://h:6379/14")
    assert settings.load().redis_url == "redis://h:6379/15"


@given(st.from_regex(r"(?i)exporter_[a-z0-9_]{1,20}", fullmatch=True))
@example("EXPORTER_PARTSIZE")
@example("EXPORTER_")
@example("exporter_part_sise")
def test_an_unknown_name_is_reported_and_a_known_one_is_not(name: str) -> None:
    # When
    texts = settings.unknown_names({name: "1", "PATH": "/", "MYEXPORTER_X": "1"})
    # Then
    known = name.upper().removeprefix("EXPORTER_").lower() in settings.Settings.model_fields
    known = known or name.upper() in ("EXPORTER_API_KEY", "EXPORTER_BOARD_DATABASE")
    assert [text.split()[0] for text in texts] == ([] if known else [name])


def test_a_similar_name_is_proposed_for_an_unknown_one() -> None:
    # When
    (text,) = settings.unknown_names({"EXPORTER_PARTSIZE": "1"})
    # Then
    assert text == (
        "EXPORTER_PARTSIZE has no effect: unknown setting: did you mean EXPORTER_PART_SIZE?"
    )


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


def test_a_redis_with_one_database_may_serve_records_and_broker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given
    monkeypatch.setenv("EXPORTER_REDIS_URL", "redis://h:6379/0")
    monkeypatch.setenv("EXPORTER_BROKER_URL", "redis://h:6379/0")
    # When / Then
    assert settings.load().broker == settings.load().redis_url


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
    assert isinstance(board, HttpConfig)
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
    assert isinstance(board, HttpConfig)
    assert board.api_key == "sk_live_1"
    assert board.base_url == "http://api.example.com"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('api_key = "${NO_SUCH}"', r"sources\.board\.api_key: .*variable NO_SUCH is not set"),
        ("page_size = 0", r"sources\.board\.page_size: .*greater than or equal to 1"),
        ('page_size = "many"', r"sources\.board\.page_size: "),
        ("pagesize = 5", r"sources\.board\.pagesize: unknown key: did you mean page_size"),
        ("PAGE-SIZE = 5", r"sources\.board\.PAGE-SIZE: unknown key: did you mean page_size"),
        ("table = 'jobs'", r"sources\.board\.table: unknown key: .*api_key"),
        ("max_in_flight = 'x'", r"sources\.board\.max_in_flight: 'x' is not a whole number"),
        ("page_size = 1.5", r"sources\.board\.page_size: 1\.5 is not a whole number"),
        ("page_size = [1]", r"sources\.board\.page_size: \[1\] is not a whole number"),
        ("tolerated_drift = 5", r"tolerated_drift: 5 is not less than or equal to 1"),
        ("tolerated_drift = nan", r"tolerated_drift: nan is not less than"),
        ("columns = '_id'", r"sources\.board\.columns: '_id' is not a list"),
        ("columns = [5]", r"sources\.board\.columns\.0: 5 is not a text"),
        ("rate = 5", r"sources\.board\.rate: 5 is not a rate: write 100/60s"),
        ("page_timeout = 'soon'", r"page_timeout: 'soon' is not a duration"),
        ("page_timeout = '6m'", r"page_timeout: a worker waits at most 5m"),
        ("api_key = 5", r"api_key: the value is not a text"),
        ('api_key = "${A-B}"', r"api_key: '\$\{A-B\}' names no environment variable"),
        ('api_key = "${A"', r"api_key: '\$\{A' names no environment variable"),
        ('api_key = "${EMPTY}"', r"api_key: the environment variable EMPTY is not set"),
        ("[sources.other]\npage_size = 5", r"sources\.other\.type: Field required: write type"),
        ("[sources]\nother = 5", r"sources\.other: 5 is not a table"),
        (
            "[sources.o]\ntype = 'bindbee'\nbase_url = 'http://h'\nconnector_token = 't'\n"
            "max_in_flight = 2",
            r"sources\.o: max_in_flight has no effect with type bindbee",
        ),
        ("[sources.o]\ntype = 'sql'\nurl = 'localhost/db'", r"sources\.o\.url: .*postgresql"),
        ("[sources.o]\ntype = 'sql'\nurl = 's://:s3cret'\nkeys = 'id'", r"o\.keys: .*mean key"),
        ("[surfaces]\nhirebase = 'bord'", r"surfaces\.hirebase: 'bord' is an .*mean board"),
        ("[surfaces]\nhirebase = 5", r"surfaces\.hirebase: 5 is not a text"),
        ("page_size = true", r"sources\.board\.page_size: true is not a number"),
        ("tolerated_drift = false", r"tolerated_drift: false is not a number"),
        ("rate = {requests = 5, seconds = -1}", r"sources\.board\.rate: \{.* is not a rate"),
        ("[sources.'']\ntype = 'sql'\nurl = 'sqlite:///f'", r"sources\.: '' is empty"),
        ("[sources.o]\ntype = 'sql'\nurl = 's://f'\ntable = ''", r"o\.table: '' is empty"),
        ("[sources.o]\ntype = 'sql'\nurl = 's://u:s3cret@h:x/d'", r"o\.url: this is not the URL"),
        ("surfaces = 5", r"sources\.board\.surfaces: unknown key"),
        ('columns = ["_id", "_id"]', r"sources\.board\.columns: every column needs a name"),
        ('columns = [""]', r"sources\.board\.columns: every column needs a name"),
        ("[source.other]", r"source: unknown key: did you mean sources"),
        ('[surfaces]\nnosuch = "board"', r"surfaces\.nosuch: unknown key: .*hirebase"),
        ('[sources.other]\ntype = "nosuch"', r"sources\.other\.type: .*'hirebase'"),
        ('[sources.other]\ntype = "hirebase"', r"sources\.other\.base_url: Field required"),
        ("not toml", r"is not TOML: .*line 4"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_file_table_and_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, said: str
) -> None:
    # Given
    monkeypatch.setenv("EMPTY", "")
    # When
    with pytest.raises(ConfigurationError) as error:
        config(tmp_path, f"{BOARD}{text}\n")
    # Then
    assert str(error.value).startswith(f"{tmp_path / 'own.toml'}")
    assert re.search(said, str(error.value))
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        *("sqlite:///f", "postgresql+psycopg://u:p#/?:w@h:5432/db", "postgresql://[::1]:5432/d"),
        *("postgresql://[::1]/db", "mysql+pymysql://h/db?charset=utf8", "sqlite://"),
    ],
)
def test_every_form_of_the_url_of_a_database_is_accepted(tmp_path: Path, url: str) -> None:
    found = config(tmp_path, f"[sources.rows]\ntype = 'sql'\nurl = '{url}'\n")
    assert found.sources["rows"].type == "sql"


@pytest.mark.parametrize("table", ["", "sources.board", "sources.pipeline", "surfaces"])
@given(key=st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True))
@examples(max_examples=20)
def test_an_unknown_key_in_any_table_of_the_file_is_an_error(table: str, key: str) -> None:
    models = (Config, HirebaseConfig, SqlConfig, Surfaces)
    assume(all(key not in model.model_fields for model in models))
    # Given
    tables = {
        "": "",
        "sources.board": BOARD.partition("\n")[2],
        "sources.pipeline": "type = 'sql'\nurl = 'sqlite:///f'\n",
        "surfaces": "hirebase = 'board'\n",
    }
    tables[table] += f"{key} = 1\n"
    text = "".join(f"[{name}]\n{body}" if name else body for name, body in tables.items())
    with TemporaryDirectory() as directory, pytest.raises(ConfigurationError) as error:
        # When
        config(Path(directory), text)
    # Then
    assert f" {table}.{key}: unknown key".replace(" .", " ") in str(error.value)


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


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"S3_SSE": "true"}, "EXPORTER_S3_SSE: 'true' .*write AES256, aws:kms .*aws:kms:KEY"),
        ({"S3_ADDRESSING": "dns"}, "EXPORTER_S3_ADDRESSING: 'dns' .*write path .*virtual .*auto"),
        (
            {"S3_ADDRESSING": "virtual", "S3_ENDPOINT_URL": "http://10.1.0.7:9000"},
            "EXPORTER_S3_ENDPOINT_URL has the address 10.1.0.7.*give a host name, or write path",
        ),
        (
            {
                "S3_ADDRESSING": "virtual",
                "S3_ENDPOINT_URL": "http://s:1",
                "S3_PUBLIC_ENDPOINT_URL": "http://[::1]:9000",
            },
            "EXPORTER_S3_PUBLIC_ENDPOINT_URL has the address ::1",
        ),
        (
            {"S3_ADDRESSING": "Virtual", "S3_BUCKET": "my.files"},
            "'my.files' cannot be part of a host name",
        ),
    ],
)
def test_an_addressing_or_encryption_that_cannot_be_is_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: str
) -> None:
    # Given
    for name, value in variables.items():
        monkeypatch.setenv(f"EXPORTER_{name}", value)
    # When / Then
    with pytest.raises(ConfigurationError, match=said):
        settings.load()


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_an_endpoint_of_the_aws_configuration_is_checked_if_it_is_used(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    # Given
    monkeypatch.setenv(name, "minio:9000")
    # When / Then
    with pytest.raises(ConfigurationError, match=f"{name}: 'minio:9000' .*http://minio:9000"):
        settings.load()
    monkeypatch.setenv("EXPORTER_S3_ENDPOINT_URL", "http://own:1")
    assert settings.load().s3_endpoint_url == "http://own:1"


def test_a_bucket_with_rules_of_another_store_is_taken_if_aws_variables_name_that_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given
    monkeypatch.setenv("EXPORTER_S3_BUCKET", "My_Bucket")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://minio:9000")
    # When / Then
    assert settings.load().s3_bucket == "My_Bucket"


def test_every_variable_that_the_files_of_the_project_name_is_a_setting() -> None:
    # Given
    root = Path(settings.__file__).parents[1]
    files = [root / "README.md", root / "Procfile", *(root / "deploy").glob("[!.]*")]
    texts = [file.read_text("utf-8") for file in files if file.is_file()]
    # When
    names = {name for text in texts for name in re.findall(r"EXPORTER_[A-Z0-9_]+[A-Z0-9]", text)}
    # Then: all but those of the tests
    ours = [name for name in names if not name.startswith("EXPORTER_TEST_")]
    assert len(ours) > 40
    assert settings.unknown_names(dict.fromkeys(ours, "1")) == []
