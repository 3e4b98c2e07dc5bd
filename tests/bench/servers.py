"""What the contestants run against: an upstream, an S3 and a Redis, each a process of its own."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import boto3
from botocore.config import Config

from exporter.local import ports
from exporter.local.children import Child
from exporter.local.redis import RedisServer
from exporter.local.s3 import S3Server

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ROOT = Path(__file__).parents[2]
SINKS = ("null", "s3")
BUCKET = "exports"


class Servers(NamedTuple):
    """Addresses of what runs."""

    upstream: str
    endpoint: str
    redis_url: str
    access_key: str
    secret_key: str
    processes: tuple[int, int]
    """Ids of the upstream and of the S3."""

    def used(self) -> tuple[float, float]:
        """Seconds of CPU that the upstream and the S3 have used."""
        upstream, s3 = map(_cpu, self.processes)
        return upstream, s3

    @property
    def environment(self) -> dict[str, str]:
        """What a contestant's process sees: the keys, and nobody's settings or proxies."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/"),
            "LANG": "C.UTF-8",
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def client(self) -> S3Client:
        """A client of the S3."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}, proxies={}),
        )

    def sizes(self) -> dict[str, int]:
        """Bytes of each object in the bucket; there are fewer than 1,000."""
        found = self.client().list_objects_v2(Bucket=BUCKET)
        return {entry["Key"]: entry["Size"] for entry in found.get("Contents", ())}

    def written(self) -> int:
        """Bytes in the bucket."""
        return sum(self.sizes().values())

    def empty(self) -> None:
        """Delete all objects, so that a disk does not fill."""
        client = self.client()
        for key in self.sizes():
            client.delete_object(Bucket=BUCKET, Key=key)


@contextmanager
def running(directory: Path, sink: str, latency: float) -> Iterator[Servers]:
    """All of them, as long as the block runs; an upstream's answer waits `latency` ms."""
    access_key, secret_key = "AK" + secrets.token_hex(8), secrets.token_hex(16)
    with contextlib.ExitStack() as stack:
        upstream, s3, redis = ports.find_free(3)
        pages = stack.enter_context(_own("upstream", upstream, directory, str(latency)))
        store = stack.enter_context(
            _own("sink", s3, directory)
            if sink == "null"
            else S3Server(directory, s3, access_key, secret_key, BUCKET)
        )
        server = stack.enter_context(RedisServer(directory, redis))
        yield Servers(
            f"http://127.0.0.1:{upstream}",
            f"http://127.0.0.1:{s3}",
            server.url,
            access_key,
            secret_key,
            (pages.pid, store.pid),
        )


def _own(name: str, port: int, directory: Path, *arguments: str) -> Child:
    return Child(
        name,
        [sys.executable, "-m", f"tests.bench.{name}", str(port), *arguments],
        directory / "logs" / f"{name}.log",
        answers=lambda: ports.is_listening(port),
        env={"PATH": os.environ["PATH"]},
        cwd=ROOT,
    )


def _cpu(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
