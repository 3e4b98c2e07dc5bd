"""Commands that start a board with faults."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from exporter.local import ports
from tests.integration.board_faults.desk import KEY, done, raw_search, search
from tests.waiting import until


def run_cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "exporter.cli", *arguments],
        env=os.environ | {"BOARD_KEY": KEY},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_an_invalid_spec_on_the_command_line_starts_nothing(tmp_path: Path) -> None:
    # When
    board = run_cli("board", "serve", "--database", str(tmp_path / "b.db"), "--faults", "x=1%")
    stack = run_cli("up", "--data-dir", str(tmp_path / "up"), "--board-faults", "429=2")
    # Then
    assert (board.returncode, stack.returncode) == (1, 1)
    assert "'x' is not a fault of the board" in board.stderr
    assert "429=2: give a share" in stack.stderr
    assert not (tmp_path / "up").exists()


def test_a_board_started_by_the_command_injects_faults(tmp_path: Path) -> None:
    # Given
    port = ports.find_free(1)[0]
    command = [
        *(sys.executable, "-m", "exporter.cli", "board", "serve"),
        *("--database", str(tmp_path / "b.db"), "--rows", "150", "--port", str(port)),
        *("--faults", "reset=100%"),
    ]
    with subprocess.Popen(
        command, env=os.environ | {"BOARD_KEY": KEY}, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            until(lambda: ports.is_listening(port))
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
def test_a_stack_passes_the_spec_to_its_board(tmp_path: Path) -> None:
    # Given
    command = [
        *(sys.executable, "-m", "exporter.cli", "up", "--data-dir", str(tmp_path / "up")),
        *("--port", str(ports.find_base()), "--workers", "1", "--board-rows", "20"),
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
