"""dlt: its declarative REST source into its filesystem destination on S3."""

from __future__ import annotations

import os
from typing import Any

import dlt
from dlt.destinations import filesystem
from dlt.sources.rest_api import rest_api_source

from tests.bench.starting import Order, run

WIDEST = 2**63


def fitting(posting: dict[str, Any]) -> dict[str, Any]:
    """Integers beyond 64 bits as text: dlt fails on them otherwise."""
    number = posting.get("requisition")
    if number is not None and number >= WIDEST:
        posting["requisition"] = str(number)
    return posting


def work(order: Order) -> None:
    source = rest_api_source(
        {
            "client": {
                "base_url": f"{order.pages}/",
                "paginator": {
                    "type": "page_number",
                    "base_page": 1,
                    "total_path": None,
                    "maximum_page": order.last + 1,
                },
            },
            "resources": [
                {
                    "name": "jobs",
                    "endpoint": {"path": "pages", "data_selector": "jobs"},
                    "processing_steps": [{"map": fitting}],
                }
            ],
        }
    )
    # Otherwise every list becomes a table of its own.
    source.max_table_nesting = 0
    dlt.config["normalize.data_writer.disable_compression"] = not order.packed
    pipeline = dlt.pipeline(
        pipeline_name="bench",
        pipelines_dir=order.scratch,
        dataset_name=order.key.replace("-", "_"),
        destination=filesystem(
            bucket_url=f"s3://{order.bucket}",
            credentials={
                "aws_access_key_id": os.environ["AWS_ACCESS_KEY_ID"],
                "aws_secret_access_key": os.environ["AWS_SECRET_ACCESS_KEY"],
                "endpoint_url": order.endpoint,
                "region_name": "us-east-1",
            },
        ),
    )
    pipeline.run(source, loader_file_format="csv" if order.plain == "csv" else "jsonl")


if __name__ == "__main__":
    run(work)
