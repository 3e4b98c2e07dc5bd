"""The threads beside a worker outlive the Redis that they speak to."""

from __future__ import annotations

import threading
from typing import cast

import pytest

from exporter.local import ports
from exporter.maintenance.sweeper import Sweeper
from exporter.store.base import ExportStore
from exporter.store.redis.store import RedisStore
from tests.harness import Bench, postings
from workers.presence import Presence

pytestmark = pytest.mark.external


def test_a_sweep_goes_on_while_presence_cannot_be_shown() -> None:
    # Given: the sweep's own command comes through, the next one does not
    gone = RedisStore.connect(f"redis://127.0.0.1:{ports.find_free(1)[0]}/0")
    presence = Presence(gone)
    rounds = threading.Semaphore(0)

    def show() -> None:
        presence.show()
        rounds.release()

    store = cast("ExportStore", Bench(postings(1)).memory_store)
    sweeper = Sweeper(store, then=show, interval=0.01)
    # When
    sweeper.start()
    lived = [rounds.acquire(timeout=20) for _ in range(3)]
    # Then
    assert lived == [True] * 3
    assert sweeper.is_alive()
    sweeper.stop()
    sweeper.join(20)
