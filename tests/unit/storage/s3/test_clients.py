"""Clients for S3: what the settings leave out comes from the AWS configuration, as in boto3."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from exporter import settings
from exporter.clock import FakeClock
from exporter.errors import ConfigurationError, StorageUnavailable
from exporter.storage.s3 import clients as s3_client
from exporter.storage.s3.storage import S3Storage
from tests import listening


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the path of an AWS configuration that a test may write; all else of AWS is unset."""
    for name in (
        "AWS_PROFILE",
        "AWS_SESSION_TOKEN",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3",
        "AWS_DEFAULT_REGION",
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    path = tmp_path / "config"
    monkeypatch.setenv("AWS_CONFIG_FILE", str(path))
    return path


def link(**options: object) -> str:
    """Returns a link of a storage with these options."""
    defaults: dict[str, object] = {
        "endpoint_url": None,
        "public_endpoint_url": None,
        "region": None,
        "clock": FakeClock(),
    }
    return S3Storage("exports", **{**defaults, **options}).presign("a.csv", 60)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("variables", "profile", "place"),
    [
        ({}, "", "exports.s3.amazonaws.com/a.csv"),
        ({"AWS_ENDPOINT_URL": "http://h:1"}, "", "h:1/exports/a.csv"),
        ({"AWS_ENDPOINT_URL_S3": "http://s:2"}, "", "s:2/exports/a.csv"),
        (
            {"AWS_ENDPOINT_URL": "http://h:1", "AWS_ENDPOINT_URL_S3": "http://s:2"},
            "",
            "s:2/exports/a.csv",
        ),
        (
            {"AWS_ENDPOINT_URL": "http://h:1", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
            "",
            "exports.s3.amazonaws.com/a.csv",
        ),
        ({}, "endpoint_url = http://p:3", "p:3/exports/a.csv"),
        (
            {},
            "services = own\n[services own]\ns3 =\n  endpoint_url = http://q:4",
            "q:4/exports/a.csv",
        ),
        (
            {"AWS_ENDPOINT_URL_S3": "http://s:2"},
            "s3 =\n  addressing_style = virtual",
            "exports.s:2/a.csv",
        ),
        ({}, "s3 =\n  addressing_style = path", "s3.amazonaws.com/exports/a.csv"),
        ({}, "region = eu-central-1", "exports.s3.eu-central-1.amazonaws.com/a.csv"),
        (
            {"AWS_DEFAULT_REGION": "eu-west-1"},
            "region = eu-central-1",
            "exports.s3.eu-west-1.amazonaws.com/a.csv",
        ),
    ],
)
def test_what_no_setting_says_comes_from_the_aws_configuration(
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    profile: str,
    place: str,
) -> None:
    # Given
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    config.write_text(f"[default]\n{profile}\n")

    # When
    url = urlsplit(link())

    # Then
    assert f"{url.netloc}{url.path}" == place


def test_a_setting_wins_over_the_aws_configuration(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://s:2")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    config.write_text("[default]\ns3 =\n  addressing_style = virtual\n")

    # When
    given = link(endpoint_url="http://own:9", region="auto", addressing="path")

    # Then
    assert given.startswith("http://own:9/exports/a.csv?")
    assert "%2Fauto%2Fs3%2F" in given


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_the_aws_configuration_puts_no_bucket_before_an_address(config: Path, host: str) -> None:
    # Given
    config.write_text("[default]\ns3 =\n  addressing_style = virtual\n")

    # When, Then
    assert link(endpoint_url=f"http://{host}:9").startswith(f"http://{host}:9/exports/a.csv?")


def test_a_wrong_address_in_the_aws_configuration_is_named(config: Path) -> None:
    # Given
    config.write_text("[default]\nendpoint_url = minio:9000\n")

    # When, Then
    with pytest.raises(StorageUnavailable, match=r"minio:9000.*AWS_ENDPOINT_URL_S3.*AWS profile"):
        link()


def test_a_client_says_whether_its_bucket_is_in_the_host_name(config: Path) -> None:
    # Given
    config.write_text("[default]\ns3 =\n  addressing_style = virtual\n")

    # When, Then
    assert s3_client.is_virtual(s3_client.connect("http://h:1", None, "auto"))
    assert not s3_client.is_virtual(s3_client.connect("http://h:1", None, "path"))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("AWS_PROFILE", "nosuch", "AWS_PROFILE: no profile 'nosuch'"),
        ("AWS_DEFAULTS_MODE", "x", "AWS_DEFAULTS_MODE: 'x' is not a value"),
        ("AWS_ENDPOINT_URL", "minio:9000", "AWS_ENDPOINT_URL: 'minio:9000' is not a value"),
        ("AWS_METADATA_SERVICE_TIMEOUT", "1s", "AWS_METADATA_SERVICE_TIMEOUT: '1s' is not a value"),
        ("AWS_SECRET_ACCESS_KEY", "", "AWS_ACCESS_KEY_ID is set without AWS_SECRET_ACCESS_KEY"),
        ("AWS_ACCESS_KEY_ID", "", "AWS_SECRET_ACCESS_KEY is set without AWS_ACCESS_KEY_ID"),
    ],
)
def test_a_variable_that_boto3_refuses_is_named_before_any_request(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    # Given
    monkeypatch.setenv(name, value)
    storage = S3Storage(
        "exports", endpoint_url=None, public_endpoint_url=None, region=None, clock=FakeClock()
    )
    # When
    with pytest.raises(ConfigurationError) as error:
        storage.open()
    # Then
    assert str(error.value).startswith(said)
    assert os.environ[name] == value


@pytest.mark.parametrize("value", ["", " \n"])
def test_an_empty_variable_of_aws_counts_as_not_set(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    # Given
    names = ("AWS_PROFILE", "AWS_CA_BUNDLE", "AWS_RETRY_MODE", "AWS_MAX_ATTEMPTS")
    for name in (*names, "AWS_ENDPOINT_URL", "AWS_DEFAULTS_MODE"):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret\n")
    settings.load.cache_clear()
    # When
    settings.load()
    # Then
    assert "/exports.s3.amazonaws.com/a.csv" in link()
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == "secret"


@pytest.mark.external
def test_a_server_that_redirects_every_request_is_asked_twice_at_most(config: Path) -> None:
    # Given a server whose every answer leads to its login page
    requests: list[bytes] = []

    def talk(connection: socket.socket, _: int) -> None:
        while found := listening.request(connection):
            requests.append(found[0].partition(b" ")[0])
            connection.sendall(
                b"HTTP/1.1 302 Found\r\nlocation: /login\r\ncontent-length: 0\r\n\r\n"
            )

    with listening.listening(talk) as server:
        client = s3_client.connect(f"http://127.0.0.1:{server.port}", None, "auto")
        # When
        with pytest.raises(ClientError) as refused:
            client.get_object(Bucket="exports", Key="a.csv")
    # Then botocore asked once for the region of the bucket
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 302
    assert requests == [b"GET", b"HEAD"]
