"""Checks the URLs of settings. Errors show the wrong value, but never a password."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NoReturn
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit

import idna

MAX_SHOWN_CHARACTERS = 120
"""Length from which on the middle of a wrong value is left out of an error."""
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?", re.ASCII)
_PLAIN_ADDRESS = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9_.-]*(:[0-9]{1,5})?(/[A-Za-z0-9._/-]*)?", re.ASCII
)
_SECRET_PARAMETER = re.compile(r"(?i)([?&][^=&#]*(?:pass|pwd|secret|token|key|sig)[^=&#]*=)[^&#]*")

PROXY_EXAMPLE = "http://proxy.example.com:3128"
REDIS_EXAMPLE = "redis://HOST:PORT/DATABASE"
_TLS_FILES = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_password")
_TLS_OPTIONS = ("ssl_cert_reqs", "ssl_check_hostname", *_TLS_FILES)
"""Options of a rediss:// URL that redis-py and kombu understand in the same way."""
_CERTIFICATE_CHECKS = ("required", "optional", "none")
_BOOLEANS: Mapping[str, str] = {
    **dict.fromkeys(("true", "1", "yes", "on"), "true"),
    **dict.fromkeys(("false", "0", "no", "off"), "false"),
}
_MAX_DATABASE = 2**31 - 2
_NOT_REDIS: Mapping[str, str] = {
    "unix": "a socket file is not supported, because the broker needs a second database of it",
    "redis+socket": "a socket file is not supported",
    "sentinel": "Sentinel is not supported: give the address of the primary, or of a proxy to it",
    "redis+sentinel": "Sentinel is not supported: give the address of the primary",
    "redis-cluster": "Redis Cluster is not supported, because its slots can move",
}


def shown(value: object) -> str:
    """Returns the value as an error may show it: quoted, short, and without credentials."""
    if not isinstance(value, str):
        return repr(value)
    text = value
    if "@" in text:
        head, _, tail = text.rpartition("@")
        scheme = f"{head.partition('://')[0]}://" if "://" in head else ""
        # A password may contain "/", "?" or "#": then the end of the URL may be part of it.
        is_odd = any(mark in head.removeprefix(scheme) for mark in "/?#")
        text = f"{scheme}***" if is_odd else f"{scheme}***@{tail}"
    else:  # perhaps a password without the "@" that must follow it: no port is that long
        text = re.sub(r"^([^/]*://(?:[^/:?#]+:(?=[^/?#]{6})|:)).*", r"\1***", text, flags=re.DOTALL)
    text = _SECRET_PARAMETER.sub(r"\1***", text)
    if len(text) > MAX_SHOWN_CHARACTERS:
        text = f"{text[: MAX_SHOWN_CHARACTERS // 2]}…{text[-MAX_SHOWN_CHARACTERS // 4 :]}"
    return repr(text)


def http_url(value: str, *, example: str = "http://127.0.0.1:9000") -> str:
    """Returns an http or https URL without the slash at its end.

    A path is allowed. Raises ValueError, with `example`, for anything else.
    """
    url = _split(value, ("http", "https"), example)
    if "@" in url.netloc:
        _refuse(value, "has a user or a password, which would not be used", example)
    if "?" in value or "#" in value:
        _refuse(value, "has a query or a fragment, and paths are appended to it", example)
    return url.geturl().rstrip("/")


def store_url(value: str) -> str:
    """Returns the URL of an object store; raises ValueError for a URL that no S3 client takes."""
    url = http_url(value)
    if "_" in (urlsplit(url).hostname or ""):
        _refuse(
            value,
            "has an underscore in its host, which S3 clients refuse: give that host a name "
            "without one",
            "http://minio:9000",
        )
    return url


