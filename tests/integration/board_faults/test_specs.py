"""Fault specs: their syntax, the key they need, and the searches they apply to."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest

from exporter.board.misbehavior import faults
from tests import boards
from tests.integration.board_faults.desk import ROWS, order, search, texts


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("lateness=5ms", "'lateness' is not a fault of the board: choose from latency, 429,"),
        ("418=1%", "'418' is not a fault"),
        ("=1%", "'' is not a fault"),
        ("429", "429=: give a share of the searches from 0% to 100%, such as 429=2%"),
        ("429=0.02", "429=0.02: give a share"),
        ("reset=101%", "reset=101%: give a share"),
        ("reset=-1%", "reset=-1%: give a share"),
        ("reset=nan%", "reset=nan%: give a share"),
        ("reset=1e1%", "reset=1e1%: give a share"),
        ("reset=٣%", "reset=٣%: give a share"),
        ("429=60%,503=60%", "the faults add up to 120% of the searches"),
        ("429=1%,429=2%", "429 is given twice"),
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
def test_an_invalid_spec_is_rejected_with_the_valid_syntax(spec: str, said: str) -> None:
    # When
    with pytest.raises(ValueError, match=r".+") as caught:
        faults.parse(spec)
    # Then
    assert str(caught.value).startswith(said)


def test_a_spec_is_parsed_to_its_rates_and_seed() -> None:
    # When
    spec = faults.parse(" latency=20ms-1.5s, 429=2%,html=0.5%,reset=97.5%, drift=0.5/s ,seed=7,")
    # Then
    assert spec.latency == (0.02, 1.5)
    assert spec.shares == {"429": 2, "html": 0.5, "reset": 97.5}
    assert (spec.drift, spec.seed) == (0.5, 7)


def test_an_empty_spec_leaves_every_search_unchanged(board: httpx.Client) -> None:
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


def test_equal_seeds_give_equal_faults_and_another_seed_gives_others(board: httpx.Client) -> None:
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


def test_each_fault_gets_about_its_share_and_a_search_has_at_most_one(
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


def test_faults_apply_only_to_searches(board: httpx.Client) -> None:
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


def test_a_rejected_spec_leaves_the_current_spec_active(board: httpx.Client) -> None:
    # Given
    order(board, "429=100%")
    for body in ({"spec": "lateness=1s"}, {"spec": "429=1%", "more": 1}, {}, {"spec": 3}):
        # When
        answer = board.post("/faults", json=body)
        # Then
        assert answer.status_code == 422
        assert answer.json()["detail"][0]["loc"][0] == "body"
    assert "is not a fault" in board.post("/faults", json={"spec": "x=1s"}).text
    assert search(board).status_code == 429


def test_a_fault_spec_is_accepted_only_with_a_valid_key(board: httpx.Client) -> None:
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


def test_a_board_without_faults_has_no_faults_endpoint(tmp_path: Path) -> None:
    # Given
    with boards.client(tmp_path / "board.db", None) as client:
        # When
        answers = [client.get("/faults"), client.post("/faults", json={"spec": ""})]
    # Then
    assert [answer.status_code for answer in answers] == [404, 404]
