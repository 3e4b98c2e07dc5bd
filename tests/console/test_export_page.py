"""The page of an export explains its proof, and says how to use its file."""

from __future__ import annotations

import html
import re
import shlex

import pytest

from tests.console.conftest import Browser

pytestmark = pytest.mark.external


def commands(page: str) -> dict[str, str]:
    found = re.findall(r"<summary>(\w+)</summary><pre[^>]*>([^<]*)</pre>", page)
    return {tool: html.unescape(text) for tool, text in found}


def test_a_finished_export_says_how_its_file_is_used(browser: Browser) -> None:
    """Given a finished export, when its page is opened, then the proof is explained, curl
    uses the link of the file, and no cache keeps that link.
    """
    export_id = browser.desk.create()
    browser.desk.finish(export_id)
    answer = browser.http.get(f"/exports/{export_id}")
    assert "as many rows were read as the source announced" in answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    found = commands(answer.text)
    assert found.keys() >= {"curl", "Python"}
    *_, link = shlex.split(found["curl"])
    assert export_id in link
    assert "signature" in link
    compile(found["Python"], "pasted", "exec")
    assert export_id in found["Python"]


def test_an_export_without_a_file_offers_no_link(browser: Browser) -> None:
    export_id = browser.desk.create()
    answer = browser.http.get(f"/exports/{export_id}")
    assert "Use the file" not in answer.text
    assert answer.headers["Cache-Control"] == "private, no-cache"


def test_a_reader_of_states_alone_gets_no_link(browser: Browser) -> None:
    """Given a key without the scope `read`, when the page of a finished export is asked for, then
    no link to its file is shown.
    """
    export_id = browser.desk.create()
    browser.desk.finish(export_id)
    browser.sign_in(browser.desk.keys.create("ann", ("write",)))
    assert "Use the file" not in browser.get(f"/exports/{export_id}")


def test_the_page_says_what_the_export_does_and_did(browser: Browser) -> None:
    """Given a queued export, when it is shown, then its place in line is named; after its end the
    timeline and the columns with and without values are.
    """
    first, second = browser.desk.create(), browser.desk.create(columns=["_id", "job_title"])
    assert "Waits for a worker, first in line." in browser.get(f"/exports/{first}")
    page = browser.get(f"/exports/{second}")
    assert "Waits for a worker, behind 1 export." in page
    assert "Made</strong>" in page
    assert "your key" in page
    browser.desk.finish(first)
    browser.desk.finish(second)
    page = browser.get(f"/exports/{second}")
    assert "File published</strong>" in page
    assert "of 2 columns" in page
    assert "_id" in page


def test_the_request_has_what_was_asked_for_alone(browser: Browser) -> None:
    """Given an export without chosen columns, when its page is opened, then the request to
    paste has no columns, but a priority that was given.
    """
    export_id = browser.desk.create(priority=3)
    page = html.unescape(browser.get(f"/exports/{export_id}"))
    assert '"priority": 3' in page
    assert '"columns"' not in page
    assert "Columns (all)" in browser.get(f"/exports/new?from={export_id}")
