"""Address guard with the operator's settings: plain http and all ports in allowed networks."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from exporter.webhooks.addresses import (
    LOOKUP_TIMEOUT_SECONDS,
    ForbiddenAddress,
    Guard,
    Network,
    Target,
)

_DEFAULT_PORTS = (443, 8443)
_ALL_PORTS = range(1, 65_536)


@dataclass(frozen=True)
class OperatorGuard(Guard):
    """Permits plain http and ports other than 443 and 8443 in the allowed networks only.

    With `http_anywhere`, plain http at port 80, 443 or 8443 is permitted to the internet as well.
    """

    http_anywhere: bool = False

    def resolve(self, target: Target, within: float = LOOKUP_TIMEOUT_SECONDS) -> tuple[str, ...]:
        found = super().resolve(target, within)
        is_default = target.scheme == "https" and target.port in _DEFAULT_PORTS
        is_plain = target.scheme == "http" and target.port in (80, *_DEFAULT_PORTS)
        if is_default or (is_plain and self.http_anywhere) or all(map(self._is_allowed, found)):
            return found
        raise ForbiddenAddress(
            f"{target.origin} is not https:// at port 443 or 8443: other schemes and ports are "
            "permitted only in the networks of EXPORTER_WEBHOOK_ALLOW_PRIVATE"
        )

    def _is_allowed(self, text: str) -> bool:
        address = ip_address(text)
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return any(address in network for network in self.allowed_networks)


def guard(allowed_networks: Collection[Network], *, allow_http: bool) -> OperatorGuard:
    """Returns the address guard used both when a webhook is registered and when it is sent.

    With `allow_http`, plain http is also permitted outside of the allowed networks.
    """
    return OperatorGuard(
        allow_http=allow_http or bool(allowed_networks),
        ports=_ALL_PORTS if allowed_networks else _DEFAULT_PORTS,
        allowed_networks=tuple(allowed_networks),
        http_anywhere=allow_http,
    )
