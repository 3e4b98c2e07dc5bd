"""`exporter up`: everything starts, everything ends, and what was kept is found again."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import redis

from exporter.local import ports

pytestmark = pytest.mark.stack


@dataclass(frozen=True)
class Up:
    """A running `exporter up` and what it printed."""

    process: subprocess.Popen[str]
    data_dir: Path
    said: dict[str, str]
    log: Path

    def family(self) -> list[psutil.Process]:
        """All processes of the stack below the one that was started."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def child(self, word: str) -> psutil.Process:
        """The direct child with this word on its command line."""
        for child in psutil.Process(self.process.pid).children():
            if word in child.cmdline():
                return child
        raise AssertionError(f"no child {word} in {[c.cmdline() for c in self.family()]}")


def room() -> int:
    """A port that begins a hundred free ones, below those that the system gives to clients."""
    for _ in range(50):
        port = 9_000 + (ports.find_free(1)[0] % 200) * 100
        inside = (*range(port, port + 30), port + 10_020)
        if all(ports.is_free(one) for one in inside):
            return port
    raise AssertionError("no hundred free ports found")


def command(data_dir: Path, port: int, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "exporter.cli", "up"),
        *("--data-dir", str(data_dir), "--port", str(port), "--workers", "1"),
        *(more or ("--no-board",)),
    ]


@contextmanager
def up(data_dir: Path, port: int, *more: str) -> Iterator[Up]:
    log = data_dir.with_name(f"{data_dir.name}.stderr")
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            command(data_dir, port, *more), stdout=subprocess.PIPE, stderr=stderr, text=True
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, f"it ended without a line on stdout:\n{log.read_text()}"
            yield Up(process, data_dir, json.loads(line), log)
        finally:
            if process.poll() is None:
                process.terminate()


def health(url: str) -> int:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status
    finally:
        connection.close()


def left_of(family: list[psutil.Process], seconds: float = 5.0) -> list[psutil.Process]:
    return psutil.wait_procs(family, timeout=seconds)[1]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A stack that nothing ends before all of these tests have."""
    data = tmp_path_factory.mktemp("stack") / "data"
    data.mkdir()
    data.chmod(0o755)
    with up(data, room(), "--board-rows", "20") as one:
        yield one


def test_the_line_says_where_all_of_it_answers(running: Up) -> None:
    # Then
    assert set(running.said) == {"url", "api_key", "s3_endpoint", "redis_url", "board_url"}
    assert health(running.said["url"]) == 200
    assert health(running.said["board_url"]) == 200
    for place in ("s3_endpoint", "redis_url"):
        number = running.said[place].rpartition(":")[2].partition("/")[0]
        assert ports.is_listening(int(number))


def test_files_with_keys_are_readable_by_their_owner_only(running: Up) -> None:
    # Then
    for name in ("api_key", "secrets.json", "exporter.toml", "redis/redis.conf"):
        mode = (running.data_dir / name).stat().st_mode
        assert stat.S_IMODE(mode) == 0o600
    assert stat.S_IMODE(running.data_dir.stat().st_mode) == 0o700


def test_redis_answers_only_to_those_who_have_the_line(running: Up) -> None:
    # Given
    url = running.said["redis_url"]
    port = int(url.rpartition(":")[2].partition("/")[0])

    # When, then
    with redis.Redis.from_url(url) as client, redis.Redis(port=port) as stranger:
        assert client.ping()
        with pytest.raises(redis.AuthenticationError):
            stranger.ping()


def test_a_second_stack_on_the_same_data_is_refused(running: Up) -> None:
    # When
    done = subprocess.run(
        command(running.data_dir, room()), capture_output=True, text=True, timeout=60
    )

    # Then
    assert done.returncode == 1
    assert f"in use by the stack of process {running.process.pid}" in done.stderr
    assert health(running.said["url"]) == 200


def test_a_stack_ends_beside_another_and_the_next_on_its_data_finds_the_same_key(
    running: Up, tmp_path: Path
) -> None:
    # Given
    port = room()
    with up(tmp_path / "data", port) as one:
        key, family = one.said["api_key"], one.family()
        assert one.said["url"] == f"http://127.0.0.1:{port}"
        assert len(family) >= 5

        # When
        one.process.terminate()
        code = one.process.wait(40)

    # Then
    assert code == 0
    assert left_of(family) == []
    assert ports.is_free(port)
    assert health(running.said["url"]) == 200

    # When
    port = room()
    with up(tmp_path / "data", port) as two:
        # Then
        assert two.said["api_key"] == key
        assert f":{port + 10}" in (tmp_path / "data" / "exporter.toml").read_text()

        # When: nothing can tell the children
        family = two.family()
        two.process.kill()

        # Then
        assert left_of(family, 10.0) == []


@pytest.mark.soak
def test_a_configuration_that_was_edited_is_left_alone(tmp_path: Path) -> None:
    # Given
    with up(tmp_path / "data", room()):
        pass
    path = tmp_path / "data" / "exporter.toml"
    edited = path.read_text().replace("page_size = 100", "page_size = 50")
    path.write_text(edited)

    # When
    with up(tmp_path / "data", room()):
        # Then
        assert path.read_text() == edited


@pytest.mark.parametrize(
    "word",
    [
        "worker",
        pytest.param("api", marks=pytest.mark.soak),
        pytest.param("webhooks", marks=pytest.mark.soak),
        pytest.param("beat", marks=pytest.mark.soak),
        pytest.param("mini", marks=pytest.mark.soak),
    ],
)
def test_the_death_of_any_part_ends_all_and_is_told(tmp_path: Path, word: str) -> None:
    # Given
    with up(tmp_path / "data", room()) as running:
        family = running.family()

        # When
        running.child(word).kill()
        code = running.process.wait(40)

        # Then
        assert code == 1
        assert left_of(family) == []
        name = "s3" if word == "mini" else word
        assert f"{name} ended by SIGKILL" in running.log.read_text()


def test_a_stack_that_is_stopped_while_it_starts_leaves_nothing(tmp_path: Path) -> None:
    # Given
    port = room()
    with subprocess.Popen(command(tmp_path / "data", port), stdout=subprocess.PIPE) as process:
        deadline = time.monotonic() + 30
        while ports.is_free(port + 1) and time.monotonic() < deadline:
            time.sleep(0.02)
        family = psutil.Process(process.pid).children(recursive=True)
        assert family

        # When
        process.send_signal(signal.SIGINT)
        code = process.wait(40)

        # Then
        assert code == 0
        assert process.stdout is not None
        assert process.stdout.read() == b""
        assert left_of(family) == []


def test_a_taken_port_is_named_before_anything_starts(tmp_path: Path) -> None:
    # Given
    port = room()
    with socket.create_server(("127.0.0.1", port + 2)):
        # When
        done = subprocess.run(
            command(tmp_path / "data", port), capture_output=True, text=True, timeout=60
        )

    # Then
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"Port {port + 2} of 127.0.0.1, needed for S3, is in use" in done.stderr
    assert not (tmp_path / "data" / "logs").exists()


@pytest.mark.soak
def test_settings_of_the_caller_reach_the_parts_and_its_cloud_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    monkeypatch.setenv("EXPORTER_PART_SIZE", "6291456")
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "production")

    # When
    with up(tmp_path / "data", room()) as running:
        env = running.child("api").environ()

    # Then
    assert env["EXPORTER_PART_SIZE"] == "6291456"
    assert not {"AWS_PROFILE", "AWS_SESSION_TOKEN"} & set(env)
    assert os.environ["AWS_PROFILE"] == "production"
