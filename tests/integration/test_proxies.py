"""No client asks a proxy for this machine; a proxy that is dead is named with its variable."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from exporter.cli.remote import ServiceError, open_client
from exporter.client import Export, calls, files
from exporter.clock import SystemClock
from exporter.errors import ConfigurationError, SourceUnavailable, StorageUnavailable
from exporter.sources.http.client import Upstream
from exporter.storage.s3 import check as s3_check
from exporter.storage.s3.storage import S3Storage
from tests.conftest import S3
from tests.upstreams import reply, serving

FILE = {"file_size": 1, "record_count": 1, "file_name": "jobs.csv"}
DEAD = "http://ann:s3cret@127.0.0.1:9"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(s3_check, "CHECK_RETRY_SECONDS", 0.1)
    monkeypatch.setattr(files, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(calls, "FIRST_PAUSE_SECONDS", 0.001)


@pytest.fixture(params=["dead", "socks", "network"])
def hostile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets proxies that no request to this machine may use, or even stumble over."""
    value = "socks5://127.0.0.1:9" if request.param == "socks" else DEAD
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, value)
    if request.param == "network":
        monkeypatch.setenv("NO_PROXY", "10.0.0.1,fd00::/8")


@pytest.mark.usefixtures("hostile")
def test_everything_on_this_machine_is_reached_without_the_proxy(
    s3_server: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
    with serving(reply(200, {"id": "e1", "state": "queued"})) as service:
        # When
        storage(s3_server.endpoint_url, s3_server.bucket).check()
        upstream = Upstream(service.url, {}, SystemClock())
        found = upstream.request("GET", "/", bytes)
        upstream.close()
        with open_client(service.url, "exp_1") as client:
            record = client.get("e1")
    # Then
    assert record.id == "e1"
    assert found == b'{"id": "e1", "state": "queued"}'


def test_a_dead_proxy_is_named_with_its_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Given
    monkeypatch.setenv("HTTP_PROXY", DEAD)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    far = "http://far.example.com"
    upstream = Upstream(far, {}, SystemClock(), timeout=1)
    said = []
    # When
    with pytest.raises(StorageUnavailable) as error:
        storage(far, "exports").check()
    said.append(str(error.value))
    with pytest.raises(SourceUnavailable) as failed:
        upstream.request("GET", "/", bytes)
    said.append(str(failed.value.upstream))
    with pytest.raises(ServiceError) as silent, open_client(far, "exp_1") as client:
        client.get("e1")
    said.append(str(silent.value))
    finished = {"id": "e1", "state": "finished", "result": FILE | {"download_url": far}}
    with (
        serving(reply(200, finished)) as service,
        pytest.raises(ServiceError) as broken,
        open_client(service.url, "exp_1") as client,
    ):
        client.download("e1", tmp_path / "file")
    said.append(str(broken.value))
    upstream.close()
    # Then
    assert all("HTTP_PROXY" in text for text in said), said
    assert "s3cret" not in "".join(said)


def test_a_proxy_of_another_kind_is_refused_by_every_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given
    monkeypatch.setenv("ALL_PROXY", "socks5://ann:s3cret@127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    far = "http://far.example.com"
    for ask in (
        lambda: storage(far, "exports").check(),
        lambda: Upstream(far, {}, SystemClock()),
        lambda: _get(far),
    ):
        # When
        with pytest.raises(ConfigurationError) as error:
            ask()
        # Then
        assert str(error.value).startswith("ALL_PROXY: 'socks5://***@127.0.0.1:9' begins with")


def test_a_proxy_carries_what_is_not_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given
    with serving(reply(200, {"id": "e1", "state": "queued"})) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        # When
        record = _get("http://far.example.com")
    # Then
    assert record.id == "e1"
    assert proxy.asked[0].line == "GET http://far.example.com/v1/exports/e1 HTTP/1.1"


def _get(url: str) -> Export:
    with open_client(url, "exp_1") as client:
        return client.get("e1")


def storage(endpoint_url: str, bucket: str) -> S3Storage:
    return S3Storage(
        bucket,
        endpoint_url=endpoint_url,
        public_endpoint_url=None,
        region="us-east-1",
        clock=SystemClock(),
    )
