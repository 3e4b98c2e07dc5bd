"""The examples in docstrings."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import exporter

ROOT = Path(exporter.__file__).parent
WITH_EXAMPLES = sorted(
    ".".join(file.relative_to(ROOT.parent).with_suffix("").parts)
    for file in ROOT.rglob("*.py")
    if ">>>" in file.read_text("utf-8")
)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_every_example_in_a_docstring_gives_the_result_beside_it(name: str) -> None:
    # Given
    module = importlib.import_module(name)
    # When
    results = doctest.testmod(module)
    # Then
    assert results.attempted > 0
    assert results.failed == 0
