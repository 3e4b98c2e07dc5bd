"""Runs the checks of the doctor side by side, each with a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence

from exporter.cli.doctor.checks import Check, Finding, Problem, Status
from exporter.errors import ExporterError
from exporter.settings import Settings

CHECK_SECONDS = 7.0
"""Longest duration of one check; whatever hangs is abandoned after that time."""
TOTAL_SECONDS = 12.0
"""Longest duration of all checks together."""


def examine(
    checks: Iterable[Check],
    settings: Settings,
    malformed: Sequence[str] = (),
    *,
    check_seconds: float = CHECK_SECONDS,
    total_seconds: float = TOTAL_SECONDS,
) -> Iterator[Finding]:
    """Yields the finding of each check, in the order of the checks, as soon as it is known.

    Checks run at the same time, except that a check waits for those that it needs. No failure of
    one check hides another one. `malformed` are the variables that cannot be read.
    """
    end = time.monotonic() + total_seconds
    running: dict[str, _Running] = {}
    for check in checks:
        needs = [running[name] for name in check.needs]
        running[check.name] = _Running(check, needs, settings, malformed)
    for one in running.values():
        one.start()
    for one in running.values():
        yield one.finding(check_seconds, end)


class _Running(threading.Thread):
    """A check in its own thread. The thread is abandoned at its deadline, so it is a daemon."""

    def __init__(
        self,
        check: Check,
        needs: Sequence[_Running],
        settings: Settings,
        malformed: Sequence[str],
    ) -> None:
        super().__init__(name=f"doctor {check.name}", daemon=True)
        self._check = check
        self._needs = needs
        self._settings = settings
        self._malformed = malformed
        self._began: float | None = None
        self._known = threading.Event()
        self._lock = threading.Lock()
        self._found: Finding | None = None

    def run(self) -> None:
        for need in self._needs:
            need.wait()
        self._began = time.monotonic()
        self._settle(self._skipped() or self._examine())

    def wait(self) -> Finding:
        """Waits for the finding and returns it."""
        self._known.wait()
        assert self._found is not None
        return self._found

    def finding(self, check_seconds: float, end: float) -> Finding:
        """Waits for the finding; after the deadline returns that there was no answer."""
        while not self._known.is_set():
            began = self._began
            deadline = end if began is None else min(end, began + check_seconds)
            left = deadline - time.monotonic()
            if left <= 0:
                seconds = 0.0 if began is None else time.monotonic() - began
                text = f"no answer within {seconds:.0f} s"
                variable = next(iter(self._check.variables), None)
                remedy = "check the address and the server" if variable else None
                self._settle(Finding(self._check.name, Status.FAIL, text, variable, remedy))
            # `_began` may be set meanwhile, and brings the deadline forward.
            self._known.wait(min(max(left, 0), 0.2))
        return self.wait()

    def _settle(self, finding: Finding) -> None:
        with self._lock:
            self._found = self._found or finding
        self._known.set()

    def _skipped(self) -> Finding | None:
        wrong = next((name for name in self._check.variables if name in self._malformed), None)
        if wrong is not None:
            why = f"skipped because {wrong} is malformed"
            return Finding(self._check.name, Status.SKIPPED, why)
        for need in self._needs:
            found = need.wait()
            if found.status in _STATES:
                why = f"skipped because {found.name} is {_STATES[found.status]}"
                return Finding(self._check.name, Status.SKIPPED, why)
        return None

    def _examine(self) -> Finding:
        name = self._check.name
        try:
            return Finding(name, Status.OK, self._check.run(self._settings))
        except Problem as problem:
            return Finding(name, problem.status, problem.text, problem.variable, problem.remedy)
        except ExporterError as error:
            return Finding(name, Status.FAIL, str(error).rstrip("."))
        except Exception as error:  # noqa: BLE001 - a defect must not hide the other checks
            return Finding(name, Status.FAIL, f"the check itself failed: {type(error).__name__}")


_STATES = {Status.FAIL: "failing", Status.SKIPPED: "skipped"}
