"""Each page shows what the API knows, and does what its operations do."""

from __future__ import annotations

import html
import re

import pytest

from exporter.core.plans import Plan
from exporter.errors import SourceUnavailable
from exporter.sources.memory import MemorySource
from tests.console.conftest import HOSTILE, Browser
from tests.integration.webhook_service import URL

EXPORT = {"source": "board", "format": "csv", "priority": "0", "compression": "none"}


def only_export(browser: Browser) -> str:
    (found,) = browser.desk.http.get("/v1/exports").json()["exports"]
    return str(found["id"])


def test_the_form_has_the_filters_of_its_source(browser: Browser) -> None:
    """Given a source with lists of values, when the form is opened, then its enumerations, dates,
    numbers and texts are inputs of their kind; another source has its own.
    """
    page = browser.get("/exports/new")
    assert '<textarea id="f.job_titles"' in page
    assert 'name="f.location_types" value="Remote"' in page
    assert 'name="f.industry" value="Welding"' in page
    assert 'id="f.date_posted" name="f.date_posted" value="" type="date"' in page
    assert 'name="f.salary.min"' in page
    other = browser.get("/exports/new?source=coresignal")
    assert 'id="f.created_at_gte"' in other
    assert "f.job_titles" not in other


def test_a_check_counts_and_previews_and_stores_nothing(browser: Browser) -> None:
    answer = browser.post(
        "/exports/new", **EXPORT, do="check", **{"f.job_titles": "welder\r\ncook"}
    )
    assert answer.status_code == 200
    assert "30 rows match" in answer.text
    assert answer.text.count("<tr>") == 21
    assert HOSTILE not in answer.text
    assert html.escape(HOSTILE).replace("&#x27;", "&#39;")[:20] in answer.text
    command = html.unescape(answer.text)
    assert '"query": {"job_titles": ["welder", "cook"]}' in command
    assert browser.desk.http.get("/v1/exports").json()["exports"] == []


def test_the_form_makes_the_export_that_it_says(browser: Browser) -> None:
    fields = {
        "f.job_titles": "welder",
        "f.location_types": ["Remote", "Hybrid"],
        "f.salary.min": "50000",
        "f.visa": "true",
        "f.geo_locations.city": "Berlin",
        "query": '{"keywords": ["-intern"]}',
        "columns": ["_id", "job_title"],
        "limit": "7",
    }
    answer = browser.post("/exports/new", **{**EXPORT, "priority": "3"}, **fields, do="create")
    export_id = only_export(browser)
    assert answer.url.path == f"/exports/{export_id}"
    made = browser.desk.http.get(f"/v1/exports/{export_id}").json()
    assert made["query"] == {
        "job_titles": ["welder"],
        "keywords": ["-intern"],
        "location_types": ["Remote", "Hybrid"],
        "geo_locations": [{"city": "Berlin"}],
        "salary": {"min": 50000},
        "visa": True,
    }
    assert (made["columns"], made["limit"], made["priority"]) == (["_id", "job_title"], 7, 3)
    again = browser.get(f"/exports/new?from={export_id}")
    assert ">welder</textarea>" in again
    assert 'value="Remote" checked' in again
    assert 'name="f.geo_locations.city" value="Berlin"' in again
    assert 'name="f.salary.min" value="50000"' in again


def test_a_form_tells_its_command_while_it_is_filled(browser: Browser) -> None:
    answer = browser.post("/exports/new", **EXPORT, do="command", **{"f.job_titles": "cook's"})
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert '"query": {"job_titles": ["cook' in answer.text
    assert browser.desk.http.get("/v1/exports").json()["exports"] == []


def test_a_form_tells_what_an_export_costs(browser: Browser) -> None:
    """Given a key that pays for rows, when its form is checked, then cost and balance are named."""
    browser.sign_in(browser.desk.keys.create("ann", plan=Plan(None, metered=True), balance=1_234))
    page = browser.post("/exports/new", **EXPORT, do="check").text
    assert "It costs 30 credits at most. You have 1,234 credits." in page


def test_a_form_that_is_sent_twice_makes_one_export(browser: Browser) -> None:
    found = re.search(r'name="once" value="(\S{16,})"', browser.get("/exports/new"))
    assert found is not None
    for _ in range(2):
        browser.post("/exports/new", **EXPORT, once=found[1], do="create")
    assert only_export(browser)


