"""Tests of the address on which a server is to listen."""

from __future__ import annotations

import pytest

from exporter.environment.hosts import check_host
from exporter.errors import ConfigurationError


@pytest.mark.external
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "::1"])
def test_an_address_of_this_machine_is_accepted(host: str) -> None:
    check_host(host)


@pytest.mark.external
@pytest.mark.parametrize(
    "host", ["203.0.113.5", "[::1]", "h.invalid", "http://127.0.0.1", "a" * 70]
)
def test_another_host_is_refused_with_its_option(host: str) -> None:
    with pytest.raises(ConfigurationError, match=r"--host .* is not an address of this machine"):
        check_host(host)
