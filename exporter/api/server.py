"""Runs the API process of the command `exporter api`."""

from __future__ import annotations

import contextlib
import gc
import sys
import threading
import time
from collections.abc import Sequence

import structlog
from starlette.routing import BaseRoute

from exporter import wiring
from exporter.api import connections
from exporter.api.app import create_app
from exporter.environment import hosts
from exporter.errors import ConfigurationError, StoreUnavailable
from exporter.maintenance.sweeper import Sweeper
from exporter.settings import load, warnings
from exporter.store.redis.api_keys import KeyRing
from exporter.store.redis.store import RedisStore

_CHECK_SECONDS = 1.0
"""Pause between two attempts to check a Redis that did not answer at the start."""
_STARTUP_FAILURE = 3
"""Exit status if the port cannot be opened, as of uvicorn itself."""

log = structlog.get_logger()


def serve(host: str, port: int, pages: Sequence[BaseRoute] = ()) -> None:
    """Serves the API, and further routes in `pages`, until SIGTERM or SIGINT.

    Raises ConfigurationError, with the command that fixes it, if Redis may lose or evict records.
    The API also starts while Redis does not answer: requests get 503 until Redis answers, and then
    the same is checked and raised.
    """
    for text in warnings():
        log.warning("settings.warning", reason=text)
    service = wiring.export_service(for_api=True)
    hosts.check_host(host)
    wiring.storage(service.settings).open()
    store = service.store = wiring.store(load(), patient=False)
    is_checked = _answers(store)
    app = create_app(service, KeyRing(store.client, store.names), pages=pages)
    sweeper = Sweeper(store)
    sweeper.start()
    wiring.warm_up(service.storage)
    # What lives as long as the process is collected once: each full collection takes 80 ms with it,
    # in which no request is answered.
    gc.collect()
    gc.freeze()
    log.info("api.listening", host=host, port=port)
    server = connections.server(
        app, connections.bounds(load()), host=host, port=port, log_level="warning"
    )
    server.on_exit = app.state.event_streams.close
    refusals: list[ConfigurationError] = []

    def check_when_redis_answers() -> None:
        try:
            while not (server.should_exit or _answers(store)):
                time.sleep(_CHECK_SECONDS)
        except ConfigurationError as error:
            refusals.append(error)
            server.should_exit = True

    if not is_checked:
        threading.Thread(target=check_when_redis_answers, name="check", daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        server.run()
    sweeper.stop()
    if refusals:
        raise refusals[0]
    if not server.started:
        sys.exit(_STARTUP_FAILURE)


def _answers(store: RedisStore) -> bool:
    """Checks Redis and logs its warnings; returns False if it does not answer."""
    try:
        for warning in store.check():
            log.warning("redis.unchecked", reason=warning)
    except StoreUnavailable as error:
        log.warning("redis.silent", reason=str(error))
        return False
    return True
