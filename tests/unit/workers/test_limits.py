"""The numbers that a worker lives by are ordered, or it does not start."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta

import pytest
from pydantic import ByteSize

from exporter import settings
from exporter.errors import ConfigurationError
from exporter.settings import Settings


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("EXPORTER_")]:
        monkeypatch.delenv(name)
    settings.load.cache_clear()
    yield
    settings.load.cache_clear()


@pytest.mark.parametrize("budget", [timedelta(seconds=1), timedelta(seconds=30), timedelta(days=1)])
def test_a_slice_s_budget_ends_before_it_is_interrupted_and_that_before_it_is_killed(
    budget: timedelta,
) -> None:
    # When
    found = Settings(slice_seconds=budget)
    # Then
    assert found.slice_seconds < found.slice_soft_limit < found.slice_hard_limit


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (
            {"EXPORTER_LEASE_SECONDS": "1.5s"},
            ["EXPORTER_LEASE_SECONDS is 1.5s", "give 2s or more"],
        ),
        (
            {"EXPORTER_WORKER_MEMORY": "200MiB"},
            ["EXPORTER_WORKER_MEMORY is 209715200", "EXPORTER_PART_SIZE", "0 for no limit"],
        ),
        (
            {"EXPORTER_PART_SIZE": "256MiB"},
            ["EXPORTER_WORKER_MEMORY is 1073741824", "needs 1342177280", "lower the second"],
        ),
    ],
)
def test_numbers_that_do_not_fit_are_named_with_the_way_to_mend_them(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: list[str]
) -> None:
    # Given
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    # When
    with pytest.raises(ConfigurationError) as error:
        settings.load()
    # Then
    for part in said:
        assert part in str(error.value)


def test_a_worker_may_go_without_a_ceiling() -> None:
    # When / Then
    assert Settings(worker_memory=ByteSize(0)).worker_memory == 0
