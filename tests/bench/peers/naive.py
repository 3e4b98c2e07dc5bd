"""What one writes first: page by page with httpx, json and csv into a file, then upload_file."""

from __future__ import annotations

import contextlib
import csv
import gzip
import json
from pathlib import Path
from typing import Any

import boto3
import httpx

from tests.bench.starting import Order, run


def work(order: Order) -> None:
    path = Path(order.scratch, "file")
    with contextlib.ExitStack() as open_until_here:
        opened = gzip.open if order.packed else open
        file = open_until_here.enter_context(opened(path, "wt", encoding="utf-8", newline=""))
        client = open_until_here.enter_context(httpx.Client())
        writer = csv.DictWriter(file, order.columns, extrasaction="ignore")
        if order.plain == "csv":
            writer.writeheader()
        for number in range(1, order.last + 1):
            answer = client.get(f"{order.pages}/pages/{number}.json")
            answer.raise_for_status()
            for posting in answer.json()["jobs"]:
                if order.plain == "csv":
                    writer.writerow({name: cell(value) for name, value in posting.items()})
                else:
                    file.write(json.dumps(posting, ensure_ascii=False) + "\n")
    s3 = boto3.client("s3", endpoint_url=order.endpoint)
    s3.upload_file(str(path), order.bucket, order.key)


def cell(value: Any) -> Any:
    """Lists and objects as JSON text, true and false as JSON writes them."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return value


if __name__ == "__main__":
    # What boto3 knows of S3 is read before the order comes, as in the others.
    boto3.client("s3")
    run(work)
