"""Whether what a contestant wrote holds the postings: which, in what order, cell by cell."""

from __future__ import annotations

import csv
import gzip
import io
import json
import urllib.request
from typing import Any

from tests.bench.contestants import COLUMNS
from tests.bench.servers import BUCKET, Servers
from tests.bench.upstream import PAGE

csv.field_size_limit(2**24)


def reference(servers: Servers, rows: int) -> list[dict[str, Any]]:
    """The postings as the upstream gives them, read by the standard library."""
    postings: list[dict[str, Any]] = []
    for number in range(1, rows // PAGE + 1):
        with urllib.request.urlopen(f"{servers.upstream}/{rows}/pages/{number}.json") as answer:
            postings += json.load(answer)["jobs"]
    return postings


def look(servers: Servers, wanted: list[dict[str, Any]], format_: str) -> str:
    """What was found in the bucket, as one line of text."""
    client = servers.client()
    rows: list[dict[str, Any]] = []
    # dlt writes files of its own beside the data.
    keys = [key for key in servers.sizes() if "_dlt" not in key and "/init" not in key]
    for key in keys:
        body = client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        if format_.endswith(".gz") and body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        text = body.decode()
        if format_.startswith("csv"):
            rows += csv.DictReader(io.StringIO(text, newline=""))
        else:
            rows += [json.loads(line) for line in text.split("\n") if line]
    ids, wanted_ids = [row["_id"] for row in rows], [one["_id"] for one in wanted]
    by_id = {row["_id"]: row for row in rows}
    is_csv = format_.startswith("csv")
    wrong = [
        name
        for one in wanted
        for name in (COLUMNS if is_csv else one)
        if not _same(by_id.get(one["_id"], {}).get(name, ABSENT), one.get(name), is_csv)
    ]
    names = ", ".join(sorted(set(wrong)))
    return (
        f"{len(rows)} rows in {len(keys)} objects, ids "
        f"{'right' if sorted(ids) == sorted(wanted_ids) else 'WRONG'}, order "
        f"{'kept' if ids == wanted_ids else 'changed'}, values that differ: {len(wrong)}"
        + (f" ({names})" if wrong else "")
    )


ABSENT = object()


def _same(found: Any, wanted: Any, is_csv: bool) -> bool:
    if not is_csv:
        # Of equal value and equal type: 1 is not 1.0, and not true.
        return json.dumps(found, default=str) == json.dumps(wanted)
    if wanted is None:
        return bool(found == "")
    if isinstance(wanted, str):
        return bool(found == wanted)
    try:
        return bool(json.loads(found) == wanted)
    except (TypeError, ValueError):
        return False  # absent, empty, or no JSON
