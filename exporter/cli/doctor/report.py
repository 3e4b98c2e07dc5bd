"""Output of the doctor: one line for each finding, or JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.text import Text

from exporter.cli.doctor.checks import Finding, Status

_MARKS = {Status.OK: "ok", Status.WARN: "WARN", Status.FAIL: "FAIL", Status.SKIPPED: "skip"}
_STYLES = {
    Status.OK: "green",
    Status.WARN: "yellow",
    Status.FAIL: "bold red",
    Status.SKIPPED: "dim",
}
_NAME_COLUMNS = 17


def show(findings: Iterable[Finding], out: Console) -> Sequence[Finding]:
    """Prints each finding as soon as it is known, and a summary; returns the findings.

    In a terminal, long texts are wrapped below their column. Elsewhere each finding is one line.
    """
    shown: list[Finding] = []
    for finding in findings:
        shown.append(finding)
        mark, style = _MARKS[finding.status], _STYLES[finding.status]
        head = f"{mark:<4}  {finding.name:<{_NAME_COLUMNS}}  "
        lines = [_line(finding)]
        if out.is_terminal:
            lines = textwrap.wrap(
                lines[0], max(out.width - len(head), 30), break_on_hyphens=False
            ) or [""]
        text = Text(head + f"\n{' ' * len(head)}".join(lines))
        text.stylize(style, 0, len(mark))
        out.print(text, highlight=False, soft_wrap=True)
    out.print(_summary(shown), highlight=False, soft_wrap=True)
    return shown


def as_json(findings: Sequence[Finding]) -> str:
    """Returns the findings as one JSON object of a stable shape.

    `{"ok": bool, "checks": [{"name": str, "status": "ok" | "warn" | "fail" | "skipped",
    "text": str, "variable": str | null, "remedy": str | null}, …]}`. `ok` is true if no check
    failed or was skipped. Members may be added; the name of a check keeps its meaning.
    """
    return json.dumps(
        {"ok": is_green(findings), "checks": [finding._asdict() for finding in findings]}, indent=2
    )


def is_green(findings: Iterable[Finding]) -> bool:
    """True if no check failed or was skipped; warnings are allowed."""
    return all(finding.status in (Status.OK, Status.WARN) for finding in findings)


def _line(finding: Finding) -> str:
    if finding.remedy is None:
        is_named = finding.variable is None or finding.text.startswith(finding.variable)
        return finding.text if is_named else f"{finding.variable}: {finding.text}"
    where = "" if finding.variable is None else f"{finding.variable}: "
    return f"{finding.text} -> {where}{finding.remedy}"


def _summary(findings: Sequence[Finding]) -> str:
    counts = {
        status: sum(1 for finding in findings if finding.status == status) for status in Status
    }
    words = {Status.FAIL: "failed", Status.WARN: "to know", Status.SKIPPED: "skipped"}
    parts = [f"{counts[status]} {word}" for status, word in words.items() if counts[status]]
    return f"{len(findings)} checks: {', '.join(parts) or 'all ok'}"
