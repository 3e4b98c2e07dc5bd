"""Folders and files that only their owner can read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from exporter.errors import ConfigurationError

FOLDER_MODE = 0o700
FILE_MODE = 0o600
UMASK = 0o077
"""For child processes: what they create is private, whatever the umask of the user."""


def make_folder(path: Path) -> None:
    """Creates the folder and its parents, or narrows an existing one; only its owner has access.

    Raises ConfigurationError if the folder is shared with other users (as /tmp is) or belongs to
    another user.
    """
    path.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    found = path.stat()
    if found.st_uid != os.geteuid() or found.st_mode & stat.S_ISVTX:
        raise ConfigurationError(
            f"{path} belongs to another user or is shared by several, but secrets are kept there: "
            "choose a folder of your own."
        )
    if stat.S_IMODE(found.st_mode) != FOLDER_MODE:
        path.chmod(FOLDER_MODE)


def write_file(path: Path, text: str) -> None:
    """Replaces a file atomically; the new file is never readable by anyone but its owner."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(
        os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE), "w", encoding="utf-8"
    ) as file:
        file.write(text)
    new.replace(path)
