from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from unittest import mock
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from botocore import UNSIGNED
from botocore import session as botocore_session
from botocore.config import Config
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import NoCredentialsError, ParamValidationError
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from exporter.storage.s3 import presigning
from tests import fast

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MOMENT = datetime(2026, 3, 2, 9, 15, 4, 201933, tzinfo=UTC)
_session = boto3.session.Session()
"""Shared session: each new session reads the description of S3 again."""
_clients: dict[Any, S3Client] = {}


def client(
    endpoint_url: str | None = None,
    region: str = "us-east-1",
    style: Any = "path",
    token: str | None = None,
    *,
    access_key: str = "AKIDEXAMPLE",
    secret_key: str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    version: Any = "s3v4",
) -> S3Client:
    """Returns a client of boto3; cached by arguments, because making a client is slow."""
    wanted = endpoint_url, region, style, token, access_key, secret_key, version
    if wanted not in _clients:
        _clients[wanted] = _session.client(
            "s3",
            endpoint_url=endpoint_url,
            region_name=region,
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            aws_session_token=token,
            config=Config(signature_version=version, s3={"addressing_style": style}),
        )
    return _clients[wanted]


def both(s3: S3Client, bucket: str, key: str, seconds: int, moment: datetime) -> tuple[str, str]:
    """Returns our URL and the URL of boto3 for the same moment."""
    with (
        mock.patch("time.time", return_value=moment.timestamp()),
        mock.patch("botocore.auth.get_current_datetime", return_value=moment.replace(tzinfo=None)),
    ):
        ours = presigning.url(s3, bucket, key, seconds)
        theirs = s3.generate_presigned_url(
            "get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=seconds
        )
    return ours, theirs


def is_signed_by_boto3(s3: S3Client, bucket: str) -> bool:
    """True if the next URL needs a call of boto3; a first URL makes the signer beforehand."""
    presigning.url(s3, bucket, "learn", 60)
    with mock.patch.object(
        s3, "generate_presigned_url", wraps=s3.generate_presigned_url
    ) as by_boto3:
        presigning.url(s3, bucket, "key", 60)
    return by_boto3.called


KEYS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40),
    st.text("aZ09/ +~%?#&=!*'();:@,$[]\\\"<>.^`{|}é🦊\x00\n", min_size=1, max_size=40),
    st.sampled_from(["/", "//a", "../a", "a/./b//c/..", "a/", " ", ".", "%2F", "exports/1/a.csv"]),
)
MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2099, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001
ENDPOINTS = (
    None,
    "http://127.0.0.1:8333",
    "http://127.0.0.1",
    "http://s3.test:80",
    "https://s3.test:443",
    "https://S3.Test:9000/",
    "https://files.test/a/b",
    "https://files.test:8443/store/",
    "http://[::1]:9000",
)


@settings(deadline=None, max_examples=fast.examples(200))
@given(
    endpoint=st.sampled_from(ENDPOINTS),
    region=st.sampled_from(["us-east-1", "eu-central-1", "cn-north-1", "auto"]),
    style=st.sampled_from(["path", "virtual", "auto"]),
    bucket=st.sampled_from(["exports", "my.dotted.bucket", "x-1"]),
    token=st.sampled_from([None, "IQoJb3JpZ2lu/+=EAE aCXVzLWVhc3Q~é"]),
    key=KEYS,
    seconds=st.integers(1, 7 * 24 * 3600),
    moment=MOMENTS,
)
def test_a_link_is_byte_for_byte_the_one_that_boto3_signs(
    endpoint: str | None,
    region: str,
    style: str,
    bucket: str,
    token: str | None,
    key: str,
    seconds: int,
    moment: datetime,
) -> None:
    # Given: boto3 makes no host of a bucket's name and an address, on some releases of Python
    assume(style == "path" or "[" not in (endpoint or ""))
    s3 = client(endpoint, region, style, token)

    # When
    ours, theirs = both(s3, bucket, key, seconds, moment)

    # Then
    assert ours == theirs


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("style", ["path", "virtual"])
@pytest.mark.parametrize("token", [None, "token"])
def test_boto3_is_asked_once_for_each_bucket_and_not_for_each_link(
    endpoint: str | None, style: str, token: str | None
) -> None:
    # Given
    s3 = client(endpoint, style=style, token=token)

    # When
    asked = is_signed_by_boto3(s3, "exports")

    # Then
    assert not asked


