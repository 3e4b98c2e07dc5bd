"""Address guard: decides to which URLs and IP addresses webhooks may be sent (against SSRF).

By default, webhooks are sent only to addresses of the internet. A user who registers a webhook
makes this service send a request from inside its own network. The check therefore covers exactly
the addresses that are connected to: a name is looked up once, and the caller connects only to the
addresses that passed the check.
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
"""Function from a name and a port to IP addresses as text. Raises OSError if there are none."""

MAX_URL_CHARS = 2_000
"""Longest URL of a webhook."""
LOOKUP_TIMEOUT_SECONDS = 5.0
"""Default timeout of one name look-up."""
MAX_CONCURRENT_LOOKUPS = 16
"""Most name look-ups that run at once in this process.

The system's resolver cannot be interrupted: without this limit, a name server that does not answer
would block one more thread for each webhook.
"""

DENIED_NETWORKS: tuple[tuple[Network, str], ...] = tuple(
    (ip_network(network), what)
    for network, what in (
        ("0.0.0.0/8", "this network"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "behind a provider's NAT"),
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "platform services of a cloud"),
        ("169.254.0.0/16", "link-local, including the metadata services of clouds"),
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
        ("::/96", "unspecified, loopback, or IPv4-compatible"),
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
        # Only 2000::/3 is assigned to the internet. The rest contains further forms of IPv4
        # addresses, such as ::ffff:0:127.0.0.1, and routes inside the local network.
        ("::/3", "not assigned to the internet"),
        ("4000::/2", "not assigned to the internet"),
        ("8000::/1", "not assigned to the internet"),
    )
)
"""Networks that webhooks are not sent to unless the operator allows them, with a description.

Error texts name the first network that contains the address. An IPv4-mapped address is checked as
the IPv4 address that it contains. Python's `is_global` is not sufficient: it is true for multicast,
6to4, NAT64 and the reserved part of IPv6.
"""

INTERNAL_NAMES = (
    "localhost", "localdomain", "local", "internal", "intranet", "private", "corp", "home", "lan",
    "home.arpa",
)  # fmt: skip
"""Names and domain suffixes that never belong to a host of the internet.

From RFC 6761, RFC 6762 appendix G and RFC 8375; `internal` is reserved by ICANN.
"""

_URL = re.compile(r"([^:/?#@]*)://([^/?#]*)([^#]*)(#.*)?")
_AUTHORITY = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([0-9]{1,5}))?")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_DEFAULT_PORTS = {"http": 80, "https": 443}

_lookups = threading.BoundedSemaphore(MAX_CONCURRENT_LOOKUPS)


class ForbiddenAddress(ExporterError):
    """Webhooks must not be sent to this URL or address.

    The error text contains the host and the rule, but never a path, a query or a password.
    """


class NameUnresolved(ExporterError):
    """The host name has no address now, or the name server did not answer in time."""


@dataclass(frozen=True, slots=True)
class Target:
    """The components of a URL that the address guard permits, so that it is parsed only once."""

    scheme: str
    host: str
    """Name or IP address without brackets, in ASCII and lower case."""
    port: int
    path: str = field(repr=False)
    """Path and query. Never part of a log or error text: many receivers put a secret there."""

    @property
    def authority(self) -> str:
        """Value of the Host header; it has no port if the port is the default of the scheme."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """Scheme, host and port: the part of the URL that logs and error texts may contain."""
        return f"{self.scheme}://{self.authority}"


def look_up(host: str, port: int) -> Sequence[str]:
    """Returns the addresses that the system's resolver finds for a name."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


