"""`exporter doctor` names each fault in one line: its cause, the variable and the remedy."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import trustme

from exporter.cli.doctor import process_checks, redis_checks, source_checks, storage_checks
from exporter.cli.doctor.checks import Problem, Status
from exporter.local.redis import RedisServer
from exporter.local.stack import Addresses
from exporter.settings import Settings
from tests.conftest import S3
from tests.upstreams import reply, serving

DATABASE = 12
"""Of the test run's Redis."""
HTML = reply(200, "<!doctype html><html><body>Welcome</body></html>", content_type="text/html")

Command = Callable[..., object]


def found_by(check: Callable[[Settings], str], settings: Settings) -> Problem:
    with pytest.raises(Problem) as problem:
        check(settings)
    return problem.value


def says(problem: Problem) -> str:
    """The whole line. No text of a library may be in it."""
    line = f"{problem.text} -> {problem.variable}: {problem.remedy}"
    words = ("Error", "Errno", "Exception", "botocore", "urllib", "urlopen", "http.client", "\n")
    assert not [word for word in words if word in line], line
    return line


# -- Redis -----------------------------------------------------------------------------------------


@pytest.fixture
def settings(redis_server: RedisServer) -> Settings:
    return Settings(redis_url=redis_server.url.removesuffix("/0") + f"/{DATABASE}")


@pytest.fixture
def command(redis_server: RedisServer) -> Iterator[Command]:
    with redis.Redis.from_url(redis_server.url) as client:
        yield client.execute_command


def test_a_redis_as_shipped_passes_all_checks_and_keeps_nothing(
    settings: Settings, command: Command
) -> None:
    # When
    found = [
        check(settings)
        for check in (
            redis_checks.connection,
            redis_checks.writes,
            redis_checks.is_durable,
            redis_checks.has_memory,
            redis_checks.is_maintained,
            redis_checks.broker,
        )
    ]
    # Then
    assert all(found)
    with redis.Redis.from_url(settings.redis_url) as client:
        assert client.dbsize() == 0


def test_a_replica_is_named(settings: Settings, command: Command) -> None:
    # Given
    command("REPLICAOF", "127.0.0.1", "1")
    try:
        # When
        found = [found_by(check, settings) for check in (redis_checks.writes, redis_checks.broker)]
    finally:
        command("REPLICAOF", "NO", "ONE")
    # Then
    assert [one.text for one in found] == ["this Redis is a replica"] * 2
    assert [one.variable for one in found] == ["EXPORTER_REDIS_URL", "EXPORTER_BROKER_URL"]


def test_a_full_redis_is_named(settings: Settings, command: Command) -> None:
    # Given
    command("CONFIG", "SET", "maxmemory", "1")
    try:
        # When
        checks = (redis_checks.writes, redis_checks.has_memory, redis_checks.broker)
        found = [found_by(check, settings) for check in checks]
    finally:
        command("CONFIG", "SET", "maxmemory", "0")
    # Then
    assert found[0].text == found[2].text == "this Redis is full"
    assert "no export is created" in found[1].text
    assert all("raise maxmemory" in says(one) for one in found)


@pytest.mark.parametrize(
    ("setting", "bad", "good", "status"),
    [
        ("maxmemory-policy", "allkeys-lru", "noeviction", Status.FAIL),
        ("appendfsync", "everysec", "always", Status.WARN),
    ],
)
def test_a_setting_that_loses_exports_is_named(
    settings: Settings, command: Command, setting: str, bad: str, good: str, status: Status
) -> None:
    # Given
    command("CONFIG", "SET", setting, bad)
    try:
        # When
        found = found_by(redis_checks.is_durable, settings)
    finally:
        command("CONFIG", "SET", setting, good)
    # Then
    assert f"CONFIG SET {setting} {good}" in says(found)
    assert found.status is status


