"""What a worker does with its claim: renew, commit, give back."""

from __future__ import annotations

from datetime import timedelta

from exporter.core.exports import Phase, WrongAnswers
from exporter.store.base import Claim, ExportStore, Verdict
from tests.contract.store.given import (
    KEEP,
    LEASE,
    SHORT,
    Elapse,
    checkpoint,
    claim,
    fill,
    known,
    result,
    spec,
)


def test_a_renewed_lease_does_not_expire(store: ExportStore, elapse: Elapse) -> None:
    # Given
    store.create(spec("e"))
    claimed = claim(store, SHORT)
    elapse(timedelta(0))

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
    written.row_counts.unmapped_fields["größe"] = 2

    # When
    verdict = store.commit("e", first.fence, written, lease=LEASE, progress=0.4)
    written.row_counts.guarded_cells += 1
    store.release("e", first.fence, clean=True)

    # Then
    assert verdict is Verdict.CONTINUE
    found = claim(store).export.checkpoint
    expected = checkpoint(pages=7, parts=3)
    expected.row_counts.unmapped_fields["größe"] = 2
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
    # Given one that waits for an hour and one that does not
    fill(store, 2)
    for retry_in in (KEEP, SHORT):
        claimed = claim(store)
        store.release(
            claimed.export.id, claimed.fence, clean=True, retry_in=retry_in, reason="HTTP 429"
        )
    waiting = known(store, "ann-0-0")
    assert (waiting.phase, waiting.error) == (Phase.WAITING, "HTTP 429")
    assert waiting.stalled_since is not None
    assert waiting.retry_at == waiting.stalled_since + KEEP

    # When
    elapse(SHORT)

    # Then
    again = claim(store)
    assert again.export.id == "ann-0-1"
    assert again.clean
    assert (again.export.phase, again.export.retry_at) == (Phase.READING, None)
    assert (again.export.stalls, again.export.error) == (1, "HTTP 429")
    assert store.claim("worker-1", lease=LEASE) is None
    assert known(store, "ann-0-0") == waiting


def test_waits_for_wrong_answers_are_kept_until_another_wait_or_progress(
    store: ExportStore, elapse: Elapse
) -> None:
    # Given
    store.create(spec("e"))
    twice = WrongAnswers("refused", 2)

    def wait_and_claim(answers: WrongAnswers | None) -> Claim:
        for _ in range(2):  # the answer to the first call is lost
            store.release(
                "e", claimed.fence, clean=True, retry_in=timedelta(0), wrong_answers=answers
            )
        elapse(timedelta(0))
        return claim(store)

    claimed = claim(store)
    assert claimed.export.wrong_answers is None

    # When / Then
    claimed = wait_and_claim(twice)
    assert claimed.export.wrong_answers == twice
    store.release("e", claimed.fence, clean=True)
    claimed = claim(store)
    assert claimed.export.wrong_answers == twice
    claimed = wait_and_claim(None)
    assert claimed.export.wrong_answers is None
    claimed = wait_and_claim(twice)
    store.commit("e", claimed.fence, checkpoint(), lease=LEASE, progress=0.1)
    store.release("e", claimed.fence, clean=True)
    assert claim(store).export.wrong_answers is None


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
