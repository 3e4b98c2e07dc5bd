"""Only a right key signs in, and only forms of the session change anything."""

from __future__ import annotations

import html
import re
import sys

import httpx
import pytest

from exporter.cli import sign_in
from exporter.console.sessions import Sessions
from exporter.console.visits import COOKIE
from exporter.core import limits
from exporter.local.redis import RedisServer
from exporter.local.stack import Addresses
from tests.console.conftest import Browser
from tests.integration.api_server import KEYS_DATABASE

PAGES = ("/", "/exports/new", "/webhooks", "/sources", "/keys", "/system")


@pytest.mark.parametrize("path", PAGES)
def test_a_page_without_a_session_leads_to_the_sign_in(browser: Browser, path: str) -> None:
    answer = httpx.get(str(browser.http.base_url.join(path)))
    assert answer.status_code == 303
    assert answer.headers["Location"] == f"/sign-in?next={path}"


def test_the_sign_in_leads_to_where_one_wanted_to_go(browser: Browser) -> None:
    assert browser.sign_in(browser.desk.ann, "/sources").url.path == "/sources"


def test_the_sign_in_keeps_the_filters_of_the_wanted_view(browser: Browser) -> None:
    """Given a view that a colleague sent, when one signs in, then that very view is shown."""
    browser.post("/sign-out")
    asked = browser.http.get("/?state=failed&name=cooks%20%26%20bakers")
    target = html.unescape(re.findall(r'name="next" value="([^"]+)"', asked.text)[0])
    shown = browser.sign_in(browser.desk.ann, target)
    assert dict(shown.url.params) == {"state": "failed", "name": "cooks & bakers"}


@pytest.mark.parametrize(
    "target", ["https://evil.example/", "//evil.example", "/\\evil.example", "//["]
)
def test_the_sign_in_leads_to_no_other_site(browser: Browser, target: str) -> None:
    assert browser.sign_in(browser.desk.ann, target).url == browser.http.base_url.join("/")


def test_a_wrong_key_is_refused_and_tries_are_limited(browser: Browser) -> None:
    """Given wrong keys, when one tries often, then each is refused and at last even a right key
    has to wait.
    """
    browser.http.cookies.clear()
    most = limits.SIGN_IN_RATE.default.requests
    statuses = {browser.sign_in("exp_wrong").status_code for _ in range(most - 1)}
    assert statuses == {401}
    refused = browser.sign_in(browser.desk.ann)
    assert refused.status_code == 429
    assert COOKIE not in browser.http.cookies


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(browser: Browser) -> None:
    engine = browser.desk.engine
    engine.settings = engine.settings.model_copy(update={"public_url": "https://x.example"})
    answer = browser.http.post("/sign-in", data={"key": browser.desk.ann}, follow_redirects=False)
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Secure" in cookie


def test_a_sign_in_that_another_site_sends_is_refused(browser: Browser) -> None:
    headers = {"Origin": "https://evil.example"}
    answer = browser.http.post("/sign-in", data={"key": browser.desk.ann}, headers=headers)
    assert answer.status_code == 403


def test_a_revoked_key_ends_its_sessions(browser: Browser) -> None:
    assert "Exports" in browser.get("/")
    key = browser.desk.keys.find(browser.desk.ann)
    assert key is not None
    browser.desk.keys.revoke(key.id)
    assert browser.http.get("/").url.path == "/sign-in"


def test_a_sign_out_ends_the_session_for_the_cookie_too(browser: Browser) -> None:
    cookie = browser.http.cookies[COOKIE]
    left = browser.post("/sign-out")
    assert left.history[0].headers["Clear-Site-Data"] == '"cache"'
    browser.http.cookies.set(COOKIE, cookie)
    assert browser.http.get("/").url.path == "/sign-in"


def test_a_forged_cookie_is_nobody(browser: Browser) -> None:
    browser.http.cookies.clear()
    browser.http.cookies.set(COOKIE, "forged")
    assert browser.http.get("/").url.path == "/sign-in"


