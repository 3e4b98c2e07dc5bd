"""The fingerprint of a request, which is stored for a day, stays the same in each version."""

from __future__ import annotations

from fastapi import Request

from exporter.api import idempotency
from exporter.api.surfaces.native.exports import ExportRequest

BODY = {"source": "board", "query": {"job_titles": ["Welder"]}, "format": "csv"}


def fingerprint(**fields: object) -> str:
    scope = {
        "type": "http",
        "path": "/v1/exports",
        "headers": [(b"idempotency-key", b"8e03978e-40d5")],
    }
    asked = ExportRequest.model_validate({**BODY, **fields})
    mark = idempotency.read_key(Request(scope), asked)
    assert mark is not None
    return mark.fingerprint


def test_fields_that_are_newer_than_a_stored_request_do_not_change_its_fingerprint() -> None:
    # Then: that of release 0.2.0
    released = "6e847e476c4258f5e9163cd629c456a014bf76579146bbc82d3425994f1631c6"
    assert fingerprint() == released


def test_fields_that_are_given_are_part_of_the_fingerprint() -> None:
    # Given
    given = [fingerprint(name="a"), fingerprint(metadata={"a": "b"}), fingerprint(bom=True)]
    # Then
    assert len({fingerprint(), *given}) == 4
