"""What creating and polling an export cost the API: `python -m tests.bench.api`.

Starts a Redis, the API as `exporter api` runs it and a reference service, one process each, drives
all of them in turn with wrk, and writes what it found to API.md beside this file. Requests a second
move with whatever else the machine does; the processor time of the server's process for each
request hardly does, so that is what is compared.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

import httpx
import redis

from exporter.core.checkpoints import Checkpoint, Part, RowCounts
from exporter.core.exports import Completeness, EndReason, Outcome, Result, State
from exporter.local import ports
from exporter.local.children import Child
from exporter.local.redis import RedisServer
from exporter.store.redis.api_keys import KeyRing
from exporter.store.redis.store import RedisStore
from tests.bench.contestants import installed

REPORT = Path(__file__).with_name("API.md")
ROUNDS = 3
CONNECTIONS = 32
PACKAGES = ("fastapi", "starlette", "uvicorn", "redis", "boto3", "celery", "msgspec", "pydantic")
OPTIONAL = ("uvloop", "httptools", "hiredis")
"""Not needed, but used when they are there."""

SEARCH = {"job_titles": ["Data Engineer"], "keywords": ["python", "sql"]}
NATIVE = {"source": "board", "query": SEARCH, "format": "csv", "limit": 1000}
RECORD = {
    "state": "finished",
    "progress": "1.0",
    "record_count": "1204",
    "file_size": "3120441",
    "key": "exports/0b8c2c4e.csv",
}
"""Of the reference."""
HIREBASE = {"search": {**SEARCH, "limit": 1000}, "format": "csv"}


class Load(NamedTuple):
    """One kind of request, and the one that it is compared with."""

    name: str
    method: str
    url: str
    headers: Mapping[str, str]
    body: object | None
    pid: int
    against: str | None


class Run(NamedTuple):
    """What some seconds of a load gave."""

    rate: float
    """Requests a second."""
    cost: float
    """Microseconds of the server's processor for each."""
    median: str
    slowest: str
    """Latencies as wrk writes them: of half, and of all but one in a hundred."""


def main() -> None:
    """Measure, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=4, help="of each run (default 4)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"(default {ROUNDS})")
    parser.add_argument("--only", default="", help="loads whose name holds this text")
    parser.add_argument("--dry", action="store_true", help="write no report")
    asked = parser.parse_args()
    wrk = shutil.which("wrk")
    if wrk is None:
        sys.exit("wrk is not on the PATH: apt-get install wrk, or build github.com/wg/wrk")
    with (
        tempfile.TemporaryDirectory() as directory,
        _services(Path(directory)) as (loads, redis_version),
    ):
        chosen = [load for load in loads if asked.only in load.name]
        runs: dict[str, list[Run]] = {load.name: [] for load in chosen}
        for load in chosen:
            _drive(wrk, Path(directory), load, 2)  # imports, caches, connections
        for _ in range(asked.rounds):
            for load in chosen:
                run = _drive(wrk, Path(directory), load, asked.seconds)
                runs[load.name].append(run)
                sys.stderr.write(f"{load.name:28} {run.rate:7.0f}/s {run.cost:6.0f} µs\n")
    middle = {name: _middle(found) for name, found in runs.items()}
    text = _report(chosen, middle, asked.seconds, asked.rounds, redis_version)
    sys.stdout.write(text)
    if not asked.dry:
        REPORT.write_text(text, "utf-8")


@contextlib.contextmanager
def _services(directory: Path) -> Iterator[tuple[Sequence[Load], str]]:
    """What can be asked for, and the version of Redis behind it."""
    redis_port, api_port, reference_port = ports.find_free(3)
    with RedisServer(directory, redis_port) as server, contextlib.ExitStack() as running:
        config = directory / "exporter.toml"
        config.write_text(
            "[sources.board]\ntype = 'hirebase'\nbase_url = 'http://127.0.0.1:9'\n"
            "api_key = 'unused'\n[surfaces]\nhirebase = 'board'\ncoresignal = 'board'\n",
            "utf-8",
        )
        environment = {
            **os.environ,
            "EXPORTER_REDIS_URL": server.url,
            "EXPORTER_BROKER_URL": server.url.removesuffix("/0") + "/1",
            "EXPORTER_CONFIG": str(config),
            "EXPORTER_HIREBASE_RATE": "999999/1s",
            "EXPORTER_CREATE_RATE": "999999/1s",
            "EXPORTER_MAX_QUEUED_EXPORTS": "0",
            "EXPORTER_MAX_KEPT_EXPORTS": "0",
            "EXPORTER_MAX_STORED_BYTES": "0",
            "AWS_ACCESS_KEY_ID": "AKIDBENCH",
            "AWS_SECRET_ACCESS_KEY": "bench",
        }
        commands = {
            api_port: ["exporter.cli", "api", "--port", str(api_port)],
            reference_port: ["tests.bench.api_reference", str(reference_port)],
        }
        pids = {}
        for port, command in commands.items():
            child = Child(
                command[0],
                [sys.executable, "-m", *command],
                directory / f"{command[0]}.log",
                answers=partial(ports.is_listening, port),
                env=environment,
            )
            running.enter_context(child)
            pids[port] = child.pid
        client = redis.Redis.from_url(server.url)
        key = {"X-API-Key": KeyRing(client).create("bench")}
        url = f"http://127.0.0.1:{api_port}/v1/exports"
        export_id: str = httpx.post(url, json=NATIVE, headers=key).raise_for_status().json()["id"]
        _finish(RedisStore(client))
        client.hset("reference:1", items=[word for pair in RECORD.items() for word in pair])
        ours, theirs = f"http://127.0.0.1:{api_port}", f"http://127.0.0.1:{reference_port}"
        own, other = pids[api_port], pids[reference_port]
        poll, create = "reference: poll", "reference: create"
        loads = (
            Load(poll, "GET", f"{theirs}/exports/1", {}, None, other, None),
            *(
                Load(f"poll, {path}", "GET", f"{ours}{path}/{export_id}", key, None, own, poll)
                for path in ("/v1/exports", "/v2/tasks")
            ),
            Load(create, "POST", f"{theirs}/exports", {}, NATIVE, other, None),
            *(
                Load(f"create, {path}", "POST", f"{ours}{path}", key, body, own, create)
                for path, body in (("/v1/exports", NATIVE), ("/v2/jobs/export", HIREBASE))
            ),
        )
        yield loads, client.info("server")["redis_version"]


def _finish(store: RedisStore) -> None:
    """Do a worker's part of the one export that waits for it."""
    lease = timedelta(seconds=30)
    claim = store.claim("worker-bench-1", lease=lease)
    assert claim is not None
    key = f"exports/{claim.export.id}/1/file.csv"
    parts = (Part("9b2cf535f27731c974343645a3985328", 3120441),)
    store.commit(
        claim.export.id,
        claim.fence,
        Checkpoint(cursor=None, rows=1204, pages=13, key=key, upload_id="bench", parts=parts),
        lease=lease,
        progress=0.9,
    )
    whole = Completeness(
        outcome=Outcome.COMPLETE,
        end_reason=EndReason.TOTAL_REACHED,
        exported=1204,
        expected=1204,
        duplicates_removed=0,
        skipped=0,
        total_at_start=1204,
        total_at_end=1204,
    )
    week = timedelta(days=7)
    assert store.end(
        claim.export.id,
        claim.fence,
        State.FINISHED,
        result=Result(key, 3120441, 1204, whole, RowCounts(), 13),
        keep_file=week,
        keep_record=week,
    )