def is_address(host: str) -> bool:
    """True if the host of a URL is an IPv4 or IPv6 address and not a name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def proxy_url(value: str) -> str:
    """Returns the http or https URL of a proxy; without a scheme, http is meant.

    Raises ValueError for another kind of proxy, such as SOCKS.
    """
    url = _split(value if "://" in value else f"http://{value}", ("http", "https"), PROXY_EXAMPLE)
    if url.path.strip("/") or url.query or url.fragment:
        _refuse(value, "has something after its host and port", PROXY_EXAMPLE)
    return url._replace(path="").geturl()


def redis_url(value: str) -> str:
    """Returns the URL of a Redis in the one form that redis-py and kombu read alike.

    The database is in the path. A rediss:// URL says whether the certificate is verified; without
    a word about it, it is: kombu would take any certificate. Raises ValueError for a URL that
    cannot be one of a single Redis.
    """
    scheme = value.partition("://")[0].lower()
    if "://" in value and scheme in _NOT_REDIS:
        raise ValueError(f"{shown(value)}: {_NOT_REDIS[scheme]}: write {REDIS_EXAMPLE}")
    if re.match(r"[^?#]*[,;]", value.rpartition("@")[2]):
        _refuse(value, "names several servers, and one is needed", REDIS_EXAMPLE)
    url = _split(value, ("redis", "rediss"), REDIS_EXAMPLE)
    user, at, _ = url.netloc.rpartition("@")
    if at and ":" not in user:
        _refuse(
            value,
            "has a user without a password",
            "redis://USER:PASSWORD@HOST, or redis://:PASSWORD@HOST",
        )
    if url.fragment:
        _refuse(value, "has a fragment (#), which means nothing here", REDIS_EXAMPLE)
    options = _options(value, url)
    path = _database(value, url, options)
    if url.scheme == "rediss":
        _check_tls(value, options)
    return url._replace(path=path, query=urlencode(options, quote_via=quote)).geturl()


def _split(value: str, schemes: tuple[str, str], example: str) -> SplitResult:
    """Returns the parts of a URL that has one of the schemes, a host and no wrong port."""
    if any(one.isspace() or not one.isprintable() for one in value):
        _refuse(value, "has a blank, a line break or a control character", example)
    scheme, found, rest = value.partition("://")
    allowed = " or ".join(f"{one}://" for one in schemes)
    if not found:
        if "http" in schemes and _PLAIN_ADDRESS.fullmatch(value):
            example = f"http://{value}"
        _refuse(value, f"does not begin with {allowed}", example)
    if scheme.lower() not in schemes:
        _refuse(value, f"begins with {scheme.lower()!r}, not with {allowed}", example)
    if not rest.strip("/"):
        _refuse(value, "has no host", example)
    try:
        url = urlsplit(value)
    except ValueError:  # one bracket, or something else than an IPv6 address in two
        _refuse(
            value, "has a wrong IPv6 address: it needs brackets, as in http://[::1]:80", example
        )
    _check_port(value, url, example)
    _check_host(value, url, example)
    return url


def _check_port(value: str, url: SplitResult, example: str) -> None:
    place = url.netloc.rpartition("@")[2]
    if any(map(_is_ipv6, (place, place.rpartition(":")[0]))):
        brackets = f"{url.scheme}://[::1]:{'6379' if url.scheme.startswith('redis') else '9000'}"
        _refuse(value, f"has an IPv6 address without brackets: write it like {brackets}", example)
    try:
        port = url.port
    except ValueError:
        port = 0
    if port == 0 or place.endswith(":"):
        reason = "has no valid port after the last colon of its host: give one from 1 to 65535"
        if "@" in value and "@" not in url.netloc:
            reason = (
                "has a password with a character that must be escaped: write / as %2F, ? as %3F"
            )
        _refuse(value, reason, example)


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


def _check_host(value: str, url: SplitResult, example: str) -> None:
    host = url.hostname or ""
    if not host:
        _refuse(value, "has no host", example)
    if "[" in url.netloc.rpartition("@")[2]:
        try:
            IPv6Address(host)
        except ValueError:
            _refuse(value, "has no IPv6 address in its brackets", example)
        return
    if not host.isascii():
        try:
            ascii_host = idna.encode(host, uts46=True).decode()
        except idna.IDNAError:
            ascii_host = ""
        hint = f": write the host as {ascii_host}" if ascii_host else ""
        _refuse(value, f"has a host with letters outside of ASCII{hint}", example)
    if not _HOST.fullmatch(host) or len(host) > 253:
        _refuse(value, f"has the host {host!r}, which cannot be a name", example)
    if re.fullmatch(r"\d+\.\d+\.\d+\.\d+", host):
        try:
            IPv4Address(host)
        except ValueError:
            _refuse(value, f"has the host {host!r}, which is not an IPv4 address", example)


def _options(value: str, url: SplitResult) -> dict[str, str]:
    pairs = parse_qsl(url.query, keep_blank_values=True)
    options = dict(pairs)
    if len(options) < len(pairs):
        _refuse(value, "has an option twice after the ?", REDIS_EXAMPLE)
    allowed = ("db", *(_TLS_OPTIONS if url.scheme == "rediss" else ()))
    for name in options:
        if name in ("username", "password"):
            _refuse(value, f"has {name!r} after the ?", "redis://USER:PASSWORD@HOST")
        if name in _TLS_OPTIONS and url.scheme == "redis":
            _refuse(value, f"has {name!r}, but no TLS", "rediss://HOST:PORT/DATABASE")
        if name not in allowed:
            _refuse(
                value,
                f"has {name!r} after the ?, which is none of {', '.join(allowed)}",
                REDIS_EXAMPLE,
            )
    return options


def _database(value: str, url: SplitResult, options: dict[str, str]) -> str:
    """Returns the path of the database; takes `db` out of the options."""
    given = [one for one in (url.path.strip("/"), options.pop("db", "")) if one]
    if len(given) > 1:
        _refuse(value, "names a database in its path and another as db", REDIS_EXAMPLE)
    if not given:
        return ""
    if not re.fullmatch(r"[0-9]{1,10}", given[0], re.ASCII) or int(given[0]) > _MAX_DATABASE:
        _refuse(value, f"has the database {given[0]!r}, which is not a number", REDIS_EXAMPLE)
    return f"/{int(given[0])}"


def _check_tls(value: str, options: dict[str, str]) -> None:
    checks = options.get("ssl_cert_reqs", "required").lower().removeprefix("cert_")
    if checks not in _CERTIFICATE_CHECKS:
        allowed = ", ".join(_CERTIFICATE_CHECKS)
        _refuse(value, f"has an ssl_cert_reqs that is none of {allowed}", "ssl_cert_reqs=required")
    options["ssl_cert_reqs"] = checks
    if "ssl_check_hostname" in options:
        said = _BOOLEANS.get(options["ssl_check_hostname"].lower())
        if said is None:
            _refuse(value, "has an ssl_check_hostname that is neither true nor false", "true")
        options["ssl_check_hostname"] = said
    files = {name: options[name] for name in _TLS_FILES if name in options}
    if "ssl_keyfile" in files and "ssl_certfile" not in files:
        _refuse(value, "has ssl_keyfile without ssl_certfile", "ssl_certfile=…&ssl_keyfile=…")
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if "ssl_ca_certs" in files or "ssl_ca_path" in files:
            context.load_verify_locations(files.get("ssl_ca_certs"), files.get("ssl_ca_path"))
        if "ssl_certfile" in files:
            context.load_cert_chain(
                files["ssl_certfile"],
                files.get("ssl_keyfile"),
                lambda: files.get("ssl_password", ""),
            )
    except (OSError, ValueError) as error:
        named = ", ".join(name for name in files if name != "ssl_password")
        unreadable = not isinstance(error, ssl.SSLError) and getattr(error, "strerror", None)
        reason = unreadable or "it has no certificate or key, or its password is wrong"
        _refuse(
            value,
            f"names a file in {named} that cannot be used: {reason}",
            "rediss://HOST:PORT/DATABASE?ssl_ca_certs=/etc/ssl/redis-ca.pem",
        )


def _refuse(value: str, reason: str, example: str) -> NoReturn:
    quotes = " Leave out the quotation marks." if value[:1] in "\"'" else ""
    raise ValueError(
        f"{shown(value)} {reason}: write it like {example}{'.' + quotes if quotes else ''}"
    )
