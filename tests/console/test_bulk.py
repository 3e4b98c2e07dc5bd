"""Many exports are canceled, retried and downloaded at once, and never others than were meant."""

from __future__ import annotations

import html
import re

import pytest

from exporter.console import bulk
from exporter.core import limits
from exporter.core.rates import Rate
from tests.console.conftest import HOSTILE, Browser

pytestmark = pytest.mark.external


def confirm(browser: Browser, page: str) -> dict[str, object]:
    """Returns the fields of the form that confirms an act."""
    text = html.unescape(page)
    fields = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', text)
    found = {name: value for name, value in fields if name not in ("csrf", "id")}
    return {**found, "id": [value for name, value in fields if name == "id"], "confirmed": "1"}


def states(browser: Browser) -> dict[str, str]:
    listed = browser.desk.http.get("/v1/exports").json()["exports"]
    return {one["id"]: one["state"] for one in listed}


def test_the_ticked_exports_are_canceled_after_their_number_was_confirmed(browser: Browser) -> None:
    """Given three exports of which one has ended, when all are ticked and canceled, then the first
    page names two and changes nothing, and its confirmation cancels those two.
    """
    ended, *others = (browser.desk.create(name=f"{HOSTILE} {n}") for n in range(3))
    kept = browser.desk.create()
    browser.desk.finish(ended)
    asked = browser.post("/exports/bulk", act="cancel", id=[ended, *others])
    assert "Cancel 2 exports?" in asked.text
    assert "1 other of those that were ticked is left out" in asked.text
    assert HOSTILE not in asked.text
    assert set(states(browser).values()) == {"finished", "queued"}
    done = browser.post("/exports/bulk", **confirm(browser, asked.text))
    assert "2 exports were asked to stop" in done.text
    assert states(browser) == {
        ended: "finished", kept: "queued", **dict.fromkeys(others, "canceled")
    }  # fmt: skip


def test_all_that_match_are_retried_once(browser: Browser) -> None:
    """Given canceled exports of two names, when all of one name are retried and the form is sent
    twice, then each of them is repeated once, and the view is shown again.
    """
    wanted = {browser.desk.create(name="Cooks") for _ in range(3)}
    other = browser.desk.create(name="Welders")
    for one in (*wanted, other):
        browser.post(f"/exports/{one}", act="cancel")
    asked = browser.post("/exports/bulk", act="retry", all="1", view="name=cooks&order=oldest")
    assert "Retry 3 exports?" in asked.text
    for _ in range(2):
        done = browser.post("/exports/bulk", **confirm(browser, asked.text))
        assert "name=cooks&order=oldest" in str(done.url)
    listed = browser.desk.http.get("/v1/exports").json()["exports"]
    assert {one["retry_of"] for one in listed if one["retry_of"]} == wanted
    assert len(listed) == 7


def test_files_are_downloaded_by_one_command(browser: Browser) -> None:
    first, second = browser.desk.create(file_name="jobs"), browser.desk.create(file_name="jobs")
    for one in (first, second):
        browser.desk.finish(one)
    browser.desk.create()
    page = browser.post("/exports/bulk", act="download", all="1")
    assert "Download 2 exports" in page.text
    assert page.headers["Cache-Control"] == "no-store"
    assert page.text.count("curl -fsS -o") == 2
    assert "1-jobs.csv" in page.text
    assert "2-jobs.csv" in page.text
    assert f"/exports/{first}/download" in page.text


def test_more_than_the_bound_are_left_for_the_next_time(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "MAX_EXPORTS", 2)
    ids = [browser.desk.create() for _ in range(3)]
    for fields in ({"all": "1"}, {"id": ids}):
        page = browser.post("/exports/bulk", act="cancel", **fields)
        assert "Cancel 2 exports?" in page.text
        assert "There are more: at most 2 at a time" in page.text


def test_the_rate_of_the_key_holds(browser: Browser) -> None:
    """Given a key whose rate allows one change, when three are confirmed, then the page says how
    many were done and why no more.
    """
    engine = browser.desk.engine
    setting = limits.CHANGE_RATE.setting or ""
    engine.settings = engine.settings.model_copy(update={setting: Rate(1, 3600)})
    ids = [browser.desk.create() for _ in range(3)]
    done = browser.post("/exports/bulk", act="cancel", id=ids, confirmed="1")
    assert done.status_code == 409
    assert "Done with 1 of 3 exports" in done.text
    assert sorted(states(browser).values()) == ["canceled", "queued", "queued"]


def test_the_exports_of_others_are_not_among_them(browser: Browser) -> None:
    export_id = browser.desk.create()
    browser.sign_in(browser.desk.bob)
    for fields in ({"id": [export_id]}, {"all": "1"}):
        page = browser.post("/exports/bulk", act="cancel", **fields)
        assert "Nothing to cancel" in page.text
    forced = browser.post("/exports/bulk", act="cancel", id=export_id, confirmed="1")
    assert forced.status_code == 409
    assert states(browser) == {export_id: "queued"}


@pytest.mark.parametrize("fields", [{"act": "sell"}, {}, {"act": "cancel", "id": "x" * 9}])
def test_nonsense_changes_nothing(browser: Browser, fields: dict[str, str]) -> None:
    export_id = browser.desk.create()
    assert browser.post("/exports/bulk", **fields).status_code in (200, 422)
    assert states(browser) == {export_id: "queued"}
