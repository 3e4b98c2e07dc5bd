"""A client that TypeScript's tools generate, against the whole service."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from exporter.local.stack import Addresses
from tests.openapi import generators

pytestmark = pytest.mark.stack


def test_the_typescript_of_the_guide_has_the_file(stack: Addresses, tmp_path: Path) -> None:
    # Given
    generators.fetch()
    source = generators.program_of_guide().replace("https://exports.example.com", stack.url)
    source = source.replace("exp_…", stack.api_key)

    # When: its types are checked by tests/integration/test_generated_clients.py
    program = generators.compile_typescript(tmp_path, "guide", source, "--noCheck")
    printed = generators.run("node", program, cwd=tmp_path)

    # Then
    name, rows = printed.split()
    with (tmp_path / name).open(newline="", encoding="utf-8") as lines:
        assert len(list(csv.DictReader(lines))) == int(rows) > 0
