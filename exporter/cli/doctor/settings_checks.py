"""Checks of the environment variables."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from exporter.cli.doctor.checks import Finding, Status
from exporter.errors import ConfigurationError
from exporter.settings import Settings, load

NAME = "settings"


class Read(NamedTuple):
    """The settings as far as they can be read, and what was found about them."""

    settings: Settings
    malformed: tuple[str, ...]
    """Variables that cannot be read; `settings` has their defaults."""
    findings: tuple[Finding, ...]


def read() -> Read:
    """Returns the settings; malformed variables are taken out of the environment.

    So the checks that do not need them can still be made. Raises ConfigurationError if the
    settings cannot be read at all.
    """
    malformed: list[str] = []
    texts: list[str] = []
    while True:
        try:
            settings = load()
            break
        except ConfigurationError as error:
            mentioned = set(re.findall(r"EXPORTER_[A-Z0-9_]+", str(error)))
            names = [name for name in os.environ if name.upper() in mentioned]
            if not names:
                raise
            texts.append(str(error).rstrip("."))
            malformed += [name.upper() for name in names]
            for name in names:
                del os.environ[name]
    found = [_finding(one) for text in texts for one in re.split(r"; (?=EXPORTER_)", text)]
    if not found:
        text = f"bucket {settings.s3_bucket}, API {settings.public_url}"
        found = [Finding(NAME, Status.OK, text)]
    return Read(settings, tuple(malformed), tuple(found))


def _finding(problem: str) -> Finding:
    """Returns the finding of a text of `settings.load` about one or more variables."""
    named = re.match(r"(EXPORTER_[A-Z0-9_]+)(: )?", problem)
    if named is None:
        return Finding(NAME, Status.FAIL, problem)
    text = problem[named.end() :] if named[2] else problem
    return Finding(NAME, Status.FAIL, text, named[1])
