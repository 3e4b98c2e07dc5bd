"""Tests of the registry: the scheme of a URL chooses the destination."""

from __future__ import annotations

import pytest

from exporter.clock import FakeClock
from exporter.errors import ConfigurationError
from exporter.settings import Settings
from exporter.storage import registry
from exporter.storage.s3.storage import S3Storage


def test_the_settings_of_s3_name_their_bucket_as_the_destination(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    settings = Settings(s3_bucket="my-files")

    # When
    storage = registry.connect(settings.storage_url, settings, FakeClock())

    # Then
    assert settings.storage_url == "s3://my-files"
    assert isinstance(storage, S3Storage)
    assert storage.presign("a.csv", 60).startswith("https://my-files.s3.amazonaws.com/a.csv?")


def test_a_destination_that_does_not_exist_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"'gopher' is no destination .* s3, memory"):
        registry.connect("gopher://host/files", Settings(), FakeClock())
