"""What became of webhooks, over the wire: sent to a real receiver, logged, listed, sent again."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from standardwebhooks.webhooks import WebhookVerificationError

from exporter.core import limits
from exporter.core.plans import Plan
from exporter.core.rates import Rate
from tests.integration.api_server import PUBLIC_URL
from tests.integration.test_api_refusals import check_shape
from tests.integration.webhook_service import ENDPOINTS, URL, Hooked, verified
from tests.webhook_receiver import receiving, status

DELIVERIES = "/v1/webhook-deliveries"


@pytest.fixture
def desk(desk: Hooked) -> Hooked:
    """It may send to this machine, where the receivers of these tests are."""
    desk.allow("127.0.0.0/8")
    return desk


def listed(desk: Hooked, path: str, **params: Any) -> list[dict[str, Any]]:
    answer = desk.http.get(path, params=params)
    assert answer.status_code == 200, answer.text
    deliveries: list[dict[str, Any]] = answer.json()["deliveries"]
    return deliveries


def soon() -> str:
    return (datetime.now(UTC) - timedelta(minutes=5)).isoformat()


# -- from an export to its receiver ------------------------------------------------------------


def test_what_happens_to_an_export_is_told_signed_and_in_its_order(desk: Hooked) -> None:
    with receiving() as receiver:
        # Given
        made = desk.register(receiver.url, ordered=True)
        export_id = desk.create()

        # When
        desk.finish(export_id)
        desk.deliver()

        # Then
        told = [verified(made["secret"], one) for one in receiver.wait_for(3)]
        assert [one["type"] for one in told] == [
            "export.queued", "export.started", "export.finished",
        ]  # fmt: skip
        assert [one["data"]["sequence"] for one in told] == [1, 2, 3]
        finished = told[-1]["data"]
        assert (finished["id"], finished["state"]) == (export_id, "finished")
        assert finished["result"]["record_count"] == 1
        assert "download_url" not in finished
        assert finished["links"]["self"] == f"{PUBLIC_URL}/v1/exports/{export_id}"


def test_a_named_url_hears_of_its_export_alone_and_only_what_that_asked_for(desk: Hooked) -> None:
    with receiving() as receiver:
        # Given
        hook = {"webhook_url": receiver.url, "webhook_events": ["export.canceled"]}
        export_id, other = desk.create(**hook), desk.create()

        # When
        for one in (export_id, other):
            desk.http.post(f"/v1/exports/{one}/cancel")
        desk.deliver()

        # Then
        (endpoint,) = desk.http.get(ENDPOINTS).json()["endpoints"]
        secret = desk.http.get(f"{ENDPOINTS}/{endpoint['id']}/secret").json()["secret"]
        (received,) = receiver.received
        payload = verified(secret, received)
        assert (payload["type"], payload["data"]["id"]) == ("export.canceled", export_id)


def test_a_download_url_is_sent_where_it_was_asked_for_and_stands_in_no_log(desk: Hooked) -> None:
    with receiving() as receiver:
        # Given
        made = desk.register(receiver.url, include_download_url=True, events=["export.finished"])
        export_id = desk.create()

        # When
        desk.finish(export_id)
        desk.deliver()

        # Then
        (received,) = receiver.received
        url = verified(made["secret"], received)["data"]["download_url"]
        assert url
        (delivery,) = listed(desk, f"/v1/exports/{export_id}/deliveries")
        assert url not in desk.http.get(f"{DELIVERIES}/{delivery['id']}").text


def test_while_a_secret_is_replaced_receivers_verify_with_either(desk: Hooked) -> None:
    with receiving() as receiver:
        # Given
        made = desk.register(receiver.url)
        place = f"{ENDPOINTS}/{made['id']}"
        rotated = desk.http.post(f"{place}/rotate").json()["secret"]

        # When
        desk.http.post(f"{place}/test")
        desk.deliver()

        # Then
        (both,) = receiver.received
        assert verified(made["secret"], both) == verified(rotated, both)

        # When
        desk.http.post(f"{place}/rotate", json={"grace_seconds": 0})
        newest = desk.http.post(f"{place}/rotate", json={"grace_seconds": 0}).json()["secret"]
        desk.http.post(f"{place}/test")
        desk.deliver()

        # Then: nothing was replaced with grace since, so only the newest and the first, whose day
        # of grace is not over, sign
        last = receiver.received[-1]
        assert verified(newest, last) == verified(made["secret"], last)
        with pytest.raises(WebhookVerificationError):
            verified(rotated, last)


# -- testing -----------------------------------------------------------------------------------


def test_a_test_is_sent_once_and_answers_with_the_delivery_to_look_at(desk: Hooked) -> None:
    with receiving(status(503, "busy")) as receiver:
        # Given: it wants to hear of something else
        made = desk.register(receiver.url, events=["export.failed"])

        # When
        answer = desk.http.post(f"{ENDPOINTS}/{made['id']}/test")

        # Then
        assert answer.status_code == 202
        delivery = answer.json()
        assert (delivery["type"], delivery["state"]) == ("webhook.test", "pending")
        assert (delivery["export_id"], delivery["attempts"]) == (None, [])
        assert delivery["payload"]["data"] == {"id": made["id"]}

        # When
        desk.deliver()
        path = urlsplit(answer.headers["Location"]).path
        after = desk.http.get(path).json()

        # Then
        (received,) = receiver.received
        assert verified(made["secret"], received) == delivery["payload"]
        assert received.headers["webhook-id"] == delivery["message_id"]
        assert (after["state"], after["tries"], after["last_status"]) == ("dead", 1, 503)
        (attempt,) = after["attempts"]
        assert (attempt["status"], attempt["excerpt"]) == (503, "busy")
        assert 0 < attempt["duration"] < 5
        assert "answered 503" in attempt["error"]
        assert after["last_error"] == attempt["error"]
        assert after["gave_up"]


def test_a_disabled_endpoint_can_be_tested(desk: Hooked) -> None:
    with receiving() as receiver:
        # Given
        place = f"{ENDPOINTS}/{desk.register(receiver.url)['id']}"
        desk.http.post(f"{place}/disable")

        # When
        answer = desk.http.post(f"{place}/test")
        desk.deliver()

        # Then
        after = desk.http.get(f"{DELIVERIES}/{answer.json()['id']}").json()
        assert (after["state"], after["last_status"]) == ("delivered", 204)
        assert after["finished_at"] is not None
        assert after["gave_up"] is None


# -- listing -----------------------------------------------------------------------------------


def test_deliveries_are_listed_by_endpoint_and_by_export_newest_first(desk: Hooked) -> None:
    with receiving() as receiver:
        # Given
        one, two = desk.register(receiver.url)["id"], desk.register(f"{receiver.url}/2")["id"]
        first, second = desk.create(), desk.create()
        desk.deliver()

        # When
        of_one = listed(desk, f"{ENDPOINTS}/{one}/deliveries")
        of_second = listed(desk, f"/v1/exports/{second}/deliveries")

        # Then
        assert [delivery["export_id"] for delivery in of_one] == [second, first]
        assert {delivery["endpoint_id"] for delivery in of_one} == {one}
        assert {delivery["endpoint_id"] for delivery in of_second} == {one, two}
        assert {delivery["message_id"] for delivery in of_second} == {f"msg_{second}_1"}
        assert all(delivery["state"] == "delivered" for delivery in of_one + of_second)
        assert all("attempts" not in delivery for delivery in of_one)


def test_a_list_walked_by_its_links_shows_each_delivery_once(desk: Hooked) -> None:
    # Given
    endpoint = desk.register()["id"]
    made = [desk.http.post(f"{ENDPOINTS}/{endpoint}/test").json()["id"] for _ in range(7)]

    # When
    page = desk.http.get(f"{ENDPOINTS}/{endpoint}/deliveries", params={"limit": 3})
    pages = [page]
    while link := page.links.get("next"):
        address = urlsplit(link["url"])
        assert f"{address.scheme}://{address.netloc}" == PUBLIC_URL
        page = desk.http.get(f"{address.path}?{address.query}")
        pages.append(page)

    # Then
    seen = [[one["id"] for one in page.json()["deliveries"]] for page in pages]
    assert list(itertools.chain(*seen)) == made[::-1]
    assert [len(ids) for ids in seen] == [3, 3, 1]
    assert pages[-1].json()["next_cursor"] is None


def test_what_one_user_asks_to_be_sent_again_is_bounded(desk: Hooked) -> None:
    # Given
    most = desk.engine.settings.webhook_resend_rate.requests
    place = f"{ENDPOINTS}/{desk.register()['id']}"
    tested = desk.http.post(f"{place}/test").json()["id"]
    for _ in range(most - 1):
        assert desk.http.post(f"{place}/test").status_code == 202

    # When
    refused = [
        desk.http.post(f"{place}/test"),
        desk.http.post(f"{place}/recover", json={"since": soon()}),
        desk.http.post(f"{DELIVERIES}/{tested}/redeliver"),
    ]

    # Then
    for answer in refused:
        check_shape("native", answer, 429)
        assert answer.json()["code"] == "rate_limited"
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
        assert "limited to 20/60s" in answer.json()["detail"]
    often = Plan(key_id=None, limits={"webhook_resends": Rate(100, 60)})
    trusted = {"X-API-Key": desk.keys.create("ann", plan=often)}
    assert desk.http.post(f"{place}/test", headers=trusted).status_code == 202
    bob = {"X-API-Key": desk.bob}
    other = desk.http.post(ENDPOINTS, json={"url": URL}, headers=bob).json()["id"]
    assert desk.http.post(f"{ENDPOINTS}/{other}/test", headers=bob).status_code == 202


def test_what_all_users_ask_to_be_sent_to_one_host_is_bounded(
    desk: Hooked, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    few = replace(limits.WEBHOOK_RESENDS_TO_HOST, default=Rate(2, 60))
    monkeypatch.setattr(limits, "WEBHOOK_RESENDS_TO_HOST", few)
    keys = [{"X-API-Key": key} for key in (desk.ann, desk.bob)]
    places = [
        f"{ENDPOINTS}/{desk.http.post(ENDPOINTS, json={'url': URL}, headers=key).json()['id']}/test"
        for key in keys
    ]
    assert [desk.http.post(places[0]).status_code for _ in range(2)] == [202, 202]

    # When
    refused = desk.http.post(places[1], headers=keys[1])

    # Then
    check_shape("native", refused, 429)
    assert "all users to hooks.example.com" in refused.json()["detail"]
    elsewhere = desk.register("https://other.example.com/")["id"]
    assert desk.http.post(f"{ENDPOINTS}/{elsewhere}/test").status_code == 202


def test_only_the_latest_tests_of_an_endpoint_are_kept(desk: Hooked) -> None:
    # Given
    desk.engine.settings.webhook_resend_rate = Rate(1_000, 60)
    place = f"{ENDPOINTS}/{desk.register()['id']}"

    # When
    ids = [desk.http.post(f"{place}/test").json()["id"] for _ in range(25)]

    # Then
    kept = [one["id"] for one in listed(desk, f"{place}/deliveries", limit=100)]
    assert kept == ids[:4:-1]
    assert desk.http.get(f"{DELIVERIES}/{ids[0]}").status_code == 404


def test_a_search_for_a_rare_state_costs_little(desk: Hooked) -> None:
    # Given: many pending deliveries, none delivered
    endpoint = desk.register()["id"]
    pipe = desk.client.pipeline()
    for n in range(1_500):
        pipe.zadd(f"{{exporter}}:deliveries:{endpoint}", {f"d{n}": n})
        pipe.hset(f"{{exporter}}:delivery:d{n}", "state", "pending")
    pipe.execute()
    began = time.monotonic()
    desk.client.config_resetstat()

    # When
    found = listed(desk, f"{ENDPOINTS}/{endpoint}/deliveries", state="delivered", limit=1)

    # Then
    stats: Any = desk.client.info("commandstats")
    assert found == []
    assert stats["cmdstat_zrevrangebyscore"]["calls"] <= 10
    assert time.monotonic() - began < 1


def test_deliveries_of_one_state_are_found_behind_many_of_others(desk: Hooked) -> None:
    with receiving(status(500)) as receiver:
        # Given: one that was given up, then many that wait
        endpoint = desk.register(receiver.url)["id"]
        test = f"{ENDPOINTS}/{endpoint}/test"
        dead = desk.http.post(test).json()["id"]
        desk.deliver()
        for _ in range(15):
            desk.http.post(test)

        # When
        path = f"{ENDPOINTS}/{endpoint}/deliveries"
        found = listed(desk, path, state="dead", limit=4)
        waiting = listed(desk, path, state="pending", limit=40)

        # Then
        assert [delivery["id"] for delivery in found] == [dead]
        assert len(waiting) == 15


def test_what_was_given_up_is_listed_for_its_user_until_it_is_sent_again(desk: Hooked) -> None:
    with receiving(status(500), status(204)) as receiver:
        # Given
        endpoint = desk.register(receiver.url)["id"]
        dead = desk.http.post(f"{ENDPOINTS}/{endpoint}/test").json()["id"]
        desk.deliver()

        # When
        mine = listed(desk, DELIVERIES)
        same = listed(desk, DELIVERIES, state="dead")
        theirs = desk.http.get(DELIVERIES, headers={"X-API-Key": desk.bob}).json()

        # Then
        assert [delivery["id"] for delivery in mine] == [dead]
        assert mine == same
        assert theirs == {"deliveries": [], "next_cursor": None}

        # When
        desk.http.post(f"{DELIVERIES}/{dead}/redeliver")

        # Then
        assert listed(desk, DELIVERIES) == []


@pytest.mark.parametrize(
    ("path", "params", "parameter"),
    [
        ("endpoint", {"state": "lost"}, "state"),
        ("endpoint", {"limit": 0}, "limit"),
        ("endpoint", {"cursor": "nonsense"}, "cursor"),
        ("export", {"state": "DEAD"}, "state"),
        ("export", {"cursor": "nonsense"}, "cursor"),
        ("all", {"state": "pending"}, "state"),
        ("all", {"cursor": "x" * 1_001}, "cursor"),
    ],
)
def test_a_wrong_parameter_of_a_list_is_named(
    desk: Hooked, path: str, params: dict[str, Any], parameter: str
) -> None:
    # Given
    places = {
        "endpoint": f"{ENDPOINTS}/{desk.register('https://example.com')['id']}/deliveries",
        "export": f"/v1/exports/{desk.create()}/deliveries",
        "all": DELIVERIES,
    }

    # When
    answer = desk.http.get(places[path], params=params)

    # Then
    (entry,) = check_shape("native", answer, 422)["errors"]
    assert entry["parameter"] == parameter


# -- sending again -----------------------------------------------------------------------------


def test_a_delivery_is_sent_again_under_its_own_id(desk: Hooked) -> None:
    with receiving() as receiver:
        # Given
        made = desk.register(receiver.url, events=["export.queued"])
        export_id = desk.create()
        desk.deliver()
        (delivery,) = listed(desk, f"/v1/exports/{export_id}/deliveries")

        # When
        again = desk.http.post(f"{DELIVERIES}/{delivery['id']}/redeliver")
        desk.deliver()

        # Then
        assert again.status_code == 202
        assert (again.json()["state"], again.json()["tries"]) == ("pending", 0)
        first, second = receiver.received
        assert first.body == second.body
        assert first.headers["webhook-id"] == second.headers["webhook-id"]
        assert verified(made["secret"], second)["data"]["id"] == export_id
        after = desk.http.get(f"{DELIVERIES}/{delivery['id']}").json()
        assert (after["state"], len(after["attempts"])) == ("delivered", 2)


def test_all_that_failed_since_a_time_is_sent_again(desk: Hooked) -> None:
    with receiving(status(500)) as receiver:
        # Given
        endpoint = desk.register(receiver.url, events=["export.queued"])["id"]
        exports = {desk.create() for _ in range(3)}
        desk.deliver()
        receiver.behaviours[:] = [status(204)]
        place = f"{ENDPOINTS}/{endpoint}/recover"

        # When
        later = desk.http.post(
            place, json={"since": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}
        )
        answer = desk.http.post(place, json={"since": soon()})
        desk.deliver()

        # Then
        assert (later.status_code, later.json()) == (202, {"recovered": 0})
        assert (answer.status_code, answer.json()) == (202, {"recovered": 3})
        delivered = listed(desk, f"{ENDPOINTS}/{endpoint}/deliveries", state="delivered")
        assert {delivery["export_id"] for delivery in delivered} == exports
        assert desk.http.post(place, json={"since": soon()}).json() == {"recovered": 0}


@pytest.mark.parametrize(
    ("since", "said"),
    [
        (None, "string"),
        ("yesterday", "2026-03-01T12:00:00Z"),
        (1_767_225_600, "string"),
        ("2020-01-01", "over 14 days ago"),
        ("x" * 65, "64"),
    ],
)
def test_a_time_to_recover_from_that_is_none_or_too_long_ago_is_refused(
    desk: Hooked, since: Any, said: str
) -> None:
    # Given
    endpoint = desk.register("https://example.com")["id"]

    # When
    answer = desk.http.post(f"{ENDPOINTS}/{endpoint}/recover", json={"since": since})

    # Then
    (entry,) = check_shape("native", answer, 422)["errors"]
    assert entry["pointer"] == "/since"
    assert said in entry["detail"]


def test_nothing_is_sent_again_to_an_endpoint_that_is_disabled_or_deleted(desk: Hooked) -> None:
    # Given
    place = f"{ENDPOINTS}/{desk.register('https://example.com')['id']}"
    delivery = desk.http.post(f"{place}/test").json()["id"]

    def attempts() -> list[httpx.Response]:
        return [
            desk.http.post(f"{DELIVERIES}/{delivery}/redeliver"),
            desk.http.post(f"{place}/recover", json={"since": soon()}),
        ]

    # When
    desk.http.post(f"{place}/disable")
    disabled = attempts()
    desk.http.delete(place)
    redelivered, recovered = attempts()

    # Then
    for answer in (*disabled, redelivered):
        assert check_shape("native", answer, 409)["code"] == "endpoint_disabled"
    check_shape("native", recovered, 404)


# -- who may -----------------------------------------------------------------------------------


def test_anothers_deliveries_are_not_there(desk: Hooked) -> None:
    # Given
    endpoint, export_id = desk.register("https://example.com")["id"], desk.create()
    delivery = desk.http.post(f"{ENDPOINTS}/{endpoint}/test").json()["id"]
    bob = {"X-API-Key": desk.bob}
    for method, path in (
        ("GET", f"{DELIVERIES}/{delivery}"),
        ("POST", f"{DELIVERIES}/{delivery}/redeliver"),
        ("GET", f"{DELIVERIES}/msg_none.we_none"),
        ("GET", f"{ENDPOINTS}/{endpoint}/deliveries"),
        ("GET", f"/v1/exports/{export_id}/deliveries"),
    ):
        # When
        answer = desk.http.request(method, path, headers=bob)

        # Then
        check_shape("native", answer, 404)


def test_who_only_reads_sees_deliveries_and_sends_none(desk: Hooked) -> None:
    # Given
    endpoint = desk.register("https://example.com")["id"]
    delivery = desk.http.post(f"{ENDPOINTS}/{endpoint}/test").json()["id"]
    reading = {"X-API-Key": desk.keys.create("ann", ["read"])}

    # When
    seen = desk.http.get(f"{DELIVERIES}/{delivery}", headers=reading)
    sent = desk.http.post(f"{DELIVERIES}/{delivery}/redeliver", headers=reading)

    # Then
    assert seen.status_code == 200
    check_shape("native", sent, 403)
