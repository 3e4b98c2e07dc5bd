"""What every contestant's process does around its run: the start that does not count, the costs
that do. Takes nothing but the standard library, for peers run in an environment of their own."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


class Order(NamedTuple):
    """What is to be exported, and where to."""

    pages: str
    """An upstream; `{pages}/pages/1.json` is its first page."""
    rows: int
    page: int
    """Rows on a page."""
    format: str
    """`csv`, `csv.gz`, `jsonl` or `jsonl.gz`."""
    columns: list[str]
    """Of a CSV."""
    endpoint: str
    """An S3; its keys are in the usual AWS_* variables."""
    bucket: str
    key: str
    """The object to be written, or the folder of several."""
    scratch: str
    """A folder for those who need one; empty."""
    export_id: str = ""
    """For our own worker: the export to be seen to its end."""

    @property
    def packed(self) -> bool:
        """Whether it is to be a gzip file."""
        return self.format.endswith(".gz")

    @property
    def plain(self) -> str:
        """The format without its compression."""
        return self.format.removesuffix(".gz")

    @property
    def page_files(self) -> list[str]:
        """The address of every page."""
        return [f"{self.pages}/pages/{number}.json" for number in range(1, self.last + 1)]

    @property
    def line_files(self) -> list[str]:
        """The same postings, one a line."""
        return [f"{self.pages}/nd/{number}.ndjson" for number in range(1, self.last + 1)]

    @property
    def last(self) -> int:
        """The number of the last page."""
        return -(-self.rows // self.page)


def run(work: Callable[[Order], dict[str, Any] | None]) -> None:
    """Say that all is imported, wait for the order, do the work, and tell what it cost.

    On stdout, one line each: `ready`; then an object with `began` and `ended` (the machine's
    monotonic clock), `cpu` (seconds, user and system, of this process and the children that it
    waited for), `system` (of those, the system's), `peak` (bytes, the most that were resident) and
    what `work` returned. What libraries print goes to stderr.
    """
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print("ready", file=told, flush=True)
    order = Order(**json.loads(sys.stdin.readline()))
    (user, system), began = _cpu(), time.monotonic()
    more = work(order) or {}
    ended = time.monotonic()
    user, system = (after - before for before, after in zip((user, system), _cpu(), strict=True))
    costs = {"began": began, "ended": ended, "cpu": user + system, "system": system}
    told.write(json.dumps({**costs, "peak": _peak(), **more}) + "\n")
    told.flush()


def _cpu() -> tuple[float, float]:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime for one in used), sum(one.ru_stime for one in used)


def _peak() -> int:
    # Not ru_maxrss: that begins with what the parent held when it started this process.
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
