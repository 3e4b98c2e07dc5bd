"""A board that misbehaves on order, seen through its sockets."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import uvicorn

from exporter.board import app, drift, faults, synthetic
from exporter.local import ports
from tests.waiting import until

KEY = "sk_test_board"
ROWS = 250


@contextmanager
def serving(path: Path, spec: str | None) -> Iterator[httpx.Client]:
    # Of a socket that does not name TCP, asyncio sends small answers 40 ms late.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        app.create_app(path, [KEY], spec), ws="none", http=faults.Protocol, log_config=None
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        base = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with httpx.Client(base_url=base, headers={"x-api-key": KEY}, timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    path = tmp_path_factory.mktemp("board") / "board.db"
    synthetic.synthesize(path, ROWS)
    with serving(path, "") as client:
        yield client


@pytest.fixture
def board(served: httpx.Client) -> Iterator[httpx.Client]:
    yield served
    order(served, "")


def order(client: httpx.Client, spec: str) -> None:
    response = client.post("/faults", json={"spec": spec})
    assert response.status_code == 200, response.text
    assert response.json()["spec"] == spec


def done(client: httpx.Client) -> dict[str, int]:
    """How often each thing was done, without those that never were."""
    counts: dict[str, int] = client.get("/faults").json()["done"]
    return {name: count for name, count in counts.items() if count}


def search(client: httpx.Client, **body: Any) -> httpx.Response:
    return client.post("/v2/jobs/search", json={"limit": 100, "include_expired": "true", **body})


class Texts(msgspec.Struct):
    """A page whose postings are bytes, as they were sent."""

    jobs: list[msgspec.Raw]
    total_count: int
    page: int
    limit: int
    total_pages: int


def texts(response: httpx.Response) -> Texts:
    return msgspec.json.decode(response.content, type=Texts)


def rows(page: Texts) -> list[bytes]:
    return [bytes(row) for row in page.jobs]


def all_rows(client: httpx.Client, **body: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for page in itertools.count(1):
        jobs = search(client, page=page, **body).json()["jobs"]
        if not jobs:
            break
        found += jobs
    return found


def raw_search(client: httpx.Client) -> tuple[int, bytes, type[Exception] | None]:
    """Over a bare socket: the promised length, the body that came, and how it ended."""
    body = b'{"limit":100}'
    request = (
        f"POST /v2/jobs/search HTTP/1.1\r\nHost: board\r\nx-api-key: {KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    received, end = b"", None
    with socket.create_connection((client.base_url.host, client.base_url.port or 0), 10) as peer:
        peer.sendall(request)
        try:
            while chunk := peer.recv(65_536):
                received += chunk
        except ConnectionResetError:
            end = ConnectionResetError
    head, _, body = received.partition(b"\r\n\r\n")
    lengths = [
        int(line.partition(b":")[2])
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-length:")
    ]
    assert head.startswith(b"HTTP/1.1 200 "), head
    assert len(lengths) == 1
    return lengths[0], body, end


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("lateness=5ms", "'lateness' is no fault of the board: choose from latency, 429,"),
        ("404=1%", "'404' is no fault"),
        ("=1%", "'' is no fault"),
        ("429", "429=: give a share of the searches from 0% to 100%, such as 429=2%"),
        ("429=0.02", "429=0.02: give a share"),
        ("reset=101%", "reset=101%: give a share"),
        ("reset=-1%", "reset=-1%: give a share"),
        ("reset=nan%", "reset=nan%: give a share"),
        ("reset=1e1%", "reset=1e1%: give a share"),
        ("reset=٣%", "reset=٣%: give a share"),
        ("429=60%,503=60%", "the faults add up to 120% of the searches"),
        ("429=1%,429=2%", "429 is ordered twice"),
        ("latency=50", "latency=50: give a time of up to 60s or a range"),
        ("latency=80ms-20ms", "latency=80ms-20ms: give a time"),
        ("latency=61s", "latency=61s: give a time"),
        ("latency=1ms-2ms-3ms", "latency=1ms-2ms-3ms: give a time"),
        ("drift=3", "drift=3: give up to 100 changes a second, such as drift=3/s"),
        ("drift=101/s", "drift=101/s: give up to 100"),
        ("seed=x", "seed=x: give a whole number"),
        ("seed=-1", "seed=-1: give a whole number"),
    ],
)
def test_a_spec_that_means_nothing_is_refused_with_what_to_write_instead(
    spec: str, said: str
) -> None:
    # When
    with pytest.raises(ValueError, match=r".+") as caught:
        faults.parse(spec)
    # Then
    assert str(caught.value).startswith(said)


def test_a_spec_means_what_it_says() -> None:
    # When
    spec = faults.parse(" latency=20ms-1.5s, 429=2%,html=0.5%,reset=97.5%, drift=0.5/s ,seed=7,")
    # Then
    assert spec.latency == (0.02, 1.5)
    assert spec.shares == {"429": 2, "html": 0.5, "reset": 97.5}
    assert (spec.drift, spec.seed) == (0.5, 7)


def test_an_empty_spec_leaves_every_search_as_it_is(board: httpx.Client) -> None:
    # Given
    order(board, "")
    # When
    first = search(board)
    # Then
    assert len(texts(first).jobs) == 100
    assert texts(first).total_count == ROWS
    seen = board.get("/faults").json()
    assert seen["searches"] == 1
    assert set(seen["done"].values()) == {0}


@pytest.mark.parametrize(
    ("name", "waits"), [("429", True), ("503", True), ("502", False), ("500", False)]
)
def test_a_refusal_says_when_to_come_back_if_its_kind_does(
    board: httpx.Client, name: str, waits: bool
) -> None:
    # Given
    order(board, f"{name}=100%")
    # When
    answers = [search(board) for _ in range(30)]
    # Then
    assert {answer.status_code for answer in answers} == {int(name)}
    assert all(isinstance(answer.json()["detail"], str) for answer in answers)
    assert all(answer.headers["x-request-id"] for answer in answers)
    after = [answer.headers.get("retry-after") for answer in answers]
    if waits:
        dates = [text for text in after if text != "1"]
        assert 0 < len(dates) < 30
        for date in dates:
            ahead = parsedate_to_datetime(date) - datetime.now(UTC)
            assert -2 < ahead.total_seconds() <= 2
    else:
        assert set(after) == {None}
    assert done(board) == {name: 30}


def test_late_answers_do_not_hold_up_one_another(board: httpx.Client) -> None:
    # Given
    order(board, "latency=400ms-500ms,429=50%")
    begin = time.monotonic()
    # When
    with ThreadPoolExecutor(10) as pool:
        took = list(pool.map(lambda _: search(board).elapsed.total_seconds(), range(10)))
    # Then: refusals were late too
    assert min(took) >= 0.4
    assert time.monotonic() - begin < 2.5
    assert done(board)["latency"] == 10


def test_a_reset_comes_in_the_middle_of_the_body(
    board: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    # Given
    order(board, "reset=100%")
    # When
    promised, body, end = raw_search(board)
    # Then
    assert end is ConnectionResetError
    assert 0 < len(body) < promised
    with pytest.raises(httpx.ReadError):
        search(board)
    assert done(board) == {"reset": 2}
    assert [r.getMessage() for r in caplog.records if r.name.startswith("uvicorn")] == []


def test_a_truncated_body_ends_with_a_clean_close_and_bytes_owed(
    board: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    # Given
    order(board, "truncate=100%")
    # When
    promised, body, end = raw_search(board)
    # Then
    assert end is None
    assert 0 < len(body) < promised
    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
        search(board)
    assert done(board) == {"truncate": 2}
    assert [r.getMessage() for r in caplog.records if r.name.startswith("uvicorn")] == []


def test_a_client_that_is_gone_before_its_fault_troubles_nobody(
    board: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    # Given
    order(board, "latency=300ms,reset=50%,truncate=50%")
    # When
    for _ in range(8):
        with pytest.raises(httpx.ReadTimeout):
            board.post("/v2/jobs/search", json={}, timeout=0.05)
    until(lambda: sum(done(board).values()) == 16)
    # Then
    order(board, "")
    assert search(board).status_code == 200
    assert [r.getMessage() for r in caplog.records if r.levelname in ("WARNING", "ERROR")] == []


def test_a_slow_body_drips_for_seconds_and_is_whole(board: httpx.Client) -> None:
    # Given
    whole = search(board).content
    order(board, "slow=100%")
    arrivals: list[float] = []
    begin = time.monotonic()
    # When
    with board.stream(
        "POST", "/v2/jobs/search", json={"limit": 100, "include_expired": "true"}
    ) as r:
        parts = []
        for part in r.iter_raw():
            parts.append(part)
            arrivals.append(time.monotonic() - begin)
    # Then
    assert b"".join(parts) == whole
    assert arrivals[0] < 2 < 3.5 < arrivals[-1]
    assert max(b - a for a, b in itertools.pairwise(arrivals)) < 1.5


def test_a_web_page_is_a_200_that_is_no_json(board: httpx.Client) -> None:
    # Given
    order(board, "html=100%")
    # When
    answer = search(board)
    # Then
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    with pytest.raises(json.JSONDecodeError):
        answer.json()


def test_another_shape_is_never_a_page_by_accident(board: httpx.Client) -> None:
    # Given
    order(board, "shape=100%")
    # When
    answers = [search(board) for _ in range(60)]
    # Then
    assert {answer.status_code for answer in answers} == {200}
    bodies = [answer.json() for answer in answers]
    assert not [
        body for body in bodies if isinstance(body, dict) and isinstance(body.get("jobs"), list)
    ]
    assert len({json.dumps(body) for body in bodies}) > 3


def test_an_empty_page_keeps_the_true_total(board: httpx.Client) -> None:
    # Given
    order(board, "empty=100%")
    # When
    page = texts(search(board, page=2))
    # Then
    assert page.jobs == []
    assert (page.total_count, page.page, page.total_pages) == (ROWS, 2, 3)


def test_a_short_page_misses_its_last_rows_and_no_byte_of_the_others(board: httpx.Client) -> None:
    # Given
    whole = rows(texts(search(board)))
    order(board, "short=100%")
    missing = set()
    for _ in range(30):
        # When
        page = texts(search(board))
        # Then
        assert rows(page) == whole[: len(page.jobs)]
        assert page.total_count == ROWS
        missing.add(len(whole) - len(page.jobs))
    assert missing == {1, 2, 3}


def test_a_false_total_is_too_high_or_too_low_and_the_rows_are_true(board: httpx.Client) -> None:
    # Given
    whole = rows(texts(search(board)))
    order(board, "total=100%")
    # When
    pages = [texts(search(board)) for _ in range(60)]
    # Then
    totals = {page.total_count for page in pages}
    assert ROWS not in totals
    assert min(totals) < ROWS < max(totals)
    assert 100 in totals, "the lie that makes this page the last"
    assert all(page.total_pages == -(-page.total_count // 100) for page in pages)
    assert all(rows(page) == whole for page in pages)


@pytest.mark.parametrize("name", ["empty", "short"])
def test_a_page_with_nothing_to_take_away_is_left_alone_and_not_counted(
    board: httpx.Client, name: str
) -> None:
    # Given
    past_the_end = search(board, page=4).content
    refused = search(board, limit=101).content
    order(board, f"{name}=100%")
    # When
    answers = search(board, page=4), search(board, limit=101)
    # Then
    assert answers[0].content == past_the_end
    assert answers[1].status_code == 422
    assert answers[1].content == refused
    assert done(board) == {}


def test_the_same_seed_meets_the_same_faults_and_another_seed_others(board: httpx.Client) -> None:
    # Given
    spec = "429=20%,500=20%,short=20%,total=20%"

    def met(seed: int) -> list[tuple[int, bytes]]:
        order(board, f"{spec},seed={seed}")
        return [
            (answer.status_code, answer.content) for answer in (search(board) for _ in range(40))
        ]

    # When
    first, again, other = met(7), met(7), met(8)
    # Then
    assert first == again
    assert first != other


def test_each_fault_gets_about_its_share_and_a_search_meets_one_at_most(
    board: httpx.Client,
) -> None:
    # Given
    order(board, "429=30%,500=10%,html=5%")
    # When
    for _ in range(400):
        search(board, limit=1)
    # Then
    seen = board.get("/faults").json()
    assert seen["searches"] == 400
    assert 90 <= seen["done"]["429"] <= 150
    assert 20 <= seen["done"]["500"] <= 62
    assert 6 <= seen["done"]["html"] <= 38


def test_only_searches_go_wrong(board: httpx.Client) -> None:
    # Given
    identity = search(board).json()["jobs"][0]["_id"]
    order(board, "500=100%,latency=5s")
    begin = time.monotonic()
    # When
    answers = [board.get(f"/v2/jobs/{identity}"), board.get("/health"), board.get("/faults")]
    # Then
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert time.monotonic() - begin < 4
    assert board.get("/faults").json()["searches"] == 0


def test_a_spec_that_is_refused_leaves_the_one_before_in_force(board: httpx.Client) -> None:
    # Given
    order(board, "429=100%")
    for body in ({"spec": "lateness=1s"}, {"spec": "429=1%", "more": 1}, {}, {"spec": 3}):
        # When
        answer = board.post("/faults", json=body)
        # Then
        assert answer.status_code == 422
        assert answer.json()["detail"][0]["loc"][0] == "body"
    assert "is no fault" in board.post("/faults", json={"spec": "x=1s"}).text
    assert search(board).status_code == 429


def test_orders_are_taken_from_holders_of_the_key_only(board: httpx.Client) -> None:
    # Given
    order(board, "500=100%")
    # When
    answers = [
        httpx.post(f"{board.base_url}/faults", json={"spec": ""}),
        httpx.get(f"{board.base_url}/faults"),
        httpx.post(f"{board.base_url}/v2/jobs/search", json={}),
    ]
    # Then
    assert [answer.status_code for answer in answers] == [401, 401, 401]
    assert board.get("/faults").json()["spec"] == "500=100%"
    assert board.get("/faults").json()["searches"] == 0


def test_a_board_without_faults_takes_no_orders(tmp_path: Path) -> None:
    # Given
    with serving(tmp_path / "board.db", None) as client:
        # When
        answers = [client.get("/faults"), client.post("/faults", json={"spec": ""})]
    # Then
    assert [answer.status_code for answer in answers] == [404, 404]


def test_a_drift_changes_its_own_postings_and_no_other(tmp_path: Path) -> None:
    # Given
    path = tmp_path / "board.db"
    synthetic.synthesize(path, ROWS)
    with serving(path, "") as client:
        before = all_rows(client)
        # When
        order(client, "drift=60/s,seed=3")
        until(lambda: all(done(client).get(change, 0) > 5 for change in drift.CHANGES))
        order(client, "")
        # Then: it has stopped
        after = all_rows(client)
        time.sleep(0.3)
        assert all_rows(client) == after
    own = [row for row in after if row["_id"].startswith(drift.PREFIX)]
    assert own
    assert [row for row in after if row not in own] == before
    assert len({row["_id"] for row in after}) == len(after)


def test_a_drift_keeps_its_pace_and_ends_with_the_board(tmp_path: Path) -> None:
    # Given
    path = tmp_path / "board.db"
    synthetic.synthesize(path, 10)
    begin = time.monotonic()
    # When
    with serving(path, "drift=40/s") as client:
        until(lambda: sum(done(client).values()) >= 80)
        made, took = sum(done(client).values()), time.monotonic() - begin
    # Then
    assert took > 1.9
    assert made <= took * 40 + 1
    assert "board drift" not in {thread.name for thread in threading.enumerate()}


def test_a_drift_pushes_postings_from_page_to_page_in_an_order_by_date(tmp_path: Path) -> None:
    # Given
    path = tmp_path / "board.db"
    synthetic.synthesize(path, ROWS)
    newest_first = {"sort_by": "date_posted", "sort_order": "desc"}
    with serving(path, "") as client:
        second = [row["_id"] for row in search(client, page=2, **newest_first).json()["jobs"]]
        # When
        order(client, "drift=50/s")
        # Then
        until(
            lambda: (
                [r["_id"] for r in search(client, page=2, **newest_first).json()["jobs"]] != second
            )
        )


def run_cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "exporter.cli", *arguments],
        env=os.environ | {"BOARD_KEY": KEY},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_wrong_spec_on_the_command_line_starts_nothing(tmp_path: Path) -> None:
    # When
    board = run_cli("board", "serve", "--database", str(tmp_path / "b.db"), "--faults", "x=1%")
    stack = run_cli("up", "--data-dir", str(tmp_path / "up"), "--board-faults", "429=2")
    # Then
    assert (board.returncode, stack.returncode) == (1, 1)
    assert "'x' is no fault of the board" in board.stderr
    assert "429=2: give a share" in stack.stderr
    assert not (tmp_path / "up").exists()


def test_a_board_started_by_the_command_misbehaves(tmp_path: Path) -> None:
    # Given
    port = ports.free(1)[0]
    command = [
        *(sys.executable, "-m", "exporter.cli", "board", "serve"),
        *("--database", str(tmp_path / "b.db"), "--rows", "150", "--port", str(port)),
        *("--faults", "reset=100%"),
    ]
    with subprocess.Popen(
        command, env=os.environ | {"BOARD_KEY": KEY}, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            until(lambda: ports.answers(port))
            with httpx.Client(
                base_url=f"http://127.0.0.1:{port}", headers={"x-api-key": KEY}
            ) as client:
                # When
                promised, body, end = raw_search(client)
                # Then
                assert end is ConnectionResetError
                assert 0 < len(body) < promised
                assert done(client) == {"reset": 1}
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


@pytest.mark.stack
@pytest.mark.soak
def test_a_stack_hands_the_spec_to_its_board(tmp_path: Path) -> None:
    # Given
    command = [
        *(sys.executable, "-m", "exporter.cli", "up", "--data-dir", str(tmp_path / "up")),
        *("--port", str(ports.base()), "--workers", "1", "--board-rows", "20"),
        *("--board-faults", "503=100%"),
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            said = json.loads(process.stdout.readline())
            key = json.loads((tmp_path / "up" / "secrets.json").read_text())["board_key"]
            # When
            with httpx.Client(base_url=said["board_url"], headers={"x-api-key": key}) as client:
                answer = search(client)
                # Then
                assert answer.status_code == 503
                assert done(client) == {"503": 1}
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(40)
