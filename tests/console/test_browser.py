"""The console in a real browser: live, accessible, within its policy, and without JavaScript."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.integration.webhook_service import Hooked

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
AXE = Path(__file__).parent / "axe.min.js"
AXE_SHA256 = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
"""Of axe-core 4.14.1, as it is on npm."""
PAGES = ("/", "/exports/new", "/webhooks", "/sources", "/keys", "/system")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser; without one the tests are skipped, but fail where CI is set."""
    if CHROMIUM is None:
        reason = "no Chromium is installed: apt-get install chromium"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Tab:
    """A tab in which an operator is signed in."""

    def __init__(self, chromium: Browser, desk: Hooked, **options: Any) -> None:
        self.url = desk.engine.settings.public_url
        self.context = chromium.new_context(base_url=self.url, **options)
        self.page: Page = self.context.new_page()
        self.faults: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", lambda line: self._hear(line.type, line.text))
        self.page.goto("/")
        self.page.fill("#key", desk.keys.create("ann", ("read", "write", "operator")))
        self.page.click("text=Sign in >> nth=-1")
        self.page.wait_for_url(f"{self.url}/")

    def _hear(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.faults.append(text)


@pytest.fixture
def tab(chromium: Browser, desk: Hooked) -> Iterator[Tab]:
    found = Tab(chromium, desk)
    yield found
    found.context.close()


def findings(page: Page, run: str) -> list[str]:
    """Returns what axe finds serious."""
    page.evaluate(AXE.read_text("utf-8"))
    return [
        f"{one['id']}: {one['nodes'][0]['html'][:150]}"
        for one in page.evaluate(f"{run}.then(done => done.violations)")
        if one["impact"] in ("serious", "critical")
    ]


def test_an_export_is_made_and_followed_to_its_end(tab: Tab, desk: Hooked) -> None:
    """Given a form that is filled, when it is checked and started, then its page shows the end
    without a reload, and Back leads to the form again.
    """
    page = tab.page
    page.click("text=Make the first one")
    page.fill("[name='f.job_titles']", "welder")
    page.click("text=Count and preview")
    assert page.locator("#preview h2").inner_text() == "30 rows match"
    assert page.input_value("[name='f.job_titles']") == "welder"
    page.click("text=Start the export")
    page.wait_for_url("**/exports/*-*")
    page.wait_for_selector("text=Waits for a worker")
    page.wait_for_timeout(1_500)
    page.evaluate("document.querySelector('[data-live]').dataset.live = 999")  # no polling
    desk.finish(page.url.rpartition("/")[2])
    page.wait_for_selector("text=Announced at the start", timeout=10_000)
    assert page.locator(".badge.good").first.inner_text() == "complete"
    page.go_back()
    page.wait_for_selector("text=Count and preview")
    assert tab.faults == []


def test_an_export_is_canceled_and_retried(tab: Tab, desk: Hooked) -> None:
    export_id = desk.create()
    page = tab.page
    page.goto(f"/exports/{export_id}")
    page.click("text=Cancel")
    page.wait_for_selector("text=asked to stop")
    page.click("text=Retry")
    page.wait_for_selector("text=A new export was created")
    assert export_id not in page.url
    assert tab.faults == []


def test_the_list_is_steered_by_the_keyboard(tab: Tab, desk: Hooked) -> None:
    """Given two exports, when `j`, `k` and `x` are pressed, then rows are marked and ticked, an
    update keeps both, and the ticked ones are canceled after a question.
    """
    first, second = desk.create(name="Welders"), desk.create(name="Cooks")
    page = tab.page
    page.goto("/")
    assert not page.is_visible("#bulk")
    page.keyboard.press("j")
    page.keyboard.press("x")
    page.keyboard.press("j")
    page.keyboard.press("k")
    desk.finish(first)
    page.wait_for_selector(".badge.good", timeout=10_000)
    assert page.locator("tr.here a.name").inner_text() == "Cooks"
    assert page.locator("[data-ticked]").inner_text() == "1 ticked"
    page.keyboard.press("?")
    assert page.is_visible("#shortcuts")
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("j/")
    assert page.input_value("#search") == "j/"
    page.click("#bulk button[value=cancel]")
    page.click("text=Cancel 1 export >> nth=-1")
    page.wait_for_selector("text=1 export was asked to stop")
    assert desk.http.get(f"/v1/exports/{second}").json()["state"] == "canceled"
    assert tab.faults == []


def test_the_command_follows_the_form(tab: Tab) -> None:
    tab.page.goto("/exports/new")
    tab.page.fill("#limit", "17")
    tab.page.wait_for_selector('#command:has-text("\\"limit\\": 17")')
    assert tab.faults == []


def test_a_webhook_is_sent_again_and_a_file_downloaded(
    tab: Tab, desk: Hooked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a finished export with a failed delivery, when its buttons are clicked, then the
    delivery is due again, and the browser is at the link of the file.
    """
    desk.register("https://nowhere.example.com/hook", events=["export.finished"])
    export_id = desk.create()
    desk.finish(export_id)
    desk.deliver()
    page = tab.page
    page.goto(f"/exports/{export_id}")
    page.click("text=Send again")
    page.wait_for_selector("text=The delivery is sent again")
    link = f"{tab.url}/static/icon.svg?signature=1"
    monkeypatch.setattr(type(desk.engine.storage), "presign", lambda *_: link)
    page.click("text=Download")
    page.wait_for_url(link)
    assert tab.faults == []


def test_every_page_is_accessible_and_stays_within_its_policy(
    chromium: Browser, desk: Hooked
) -> None:
    """Given a page of each kind, by day, by night and on a phone, then axe has no serious finding,
    the browser reports no violation, and nothing is wider than the screen.
    """
    assert hashlib.sha256(AXE.read_bytes()).hexdigest() == AXE_SHA256
    export_id = desk.create()
    desk.finish(export_id)
    desk.create()
    endpoint_id = desk.register("https://nowhere.example.com/hook")["id"]
    desk.create()
    desk.deliver()
    more = (f"/exports/{export_id}", f"/webhooks/{endpoint_id}", f"/exports/new?from={export_id}")
    found: list[str] = []
    every = (*PAGES, *more)
    views: Sequence[tuple[dict[str, Any], Sequence[str], str]] = (
        ({}, (*PAGES, *more[:2]), "axe.run()"),
        ({"color_scheme": "dark"}, more[:2], "axe.run({runOnly: ['color-contrast']})"),
        ({"viewport": {"width": 390, "height": 844}}, every, ""),
    )
    for options, paths, run in views:
        tab = Tab(chromium, desk, **options)
        for path in paths:
            tab.page.goto(path)
            found += [f"{options} {path} {one}" for one in (findings(tab.page, run) if run else ())]
            wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
            found += [f"{options} {path} is too wide"] if tab.page.evaluate(wide) else []
        found += tab.faults
        tab.context.close()
    assert found == []


def test_updates_pause_and_go_on(tab: Tab, desk: Hooked) -> None:
    """Given a paused page without a stream, when its export ends, then the page changes only after
    it goes on, and the commands of the file can be copied at once.
    """
    export_id = desk.create()
    page = tab.page
    page.route("**/live", lambda route: route.fulfill(status=429))  # no stream
    page.goto(f"/exports/{export_id}")
    page.click("text=Pause updates")
    desk.finish(export_id)
    page.wait_for_timeout(2_500)
    assert page.locator("text=Waits for a worker").count() == 1
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("text=Go on with updates")
    page.wait_for_selector("text=Use the file")
    page.click("text=Copy >> nth=0")
    page.wait_for_selector("text=Copied")
    assert page.evaluate("navigator.clipboard.readText()").startswith("curl -fsS -o export-")
    assert all("429" in fault for fault in tab.faults)


def test_everything_but_the_live_part_works_without_javascript(
    chromium: Browser, desk: Hooked
) -> None:
    tab = Tab(chromium, desk, java_script_enabled=False)
    page = tab.page
    page.goto("/exports/new")
    page.fill("[name='f.job_titles']", "welder")
    page.click("text=Start the export")
    page.wait_for_url("**/exports/*-*")
    desk.finish(page.url.rpartition("/")[2])
    page.reload()
    assert page.locator(".badge.good").first.inner_text() == "complete"
    page.goto("/webhooks")
    page.fill("#url", "https://hooks.example.com/x")
    page.click("text=Register >> nth=-1")
    assert page.locator(".secret code").inner_text().startswith("whsec_")
    page.click("text=Send a test")
    assert "test webhook is on its way" in page.inner_text(".notice")
    page.click("text=Sign out")
    page.wait_for_url("**/sign-in")
    tab.context.close()


def test_the_session_outlives_a_restart_of_the_api(tab: Tab, desk: Hooked) -> None:
    """Given a signed-in tab, when another process serves the console, then the tab goes on."""
    from exporter.api.app import create_app
    from exporter.console.app import pages

    tab.page.goto("/sources")
    desk.app.router.routes[:] = create_app(desk.engine, desk.keys, pages=pages()).router.routes
    tab.page.goto("/keys")
    assert "this session" in tab.page.inner_text("main")


def test_an_open_page_whose_session_ends_asks_to_sign_in(tab: Tab, desk: Hooked) -> None:
    """Given an open list, when its key is revoked and something changes, then the tab is at the
    sign-in, which says why.
    """
    with tab.page.expect_response("**/live"):
        tab.page.goto("/")
    (key,) = (one for one in desk.keys.list() if "operator" in one.scopes)
    desk.keys.revoke(key.id)
    desk.create()
    tab.page.wait_for_selector("text=Your session has ended", timeout=10_000)
    assert tab.faults == []
