"""The list finds what its filters say, and leads a new user to a first file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest

from exporter.core.plans import Plan
from exporter.sources.hirebase import HirebaseConfig
from exporter.sources.memory import MemorySource
from tests.console.conftest import Browser

pytestmark = pytest.mark.external


def test_the_first_export_is_one_click_and_not_empty(browser: Browser) -> None:
    """Given a user without exports, when the sample is asked for, then all rows of the first source
    that has any are exported.
    """
    assert "Export a sample now" in browser.get("/")
    made = browser.post("/exports/first", act="first")
    (one,) = browser.desk.http.get("/v1/exports").json()["exports"]
    assert made.url.path == f"/exports/{one['id']}"
    assert (one["source"], one["limit"], one["name"]) == ("board", None, "First export")


class Uncounted(MemorySource):
    """A source that has no rows, and does not count them."""

    def count(self, query: Mapping[str, Any]) -> None:
        return None


def test_the_first_export_is_of_no_source_that_turns_out_to_be_empty(browser: Browser) -> None:
    """Given an empty source that does not count before one that has rows, when the sample is asked
    for, then it is made from that one.
    """
    engine = browser.desk.engine
    known = cast("dict[str, Any]", engine.config.sources)
    others = dict(known)
    known.clear()
    known |= {"quiet": HirebaseConfig(base_url="http://127.0.0.1:9"), **others}
    engine.sources.opened["quiet"] = Uncounted([], page_size=20, columns=("_id",))
    browser.post("/exports/first", act="first")
    (one,) = browser.desk.http.get("/v1/exports").json()["exports"]
    assert one["source"] == "board"


def test_the_first_export_of_a_paying_key_is_small(browser: Browser) -> None:
    keys = browser.desk.keys
    browser.sign_in(keys.create("ann", plan=Plan(None, metered=True), balance=5_000))
    browser.post("/exports/first", act="first")
    (one,) = browser.desk.http.get("/v1/exports").json()["exports"]
    assert one["limit"] == 1_000


def test_the_list_is_filtered_by_metadata_and_day(browser: Browser) -> None:
    found = browser.desk.create(metadata={"team": "growth"})
    other = browser.desk.create(metadata={"team": "sales"})
    for address in ("/?metadata=team%3Dgrowth", "/?metadata=team=growth&created_from=2001-01-01"):
        page = browser.get(address)
        assert found in page
        assert other not in page
        assert 'value="team=growth"' in page
    assert found not in browser.get("/?created_to=2001-01-01")
    assert browser.http.get("/?created_from=yesterday").status_code == 422


def test_an_operator_sees_and_steers_the_exports_of_all_users(operator: Browser) -> None:
    """Given an export of ann, when an operator opens the list, then it is there with its
    user, can be canceled, and its activity names the operator's key.
    """
    export_id = operator.desk.create(name="Cooks")
    assert export_id in operator.get("/")
    assert 'href="/?user=ann"' in operator.get("/?user=ann")
    assert export_id not in operator.get("/?user=bob")
    page = operator.get(f"/exports/{export_id}")
    assert "Use the file" not in page
    assert "asked to stop" in operator.post(f"/exports/{export_id}", act="cancel").text
    entries = operator.desk.http.get(f"/v1/exports/{export_id}/activity").json()["activity"]
    root = next(one for one in operator.desk.keys.list() if one.user_id == "root")
    assert (entries[-1]["what"], entries[-1]["by"]) == ("canceled", root.id)


def test_an_operator_downloads_the_file_of_a_user_and_is_named(operator: Browser) -> None:
    """Given a finished export of ann, when an operator downloads it from its page, then the page
    itself holds no link to the bucket, and the timeline says who made one.
    """
    export_id = operator.desk.create()
    operator.desk.finish(export_id)
    page = operator.get(f"/exports/{export_id}")
    assert f'href="/exports/{export_id}/download"' in page
    assert "signature" not in page
    link = operator.http.get(f"/exports/{export_id}/download", follow_redirects=False)
    assert export_id in link.headers["Location"]
    assert "Download link made" in operator.get(f"/exports/{export_id}")


def test_an_export_of_another_user_stays_unknown_to_others(browser: Browser) -> None:
    assert browser.http.get("/exports/not-an-id").status_code == 404
    assert "No such export" in browser.http.get("/exports/not-an-id").text
    assert browser.http.get("/?user=bob").status_code == 403