@dataclass(frozen=True)
class Guard:
    """Permits webhooks only to addresses of the internet and of the allowed networks.

    `allowed_networks` are exempt from DENIED_NETWORKS; an IPv4 address that is embedded in an IPv6
    address is still checked separately. If there are allowed networks, INTERNAL_NAMES are not
    refused but checked by their addresses, because hosts of a private network have such names.
    """

    allow_http: bool = False
    """True if `http://` is permitted, and with it port 80."""
    ports: Collection[int] = (443, 8443)
    """Permitted ports; may be a `range`.

    Other ports are closed because their services speak other protocols, and some of them would
    execute parts of an HTTP request as commands.
    """
    allowed_networks: Collection[Network] = ()
    resolver: Resolver = look_up

    def check(self, url: str) -> Target:
        """Returns the components of the URL if it is permitted, without looking up the host's name.

        Raises ForbiddenAddress, with the rule, if the URL is not permitted or is malformed.
        """
        if len(url) > MAX_URL_CHARS:
            raise ForbiddenAddress(
                f"the URL has {len(url)} characters: the maximum is {MAX_URL_CHARS}"
            )
        # URL parsers treat these characters differently: some remove them, some stop there, some
        # read a backslash as a slash.
        forbidden = re.search(r"[\x00-\x20\x7f\\]", url)
        if forbidden:
            raise ForbiddenAddress(
                f"the URL has {forbidden[0]!r} at position {forbidden.start()}: percent-encode or "
                "remove it"
            )
        found = _URL.fullmatch(url)
        if found is None:
            raise ForbiddenAddress("this is not a URL: write https://HOST/PATH")
        scheme, authority, path = found[1].lower(), found[2], found[3]
        _, at, place = authority.rpartition("@")
        written, port = self._host_and_port(scheme, place)
        if at:
            raise ForbiddenAddress(
                f"the URL of {_quote(written)} has a user name or password before its host: remove "
                "them; receivers authenticate webhooks by their signature"
            )
        host = self._host(written)
        if found[4] is not None:
            raise ForbiddenAddress(f"the URL of {host} ends with a #fragment: remove it")
        if not path.isascii():
            raise ForbiddenAddress(
                f"the path or query of {host} has non-ASCII characters: percent-encode them"
            )
        return Target(scheme, host, port, path if path.startswith("/") else f"/{path}")

    def resolve(self, target: Target, within: float = LOOKUP_TIMEOUT_SECONDS) -> tuple[str, ...]:
        """Returns the IP addresses of the target after checking each; connect only to these.

        The name is looked up once. If one of its addresses is refused, all are: otherwise chance,
        or the operator of the name server, would decide which address is used. Raises
        ForbiddenAddress for a refused address, and NameUnresolved if the name has no address or the
        look-up takes more than `within` seconds.
        """
        literal = _parse_address(target.host)
        addresses = [literal] if literal else self._resolve_name(target, within)
        for address in addresses:
            self._check_address(address, target.host)
        return tuple(dict.fromkeys(map(str, addresses)))

    def _host_and_port(self, scheme: str, place: str) -> tuple[str, int]:
        """Splits the part of a URL between `//` and the path into host (as written) and port.

        Raises ForbiddenAddress if there is no host, or if the scheme or the port is not permitted.
        """
        found = _AUTHORITY.fullmatch(place)
        if found is None or not found[1]:
            raise ForbiddenAddress(f"{_quote(place)} is not a host with an optional port")
        host = found[1]
        if scheme not in (("https", "http") if self.allow_http else ("https",)):
            raise ForbiddenAddress(
                f"webhooks go to https:// only{', or http://' * self.allow_http}; the URL of "
                f"{_quote(host)} begins with {_quote(scheme)}"
            )
        port = int(found[2]) if found[2] else _DEFAULT_PORTS[scheme]
        if port not in self.ports and (scheme, port) != ("http", 80):
            open_ports = self.ports if isinstance(self.ports, range) else sorted(self.ports)
            raise ForbiddenAddress(
                f"port {port} of {_quote(host)} is closed to webhooks; use one of "
                f"{', '.join(map(str, open_ports[:20]))}"
            )
        return host, port

    def _host(self, written: str) -> str:
        """Converts a host as written in a URL to the form that is looked up (ASCII, lower case).

        Raises ForbiddenAddress for internal names, refused addresses, and IPv4 addresses in a form
        that parsers read differently.
        """
        if written.startswith("["):
            address = _parse_address(written[1:-1])
            if not isinstance(address, IPv6Address) or address.scope_id is not None:
                raise ForbiddenAddress(
                    f"{_quote(written)} is not an IPv6 address, or has a zone: give one without it"
                )
            self._check_address(address, written)
            return str(address)
        host = _to_ascii(written)
        labels = host.split(".")
        if _NUMBER.fullmatch(labels[-1]):
            address = _parse_address(host)
            if address is None:
                raise ForbiddenAddress(
                    f"{_quote(written)} is an IPv4 address in an ambiguous form (127.1, 0177.0.0.1 "
                    "and 2130706433 may all mean 127.0.0.1): write four decimal numbers"
                )
            self._check_address(address, written)
            return host
        if self.allowed_networks:
            return host
        if len(labels) == 1 or f".{host}".endswith(tuple(f".{name}" for name in INTERNAL_NAMES)):
            raise ForbiddenAddress(
                f"{_quote(written)} is a name of an internal network: webhooks are sent only to "
                "hosts of the internet"
            )
        return host

    def _resolve_name(self, target: Target, within: float) -> list[Address]:
        result = _call_resolver(self.resolver, target.host, target.port, within)
        if not result:
            raise NameUnresolved(
                f"{target.host} has no address: check the name and its DNS records"
            )
        found = [(text, _parse_address(text)) for text in result]
        for text, address in found:
            if address is None:
                raise ForbiddenAddress(
                    f"{target.host} resolves to {_quote(text)}, which is not an IP address"
                )
        return [address for _, address in found if address]

    def _check_address(self, address: Address, host: str) -> None:
        for layer in _with_embedded_ipv4(address):
            if any(layer in network for network in self.allowed_networks):
                continue
            for network, what in DENIED_NETWORKS:
                if layer in network:
                    raise ForbiddenAddress(
                        f"{_quote(host)} leads to an address in {network} ({what}), where webhooks "
                        "are not sent; the operator can allow networks with "
                        "EXPORTER_WEBHOOK_ALLOW_PRIVATE"
                    )


