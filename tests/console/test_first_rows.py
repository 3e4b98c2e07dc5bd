"""The first rows of an export are shown as they are in its file."""

from __future__ import annotations

import html
import json

import pytest

from tests.console.conftest import HOSTILE, Browser

pytestmark = pytest.mark.external


CSV = "_id,job_title\r\n" + "".join(f'{n},"{HOSTILE} {n}"\r\n' for n in range(30))
JSON = "".join(json.dumps({"_id": n, "job_title": f"{HOSTILE} {n}"}) + "\n" for n in range(30))


@pytest.mark.parametrize(("format_name", "body"), [("csv", CSV), ("json", JSON)])
def test_a_finished_export_shows_its_first_rows(
    browser: Browser, format_name: str, body: str
) -> None:
    """Given a finished export of 30 rows, when its first rows are opened, then 20 are shown, and
    markup in them is text.
    """
    export_id = browser.desk.create(format=format_name, columns=["_id", "job_title"])
    assert "ask again later" in browser.get(f"/exports/{export_id}/rows")
    browser.desk.finish(export_id, body.encode())
    page = browser.get(f"/exports/{export_id}/rows")
    assert page.count("<tr>") == 21
    assert HOSTILE not in page
    assert html.escape(f"{HOSTILE} 19") in page
    assert f"{HOSTILE} 20" not in html.unescape(page)
    assert f'data-load="/exports/{export_id}/rows"' in browser.get(f"/exports/{export_id}")


def test_the_first_rows_of_others_are_unknown(browser: Browser) -> None:
    export_id = browser.desk.create()
    browser.desk.finish(export_id)
    browser.sign_in(browser.desk.bob)
    assert browser.http.get(f"/exports/{export_id}/rows").status_code == 404


def test_an_operator_reads_rows_of_others_on_request_and_is_named(operator: Browser) -> None:
    """Given an export of ann, when an operator opens its page, then no row is read; once the rows
    are asked for, the timeline names the operator.
    """
    export_id = operator.desk.create()
    operator.desk.finish(export_id)
    page = operator.get(f"/exports/{export_id}")
    assert "data-load" not in page
    assert f'href="/exports/{export_id}/rows"' in page
    operator.get(f"/exports/{export_id}/rows")
    assert "First rows shown" in operator.get(f"/exports/{export_id}")
