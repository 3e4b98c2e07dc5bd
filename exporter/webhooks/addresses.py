"""The address guard: which URLs webhooks may be sent to, and which addresses stand behind them.

Whoever registers a webhook makes this service send a request from inside its network. What is
checked here is therefore what is connected to: a name is looked up once, and the caller connects
to the addresses that came out of the check.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

import idna

from exporter.errors import ExporterError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolver = Callable[[str, int], Sequence[str]]
"""From a name and a port to IP addresses as text. Raises OSError if there are none."""

LONGEST_URL = 2_000
"""Characters."""
LOOKUP_SECONDS = 5.0
MOST_LOOKUPS = 16
"""Names looked up at once by this process. The system's resolver cannot be interrupted: without a
bound, a name server that says nothing would collect a thread for each webhook."""

DENIED: tuple[tuple[Network, str], ...] = tuple(
    (ip_network(network), what)
    for network, what in (
        ("0.0.0.0/8", "this network"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "behind a provider's NAT"),
        ("127.0.0.0/8", "this machine itself"),
        ("168.63.129.16/32", "what a cloud tells its virtual machines"),
        ("169.254.0.0/16", "link-local, with what clouds tell their virtual machines"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "protocol assignments"),
        ("192.0.2.0/24", "documentation"),
        ("192.88.99.0/24", "6to4 relays"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "benchmarks"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("255.255.255.255/32", "broadcast"),
        ("240.0.0.0/4", "reserved"),
        ("::/96", "unspecified, this machine itself, or IPv4 in an old disguise"),
        ("64:ff9b::/96", "IPv4 behind NAT64"),
        ("64:ff9b:1::/48", "IPv4 behind a local NAT64"),
        ("100::/64", "discarded"),
        ("2001::/32", "Teredo"),
        ("2001::/23", "protocol assignments"),
        ("2001:db8::/32", "documentation"),
        ("2002::/16", "6to4"),
        ("3fff::/20", "documentation"),
        ("5f00::/16", "segment routing"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
        # Only 2000::/3 is given out for the internet. The rest holds further disguises of IPv4,
        # such as ::ffff:0:127.0.0.1, and routes of one's own network.
        ("::/3", "outside of the internet's addresses"),
        ("4000::/2", "outside of the internet's addresses"),
        ("8000::/1", "outside of the internet's addresses"),
    )
)
"""Networks that no webhook is sent to, unless the operator allows them; the first that holds an
address is named. IPv4-mapped addresses are judged by the IPv4 address in them. Python's own
`is_global` calls multicast, 6to4, NAT64 and the reserved part of IPv6 global."""

INTERNAL_NAMES = (
    "localhost", "localdomain", "local", "internal", "intranet", "private", "corp", "home", "lan",
    "home.arpa",
)  # fmt: skip
"""Names and endings that never belong to a host of the internet (RFC 6761, 6762 appendix G,
8375; ICANN reserved `internal`)."""

_URL = re.compile(r"([^:/?#@]*)://([^/?#]*)([^#]*)(#.*)?")
_AUTHORITY = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([0-9]{1,5}))?")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_DEFAULT_PORTS = {"http": 80, "https": 443}

_lookups = threading.BoundedSemaphore(MOST_LOOKUPS)


class ForbiddenAddress(ExporterError):
    """Webhooks are not sent there; the text names host and rule, never path, query or password."""


class NameUnresolved(ExporterError):
    """The host's name has no address now, or none was told in time."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that passed the guard, in pieces: nobody needs to parse it a second time."""

    scheme: str
    host: str
    """In ASCII and lower case: a name, or an IP address without brackets."""
    port: int
    path: str = field(repr=False)
    """With the query. Left out of texts: many receivers put their secret there."""

    @property
    def authority(self) -> str:
        """What the Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """The part of the URL that may stand in texts."""
        return f"{self.scheme}://{self.authority}"


def look_up(host: str, port: int) -> Sequence[str]:
    """What the system's resolver knows."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


