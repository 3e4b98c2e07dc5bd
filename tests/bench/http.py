"""CPU time of the HTTP client of sources: `python -m tests.bench.http [VARIANT ...]`.

A server in another process answers pages on the loopback interface, and each variant requests the
same pages through `Upstream`, in turns. The figure is the client's CPU seconds, of all its threads,
for a million rows: the median of the rounds. A variant is `NAME=MODULE:TRANSPORT`, where TRANSPORT
is a class to use in place of `DeadlineTransport`; `ours` is always measured. Alternate variants in
one call only: between two calls, the load of the machine changes more than the code.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib
import logging
import multiprocessing
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import structlog
import trustme

from exporter.clock import SystemClock
from exporter.local import ports
from exporter.sources.http import client
from exporter.sources.http.client import Upstream
from exporter.sources.http.transport import DeadlineTransport
from tests.bench import serving
from tests.bench.upstream import Pages
from tests.waiting import until

ROUNDS = 7
PAGES = 200
"""Pages of a round, after a tenth as many that are not measured."""
HOST = "localhost"


class Shape(NamedTuple):
    """Pages of one kind."""

    path: str
    rows: int
    tls: bool = False


SHAPES = {
    "big plain": Shape("/big", 200),
    "big gzip": Shape("/big.gz", 200),
    "small plain": Shape("/small", 100),
    "big plain TLS": Shape("/big", 200, tls=True),
    "big gzip TLS": Shape("/big.gz", 200, tls=True),
}


def main() -> None:
    """Measure all variants with all shapes and print a line for each variant."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    named = [text.partition("=")[::2] for text in sys.argv[1:]]
    variants = {"ours": DeadlineTransport} | {name: _load(at) for name, at in named}
    with tempfile.TemporaryDirectory() as folder, _served(Path(folder)) as bases:
        figures = {
            shape: _measure(bases[kind.tls], kind, variants) for shape, kind in SHAPES.items()
        }
    sys.stdout.write(f"CPU seconds for a million rows | {' | '.join(SHAPES)}\n")
    for name in variants:
        row = " | ".join(f"{figures[shape][name]:.2f}" for shape in SHAPES)
        sys.stdout.write(f"{name} | {row}\n")


def _measure(base: str, shape: Shape, variants: dict[str, type]) -> dict[str, float]:
    found: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(ROUNDS):
        order = list(variants)
        for name in order if number % 2 else order[::-1]:
            with mock.patch.object(client, "DeadlineTransport", variants[name]):
                upstream = Upstream(base, {"x-api-key": "k"}, SystemClock())
            for pages in (PAGES // 10, PAGES):
                began = time.process_time()
                for page in range(pages):
                    upstream.request("POST", shape.path, len, json={"page": page, "limit": 200})
                spent = time.process_time() - began
            upstream.close()
            found[name].append(spent / PAGES / shape.rows * 1e6)
    return {name: statistics.median(values) for name, values in found.items()}


@contextlib.contextmanager
def _served(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the base URLs of a server without and of one with TLS."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    authority.issue_cert(HOST).private_key_and_cert_chain_pem.write_to_path(str(folder / "own.pem"))
    plain, secure = ports.find_free(2)
    spawn = multiprocessing.get_context("spawn")
    servers = [
        spawn.Process(target=_serve, args=(plain, None), daemon=True),
        spawn.Process(target=_serve, args=(secure, str(folder / "own.pem")), daemon=True),
    ]
    for server in servers:
        server.start()
    with mock.patch.dict("os.environ", SSL_CERT_FILE=str(folder / "authority.pem")):
        bases = f"http://{HOST}:{plain}", f"https://{HOST}:{secure}"
        try:
            until(lambda: ports.is_listening(plain) and ports.is_listening(secure), 60)
            yield bases
        finally:
            for server in servers:
                server.terminate()
                server.join()


def _serve(port: int, certificate: str | None) -> None:
    page = b"".join(Pages(2_000).page(1, 2_000))
    small = b'{"jobs":[%b]}' % b",".join(
        b'{"_id":"%0.6d","x":"%b"}' % (n, b"x" * 276) for n in range(100)
    )
    answers = {
        "/big": serving.Answer(page),
        "/small": serving.Answer(small),
        "/big.gz": serving.Answer(gzip.compress(page), headers={"content-encoding": "gzip"}),
    }
    tls = None
    if certificate is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
    serving.serve(port, lambda asked: answers[asked.target], tls=tls)


def _load(at: str) -> type:
    module, _, name = at.partition(":")
    found = getattr(importlib.import_module(module), name)
    assert isinstance(found, type)
    return found


if __name__ == "__main__":
    main()
