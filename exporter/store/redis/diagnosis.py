"""Names the cause and the remedy when Redis does not answer or refuses a command, for operators."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Sequence
from typing import Any, NamedTuple

import redis
from redis.exceptions import NoPermissionError

from exporter.store.redis import errors
from exporter.store.redis.probe import Refusal

_PEEK_SECONDS = 1.0
"""Timeout of the attempt to find out whether a port speaks TLS."""
_MAX_NAMED_COMMANDS = 6
"""Maximum number of commands that a text names."""
NEEDED_RULES = (
    "+@read +@write +@scripting +@transaction +@connection +select +time +info +config|get"
)
"""Everything that the service needs, in the words of ACL SETUSER.

SELECT is a command of connections since Redis 7.
"""
_FORBIDDEN = "NOPERM|ACL failure|executing the script can't|permission|EXEC without MULTI"
"""Pattern of the answers to a user whose ACL is too narrow, in all versions of Redis."""


class Diagnosis(NamedTuple):
    """Cause and remedy, each a phrase without a full stop; the text names no secret."""

    text: str
    remedy: str
    is_permanent: bool = False
    """True if only an operator can correct the cause, so that waiting does not help."""

    def __str__(self) -> str:
        return f"{self.text}: {self.remedy}"


_CLUSTER = Diagnosis(
    "this is a Redis Cluster, whose slots can move, and the service has no client for that",
    "give the address of a Redis with cluster-enabled no",
    is_permanent=True,
)
_SENTINEL = Diagnosis(
    "this is a Redis Sentinel, which keeps no data",
    "give the address of the primary",
    is_permanent=True,
)
_PASSWORD = Diagnosis(
    "Redis rejects the user or password", "correct them in the URL", is_permanent=True
)
_ANSWERS: Sequence[tuple[str, Diagnosis]] = (
    ("WRONGPASS|invalid username-password|invalid password", _PASSWORD),
    (
        "NOAUTH|HELLO must be called with",
        Diagnosis(
            "Redis requires a password",
            "add it to the URL, as in redis://:PASSWORD@HOST:PORT/0",
            is_permanent=True,
        ),
    ),
    ("CLUSTERDOWN|MOVED|ASK |CROSSSLOT|not allowed in cluster mode|non local key", _CLUSTER),
    ("READONLY", Diagnosis("this Redis is a replica", "give the address of the primary")),
    ("OOM", Diagnosis("this Redis is full", "raise maxmemory, or wait until records expire")),
    ("MISCONF", Diagnosis("this Redis cannot write its files", "free disk space")),
    (
        "NOREPLICAS",
        Diagnosis(
            "this Redis takes no writes because it has too few replicas",
            "start the replicas, or lower min-replicas-to-write",
        ),
    ),
    ("LOADING", Diagnosis("this Redis is still loading its data", "retry in a few seconds")),
    (
        "MASTERDOWN",
        Diagnosis(
            "this Redis is a replica that has lost its primary", "give the address of the primary"
        ),
    ),
    (
        "BUSY|UNKILLABLE",
        Diagnosis(
            "this Redis is busy with a script",
            "retry, or end the script with redis-cli SCRIPT KILL",
        ),
    ),
    (
        "max number of clients",
        Diagnosis("this Redis has as many clients as it allows", "raise maxclients"),
    ),
    (
        "DENIED",
        Diagnosis(
            "this Redis is in protected mode and takes no clients from other machines",
            "give it a password and add that to the URL",
            is_permanent=True,
        ),
    ),
)
"""Diagnoses by a pattern in the answer of Redis; the first that matches counts."""


def diagnose(error: redis.RedisError, client: redis.Redis) -> Diagnosis:
    """Returns the cause of an error of this client."""
    text = errors.with_code(error)
    answered = _by_answer(text)
    if answered is not None:
        return answered
    where = address(client)
    if re.search("DB index is out of range|invalid DB index", text):
        number = client.connection_pool.connection_kwargs.get("db")
        return Diagnosis(
            f"the Redis at {where} has no database {number}",
            "give a lower number, as in redis://HOST:PORT/0 (records and broker may share one), or"
            " raise `databases` in redis.conf",
            is_permanent=True,
        )
    if isinstance(error, NoPermissionError) or "NOPERM" in text:
        command = re.search(r"the '([\w|]+)' command", text)
        return _lacking([Refusal(command[1] if command else "", text)], client)
    if isinstance(error, redis.InvalidResponse):
        return Diagnosis(f"{where} is no Redis", "give the address of a Redis", is_permanent=True)
    if isinstance(error, redis.ConnectionError | redis.TimeoutError):
        return _unreachable(text, client, where)
    return Diagnosis(
        f"{where} answers {short(text)!r}", "use Redis 6.2 or later", is_permanent=True
    )


def explain(refusals: Sequence[Refusal], client: redis.Redis) -> Diagnosis | None:
    """Returns the cause of refused commands; None if there are none.

    A cause that only an operator can correct is named before the others.
    """
    if not refusals:
        return None
    unknown = [one for one in refusals if _by_answer(one.error) is None]
    if unknown and "DB index" in unknown[0].error:
        return diagnose(redis.ResponseError(unknown[0].error), client)
    lacking = [one for one in unknown if _is_permission(one.error)]
    if lacking:
        return _lacking(lacking, client)
    if unknown:
        commands = _names(unknown)
        return Diagnosis(
            f"this server refuses {commands} ({short(unknown[0].error)})",
            "use Redis 6.2 or later, or Valkey",
            is_permanent=True,
        )
    return _by_answer(refusals[0].error)


def short(answer: str) -> str:
    """Returns the answer of Redis without the command's arguments and the place in a script."""
    return re.split(r",? with args beginning| script:", answer)[0]


