"""Clients of boto3 for one store: its address, its region, timeouts, and where the bucket goes."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ProfileNotFound

from exporter.environment import proxies
from exporter.environment.urls import shown
from exporter.errors import ConfigurationError
from exporter.storage.base import check_guard
from exporter.storage.s3.limits import Addressing

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

DEFAULT_REGION = "us-east-1"
"""Region if neither the settings nor the AWS configuration name one."""
_AWS = re.compile(r"https?://s3[.-][a-z0-9.-]*amazonaws\.com(\.cn)?")
CONNECT_TIMEOUT_SECONDS = 3.0
_FILES = ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
READ_TIMEOUT_SECONDS = 20.0
"""Time without a byte of the answer after which a request counts as failed."""


def connect(endpoint_url: str | None, region: str | None, addressing: Addressing) -> S3Client:
    """Returns a client that calls the guard of `storage.base.guarded` before each request.

    With None, endpoint and region come from the AWS configuration: AWS_ENDPOINT_URL_S3,
    AWS_ENDPOINT_URL, AWS_DEFAULT_REGION, or the profile.
    """
    # A new session, because making clients from the default one is not thread-safe.
    session = boto3.session.Session()
    region = region or session.region_name or DEFAULT_REGION
    client = _make(session, endpoint_url, region, addressing)
    proxy = proxies.find(client.meta.endpoint_url)
    if proxy is not None:
        client = _make(session, endpoint_url, region, addressing, proxy.url)
    config: Any = client.meta.config
    at_aws = endpoint_url is None and _AWS.fullmatch(client.meta.endpoint_url)
    if at_aws and "addressing_style" not in config.s3:
        # boto3 signs links for one host of all regions then, from which new buckets redirect.
        client = _make(session, endpoint_url, region, "virtual", proxy.url if proxy else None)
    client.meta.events.register("before-send.s3", _call_guard)
    client.meta.events.register("before-call.s3.HeadBucket", _follow_no_redirect)
    return client


def check_keys() -> None:
    """Raises ConfigurationError if only one of the two variables of an access key is set."""
    names = _KEYS[:2]
    given = [name for name in names if os.environ.get(name)]
    if len(given) == 1:
        (missing,) = set(names) - set(given)
        raise ConfigurationError(
            f"{given[0]} is set without {missing}: set both, or neither for a profile or role"
        )


def explain(
    error: Exception, endpoint_url: str | None, region: str | None, addressing: Addressing
) -> str:
    """Returns why `connect` failed: the variable of AWS without which it would not have failed."""
    if isinstance(error, ProfileNotFound):
        name = os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE")
        return (
            f"AWS_PROFILE: no profile {shown(name)} in the files of the AWS configuration: correct "
            "it, or leave it out"
        )
    names = {name for name in os.environ if name.startswith("AWS_")}
    # Without the keys, boto3 would look for others in the network.
    for name in sorted(names.difference(_FILES, _KEYS)):
        value = os.environ.pop(name)
        try:
            connect(endpoint_url, region, addressing)
        except (BotoCoreError, ValueError):
            continue
        else:
            return f"{name}: {shown(value)} is not a value that boto3 takes: correct or remove it"
        finally:
            os.environ[name] = value
    return (
        f"The address of the object store is wrong: {error}. Correct EXPORTER_S3_ENDPOINT_URL and "
        "EXPORTER_S3_REGION, or what replaces them: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, "
        "AWS_DEFAULT_REGION, the AWS profile."
    )


def _make(
    session: boto3.session.Session,
    endpoint_url: str | None,
    region: str,
    addressing: Addressing,
    proxy: str | None = None,
) -> S3Client:
    return session.client(
        "s3",
        endpoint_url=endpoint_url,
        region_name=region,
        config=Config(
            # One try: retries of boto3 would ignore the injected clock and extend the retry time.
            retries={"mode": "standard", "total_max_attempts": 1},
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            read_timeout=READ_TIMEOUT_SECONDS,
            max_pool_connections=32,
            tcp_keepalive=True,
            # Without this, botocore asks the proxy of the environment for this machine, too.
            proxies={} if proxy is None else {"http": proxy, "https": proxy},
            # Stores other than AWS refuse or ignore the checksums that boto3 adds by default.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            signature_version="s3v4",
            s3={
                # boto3 merges its own configuration with what is given here.
                **({} if addressing == "auto" else {"addressing_style": addressing}),
                # The checksum or MD5 of a part is signed and covers the body. A SHA-256 as well
                # would double the cost of an upload.
                "payload_signing_enabled": False,
            },
        ),
    )


def is_virtual(client: S3Client) -> bool:
    """True if the settings or the AWS configuration ask for virtual-hosted addresses."""
    config: Any = client.meta.config
    return (config.s3 or {}).get("addressing_style") == "virtual"


def _call_guard(**_: Any) -> None:
    check_guard()


def _follow_no_redirect(context: dict[str, Any], **_: Any) -> None:
    # botocore asks HeadBucket for the region when an answer redirects without naming one. A server
    # that redirects everything, such as a login page, would redirect that request as well: botocore
    # then asked again until the recursion limit.
    context["s3_redirect"]["redirected"] = True