@pytest.mark.parametrize(
    ("bucket", "options"),
    [
        ("exports", {"version": "s3"}),
        ("exports", {"version": UNSIGNED}),
    ],
)
def test_what_is_no_signature_version_4_is_left_to_boto3(
    bucket: str, options: dict[str, Any]
) -> None:
    # Given
    s3 = client(**options)

    # When
    ours, theirs = both(s3, bucket, "a.csv", 60, MOMENT)

    # Then
    assert ours == theirs
    assert is_signed_by_boto3(s3, bucket)


@pytest.mark.parametrize("region", ["us-west-2", "eu-central-1"])
def test_an_access_point_has_its_own_host_and_region(region: str) -> None:
    # Given
    s3 = client(None, region)
    bucket = "arn:aws:s3:us-west-2:123456789012:accesspoint/exports"

    # When
    ours, theirs = both(s3, bucket, "a b/é.csv", 60, MOMENT)

    # Then
    assert ours == theirs


def test_a_hook_that_changes_the_request_is_obeyed() -> None:
    # Given
    s3 = _session.client(
        "s3",
        region_name="us-east-1",
        aws_access_key_id="a",
        aws_secret_access_key="b",
        config=Config(signature_version="s3v4"),
    )

    def add(request: Any, **_: Any) -> None:
        request.headers["x-amz-request-payer"] = "requester"

    s3.meta.events.register("before-sign.s3.GetObject", add)

    # When
    ours, theirs = both(s3, "exports", "a.csv", 60, MOMENT)

    # Then
    assert ours == theirs
    assert "x-amz-request-payer" in ours


def test_two_links_of_one_bucket_in_different_seconds_differ() -> None:
    # Given
    s3 = client()

    # When
    one, _ = both(s3, "exports", "a.csv", 60, MOMENT)
    other, _ = both(s3, "exports", "a.csv", 60, MOMENT + timedelta(seconds=1))

    # Then
    assert one != other
    assert parse_qs(urlsplit(other).query)["X-Amz-Date"] == ["20260302T091505Z"]


def test_a_new_day_and_new_credentials_are_signed_with_keys_of_their_own() -> None:
    # Given
    now = [datetime.now(UTC)]

    def refreshed() -> dict[str, str]:
        return {
            "access_key": "AK2",
            "secret_key": "secret of AK2",
            "token": "token of AK2",
            "expiry_time": (now[0] + timedelta(hours=1)).isoformat(),
        }

    session = botocore_session.Session()
    session._credentials = RefreshableCredentials(  # type: ignore[attr-defined]
        "AK1",
        "secret of AK1",
        "token of AK1",
        now[0] + timedelta(hours=1),
        refreshed,
        "test",
        time_fetcher=lambda: now[0],
        advisory_timeout=0,
        mandatory_timeout=0,
    )
    s3 = boto3.session.Session(botocore_session=session).client(
        "s3", region_name="us-east-1", config=Config(signature_version="s3v4")
    )

    # When
    before = both(s3, "exports", "a.csv", 60, MOMENT)
    tomorrow = both(s3, "exports", "a.csv", 60, MOMENT + timedelta(days=1))
    now[0] += timedelta(hours=2)
    after = both(s3, "exports", "a.csv", 60, MOMENT)

    # Then
    assert before[0] == before[1]
    assert tomorrow[0] == tomorrow[1]
    assert after[0] == after[1]
    assert "AK1" in before[0]
    assert "AK2" in after[0]
    assert not is_signed_by_boto3(s3, "exports")


def test_a_key_that_boto3_refuses_is_refused() -> None:
    # Given
    s3 = client()

    # When, Then
    with pytest.raises(ParamValidationError):
        presigning.url(s3, "exports", "", 60)


def test_without_credentials_there_is_no_link(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3 = boto3.session.Session().client("s3", region_name="us-east-1")

    # When, Then
    with pytest.raises(NoCredentialsError):
        presigning.url(s3, "exports", "a.csv", 60)
