"""Addressing: the bucket in the path or in the host name, in requests and in links."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import pytest

from exporter.errors import ConfigurationError, StorageError, StorageUnavailable
from exporter.storage.base import ObjectRange
from exporter.storage.s3.storage import S3Storage
from tests.integration import faulty_s3
from tests.integration.faulty_s3 import FaultyS3
from tests.integration.s3_stores.conftest import CSV
from tests.store_rules import StoreRules

if TYPE_CHECKING:
    from tests.conftest import S3

At = Callable[..., S3Storage]
Ruled = Callable[[str], StoreRules]
MIB = 1024**2


def _round_trip(storage: S3Storage, key: str) -> bytes:
    """Makes the calls of an export and returns the file, as its link gives it."""
    storage.check()
    storage.put_small(f"{key}.tail", bytes(5 * MIB), CSV)
    tail = storage.head(f"{key}.tail")
    assert tail is not None
    upload_id = storage.begin(key, CSV)
    copied = storage.copy_part(ObjectRange(tail, range(tail.size)), key, upload_id, 1)
    storage.complete(key, upload_id, [copied, storage.put_part(key, upload_id, 2, b"end")])
    assert {one.key for one in storage.objects(key)} == {key, f"{key}.tail"}
    assert list(storage.open_uploads(key)) == []
    storage.delete([f"{key}.tail"])
    return httpx.get(storage.presign(key, 60)).content


def test_an_export_runs_on_a_store_that_takes_virtual_hosted_addresses_only(
    ruled: Ruled, storage_at: At, key: str
) -> None:
    # Given
    store = ruled("virtual")

    # When
    file = _round_trip(storage_at(store.virtual_url, addressing="virtual"), key)

    # Then
    assert file == bytes(5 * MIB) + b"end"
    assert store.refused == []


@pytest.mark.parametrize(
    "answer",
    [
        (403, "SecondLevelDomainForbidden", "as told"),
        (403, "PathStyleDomainForbidden", "as told"),
        (405, "VirtualHostDomainRequired", "as told"),
        (403, "InvalidPathAccess", "as told"),
        (400, "Unknown", "Only virtual-hosted style is allowed."),
        (403, "Unknown", "Path-style addresses are not supported."),
    ],
)
def test_a_store_that_refuses_the_path_is_named_with_the_variable_to_set(
    ruled: Ruled, storage_at: At, key: str, answer: tuple[int, str, str]
) -> None:
    # Given
    status, code, text = answer
    with FaultyS3(ruled("virtual").url) as faulty:
        faulty.otherwise = faulty_s3.text(
            status, f"<Error><Code>{code}</Code><Message>{text}</Message></Error>"
        )
        storage = storage_at(faulty.url)

        # When
        with pytest.raises(StorageUnavailable) as waits:
            storage.begin(key, CSV)
        with pytest.raises(ConfigurationError) as stops:
            storage.check()

    # Then
    for said in (str(waits.value), str(stops.value)):
        assert "set EXPORTER_S3_ADDRESSING=virtual" in said
        assert "AWS_ACCESS_KEY_ID" not in said


def test_a_store_that_knows_only_paths_is_named_with_the_variable_to_set(
    ruled: Ruled, storage_at: At, s3_server: S3
) -> None:
    # Given
    ruled("virtual")  # names below localhost resolve
    port = urlsplit(s3_server.endpoint_url).port
    storage = storage_at(f"http://localhost:{port}", addressing="virtual")

    # When, Then
    with pytest.raises((ConfigurationError, StorageError), match="EXPORTER_S3_ADDRESSING=path"):
        storage.check()


def test_a_host_that_does_not_exist_with_the_bucket_before_it_is_named(storage_at: At) -> None:
    # Given
    storage = storage_at("http://no-such-host.invalid", addressing="virtual")

    # When, Then
    with pytest.raises(StorageUnavailable, match="EXPORTER_S3_ADDRESSING=path"):
        storage.check()


@pytest.mark.parametrize(("setting", "works"), [("auto", True), ("virtual", True), ("path", False)])
def test_the_aws_configuration_decides_unless_a_setting_does(
    ruled: Ruled,
    storage_at: At,
    key: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    works: bool,
) -> None:
    # Given
    config = tmp_path / "config"
    config.write_text("[default]\ns3 =\n  addressing_style = virtual\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    storage = storage_at(ruled("virtual").virtual_url, addressing=setting)

    # When
    try:
        storage.put_small(key, b"a", CSV)
    except StorageError:
        went_well = False
    else:
        went_well = httpx.get(storage.presign(key, 60)).content == b"a"

    # Then
    assert went_well is works


@pytest.mark.parametrize("public", [None, "http://localhost:{port}"])
def test_a_link_has_the_bucket_in_the_host_of_the_public_address(
    ruled: Ruled, storage_at: At, key: str, public: str | None
) -> None:
    # Given
    inner, outer = ruled("virtual"), ruled("virtual")
    port = urlsplit(outer.virtual_url).port
    storage = storage_at(
        inner.virtual_url,
        addressing="virtual",
        public_endpoint_url=public and public.format(port=port),
    )
    storage.put_small(key, b"a", CSV)

    # When
    link = storage.presign(key, 60)

    # Then
    store = outer if public else inner
    assert urlsplit(link).netloc == f"exports.{urlsplit(store.virtual_url).netloc}"
    assert httpx.get(link).content == b"a"
