"""What an operator opens for webhooks is open in the networks they named, and nowhere else."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from exporter.webhooks import private
from exporter.webhooks.addresses import ForbiddenAddress
from exporter.webhooks.private import OperatorGuard

OWN, OUTSIDE = "10.1.2.3", "93.184.215.14"


def guard(
    *addresses: str, networks: tuple[str, ...] = (), allow_http: bool = False
) -> OperatorGuard:
    made = private.guard([ip_network(one) for one in networks], allow_http=allow_http)
    return OperatorGuard(
        allow_http=made.allow_http,
        ports=made.ports,
        allowed_networks=made.allowed_networks,
        http_anywhere=made.http_anywhere,
        resolver=lambda _host, _port: addresses,
    )


def passes(guard: OperatorGuard, url: str) -> bool:
    try:
        guard.resolve(guard.check(url))
    except ForbiddenAddress:
        return False
    return True


@pytest.mark.parametrize(
    ("url", "is_open"),
    [
        ("https://example.com/", True),
        ("https://example.com:8443/", True),
        ("https://example.com:9000/", False),
        ("http://example.com/", False),
        ("https://10.1.2.3/", False),
    ],
)
def test_without_settings_https_to_the_internet_is_open(url: str, is_open: bool) -> None:
    # When / Then
    assert passes(guard(OUTSIDE), url) is is_open


@pytest.mark.parametrize(
    "url",
    [
        "http://inside.example.com/",
        "http://inside.example.com:9000/",
        "https://inside.example.com:9000/",
        "http://10.1.2.3:9000/",
        "http://receiver:9000/",
    ],
)
def test_in_an_allowed_network_plain_http_and_any_port_are_open(url: str) -> None:
    # When / Then
    assert passes(guard(OWN, networks=("10.1.0.0/16",)), url)
    assert passes(guard(f"::ffff:{OWN}", networks=("10.1.0.0/16",)), url)


@pytest.mark.parametrize(
    ("addresses", "url"),
    [
        ((OUTSIDE,), "http://example.com/"),
        ((OUTSIDE,), "https://example.com:9000/"),
        ((OWN, OUTSIDE), "http://example.com:9000/"),
        (("10.2.0.1",), "https://example.com/"),
        ((OWN,), "http://127.0.0.1:9000/"),
    ],
)
def test_an_allowed_network_opens_nothing_elsewhere(addresses: tuple[str, ...], url: str) -> None:
    # When / Then: not even for a name that leads to both
    assert not passes(guard(*addresses, networks=("10.1.0.0/16",)), url)


def test_plain_http_can_be_opened_to_the_internet_at_its_usual_port() -> None:
    # Given
    opened = guard(OUTSIDE, allow_http=True)
    # When / Then
    assert passes(opened, "http://example.com/")
    assert not passes(opened, "http://example.com:9000/")
    assert not passes(guard(OWN, allow_http=True), "http://inside.example.com/")
