"""An environment for the peers, with the exact versions of `peers/requirements.lock`.

It lies in the user's folder of caches, for all work trees. To change a version, change
`peers/requirements.in` and run, with uv:

    uv pip compile tests/bench/peers/requirements.in --generate-hashes --no-header --no-annotate \
      --universal --python-version 3.11 -o tests/bench/peers/requirements.lock
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

LOCK = Path(__file__).parent / "peers" / "requirements.lock"


def interpreter() -> str:
    """The one of the peers; our own, if they have not been prepared."""
    folder = _folder()
    return str(folder / "bin" / "python") if _stamp(folder).exists() else sys.executable


def prepare() -> None:
    """Install all peers, unless they are; a gigabyte."""
    folder = _folder()
    if _stamp(folder).exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--require-hashes", "-r", str(LOCK)], check=True)
    _stamp(folder).touch()


def _folder() -> Path:
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    version = f"{sys.version_info.major}.{sys.version_info.minor}".encode()
    digest = hashlib.sha256(LOCK.read_bytes() + version).hexdigest()[:12]
    return caches / "exporter-bench" / digest


def _stamp(folder: Path) -> Path:
    return folder / "complete"