def test_a_redis_that_reports_nothing_is_a_warning(settings: Settings, command: Command) -> None:
    # Given
    command("ACL", "SETUSER", "silent", "on", ">pw", "~*", "+@all", "-info", "-config")
    url = settings.redis_url.replace("redis://", "redis://silent:pw@")
    try:
        # When
        found = found_by(redis_checks.is_durable, Settings(redis_url=url))
        version = redis_checks.is_maintained(Settings(redis_url=url))
    finally:
        command("ACL", "DELUSER", "silent")
    # Then
    assert found.status is Status.WARN
    assert "refused to report whether it evicts keys" in found.text
    assert version == "not reported"


def test_a_wrong_password_is_named_without_itself(settings: Settings) -> None:
    # Given
    url = settings.redis_url.replace("redis://", "redis://nobody:secret1@")
    # When
    line = says(found_by(redis_checks.connection, Settings(redis_url=url)))
    # Then
    assert line.startswith("Redis rejects the user or password -> EXPORTER_REDIS_URL")
    assert "secret1" not in line


# -- S3 --------------------------------------------------------------------------------------------


@pytest.fixture
def s3(s3_keys: S3) -> dict[str, Any]:
    """Settings of the real S3, with its credentials in the environment."""
    return {"s3_endpoint_url": s3_keys.endpoint_url, "s3_bucket": s3_keys.bucket}


def test_a_real_s3_passes_all_checks(s3: dict[str, Any]) -> None:
    for check in (storage_checks.access, storage_checks.exports, storage_checks.link):
        assert check(Settings(**s3))


@pytest.mark.parametrize(
    ("variables", "wrong", "named"),
    [
        ({"AWS_ACCESS_KEY_ID": "other"}, {}, "AWS_ACCESS_KEY_ID: correct it"),
        ({"AWS_SECRET_ACCESS_KEY": "other"}, {}, "AWS_SECRET_ACCESS_KEY: correct it"),
        ({}, {"s3_bucket": "another"}, "no bucket 'another' -> EXPORTER_S3_BUCKET: create it"),
        ({}, {"s3_endpoint_url": "http://127.0.0.1:1"}, "127.0.0.1:1 refuses connections"),
        ({}, {"s3_endpoint_url": "http://no-such-host.invalid"}, "unknown host name"),
    ],
)
def test_a_wrong_setting_of_the_store_is_named(
    s3: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    variables: Mapping[str, str],
    wrong: dict[str, Any],
    named: str,
) -> None:
    # Given
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    # When / Then
    assert named in says(found_by(storage_checks.access, Settings(**s3 | wrong)))


def test_missing_credentials_are_named(s3: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    # Given
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    # When / Then
    assert "credentials for the object store are missing" in says(
        found_by(storage_checks.access, Settings(**s3))
    )


def refusal(code: str, status: int, more: str = "") -> bytes:
    body = f"<Error><Code>{code}</Code><Message>no</Message>{more}</Error>"
    return reply(status, body, content_type="application/xml")


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (HTML, "answers, but not as an S3 -> EXPORTER_S3_ENDPOINT_URL"),
        (reply(200, "<html></html>"), "answers, but not as an S3 -> EXPORTER_S3_ENDPOINT_URL"),
        (reply(200, {"ok": True}), "answers, but not as an S3 -> EXPORTER_S3_ENDPOINT_URL"),
        (reply(404, "<h1>Not Found</h1>"), "not as an S3 -> EXPORTER_S3_ENDPOINT_URL"),
        (reply(404, {"detail": "Not Found"}), "not as an S3 -> EXPORTER_S3_ENDPOINT_URL"),
        (reply(405, ""), "answers HTTP 405, but not as an S3 -> EXPORTER_S3_ENDPOINT_URL"),
        (reply(302, "", location="/login"), "not as an S3 -> EXPORTER_S3_ENDPOINT_URL"),
        (
            refusal("AuthorizationHeaderMalformed", 400, "<Region>eu-west-1</Region>"),
            "EXPORTER_S3_REGION: set it to eu-west-1",
        ),
        (refusal("RequestTimeTooSkewed", 403), "clock of this machine differs"),
        (refusal("AccessDenied", 403), "AWS_ACCESS_KEY_ID: allow them to list the bucket"),
        (refusal("ExpiredToken", 400), "AWS_SESSION_TOKEN: renew"),
    ],
)
def test_each_answer_of_a_store_is_named(s3: dict[str, Any], answer: bytes, named: str) -> None:
    # Given
    with serving(answer) as server:
        # When
        problem = found_by(storage_checks.access, Settings(**s3 | {"s3_endpoint_url": server.url}))
    # Then
    assert named in says(problem)


