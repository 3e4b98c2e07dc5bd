"""Runs, on keys of its own, the commands that the service and Celery send to Redis.

A Redis may refuse some of them: by the ACL of its user, because it is a replica, full or read-only,
or because it is an older version or another server with the protocol of Redis.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import uuid4

import redis

from exporter.store.redis import calls, errors, script_loader
from exporter.store.redis.keys import KeyNames

RECORD_COMMANDS = """
    SET {text} 1
    SETNX {text} 1
    INCRBY {text} 1
    DECRBY {text} 1
    EXPIRE {text} 60
    PEXPIRE {text} 60000
    PEXPIREAT {text} 99999999999999
    PTTL {text}
    PERSIST {text}
    GET {text}
    TYPE {text}
    EXISTS {text}
    HSET {hash} f 1
    HSETNX {hash} f 1
    HINCRBY {hash} f 1
    HGET {hash} f
    HMGET {hash} f
    HGETALL {hash}
    HVALS {hash}
    HEXISTS {hash} f
    HSTRLEN {hash} f
    HDEL {hash} f
    ZADD {zset} 1 m
    ZCARD {zset}
    ZCOUNT {zset} 0 1
    ZSCORE {zset} m
    ZRANGE {zset} 0 0
    ZREVRANGE {zset} 0 0
    ZRANGEBYSCORE {zset} 0 1
    ZREVRANGEBYSCORE {zset} 1 0
    ZREM {zset} m
    ZREMRANGEBYSCORE {zset} 0 1
    LPUSH {list} 1
    RPUSH {list} 1
    LLEN {list}
    LINDEX {list} 0
    LRANGE {list} 0 1
    LTRIM {list} 0 1
    LPOP {list}
    RPOP {list}
    SADD {set} m
    SCARD {set}
    SMEMBERS {set}
    SREM {set} m
    TIME
    DEL {text} {hash} {zset} {list} {set}
"""
"""Commands of the scripts and stores. The first one needs memory, so a full Redis refuses it."""

BROKER_COMMANDS = """
    LPUSH {queue} 1
    LLEN {queue}
    LPUSH {webhook_queue} 1
    LLEN {webhook_queue}
    SADD {binding} m
    SMEMBERS {binding}
    ZADD {unacked_index} 1 {tag}
    ZRANGE {unacked_index} 1 0 BYSCORE REV LIMIT 0 1 WITHSCORES
    ZREM {unacked_index} {tag}
    HSET {unacked} {tag} 1
    HGET {unacked} {tag}
    HDEL {unacked} {tag}
    SET {mutex} 1 NX PX 60000
    GET {mutex}
    EXISTS {queue}
    DEL {queue} {webhook_queue} {binding} {mutex}
"""
"""Commands of Celery's transport on its keys."""
QUEUES: Mapping[str, str] = {"queue": "exporter", "webhook_queue": "webhooks"}
"""Celery's queues, whose keys have a priority after this separator."""
_SEPARATOR = "\x06\x16"


class Refusal(NamedTuple):
    """A command that Redis refused, and the text of Redis with its code, such as `NOPERM …`."""

    command: str
    error: str


def probe_records(client: redis.Redis, names: KeyNames) -> Sequence[Refusal]:
    """Runs the commands of the record store, and returns those that were refused.

    Raises RedisError if Redis does not answer.
    """
    word = str(uuid4())
    kinds = ("text", "hash", "zset", "list", "set")
    keys = {kind: names("probe", word, kind) for kind in kinds}
    return [
        *_run(client, RECORD_COMMANDS, keys),
        *_transact(client, keys["text"]),
        *_attempt("BRPOP", lambda: client.brpop([keys["list"]], timeout=0.01)),
        *_attempt("BLPOP", lambda: client.blpop([keys["list"]], timeout=0.01)),
    ]


def probe_broker(client: redis.Redis, names: KeyNames) -> Sequence[Refusal]:
    """Runs the commands of Celery's transport, and returns those that were refused.

    Raises RedisError if Redis does not answer.
    """
    word = f"probe-{uuid4()}"
    keys = {
        **{kind: names(f"{queue}{_SEPARATOR}{word}") for kind, queue in QUEUES.items()},
        "binding": names(f"_kombu.binding.{word}"),
        "unacked": names("unacked"),
        "unacked_index": names("unacked_index"),
        "mutex": names(f"unacked_mutex_{word}"),
    }
    return [
        *_attempt("PING", client.ping),
        *_run(client, BROKER_COMMANDS, {**keys, "tag": word}),
        *_transact(client, keys["queue"]),
        *_attempt("BRPOP", lambda: client.brpop([keys[kind] for kind in QUEUES], timeout=0.01)),
    ]


def _run(client: redis.Redis, text: str, words: Mapping[str, str]) -> Sequence[Refusal]:
    """Runs the commands of a text, after replacing each word in braces by a key or a value."""
    lines = [line.split() for line in text.strip().splitlines()]
    commands = [[word.format_map(words) for word in line] for line in lines]
    keys = [key for kind, key in words.items() if kind != "tag"]
    script = script_loader.load_standalone(client, "probe")
    answer: list[Any] = []
    call = script.call(json.dumps(commands), keys=keys)
    refused = _attempt("EVALSHA", lambda: answer.extend(calls.send(client, call)))
    return refused or [
        Refusal(commands[index - 1][0], error.decode(errors="replace"))
        for index, error in zip(answer[::2], answer[1::2], strict=True)
    ]


def _transact(client: redis.Redis, key: str) -> Sequence[Refusal]:
    with client.pipeline() as pipe:
        watch: Callable[[str], object] = pipe.watch
        refused = _attempt("WATCH", lambda: watch(key))
        if refused:
            return refused
        pipe.multi()
        pipe.exists(key)
        return _attempt("MULTI", pipe.execute)


def _attempt(command: str, call: Callable[[], object]) -> Sequence[Refusal]:
    try:
        call()
    except redis.ResponseError as error:
        text = errors.with_code(error)
        # The command that is refused may be one that precedes it, such as SELECT.
        named = re.search(r"the '([\w|]+)' command", text)
        return [Refusal(named[1].upper() if named else command, text)]
    return []
