"""A webhook is accepted only if it is authentic, unchanged and recent."""

from __future__ import annotations

import base64
import time

import pytest

from exporter.client import WebhookRefused, webhooks
from exporter.webhooks import signatures

SECRET = signatures.new_secret()
BODY = b'{"type":"export.finished","timestamp":"2026-03-02T09:15:09Z","data":{"id":"e1"},"x":1}'
NOW = 1_772_442_909


def signed(*secrets: str, body: bytes = BODY, at: int = NOW) -> dict[str, str]:
    return signatures.headers(list(secrets) or [SECRET], "msg_e1_4", at, body)


def test_an_authentic_webhook_is_returned_with_all_its_fields() -> None:
    # When
    found = webhooks.verify(BODY, signed(), SECRET, now=NOW + 299)
    # Then
    assert (found.type, found.data, found.extra) == ("export.finished", {"id": "e1"}, {"x": 1})


def test_names_of_headers_may_have_any_case_and_the_time_is_now() -> None:
    # Given
    headers = {name.title(): value for name, value in signed(at=int(time.time())).items()}
    # When / Then
    assert webhooks.verify(BODY, headers, SECRET).type == "export.finished"


def test_while_a_secret_is_replaced_either_of_them_is_enough() -> None:
    # Given
    new = signatures.new_secret()
    # When / Then
    for signatures_, secret in (((new, SECRET), SECRET), ((SECRET,), [new, SECRET])):
        found = webhooks.verify(BODY, signed(*signatures_), secret, now=NOW)
        assert found.data == {"id": "e1"}


@pytest.mark.parametrize(
    ("headers", "body", "now"),
    [
        (signed(), BODY + b" ", NOW),
        (signed(), BODY, NOW + 301),
        (signed(), BODY, NOW - 301),
        (signed(signatures.new_secret()), BODY, NOW),
        (signed() | {"webhook-id": "msg_e1_5"}, BODY, NOW),
        (signed() | {"webhook-timestamp": "soon"}, BODY, NOW),
        (signed() | {"webhook-signature": "v1,no base64! v2,AAAA"}, BODY, NOW),
        (signed() | {"webhook-signature": ""}, BODY, NOW),
        ({}, BODY, NOW),
        (signed(body=b"[]"), b"[]", NOW),
    ],
)
def test_what_is_not_authentic_unchanged_and_recent_is_refused(
    headers: dict[str, str], body: bytes, now: int
) -> None:
    # When / Then
    with pytest.raises(WebhookRefused):
        webhooks.verify(body, headers, SECRET, now=now)


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "whsec_no base64", base64.b16encode(b"x").decode()]
)
def test_a_malformed_secret_is_refused_without_quoting_it(secret: str) -> None:
    # When
    with pytest.raises(ValueError, match="signing secret") as refused:
        webhooks.verify(BODY, signed(), secret, now=NOW)
    # Then
    assert secret in ("", "whsec_") or secret not in str(refused.value)
