"""The guard as an operator sets it: what else is open, in networks of one's own."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from exporter.webhooks.addresses import LOOKUP_SECONDS, ForbiddenAddress, Guard, Network, Target

_USUAL_PORTS = (443, 8443)
_ALL_PORTS = range(1, 65_536)


@dataclass(frozen=True)
class OperatorGuard(Guard):
    """Lets plain http and unusual ports out to the allowed networks only.

    `http_anywhere` lifts the first of these: plain http, at its usual port, to the internet too.
    """

    http_anywhere: bool = False

    def resolve(self, target: Target, within: float = LOOKUP_SECONDS) -> tuple[str, ...]:
        found = super().resolve(target, within)
        is_usual = target.scheme == "https" and target.port in _USUAL_PORTS
        is_plain = target.scheme == "http" and target.port in (80, *_USUAL_PORTS)
        if is_usual or (is_plain and self.http_anywhere) or all(map(self._is_own, found)):
            return found
        raise ForbiddenAddress(
            f"{target.origin} is no https:// at port 443 or 8443: anything else is open in the "
            "networks of EXPORTER_WEBHOOK_ALLOW_PRIVATE only"
        )

    def _is_own(self, text: str) -> bool:
        address = ip_address(text)
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return any(address in network for network in self.allowed_networks)


def guard(allowed_networks: Collection[Network], *, allow_http: bool) -> OperatorGuard:
    """The guard for webhooks, when they are registered and when they are sent."""
    return OperatorGuard(
        allow_http=allow_http or bool(allowed_networks),
        ports=_ALL_PORTS if allowed_networks else _USUAL_PORTS,
        allowed_networks=tuple(allowed_networks),
        http_anywhere=allow_http,
    )