def test_a_session_that_has_ended_says_so_and_leads_back(browser: Browser) -> None:
    """Given a form whose session has ended meanwhile, when it is sent, then nothing is changed, the
    sign-in says why it is asked for, and leads back to the form.
    """
    browser.http.cookies.clear()
    browser.http.cookies.set(COOKIE, "old")
    fields = {"url": "https://hooks.example.com/x", "events": "export.finished"}
    referer = {"Referer": str(browser.http.base_url.join("/webhooks?state=dead"))}
    asked = browser.http.post("/webhooks", data=fields, headers=referer)
    assert "Your session has ended" in asked.text
    assert 'name="next" value="/webhooks?state=dead"' in asked.text
    assert browser.desk.endpoints.list("ann") == ()


def test_a_ticket_signs_in_once(browser: Browser) -> None:
    key = browser.desk.keys.find(browser.desk.bob)
    assert key is not None
    ticket = Sessions(browser.desk.client).create_ticket(key.id)
    assert ticket in browser.http.get(f"/sign-in?ticket={ticket}").text
    first = browser.http.post("/sign-in", data={"ticket": ticket, "next": "/keys"})
    assert "bob" in first.text
    again = browser.http.post("/sign-in", data={"ticket": ticket})
    assert again.status_code == 401


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_stack_that_starts_prints_a_link_for_its_reader_alone(
    browser: Browser,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    is_terminal: bool,
) -> None:
    """Given a stack that has started, when its output is a terminal, then a link is printed that
    signs in once; when it is a log, none is.
    """
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    url = str(browser.http.base_url).rstrip("/")
    redis_url = redis_server.url.replace("/0", f"/{KEYS_DATABASE}")
    sign_in.print_link(Addresses(url, browser.desk.bob, "", redis_url, None))
    found = re.findall(r"ticket=(\S+)", capsys.readouterr().err)
    assert len(found) == is_terminal
    for ticket in found:
        assert "bob" in browser.http.post("/sign-in", data={"ticket": ticket}).text


@pytest.mark.parametrize("csrf", ["", "forged"])
def test_a_form_without_the_token_changes_nothing(browser: Browser, csrf: str) -> None:
    fields = {"url": "https://hooks.example.com/x", "events": "export.finished", "csrf": csrf}
    answer = browser.http.post("/webhooks", data=fields)
    assert answer.status_code == 403
    assert browser.desk.endpoints.list("ann") == ()


def test_a_read_only_key_sees_no_buttons_and_changes_nothing(browser: Browser) -> None:
    browser.sign_in(browser.desk.keys.create("ann", ("read",)))
    export_id = browser.desk.create()
    for path in ("/", f"/exports/{export_id}", "/webhooks", "/sources", "/keys"):
        page = browser.get(path)
        posts = re.findall(r'<form[^>]* method="post" action="([^"]+)"', page)
        assert posts == ["/sign-out"], path
        assert "/exports/new" not in page
    answer = browser.post(f"/exports/{export_id}", act="cancel")
    assert answer.status_code == 403
    found = browser.desk.engine.store.get(export_id)
    assert found is not None
    assert found.state == "queued"
    assert browser.post("/sign-out").url.path == "/sign-in"


def test_an_operator_who_may_only_read_makes_no_key(browser: Browser) -> None:
    browser.sign_in(browser.desk.keys.create("root", ("read", "operator")))
    before = browser.desk.keys.list()
    assert "Create a key" not in browser.get("/keys")
    answer = browser.post("/keys", user="eve", scopes=["read", "write"])
    assert answer.status_code == 403
    assert "lacks the scope write" in answer.text
    assert browser.desk.keys.list() == before


def test_an_unexpected_error_is_a_page_with_the_request_id(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a page that fails, when it is opened, then it says so in HTML, with the id under which
    the log has the reason and without the reason itself.
    """

    def fail(*_: object) -> None:
        raise ZeroDivisionError("secret-7")

    monkeypatch.setattr(browser.desk.engine.sources, "names", fail)
    answer = browser.http.get("/exports/new")
    assert answer.status_code == 500
    assert answer.headers["X-Request-Id"] in answer.text
    assert "Content-Security-Policy" in answer.headers
    assert "secret-7" not in answer.text


def test_each_page_forbids_what_it_does_not_need(browser: Browser) -> None:
    for path in (*PAGES[:-1], "/sign-in", "/exports/none"):
        answer = browser.http.get(path)
        policy = answer.headers.get("Content-Security-Policy")
        if path == "/exports/none":
            assert answer.status_code == 404
            continue
        assert policy is not None, path
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["Cache-Control"] == "private, no-cache"
        assert " style=" not in answer.text
        assert " onclick=" not in answer.text
