"""The `exporter` command as a shell runs it."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from exporter.board import database
from exporter.board.results import Results
from exporter.console.sessions import Sessions
from exporter.core.plans import Plan
from exporter.local import ports
from exporter.local.redis import RedisServer
from exporter.store.redis.api_keys import KeyRing
from tests.upstreams import Asked, reply, serving

DATABASE = 10
"""Of the test run's Redis."""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs the command in an empty directory, with nothing of ours in its environment."""

    def once(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        env = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("EXPORTER_", "AWS_", "BOARD_"))
        }
        return subprocess.run(
            [sys.executable, "-m", "exporter.cli", *arguments],
            cwd=tmp_path,
            env=env | {"NO_COLOR": "1", "COLUMNS": "200"} | variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return once


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    url = redis_server.url.removesuffix("/0") + f"/{DATABASE}"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


def one_error(done: subprocess.CompletedProcess[str], status: int = 1) -> str:
    """The text of the one line that a failed command says."""
    assert done.returncode == status, done
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


# -- keys ------------------------------------------------------------------------------------------


def test_a_key_is_shown_once_listed_without_itself_and_revoked(run: Run, redis_url: str) -> None:
    # When
    made = run(
        *("keys", "create", "--user", "ann", "--scope", "read", "--name", "nightly [job]"),
        EXPORTER_REDIS_URL=redis_url,
    )
    # Then: nothing but the key, so that a script can take it
    assert made.returncode == 0, made
    key = made.stdout.strip()
    assert re.fullmatch(r"exp_[\w-]{43}", key)
    with redis.Redis.from_url(redis_url) as client:
        found = KeyRing(client).find(key)
        assert found is not None
        assert (found.user_id, found.scopes) == ("ann", ("read",))
        # When
        listed = run("keys", "list", EXPORTER_REDIS_URL=redis_url)
        # Then
        assert found.id in listed.stdout
        assert "nightly [job]" in listed.stdout
        assert key not in listed.stdout
        # When
        revoked = run("keys", "revoke", found.id, EXPORTER_REDIS_URL=redis_url)
        # Then
        assert revoked.returncode == 0
        assert KeyRing(client).find(key) is None
    # When
    again = run("keys", "revoke", found.id, EXPORTER_REDIS_URL=redis_url)
    # Then
    assert f"no key has the id '{found.id}'" in one_error(again)


def test_a_link_to_the_console_signs_in_with_its_key_once(run: Run, redis_url: str) -> None:
    # Given
    with redis.Redis.from_url(redis_url) as client:
        ring = KeyRing(client)
        key = ring.find(ring.create("ann"))
        assert key is not None
        # When
        made = run("console", "--key-id", key.id, EXPORTER_REDIS_URL=redis_url)
        unknown = run("console", "--key-id", "none", EXPORTER_REDIS_URL=redis_url)
        # Then
        assert made.returncode == 0, made
        place, _, ticket = made.stdout.strip().partition("?ticket=")
        assert place == "http://127.0.0.1:8800/sign-in"
        assert Sessions(client).use_ticket(ticket) == key.id
        assert Sessions(client).use_ticket(ticket) is None
    assert "no key has the id 'none'" in one_error(unknown)


def test_a_plan_is_made_with_a_key_listed_and_changed(run: Run, redis_url: str) -> None:
    # Given
    def keys(*arguments: str) -> subprocess.CompletedProcess[str]:
        done = run("keys", *arguments, EXPORTER_REDIS_URL=redis_url, COLUMNS="160")
        assert done.returncode == 0, done
        return done

    def plan() -> Plan:
        with redis.Redis.from_url(redis_url) as client:
            found = KeyRing(client).find(key)
        assert found is not None
        return found.plan

    def listed() -> str:
        return " ".join(keys("list").stdout.replace("│", " ").split())

    # When
    bounds = ["--credits", "500", "--max-priority", "5", "--concurrency", "2"]
    features = ["--feature", "export", "--feature", "search"]
    key = keys("create", "--user", "ann", *bounds, *features).stdout.strip()
    # Then
    key_id = plan().key_id
    assert key_id is not None
    assert plan() == Plan(key_id, frozenset({"export", "search"}), 5, 2, metered=True)
    for term in (
        *("500 credits left, 0 used, 0 reserved", "only export, search"),
        *("priority 5 at most", "2 slices at once"),
    ):
        assert term in listed()
    # When
    keys("set", key_id, "--credits", "+500", "--concurrency", "0")
    # Then
    assert plan() == Plan(key_id, frozenset({"export", "search"}), 5, metered=True)
    assert "1000 credits left" in listed()
    # When
    keys("set", key_id, "--credits", "7")
    # Then
    assert "7 credits left" in listed()
    # When
    keys("set", key_id, "--credits", "unlimited", "--feature", "all", "--max-priority", "9")
    # Then
    assert plan() == Plan(key_id)
    assert "unlimited, 0 used" in listed()
    # When
    keys("set", key_id, "--limit", "queued_exports=5", "--limit", "stored_bytes=0")
    # Then
    assert plan() == Plan(key_id, limits={"queued_exports": 5, "stored_bytes": 0})
    assert "queued_exports 5" in listed()
    # When
    keys("set", key_id, "--limit", "queued_exports=default")
    # Then
    assert plan() == Plan(key_id, limits={"stored_bytes": 0})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing to change: give --credits"),
        (["--credits", "many"], "--credits many: give a number such as 500"),
        (["--credits=-5"], "--credits -5: give a number such as 500"),
        (["--credits", "+5"], "has no balance to add 5 credits to"),
        (["--feature", "fly"], "feature fly: give one of export, search"),
        (["--limit", "wings=2"], "limit 'wings' is unknown: give one of queued_exports"),
        (["--limit", "queued_exports=many"], "--limit queued_exports=many: give a name and a"),
        (["--limit", "queued_exports=5/s"], "limit queued_exports is 5/1s: give a value such as"),
        (["--limit", "queued_exports=-1"], "limit queued_exports is -1: give a value such as"),
    ],
)
def test_a_change_that_makes_no_sense_is_told_and_changes_nothing(
    run: Run, redis_url: str, arguments: list[str], said: str
) -> None:
    # Given
    with redis.Redis.from_url(redis_url) as client:
        ring = KeyRing(client)
        key = ring.create("ann")
        before = ring.find(key)
        assert before is not None
        # When
        done = run("keys", "set", before.id, *arguments, EXPORTER_REDIS_URL=redis_url)
        # Then
        assert said in one_error(done)
        assert ring.find(key) == before


