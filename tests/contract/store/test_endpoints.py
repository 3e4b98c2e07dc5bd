"""Whom webhooks are sent to: what each user registered, and what their exports name."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

from exporter.core.events import DEFAULT_EVENTS, PROGRESS
from exporter.core.limits import LimitReached
from exporter.webhooks import endpoint_store as stored
from exporter.webhooks import signatures
from exporter.webhooks.endpoint_store import MAX_REGISTERED_ENDPOINTS, MAX_ROTATION_GRACE, Endpoints
from exporter.webhooks.endpoints import DisableReason, TooManyEndpoints
from tests.contract.store.given import SHORT, spec
from tests.contract.store.webhook_desk import URL, Desk

SECRET = signatures.new_secret()


def test_an_endpoint_is_as_it_was_registered(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given
    monkeypatch.setattr(signatures, "new_secret", lambda: SECRET)
    # When
    made = desk.endpoints.create(
        "ann",
        URL,
        events=["export.failed", "export.finished"],
        ordered=True,
        include_download_url=True,
        description="naïve 🦊",
    )
    # Then
    assert made == desk.known_endpoint(made) == desk.endpoints.list("ann")[0]
    assert (made.url, made.events) == (URL, ("export.finished", "export.failed"))
    assert [secret.value for secret in made.secrets] == [SECRET]
    assert (made.registered, made.ordered, made.include_download_url) == (True, True, True)
    assert made.description == "naïve 🦊"
    assert made.enabled
    assert SECRET not in repr(made)


def test_unless_it_is_told_an_endpoint_hears_of_all_but_progress(desk: Desk) -> None:
    # When
    made = desk.endpoints.create("ann", URL)
    # Then
    assert made.events == DEFAULT_EVENTS
    assert PROGRESS not in made.events
    assert signatures.decode_secret(made.secrets[0].value)


def test_what_cannot_be_registered_is_refused_with_nothing_recorded(desk: Desk) -> None:
    # When / Then
    for events in ([], ["export.finished", "export.lost"]):
        with pytest.raises(ValueError, match=r"event .*: give some of export\.queued"):
            desk.endpoints.create("ann", URL, events=events)
    assert desk.endpoints.list("ann") == ()


def test_a_user_registers_a_bounded_number_and_no_other_user_s_count(desk: Desk) -> None:
    # Given
    for _ in range(MAX_REGISTERED_ENDPOINTS):
        first = desk.endpoints.create("ann", URL)
    # When / Then
    with pytest.raises(TooManyEndpoints):
        desk.endpoints.create("ann", URL)
    assert desk.endpoints.create("bob", URL).registered
    assert desk.endpoints.delete(first.id, "ann")
    assert desk.endpoints.create("ann", URL).registered


def test_nobody_sees_or_changes_the_endpoint_of_another(desk: Desk) -> None:
    # Given
    endpoint = desk.endpoint()
    # When / Then
    assert desk.endpoints.find(endpoint.id, "bob") is None
    assert desk.endpoints.disable(endpoint.id, "bob") is None
    assert desk.endpoints.enable(endpoint.id, "bob") is None
    assert desk.endpoints.rotate(endpoint.id, "bob") is None
    assert not desk.endpoints.delete(endpoint.id, "bob")
    assert desk.known_endpoint(endpoint) == endpoint
    assert desk.endpoints.list("bob") == ()


def test_both_secrets_sign_for_the_time_of_grace(desk: Desk) -> None:
    # Given
    before = desk.endpoint().secrets[0].value
    (endpoint,) = desk.endpoints.list("ann")
    # When
    rotated = desk.endpoints.rotate(endpoint.id, "ann", grace=timedelta(hours=1))
    # Then
    assert rotated is not None
    now, old = rotated.secrets
    assert (old.value, now.until) == (before, None)
    assert now.value != before
    assert old.until is not None
    desk.queue("e")
    assert desk.claim().endpoint.secrets == rotated.secrets


def test_after_the_grace_the_new_secret_signs_alone(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    endpoint = desk.endpoint()
    monkeypatch.setattr(signatures, "new_secret", lambda: SECRET)
    # When
    at_once = desk.endpoints.rotate(endpoint.id, "ann", grace=timedelta(0))
    # Then
    assert at_once is not None
    assert [secret.value for secret in at_once.secrets] == [SECRET]
    for grace in (-SHORT, MAX_ROTATION_GRACE + SHORT):
        with pytest.raises(ValueError, match="give 0 to 7 days"):
            desk.endpoints.rotate(endpoint.id, "ann", grace=grace)


def test_a_rotation_sent_again_for_want_of_an_answer_rotates_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    endpoint = desk.endpoint()
    monkeypatch.setattr(signatures, "new_secret", lambda: SECRET)
    # When
    twice = [desk.endpoints.rotate(endpoint.id, "ann") for _ in range(2)]
    # Then
    assert twice[0] == twice[1]
    assert twice[0] is not None
    assert len(twice[0].secrets) == 2


def test_a_rotation_that_would_end_a_grace_period_early_is_refused(desk: Desk) -> None:
    # Given: as many secrets as may sign
    endpoint = desk.endpoint()
    for _ in range(4):
        rotated = desk.endpoints.rotate(endpoint.id, "ann")
    assert rotated is not None
    assert len(rotated.secrets) == 5
    # When
    with pytest.raises(LimitReached, match=r"5 secrets of endpoint .* still sign.*: wait until 20"):
        desk.endpoints.rotate(endpoint.id, "ann")
    # Then
    assert desk.known_endpoint(endpoint).secrets == rotated.secrets
    at_once = desk.endpoints.rotate(endpoint.id, "ann", grace=timedelta(0))
    assert at_once is not None
    assert at_once.secrets[1:] == rotated.secrets[1:]


def test_nothing_is_recorded_while_no_endpoint_of_a_user_is_enabled(desk: Desk) -> None:
    # Given
    one, other = desk.endpoint(), desk.endpoint(events=["export.finished"])
    # When / Then: none, the wrong one, the right one, none again
    desk.endpoints.disable(one.id, "ann")
    desk.store.create(spec("a"))
    assert desk.outbox.peek() == ()
    desk.endpoints.enable(one.id, "ann")
    desk.endpoints.disable(other.id, "ann")
    desk.store.create(spec("b"))
    assert [event.subject_id for event in desk.outbox.peek()] == ["b"]
    desk.endpoints.delete(one.id, "ann")
    desk.store.create(spec("c"))
    assert len(desk.outbox.peek()) == 1


def test_exports_that_name_one_url_share_its_endpoint(desk: Desk) -> None:
    # When
    first, again = (desk.endpoints.get_or_create("ann", URL) for _ in range(2))
    other_url, other_user = (
        desk.endpoints.get_or_create("ann", f"{URL}/2"),
        desk.endpoints.get_or_create("b", URL),
    )
    # Then
    assert first == again
    assert (first.registered, first.events) == (False, ())
    assert len({first.id, other_url.id, other_user.id}) == 3
    assert first in desk.endpoints.list("ann")
    assert desk.endpoints.registered("ann") == ()


def test_the_endpoints_of_many_urls_hide_no_registered_one(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    monkeypatch.setattr(stored, "MAX_LISTED_URL_ENDPOINTS", 3)
    monkeypatch.setattr(stored, "MAX_REGISTERED_ENDPOINTS", 2)
    registered = desk.endpoint()
    named = [desk.endpoints.get_or_create("ann", f"{URL}/{n}") for n in range(8)]
    # When
    found = desk.endpoints.list("ann")
    # Then
    assert found == (registered, *named[-5:])


def test_a_url_that_is_registered_is_not_told_twice(desk: Desk) -> None:
    # Given
    registered = desk.endpoint()
    # When
    named = desk.endpoints.get_or_create("ann", URL)
    desk.endpoints.disable(registered.id, "ann")
    # Then: unless it is disabled
    assert named.id == registered.id
    assert desk.endpoints.get_or_create("ann", URL).id != registered.id


def test_who_names_an_endpoint_that_had_failed_asks_for_it_anew(desk: Desk) -> None:
    # Given
    endpoint = desk.endpoints.get_or_create("ann", URL)
    test = desk.deliveries.send_test(endpoint)
    assert test.endpoint_id == endpoint.id
    desk.give_up(desk.claim(), "gone")
    assert desk.known_endpoint(endpoint).disabled_reason is DisableReason.GONE
    # When / Then
    assert desk.endpoints.get_or_create("ann", URL).enabled
    # ... and one whose owner disabled it stays as it is
    desk.endpoints.disable(endpoint.id, "ann")
    assert desk.endpoints.get_or_create("ann", URL).disabled_reason is DisableReason.OWNER


def test_an_endpoint_that_no_export_names_any_more_is_forgotten(desk: Desk) -> None:
    # Given
    endpoints = Endpoints(desk.client, url_endpoint_ttl=timedelta(seconds=1))
    endpoint = endpoints.get_or_create("ann", URL)
    key = f"{{exporter}}:endpoint:{endpoint.id}"
    assert 0 < desk.client.pttl(key) <= 1_000
    # When
    desk.client.pexpire(key, 1)
    time.sleep(0.01)
    # Then: and its place in the list goes with the next
    assert endpoints.list("ann") == ()
    fresh = endpoints.get_or_create("ann", f"{URL}/2")
    assert desk.members("endpoints:ann") == {fresh.id}
