"""The main job from end to end, through the commands and the wire of a running service."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pytest
import redis

from exporter.board import hostile
from exporter.cli.remote import count_rows
from exporter.local.stack import Addresses
from tests.conftest import BOARD_ROWS

pytestmark = pytest.mark.stack

ALL = {"include_expired": "true"}


@pytest.fixture(scope="module")
def postings() -> dict[str, dict[str, Any]]:
    """The board's postings by id."""
    return {posting.id: json.loads(posting.json) for posting in hostile.generate(BOARD_ROWS)}


@pytest.fixture
def api(stack: Addresses) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {stack.api_key}"}
    with httpx.Client(base_url=stack.url, headers=headers, timeout=30) as client:
        yield client


def exporter(
    *arguments: str, directory: Path, stack: Addresses | None = None
) -> subprocess.CompletedProcess[str]:
    env = dict(os.environ)
    if stack is not None:
        env |= {"EXPORTER_PUBLIC_URL": stack.url, "EXPORTER_API_KEY": stack.api_key}
    return subprocess.run(
        [sys.executable, "-m", "exporter.cli", *arguments],
        cwd=directory,
        env=env,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def test_the_command_exports_an_envelope_that_holds_the_announced_rows(
    stack: Addresses, tmp_path: Path
) -> None:
    # When
    done = exporter(
        *("export", "--query", json.dumps(ALL), "--limit", "120"),
        *("--format", "json_envelope", "-o", "jobs.json"),
        directory=tmp_path,
        stack=stack,
    )
    # Then
    assert done.returncode == 0, done.stderr
    envelope = json.loads((tmp_path / "jobs.json").read_bytes())
    assert envelope["total"] == len(envelope["jobs"]) == 120


def test_a_csv_of_the_whole_board_is_read_alike_by_two_readers(
    stack: Addresses, tmp_path: Path, postings: dict[str, dict[str, Any]]
) -> None:
    # When
    done = exporter(
        *("export", "--query", json.dumps(ALL), "--format", "csv", "-o", "jobs.csv"),
        directory=tmp_path,
        stack=stack,
    )
    # Then
    assert done.returncode == 0, done.stderr
    assert f"{BOARD_ROWS:,} rows" in done.stderr
    assert "complete" in done.stderr
    with (tmp_path / "jobs.csv").open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == BOARD_ROWS
    assert {row["_id"] for row in rows} == set(postings)
    for row in rows:
        posting = postings[row["_id"]]
        for name in ("job_title", "company_name", "description", "location_raw"):
            assert row[name] == (posting.get(name) or ""), (row["_id"], name)
        skills = posting.get("skills")
        assert (json.loads(row["skills"]) if row["skills"] else None) == skills
    # When: another reader, told nothing but that texts are texts
    table = duckdb.read_csv(
        str(tmp_path / "jobs.csv"),
        all_varchar=True,
        header=True,
        delimiter=",",
        quotechar='"',
        escapechar='"',
    )
    # Then
    assert table.columns == list(rows[0])
    found = table.project("_id, job_title, description, locations").fetchall()
    assert [tuple(cell or "" for cell in cells) for cells in found] == [
        (row["_id"], row["job_title"], row["description"], row["locations"]) for row in rows
    ]


def test_json_lines_of_a_search_hold_what_matches_and_nothing_else(
    stack: Addresses, tmp_path: Path, postings: dict[str, dict[str, Any]]
) -> None:
    # Given
    search = {**ALL, "location_types": ["Hybrid"]}
    wanted = {
        identity: posting
        for identity, posting in postings.items()
        if "Hybrid" in (posting.get("location_type") or ())
    }
    assert 100 < len(wanted) < BOARD_ROWS
    # When
    done = exporter(
        *("export", "--query", json.dumps(search), "--format", "json", "-o", "jobs.jsonl"),
        directory=tmp_path,
        stack=stack,
    )
    # Then
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "jobs.jsonl").read_bytes().splitlines()
    found = [json.loads(line) for line in lines]
    assert {posting["_id"]: posting for posting in found} == wanted
    assert len(found) == len(wanted)
    table = duckdb.read_json(str(tmp_path / "jobs.jsonl"), format="newline_delimited")
    ((count,),) = table.aggregate("count(DISTINCT _id)").fetchall()
    assert count == len(wanted)


def test_a_wrong_key_is_told_in_one_line(stack: Addresses, tmp_path: Path) -> None:
    # When
    done = exporter("export", "-o", "x.csv", "--api-key", "exp_no", directory=tmp_path, stack=stack)
    # Then
    assert done.returncode == 1
    assert "error: 401" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_limit_and_columns_are_kept(stack: Addresses, tmp_path: Path) -> None:
    # When
    done = exporter(
        *("export", "-o", "some.csv", "--limit", "150", "--columns", "job_title, _id"),
        directory=tmp_path,
        stack=stack,
    )
    # Then
    assert done.returncode == 0, done.stderr
    with (tmp_path / "some.csv").open(newline="", encoding="utf-8") as lines:
        header, *rows = csv.reader(lines)
    assert header == ["job_title", "_id"]
    assert len(rows) == 150
    assert "truncated" in done.stderr


