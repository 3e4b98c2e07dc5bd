"""The doctor names to the operator the host that users do not see."""

from __future__ import annotations

import pytest

from exporter.cli.doctor import source_checks
from exporter.cli.doctor.checks import Problem
from exporter.config import Config, SourceConfig
from exporter.settings import Settings
from tests.upstreams import reply, serving


@pytest.mark.external
def test_a_source_that_refuses_is_named_with_its_host_and_without_its_path() -> None:
    # Given
    with serving(reply(403, "no entry")) as upstream:
        board = SourceConfig(type="hirebase", base_url=f"{upstream.url}/t0k3n", api_key="k")
        # When
        with pytest.raises(Problem) as found:
            source_checks._source(Config(sources={"board": board}), "board", Settings())
    # Then
    assert found.value.text == f"{upstream.url} refuses the key (HTTP 403)"
    assert found.value.variable == "sources.board.api_key"