def test_a_plan_of_a_key_that_is_not_there_cannot_change(run: Run, redis_url: str) -> None:
    # When
    done = run("keys", "set", "0" * 12, "--credits", "5", EXPORTER_REDIS_URL=redis_url)
    # Then
    assert "no key has the id '000000000000'" in one_error(done)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--user", "ann", "--scope", "admin"], "scope admin"),
        (["--user", "ann", "--feature", "fly"], "feature fly: give one of"),
        (["--user", "ann", "--credits", "1.5"], "--credits 1.5: give a number"),
    ],
)
def test_a_key_that_makes_no_sense_is_not_made(
    run: Run, redis_url: str, arguments: list[str], said: str
) -> None:
    # When
    done = run("keys", "create", *arguments, EXPORTER_REDIS_URL=redis_url)
    # Then
    assert said in one_error(done)
    assert done.stdout == ""


def test_without_a_redis_there_is_one_line_that_says_so(run: Run) -> None:
    # When
    done = run("keys", "list", EXPORTER_REDIS_URL=f"redis://127.0.0.1:{ports.find_free(1)[0]}/0")
    # Then
    assert "Redis did not answer" in one_error(done)


# -- board -----------------------------------------------------------------------------------------

POSTINGS = [{"id": "1", "title": "Welder"}, {"id": "2", "title": "Nurse"}]


def test_a_file_of_postings_becomes_a_board(run: Run, tmp_path: Path) -> None:
    # Given
    file = tmp_path / "postings.jsonl.gz"
    file.write_bytes(gzip.compress("\n".join(map(json.dumps, POSTINGS)).encode()))
    # When
    done = run("board", "load", str(file), "--database", "new/board.sqlite")
    # Then
    assert done.returncode == 0, done
    assert "2" in done.stderr
    kept = tmp_path / "new" / "board.sqlite"
    with database.write_transaction(kept) as connection:
        (count,) = connection.execute("SELECT count(*) FROM postings").fetchone()
    assert count == 2
    document = Results(kept).one("2")
    assert document is not None
    assert json.loads(document)["job_title"] == "Nurse"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"id":"1"}\nnot json\n', "postings.jsonl, line 2: "),
        (b"\x1f\x8b broken", "postings.jsonl: cannot be unpacked"),
    ],
)
def test_a_file_with_a_mistake_is_not_loaded_and_its_line_is_named(
    run: Run, tmp_path: Path, content: bytes, said: str
) -> None:
    # Given
    file = tmp_path / "postings.jsonl"
    file.write_bytes(content)
    # When
    done = run("board", "load", str(file))
    # Then
    assert said in one_error(done)
    assert "Nothing was loaded" in done.stderr


