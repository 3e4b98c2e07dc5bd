"""Polars: a lazy frame from the pages' addresses, sunk into S3."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from tests.bench.starting import Order, run

# By name, because a type checker need not have it installed.
pl: Any = importlib.import_module("polars")
NOT_TEXT = {"expired": pl.Boolean, "visa_sponsored": pl.Boolean, "growth_score": pl.Float64}
MIXED = {"job_type": pl.String, "location_type": pl.String}
"""Either text or a list: read as text, a list is its JSON text."""
SHAPELESS = "nested"
"""A list of lists of anything, which no column can hold."""
LOOKED_AT = 5
"""Pages from which the columns are learned."""


def work(order: Order) -> None:
    if order.plain == "csv":
        schema = {name: NOT_TEXT.get(name, pl.String) for name in order.columns}
    else:
        first = order._replace(rows=min(order.rows, LOOKED_AT * order.page))
        seen = pl.scan_ndjson(
            first.line_files, schema_overrides=MIXED, infer_schema_length=None
        ).collect_schema()
        schema = {name: type_ for name, type_ in seen.items() if name != SHAPELESS}
    place = f"s3://{order.bucket}/{order.key}"
    how: dict[str, Any] = {
        "compression": "gzip" if order.packed else "uncompressed",
        "check_extension": False,
        "storage_options": {
            "aws_access_key_id": os.environ["AWS_ACCESS_KEY_ID"],
            "aws_secret_access_key": os.environ["AWS_SECRET_ACCESS_KEY"],
            "aws_region": "us-east-1",
            "aws_endpoint_url": order.endpoint,
            "aws_allow_http": "true",
        },
    }
    frame = rows(order, schema)
    if order.plain == "csv":
        frame.sink_csv(place, line_terminator="\r\n", **how)
    else:
        frame.sink_ndjson(place, **how)


def rows(order: Order, schema: dict[str, Any]) -> Any:
    """A lazy frame of all postings."""
    if "lines" in sys.argv:
        return pl.scan_ndjson(order.line_files, schema=schema)
    pages = pl.scan_ndjson(order.page_files, schema={"jobs": pl.List(pl.Struct(schema))})
    return pages.select(pl.col("jobs").explode()).unnest("jobs")


if __name__ == "__main__":
    run(work)