def test_a_wrong_field_keeps_the_form_and_says_why(browser: Browser) -> None:
    answer = browser.post(
        "/exports/new",
        **EXPORT,
        limit="many",
        query="{",
        do="create",
        **{"f.job_titles": HOSTILE},
    )
    assert answer.status_code == 422
    assert answer.text.count('class="wrong"') >= 2
    assert 'value="many"' in answer.text
    assert HOSTILE not in answer.text
    assert browser.desk.http.get("/v1/exports").json()["exports"] == []


def test_an_export_is_canceled_retried_and_deleted(browser: Browser) -> None:
    export_id = browser.desk.create()
    assert "queued" in browser.get(f"/exports/{export_id}")
    canceled = browser.post(f"/exports/{export_id}", act="cancel")
    assert "asked to stop" in canceled.text
    retried = browser.post(f"/exports/{export_id}", act="retry")
    assert retried.url.path not in ("/", f"/exports/{export_id}")
    browser.post(f"/exports/{export_id}", act="delete")
    assert browser.http.get(f"/exports/{export_id}").status_code == 404


def test_a_finished_export_shows_its_proof_and_its_file(browser: Browser) -> None:
    export_id = browser.desk.create()
    browser.desk.finish(export_id)
    page = browser.get(f"/exports/{export_id}")
    for text in ("Announced at the start", "Total reached", f"/exports/{export_id}/download"):
        assert text in page
    link = browser.http.get(f"/exports/{export_id}/download", follow_redirects=False)
    assert link.status_code == 303
    assert export_id in link.headers["Location"]


def test_the_exports_of_others_are_unknown(browser: Browser) -> None:
    export_id = browser.desk.create()
    browser.sign_in(browser.desk.bob)
    assert export_id not in browser.get("/")
    assert browser.http.get(f"/exports/{export_id}").status_code == 404
    assert browser.post(f"/exports/{export_id}", act="cancel").status_code == 404


def test_the_secret_of_an_endpoint_is_shown_once(browser: Browser) -> None:
    """Given an endpoint, when it is registered and rotated, then each time its secret is on that
    page and on no later one.
    """
    made = browser.post("/webhooks", url=URL, events=["export.finished", "export.failed"])
    (endpoint,) = browser.desk.endpoints.list("ann")
    assert endpoint.events == ("export.finished", "export.failed")
    assert html.escape(endpoint.secrets[0].value) in made.text
    rotated = browser.post(f"/webhooks/{endpoint.id}", act="rotate", grace="0")
    (endpoint,) = browser.desk.endpoints.list("ann")
    assert html.escape(endpoint.secrets[0].value) in rotated.text
    assert rotated.headers["Cache-Control"] == made.headers["Cache-Control"] == "no-store"
    assert "whsec_" not in browser.get(f"/webhooks/{endpoint.id}")


def test_a_wrong_endpoint_is_refused_beside_its_field(browser: Browser) -> None:
    answer = browser.post("/webhooks", url="http://127.0.0.1/hook", events="export.finished")
    assert answer.status_code == 422
    assert 'class="wrong"' in answer.text
    assert browser.desk.endpoints.list("ann") == ()


def test_a_delivery_shows_request_and_answer_and_is_sent_again(browser: Browser) -> None:
    endpoint_id = browser.desk.register("https://nowhere.example.com/hook")["id"]
    browser.desk.create()
    browser.desk.deliver()
    page = browser.get(f"/webhooks/{endpoint_id}")
    assert "export.queued" in page
    assert "no answer" in page
    assert "webhook-id: msg_" in page
    delivery = browser.desk.http.get(f"/v1/webhook-endpoints/{endpoint_id}/deliveries").json()
    sent = browser.post(f"/deliveries/{delivery['deliveries'][0]['id']}/redeliver")
    assert sent.url.path == f"/webhooks/{endpoint_id}"
    assert "sent again" in sent.text
    tested = browser.post(f"/webhooks/{endpoint_id}", act="test")
    assert "webhook.test" in tested.text
    assert "No delivery in this state" in browser.get(f"/webhooks/{endpoint_id}?state=delivered")
    recovered = browser.post(f"/webhooks/{endpoint_id}", act="recover", since="2001-01-01")
    assert recovered.status_code == 422
    for act, text in (("disable", "is disabled"), ("enable", "is enabled")):
        assert text in browser.post(f"/webhooks/{endpoint_id}", act=act).text
    assert browser.post(f"/webhooks/{endpoint_id}", act="delete").url.path == "/webhooks"
    assert browser.desk.endpoints.list("ann") == ()


