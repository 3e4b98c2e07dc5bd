"""What every export store promises, tried on the one in memory and on a real Redis."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import redis

from exporter.checkpoints import Checkpoint, Part
from exporter.clock import FakeClock
from exporter.errors import ConfigurationError, StoreUnavailable
from exporter.exports import (
    Completeness,
    EndReason,
    Export,
    Outcome,
    Phase,
    Result,
    Spec,
    State,
)
from exporter.formats.base import Dialect
from exporter.local import ports
from exporter.local.redis import RedisServer
from exporter.store.base import Claim, ExportStore, Verdict
from exporter.store.memory import MemoryStore
from exporter.store.redis import RedisStore

DATABASE = 3
LEASE = timedelta(seconds=60)
KEEP = timedelta(hours=1)
SHORT = timedelta(seconds=0.15)
"""A lease, a wait or a retention that a test sees the end of."""

Elapse = Callable[[timedelta], None]


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.url, db=DATABASE) as client:
        client.flushdb()
        yield client


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest, clock: FakeClock) -> ExportStore:
    if request.param == "memory":
        return MemoryStore(clock)
    return RedisStore(request.getfixturevalue("client"))


@pytest.fixture
def elapse(store: ExportStore, clock: FakeClock) -> Elapse:
    """Lets that much time pass for the store, and a little more."""

    def pass_by(duration: timedelta) -> None:
        seconds = duration.total_seconds() + 0.01
        if isinstance(store, MemoryStore):
            clock.advance(seconds)
        else:
            time.sleep(seconds)

    return pass_by


def spec(export_id: str, user: str = "ann", priority: int = 0) -> Spec:
    return Spec(
        id=export_id,
        user_id=user,
        surface="native",
        source="board",
        query={"job_titles": ["naïve 🦊", 2**70, 1.1, None]},
        query_sha256="0" * 64,
        request={},
        format="csv",
        dialect=Dialect(guard=True),
        columns=("id", "title"),
        limit=10,
        priority=priority,
        file_name="jobs.csv",
    )


def fill(store: ExportStore, count: int, user: str = "ann", priority: int = 0) -> list[str]:
    ids = [f"{user}-{priority}-{n}" for n in range(count)]
    for export_id in ids:
        store.create(spec(export_id, user, priority))
    return ids


def checkpoint(pages: int = 1, parts: int = 1) -> Checkpoint:
    return Checkpoint(
        cursor={"page": pages + 1, "after": 2**70},
        rows=100 * pages,
        pages=pages,
        key="exports/e/1/jobs.csv",
        upload_id="u",
        parts=tuple(Part(f'"{n}"', 5 << 20) for n in range(parts)),
    )


def result() -> Result:
    return Result(
        key="exports/e/1/jobs.csv",
        file_size=7,
        record_count=1,
        completeness=Completeness(Outcome.COMPLETE, EndReason.NULL_CURSOR, 1, 1, 1, 1),
        tally=checkpoint().tally,
        pages=1,
    )


def claim(store: ExportStore, lease: timedelta = LEASE, tenant_slots: int = 0) -> Claim:
    claimed = store.claim("worker-1", lease=lease, tenant_slots=tenant_slots)
    assert claimed is not None
    return claimed


def claim_ids(store: ExportStore, count: int, tenant_slots: int = 0) -> list[str]:
    """The next exports in the order of claims, each ended at once."""
    ids = []
    for _ in range(count):
        claimed = claim(store, tenant_slots=tenant_slots)
        finish(store, claimed)
        ids.append(claimed.export.id)
    return ids


def finish(store: ExportStore, claimed: Claim, keep_file: timedelta = KEEP) -> None:
    assert store.end(
        claimed.export.id,
        claimed.fence,
        State.FINISHED,
        result=result(),
        keep_file=keep_file,
        keep_record=KEEP,
    )


def known(store: ExportStore, export_id: str) -> Export:
    export = store.get(export_id)
    assert export is not None
    return export


def drain(store: ExportStore) -> list[tuple[str, int]]:
    """All wake-ups that are there."""
    wakes = iter(lambda: store.next_wake(timeout=timedelta(0)), None)
    return [(wake.export_id, wake.priority) for wake in wakes]


# Creating and reading


def test_a_created_export_is_queued_and_reads_back_as_it_was_asked(store: ExportStore) -> None:
    # When
    created = store.create(spec("e", priority=4))

    # Then
    assert created.spec == spec("e", priority=4)
    assert (created.state, created.phase, created.progress) == (State.QUEUED, Phase.READY, 0.0)
    assert (created.attempts, created.stalls, created.checkpoint, created.error) == (
        0,
        0,
        None,
        None,
    )
    assert created.created_at == created.updated_at
    assert created.created_at.tzinfo is not None
    assert store.get("e") == created


def test_an_unknown_export_is_none(store: ExportStore) -> None:
    assert store.get("nobody") is None
    assert store.request_cancel("nobody", keep_record=KEEP) is None
    assert store.claim("worker-1", lease=LEASE) is None


def test_creating_twice_changes_nothing_and_returns_the_first_record(store: ExportStore) -> None:
    # Given
    store.create(spec("e"))
    claimed = claim(store)
    before = known(store, "e")

    # When
    again = store.create(spec("e", user="bob", priority=9))

    # Then
    assert again == before == claimed.export
    assert store.claim("worker-2", lease=LEASE) is None
    assert store.list("bob", limit=10).exports == ()


@pytest.mark.parametrize("priority", [-1, 10])
def test_a_priority_that_no_claim_would_look_at_is_refused(
    store: ExportStore, priority: int
) -> None:
    with pytest.raises(ValueError, match="give 0 to 9"):
        store.create(spec("e", priority=priority))
    assert store.get("e") is None


def test_ids_and_users_of_any_text_are_kept_apart(store: ExportStore) -> None:
    # Given
    users = ["a", "a:b", "b c", "ü*?[x]", "0:a"]

    # When
    for user in users:
        store.create(spec(f"{user} export:1", user))

    # Then
    for user in users:
        (only,) = store.list(user, limit=10).exports
        assert only.spec == spec(f"{user} export:1", user)
    woken = [export_id for export_id, _ in drain(store)]
    assert sorted(woken) == sorted(claim_ids(store, 5)) == sorted(f"{u} export:1" for u in users)


# Listing


def test_pages_of_a_list_are_newest_first_and_hold_each_export_once(store: ExportStore) -> None:
    # Given exports of which, in memory, all have one creation time
    ids = fill(store, 7)

    # When
    seen: list[str] = []
    cursor = None
    sizes = []
    while True:
        page = store.list("ann", limit=3, cursor=cursor)
        seen += [export.id for export in page.exports]
        sizes.append(len(page.exports))
        cursor = page.next_cursor
        store.create(spec(f"newcomer-{len(seen)}"))
        if cursor is None:
            break

    # Then
    assert seen == ids[::-1]
    assert sizes == [3, 3, 1]


def test_a_last_page_that_is_full_has_no_cursor(store: ExportStore) -> None:
    fill(store, 4)
    first = store.list("ann", limit=2)
    second = store.list("ann", limit=2, cursor=first.next_cursor)
    assert first.next_cursor is not None
    assert second.next_cursor is None
    assert len(second.exports) == 2


def test_nobody_sees_the_exports_of_another_user(store: ExportStore) -> None:
    # Given
    fill(store, 3, "ann")
    fill(store, 3, "bob")
    cursor = store.list("ann", limit=1).next_cursor

    # When
    page = store.list("bob", limit=10, cursor=cursor)

    # Then
    assert {export.user_id for export in page.exports} <= {"bob"}
    assert {export.user_id for export in store.list("ann", limit=10).exports} == {"ann"}
    assert store.list("carl", limit=10).exports == ()


@pytest.mark.parametrize("cursor", ["", "x", "ÿ", "e30=", "YmVmb3JlIC0x", "YmVmb3JlIDE="[:-1]])
def test_a_cursor_not_made_here_is_refused(store: ExportStore, cursor: str) -> None:
    with pytest.raises(ValueError, match="was not made here"):
        store.list("ann", limit=1, cursor=cursor)


def test_an_expired_record_vanishes_from_get_and_from_pages(
    store: ExportStore, elapse: Elapse
) -> None:
    # Given
    ids = fill(store, 6)
    for export_id in ids[1::2]:
        store.request_cancel(export_id, keep_record=SHORT)
    cursor = store.list("ann", limit=2).next_cursor
    assert cursor is not None

    # When
    elapse(SHORT)

    # Then
    assert store.get(ids[1]) is None
    assert [export.id for export in store.list("ann", limit=2).exports] == [ids[4], ids[2]]
    assert [export.id for export in store.list("ann", limit=9, cursor=cursor).exports] == [
        ids[2],
        ids[0],
    ]
    assert claim_ids(store, 3) == ids[::2]


def test_a_live_export_never_expires(store: ExportStore, elapse: Elapse) -> None:
    # Given a queued one, and a processing one whose owner wants it canceled
    store.create(spec("running"))
    claim(store)
    store.request_cancel("running", keep_record=SHORT)
    store.create(spec("queued"))

    # When
    elapse(SHORT)

    # Then
    assert known(store, "running").state is State.PROCESSING
    assert known(store, "queued").state is State.QUEUED


# Order


def test_five_urgent_exports_are_the_next_five_however_many_wait(store: ExportStore) -> None:
    # Given
    fill(store, 200, "ann", priority=0)
    claim_ids(store, 2)
    urgent = fill(store, 5, "ann", priority=9)

    # When / Then
    assert claim_ids(store, 5) == urgent
    assert claim_ids(store, 1) == ["ann-0-2"]


def test_every_priority_is_served_before_the_one_below(store: ExportStore) -> None:
    # Given
    for priority in (3, 0, 9, 1, 8, 2, 7, 4, 6, 5):
        store.create(spec(f"p{priority}", user=f"user-{priority % 3}", priority=priority))

    # When / Then
    assert claim_ids(store, 10) == [f"p{n}" for n in range(9, -1, -1)]


def test_exports_of_one_user_are_claimed_in_the_order_they_came(store: ExportStore) -> None:
    ids = [f"e{n * 7919 % 50}" for n in range(50)]
    for export_id in ids:
        store.create(spec(export_id))
    assert claim_ids(store, 50) == ids


def test_a_user_with_200_exports_delays_another_by_one_slice_at_most(store: ExportStore) -> None:
    # Given ann, who has been served a while
    fill(store, 200, "ann")
    claim_ids(store, 20)

    # When bob comes, and carl in the middle of that
    fill(store, 5, "bob")
    first = claim_ids(store, 4)
    fill(store, 3, "carl")
    rest = claim_ids(store, 12)

    # Then
    assert "bob-0-0" in first[:2]
    assert [i for i, export_id in enumerate(first + rest) if export_id.startswith("bob")][-1] <= 13
    assert "carl-0-0" in rest[:2]
    assert Counter(export_id.split("-")[0] for export_id in rest[:6]) == {
        "ann": 2,
        "bob": 2,
        "carl": 2,
    }


def test_a_newcomer_does_not_catch_up_on_slices_it_never_asked_for(store: ExportStore) -> None:
    # Given ann was served 50 slices while bob was not there
    fill(store, 100, "ann")
    claim_ids(store, 50)

    # When
    fill(store, 50, "bob")

    # Then
    served = Counter(export_id.split("-")[0] for export_id in claim_ids(store, 10))
    assert served == {"ann": 5, "bob": 5}


def test_going_away_and_coming_back_earns_nothing(store: ExportStore) -> None:
    # Given bob always has one export in line, ann comes anew for each
    fill(store, 20, "bob")

    # When
    order = []
    for n in range(10):
        store.create(spec(f"ann-{n}", "ann"))
        order += claim_ids(store, 1)

    # Then
    assert Counter(export_id.split("-")[0] for export_id in order) == {"ann": 5, "bob": 5}


def test_urgent_work_of_others_is_no_debt_of_a_newcomer(store: ExportStore) -> None:
    # Given ann waited at priority 0 while bob was served 30 times at priority 9
    fill(store, 20, "ann", priority=0)
    fill(store, 30, "bob", priority=9)
    claim_ids(store, 30)

    # When carl comes at priority 0, and bob too
    fill(store, 2, "carl", priority=0)
    fill(store, 2, "bob", priority=0)

    # Then
    assert {"carl-0-0", "bob-0-0"} <= set(claim_ids(store, 3))


def test_a_released_export_goes_behind_the_others_of_its_user(store: ExportStore) -> None:
    # Given
    fill(store, 3)
    first = claim(store)

    # When
    store.release(first.export.id, first.fence, clean=True)

    # Then
    assert claim_ids(store, 3) == ["ann-0-1", "ann-0-2", "ann-0-0"]


def test_slices_of_long_exports_are_shared_between_users(store: ExportStore) -> None:
    # Given two users whose exports need many slices each
    fill(store, 3, "ann")
    fill(store, 1, "bob")

    # When
    served: Counter[str] = Counter()
    for _ in range(12):
        claimed = claim(store)
        served[claimed.export.id] += 1
        store.release(claimed.export.id, claimed.fence, clean=True)

    # Then
    assert served == {"bob-0-0": 6, "ann-0-0": 2, "ann-0-1": 2, "ann-0-2": 2}


def test_a_user_never_has_more_live_leases_than_slots(store: ExportStore) -> None:
    # Given
    fill(store, 5, "ann", priority=9)
    fill(store, 3, "bob")

    # When
    claims = [claim(store, tenant_slots=2) for _ in range(4)]

    # Then
    assert Counter(one.export.user_id for one in claims) == {"ann": 2, "bob": 2}
    assert store.claim("worker-1", lease=LEASE, tenant_slots=2) is None
    assert store.claim("worker-1", lease=LEASE, tenant_slots=3) is not None


def test_each_way_out_of_a_lease_frees_the_slot(store: ExportStore, elapse: Elapse) -> None:
    # Given
    fill(store, 9)

    def full() -> bool:
        return store.claim("worker-2", lease=LEASE, tenant_slots=1) is None

    for leave in ("finish", "fail", "release", "wait", "expire"):
        claimed = claim(store, SHORT if leave == "expire" else LEASE, tenant_slots=1)
        assert full()

        # When
        export_id, fence = claimed.export.id, claimed.fence
        if leave == "finish":
            finish(store, claimed)
        elif leave == "fail":
            assert store.end(export_id, fence, State.FAILED, error="no", keep_record=KEEP)
        elif leave == "release":
            assert store.release(export_id, fence, clean=True)
        elif leave == "wait":
            assert store.release(export_id, fence, clean=True, retry_in=KEEP, reason="429")
        else:
            elapse(SHORT)
            assert store.sweep().expired == 1

    # Then
    assert claim(store, tenant_slots=1)


def test_a_capped_user_does_not_save_up_the_slices_it_missed(store: ExportStore) -> None:
    # Given ann holds her only slot while bob is served ten times
    fill(store, 20, "ann")
    fill(store, 30, "bob")
    held = claim(store, tenant_slots=1)
    while held.export.user_id != "ann":
        finish(store, held)
        held = claim(store, tenant_slots=1)
    claim_ids(store, 10, tenant_slots=1)

    # When
    finish(store, held)

    # Then
    served = Counter(export_id.split("-")[0] for export_id in claim_ids(store, 10))
    assert abs(served["ann"] - served["bob"]) <= 2


# Claims and fences


def test_a_claim_starts_an_export_and_names_its_worker(store: ExportStore) -> None:
    # Given
    store.create(spec("e"))

    # When
    claimed = store.claim("host-7", lease=LEASE)

    # Then
    assert claimed is not None
    assert claimed.clean
    assert claimed.export == known(store, "e")
    assert (claimed.export.state, claimed.export.phase) == (State.PROCESSING, Phase.READING)
    assert claimed.export.worker_id == "host-7"
    assert claimed.export.started_at is not None


def test_an_export_starts_once_however_many_slices_it_needs(
    store: ExportStore, elapse: Elapse
) -> None:
    # Given
    store.create(spec("e"))
    first = claim(store)
    store.release("e", first.fence, clean=True)
    elapse(timedelta(0))

    # When
    second = claim(store)

    # Then
    assert second.export.started_at == first.export.started_at
    assert second.export.updated_at > first.export.updated_at


def test_each_claim_has_a_higher_count_and_a_nonce_in_its_fence(store: ExportStore) -> None:
    # Given
    store.create(spec("e"))

    # When
    fences = []
    for _ in range(12):
        claimed = claim(store)
        fences.append(claimed.fence)
        store.release("e", claimed.fence, clean=True)

    # Then
    assert [int(fence.partition("-")[0]) for fence in fences] == list(range(1, 13))
    nonces = {fence.partition("-")[2] for fence in fences}
    assert len(nonces) == 12
    assert min(map(len, nonces)) >= 8


def test_concurrent_claimers_never_get_the_same_export(store: ExportStore) -> None:
    # Given
    ids = fill(store, 60) + fill(store, 60, "bob")
    got: list[str] = []
    start = threading.Barrier(4)

    def work() -> None:
        start.wait()
        while (claimed := store.claim("w", lease=LEASE)) is not None:
            got.append(claimed.export.id)

    # When
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    # Then
    assert sorted(got) == sorted(ids)


STALE: dict[str, Callable[[ExportStore, str], object]] = {
    "renew": lambda store, fence: store.renew("e", fence, lease=LEASE, progress=0.9),
    "commit": lambda store, fence: store.commit(
        "e", fence, checkpoint(9, 9), lease=LEASE, progress=0.9, closing=result()
    ),
    "release": lambda store, fence: store.release(
        "e", fence, clean=True, retry_in=LEASE, reason="stale"
    ),
    "finish": lambda store, fence: store.end(
        "e", fence, State.FINISHED, result=result(), keep_file=KEEP, keep_record=KEEP
    ),
    "fail": lambda store, fence: store.end(
        "e", fence, State.FAILED, error="stale", keep_record=KEEP
    ),
}


@pytest.mark.parametrize("call", STALE)
def test_a_stale_fence_changes_nothing(store: ExportStore, elapse: Elapse, call: str) -> None:
    # Given an export whose first worker lost it to a second
    store.create(spec("e"))
    first = claim(store, SHORT)
    elapse(SHORT)
    store.sweep()
    second = claim(store)
    store.commit("e", second.fence, checkpoint(), lease=LEASE, progress=0.1)
    before = known(store, "e")

    # When
    for fence in (first.fence, "2-guess", ""):
        answer = STALE[call](store, fence)
        assert answer in (Verdict.LOST, False)

    # Then
    assert known(store, "e") == before
    assert store.renew("e", second.fence, lease=LEASE) is Verdict.CONTINUE


@pytest.mark.parametrize("call", STALE)
def test_a_fence_swept_away_changes_nothing_even_before_the_next_claim(
    store: ExportStore, elapse: Elapse, call: str
) -> None:
    # Given
    store.create(spec("e"))
    claimed = claim(store, SHORT)
    elapse(SHORT)
    store.sweep()
    before = known(store, "e")

    # When / Then
    assert STALE[call](store, claimed.fence) in (Verdict.LOST, False)
    assert known(store, "e") == before


@pytest.mark.parametrize("call", sorted(STALE.keys() - {"release"}))
def test_a_fence_given_back_changes_nothing(store: ExportStore, call: str) -> None:
    # Given
    store.create(spec("e"))
    claimed = claim(store)
    store.release("e", claimed.fence, clean=True)
    before = known(store, "e")

    # When / Then
    assert STALE[call](store, claimed.fence) in (Verdict.LOST, False)
    assert known(store, "e") == before


@pytest.mark.parametrize("call", STALE)
@pytest.mark.parametrize("state", [State.FINISHED, State.FAILED, State.CANCELED])
def test_a_terminal_export_never_changes(store: ExportStore, state: State, call: str) -> None:
    # Given
    store.create(spec("e"))
    claimed = claim(store)
    ending = result() if state is State.FINISHED else None
    assert store.end("e", claimed.fence, state, result=ending, keep_file=KEEP, keep_record=KEEP)
    before = known(store, "e")

    # When
    STALE[call](store, claimed.fence)
    canceled = store.request_cancel("e", keep_record=timedelta(0))
    store.sweep()

    # Then
    assert canceled == known(store, "e") == before
    assert store.claim("worker-1", lease=LEASE) is None


# Renewing and committing


def test_a_renewed_lease_does_not_expire(store: ExportStore, elapse: Elapse) -> None:
    # Given
    store.create(spec("e"))
    claimed = claim(store, SHORT)

    # When
    assert store.renew("e", claimed.fence, lease=LEASE, progress=0.25) is Verdict.CONTINUE
    elapse(SHORT)

    # Then
    assert store.sweep().expired == 0
    assert known(store, "e").progress == 0.25
    assert known(store, "e").updated_at > claimed.export.updated_at


def test_an_expired_lease_that_nobody_swept_can_still_be_renewed(
    store: ExportStore, elapse: Elapse
) -> None:
    # Given
    store.create(spec("e"))
    claimed = claim(store, SHORT)
    elapse(SHORT)
    assert store.claim("worker-2", lease=LEASE) is None

    # When / Then
    assert store.renew("e", claimed.fence, lease=LEASE) is Verdict.CONTINUE
    assert store.sweep().expired == 0


def test_progress_never_goes_back_and_stays_below_one(store: ExportStore) -> None:
    # Given
    store.create(spec("e"))
    claimed = claim(store)
    seen = []

    # When
    for progress in (0.1, 0.3, 0.2, None, 1.0, 7.0, float("nan"), -1.0, 1 / 3, 0.99):
        store.renew("e", claimed.fence, lease=LEASE, progress=progress)
        seen.append(known(store, "e").progress)
    store.commit("e", claimed.fence, checkpoint(), lease=LEASE, progress=0.5)
    seen.append(known(store, "e").progress)
    store.release("e", claimed.fence, clean=True)
    seen.append(claim(store).export.progress)

    # Then
    assert seen == [0.1, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 1 / 3, 0.99, 0.99, 0.99]


def test_a_commit_is_what_the_next_worker_goes_on_from(store: ExportStore) -> None:
    # Given
    store.create(spec("e"))
    first = claim(store)
    written = checkpoint(pages=7, parts=3)
    written.tally.unmapped_fields["größe"] = 2

    # When
    verdict = store.commit("e", first.fence, written, lease=LEASE, progress=0.4)
    written.tally.guarded_cells += 1
    store.release("e", first.fence, clean=True)

    # Then
    assert verdict is Verdict.CONTINUE
    found = claim(store).export.checkpoint
    expected = checkpoint(pages=7, parts=3)
    expected.tally.unmapped_fields["größe"] = 2
    assert found == expected


def test_with_closing_an_export_is_completing_until_a_commit_without_it(
    store: ExportStore, elapse: Elapse
) -> None:
    # Given
    store.create(spec("e"))
    first = claim(store, SHORT)
    store.commit("e", first.fence, checkpoint(), lease=SHORT, progress=0.9, closing=result())
    completing = known(store, "e")

    # When its worker dies, and the next finds that nothing was published
    elapse(SHORT)
    store.sweep()
    second = claim(store)
    store.commit("e", second.fence, checkpoint(), lease=LEASE, progress=0.9)
    reading = known(store, "e")

    # Then
    assert (completing.phase, completing.closing) == (Phase.COMPLETING, result())
    assert (second.export.phase, second.export.closing) == (Phase.COMPLETING, result())
    assert (reading.phase, reading.closing) == (Phase.READING, None)


def test_a_committed_part_forgets_past_attempts_and_stalls(
    store: ExportStore, elapse: Elapse
) -> None:
    # Given an export that lost two workers and stalled once
    store.create(spec("e"))
    for _ in range(2):
        claim(store, timedelta(0))
        store.sweep()
    claimed = claim(store)
    store.release("e", claimed.fence, clean=True, retry_in=timedelta(0), reason="429")
    claimed = claim(store)
    assert (claimed.export.attempts, claimed.export.stalls) == (2, 1)
    assert claimed.export.stalled_since is not None

    # When
    store.commit("e", claimed.fence, checkpoint(), lease=LEASE, progress=0.1)

    # Then
    after = known(store, "e")
    assert (after.attempts, after.stalls, after.stalled_since, after.error) == (0, 0, None, None)


def test_getting_back_what_a_takeover_gave_up_is_no_progress(store: ExportStore) -> None:
    # Given an export with three parts that lost its worker
    store.create(spec("e"))
    first = claim(store, timedelta(0))
    store.commit("e", first.fence, checkpoint(5, 3), lease=timedelta(0), progress=0.5)
    store.sweep()
    second = claim(store)

    # When the next seals them into one part, and commits that
    store.commit("e", second.fence, checkpoint(5, 0), lease=LEASE, progress=0.5)
    store.commit("e", second.fence, checkpoint(5, 1), lease=LEASE, progress=0.5)

    # Then
    assert known(store, "e").attempts == 1
    store.commit("e", second.fence, checkpoint(6, 2), lease=LEASE, progress=0.6)
    assert known(store, "e").attempts == 0


# Giving back


def test_a_clean_release_is_ready_at_once_and_clean_for_the_next(store: ExportStore) -> None:
    # Given
    store.create(spec("e"))
    claimed = claim(store)

    # When
    assert store.release("e", claimed.fence, clean=True)

    # Then
    assert known(store, "e").phase is Phase.READY
    again = claim(store)
    assert again.clean
    assert (again.export.attempts, again.export.stalls) == (0, 0)


def test_after_an_unclean_release_the_next_must_seal(store: ExportStore) -> None:
    store.create(spec("e"))
    store.release("e", claim(store).fence, clean=False)
    assert not claim(store).clean


def test_a_release_with_retry_comes_back_only_after_its_time(
    store: ExportStore, elapse: Elapse
) -> None:
    # Given
    store.create(spec("e"))
    claimed = claim(store)

    # When
    store.release("e", claimed.fence, clean=True, retry_in=SHORT, reason="upstream says 429")

    # Then
    waiting = known(store, "e")
    assert (waiting.phase, waiting.error) == (Phase.WAITING, "upstream says 429")
    assert waiting.retry_at == waiting.stalled_since + SHORT if waiting.stalled_since else False
    assert store.claim("worker-1", lease=LEASE) is None
    assert store.sweep().due == 0

    elapse(SHORT)
    again = claim(store)
    assert again.clean
    assert (again.export.phase, again.export.retry_at) == (Phase.READING, None)
    assert (again.export.stalls, again.export.error) == (1, "upstream says 429")


def test_stalls_add_up_from_the_first_one_on(store: ExportStore, elapse: Elapse) -> None:
    # Given
    store.create(spec("e"))
    since = []

    # When
    for n in range(3):
        claimed = claim(store)
        store.release("e", claimed.fence, clean=True, retry_in=timedelta(0), reason=f"wait {n}")
        since.append(known(store, "e").stalled_since)
        elapse(timedelta(0))

    # Then
    assert (known(store, "e").stalls, known(store, "e").error) == (3, "wait 2")
    assert len(set(since)) == 1


# Ending


def test_a_finished_export_is_whole_and_drops_what_it_needed_to_go_on(store: ExportStore) -> None:
    # Given
    store.create(spec("e"))
    claimed = claim(store)
    store.commit("e", claimed.fence, checkpoint(), lease=LEASE, progress=0.9, closing=result())

    # When
    finish(store, claimed)

    # Then
    export = known(store, "e")
    assert (export.state, export.phase, export.progress) == (State.FINISHED, Phase.DONE, 1.0)
    assert (export.result, export.checkpoint, export.closing) == (result(), None, None)
    assert export.completed_at is not None
    assert export.file_expires_at == export.completed_at + KEEP


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELED])
def test_an_export_that_ends_without_a_file_keeps_its_progress(
    store: ExportStore, state: State
) -> None:
    # Given one that once waited for the upstream
    store.create(spec("e"))
    store.release("e", claim(store).fence, clean=True, retry_in=timedelta(0), reason="429")
    claimed = claim(store)
    store.renew("e", claimed.fence, lease=LEASE, progress=0.4)
    error = "the upstream answered 403" if state is State.FAILED else None

    # When
    assert store.end("e", claimed.fence, state, error=error, keep_record=KEEP)

    # Then
    export = known(store, "e")
    assert (export.state, export.progress, export.error) == (state, 0.4, error)
    assert (export.result, export.file_expires_at, export.checkpoint) == (None, None, None)
    assert export.completed_at is not None


def test_ending_twice_with_one_fence_is_ending_once(store: ExportStore, elapse: Elapse) -> None:
    # Given
    store.create(spec("e"))
    claimed = claim(store)
    finish(store, claimed)
    before = known(store, "e")
    elapse(timedelta(0))

    # When
    finish(store, claimed)

    # Then
    assert known(store, "e") == before
    assert not store.end("e", claimed.fence, State.FAILED, error="late", keep_record=KEEP)


def test_ending_in_a_state_that_is_no_end_is_an_error_of_the_caller(store: ExportStore) -> None:
    store.create(spec("e"))
    fence = claim(store).fence
    with pytest.raises(ValueError, match="no terminal state"):
        store.end("e", fence, State.QUEUED, keep_record=KEEP)
    with pytest.raises(ValueError, match="for finished alone"):
        store.end("e", fence, State.FINISHED, keep_record=KEEP)
    assert known(store, "e").state is State.PROCESSING


def test_a_terminal_record_is_forgotten_after_its_retention(
    store: ExportStore, elapse: Elapse
) -> None:
    # Given
    fill(store, 2)
    first, second = claim(store), claim(store)
    store.end(first.export.id, first.fence, State.FAILED, error="no", keep_record=SHORT)
    store.end(second.export.id, second.fence, State.FAILED, error="no", keep_record=KEEP)

    # When
    elapse(SHORT)

    # Then
    assert store.get(first.export.id) is None
    assert known(store, second.export.id).state is State.FAILED


def test_files_past_their_retention_are_listed_until_forgotten(
    store: ExportStore, elapse: Elapse
) -> None:
    # Given
    fill(store, 3)
    for keep in (SHORT, KEEP, SHORT / 2):
        finish(store, claim(store), keep_file=keep)
    assert store.expired_files() == ()

    # When
    elapse(SHORT)

    # Then
    assert [export.id for export in store.expired_files()] == ["ann-0-2", "ann-0-0"]
    assert [export.id for export in store.expired_files(limit=1)] == ["ann-0-2"]
    store.forget_file("ann-0-2")
    store.forget_file("ann-0-2")
    assert [export.id for export in store.expired_files()] == ["ann-0-0"]
    assert known(store, "ann-0-2").result == result()


def test_the_file_of_a_record_that_is_gone_is_not_listed(
    store: ExportStore, elapse: Elapse
) -> None:
    # Given
    store.create(spec("e"))
    claimed = claim(store)
    store.end(
        "e",
        claimed.fence,
        State.FINISHED,
        result=result(),
        keep_file=timedelta(0),
        keep_record=SHORT,
    )
    assert [export.id for export in store.expired_files()] == ["e"]

    # When
    elapse(SHORT)

    # Then
    assert store.expired_files() == ()


# Canceling


def test_a_queued_export_is_canceled_at_once(store: ExportStore) -> None:
    # Given
    fill(store, 2)

    # When
    canceled = store.request_cancel("ann-0-0", keep_record=KEEP)

    # Then
    assert canceled is not None
    assert (canceled.state, canceled.phase) == (State.CANCELED, Phase.DONE)
    assert canceled.completed_at is not None
    assert canceled.cancel_requested
    assert store.get("ann-0-0") == canceled
    assert claim_ids(store, 1) == ["ann-0-1"]
    assert store.sweep().ready == 0


def test_a_running_export_hears_of_its_cancel_with_every_answer(store: ExportStore) -> None:
    # Given
    store.create(spec("e"))
    claimed = claim(store)

    # When
    asked = store.request_cancel("e", keep_record=KEEP)

    # Then
    assert asked is not None
    assert (asked.state, asked.cancel_requested) == (State.PROCESSING, True)
    assert store.renew("e", claimed.fence, lease=LEASE) is Verdict.CANCEL
    verdict = store.commit("e", claimed.fence, checkpoint(), lease=LEASE, progress=0.1)
    assert verdict is Verdict.CANCEL
    assert known(store, "e").checkpoint == checkpoint()
    assert store.end("e", claimed.fence, State.CANCELED, keep_record=KEEP)
    assert known(store, "e").state is State.CANCELED


def test_a_waiting_export_is_ready_at_once_when_canceled_for_a_worker_must_clean_up(
    store: ExportStore,
) -> None:
    # Given
    store.create(spec("e"))
    store.release("e", claim(store).fence, clean=True, retry_in=KEEP, reason="429")
    drain(store)

    # When
    asked = store.request_cancel("e", keep_record=KEEP)

    # Then
    assert asked is not None
    assert (asked.state, asked.phase, asked.retry_at) == (State.PROCESSING, Phase.READY, None)
    assert drain(store) == [("e", 0)]
    claimed = claim(store)
    assert claimed.export.cancel_requested
    assert store.renew("e", claimed.fence, lease=LEASE) is Verdict.CANCEL


def test_canceling_between_two_slices_wakes_a_worker_and_keeps_one_place_in_line(
    store: ExportStore,
) -> None:
    # Given
    store.create(spec("e"))
    store.release("e", claim(store).fence, clean=True)
    drain(store)

    # When
    store.request_cancel("e", keep_record=KEEP)
    store.request_cancel("e", keep_record=KEEP)

    # Then
    assert ("e", 0) in drain(store)
    assert store.sweep().ready == 1
    assert claim(store).export.cancel_requested
    assert store.claim("worker-2", lease=LEASE) is None


def test_a_cancel_that_came_too_late_does_not_undo_a_finished_file(store: ExportStore) -> None:
    # Given
    store.create(spec("e"))
    claimed = claim(store)
    store.request_cancel("e", keep_record=KEEP)

    # When
    finish(store, claimed)

    # Then
    assert known(store, "e").state is State.FINISHED
    after = store.request_cancel("e", keep_record=KEEP)
    assert after is not None
    assert after.state is State.FINISHED


# Sweeping and waking


def test_an_expired_lease_makes_the_export_ready_unclean_with_one_attempt_more(
    store: ExportStore, elapse: Elapse
) -> None:
    # Given
    store.create(spec("e"))
    first = claim(store, SHORT)
    assert store.sweep().expired == 0

    # When
    elapse(SHORT)
    swept = store.sweep()

    # Then
    assert (swept.expired, swept.ready) == (1, 1)
    assert known(store, "e").phase is Phase.READY
    again = claim(store)
    assert not again.clean
    assert again.export.attempts == 1
    assert again.fence != first.fence
    assert store.sweep().expired == 0


def test_a_sweep_does_no_more_than_its_limit(store: ExportStore) -> None:
    # Given
    fill(store, 7)
    for _ in range(7):
        claim(store, timedelta(0))

    # When / Then
    assert [store.sweep(limit=3).expired for _ in range(4)] == [3, 3, 1, 0]
    assert store.sweep().ready == 7


def test_a_sweep_makes_waiting_exports_ready_and_wakes(store: ExportStore, elapse: Elapse) -> None:
    # Given
    fill(store, 2, priority=6)
    for retry_in in (SHORT, KEEP):
        claimed = claim(store)
        store.release(claimed.export.id, claimed.fence, clean=True, retry_in=retry_in, reason="429")
    drain(store)

    # When
    elapse(SHORT)
    swept = store.sweep()

    # Then
    assert (swept.expired, swept.due, swept.ready) == (0, 1, 1)
    assert drain(store) == [("ann-6-0", 6)]
    assert known(store, "ann-6-1").phase is Phase.WAITING


def test_create_release_and_sweep_each_wake_once_with_the_priority(store: ExportStore) -> None:
    # Given
    store.create(spec("e", priority=7))
    created = drain(store)

    # When
    store.release("e", claim(store).fence, clean=True)
    released = drain(store)
    claim(store, timedelta(0))
    store.sweep()
    swept = drain(store)

    # Then
    assert created == released == swept == [("e", 7)]


def test_wake_ups_come_in_order_and_each_to_one_caller(store: ExportStore) -> None:
    ids = fill(store, 5)
    assert drain(store) == [(export_id, 0) for export_id in ids]
    assert drain(store) == []


def test_a_sweep_makes_up_for_lost_wake_ups_within_bounds(store: ExportStore) -> None:
    # Given
    fill(store, 30)
    store.create(spec("urgent", "bob", priority=9))
    drain(store)

    # When
    assert store.sweep().ready == 31
    made = drain(store)

    # Then
    assert len(made) == len(set(made)) == 16
    assert made[0] == ("urgent", 9)


def test_a_sweep_adds_no_wake_ups_while_some_are_left_or_nothing_is_ready(
    store: ExportStore,
) -> None:
    # Given
    fill(store, 2)
    claim(store), claim(store)
    drain(store)

    # When / Then
    store.sweep()
    assert drain(store) == []
    fill(store, 3, "bob")
    store.next_wake(timeout=timedelta(0))
    store.sweep()
    assert len(drain(store)) == 2


def test_waiting_for_a_wake_up_ends_with_none(store: ExportStore, clock: FakeClock) -> None:
    # Given
    def now() -> float:
        return clock.monotonic() if isinstance(store, MemoryStore) else time.monotonic()

    before = now()

    # When / Then
    assert store.next_wake(timeout=timedelta(seconds=1.3)) is None
    assert 1.25 < now() - before < 3


# What only a Redis can show


class Forgetful(redis.Connection):
    """A connection that is cut once after the request was sent, before the answer is read."""

    armed = False

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        answer = super().read_response(*args, **kwargs)
        if Forgetful.armed:
            Forgetful.armed = False
            self.disconnect()
            raise redis.ConnectionError("the answer was lost")
        return answer


@pytest.fixture
def forgetful(redis_server: RedisServer, client: redis.Redis) -> Iterator[RedisStore]:
    """A store whose connection drops an answer when armed; scripts are loaded."""
    store = RedisStore.connect(redis_server.url.replace("/0", f"/{DATABASE}"))
    store.client.connection_pool.connection_class = Forgetful
    store.create(spec("warm"))
    store.end("warm", claim(store, timedelta(0)).fence, State.FAILED, keep_record=timedelta(0))
    store.release("warm", "", clean=True)
    store.commit("warm", "", checkpoint(), lease=LEASE, progress=0)
    store.request_cancel("warm", keep_record=KEEP)
    drain(store)
    yield store
    Forgetful.armed = False
    store.client.close()


def test_a_call_asked_again_after_a_lost_answer_takes_effect_once(forgetful: RedisStore) -> None:
    # Given
    def lossy() -> RedisStore:
        Forgetful.armed = True
        return forgetful

    # When / Then
    assert lossy().create(spec("e")).state is State.QUEUED
    assert drain(forgetful) == [("e", 0)]
    assert forgetful.sweep().ready == 1

    claimed = lossy().claim("worker-1", lease=LEASE, tenant_slots=1)
    assert claimed is not None
    assert (claimed.clean, claimed.fence[:2]) == (True, "1-")

    fence = claimed.fence
    verdict = lossy().commit("e", fence, checkpoint(), lease=LEASE, progress=0.5)
    assert verdict is Verdict.CONTINUE
    assert lossy().release("e", fence, clean=True, retry_in=timedelta(0), reason="429")
    assert known(forgetful, "e").stalls == 1

    fence = claim(forgetful, tenant_slots=1).fence
    assert lossy().end("e", fence, State.FINISHED, result=result(), keep_record=KEEP)
    assert known(forgetful, "e").state is State.FINISHED
    assert not Forgetful.armed


def test_a_claim_asked_again_does_not_take_a_second_export(forgetful: RedisStore) -> None:
    # Given
    fill(forgetful, 2)

    # When
    Forgetful.armed = True
    first = claim(forgetful)

    # Then
    assert not Forgetful.armed
    assert forgetful.renew(first.export.id, first.fence, lease=LEASE) is Verdict.CONTINUE
    assert claim(forgetful).export.id != first.export.id
    assert forgetful.claim("worker-1", lease=LEASE) is None


def test_a_waiting_caller_is_woken_by_a_create(client: redis.Redis) -> None:
    # Given
    store = RedisStore(client)
    timer = threading.Timer(0.2, lambda: store.create(spec("e", priority=2)))
    timer.start()
    began = time.monotonic()

    # When
    wake = store.next_wake(timeout=timedelta(seconds=20))

    # Then
    assert wake is not None
    assert (wake.export_id, wake.priority) == ("e", 2)
    assert time.monotonic() - began < 5
    timer.join()


def test_a_full_redis_refuses_new_exports_and_lets_the_others_end(client: redis.Redis) -> None:
    # Given
    store = RedisStore(client)
    fill(store, 4)
    running = claim(store)
    leaving = claim(store)
    claim(store, timedelta(0))
    drain(store)
    client.config_set("maxmemory", 1)
    try:
        # When / Then
        with pytest.raises(StoreUnavailable, match="Redis is full"):
            store.create(spec("one too many"))
        fence = running.fence
        assert store.renew(running.export.id, fence, lease=LEASE) is Verdict.CONTINUE
        verdict = store.commit(
            running.export.id, fence, checkpoint(), lease=LEASE, progress=0.5, closing=result()
        )
        assert verdict is Verdict.CONTINUE
        finish(store, running)
        assert store.release(leaving.export.id, leaving.fence, clean=True)
        assert store.sweep().expired == 1
        drain(store)
        assert store.sweep().ready == 3
        assert len(drain(store)) == 3
        canceled = store.request_cancel("ann-0-3", keep_record=KEEP)
        assert canceled is not None
        assert canceled.state is State.CANCELED
        assert len(claim_ids(store, 2)) == 2
    finally:
        client.config_set("maxmemory", 0)
    assert store.get("one too many") is None
    assert store.create(spec("now there is room")).state is State.QUEUED


def test_a_redis_that_does_not_answer_is_store_unavailable() -> None:
    # Given
    url = f"redis://127.0.0.1:{ports.free(1)[0]}/0"

    # When / Then
    store = RedisStore.connect(url)
    calls: list[Callable[[], object]] = [
        lambda: store.create(spec("e")),
        lambda: store.get("e"),
        lambda: store.list("ann", limit=1),
        lambda: store.next_wake(timeout=timedelta(0)),
        store.check,
    ]
    for call in calls:
        with pytest.raises(StoreUnavailable, match="Redis did not answer"):
            call()


def test_wake_ups_are_bounded_for_they_are_only_doorbells(client: redis.Redis) -> None:
    # Given more wake-ups than anyone will ever need
    store = RedisStore(client)
    client.lpush("exporter:wake", *["0 old"] * 10_000)

    # When
    store.create(spec("e"))

    # Then
    assert client.llen("exporter:wake") == 10_000
    assert client.lindex("exporter:wake", 0) == b"0 e"


def test_the_list_of_a_user_who_never_looks_stays_bounded(client: redis.Redis) -> None:
    # Given
    store = RedisStore(client)

    # When
    for n in range(50):
        store.create(spec(f"e{n}"))
        store.request_cancel(f"e{n}", keep_record=timedelta(0))

    # Then
    assert client.zcard("exporter:user:ann") <= 2


def test_nothing_is_left_of_exports_whose_records_expired(client: redis.Redis) -> None:
    # Given
    store = RedisStore(client)
    for user, n in itertools.product(("ann", "bob"), range(5)):
        store.create(spec(f"{user}-{n}", user))
    while (claimed := store.claim("w", lease=LEASE)) is not None:
        store.end(
            claimed.export.id, claimed.fence, State.FAILED, error="x", keep_record=timedelta(0)
        )

    # When
    drain(store)
    store.list("ann", limit=10)
    store.list("bob", limit=10)

    # Then
    left = {key for key in client.keys() if not key.startswith(b"exporter:claim:")}
    assert left <= {b"exporter:virtual", b"exporter:ready", b"exporter:served:0"}
    assert client.get("exporter:ready") == b"0"
    assert client.zcard("exporter:served:0") <= 2
    assert all(0 < client.ttl(key) <= 60 for key in client.keys("exporter:claim:*"))


def test_a_redis_set_up_as_shipped_passes_the_check(client: redis.Redis) -> None:
    assert list(RedisStore(client).check()) == []


@pytest.mark.parametrize(
    ("setting", "bad", "good"),
    [("maxmemory-policy", "allkeys-lru", "noeviction"), ("appendonly", "no", "yes")],
)
def test_a_redis_that_would_lose_exports_fails_the_check_with_the_command_that_mends_it(
    client: redis.Redis, setting: str, bad: str, good: str
) -> None:
    # Given
    client.config_set(setting, bad)
    try:
        # When / Then
        with pytest.raises(ConfigurationError, match=f"CONFIG SET {setting} {good}"):
            RedisStore(client).check()
    finally:
        client.config_set(setting, good)


def test_a_redis_that_may_lose_a_second_is_a_warning(client: redis.Redis) -> None:
    client.config_set("appendfsync", "everysec")
    try:
        (warning,) = RedisStore(client).check()
    finally:
        client.config_set("appendfsync", "always")
    assert "CONFIG SET appendfsync always" in warning


def test_what_a_managed_redis_does_not_tell_is_a_warning(
    redis_server: RedisServer, client: redis.Redis
) -> None:
    # Given a user who may not ask
    client.execute_command(
        "ACL", "SETUSER", "tenant", "on", ">pw", "~*", "+@all", "-info", "-config"
    )
    try:
        with redis.Redis.from_url(redis_server.url, username="tenant", password="pw") as limited:
            # When
            warnings = RedisStore(limited).check()
    finally:
        client.execute_command("ACL", "DELUSER", "tenant")

    # Then
    assert len(warnings) == 2
    assert all("does not tell" in warning for warning in warnings)