def test_a_database_that_is_none_is_told_in_one_line(run: Run, tmp_path: Path) -> None:
    # Given
    (tmp_path / "postings.jsonl").write_text('{"id":"1"}\n')
    (tmp_path / "notes.txt").write_text("not a database, but long enough to be one " * 100)
    # When
    done = run("board", "load", "postings.jsonl", "--database", "notes.txt")
    # Then
    assert "notes.txt" in one_error(done)


def test_a_board_without_a_key_is_not_served(run: Run) -> None:
    # When
    done = run("board", "serve", "--port", str(ports.find_free(1)[0]))
    # Then
    assert "BOARD_KEY is not set" in one_error(done)


# -- doctor ----------------------------------------------------------------------------------------


def test_the_doctor_names_all_that_is_broken_and_how_to_mend_it(run: Run, tmp_path: Path) -> None:
    # Given: addresses where nobody listens
    nobody = [f"127.0.0.1:{port}" for port in ports.find_free(3)]
    (tmp_path / "exporter.toml").write_text(
        f'[sources.jobs]\ntype = "hirebase"\nbase_url = "http://{nobody[2]}"\napi_key = "k"\n'
    )
    # When
    done = run(
        "doctor",
        EXPORTER_REDIS_URL=f"redis://{nobody[0]}/0",
        EXPORTER_S3_ENDPOINT_URL=f"http://{nobody[1]}",
        AWS_ACCESS_KEY_ID="a",
        AWS_SECRET_ACCESS_KEY="b",
    )
    # Then
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    found = {line[6:25].strip(): (line[:4].strip(), line[25:]) for line in done.stdout.splitlines()}
    assert found["settings"][0] == "ok"
    for what in ("redis", "s3", "source jobs", "surface hirebase"):
        assert found[what][0] == "FAIL", done.stdout
    assert found["workers"] == ("skip", "skipped because redis is failing")
    assert (
        f"http://{nobody[2]} refuses connections -> sources.jobs.base_url"
        in found["source jobs"][1]
    )
    assert "name one under [surfaces]" in found["surface hirebase"][1]


@pytest.mark.parametrize(
    "command",
    [
        *("doctor", "api", "worker", "webhooks", "beat", "up", "keys list"),
        *("export -o x.csv", "board serve"),
    ],
)
def test_a_wrong_setting_is_named_by_every_process(run: Run, command: str) -> None:
    # When
    done = run(*command.split(), EXPORTER_REDIS_URL="redis://:s3cret@h:99999")
    # Then
    assert done.returncode == os.EX_CONFIG
    assert "EXPORTER_REDIS_URL: 'redis://***@h:99999' " in done.stdout + done.stderr
    assert "write it like redis://HOST:PORT/DATABASE" in done.stdout + done.stderr
    assert "s3cret" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["keys list", "doctor", "worker"])
def test_a_name_that_is_no_setting_is_named_with_the_one_that_was_meant(
    run: Run, command: str
) -> None:
    # When
    done = run(
        *command.split(),
        EXPORTER_PARTSIZE="1",
        EXPORTER_REDIS_URL=f"redis://127.0.0.1:{ports.find_free(1)[0]}",
        EXPORTER_CONFIG="/no/such.toml",
    )
    # Then
    text = "EXPORTER_PARTSIZE has no effect: unknown setting: did you mean EXPORTER_PART_SIZE?"
    assert text in done.stdout + done.stderr


