"""Values of settings and of the TOML file: durations, rates, networks, counts and sizes."""

from __future__ import annotations

import re
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, ByteSize, Field

from exporter.core.rates import Rate

MAX_DURATION = timedelta(days=3650)
"""Longest duration of a setting; times that much later can still be computed everywhere."""
MAX_COUNT = 10**12
"""Largest count of a setting, far above every sensible one; Redis computes with it exactly."""
MAX_BYTES = 1024**5
"""Largest size of a setting, 1 PiB."""
MAX_RATE_WINDOW_SECONDS = 7 * 86400
"""Longest time window of a rate: an export that waits longer for a page reaches its deadline."""
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([smhd]?)\s*", re.ASCII)
_KEY_PREFIX = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _seconds(value: object) -> object:
    """Parses a duration such as `90`, `90s`, `15m`, `24h` or `7d`."""
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value)
    if match is None:
        raise ValueError(f"{value!r} is not a duration: write 90, 90s, 15m, 24h or 7d")
    try:
        return timedelta(seconds=float(match[1]) * _UNITS[match[2] or "s"])
    except OverflowError:
        raise ValueError(f"{value!r} is too long: write a shorter duration") from None


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError("a duration must be longer than 0")
    if value > MAX_DURATION:
        raise ValueError(f"{value.days}d is too long: write {MAX_DURATION.days}d or less")
    return value


Duration = Annotated[timedelta, BeforeValidator(_seconds), AfterValidator(_positive)]


def parse_networks(value: object) -> object:
    """Parses networks such as `10.1.0.0/16, fd00::/8`; a single address means a network of one."""
    if not isinstance(value, str):
        return value
    try:
        return tuple(ip_network(text.strip()) for text in value.split(",") if text.strip())
    except ValueError as error:  # its text names the part that is wrong
        raise ValueError(f"{error}: write networks like 10.1.0.0/16, fd00::/8") from None


def check_key_prefix(value: str) -> str:
    """Returns the prefix of keys in Redis. Raises ValueError for one that cannot be a hash tag."""
    if not _KEY_PREFIX.fullmatch(value):
        raise ValueError(f"{value[:80]!r} is no prefix: write 1 to 64 letters, digits or - _ . :")
    return value


def _check_size(value: object) -> object:
    """Refuses what pydantic would read up to the first wrong character, such as `1,5GiB`."""
    if isinstance(value, str) and not re.fullmatch(r"\d+(\.\d+)?\s*[A-Za-z]*", value, re.ASCII):
        raise ValueError(
            f"{value!r} is not a size: write a number of bytes, or a size such as 8MiB"
        )
    return value


Network = IPv4Network | IPv6Network


def parse_rate(value: object) -> object:
    """Parses a rate such as `100/60s`, `5/s` or `1000/h`."""
    if isinstance(value, Rate):
        return value
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a rate: write 100/60s, 5/s or 1000/h")  # noqa: TRY004
    count, _, window = (text.strip() for text in value.partition("/"))
    match = _DURATION.fullmatch(f"1{window}" if window in _UNITS else window)
    requests = int(count) if re.fullmatch(r"[0-9]{1,9}", count) else 0
    seconds = float(match[1]) * _UNITS[match[2] or "s"] if match else 0.0
    if not requests or not 0 < seconds <= MAX_RATE_WINDOW_SECONDS:
        raise ValueError(f"{value!r} is not a rate: write 100/60s, 5/s or 1000/h")
    return Rate(requests, seconds)


Count = Annotated[int, Field(le=MAX_COUNT)]
Size = Annotated[ByteSize, BeforeValidator(_check_size), Field(ge=0, le=MAX_BYTES)]
