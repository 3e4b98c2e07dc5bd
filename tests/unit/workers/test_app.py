"""The settings of Celery that a promise hangs on."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from typing import Any

import pytest
from kombu.transport import redis as kombu_redis

from exporter import settings
from exporter.sources.http import client
from exporter.storage.s3 import clients as s3_client
from exporter.storage.s3 import failures as s3_failures
from workers import memory
from workers.app import BROKER_ERRORS, app

REASONS: dict[str, tuple[Any, str]] = {
    "task_acks_late": (False, "a late ack makes the broker run the same slice twice"),
    "task_reject_on_worker_lost": (False, "a message that comes back for ever feeds a poison"),
    "task_ignore_result": (True, "the record is the result"),
    "result_backend": (None, "the record is the result"),
    "task_publish_retry": (False, "a ring that fails is made up for by the next sweep"),
    "worker_prefetch_multiplier": (1, "a doorbell kept by a busy worker is not heard by others"),
    "worker_disable_prefetch": (False, "the pool was seen to collapse after a broker restart"),
    "worker_pool": ("prefork", "the others cannot be limited, nor end a slice that hangs"),
    "worker_soft_shutdown_timeout": (0, "it would cancel slices that hand over by themselves"),
    "worker_cancel_long_running_tasks_on_connection_loss": (False, "the lease decides, no link"),
    "broker_connection_retry_on_startup": (True, "worker and broker start in any order"),
    "broker_connection_max_retries": (None, "after 100 tries the worker would exit"),
}


@pytest.mark.parametrize("name", REASONS)
def test_a_setting_that_a_promise_hangs_on_has_its_value(name: str) -> None:
    # Given
    value, reason = REASONS[name]
    # When / Then
    assert app.conf[name] == value, reason


def test_every_wait_for_the_broker_has_a_bound() -> None:
    # Given
    options = app.conf.broker_transport_options
    # When: how long a link that has gone silent can stay unnoticed
    unnoticed = options["health_check_interval"] + options["socket_timeout"]
    # Then
    assert 0 < unnoticed <= 10
    assert 0 < options["socket_connect_timeout"] <= 5
    assert options["retry_on_timeout"] is False


def test_each_of_our_priorities_is_a_step_of_its_own_on_the_broker() -> None:
    # When / Then
    assert app.conf.broker_transport_options["priority_steps"] == list(range(10))


def test_a_slice_at_its_slowest_ends_before_it_is_thought_to_hang() -> None:
    # Given: its last page, then an upload, a completion and a look at the file, each at its limit
    found = settings.load()
    stored = (
        s3_failures.RETRY_SECONDS
        + s3_client.CONNECT_TIMEOUT_SECONDS
        + s3_client.READ_TIMEOUT_SECONDS
    )
    slowest = found.slice_seconds.total_seconds() + client.PAGE_TIMEOUT_SECONDS + 3 * stored
    # When / Then
    assert slowest < app.conf.task_soft_time_limit
    assert app.conf.task_soft_time_limit < app.conf.task_time_limit
    assert app.conf.task_time_limit < app.conf.broker_transport_options["visibility_timeout"]


def test_a_child_is_replaced_well_before_it_hits_its_ceiling() -> None:
    # When / Then
    assert memory.recycle_at(1024**3) == 512 * 1024
    assert memory.recycle_at(0) is None


def test_a_worker_recovers_from_the_error_with_which_this_kombu_closes_a_dead_link() -> None:
    # Given: these are the errors after which a worker connects again instead of ending
    with app.connection_for_read() as connection:
        recovered = connection.connection_errors
    # When / Then
    assert AttributeError in recovered
    assert issubclass(AttributeError, BROKER_ERRORS)


@pytest.mark.external
def test_kombu_still_needs_the_guard_and_still_looks_where_it_is_put() -> None:
    # Given: a kombu that we have not touched
    untouched = (
        "import kombu; from kombu.transport import redis\n"
        "before = kombu.Connection('redis://').connection_errors\n"
        "assert before is redis.Transport.connection_errors, 'it looks elsewhere'\n"
        "assert AttributeError not in before, 'the guard is not needed any more: remove it'\n"
        "redis.Transport.connection_errors += (AttributeError,)\n"
        "assert AttributeError in kombu.Connection('redis://').connection_errors\n"
    )
    # When
    done = subprocess.run([sys.executable, "-c", untouched], capture_output=True, text=True)
    # Then: also when the pin moves, somebody has to look
    assert done.returncode == 0, done.stderr
    assert metadata.version("kombu").startswith("5.7."), (
        "run the restart tests, then move this line"
    )
    assert isinstance(kombu_redis.Transport.connection_errors, tuple)
