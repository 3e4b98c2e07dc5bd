"""Runs the API process of the command `exporter api`."""

from __future__ import annotations

import structlog
import uvicorn

from exporter import wiring
from exporter.api.app import create_app
from exporter.errors import StoreUnavailable
from exporter.maintenance.sweeper import Sweeper
from exporter.settings import load
from exporter.store.redis.api_keys import KeyRing
from exporter.store.redis.store import RedisStore

log = structlog.get_logger()


def serve(host: str, port: int) -> None:
    """Serves the API until SIGTERM or SIGINT.

    Raises ConfigurationError, with the command that fixes it, if Redis may lose or evict records.
    The API also starts while Redis does not answer: requests get 503 until Redis answers.
    """
    service = wiring.export_service()
    store = service.store = RedisStore.connect(load().redis_url, patient=False)
    try:
        for warning in store.check():
            log.warning("redis.unchecked", reason=warning)
    except StoreUnavailable as error:
        log.warning("redis.silent", reason=str(error))
    app = create_app(service, KeyRing(store.client))
    sweeper = Sweeper(store)
    sweeper.start()
    wiring.warm_up(service.storage)
    log.info("api.listening", host=host, port=port)
    uvicorn.run(app, host=host, port=port, access_log=False, log_level="warning")
    sweeper.stop()
