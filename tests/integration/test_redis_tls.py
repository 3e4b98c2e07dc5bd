"""Every client of Redis verifies the certificate of rediss:// unless the URL says otherwise."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import trustme
from kombu import Connection
from redis.exceptions import RedisError

from exporter.errors import ExporterError
from exporter.local.redis import RedisServer
from exporter.settings import Settings
from exporter.store.redis import errors
from exporter.store.redis.async_connection import AsyncConnection
from exporter.store.redis.store import RedisStore

AUTHORITY = trustme.CA()


def reach_records(settings: Settings) -> None:
    RedisStore.connect(settings.redis_url, patient=False).check()


def reach_broker(settings: Settings) -> None:
    # As Celery does: by the URL alone, for which kombu would verify nothing by default.
    options = {"socket_timeout": 2, "socket_connect_timeout": 2}
    with Connection(settings.broker, transport_options=options) as connection:
        channel: Any = connection.channel()
        channel.client.ping()


def reach_polls(settings: Settings) -> None:
    client = RedisStore.connect(settings.redis_url, patient=False).client

    async def ping() -> None:
        connection = AsyncConnection(client)
        with errors.translate_errors():
            assert await connection.execute(("PING",)) == [b"PONG"]
        connection.close()

    asyncio.run(ping())


CLIENTS = (reach_records, reach_broker, reach_polls)


@contextmanager
def tls_before(server: RedisServer, certificate: trustme.LeafCert) -> Iterator[int]:
    """Serves TLS on a port, and passes on what is in it to the Redis; yields the port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    redis_port = urlsplit(server.url).port
    assert redis_port is not None

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    with ExitStack() as open_sockets:

        def serve() -> None:
            while True:
                try:
                    plain, _ = listener.accept()
                except OSError:
                    return
                open_sockets.enter_context(plain)
                try:
                    caller = open_sockets.enter_context(context.wrap_socket(plain, True))
                except OSError:  # the client does not like the certificate
                    continue
                behind = socket.create_connection(("127.0.0.1", redis_port))
                open_sockets.enter_context(behind)
                for pair in ((caller, behind), (behind, caller)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

        listener = open_sockets.enter_context(socket.create_server(("127.0.0.1", 0)))
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@pytest.fixture
def authority_file(tmp_path: Path) -> str:
    file = tmp_path / "ca.pem"
    AUTHORITY.cert_pem.write_to_path(str(file))
    return quote(str(file))


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    ("name", "options", "accepted"),
    [
        ("localhost", "", False),
        ("localhost", "ssl_ca_certs={ca}", True),
        ("elsewhere.example.com", "ssl_ca_certs={ca}", False),
        ("elsewhere.example.com", "ssl_ca_certs={ca}&ssl_check_hostname=False", True),
        ("elsewhere.example.com", "ssl_cert_reqs=none", True),
        ("localhost", "ssl_cert_reqs=CERT_NONE", True),
        ("localhost", "ssl_check_hostname=0", False),
    ],
)
def test_a_certificate_is_verified_unless_the_url_says_otherwise(
    redis_server: RedisServer,
    authority_file: str,
    client: Callable[[Settings], None],
    name: str,
    options: str,
    accepted: bool,
) -> None:
    # Given
    with tls_before(redis_server, AUTHORITY.issue_cert(name)) as port:
        settings = Settings(
            redis_url=f"rediss://localhost:{port}/3?{options.format(ca=authority_file)}"
        )
        # When / Then
        if accepted:
            client(settings)
        else:
            with pytest.raises((ExporterError, RedisError)) as error:
                client(settings)
            assert "certificate" in str(error.value).lower()


@pytest.mark.parametrize("client", [reach_records, reach_polls])
def test_a_certificate_that_is_not_trusted_is_explained(
    redis_server: RedisServer, client: Callable[[Settings], None]
) -> None:
    # Given
    with (
        tls_before(redis_server, trustme.CA().issue_cert("localhost")) as port,
        pytest.raises(ExporterError) as error,
    ):
        # When
        client(Settings(redis_url=f"rediss://localhost:{port}"))
    # Then
    assert "the certificate of Redis is not trusted: add ssl_ca_certs=" in str(error.value)
    assert "EXPORTER_REDIS_URL" in str(error.value)
