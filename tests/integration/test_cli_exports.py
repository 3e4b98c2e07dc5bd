"""The commands about exports, as a shell runs them against a service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.upstreams import Asked, Upstream, reply, serving

CONTENT = b"_id\r\n1\r\n2\r\n"
ID = "0b8c2c4e-6a57-4a2b-9a50-0e6a3a2f6b11"
PROOF = "2 rows, 11 bytes, complete (total_reached; announced at the start 2, at the end 2)"
FAILED: dict[str, Any] = {
    "id": ID,
    "state": "failed",
    "phase": "done",
    "source": "board",
    "format": "csv",
    "progress": 0.2,
    "record_count": 7,
    "created_at": "2026-03-02T09:15:04.201933Z",
    "error": "the upstream answered 401",
}
WAITING = FAILED | {
    "state": "processing",
    "phase": "waiting",
    "error": None,
    "waiting_for": "the source asks for a pause",
    "retry_in_seconds": 42,
}

BOARD = {
    "name": "board",
    "type": "hirebase",
    "allowed": True,
    "filters": [{"name": "yoe", "kind": "range", "description": "Years.", "choices": ["a", "b"]}],
    "columns": ["_id", "job_title"],
}
ANSWERS: dict[str, Any] = {
    f"/v1/exports/{ID}/activity": {
        "activity": [{"at": "2026-03-02T09:15:04Z", "what": "waiting", "by": "", "detail": "busy"}]
    },
    "/v1/sources": {"sources": [BOARD, {"name": "dear", "type": "sql", "allowed": False}]},
    "/v1/sources/board": BOARD,
    "/v1/sources/board/preview": {
        "rows": [{"_id": str(row), "text": "<b>" + 90 * "x"} for row in range(2)],
        "total": 1204,
    },
}


def finished(url: str) -> dict[str, Any]:
    proof = {"outcome": "complete", "end_reason": "total_reached", "exported": 2}
    return FAILED | {
        "state": "finished",
        "error": None,
        "progress": 1.0,
        "record_count": 2,
        "result": {
            "download_url": f"{url}/file",
            "file_size": len(CONTENT),
            "record_count": 2,
            "file_name": "jobs of acme.csv",
            "completeness": proof | {"total_at_start": 2, "total_at_end": 2},
        },
    }


@contextmanager
def service(record: Callable[[str], dict[str, Any]]) -> Iterator[Upstream]:
    """A service whose every export has this record, and the object store of its files."""

    def answer(asked: Asked) -> bytes:
        path = urlsplit(asked.line.split()[1]).path
        if path == "/file":
            return reply(200, CONTENT)
        if path in ANSWERS:
            return reply(200, ANSWERS[path])
        if path == "/v1/exports" and asked.line.startswith("GET"):
            return reply(200, {"exports": [record(one.url)], "next_cursor": None})
        return reply(200, record(one.url))

    with serving(answer) as one:
        yield one


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def once(one: Upstream, *arguments: str) -> subprocess.CompletedProcess[str]:
        kept = ("PATH", "HOME", "LANG")
        return subprocess.run(
            [sys.executable, "-m", "exporter.cli", *arguments],
            cwd=tmp_path,
            env={name: os.environ[name] for name in kept if name in os.environ}
            | {"NO_COLOR": "1", "COLUMNS": "80", "PYTHONPATH": os.pathsep.join(sys.path)}
            | {"EXPORTER_PUBLIC_URL": one.url, "EXPORTER_API_KEY": "exp_x"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return once


Run = Callable[..., subprocess.CompletedProcess[str]]


def test_the_list_shows_the_whole_id_in_eighty_columns(run: Run) -> None:
    # Given
    with service(lambda _: WAITING) as one:
        # When
        done = run(one, "ls")
        as_json = run(one, "ls", "--json", "--limit", "1")
    # Then
    assert done.returncode == 0, done
    row = done.stdout.splitlines()[1]
    assert row.split()[:4] == [ID, "waiting", "board", "7"]
    assert json.loads(as_json.stdout)["waiting_for"] == "the source asks for a pause"
    assert one.asked[-1].line == "GET /v1/exports?limit=1 HTTP/1.1"


def test_an_export_that_waits_or_failed_is_shown_with_the_reason(run: Run) -> None:
    # Given
    with service(lambda _: WAITING) as one:
        # When
        waiting = run(one, "show", ID)
    with service(lambda _: FAILED) as one:
        failed = run(one, "show", ID)
    # Then
    assert "the source asks for a pause" in waiting.stdout
    assert "in 42 s" in waiting.stdout
    assert "the upstream answered 401" in failed.stdout


def test_a_file_is_downloaded_under_the_name_that_it_suggests(run: Run, tmp_path: Path) -> None:
    # Given
    with service(finished) as one:
        # When
        done = run(one, "download", ID)
    # Then
    assert done.returncode == 0, done
    assert (tmp_path / "jobs of acme.csv").read_bytes() == CONTENT
    assert PROOF in done.stderr.replace("\n", " ")


def test_a_suggested_name_leads_into_no_other_folder(run: Run, tmp_path: Path) -> None:
    # Given
    def hostile(url: str) -> dict[str, Any]:
        found = finished(url)
        return found | {"result": found["result"] | {"file_name": "../../etc/jobs.csv"}}

    with service(hostile) as one:
        # When
        run(one, "download", ID)
    # Then
    assert [file.name for file in tmp_path.iterdir()] == ["jobs.csv"]


def test_a_dash_writes_the_file_to_standard_output_and_nothing_else(run: Run) -> None:
    # Given
    with service(finished) as one:
        # When
        done = run(one, "download", ID, "-o", "-")
    # Then
    assert done.returncode == 0, done
    assert done.stdout.encode() == CONTENT.replace(b"\r\n", b"\n")
    assert PROOF in done.stderr.replace("\n", " ")


@pytest.mark.parametrize("command", ["download", "watch"])
def test_an_export_without_a_file_is_an_error_with_its_reason(run: Run, command: str) -> None:
    # Given
    with service(lambda _: FAILED) as one:
        # When
        done = run(one, command, ID)
    # Then
    assert done.returncode == 1
    assert "the upstream answered 401" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("command", "request_"),
    [
        ("cancel", f"POST /v1/exports/{ID}/cancel"),
        ("retry", f"POST /v1/exports/{ID}/retry"),
        ("rm", f"DELETE /v1/exports/{ID}"),
    ],
)
def test_an_export_is_steered(run: Run, command: str, request_: str) -> None:
    # Given
    with service(lambda _: FAILED) as one:
        # When
        done = run(one, command, ID)
    # Then
    assert done.returncode == 0, done
    assert [asked.line for asked in one.asked] == [f"{request_} HTTP/1.1"]
    assert ID in done.stderr


def test_filters_of_the_command_line_are_sent_with_their_types(run: Run, tmp_path: Path) -> None:
    # Given
    with service(finished) as one:
        # When
        done = run(
            one, "export", "-o", "x.csv", "--filter", "job_titles[]=engineer", "--filter", "yoe=3"
        )
    # Then
    assert done.returncode == 0, done
    assert one.asked[0].json["query"] == {"job_titles": ["engineer"], "yoe": 3}
    assert (tmp_path / "x.csv").read_bytes() == CONTENT


def test_a_mistyped_command_is_answered_with_the_nearest(run: Run) -> None:
    # Given
    with service(finished) as one:
        # When
        done = run(one, "dowload", ID)
    # Then
    assert done.returncode == 2
    assert "download" in done.stderr


def test_the_version_is_printed(run: Run) -> None:
    # Given
    with service(finished) as one:
        # When
        done = run(one, "--version")
    # Then
    assert done.stdout.startswith("exporter ")


def test_a_list_sends_its_filters(run: Run) -> None:
    # Given
    with service(lambda _: FAILED | {"name": "weekly " + 90 * "x"}) as one:
        # When
        done = run(one, "ls", "--state", "failed,canceled", "--name", "weekly", "--user", "ann")
    # Then
    assert done.returncode == 0, done
    assert one.asked[-1].line.split()[1].split("?")[1].split("&") == [
        "state=failed%2Ccanceled", "name=weekly", "user=ann", "limit=20",
    ]  # fmt: skip
    row = done.stdout.splitlines()[1]
    assert len(row) <= 80
    assert row.startswith(f"{ID}  failed  weekly xxxxxx…  ")


def test_what_happened_to_an_export_is_shown(run: Run) -> None:
    # Given
    with service(lambda _: WAITING | {"name": "weekly", "eta_seconds": 75}) as one:
        # When
        done = run(one, "show", ID)
    # Then
    assert "1 min 15 s" in done.stdout
    assert done.stdout.splitlines()[-1].split() == ["2026-03-02T09:15:04Z", "waiting", "busy"]


def test_an_export_gets_its_name_and_metadata(run: Run, tmp_path: Path) -> None:
    # Given
    with service(finished) as one:
        # When
        arguments = ("--name", "weekly", "--metadata", "team=a=b", "--metadata", "k=v")
        done = run(one, "export", "-o", "jobs.csv", *arguments)
        wrong = run(one, "export", "-o", "jobs.csv", "--metadata", "team")
    # Then
    assert done.returncode == 0, done
    (created,) = (asked for asked in one.asked if asked.line.startswith("POST"))
    body = json.loads(created.body)
    assert (body["name"], body["metadata"]) == ("weekly", {"team": "a=b", "k": "v"})
    assert "KEY=TEXT" in wrong.stderr


def test_sources_their_filters_and_first_rows_are_shown(run: Run) -> None:
    # Given
    with service(finished) as one:
        # When
        all_of_them, board = run(one, "sources"), run(one, "sources", "board")
        rows = run(one, "preview", "board", "--filter", "yoe=3")
        as_json = run(one, "preview", "board", "--json")
    # Then
    assert "not in your plan" in all_of_them.stdout.splitlines()[2]
    assert "Years. One of: a, b" in board.stdout
    assert "columns: _id, job_title" in board.stdout
    assert "the first 2 rows; 1,204 rows match" in rows.stderr
    assert all(len(line) <= 80 for line in rows.stdout.splitlines())
    assert json.loads(one.asked[-2].body) == {"query": {"yoe": 3}}
    assert [json.loads(line)["_id"] for line in as_json.stdout.splitlines()] == ["0", "1"]


def test_the_first_rows_of_an_export_are_shown_while_it_runs(run: Run) -> None:
    # Given
    answer = reply(200, "_id,text\r\n1,<b>\r\n", content_type="text/csv", x_exporter_partial="true")
    with serving(answer) as one:
        # When
        rows, as_json = run(one, "preview", ID), run(one, "preview", ID, "--json")
        wrong = run(one, "preview", ID, "--filter", "yoe=3")
    # Then
    assert rows.stdout.split() == ["_id", "text", "1", "<b>"]
    assert "more follow: the export runs" in rows.stderr
    assert json.loads(as_json.stdout) == {"_id": "1", "text": "<b>"}
    assert wrong.returncode == 2
    assert "leave out --query and --filter" in wrong.stderr
    assert {asked.line for asked in one.asked} == {f"GET /v1/exports/{ID}/preview HTTP/1.1"}