@pytest.mark.parametrize(
    ("public", "named"),
    [
        ("http://127.0.0.1:1", "127.0.0.1:1 refuses connections"),
        ("http://no-such-host.invalid", "has an unknown host name"),
        ("https", "speaks no TLS"),
        ("html", "answers HTTP 200 to a download link, not with the object"),
        ("redirect", "redirects to https://files.example.com"),
        ("localhost", "rejects the signature"),
    ],
)
def test_a_public_address_of_the_store_that_leads_nowhere_is_named(
    s3: dict[str, Any], public: str, named: str
) -> None:
    # Given
    answers = {
        "html": HTML,
        "redirect": reply(301, "", location="https://files.example.com/x"),
        "localhost": refusal("SignatureDoesNotMatch", 403),
    }
    with serving(answers.get(public, HTML)) as server:
        urls = {"https": s3["s3_endpoint_url"].replace("http:", "https:")}
        url = server.url if public in answers else urls.get(public, public)
        # When
        problem = found_by(storage_checks.link, Settings(**s3 | {"s3_public_endpoint_url": url}))
    # Then
    assert named in says(problem)
    assert problem.variable == "EXPORTER_S3_PUBLIC_ENDPOINT_URL"


# -- sources ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (reply(401, {"detail": "who?"}), "refuses the key (HTTP 401) -> sources.jobs.api_key"),
        (reply(404, HTML), "not as an API of type hirebase (HTTP 404) -> sources.jobs.base_url"),
        (HTML, "answers, but not as an API of type hirebase"),
        (reply(503, ""), "answers HTTP 503 -> None: retry later"),
        (None, "refuses connections -> sources.jobs.base_url: start the server"),
    ],
)
def test_a_wrong_source_is_named(tmp_path: Path, answer: bytes | None, named: str) -> None:
    # Given
    with serving(answer or b"") as server:
        url = server.url if answer else "http://127.0.0.1:1"
        file = tmp_path / "exporter.toml"
        file.write_text(f'[sources.jobs]\ntype = "hirebase"\nbase_url = "{url}"\n')
        settings = Settings(config=file)
        (check,) = (one for one in source_checks.checks(settings) if one.name == "source jobs")
        # When / Then
        assert named in says(found_by(check.run, settings))


# -- API -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (HTML, "answers HTTP 200, but not as this API -> EXPORTER_PUBLIC_URL"),
        (reply(404, {"detail": "Not Found"}), "HTTP 404, but not as this API"),
        (reply(301, "", location="https://api.example.com/health"), "redirects to https://api."),
        (reply(503, {"status": "no", "redis": "unavailable", "s3": "ok"}), "redis unavailable"),
        (None, "refuses connections -> EXPORTER_PUBLIC_URL: start the API"),
    ],
)
def test_an_address_of_the_api_that_leads_nowhere_is_named(
    answer: bytes | None, named: str
) -> None:
    # Given
    with serving(answer or b"") as server:
        url = server.url if answer else "http://127.0.0.1:1"
        # When
        problem = found_by(process_checks.api, Settings(public_url=url))
    # Then
    assert named in says(problem)