def test_a_listener_is_shown_without_a_url(browser: Browser) -> None:
    # Given
    made = browser.desk.http.post("/v1/webhook-endpoints", json={"kind": "listener"}).json()
    # When
    listed, page = browser.get("/webhooks"), browser.get(f"/webhooks/{made['id']}")
    # Then
    assert '<span class="badge live">listening</span>' in listed
    assert f'href="/webhooks/{made["id"]}">listener</a>' in listed
    assert "<title>Listener" in page
    assert "60 s after the last take" in page


def test_others_see_their_own_key_alone(browser: Browser) -> None:
    page = browser.get("/keys")
    assert "ann" in page
    assert "bob" not in page
    assert "Create a key" not in page
    refused = browser.post("/keys", user="eve", scopes=["read", "operator"])
    assert refused.status_code == 403
    assert browser.http.get("/system").status_code == 403


def test_an_operator_makes_changes_and_revokes_keys(operator: Browser) -> None:
    keys = operator.desk.keys
    fields = {"user": "eve", "name": HOSTILE, "scopes": ["read"], "credits": "500"}
    made = operator.post("/keys", **fields, features=["export", "search"], max_priority="4")
    (key,) = (one for one in keys.list() if one.user_id == "eve")
    assert made.text.count("exp_") == 1
    assert made.headers["Cache-Control"] == "no-store"
    assert (key.scopes, key.plan.priority_ceiling, key.plan.metered) == (("read",), 4, True)
    assert key.plan.features == frozenset({"export", "search"})
    page = operator.get("/keys")
    assert "exp_" not in page
    assert HOSTILE not in page
    operator.post(f"/keys/{key.id}", act="set", credits="unlimited", max_priority="9")
    (key,) = (one for one in keys.list() if one.user_id == "eve")
    assert (key.plan.priority_ceiling, key.plan.metered, key.plan.features) == (9, False, None)
    assert operator.post(f"/keys/{key.id}", act="set", credits="-1").status_code == 422
    operator.post(f"/keys/{key.id}", act="revoke")
    assert all(one.user_id != "eve" for one in keys.list())
    assert operator.post(f"/keys/{key.id}", act="revoke").status_code == 404


def test_sources_are_read_on_request(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no request yet" in browser.get("/sources")
    assert "It answered with 20 rows of 30" in browser.post("/sources/board/test").text

    def fetch(self: object, query: object, cursor: object) -> None:
        raise SourceUnavailable(f"the source answered 503: {HOSTILE}")

    monkeypatch.setattr(MemorySource, "fetch", fetch)
    failed = browser.post("/sources/board/test")
    assert "answered 503" in failed.text
    assert HOSTILE not in failed.text


def test_a_plan_without_a_source_offers_none(browser: Browser) -> None:
    key = browser.desk.keys.create("ann", plan=Plan(None, features=frozenset({"expired"})))
    browser.sign_in(key)
    assert browser.http.get("/exports/new").status_code == 403
    assert "does not include export" in browser.get("/sources")


def test_the_system_shows_what_waits_and_who_works(operator: Browser) -> None:
    operator.desk.create()
    page = operator.get("/system")
    assert "Ready by priority" in page
    assert "none" in page  # no worker shows itself
    assert "ann" in page
    assert "queued" in page


def test_the_list_is_filtered_by_its_address(browser: Browser) -> None:
    """Given exports with names in two states, when the list is opened with filters, then it has
    those that meet them, the counts of all states, and the filters in its fields.
    """
    create = browser.desk.create
    first, second = create(name="Welders in Berlin"), create(name=f"Cooks {HOSTILE}")
    browser.post(f"/exports/{first}", act="cancel")
    page = browser.get("/?state=canceled")
    assert first in page
    assert second not in page
    tabs = re.findall(r'(\w+) <span class="badge">(\d+)</span>', page)
    assert dict(tabs) == {
        "All": "2",
        "Queued": "1",
        "Running": "0",
        "Finished": "0",
        "Failed": "0",
        "Canceled": "1",
    }
    named = browser.get("/?name=coo&order=oldest")
    assert second in named
    assert first not in named
    assert HOSTILE not in named
    assert 'value="coo"' in named
    assert "No export meets these filters" in browser.get("/?name=plumber")
    assert browser.http.get("/?state=sold").status_code == 422