def unsupported(mode: str) -> Diagnosis | None:
    """Returns why a server of this `redis_mode` cannot be used; None if it can."""
    return {"cluster": _CLUSTER, "sentinel": _SENTINEL}.get(mode)


def address(client: redis.Redis) -> str:
    """Returns the host and port of a client, without its password."""
    known = client.connection_pool.connection_kwargs
    return f"{known.get('host', 'localhost')}:{known.get('port', 6379)}"


def _by_answer(text: str) -> Diagnosis | None:
    return next((found for pattern, found in _ANSWERS if re.search(pattern, text)), None)


def _is_permission(text: str) -> bool:
    return re.search(_FORBIDDEN, text) is not None


def _names(refusals: Sequence[Refusal]) -> str:
    commands = list(dict.fromkeys(one.command for one in refusals))
    named = ", ".join(commands[:_MAX_NAMED_COMMANDS])
    more = len(commands) - _MAX_NAMED_COMMANDS
    return f"{named} and {more} more" if more > 0 else named


def _lacking(refusals: Sequence[Refusal], client: redis.Redis) -> Diagnosis:
    """Returns the diagnosis of a user whose ACL is too narrow."""
    user = client.connection_pool.connection_kwargs.get("username") or "default"
    if all(re.search(r"\bkeys?\b", one.error) for one in refusals):
        return Diagnosis(
            f"the Redis user {user!r} may not use all keys of the service",
            f"run ACL SETUSER {user} ~{{exporter}}:* (in the braces what EXPORTER_REDIS_PREFIX is)",
            is_permanent=True,
        )
    commands = list(dict.fromkeys(one.command for one in refusals))
    granted = " ".join(f"+{command.lower()}" for command in commands)
    if len(commands) > _MAX_NAMED_COMMANDS or "EVALSHA" in commands:
        granted = NEEDED_RULES
    return Diagnosis(
        f"the Redis user {user!r} may not run {_names(refusals)}",
        f"run ACL SETUSER {user} {granted}",
        is_permanent=True,
    )


def _unreachable(text: str, client: redis.Redis, where: str) -> Diagnosis:
    is_tls = issubclass(client.connection_pool.connection_class, redis.SSLConnection)
    if re.search("(Hostname|IP address) mismatch", text):
        return Diagnosis(
            f"the TLS certificate of {where} is for another host",
            "write its host name in the URL, or add ssl_check_hostname=false to it",
            is_permanent=True,
        )
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return Diagnosis(
            "the certificate of Redis is not trusted",
            "add ssl_ca_certs=/PATH/CA.pem to the URL",
            is_permanent=True,
        )
    if re.search(r"Error -[0-9]+ connecting|getaddrinfo|not known|resolution", text):
        return Diagnosis(f"the host name of {where} is unknown", "correct the host")
    if "refused" in text:
        return Diagnosis(
            f"{where} refuses connections", "start Redis there, or correct the address"
        )
    speaks_tls = _speaks_tls(client)
    if is_tls and speaks_tls is False:
        return Diagnosis(
            f"{where} speaks no TLS", "write redis:// instead of rediss://", is_permanent=True
        )
    if not is_tls and speaks_tls:
        return Diagnosis(
            f"{where} speaks TLS", "write rediss:// instead of redis://", is_permanent=True
        )
    if speaks_tls is None and re.search("closed|reset", text):
        return Diagnosis(f"{where} closes the connection", "give the address of a Redis")
    return Diagnosis(f"{where} does not answer", "check the address and the firewalls")


def _speaks_tls(client: redis.Redis) -> bool | None:
    """True if the server makes a TLS handshake, False if it answers plain Redis, else None."""
    known = client.connection_pool.connection_kwargs
    place = known.get("host", "localhost"), int(known.get("port", 6379))
    try:
        with socket.create_connection(place, _PEEK_SECONDS) as plain:
            plain.sendall(b"PING\r\n")
            if plain.recv(1)[:1] in (b"+", b"-"):
                return False
    except OSError:
        pass
    context: Any = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # only to learn whether TLS is spoken; nothing is sent
    try:
        with (
            socket.create_connection(place, _PEEK_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=place[0]),
        ):
            return True
    except OSError:
        return None
