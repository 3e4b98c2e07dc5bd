"""The floor: what must be done for the file and nothing else, in one thread.

A page is received by a plain socket, validated, cut and written by the compiled library, and put
into S3 in parts by another plain socket: no retries, checkpoints, proof, leases or checksums.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from exporter.core.buffers import Buffer
from exporter.core.checkpoints import RowCounts
from exporter.formats.base import State
from exporter.formats.compression import Gzip
from exporter.formats.compression import State as Packed
from exporter.formats.csv import Csv
from exporter.formats.json import JsonLines
from exporter.native import pages, writers
from tests.bench.starting import Order, run

PART = 8 * 1024 * 1024
HEAD_MAX = 4096
HOUR = 3600


class Connection:
    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self._host = place.netloc
        self._socket = socket.create_connection((str(place.hostname), place.port or 80))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, method: str, url: str, body: bytes | memoryview = b"") -> tuple[bytes, bytes]:
        """The head and the body of the answer. Raises RuntimeError unless its status is 200."""
        place = urlsplit(url)
        target = f"{place.path}?{place.query}"
        head = f"{method} {target} HTTP/1.1\r\nhost: {self._host}\r\ncontent-length: {len(body)}"
        self._socket.sendall(f"{head}\r\n\r\n".encode())
        self._socket.sendall(body)
        end = -1
        while end < 0:
            seen = self._socket.recv(HEAD_MAX, socket.MSG_PEEK)
            end = seen.find(b"\r\n\r\n")
            assert end >= 0 or 0 < len(seen) < HEAD_MAX, "the answer has no end of its head"
        answer = self._socket.recv(end + 4)
        size = re.search(rb"(?i)\r\ncontent-length: *(\d+)", answer)
        length = int(size[1]) if size else HEAD_MAX
        content = self._socket.recv(length, socket.MSG_WAITALL if size else 0) if length else b""
        if b" 200 " not in answer[:16] or (size and len(content) < length):
            raise RuntimeError(f"{method} {url}: {answer!r} {content[:500]!r}")
        return answer, content


class Upload:
    """A multipart upload whose part lies in memory that is filled again and again."""

    def __init__(self, order: Order) -> None:
        self._at = f"{order.endpoint}/{order.bucket}/{order.key}"
        self._keys = Credentials(
            os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
        )
        self._connection = Connection(order.endpoint)
        self._part = memoryview(bytearray(PART))
        self._size = 0
        self._etags: list[bytes] = []
        _, answer = self._connection.ask("POST", self._signed("POST", "uploads="))
        self._id = answer.partition(b"<UploadId>")[2].partition(b"<")[0].decode()

    def write(self, data: bytes | memoryview) -> None:
        with memoryview(data) as rest:
            while rest:
                some = rest[: PART - self._size]
                self._part[self._size : self._size + len(some)] = some
                self._size += len(some)
                rest = rest[len(some) :]
                if self._size == PART:
                    self._put()

    def close(self) -> None:
        if self._size:
            self._put()
        named = b"".join(
            b"<Part><PartNumber>%d</PartNumber><ETag>%b</ETag></Part>" % (number, etag)
            for number, etag in enumerate(self._etags, 1)
        )
        url = self._signed("POST", f"uploadId={self._id}")
        body = b"<CompleteMultipartUpload>%b</CompleteMultipartUpload>" % named
        self._connection.ask("POST", url, body)

    def _put(self) -> None:
        url = self._signed("PUT", f"partNumber={len(self._etags) + 1}&uploadId={self._id}")
        head, _ = self._connection.ask("PUT", url, self._part[: self._size])
        found = re.search(rb"(?i)\r\netag: *(\S+)", head)
        assert found is not None
        self._etags.append(found[1])
        self._size = 0

    def _signed(self, method: str, query: str) -> str:
        request = AWSRequest(method, f"{self._at}?{query}")
        S3SigV4QueryAuth(self._keys, "s3", os.environ["AWS_DEFAULT_REGION"], HOUR).add_auth(request)
        return str(request.url)


def work(order: Order) -> None:
    upload, upstream = Upload(order), Connection(order.pages)
    packer = Gzip(Packed()) if order.packed else None
    write, head = _writer(order.columns if order.plain == "csv" else ())
    out = Buffer()
    upload.write(packer.begin() + packer.compress(head) if packer else head)
    for url in order.page_files:
        _, body = upstream.ask("GET", url)
        page = pages.cut(body, ("jobs",), None)
        assert page is not None, "the compiled library is missing, or the page is no sound JSON"
        write(page.rows, out)
        with out.view() as lines:
            upload.write(packer.compress(lines) if packer else lines)
        out.truncate(0)
    if packer is not None:
        upload.write(packer.end())
    upload.close()


def _writer(columns: Sequence[str]) -> tuple[Callable[[pages.Rows, Buffer], object], bytes]:
    """Returns what appends rows, without columns as JSON Lines, and the head of a file."""
    encoder = Csv(columns) if columns else JsonLines()
    writer, counts, head = writers.Writer(columns), RowCounts(), Buffer()
    encoder.open(State(), head)

    def write(rows: pages.Rows, out: Buffer) -> object:
        def odd(index: int) -> None:
            encoder.encode([rows[index]], counts, State(), out)

        if columns:
            return writer.write_csv(rows, out, counts, odd)
        return writer.write_json(rows, out, counts, odd, b"\n")

    return write, bytes(head)


if __name__ == "__main__":
    run(work)
