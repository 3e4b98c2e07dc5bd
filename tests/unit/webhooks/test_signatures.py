"""Signatures, checked by the libraries that receivers use."""

from __future__ import annotations

import base64
import time
from datetime import UTC, datetime, timedelta

import pytest
import standardwebhooks
import svix
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.webhooks import signatures
from tests import fast

BODY = '{"type":"export.finished","data":{"id":"exp_1","title":"Ingénieur 🚀"}}'.encode()
ID = "msg_2Lh9KRb0pzN4LePd3XiA4v9Axj1"


def now() -> int:
    return int(time.time())


Verifier = type[standardwebhooks.Webhook] | type[svix.Webhook]
REFUSALS = (standardwebhooks.WebhookVerificationError, svix.WebhookVerificationError)


@pytest.mark.parametrize("verifier", [standardwebhooks.Webhook, svix.Webhook])
def test_receivers_libraries_accept_what_is_signed(verifier: Verifier) -> None:
    # Given
    secret = signatures.new_secret()
    # When
    headers = signatures.headers([secret], ID, now(), BODY)
    # Then
    verifier(secret).verify(BODY, headers)
    assert list(headers) == ["webhook-id", "webhook-timestamp", "webhook-signature"]


@given(
    body=st.binary(max_size=300),
    ids=st.from_regex(r"[A-Za-z0-9_-]{1,60}", fullmatch=True),
    key=st.binary(min_size=24, max_size=64),
    at=st.integers(0, 2**33),
)
@settings(max_examples=fast.examples(60), deadline=None)
def test_the_libraries_sign_the_same_bytes_in_the_same_way(
    body: bytes, ids: str, key: bytes, at: int
) -> None:
    # Given: the libraries sign text
    text = body.decode("latin-1")
    secret = "whsec_" + base64.b64encode(key).decode()
    when = datetime.fromtimestamp(at, UTC)
    # When
    ours = signatures.sign([secret], ids, at, text.encode())
    # Then
    assert ours == standardwebhooks.Webhook(secret).sign(ids, when, text)
    assert ours == svix.Webhook(secret).sign(ids, when, text)


@pytest.mark.parametrize("verifier", [standardwebhooks.Webhook, svix.Webhook])
def test_while_a_secret_is_rotated_the_old_and_the_new_one_both_verify(verifier: Verifier) -> None:
    # Given
    new, old, other = (signatures.new_secret() for _ in range(3))
    # When
    headers = signatures.headers([new, old], ID, now(), BODY)
    # Then
    assert len(headers["webhook-signature"].split(" ")) == 2
    for secret in (new, old):
        verifier(secret).verify(BODY, headers)
    with pytest.raises((standardwebhooks.WebhookVerificationError, svix.WebhookVerificationError)):
        verifier(other).verify(BODY, headers)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("body", BODY + b" "),
        ("webhook-id", "msg_other"),
        pytest.param("webhook-timestamp", str(now() - 1), id="webhook-timestamp"),
    ],
)
def test_a_change_of_body_id_or_time_breaks_the_signature(part: str, value: bytes | str) -> None:
    # Given
    secret = signatures.new_secret()
    headers = signatures.headers([secret], ID, now(), BODY)
    body = BODY
    # When
    if isinstance(value, bytes):
        body = value
    else:
        headers[part] = value
    # Then
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(secret).verify(body, headers)


def test_a_stale_webhook_is_refused_by_its_signed_time() -> None:
    # Given
    secret = signatures.new_secret()
    stale = int((datetime.now(UTC) - timedelta(minutes=6)).timestamp())
    # When
    headers = signatures.headers([secret], ID, stale, BODY)
    # Then
    with pytest.raises(standardwebhooks.WebhookVerificationError, match="too old"):
        standardwebhooks.Webhook(secret).verify(BODY, headers)


def test_a_known_signature_stays_as_it_is() -> None:
    # Given: the example of the specification's libraries
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    # When
    signed = signatures.sign(
        [secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    # Then
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_new_secrets_are_valid_and_never_the_same() -> None:
    # Given / When
    made = {signatures.new_secret() for _ in range(100)}
    # Then
    assert len(made) == 100
    assert {len(signatures.decode_secret(secret)) for secret in made} == {32}


def _secret(size: int) -> str:
    return "whsec_" + base64.b64encode(b"\xfb" * size).decode()


@pytest.mark.parametrize("size", [24, 25, 32, 64])
def test_keys_of_24_to_64_bytes_are_taken(size: int) -> None:
    # Given / When / Then
    assert signatures.decode_secret(_secret(size)) == b"\xfb" * size


@pytest.mark.parametrize(
    ("secret", "said"),
    [
        ("", "does not begin with whsec_"),
        (_secret(32).removeprefix("whsec_"), "does not begin with whsec_"),
        ("WHSEC_" + _secret(32).removeprefix("whsec_"), "does not begin with whsec_"),
        ("whsk_" + _secret(32).removeprefix("whsec_"), "does not begin with whsec_"),
        (" " + _secret(32), "does not begin with whsec_"),
        ("whsec_", "decodes to 0 bytes"),
        (_secret(23), "decodes to 23 bytes"),
        (_secret(65), "decodes to 65 bytes"),
        (_secret(32).rstrip("="), "not standard base64"),
        (_secret(32) + "\n", "not standard base64"),
        (_secret(33).replace("+", "-"), "not standard base64"),
        ("whsec_correct horse battery staple!!", "not standard base64"),
        ("whsec_" + "ü" * 40, "not standard base64"),
    ],
)
def test_another_secret_is_refused_without_being_quoted(secret: str, said: str) -> None:
    # Given / When
    with pytest.raises(signatures.SecretRefused, match=said) as refused:
        signatures.sign([_secret(32), secret], ID, now(), BODY)
    # Then
    assert "24 to 64" in str(refused.value)
    quoted = secret.removeprefix("whsec_").strip()[:12]
    assert not quoted or quoted not in str(refused.value)


@pytest.mark.parametrize("message_id", ["", "msg.1", "msg 1", "msg\n1", "mßg", "x" * 201])
def test_an_id_that_could_be_read_in_two_ways_is_refused(message_id: str) -> None:
    # Given / When / Then
    with pytest.raises(ValueError, match="is not a message id"):
        signatures.sign([_secret(32)], message_id, now(), BODY)


def test_nothing_is_sent_unsigned() -> None:
    # Given / When / Then
    with pytest.raises(ValueError, match="no secret to sign with"):
        signatures.headers([], ID, now(), BODY)
    with pytest.raises(ValueError, match="is negative"):
        signatures.headers([_secret(32)], ID, -1, BODY)
