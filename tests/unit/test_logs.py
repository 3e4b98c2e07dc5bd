"""Tests of the log format, and of the redaction of secrets."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Callable, Iterator

import pytest
import structlog

from exporter import logs

LINK = (
    "https://s3.example.com/exports/e1/1-ab/jobs.csv?X-Amz-Algorithm=AWS4-HMAC-SHA256"
    "&X-Amz-Credential=AKIDEXAMPLE%2F20260101%2Fus-east-1%2Fs3%2Faws4_request"
    "&X-Amz-Date=20260101T000000Z&X-Amz-Expires=60&X-Amz-Signature=c0ffee"
)
KEY = "exp_" + "aB3-_" * 8 + "xyz"
SECRETS = ("c0ffee", "AKIDEXAMPLE", KEY, "pa55")


def _fail(value: object) -> None:
    raise RuntimeError(value)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """Configures logging as a process does; returns a function that reads the output."""
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers.clear()
    logs.configure("test")
    yield stderr.getvalue
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()
    root.handlers[:] = before
    root.setLevel(level)


def test_a_line_is_json_with_action_process_level_and_time(
    written: Callable[[], str],
) -> None:
    # When
    structlog.get_logger().info("export.created", export_id="e1", name="Zoë\n")
    # Then
    (line,) = written().splitlines()
    found = json.loads(line)
    assert found.pop("time").endswith("Z")
    assert found == {
        "action": "export.created",
        "process": "test",
        "level": "info",
        "export_id": "e1",
        "name": "Zoë\n",
    }


@pytest.mark.parametrize(
    "value",
    [
        LINK,
        f"GET {LINK} failed",
        f'it said "{LINK}"\nand {LINK.lower()}',
        {"nested": [{"url": LINK}]},
        ValueError(LINK),
        LINK.partition("?")[2],
        f"Bearer {KEY}",
        {"headers": {"x-api-key": KEY}},
        "cannot reach redis://:pa55@10.0.0.1:6379/0",
        "https://ann:pa55@api.example.com/x",
    ],
)
def test_no_key_and_no_presigned_url_reaches_a_line(
    written: Callable[[], str], value: object
) -> None:
    # Given
    log = structlog.get_logger()
    # When
    log.warning("something", value=value, other=[value])
    try:
        _fail(value)
    except RuntimeError:
        log.exception("broken")
    logging.getLogger("botocore").warning("retrying %s", value)
    # Then
    lines = written()
    assert not [secret for secret in SECRETS if secret in lines]
    first, second, third, *_ = lines.splitlines()
    assert json.loads(first)["action"] == "something"
    assert "RuntimeError" in json.loads(second)["exception"]
    assert third.startswith("WARNING botocore: retrying ")


def test_the_traceback_of_a_library_is_redacted(
    written: Callable[[], str],
) -> None:
    # When
    try:
        _fail(LINK)
    except RuntimeError:
        logging.getLogger("celery").exception("task failed")
    # Then
    lines = written()
    assert "Traceback" in lines
    assert not [secret for secret in SECRETS if secret in lines]


def test_a_line_without_secrets_is_unchanged() -> None:
    # Given
    for line in (
        "https://jobs.example.com/a?src=x&ref=b",
        "mail ann@example.com about http://h/p",
        "exp_short",
        '{"file_expires_at": "2026"}',
    ):
        # When
        shown = logs.redact(line)
        # Then
        assert shown == line


def test_info_lines_of_libraries_are_not_written(
    written: Callable[[], str],
) -> None:
    # When: httpx logs the URL of each request
    logging.getLogger("httpx").info("HTTP Request: GET %s", LINK)
    # Then
    assert written() == ""
