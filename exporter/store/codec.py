"""Values as bytes: what is stored must never fail for a text that an upstream sent."""

from __future__ import annotations

from typing import Any

import msgspec


def encode(value: Any) -> bytes:
    r"""The value as JSON, whatever texts it holds.

    Half a surrogate pair, which UTF-8 cannot carry, is written out as its escape.

    >>> encode({"title": "caf\u00e9 \ud83e"}).decode()
    '{"title":"café \\\\ud83e"}'
    """
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(_clean(msgspec.to_builtins(value)))


def clean(text: str) -> str:
    r"""The text with each half of a surrogate pair written out as its escape.

    >>> clean("caf\u00e9 \ud83e")
    'café \\ud83e'
    """
    return text.encode("utf-8", "backslashreplace").decode()


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {_clean(name): _clean(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(one) for one in value]
    return value
