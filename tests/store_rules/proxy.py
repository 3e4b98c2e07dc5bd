"""The proxy: checks the signature, asks the rules, and passes the request on."""

from __future__ import annotations

import http.client
import re
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from typing import NamedTuple, Self
from urllib.parse import parse_qsl, quote, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.store_rules import signing
from tests.store_rules.rules import PROFILES, Call, Refusal

PIECE_BYTES = 256 * 1024
UPSTREAM_TIMEOUT_SECONDS = 120
_NOT_PASSED_ON = frozenset({"authorization", "connection", "expect", "host", "x-amz-date"})


class Seen(NamedTuple):
    """A request that arrived."""

    operation: str
    key: str
    headers: Mapping[str, str]


class _Body:
    """The body of a request, read in pieces and never beyond its end."""

    def __init__(self, stream: BufferedIOBase, length: int) -> None:
        self._stream = stream
        self.left = length

    def read(self, size: int = -1) -> bytes:
        piece = self._stream.read(self.left if size < 0 else min(size, self.left))
        self.left -= len(piece)
        return piece


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Whole answers in one write: head and body apart cost 40 ms each, by Nagle's algorithm.
    wbufsize = -1
    server: _Server

    def handle_one_request(self) -> None:
        # A client that is killed in the middle of a request is what some tests are about.
        try:
            super().handle_one_request()
        except (OSError, http.client.HTTPException):
            self.close_connection = True

    def handle_expect_100(self) -> bool:
        going_on = super().handle_expect_100()
        self.wfile.flush()
        return going_on

    def _serve(self) -> None:
        store = self.server.store
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = _Body(self.rfile, int(headers.get("content-length", 0)))
        bucket, key, virtual = _place(headers.get("host", ""), self.path)
        query = dict(parse_qsl(self.path.partition("?")[2], keep_blank_values=True))
        operation = _operation(self.command, bool(key), query, headers)
        # The only body that a rule reads is a list of parts, which is small.
        whole = body.read() if operation == "CompleteMultipartUpload" else b""
        call = Call(
            operation,
            bucket,
            key,
            query,
            headers,
            virtual,
            _region(headers, query),
            lambda: self._part_sizes(self._path(bucket, virtual=virtual), query["uploadId"]),
            whole,
        )
        store.requests.append(Seen(operation, key, headers))
        refusal = self._refusal(call)
        if refusal is not None:
            store.refused.append((operation, refusal.code))
            if not key.endswith("/sizes"):
                store.refused_work.append((operation, refusal.code))
            while body.read(PIECE_BYTES):
                pass
            self._refuse(refusal)
            return
        self._pass_on(call, whole or (body if body.left else b""))

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve  # noqa: N815 - http.server's names

    def _refusal(self, call: Call) -> Refusal | None:
        wrong = signing.refusal(self.server.store.keys, self.command, self.path, call.headers)
        if wrong is not None:
            return Refusal(*wrong)
        found = (rule(call) for rule in self.server.store.profile.rules)
        return next((one for one in found if one is not None), None)

    def _refuse(self, refusal: Refusal) -> None:
        text = (
            '<?xml version="1.0" encoding="UTF-8"?>'
            f"<Error><Code>{refusal.code}</Code><Message>{escape(refusal.text)}</Message></Error>"
        )
        content = b"" if self.command == "HEAD" else text.encode()
        self.send_response_only(refusal.status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _pass_on(self, call: Call, body: bytes | _Body) -> None:
        left_out = _NOT_PASSED_ON | self.server.store.profile.not_passed_on
        headers = {name: value for name, value in call.headers.items() if name not in left_out}
        query = self.path.partition("?")[2]
        # The signature of a link is replaced by one in a header.
        pairs = [pair for pair in query.split("&") if pair and not pair.startswith("X-Amz-")]
        target = self._path(call.bucket, virtual=call.virtual)
        target += f"?{'&'.join(pairs)}" if pairs else ""
        answer, connection = self.server.store.send(self.command, target, headers, body)
        try:
            self.send_response_only(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                    self.send_header(name, value)
            self._copy(answer)
        finally:
            connection.close()

    def _copy(self, answer: http.client.HTTPResponse) -> None:
        length = answer.getheader("Content-Length")
        if length is None and self.command != "HEAD":
            content = answer.read()
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            return
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        while piece := answer.read(PIECE_BYTES):
            self.wfile.write(piece)
        self.wfile.flush()

    def _path(self, bucket: str, *, virtual: bool) -> str:
        """Returns the path of the request with the bucket in it."""
        path = self.path.partition("?")[0]
        return f"/{bucket}{path}" if virtual else path

    def _part_sizes(self, path: str, upload_id: str) -> dict[int, int]:
        sizes: dict[int, int] = {}
        marker = 0
        while True:
            query = f"max-parts=1000&part-number-marker={marker}&uploadId={quote(upload_id, '')}"
            answer, connection = self.server.store.send("GET", f"{path}?{query}", {}, b"")
            try:
                text = answer.read().decode()
            finally:
                connection.close()
            for part in re.findall(r"<Part>.*?</Part>", text, re.DOTALL):
                numbers = re.findall(r"<(PartNumber|Size)>(\d+)</", part)
                found = {name: int(number) for name, number in numbers}
                sizes[found["PartNumber"]] = found["Size"]
            if "<IsTruncated>true" not in text:
                return sizes
            marker = max(sizes)

    def log_message(self, *_: object) -> None:
        pass


def _place(host: str, target: str) -> tuple[str, str, bool]:
    """Returns bucket, key, and whether the bucket is in the host name."""
    path = unquote(target.partition("?")[0]).removeprefix("/")
    name = host.rpartition(":")[0] or host
    if name.endswith(".localhost"):
        return name.removesuffix(".localhost"), path, True
    bucket, _, key = path.partition("/")
    return bucket, key, False


def _operation(
    method: str, has_key: bool, query: Mapping[str, str], headers: Mapping[str, str]
) -> str:
    if not has_key:
        return "ListMultipartUploads" if "uploads" in query else f"{method.title()}Bucket"
    copies = "x-amz-copy-source" in headers
    if method == "PUT" and "partNumber" in query:
        return "UploadPartCopy" if copies else "UploadPart"
    if method == "POST":
        return "CreateMultipartUpload" if "uploads" in query else "CompleteMultipartUpload"
    if method == "DELETE" and "uploadId" in query:
        return "AbortMultipartUpload"
    if method == "PUT" and copies:
        return "CopyObject"
    return f"{method.title()}Object"


def _region(headers: Mapping[str, str], query: Mapping[str, str]) -> str:
    found = re.search(r"Credential=([^,]*)", headers.get("authorization", ""))
    scope = (found[1] if found else query.get("X-Amz-Credential", "")).split("/")
    return scope[2] if len(scope) > 2 else ""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    store: StoreRules


class StoreRules:
    """A store with the rules of `profile`, in front of the real store at `upstream_url`."""

    def __init__(
        self, profile: str, upstream_url: str, access_key: str, secret_key: str, port: int = 0
    ) -> None:
        self.profile = PROFILES[profile]
        self.keys = signing.Keys(access_key, secret_key)
        self.requests: list[Seen] = []
        self.refused: list[tuple[str, str]] = []
        """Operation and code of each refusal."""
        self.refused_work: list[tuple[str, str]] = []
        """The same without those of the upload that asks whether parts may differ in size."""
        self._upstream = urlsplit(upstream_url).netloc
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.store = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        number = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{number}"
        self.virtual_url = f"http://localhost:{number}"

    def send(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | _Body
    ) -> tuple[http.client.HTTPResponse, http.client.HTTPConnection]:
        """Sends a request to the real store, signed anew."""
        own = {**headers, "host": self._upstream}
        signing.sign(self.keys, method, target, own)
        connection = http.client.HTTPConnection(
            self._upstream, timeout=UPSTREAM_TIMEOUT_SECONDS, blocksize=PIECE_BYTES
        )
        connection.request(method, target, body or None, own)
        return connection.getresponse(), connection

    def serve(self) -> None:
        """Answers requests until the process ends."""
        self._server.serve_forever()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
