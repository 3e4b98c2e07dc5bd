"""The command itself: makes all checks, shows what they found, and returns the exit code."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import NoReturn

import structlog
from rich.console import Console

from exporter.cli.doctor import registry, report, settings_checks, source_checks
from exporter.cli.doctor.checks import Finding, Status
from exporter.cli.doctor.examination import examine
from exporter.errors import ConfigurationError
from exporter.settings import warnings


def run(out: Console, *, as_json: bool) -> int:
    """Prints a line for each check, or one JSON object (see `report.as_json`).

    Returns 0 if no check failed or was skipped, 78 if a setting is wrong, else 1. Ends within
    about 15 s, whatever hangs.
    """
    # What libraries and the service log says what the findings say, only in other words.
    logging.disable(logging.CRITICAL)
    structlog.configure(processors=[_drop])
    if as_json:
        findings = list(findings_of_all())
        out.print(report.as_json(findings), highlight=False, soft_wrap=True, markup=False)
    else:
        findings = list(report.show(findings_of_all(), out))
    settings = (settings_checks.NAME, source_checks.FILE)
    if any(one.name in settings and one.status is Status.FAIL for one in findings):
        return os.EX_CONFIG
    return 0 if report.is_green(findings) else 1


def findings_of_all() -> Iterator[Finding]:
    """Yields the finding of each check."""
    try:
        read = settings_checks.read()
    except ConfigurationError as error:
        yield Finding(settings_checks.NAME, Status.FAIL, str(error).rstrip("."))
        return
    yield from read.findings
    for text in warnings():
        yield Finding(settings_checks.NAME, Status.WARN, text)
    yield from examine(registry.checks(read.settings), read.settings, read.malformed)


def _drop(_logger: object, _method: str, _event: object) -> NoReturn:
    raise structlog.DropEvent
