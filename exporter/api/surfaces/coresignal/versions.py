"""The two versions of the Coresignal contract, their limits and their paths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fastapi import Request

from exporter.api.refusal import Refusal


class Version(NamedTuple):
    """A version of the contract: the older (V1) or the current one (V2), which differ in limits."""

    surface: str
    path: str
    """Beginning of the path of a data request, which its id follows."""
    max_ids: int
    max_rows: int | None
    """Maximum number of rows that a search may match; None: no maximum."""


V1 = Version("coresignal", "/v1/bulk_collect", 1_000_000, None)
V2 = Version("coresignal-v2", "/v2/data_requests", 10_000, 10_000)


def version_of(request: Request) -> Version:
    """Returns the version of the contract to which the request's path belongs."""
    return V1 if request.url.path.removeprefix("/cdapi").startswith("/v1/") else V2


def aliases(path: str) -> Sequence[str]:
    """Returns the further paths of an operation.

    All paths work under the vendor's base path /cdapi, too, and `job_base` and `job_multi_source`
    are the same data here.
    """
    paths = dict.fromkeys((path, path.replace("/job_base/", "/job_multi_source/")))
    return [base + one for base in ("", "/cdapi") for one in paths if base + one != path]


def too_many_matches(most: int) -> Refusal:
    """Returns the refusal of a search that matches too many postings, in the vendor's words."""
    detail = f"Request matched too many IDs. Maximum is {most:,} IDs"
    return Refusal(422, "too_many_matches", detail)
