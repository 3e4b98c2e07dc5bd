"""The table of limits, the settings and the document say the same."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from exporter.core import limits
from exporter.core.limits import LIMITS, Limit
from exporter.settings import Settings

DOCUMENT = Path(__file__).parents[3] / "deploy" / "LIMITS.md"


def test_the_document_has_the_limits_of_the_code() -> None:
    """Given the document, when it is generated again, then it is the same text."""
    assert DOCUMENT.read_text("utf-8") == limits.document(), (
        "run: python -m exporter.core.limits > deploy/LIMITS.md"
    )


@pytest.mark.parametrize("limit", LIMITS, ids=lambda one: one.name)
def test_the_default_of_a_setting_is_that_of_the_table(limit: Limit[Any]) -> None:
    """Given a limit with a setting, when no variable is set, then the setting has its default."""
    if limit.setting is None:
        return
    default = Settings.model_fields[limit.setting].get_default()
    if isinstance(default, timedelta):
        default = default.total_seconds()
    assert default == limit.default


def test_the_name_of_a_limit_is_unique() -> None:
    """Given all limits, then no two have the same name."""
    names = [limit.name for limit in LIMITS]
    assert sorted(names) == sorted(set(names))


def test_the_share_of_redis_is_that_of_the_scripts() -> None:
    """Given the share in the table, then the script that creates exports uses the same share."""
    scripts = DOCUMENT.parents[1] / "exporter" / "store" / "redis" / "scripts"
    share = limits.REDIS_MEMORY.default / 100
    assert f"FULL_SHARE = {share}\n" in (scripts / "common.lua").read_text("utf-8")