def test_each_wrong_setting_is_a_line_and_hides_no_check_that_does_not_need_it(
    tmp_path: Path,
) -> None:
    # When
    done = doctor(
        tmp_path,
        "--json",
        EXPORTER_PART_SIZE="1",
        EXPORTER_LINK_TTL="soon",
        EXPORTER_REDIS_URL="redis://127.0.0.1:1/0",
        EXPORTER_S3_ENDPOINT_URL="http://127.0.0.1:1",
        BOARD_KEY="k",
    )
    # Then
    found = json.loads(done.stdout)["checks"]
    wrong = {one["variable"] for one in found if one["name"] == "settings"}
    assert wrong == {"EXPORTER_PART_SIZE", "EXPORTER_LINK_TTL"}
    assert {"redis", "s3"} <= {one["name"] for one in found if one["status"] == "fail"}
    assert done.returncode == os.EX_CONFIG


# -- the command -----------------------------------------------------------------------------------


def doctor(directory: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("EXPORTER_", "AWS_", "BOARD_"))
    }
    return subprocess.run(
        [sys.executable, "-m", "exporter.cli", "doctor", *options],
        cwd=directory,
        env=env | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.stack
@pytest.mark.usefixtures("stack")
def test_the_local_stack_is_found_and_healthy_in_every_part(stack_home: Path) -> None:
    # When
    done = doctor(stack_home, "--json")
    # Then
    found = json.loads(done.stdout)
    assert {one["status"] for one in found["checks"]} == {"ok"}, done.stdout
    assert {"api", "workers", "webhooks", "beat"} <= {one["name"] for one in found["checks"]}
    assert done.stderr == "using the local stack in .exporter (EXPORTER_REDIS_URL is not set)\n"
    assert done.returncode == 0


@pytest.mark.stack
def test_each_missing_process_is_named(stack: Addresses) -> None:
    # Given: the same Redis, but a database where no process has shown itself
    settings = Settings(redis_url=f"{stack.redis_url.removesuffix('/0')}/5")
    # When / Then
    for check, command in (
        (process_checks.workers, "exporter worker"),
        (process_checks.senders, "exporter webhooks"),
        (process_checks.beat, "exporter beat"),
    ):
        assert f"start one with `{command}`" in says(found_by(check, settings))


@contextmanager
def silent() -> Iterator[str]:
    """A server that takes connections and never says a word; yields its host and port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_the_doctor_ends_soon_whatever_hangs(tmp_path: Path) -> None:
    # Given
    with ExitStack() as stack:
        where = [stack.enter_context(silent()) for _ in range(4)]
        (tmp_path / "exporter.toml").write_text(
            f'[sources.board]\ntype = "hirebase"\nbase_url = "http://{where[3]}"\n'
        )
        began = time.monotonic()
        # When
        done = doctor(
            tmp_path,
            EXPORTER_REDIS_URL=f"redis://{where[0]}/0",
            EXPORTER_S3_ENDPOINT_URL=f"http://{where[1]}",
            EXPORTER_PUBLIC_URL=f"http://{where[2]}",
            AWS_ACCESS_KEY_ID="a",
            AWS_SECRET_ACCESS_KEY="b",
        )
        seconds = time.monotonic() - began
    # Then
    marks = {line[6:25].strip(): line[:4].strip() for line in done.stdout.splitlines()}
    for name in ("redis", "s3", "api", "source board"):
        assert marks[name] == "FAIL", done.stdout
    assert marks["broker"] == "skip"
    assert done.stderr == ""
    assert seconds < 20
    assert done.returncode == 1


def test_plain_http_to_a_store_with_tls_is_named(s3: dict[str, Any]) -> None:
    # Given
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    plain, _ = listener.accept()
                    with plain, context.wrap_socket(plain, server_side=True) as secure:
                        secure.recv(1)
                except ssl.SSLError:
                    continue
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        # When
        problem = found_by(storage_checks.access, Settings(**s3 | {"s3_endpoint_url": url}))
    # Then
    assert "speaks TLS -> EXPORTER_S3_ENDPOINT_URL: write https://" in says(problem)
