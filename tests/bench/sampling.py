"""Where the time of this process goes, by what its threads do at regular moments."""

from __future__ import annotations

import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from exporter import formats, sources, storage, store
from exporter.formats import compression
from exporter.native import pages, writers
from exporter.run import cutting, lease, packer, prefetch, row_ids, uploads
from exporter.sources.http import json_pages, numbered_pages

EVERY = 0.005
"""Seconds between two samples."""
SWITCH = 0.0001
"""Seconds that the watcher waits for the interpreter's lock before it insists."""
REST = "rest"
GROUPS = {
    (module.__file__ or "").removesuffix("__init__.py"): group
    for module, group in (
        (pages, "cut"),
        (writers, "write"),
        (row_ids, "ids"),
        (json_pages, "cut"),
        (numbered_pages, "cut"),
        (sources, "fetch"),
        (prefetch, "fetch"),
        (compression, "compress"),
        (packer, "buffer"),
        (cutting, "buffer"),
        (formats, "write"),
        (storage, "upload"),
        (uploads, "upload"),
        (store, "commit"),
        (lease, "commit"),
    )
}
"""What a stack is doing, by the innermost of its frames whose module or package is named here; of
two that fit one file, the first. Libraries have no line: their time belongs to who called them."""
ORDER = ("fetch", "cut", "ids", "write", "buffer", "compress", "upload", "commit", REST)


class Samples:
    """What was seen so far, by group."""

    def __init__(self) -> None:
        self.cpu: defaultdict[str, float] = defaultdict(float)
        self.main: defaultdict[str, float] = defaultdict(float)
        self.own = 0.0
        """Seconds of CPU that the looks themselves took."""
        self._clocks: dict[int, float] = {}
        self._busy: dict[int, str] = {}
        self._at = time.monotonic()

    def take(self, main: int, own: int) -> None:
        """Put the CPU time that each thread used since the last sample, and the time that the main
        thread spent, working or waiting, to what they do now."""
        now = time.monotonic()
        for thread, frame in sys._current_frames().items():
            if thread == own:
                continue
            group = _group(frame)
            if group == REST and thread != main:
                # A kept thread that waits by now: it was done with what it did before.
                group = self._busy.get(thread, REST)
            self._busy[thread] = group
            used = _cpu(thread)
            # A thread that is new had its own clock start at zero.
            self.cpu[group] += max(used - self._clocks.get(thread, 0.0), 0.0)
            self._clocks[thread] = used
            if thread == main:
                self.main[group] += now - self._at
        self._at = now

    def table(self) -> dict[str, tuple[float, float]]:
        """By group, seconds of CPU of all threads and of the main thread's time."""
        return {group: (self.cpu[group], self.main[group]) for group in ORDER}


@contextmanager
def sampled() -> Iterator[Samples]:
    """Sample the other threads of this process within this block, which the main thread runs."""
    samples, done = Samples(), threading.Event()
    main = threading.get_ident()
    # What it used until here is no part of it.
    samples.take(main, 0)
    samples.cpu.clear()
    samples.main.clear()

    def watch() -> None:
        while not done.wait(EVERY):
            samples.take(main, threading.get_ident())
        samples.own = time.thread_time()

    watcher = threading.Thread(target=watch, name="samples")
    usual = sys.getswitchinterval()
    # Else the interpreter goes to the watcher mostly where a thread lets go of it by itself, and
    # reading and writing would seem to be all that happens.
    sys.setswitchinterval(SWITCH)
    watcher.start()
    try:
        yield samples
    finally:
        sys.setswitchinterval(usual)
        done.set()
        watcher.join()


def _group(frame: FrameType | None) -> str:
    while frame is not None:
        name = frame.f_code.co_filename
        for part, group in GROUPS.items():
            if name.startswith(part):
                return group
        frame = frame.f_back
    return REST


def _cpu(thread: int) -> float:
    try:
        return time.clock_gettime(time.pthread_getcpuclockid(thread))
    except OSError:
        return 0.0  # it ended between the two looks
