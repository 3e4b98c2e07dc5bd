"""What one writes when it has to be quick: httpx, orjson and csv.writer, parts uploaded as they
fill, each by a thread beside the reading."""

from __future__ import annotations

import csv
import io
import zlib
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import boto3
import httpx
import orjson
from botocore.config import Config

from tests.bench.starting import Order, run

PART = 16 * 1024 * 1024
LEVEL = 6


class Upload:
    """A multipart upload with one part on its way at a time; one PUT of what is less than a
    part."""

    def __init__(self, order: Order) -> None:
        config = Config(
            request_checksum_calculation="when_required", s3={"payload_signing_enabled": False}
        )
        self._s3 = boto3.client("s3", endpoint_url=order.endpoint, config=config)
        self._place: dict[str, Any] = {"Bucket": order.bucket, "Key": order.key}
        self._id = ""
        self._thread = ThreadPoolExecutor(1)
        self._parts: list[Future[Any]] = []
        self._buffer = bytearray()

    def write(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) >= PART:
            self._put()

    def close(self) -> None:
        if not self._parts:
            self._s3.put_object(**self._place, Body=bytes(self._buffer))
            return
        self._put()
        parts = [part.result() for part in self._parts]
        self._s3.complete_multipart_upload(
            **self._place, UploadId=self._id, MultipartUpload={"Parts": parts}
        )
        self._thread.shutdown()

    def _put(self) -> None:
        if self._parts:
            self._parts[-1].result()
        else:
            self._id = self._s3.create_multipart_upload(**self._place)["UploadId"]
        number, body = len(self._parts) + 1, bytes(self._buffer)
        self._buffer.clear()
        self._parts.append(self._thread.submit(self._sent, number, body))

    def _sent(self, number: int, body: bytes) -> Any:
        answer = self._s3.upload_part(
            **self._place, UploadId=self._id, PartNumber=number, Body=body
        )
        return {"ETag": answer["ETag"], "PartNumber": number}


def work(order: Order) -> None:
    upload = Upload(order)
    packer = zlib.compressobj(LEVEL, wbits=31) if order.packed else None
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    if order.plain == "csv":
        writer.writerow(order.columns)
    with httpx.Client() as client:
        for number in range(1, order.last + 1):
            answer = client.get(f"{order.pages}/pages/{number}.json")
            answer.raise_for_status()
            postings = orjson.loads(answer.content)["jobs"]
            if order.plain == "csv":
                writer.writerows(
                    [cell(posting.get(name)) for name in order.columns] for posting in postings
                )
                data = text.getvalue().encode()
                text.seek(0)
                text.truncate()
            else:
                data = b"\n".join([*map(orjson.dumps, postings), b""])
            upload.write(packer.compress(data) if packer else data)
    if packer:
        upload.write(packer.flush())
    upload.close()


def cell(value: Any) -> Any:
    """Lists and objects as JSON text, true and false as JSON writes them."""
    if value is None or type(value) is str:
        return value
    if type(value) in (list, dict, bool):
        return orjson.dumps(value).decode()
    return value


if __name__ == "__main__":
    # What boto3 knows of S3 is read before the order comes, as in the others.
    boto3.client("s3")
    run(work)