def _create(api: httpx.Client, priority: int) -> str:
    body = {"source": "board", "query": ALL, "format": "csv", "priority": priority}
    answer = api.post("/v1/exports", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def test_urgent_exports_start_before_all_that_wait(api: httpx.Client) -> None:
    # Given: both workers are busy and many exports wait
    patient = [_create(api, 0) for _ in range(200)]
    # When
    urgent = [_create(api, 9) for _ in range(5)]
    records = [api.get(f"/v1/exports/{one}").json() for one in urgent]
    last = max(record["created_at"] for record in records)
    deadline = time.monotonic() + 60
    while not all(record["started_at"] for record in records):
        assert time.monotonic() < deadline
        time.sleep(0.1)
        records = [api.get(f"/v1/exports/{one}").json() for one in urgent]
    others = [api.post(f"/v1/exports/{one}/cancel").json() for one in patient]
    # Then: nothing less urgent began while one of them was waiting
    begun = max(record["started_at"] for record in records)
    between = [
        other["id"]
        for other in others
        if other["started_at"] and last < other["started_at"] < begun
    ]
    assert between == []
    assert sum(other["started_at"] is None for other in others) > 100
    # Then: and all come to an end
    while not all(record["state"] == "finished" for record in records):
        assert time.monotonic() < deadline, records
        time.sleep(0.1)
        records = [api.get(f"/v1/exports/{one}").json() for one in urgent]


def test_an_export_canceled_while_it_waits_never_starts(api: httpx.Client) -> None:
    # Given
    ahead = [_create(api, 5) for _ in range(10)]
    export_id = _create(api, 0)
    # When
    answer = api.post(f"/v1/exports/{export_id}/cancel")
    # Then
    assert answer.status_code == 200
    record = answer.json()
    assert (record["state"], record["started_at"]) == ("canceled", None)
    for one in ahead:
        api.post(f"/v1/exports/{one}/cancel")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_block_of_the_readme_can_be_pasted_twice(stack: Addresses, tmp_path: Path) -> None:
    # Given the block, in a folder with the files that it names
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    block = next(one for one in readme.split("```sh\n") if one.startswith("KEY=")).split("```")[0]
    for path, text in (
        (".exporter/api_key", f"{stack.api_key}\n"),
        (".venv/bin/python", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n'),
    ):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(text)
        (tmp_path / path).chmod(0o700)
    # An interactive zsh would run a comment as a command.
    assert "#" not in block

    # When
    script = block.replace("http://127.0.0.1:8800", stack.url)
    twice = [
        subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True)
        for _ in range(2)
    ]

    # Then
    assert [one.returncode for one in twice] == [0, 0], twice[0].stderr
    first, second = sorted(tmp_path.glob("board-jobs-*.csv"))
    assert count_rows(first, "csv") == count_rows(second, "csv") > 0


def test_the_demo_shows_the_whole_job_and_its_next_commands_work(tmp_path: Path) -> None:
    # Given a file that is not the demo's
    (tmp_path / "jobs.csv").write_text("mine")
    # When
    done = exporter("demo", "--rows", "500", directory=tmp_path)
    # Then
    assert done.returncode == 0, done.stderr
    assert "what was proven" in done.stdout
    assert "total_reached" in done.stdout
    assert (tmp_path / "jobs.csv").read_text() == "mine"
    assert "The file is ./jobs-2.csv" in done.stdout
    assert count_rows(tmp_path / "jobs-2.csv", "csv") == 500
    assert sorted(path.name for path in tmp_path.iterdir()) == ["jobs-2.csv", "jobs.csv"]

    # When
    commands = re.findall(r"^  (\S+ .*)$", done.stdout, re.MULTILINE)[-3:]
    assert [one.split()[1] for one in commands] == ["up", "export", "doctor"]
    try:
        ran = [
            subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True)
            for line in commands
        ]
    finally:
        down = exporter("down", directory=tmp_path)
    # Then
    assert [one.returncode for one in ran] == [0, 0, 0], [one.stdout + one.stderr for one in ran]
    assert count_rows(tmp_path / "engineers.csv", "csv") > 0
    assert down.returncode == 0, down.stderr
    again = exporter("down", directory=tmp_path)
    assert again.returncode == 1
    assert "No stack runs in .exporter" in again.stderr


def test_a_stack_that_cannot_start_in_the_background_says_why(tmp_path: Path) -> None:
    # When
    done = exporter("up", "--detach", "--port", "65000", directory=tmp_path)
    # Then
    assert done.returncode == 1
    assert "Port 65000 is out of range" in done.stderr
    assert done.stdout == ""


def test_all_that_a_running_stack_keeps_in_redis_is_in_one_slot(stack: Addresses) -> None:
    # Given a stack that has done the jobs above
    keys = set[bytes]()
    for database in (0, 1):  # the records, and Celery's messages
        url = stack.redis_url.removesuffix("/0") + f"/{database}"
        with redis.Redis.from_url(url) as client:
            # When
            keys |= set(client.scan_iter("*", 1000))
    # Then
    assert {b"{exporter}:schema", b"{exporter}:_kombu.binding.webhooks"} <= keys
    assert [key for key in keys if not key.startswith(b"{exporter}:")] == []
