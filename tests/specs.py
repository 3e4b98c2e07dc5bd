"""The specification of an export, of which a test names only what it is about."""

from __future__ import annotations

from typing import Any

from exporter.core.exports import Dialect, Spec


def spec(**fields: Any) -> Spec:
    """Returns a specification with the given fields; the others have small, fixed values."""
    usual: dict[str, Any] = {
        "id": "e1",
        "user_id": "u1",
        "surface": "native",
        "source": "memory",
        "query": {},
        "query_sha256": "",
        "request": {},
        "format": "json",
        "dialect": Dialect(),
    }
    usual |= fields
    return Spec(**{"file_name": f"jobs.{usual['format']}"} | usual)
