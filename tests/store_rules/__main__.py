"""Runs the proxy as a process of its own; see the package's docstring."""

from __future__ import annotations

import argparse
import os

from tests.store_rules.proxy import StoreRules
from tests.store_rules.rules import PROFILES

parser = argparse.ArgumentParser(prog="python -m tests.store_rules", description=__doc__)
parser.add_argument("profile", choices=sorted(PROFILES))
parser.add_argument("--upstream", required=True, help="URL of the real S3")
parser.add_argument("--port", type=int, default=0)
given = parser.parse_args()
store = StoreRules(
    given.profile,
    given.upstream,
    os.environ["AWS_ACCESS_KEY_ID"],
    os.environ["AWS_SECRET_ACCESS_KEY"],
    given.port,
)
print(store.url, flush=True)  # noqa: T201 - the address is this command's output
store.serve()
