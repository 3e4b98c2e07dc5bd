"""The doctor names to the operator the host that users do not see."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.cli.doctor import source_checks
from exporter.cli.doctor.checks import Problem
from exporter.config import Config
from exporter.settings import Settings
from exporter.sources.hirebase import HirebaseConfig
from tests.upstreams import reply, serving


@pytest.mark.external
def test_a_source_that_refuses_is_named_with_its_host_and_without_its_path() -> None:
    # Given
    with serving(reply(403, "no entry")) as upstream:
        board = HirebaseConfig(base_url=f"{upstream.url}/t0k3n", api_key="k")
        # When
        with pytest.raises(Problem) as found:
            source_checks._source(Config(sources={"board": board}), "board", Settings())
    # Then
    assert found.value.text == f"{upstream.url} refuses the key (HTTP 403)"
    assert found.value.variable == "sources.board.api_key"


def test_a_variable_that_several_sources_need_is_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given: a folder without a file of sources
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BOARD_KEY", raising=False)
    (check,) = source_checks.checks(Settings())
    # When
    with pytest.raises(Problem) as found:
        check.run(Settings())
    # Then
    assert found.value.text.count("BOARD_KEY") == 1
    assert found.value.remedy == (
        "write your sources into a file and name it, or start `exporter up`"
    )
