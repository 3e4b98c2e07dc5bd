"""The commands that fetch and read the file of a finished export, to be pasted into a terminal."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from exporter.formats import registry

_PYTHON = """\
import os
from pathlib import Path
from exporter.client import Exporter

with Exporter({url}, os.environ["KEY"]) as exporter:
    exporter.download({id}, Path({name}))"""


def fetch(name: str, link: str) -> str:
    """Returns the command that stores the file behind a link."""
    return f"curl -fsS -o {shlex.quote(name)} {shlex.quote(link)}"


def commands(export: Mapping[str, Any], link: str, url: str) -> Mapping[str, str]:
    """Returns the commands by the tool that they need; the link in them needs no key.

    The file gets a name of the export's id, so that no tool takes a part of the name for a pattern.
    """
    extension = registry.extension(export["format"], export["compression"])
    name = f"export-{export['id'][:8]}.{extension}"
    download = fetch(name, link)
    script = _PYTHON.format(url=json.dumps(url), id=json.dumps(export["id"]), name=json.dumps(name))
    found = {"curl": download, "Python": script}
    if export["format"] != "json_envelope":
        # DuckDB reads an envelope as one row.
        found["DuckDB"] = f"{download} &&\n  duckdb -c \"FROM '{name}'\""
    return found
