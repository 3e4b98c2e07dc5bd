"""The process behind `exporter api`."""

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
    """Serve until SIGTERM or SIGINT.

    Raises ConfigurationError, with the mending command, for a Redis that may lose or evict
    records. One that does not answer yet is no reason not to start: calls get 503 until it does.
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
    wiring.warm(service.storage)
    log.info("api.listening", host=host, port=port)
    uvicorn.run(app, host=host, port=port, access_log=False, log_level="warning")
    sweeper.stop()
