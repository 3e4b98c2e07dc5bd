"""ClickHouse inside the process: one INSERT from the pages' addresses into S3."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from tests.bench.starting import Order, run

# By name, because a type checker need not have it installed.
chdb: Any = importlib.import_module("chdb")
NOT_TEXT = {"expired": "Bool", "visa_sponsored": "Bool", "growth_score": "Float64"}
SETTINGS = {
    "input_format_json_read_objects_as_strings": 1,
    "input_format_json_read_arrays_as_strings": 1,
    "input_format_skip_unknown_fields": 1,
    "output_format_csv_crlf_end_of_line": 1,
    "format_csv_null_representation": "''",
    "s3_truncate_on_insert": 1,
    "glob_expansion_max_elements": 1_000_000,
    "max_threads": os.cpu_count() or 1,
}


def work(order: Order) -> None:
    keys = f"'{os.environ['AWS_ACCESS_KEY_ID']}', '{os.environ['AWS_SECRET_ACCESS_KEY']}'"
    shape = "CSVWithNames" if order.plain == "csv" else "LineAsString"
    packing = "gzip" if order.packed else "none"
    place = f"'{order.endpoint}/{order.bucket}/{order.key}'"
    settings = ", ".join(f"{name} = {value}" for name, value in SETTINGS.items())
    chdb.query(
        f"insert into function s3({place}, {keys}, '{shape}', 'auto', '{packing}') "
        f"{csv_rows(order) if order.plain == 'csv' else json_rows(order)} settings {settings}"
    )


def csv_rows(order: Order) -> str:
    """A query for all postings as rows, lists and objects as JSON text."""
    fields = ", ".join(
        f"`{name}` Nullable({NOT_TEXT.get(name, 'String')})" for name in order.columns
    )
    if "lines" in sys.argv:
        return f"select * from url('{every_page(order)}', 'JSONEachRow', '{fields}')"
    names = ", ".join(f"tupleElement(job, '{name}') as `{name}`" for name in order.columns)
    return f"select {names} from ({unnested(order, f'Tuple({fields})')})"


def json_rows(order: Order) -> str:
    """A query for the JSON text of all postings."""
    if "lines" in sys.argv:
        return f"select json from url('{every_page(order)}', 'JSONAsString', 'json String')"
    return unnested(order, "String")


def unnested(order: Order, type_: str) -> str:
    return (
        "select arrayJoin(jobs) as job from "
        f"url('{every_page(order)}', 'JSONEachRow', 'jobs Array({type_})')"
    )


def every_page(order: Order) -> str:
    """All addresses in one."""
    place = "nd/{}.ndjson" if "lines" in sys.argv else "pages/{}.json"
    return f"{order.pages}/{place.format(f'{{1..{order.last}}}')}"


if __name__ == "__main__":
    run(work)