@dataclass(frozen=True)
class Guard:
    """Lets no webhook out to an address that is not of the internet or of an allowed network.

    `allowed_networks` lifts DENIED for these networks only; an IPv4 address inside an IPv6 one is
    still judged by itself. While there are any, internal names are judged by their addresses, as
    all others are: a private network is of little use without its names.
    """

    allow_http: bool = False
    """Also `http://`, and then port 80."""
    ports: Collection[int] = (443, 8443)
    """A `range` will do. Others are closed because they speak other protocols, which can be made
    to understand what is sent to them."""
    allowed_networks: Collection[Network] = ()
    resolver: Resolver = look_up

    def check(self, url: str) -> Target:
        """The URL's pieces, if webhooks may be sent there as far as can be told without asking
        for the host's addresses. Raises ForbiddenAddress."""
        if len(url) > LONGEST_URL:
            raise ForbiddenAddress(
                f"a URL of {len(url)} characters is too long: give one of {LONGEST_URL} at most"
            )
        # Readers of URLs differ in what they make of these: some leave them out, some stop there,
        # some take a backslash for a slash.
        strange = re.search(r"[\x00-\x20\x7f\\]", url)
        if strange:
            raise ForbiddenAddress(
                f"the URL has {strange[0]!r} at position {strange.start()}, which no URL may have"
            )
        found = _URL.fullmatch(url)
        if found is None:
            raise ForbiddenAddress("that is no URL: write https://HOST/PATH")
        scheme, authority, path = found[1].lower(), found[2], found[3]
        _, at, place = authority.rpartition("@")
        written, port = self._place(scheme, place)
        if at:
            raise ForbiddenAddress(
                f"the URL of {_cut(written)} has a user name or password before its host: leave "
                "them out, webhooks prove themselves by their signature"
            )
        host = self._host(written)
        if found[4] is not None:
            raise ForbiddenAddress(f"the URL of {host} ends with a #fragment: leave it out")
        if not path.isascii():
            raise ForbiddenAddress(
                f"the path or query of {host} has characters beyond ASCII: percent-encode them"
            )
        return Target(scheme, host, port, path if path.startswith("/") else f"/{path}")

    def resolve(self, target: Target, within: float = LOOKUP_SECONDS) -> tuple[str, ...]:
        """The addresses that the target's webhook may be sent to, each of them checked.

        The name is looked up once; connect to what this gives and nothing else. One refused
        address refuses the name: which of them is used would be left to chance, or to whoever
        runs its name server. Raises ForbiddenAddress, or NameUnresolved after `within` seconds.
        """
        literal = _parsed(target.host)
        addresses = [literal] if literal else self._looked_up(target, within)
        for address in addresses:
            self._demand(address, target.host)
        return tuple(dict.fromkeys(map(str, addresses)))

    def _place(self, scheme: str, place: str) -> tuple[str, int]:
        """Host as it is written, and port."""
        found = _AUTHORITY.fullmatch(place)
        if found is None or not found[1]:
            raise ForbiddenAddress(f"{_cut(place)} is no host with an optional port")
        host = found[1]
        if scheme not in (("https", "http") if self.allow_http else ("https",)):
            raise ForbiddenAddress(
                f"webhooks go to https:// only{', or http://' * self.allow_http}; the URL of "
                f"{_cut(host)} begins with {_cut(scheme)}"
            )
        port = int(found[2]) if found[2] else _DEFAULT_PORTS[scheme]
        if port not in self.ports and (scheme, port) != ("http", 80):
            open_ports = self.ports if isinstance(self.ports, range) else sorted(self.ports)
            raise ForbiddenAddress(
                f"port {port} of {_cut(host)} is closed to webhooks; open are "
                f"{', '.join(map(str, open_ports[:20]))}"
            )
        return host, port

    def _host(self, written: str) -> str:
        """The host as it is looked up. Raises ForbiddenAddress for internal names, refused
        addresses, and addresses in a form that not all readers agree on."""
        if written.startswith("["):
            address = _parsed(written[1:-1])
            if not isinstance(address, IPv6Address) or address.scope_id is not None:
                raise ForbiddenAddress(f"{_cut(written)} is no IPv6 address without a zone")
            self._demand(address, written)
            return str(address)
        host = _ascii(written)
        labels = host.split(".")
        if _NUMBER.fullmatch(labels[-1]):
            address = _parsed(host)
            if address is None:
                raise ForbiddenAddress(
                    f"{_cut(written)} is an address in a form that readers differ about (127.1, "
                    "0177.0.0.1 and 2130706433 may all be 127.0.0.1): write four decimal numbers"
                )
            self._demand(address, written)
            return host
        if self.allowed_networks:
            return host
        if len(labels) == 1 or f".{host}".endswith(tuple(f".{name}" for name in INTERNAL_NAMES)):
            raise ForbiddenAddress(
                f"{_cut(written)} is a name of an internal network, and webhooks go to hosts of "
                "the internet"
            )
        return host

    def _looked_up(self, target: Target, within: float) -> list[Address]:
        told = _in_time(self.resolver, target.host, target.port, within)
        if not told:
            raise NameUnresolved(f"{target.host} has no address: its name server knows none")
        found = [(text, _parsed(text)) for text in told]
        for text, address in found:
            if address is None:
                raise ForbiddenAddress(
                    f"{target.host} leads to {_cut(text)}, which is no IP address"
                )
        return [address for _, address in found if address]

    def _demand(self, address: Address, host: str) -> None:
        for layer in _layers(address):
            if any(layer in network for network in self.allowed_networks):
                continue
            for network, what in DENIED:
                if layer in network:
                    raise ForbiddenAddress(
                        f"{_cut(host)} leads into {network} ({what}), where webhooks are not sent; "
                        "the operator can allow networks with EXPORTER_WEBHOOK_ALLOW_PRIVATE"
                    )


