"""DuckDB: one COPY from the pages' addresses to S3."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import duckdb

from tests.bench.starting import Order, run

NOT_TEXT = {"expired": "BOOLEAN", "visa_sponsored": "BOOLEAN", "growth_score": "DOUBLE"}
NESTED = (
    *("job_type", "location_type", "locations", "salary_range", "yoe_range", "job_categories"),
    *("technologies", "skills"),
)
MIXED = ("job_type", "location_type")
"""Either text, which is then without its quotes, or a list."""
LARGEST = 64 * 1024 * 1024
"""Bytes of a page at most; the default is too small for a page of long postings."""
AS_LINES = "format csv, header false, quote '', escape '', delimiter E'\\x01'"
"""Texts as they are, one a line."""


def work(order: Order) -> None:
    database = connect(order)
    if order.plain == "csv":
        names = ", ".join(
            f'"{name}" ->> \'$\' as "{name}"' if name in MIXED else f'"{name}"'
            for name in order.columns
        )
        rows, how = f"select {names} from ({csv_rows(order)})", "format csv, header"
    else:
        rows, how = json_rows(order), AS_LINES
    packing = "gzip" if order.packed else "none"
    database.execute(
        f"copy ({rows}) to 's3://{order.bucket}/{order.key}' ({how}, compression {packing})"
    )


def csv_rows(order: Order) -> str:
    """A query for all postings as rows, lists and objects as JSON text."""
    types = {name: NOT_TEXT.get(name, "VARCHAR") for name in order.columns}
    types |= dict.fromkeys(NESTED, "JSON")
    if "lines" in sys.argv:
        return f"select * from read_json({order.line_files}, format = 'nd', columns = {types})"
    fields = ", ".join(f'"{name}" {type_}' for name, type_ in types.items())
    pages = (
        f"read_json({order.page_files}, format = 'unstructured', maximum_object_size = {LARGEST}, "
        f"columns = {{'jobs': 'struct({fields})[]'}})"
    )
    return f"select job.* from (select unnest(jobs) as job from {pages})"


def json_rows(order: Order) -> str:
    """A query for the JSON text of all postings."""
    if "lines" in sys.argv:
        return f"select json from read_ndjson_objects({order.line_files})"
    pages = (
        f"read_json({order.page_files}, format = 'unstructured', maximum_object_size = {LARGEST}, "
        "columns = {'jobs': 'JSON[]'})"
    )
    return f"select unnest(jobs) as job from {pages}"


def connect(order: Order) -> duckdb.DuckDBPyConnection:
    """A database that speaks HTTP and S3. Its extension for that is the one of the package
    duckdb-extension-httpfs, if there is one, or else comes from DuckDB's own host."""
    database = duckdb.connect(config={"threads": os.cpu_count() or 1})
    found = importlib.util.find_spec("duckdb_extension_httpfs")
    if found is not None and found.origin is not None:
        extension = next(Path(found.origin).parent.rglob("httpfs.duckdb_extension"))
        database.execute(f"load '{extension}'")
    else:
        database.execute("install httpfs; load httpfs")
    database.execute(
        f"create secret (type s3, key_id '{os.environ['AWS_ACCESS_KEY_ID']}', "
        f"secret '{os.environ['AWS_SECRET_ACCESS_KEY']}', region 'us-east-1', use_ssl false, "
        f"endpoint '{order.endpoint.removeprefix('http://')}', url_style 'path')"
    )
    return database


if __name__ == "__main__":
    run(work)
