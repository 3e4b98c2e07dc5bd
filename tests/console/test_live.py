"""Open pages are told of changes by a stream, which shows no export of others."""

from __future__ import annotations

import httpx
import pytest

from tests.console.conftest import Browser

pytestmark = pytest.mark.external


def first_event(answer: httpx.Response) -> str:
    return next(line for line in answer.iter_lines() if line.startswith("event:"))


@pytest.mark.parametrize("path", ["/live", "/exports/{}/live"])
def test_a_change_is_told_at_once(browser: Browser, path: str) -> None:
    """Given an open stream of the list or of an export, when the export ends, then it is told, and
    nothing of the export is in the event.
    """
    export_id = browser.desk.create()
    with browser.http.stream("GET", path.format(export_id)) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        told = [line for line in (next(lines) for _ in range(6)) if line.startswith("event:")]
        assert told == ["event: changed"]
        browser.desk.finish(export_id)
        later = [next(lines) for _ in range(4)]
    assert "event: changed" in later
    assert "data: {}" in later


def test_the_streams_of_others_are_out_of_reach(browser: Browser) -> None:
    export_id = browser.desk.create()
    browser.sign_in(browser.desk.bob)
    assert browser.http.get(f"/exports/{export_id}/live").status_code == 404
    browser.post("/sign-out")
    for path in ("/live", f"/exports/{export_id}/live"):
        assert browser.http.get(path, follow_redirects=False).status_code == 303
