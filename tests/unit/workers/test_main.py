"""Exit status of the worker processes."""

from __future__ import annotations

import os
from unittest.mock import Mock, call

import pytest
from structlog.testing import capture_logs

from exporter.native import library
from workers import __main__ as main
from workers import draining
from workers.app import app


@pytest.mark.parametrize("is_asked", [True, False])
def test_a_worker_that_ends_unasked_does_not_end_with_zero(
    monkeypatch: pytest.MonkeyPatch, is_asked: bool
) -> None:
    # Given: Celery returns, whatever happened
    monkeypatch.setattr(app, "worker_main", lambda arguments: None)
    monkeypatch.setattr(draining, "requested", lambda: is_asked)
    # When
    status: object = os.EX_OK
    with capture_logs() as logged:
        try:
            main._run_until_stopped(["worker"])
        except SystemExit as ended:
            status = ended.code
    # Then
    assert bool(logged) != is_asked
    assert status == (os.EX_OK if is_asked else os.EX_SOFTWARE)


@pytest.mark.parametrize(
    ("native", "reason", "logged"),
    [
        (object(), "", call.info("library.used")),
        (None, "why", call.warning("library.unused", reason="why")),
    ],
    ids=["compiled", "not compiled"],
)
def test_a_worker_logs_which_code_reads_and_writes_its_rows(
    native: object, reason: str, logged: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    monkeypatch.setattr(library, "find", lambda: (native, reason))
    monkeypatch.setattr(main, "log", log := Mock())
    # When
    main._report_library()
    # Then
    assert log.mock_calls == [logged]