def _call_resolver(resolver: Resolver, host: str, port: int, within: float) -> Sequence[str]:
    """Returns the addresses that the resolver finds for a host within `within` seconds.

    Raises NameUnresolved if the look-up fails or takes longer. A look-up that takes longer
    continues in its thread, and its result is ignored.
    """
    answer: Future[Sequence[str]] = Future()

    def call() -> None:
        try:
            answer.set_result(resolver(host, port))
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            answer.set_exception(error)
        finally:
            _lookups.release()

    deadline = time.monotonic() + within
    if not _lookups.acquire(timeout=max(within, 0)):
        raise NameUnresolved(
            f"{host} was not looked up within {within:.0f} s: {MAX_CONCURRENT_LOOKUPS} other "
            "look-ups are still waiting, so the name server may be down"
        )
    try:
        # Not a thread pool: the process could not exit before the threads of the pool end.
        threading.Thread(target=call, name="webhook-lookup", daemon=True).start()
    except RuntimeError as error:
        _lookups.release()
        raise NameUnresolved(f"{host} cannot be looked up: {error}") from None
    try:
        return answer.result(timeout=max(deadline - time.monotonic(), 0))
    except TimeoutError:
        raise NameUnresolved(
            f"{host} was not looked up within {within:.0f} s: the name server did not answer"
        ) from None
    except (OSError, UnicodeError) as error:
        raise NameUnresolved(f"{host} cannot be looked up: {error}") from None


def _parse_address(text: str) -> Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _with_embedded_ipv4(address: Address) -> Iterator[Address]:
    """Yields the address and the IPv4 addresses in it, to which gateways would translate it.

    For an IPv4-mapped IPv6 address, only the IPv4 address is yielded.
    """
    if isinstance(address, IPv4Address):
        yield address
        return
    if address.ipv4_mapped:
        # Only another notation of the IPv4 address: the operating system translates it.
        yield address.ipv4_mapped
        return
    yield address
    if address.sixtofour:
        yield address.sixtofour
    if address.teredo:
        yield from address.teredo
    embeds_ipv4 = int(address) >> 32 in (0, 0x64FF9B << 64) and int(address) > 1
    if embeds_ipv4:
        yield IPv4Address(int(address) & 0xFFFF_FFFF)


def _to_ascii(written: str) -> str:
    """Returns a host name in ASCII (IDNA) and lower case.

    Raises ForbiddenAddress if the text is not a host name.
    """
    try:
        # UTS 46 maps full-width digits and circled letters to ASCII, and removes soft hyphens.
        host = written if written.isascii() else idna.encode(written, uts46=True).decode("ascii")
    except idna.IDNAError as error:
        raise ForbiddenAddress(f"{_quote(written)} is not a host name: {error}") from None
    host = host.lower()
    if len(host) > 253 or not all(map(_LABEL.fullmatch, host.split("."))):
        raise ForbiddenAddress(
            f"{_quote(written)} is not a host name: write labels of letters, digits and hyphens, "
            "separated by single dots, without a dot at the end"
        )
    return host


def _quote(text: str) -> str:
    return repr(text if len(text) <= 100 else f"{text[:100]}…")
