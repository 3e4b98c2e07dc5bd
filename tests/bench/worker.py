"""Our contestant: one worker process that works slices until an export has ended.

It is the real worker without Celery around it: `workers.tasks.work` on the settings of the
environment. The doorbell is a look at Redis every 20 ms, as long as there is nothing to do. Run as
`python -m tests.bench.worker sample`, it also tells where its time went.
"""

from __future__ import annotations

import contextlib
import sys
import time
from typing import Any

from celery.signals import worker_process_init

from exporter import logs
from tests.bench import sampling, starting
from workers import tasks

PAUSE = 0.02


def work(order: starting.Order) -> dict[str, Any]:
    store = tasks.service().store
    with contextlib.ExitStack() as stack:
        samples = stack.enter_context(sampling.sampled()) if "sample" in sys.argv else None
        while True:
            export = store.get(order.export_id)
            assert export is not None, f"no export {order.export_id}"
            if export.terminal:
                break
            if tasks.work() is None:
                time.sleep(PAUSE)
    if export.result is None:
        raise RuntimeError(f"the export is {export.state}: {export.error}")
    told = {"key": export.result.key, "rows": export.result.record_count}
    return told if samples is None else {**told, "samples": samples.table(), "looks": samples.own}


if __name__ == "__main__":
    logs.configure("worker")
    worker_process_init.send(sender=None)
    # What boto3 knows of S3 is read before the order comes, as in the others.
    tasks.service().storage.presign("none", 1)
    starting.run(work)
