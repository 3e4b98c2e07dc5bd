"""The doctor makes all checks side by side, and says what each found in one line."""

from __future__ import annotations

import io
import json
import sys
import threading
import time
from collections.abc import Sequence

import pytest
from rich.console import Console

from exporter.cli.doctor import library_checks, registry, report
from exporter.cli.doctor.checks import Check, Finding, Problem, Status
from exporter.cli.doctor.examination import examine
from exporter.errors import ConfigurationError
from exporter.native import library
from exporter.settings import Settings


def works(_: Settings) -> str:
    return "works"


def refused(_: Settings) -> str:
    raise Problem("refuses the password", variable="EXPORTER_REDIS_URL", remedy="correct it")


def odd(_: Settings) -> str:
    raise Problem("has no disk", remedy="add one", status=Status.WARN)


def crashes(_: Settings) -> str:
    raise KeyError("a defect")


def misconfigured(_: Settings) -> str:
    raise ConfigurationError("X is wrong: write Y.")


def shown(findings: Sequence[Finding], **console: object) -> list[str]:
    text = io.StringIO()
    report.show(findings, Console(file=text, **console))  # type: ignore[arg-type]
    return text.getvalue().splitlines()


def test_no_failure_of_one_check_hides_another() -> None:
    # Given
    checks = [
        Check("a", crashes),
        Check("b", refused),
        Check("c", misconfigured),
        Check("d", odd),
        Check("e", works),
    ]
    # When
    found = list(examine(checks, Settings()))
    # Then
    assert [(one.name, one.status.value) for one in found] == [
        ("a", "fail"),
        ("b", "fail"),
        ("c", "fail"),
        ("d", "warn"),
        ("e", "ok"),
    ]
    assert found[1][2:] == ("refuses the password", "EXPORTER_REDIS_URL", "correct it")
    assert found[2].text == "X is wrong: write Y"


def test_a_check_says_why_it_was_skipped() -> None:
    # Given
    checks = [
        Check("redis", refused),
        Check("workers", works, needs=["redis"]),
        Check("webhooks", works, needs=["workers"]),
        Check("s3", works, variables=["EXPORTER_S3_BUCKET"]),
    ]
    # When
    found = list(examine(checks, Settings(), ["EXPORTER_S3_BUCKET"]))
    # Then
    assert [one.text for one in found[1:]] == [
        "skipped because redis is failing",
        "skipped because workers is skipped",
        "skipped because EXPORTER_S3_BUCKET is malformed",
    ]
    assert not report.is_green(found[3:])


@pytest.mark.external
def test_a_check_that_hangs_ends_at_its_deadline_and_delays_no_other() -> None:
    # Given
    never = threading.Event()

    def hangs(_: Settings) -> str:
        never.wait(20)
        return "too late"

    checks = [Check("a", hangs), Check("b", works), Check("c", works, needs=["a"])]
    began = time.monotonic()
    # When
    found = list(examine(checks, Settings(), check_seconds=0.3, total_seconds=5))
    # Then
    never.set()
    assert time.monotonic() - began < 3
    assert [one.status for one in found] == [Status.FAIL, Status.OK, Status.SKIPPED]
    assert found[0].text.startswith("no answer within")


FOUND = [
    Finding("redis", Status.OK, "works"),
    Finding("broker", Status.FAIL, "refuses the password", "EXPORTER_BROKER_URL", "correct it"),
    Finding("beat", Status.WARN, "[none] is alive", None, "start one with `exporter beat`"),
    Finding("s3 exports", Status.SKIPPED, "skipped because s3 is failing"),
]


def test_each_finding_is_one_line_without_colors_outside_of_a_terminal() -> None:
    assert shown(FOUND, width=40) == [
        "ok    redis              works",
        "FAIL  broker             refuses the password -> EXPORTER_BROKER_URL: correct it",
        "WARN  beat               [none] is alive -> start one with `exporter beat`",
        "skip  s3 exports         skipped because s3 is failing",
        "4 checks: 1 failed, 1 to know, 1 skipped",
    ]


def test_a_terminal_shows_long_lines_below_their_column() -> None:
    # When
    lines = shown(FOUND, width=60, force_terminal=True, no_color=True, color_system=None)
    # Then
    assert lines[1:3] == [
        "FAIL  broker             refuses the password ->",
        "                         EXPORTER_BROKER_URL: correct it",
    ]
    assert all(len(line) <= 60 for line in lines)


def test_programs_get_the_same_in_json() -> None:
    # When
    found = json.loads(report.as_json(FOUND))
    # Then
    assert found["ok"] is False
    assert found["checks"][1] == {
        "name": "broker",
        "status": "fail",
        "text": "refuses the password",
        "variable": "EXPORTER_BROKER_URL",
        "remedy": "correct it",
    }
    assert json.loads(report.as_json(FOUND[:1]))["ok"] is True


@pytest.mark.parametrize(
    ("native", "reason", "found"),
    [
        (object(), "", Finding("library", Status.OK, "the compiled library reads and writes rows")),
        (
            None,
            "no C compiler",
            Finding(
                "library",
                Status.WARN,
                f"Python code reads and writes rows, {library_checks.COST}: no C compiler",
                None,
                f"install gcc, then run {sys.executable} -m exporter.native.build",
            ),
        ),
        (
            None,
            library.OFF,
            Finding(
                "library",
                Status.WARN,
                f"Python code reads and writes rows, {library_checks.COST}: {library.OFF}",
                "EXPORTER_NATIVE",
                "unset it",
            ),
        ),
    ],
    ids=["compiled", "not compiled", "turned off"],
)
def test_the_path_of_rows_is_named_with_its_cost_and_remedy(
    native: object, reason: str, found: Finding, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    monkeypatch.setattr(library, "find", lambda: (native, reason))
    # When
    (own,) = examine([one for one in registry.CHECKS if one.name == "library"], Settings())
    # Then
    assert own == found
    assert report.is_green([own])