@pytest.mark.parametrize("command", ["worker", "api"])
def test_a_redis_that_may_lose_exports_is_refused(
    run: Run, redis_server: RedisServer, command: str
) -> None:
    # Given
    with redis.Redis.from_url(redis_server.url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            # When
            done = run(
                command,
                EXPORTER_REDIS_URL=redis_server.url,
                BOARD_KEY="k",
                EXPORTER_S3_ENDPOINT_URL="http://127.0.0.1:9",
                AWS_ACCESS_KEY_ID="a",
                AWS_SECRET_ACCESS_KEY="b",
            )
        finally:
            client.config_set("maxmemory-policy", "noeviction")
    # Then
    assert "CONFIG SET maxmemory-policy noeviction" in one_error(done, os.EX_CONFIG)


@pytest.mark.parametrize("variable", ["EXPORTER_REDIS_URL", "EXPORTER_BROKER_URL"])
def test_a_database_that_the_redis_does_not_have_is_named(
    run: Run, redis_url: str, variable: str
) -> None:
    # Given
    urls = {"EXPORTER_REDIS_URL": redis_url, "EXPORTER_BROKER_URL": f"{redis_url[:-1]}1"}
    missing = f"{redis_url.rpartition('/')[0]}/99"
    # When
    done = run("worker", **urls | {variable: missing}, BOARD_KEY="k")
    # Then
    said = one_error(done, os.EX_CONFIG)
    assert said.startswith(f"{variable}: the Redis at 127.0.0.1:")
    assert "has no database 99: give a lower number" in said


# -- export ----------------------------------------------------------------------------------------


def test_a_service_that_is_not_there_is_told_in_one_line(run: Run) -> None:
    # Given
    url = f"http://127.0.0.1:{ports.find_free(1)[0]}"
    # When
    done = run("export", "-o", "jobs.csv", "--url", url, "--api-key", "exp_x")
    # Then
    assert one_error(done).startswith(f"{url} does not answer: ")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            reply(401, {"title": "Unauthorized", "detail": "the API key is wrong"}),
            "401 Unauthorized: the API key is wrong",
        ),
        (reply(200, "<html>"), "is not an exporter: POST /v1/exports answered 200"),
        (reply(401, "null"), "is not an exporter: POST /v1/exports answered 401"),
        (reply(503, {"title": "Unavailable", "detail": "Redis is full"}), "Redis is full"),
    ],
)
def test_what_the_service_says_is_told_in_one_line(run: Run, answer: bytes, said: str) -> None:
    # Given
    with serving(answer) as service:
        # When
        done = run("export", "-o", "jobs.csv", "--url", service.url, "--api-key", "exp_x")
    # Then
    assert said in one_error(done)


def test_each_wrong_field_is_told_on_a_line_of_its_own(run: Run) -> None:
    # Given
    problems = [{"pointer": "/query/limit", "detail": "Input should be 1 or more"}]
    answer = reply(422, {"title": "Invalid", "detail": "1 problem", "errors": problems})
    with serving(answer) as service:
        # When
        done = run("export", "-o", "jobs.csv", "--url", service.url, "--api-key", "exp_x")
    # Then
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: 422 Invalid: 1 problem",
        "  /query/limit: Input should be 1 or more",
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-o", "no/such/jobs.csv", "--api-key", "exp_x"], "no/such is not a directory"),
        (["-o", "jobs.csv"], "no API key: set EXPORTER_API_KEY or give --key"),
        (["-o", "jobs.csv", "--api-key", "exp_\nx"], "the API key is empty or holds characters"),
        (["-o", "jobs.csv", "--api-key", "exp_x", "--url", "127.0.0.1:1"], "is not an address"),
    ],
)
def test_a_mistake_is_told_before_anything_is_asked(
    run: Run, arguments: list[str], said: str
) -> None:
    # Given
    with serving(reply(500)) as service:
        # When
        done = run("export", *arguments, EXPORTER_PUBLIC_URL=service.url)
    # Then
    assert said in one_error(done)
    assert service.asked == []


def test_an_export_that_fails_leaves_no_file_and_says_why(run: Run, tmp_path: Path) -> None:
    # Given
    def service(asked: Asked) -> bytes:
        record = {"id": "e1", "state": "failed", "phase": "done", "progress": 0.2}
        return reply(
            202 if asked.line.startswith("POST") else 200,
            {**record, "record_count": 7, "error": "the upstream answered 401", "result": None},
        )

    with serving(service) as upstream:
        # When
        done = run("export", "-o", "jobs.csv", "--url", upstream.url, "--api-key", "exp_x")
    # Then
    assert done.returncode == 1
    assert "error: export e1 failed: the upstream answered 401" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("file", "size", "count", "said"),
    [
        (b"_id\r\n1\r\n", 99, 1, "8 bytes arrived, 99 were announced"),
        (b"_id\r\n1\r\n", 8, 2, "jobs.csv holds 1 rows, 2 were announced"),
    ],
)
def test_a_file_that_is_not_what_was_announced_is_an_error(
    run: Run, tmp_path: Path, file: bytes, size: int, count: int, said: str
) -> None:
    # Given
    def service(asked: Asked) -> bytes:
        if asked.line.startswith("GET /file"):
            return reply(200, file)
        result = {
            "download_url": f"{upstream.url}/file",
            "file_size": size,
            "record_count": count,
            "unmapped_fields": {},
            "file_name": "jobs.csv",
        }
        record = {"id": "e1", "state": "finished", "phase": "done", "progress": 1.0}
        return reply(
            200, {**record, "record_count": count, "format": "csv", "error": None, "result": result}
        )

    with serving(service) as upstream:
        # When
        done = run("export", "-o", "jobs.csv", "--url", upstream.url, "--api-key", "exp_x")
    # Then
    assert done.returncode == 1
    assert said in done.stderr
    assert not list(tmp_path.glob("*.part"))