def _drive(wrk: str, directory: Path, load: Load, seconds: int) -> Run:
    script = directory / "load.lua"
    lines = [f"wrk.method = {json.dumps(load.method)}"]
    lines += [f"wrk.headers[{json.dumps(k)}] = {json.dumps(v)}" for k, v in load.headers.items()]
    if load.body is not None:
        lines.append('wrk.headers["Content-Type"] = "application/json"')
        lines.append(f"wrk.body = {json.dumps(json.dumps(load.body))}")
    script.write_text("\n".join(lines), "utf-8")
    before = _processor_seconds(load.pid)
    command = [wrk, "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "-s", str(script)]
    told = subprocess.run([*command, load.url], capture_output=True, text=True, check=True).stdout
    spent = _processor_seconds(load.pid) - before
    requests = int(_found(r"(\d+) requests in", told))
    if "Non-2xx" in told or not requests:
        sys.exit(f"{load.name}: not every request was answered well:\n{told}")
    return Run(
        rate=float(_found(r"Requests/sec:\s+([\d.]+)", told)),
        cost=spent / requests * 1e6,
        median=_found(r"\n\s+50%\s+(\S+)", told),
        slowest=_found(r"\n\s+99%\s+(\S+)", told),
    )


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match, f"wrk wrote nothing like {pattern!r}:\n{text}"
    return match[1]


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _middle(runs: Sequence[Run]) -> Run:
    """The run of median cost, with the median rate."""
    run = sorted(runs, key=lambda one: one.cost)[len(runs) // 2]
    return run._replace(rate=statistics.median(one.rate for one in runs))


def _report(
    loads: Sequence[Load], found: Mapping[str, Run], seconds: int, rounds: int, server: str
) -> str:
    known = installed(sys.executable, (*PACKAGES, *OPTIONAL))
    versions = [f"{name} {known[name]}" for name in PACKAGES]
    versions += [f"{name} {known[name]}" if name in known else f"no {name}" for name in OPTIONAL]
    processor = _found(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text("utf-8"))
    rows = []
    for load in loads:
        run = found[load.name]
        other = found.get(load.against or "")
        ratio = f"{other.cost / run.cost:.1f}" if other else ""
        rows.append(
            f"| {load.name} | {run.cost:.0f} | {1e6 / run.cost:.0f} | {ratio} | {run.rate:.0f} "
            f"| {run.median} | {run.slowest} |"
        )
    table = "\n".join(rows)
    return f"""\
# What creating and polling cost the API

`python -m tests.bench.api`, {datetime.now(UTC):%Y-%m-%d}: {rounds} rounds of {seconds} s with
{CONNECTIONS} connections, all loads in turn; medians. One server process each; the load, the server
and Redis (AOF, `appendfsync always`) share the machine, so what can be compared is the first
column: processor time of the server's process for each request. The ratio is to the reference's.

The reference is FastAPI over uvicorn. Its creation validates a pydantic model and calls Celery's
`apply_async`; its poll reads a Redis hash and has boto3 sign the link. It asks nobody for a key,
limits nobody's rate and records nothing at creation. Ours does, on every request.

| | µs of processor | requests/s/core | ratio | requests/s here | half within | 99 % within |
|---|---|---|---|---|---|---|
{table}

{os.cpu_count()} cores of {processor}, {platform.system()} {platform.release()}, Python
{platform.python_version()}, Redis {server}, {", ".join(versions)}.
"""


if __name__ == "__main__":
    main()
