"""Runs the API process of the command `exporter api`."""

from __future__ import annotations

import contextlib
import sys

import structlog

from exporter import wiring
from exporter.api import connections
from exporter.api.app import create_app
from exporter.environment import hosts
from exporter.errors import StoreUnavailable
from exporter.maintenance.sweeper import Sweeper
from exporter.settings import load, warnings
from exporter.store.redis.api_keys import KeyRing

_STARTUP_FAILURE = 3
"""Exit status if the port cannot be opened, as of uvicorn itself."""

log = structlog.get_logger()


def serve(host: str, port: int) -> None:
    """Serves the API until SIGTERM or SIGINT.

    Raises ConfigurationError, with the command that fixes it, if Redis may lose or evict records.
    The API also starts while Redis does not answer: requests get 503 until Redis answers.
    """
    for text in warnings():
        log.warning("settings.warning", reason=text)
    service = wiring.export_service(for_api=True)
    hosts.check_host(host)
    wiring.storage(service.settings).open()
    store = service.store = wiring.store(load(), patient=False)
    try:
        for warning in store.check():
            log.warning("redis.unchecked", reason=warning)
    except StoreUnavailable as error:
        log.warning("redis.silent", reason=str(error))
    app = create_app(service, KeyRing(store.client, store.names))
    sweeper = Sweeper(store)
    sweeper.start()
    wiring.warm_up(service.storage)
    log.info("api.listening", host=host, port=port)
    server = connections.server(
        app, connections.bounds(load()), host=host, port=port, log_level="warning"
    )
    with contextlib.suppress(KeyboardInterrupt):
        server.run()
    sweeper.stop()
    if not server.started:
        sys.exit(_STARTUP_FAILURE)
