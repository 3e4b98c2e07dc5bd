"""What every store promises about credits: none is lost, none is spent twice, whatever happens."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from msgspec.structs import replace

from exporter.core.exports import State
from exporter.core.plans import Balance, CreditsSpent
from exporter.store.base import ExportStore, Idempotency
from tests.contract.store.conftest import Accounts
from tests.contract.store.given import (
    KEEP,
    LEASE,
    SHORT,
    Elapse,
    checkpoint,
    claim,
    drain,
    finish,
    known,
    race,
    result,
    spec,
)


def test_of_those_that_race_for_the_last_credits_exactly_one_gets_them(
    store: ExportStore, accounts: Accounts
) -> None:
    for n in range(20):
        # Given
        key = accounts.open(10)

        # When
        def ask(runner: int, n: int = n, key: str = key) -> object:
            return store.create(spec(f"{n}-{runner}", account=key, reserved=7)).id

        found = race(4, ask)

        # Then
        losers = [one for one in found if isinstance(one, CreditsSpent)]
        assert len(losers) == 3
        assert {(loser.needed, loser.left) for loser in losers} == {(7, 3)}
        created = [f"{n}-{runner}" for runner in range(4) if store.get(f"{n}-{runner}")]
        assert created == [one for one in found if isinstance(one, str)]
        assert accounts.balance(key) == Balance(left=3, used=0, reserved=7)


def test_an_export_that_cannot_be_paid_leaves_no_trace(
    store: ExportStore, accounts: Accounts
) -> None:
    # Given
    key = accounts.open(4)
    mark = Idempotency("k", "f")

    # When
    with pytest.raises(CreditsSpent, match=r"needs 5 credits.* and 4 are left") as refusal:
        store.create(spec("e", account=key, reserved=5), mark)

    # Then
    assert (refusal.value.needed, refusal.value.left) == (5, 4)
    assert store.get("e") is None
    assert store.list("ann", limit=9).exports == ()
    assert drain(store) == []
    assert store.counters() == {}
    assert accounts.balance(key) == Balance(left=4, used=0)
    # And the same request, idempotency key and all, works once there are credits
    accounts.set(key, 5)
    assert store.create(spec("again", account=key, reserved=5), mark).id == "again"


def test_a_replay_takes_nothing_and_needs_nothing(store: ExportStore, accounts: Accounts) -> None:
    # Given: the last credits are taken by the first try
    key = accounts.open(5)
    mark = Idempotency("k", "f")
    store.create(spec("e", account=key, reserved=5), mark)

    # When
    replays = [
        store.create(spec("another", account=key, reserved=5), mark),
        store.create(spec("e", account=key, reserved=5), mark),
        store.create(spec("e", account=key, reserved=5)),
    ]

    # Then
    assert [replay.id for replay in replays] == ["e"] * 3
    assert accounts.balance(key) == Balance(left=0, used=0, reserved=5)
    assert store.counters()["credits_reserved"] == 5


# Each way out of an export returns the fence of its last slice, or one that there never was.


def finished(store: ExportStore) -> str:
    claimed = claim(store)
    finish(store, claimed, rows=4)
    return claimed.fence


def failed(store: ExportStore) -> str:
    fence = claim(store).fence
    assert store.end("e", fence, State.FAILED, error="no", keep_record=KEEP)
    return fence


def canceled_in_line(store: ExportStore) -> str:
    store.request_cancel("e", keep_record=KEEP)
    return "1-x"


def canceled_at_work(store: ExportStore) -> str:
    fence = claim(store).fence
    store.request_cancel("e", keep_record=KEEP)
    assert store.end("e", fence, State.CANCELED, keep_record=KEEP)
    return fence


def canceled_while_waiting(store: ExportStore) -> str:
    assert store.release("e", claim(store).fence, clean=True, retry_in=KEEP)
    store.request_cancel("e", keep_record=KEEP)
    return canceled_at_work(store)


def canceled_too_late(store: ExportStore) -> str:
    claimed = claim(store)
    store.request_cancel("e", keep_record=KEEP)
    finish(store, claimed, rows=4)
    return claimed.fence


def deleted_in_line(store: ExportStore) -> str:
    store.delete("e", "ann")
    return "1-x"


def deleted_at_work(store: ExportStore) -> str:
    fence = claim(store).fence
    store.delete("e", "ann")
    assert store.end("e", fence, State.CANCELED, keep_record=KEEP)
    return fence


def deleted_while_it_was_published(store: ExportStore) -> str:
    claimed = claim(store)
    store.delete("e", "ann")
    finish(store, claimed, rows=4)
    return claimed.fence


def deleted_after_it_finished(store: ExportStore) -> str:
    fence = finished(store)
    store.delete("e", "ann")
    return fence


CHARGED = [finished, canceled_too_late, deleted_after_it_finished]
FREE = [
    failed,
    canceled_in_line,
    canceled_at_work,
    canceled_while_waiting,
    deleted_in_line,
    deleted_at_work,
    deleted_while_it_was_published,
]


@pytest.mark.parametrize("leave", CHARGED)
def test_a_finished_export_costs_what_was_written_and_gives_the_rest_back(
    store: ExportStore, accounts: Accounts, leave: Callable[[ExportStore], str]
) -> None:
    # Given
    key = accounts.open(100)
    store.create(spec("e", account=key, reserved=10))

    # When
    leave(store)

    # Then
    assert accounts.balance(key) == Balance(left=96, used=4)
    counted = store.counters()
    assert counted["credits_reserved"] == 10
    assert counted["credits_charged"] == 4
    assert counted["credits_given_back"] == 6


@pytest.mark.parametrize("leave", FREE)
def test_an_export_without_a_file_for_its_owner_gives_everything_back(
    store: ExportStore, accounts: Accounts, leave: Callable[[ExportStore], str]
) -> None:
    # Given
    key = accounts.open(100)
    store.create(spec("e", account=key, reserved=10))
    assert accounts.balance(key) == Balance(left=90, used=0, reserved=10)

    # When
    leave(store)

    # Then
    assert accounts.balance(key) == Balance(left=100, used=0)
    assert store.counters().get("credits_charged", 0) == 0
    assert store.counters()["credits_given_back"] == 10


@pytest.mark.parametrize("leave", CHARGED + FREE)
def test_no_export_is_settled_twice_whatever_is_asked_of_it_afterwards(
    store: ExportStore, accounts: Accounts, leave: Callable[[ExportStore], str]
) -> None:
    # Given
    key = accounts.open(100)
    store.create(spec("e", account=key, reserved=10))
    fence = leave(store)
    after = accounts.balance(key)

    # When
    for state in (State.FAILED, State.CANCELED):
        store.end("e", fence, state, error="again", keep_record=KEEP)
    store.end("e", fence, State.FINISHED, result=result(3), keep_record=KEEP)
    store.release("e", fence, clean=True)
    store.request_cancel("e", keep_record=KEEP)
    store.delete("e", "ann")
    store.sweep()
    store.create(spec("e", account=key, reserved=10))

    # Then
    assert accounts.balance(key) == after


def test_an_export_keeps_its_credits_over_waits_lost_workers_and_takeovers(
    store: ExportStore, accounts: Accounts, elapse: Elapse
) -> None:
    # Given
    key = accounts.open(10)
    store.create(spec("e", account=key, reserved=10))
    lost = claim(store)
    store.commit("e", lost.fence, checkpoint(), lease=SHORT, progress=0.5)
    elapse(SHORT)

    # When
    store.sweep()
    claimed = claim(store)
    assert store.release("e", claimed.fence, clean=True, retry_in=timedelta(0), reason="429")
    claimed = claim(store)

    # Then
    assert accounts.balance(key) == Balance(left=0, used=0, reserved=10)
    finish(store, claimed, rows=10)
    assert not store.end("e", lost.fence, State.FAILED, error="late", keep_record=KEEP)
    assert accounts.balance(key) == Balance(left=0, used=10)


def test_an_export_never_costs_more_than_was_reserved(
    store: ExportStore, accounts: Accounts
) -> None:
    # Given
    key = accounts.open(10)
    store.create(spec("e", account=key, reserved=4))

    # When
    finish(store, claim(store), rows=9)

    # Then
    assert accounts.balance(key) == Balance(left=6, used=4)


def test_an_export_that_may_write_more_than_it_can_pay_for_is_a_mistake_of_ours(
    store: ExportStore, accounts: Accounts
) -> None:
    # Given
    key = accounts.open(10)
    wrong = spec("e", account=key, reserved=4)
    for limit in (5, None):
        # When
        with pytest.raises(ValueError, match="set its limit to at most 4"):
            store.create(replace(wrong, limit=limit))
        # Then
        assert accounts.balance(key) == Balance(left=10, used=0)


def test_a_key_without_a_balance_pays_nothing_and_is_counted(
    store: ExportStore, accounts: Accounts
) -> None:
    # Given
    key = accounts.open(None)

    # When
    store.create(spec("e", account=key, reserved=10))
    accounts.charge(key, 1_000)
    finish(store, claim(store), rows=4)

    # Then
    assert accounts.balance(key) == Balance(left=None, used=1_004)
    assert store.counters().get("credits_reserved", 0) == 0


def test_a_balance_lifted_or_set_while_an_export_runs_stays_true(
    store: ExportStore, accounts: Accounts
) -> None:
    # Given one export from before the key was unlimited, one from then, one from after
    key = accounts.open(10)
    store.create(spec("metered", account=key, reserved=10))
    accounts.set(key, None)
    store.create(spec("free", account=key, reserved=7))
    accounts.set(key, 20)
    store.create(spec("again", account=key, reserved=5))
    assert accounts.balance(key) == Balance(left=15, used=0, reserved=15)

    # When
    for _ in range(3):
        finish(store, claim(store), rows=4)

    # Then: what is given back comes on top
    assert accounts.balance(key) == Balance(left=15 + 6 + 1, used=12)


def test_a_revoked_key_ends_with_its_account_and_its_exports_go_on(
    store: ExportStore, accounts: Accounts
) -> None:
    # Given
    key, other = accounts.open(10), accounts.open(10)
    for n, leave in enumerate(("finish", "cancel", "fail")):
        store.create(spec(f"{leave}", account=key, reserved=3, priority=9 - n))

    # When
    accounts.close(key)

    # Then
    finish(store, claim(store), rows=2)
    store.request_cancel("cancel", keep_record=KEEP)
    assert store.end("fail", claim(store).fence, State.FAILED, error="no", keep_record=KEEP)
    assert known(store, "finish").state is State.FINISHED
    assert accounts.balance(key) == Balance(left=None, used=0)
    assert accounts.balance(other) == Balance(left=10, used=0)
    assert store.counters()["credits_charged"] == 2
    assert store.counters()["credits_given_back"] == 7


def test_a_key_revoked_a_moment_ago_has_nothing_to_spend(
    store: ExportStore, accounts: Accounts
) -> None:
    # Given
    key = accounts.open(10)
    accounts.close(key)

    # When
    with pytest.raises(CreditsSpent) as refusal:
        store.create(spec("e", account=key, reserved=3))
    with pytest.raises(CreditsSpent):
        accounts.charge(key, 1)

    # Then
    assert refusal.value.left == 0
    assert store.get("e") is None


def test_what_costs_at_once_is_taken_whole_or_not_at_all(
    store: ExportStore, accounts: Accounts
) -> None:
    # Given
    key = accounts.open(10)

    # When
    accounts.charge(key, 8)
    accounts.charge(key, 0)
    with pytest.raises(CreditsSpent) as refusal:
        accounts.charge(key, 3)

    # Then
    assert (refusal.value.needed, refusal.value.left) == (3, 2)
    assert accounts.balance(key) == Balance(left=2, used=8)


def test_charges_and_exports_that_race_never_overdraw(
    store: ExportStore, accounts: Accounts
) -> None:
    # Given
    key = accounts.open(20)

    def spend(runner: int) -> int:
        if runner % 2:
            accounts.charge(key, 3)
        else:
            store.create(spec(f"e{runner}", account=key, reserved=3))
        return 3

    # When
    found = race(12, spend)

    # Then
    assert sum(one for one in found if isinstance(one, int)) == 18
    after = accounts.balance(key)
    assert after.left == 2
    assert after.used + after.reserved == 18


def test_an_export_that_nobody_pays_for_touches_no_account(
    store: ExportStore, accounts: Accounts
) -> None:
    # Given
    key = accounts.open(10)
    store.create(spec("e"))

    # When
    finish(store, claim(store, LEASE), rows=9)

    # Then
    assert accounts.balance(key) == Balance(left=10, used=0)


@pytest.mark.parametrize("way", ["cancel", "delete", "delete late"])
@pytest.mark.parametrize(("charged", "paid"), [(None, 0), (30, 30), (1_000, 50)])
def test_rows_read_for_an_export_that_its_owner_dropped_may_be_charged(
    store: ExportStore, accounts: Accounts, way: str, charged: int | None, paid: int
) -> None:
    """Given 50 reserved credits, when the owner drops the running export, then what was read is
    charged if the worker says so, and at most what is reserved.
    """
    key = accounts.open(100)
    store.create(spec("e", account=key, reserved=50))
    claimed = claim(store)
    if way == "cancel":
        store.request_cancel("e", keep_record=KEEP)
    else:
        store.delete("e", "ann")
    late = way == "delete late"
    assert store.end(
        "e",
        claimed.fence,
        State.FINISHED if late else State.CANCELED,
        result=result() if late else None,
        keep_file=KEEP if late else None,
        keep_record=KEEP,
        charged=charged,
    )
    assert accounts.balance(key) == Balance(left=100 - paid, used=paid, reserved=0)


def test_a_failed_export_is_not_charged_for_what_was_read(
    store: ExportStore, accounts: Accounts
) -> None:
    key = accounts.open(100)
    store.create(spec("e", account=key, reserved=50))
    claimed = claim(store)
    assert store.end("e", claimed.fence, State.FAILED, error="gone", keep_record=KEEP, charged=30)
    assert accounts.balance(key) == Balance(left=100, used=0, reserved=0)
