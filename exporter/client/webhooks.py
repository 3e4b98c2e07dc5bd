"""Verifies webhooks as Standard Webhooks 1.0.0 defines."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Mapping, Sequence

import msgspec

from exporter.client.errors import WebhookRefused
from exporter.client.models import Webhook

TOLERANCE_SECONDS = 300
"""Most seconds between the time of a webhook and now."""
_PREFIX = "whsec_"


def verify(
    body: bytes,
    headers: Mapping[str, str],
    secret: str | Sequence[str],
    *,
    tolerance: float = TOLERANCE_SECONDS,
    now: float | None = None,
) -> Webhook:
    """Returns the webhook if its body is authentic, unchanged and recent.

    `body` are the bytes as they were received, `headers` those of the request in any case, `secret`
    the signing secret of the endpoint, or several while one replaces another. Raises WebhookRefused
    otherwise, and ValueError for a malformed secret.
    """
    given = {name.lower(): value for name, value in headers.items()}
    try:
        message_id, sent_at = given["webhook-id"], given["webhook-timestamp"]
        signatures = given["webhook-signature"].split()
    except KeyError as error:
        raise WebhookRefused(f"the request has no header {error.args[0]}") from None
    if not sent_at.isdigit():
        raise WebhookRefused("the header webhook-timestamp is not a number of seconds")
    if abs((time.time() if now is None else now) - int(sent_at)) > tolerance:
        raise WebhookRefused(
            f"the webhook was sent more than {tolerance:g} s ago, or this machine's clock is wrong"
        )
    signed = b"%s.%s.%s" % (message_id.encode(), sent_at.encode(), body)
    secrets = [secret] if isinstance(secret, str) else secret
    wanted = [hmac.digest(_key(one), signed, hashlib.sha256) for one in secrets]
    # Every pair is compared, each in constant time.
    matches = [hmac.compare_digest(one, two) for one in wanted for two in _digests(signatures)]
    if not any(matches):
        raise WebhookRefused("no signature of the webhook belongs to the secret and the body")
    try:
        return Webhook.read(msgspec.json.decode(body))
    except (ValueError, AttributeError):
        raise WebhookRefused("the body is authentic, but no event: update this client") from None


def _digests(signatures: Sequence[str]) -> list[bytes]:
    found = []
    for signature in signatures:
        version, _, text = signature.partition(",")
        if version == "v1":
            try:
                found.append(base64.b64decode(text, validate=True))
            except binascii.Error:
                continue
    return found


def _key(secret: str) -> bytes:
    try:
        found = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        found = b""
    if not found:
        raise ValueError("the signing secret is not `whsec_` and base64: copy it again")
    return found
