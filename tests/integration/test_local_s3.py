"""The embedded S3 as a server; what an export asks of it is in tests/contract."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psutil
import pytest
from botocore.exceptions import ClientError

from exporter.local import ports
from exporter.local.s3 import S3Server

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MIB = 1024 * 1024
KEY, SECRET, BUCKET = "local-key", "local-secret-of-some-length", "exports"


def a_server(folder: Path) -> S3Server:
    return S3Server(folder, ports.find_free(1)[0], KEY, SECRET, BUCKET)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with a_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture
def client(server: S3Server) -> Iterator[S3Client]:
    client = server.client()
    yield client
    client.close()


def server_port(server: S3Server) -> int:
    return int(server.endpoint_url.rpartition(":")[2])


def get(url: str) -> tuple[int, bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port or 80, timeout=10)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}")
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def status(error: pytest.ExceptionInfo[ClientError]) -> int:
    return error.value.response["ResponseMetadata"]["HTTPStatusCode"]


def test_the_bucket_is_there_and_takes_an_upload_at_once(client: S3Client) -> None:
    # When
    client.put_object(Bucket=BUCKET, Key="first", Body=b"rows")

    # Then
    assert client.get_object(Bucket=BUCKET, Key="first")["Body"].read() == b"rows"


def test_a_request_without_a_key_or_with_a_wrong_one_is_refused(
    server: S3Server, client: S3Client
) -> None:
    # Given
    client.put_object(Bucket=BUCKET, Key="secret", Body=b"rows")
    wrong = S3Server(Path("unused"), server_port(server), KEY, "wrong", BUCKET).client()

    # When, then
    assert get(f"{server.endpoint_url}/{BUCKET}/secret")[0] == 403
    with pytest.raises(ClientError) as refused:
        wrong.get_object(Bucket=BUCKET, Key="secret")
    assert status(refused) == 403
    wrong.close()


def test_it_listens_on_this_machine_only_and_takes_only_room_that_is_used(
    server: S3Server, client: S3Client
) -> None:
    # Given
    client.put_object(Bucket=BUCKET, Key="small", Body=b"x")

    # When
    process = psutil.Process(server.pid)
    listening = [c.laddr for c in process.net_connections("tcp") if c.status == "LISTEN"]
    blocks = sum(
        path.stat().st_blocks * 512 for path in Path(process.cwd()).rglob("*.dat") if path.is_file()
    )

    # Then
    assert {address.ip for address in listening} == {"127.0.0.1"}
    assert blocks < 64 * MIB


def test_objects_survive_kill_9_and_other_ports_and_nothing_stays_in_tmp(tmp_path: Path) -> None:
    # Given
    before = set(Path("/tmp").glob("seaweedfs-*.sock"))
    first = a_server(tmp_path)
    first.start()
    client = first.client()
    client.put_object(Bucket=BUCKET, Key="kept", Body=b"rows")
    client.close()

    # When
    first.kill()

    # Then
    with a_server(tmp_path) as second:
        client = second.client()
        assert client.get_object(Bucket=BUCKET, Key="kept")["Body"].read() == b"rows"
        client.close()
        mine = set(Path("/tmp").glob(f"seaweedfs-*{server_port(second)}.sock"))
        assert mine
    left = set(Path("/tmp").glob("seaweedfs-*.sock")) - before
    assert not {path for path in left if str(server_port(first)) in path.name} | (left & mine)
