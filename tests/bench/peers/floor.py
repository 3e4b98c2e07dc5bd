"""The floor: what must be done for the file and nothing else, in one thread.

A page is received by a plain socket, validated and cut by the compiled library, written by it, and
put into S3 in parts by another plain socket, page after page. No retries, no checkpoints, no proof
of the end, no leases, no search for repeated rows, no checksums of parts.
"""

from __future__ import annotations

import os
import re
import socket
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
from exporter.native import pages
from tests.bench.starting import Order, run

PART = 8 * 1024 * 1024
"""Bytes of a part, as of ours."""
HEAD_MAX = 4096
"""Bytes of the head of an answer at most."""
HOUR = 3600


class Connection:
    """One kept connection to one host."""

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self._host = place.netloc.encode()
        self._socket = socket.create_connection((str(place.hostname), place.port or 80))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(
        self, method: str, url: str, body: bytes | memoryview | None = None
    ) -> tuple[bytes, bytes]:
        """The head and the body of the answer. Raises RuntimeError unless its status is 200."""
        place = urlsplit(url)
        head = b"%b %b?%b HTTP/1.1\r\nhost: %b\r\n" % (
            *(text.encode() for text in (method, place.path, place.query)),
            self._host,
        )
        if body is None:
            self._socket.sendall(head + b"\r\n")
        else:
            self._socket.sendall(head + b"content-length: %d\r\n\r\n" % len(body))
            self._socket.sendall(body)
        end = -1
        while end < 0:
            seen = self._socket.recv(HEAD_MAX, socket.MSG_PEEK)
            end = seen.find(b"\r\n\r\n")
            if end < 0 and (not seen or len(seen) == HEAD_MAX):
                raise RuntimeError("the answer ended early")
        answer = self._socket.recv(end + 4)
        size = re.search(rb"(?i)\r\ncontent-length: *(\d+)", answer)
        length = int(size[1]) if size else HEAD_MAX
        # One piece of memory, filled by the kernel.
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
        _, answer = self._connection.ask("POST", self._signed("POST", "uploads="), b"")
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
    upload = Upload(order)
    upstream = Connection(order.pages)
    encoder = Csv(order.columns) if order.plain == "csv" else JsonLines()
    packer = Gzip(Packed()) if order.packed else None
    counts, state, out = RowCounts(), State(), Buffer()
    if packer is not None:
        upload.write(packer.begin())
    encoder.open(state, out)
    for url in order.page_files:
        _, body = upstream.ask("GET", url)
        page = pages.cut(body, ("jobs",), None)
        assert page is not None, "the compiled library is missing, or the page is no sound JSON"
        encoder.encode(page.rows, counts, state, out)
        with out.view() as lines:
            upload.write(packer.compress(lines) if packer else lines)
        out.truncate(0)
    encoder.close(state, out)
    upload.write(packer.compress(bytes(out)) + packer.end() if packer else bytes(out))
    upload.close()


if __name__ == "__main__":
    run(work)