def _in_time(resolver: Resolver, host: str, port: int, within: float) -> Sequence[str]:
    """What the resolver tells within that many seconds; after that, nobody listens to it."""
    told: Future[Sequence[str]] = Future()

    def ask() -> None:
        try:
            told.set_result(resolver(host, port))
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            told.set_exception(error)
        finally:
            _lookups.release()

    deadline = time.monotonic() + within
    if not _lookups.acquire(timeout=max(within, 0)):
        raise NameUnresolved(
            f"{host} was not looked up within {within:.0f} s: {MOST_LOOKUPS} names wait for an "
            "answer already, so the name server may be down"
        )
    try:
        # No pool: its threads would have to end before this process may.
        threading.Thread(target=ask, name="webhook-lookup", daemon=True).start()
    except RuntimeError as error:
        _lookups.release()
        raise NameUnresolved(f"{host} cannot be looked up: {error}") from None
    try:
        return told.result(timeout=max(deadline - time.monotonic(), 0))
    except TimeoutError:
        raise NameUnresolved(f"no name server told of {host} within {within:.0f} s") from None
    except (OSError, UnicodeError) as error:
        raise NameUnresolved(f"{host} cannot be looked up: {error}") from None


def _parsed(text: str) -> Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _layers(address: Address) -> Iterator[Address]:
    """The address, and the IPv4 addresses that a gateway on the way would make of it."""
    if isinstance(address, IPv4Address):
        yield address
        return
    if address.ipv4_mapped:
        # Only a way to write the IPv4 address: the machine itself unwraps it.
        yield address.ipv4_mapped
        return
    yield address
    if address.sixtofour:
        yield address.sixtofour
    if address.teredo:
        yield from address.teredo
    in_the_end = int(address) >> 32 in (0, 0x64FF9B << 64) and int(address) > 1
    if in_the_end:
        yield IPv4Address(int(address) & 0xFFFF_FFFF)


def _ascii(written: str) -> str:
    """The host as name servers know it, in lower case."""
    try:
        # Full-width digits, circled letters and soft hyphens become what they stand for.
        host = written if written.isascii() else idna.encode(written, uts46=True).decode("ascii")
    except idna.IDNAError as error:
        raise ForbiddenAddress(f"{_cut(written)} is no host name: {error}") from None
    host = host.lower()
    if len(host) > 253 or not all(map(_LABEL.fullmatch, host.split("."))):
        raise ForbiddenAddress(
            f"{_cut(written)} is no host name: write labels of letters, digits and hyphens with "
            "single dots between them and none at the end"
        )
    return host


def _cut(text: str) -> str:
    return repr(text if len(text) <= 100 else f"{text[:100]}…")
