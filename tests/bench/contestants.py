"""Who takes part, and what each of them does not do."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from typing import NamedTuple

from tests.bench.servers import ROOT

FORMATS = ("csv", "csv.gz", "jsonl", "jsonl.gz")
COLUMNS = (
    *("_id", "company_name", "company_slug", "company_logo", "contact_email", "job_title"),
    *("job_slug", "description", "requirements_summary", "application_link", "job_board"),
    *("job_type", "location_type", "location_raw", "locations", "date_posted", "expired"),
    *("salary_range", "yoe_range", "experience_level", "education_level", "job_categories"),
    *("technologies", "skills", "visa_sponsored", "growth_score"),
)
"""Of the CSV of everybody: 26, of which six hold lists or objects and two hold either text or a
list. JSON Lines are whole postings."""
SHOWN = ("duckdb", "polars", "chdb", "dlt", "httpx", "orjson", "boto3")
"""Packages whose versions are told."""


class Contestant(NamedTuple):
    """One way to make the file."""

    name: str
    what: str
    module: str
    needs: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    workers: int = 1
    here: bool = False
    """Whether our own interpreter runs it, not that of the peers."""
    apart: str = ""
    """In what it differs from the others, for the reader of its figures."""

    @property
    def ours(self) -> bool:
        """Whether it is a worker of this project."""
        return self.module == "tests.bench.worker"


ALL = (
    Contestant(
        "ours-1",
        "exporter, 1 worker process",
        "tests.bench.worker",
        here=True,
        apart="Checkpoints every part in Redis; the end of the data is proven.",
    ),
    Contestant(
        "ours-2",
        "exporter, 2 worker processes",
        "tests.bench.worker",
        workers=2,
        here=True,
        apart="As above; one export, cut into page ranges that both work on.",
    ),
    Contestant(
        "floor",
        "raw sockets and our compiled library",
        "tests.bench.peers.floor",
        here=True,
        apart="What must be done and nothing else, page after page in one thread: no retries, "
        "checkpoints, proof, leases, search for repeated rows or checksums of parts.",
    ),
    Contestant(
        "naive",
        "httpx + json + csv.DictWriter, upload_file",
        "tests.bench.peers.naive",
        ("httpx", "boto3"),
        apart="Keeps the file on a local disk first. gzip at Python's default level, 9.",
    ),
    Contestant(
        "careful",
        "httpx + orjson + csv.writer, upload_part",
        "tests.bench.peers.careful",
        ("httpx", "orjson", "boto3"),
        apart="gzip at level 6. As JSON, integers beyond 64 bits become floats.",
    ),
    Contestant(
        "duckdb",
        "DuckDB, pages",
        "tests.bench.peers.duckdb_sql",
        ("duckdb",),
        apart="Lists and objects stay JSON text.",
    ),
    Contestant(
        "duckdb-nd",
        "DuckDB, lines",
        "tests.bench.peers.duckdb_sql",
        ("duckdb",),
        arguments=("lines",),
        apart="As above, of postings that somebody has cut into lines before.",
    ),
    Contestant(
        "polars",
        "Polars, pages",
        "tests.bench.peers.polars_frames",
        ("polars",),
        apart="As JSON Lines, every row has one schema: a field without a shape is left out, "
        "absent ones are null, lists where others have text are text.",
    ),
    Contestant(
        "polars-nd",
        "Polars, lines",
        "tests.bench.peers.polars_frames",
        ("polars",),
        arguments=("lines",),
        apart="As above, of postings that somebody has cut into lines before.",
    ),
    Contestant(
        "chdb",
        "ClickHouse (chdb), pages",
        "tests.bench.peers.chdb_sql",
        ("chdb",),
        apart="Does not keep the order of rows.",
    ),
    Contestant(
        "chdb-nd",
        "ClickHouse (chdb), lines",
        "tests.bench.peers.chdb_sql",
        ("chdb",),
        arguments=("lines",),
        apart="As above, of postings that somebody has cut into lines before.",
    ),
    Contestant(
        "dlt",
        "dlt, rest_api to filesystem",
        "tests.bench.peers.dlt_load",
        ("dlt", "s3fs"),
        apart="Adds its state beside the file and two columns to it; infers types, so that dates "
        "change and a field of mixed shape becomes several; leaves out nulls in JSON Lines.",
    ),
)
OURS = ALL[0]
BY_NAME = {one.name: one for one in ALL}
ENGINES = ("duckdb", "polars", "chdb")
"""Those who read pages; lines would have to be cut by somebody before."""
WAITING = tuple(
    BY_NAME[name] for name in ("ours-1", "ours-2", "floor", "chdb", "polars", "polars-nd")
)
"""Who is measured with pages that take a while."""

_LOOK = """\
import importlib.metadata as m, importlib.util as u, json, sys
asked = json.loads(sys.argv[1])
print(json.dumps({name: m.version(name) for name in asked if u.find_spec(name)}))
"""


def installed(python: str, names: Iterable[str]) -> dict[str, str]:
    """The versions of those of the packages that this interpreter can import."""
    ran = subprocess.run(
        [python, "-c", _LOOK, json.dumps(sorted(set(names)))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, str] = json.loads(ran.stdout)
    return found
