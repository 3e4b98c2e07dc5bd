"""JSON encoding that accepts every text an upstream can send, including lone surrogates."""

from __future__ import annotations

from typing import Any

import msgspec


def encode(value: Any) -> bytes:
    r"""Returns the value as JSON; accepts every text, so no text makes it fail.

    UTF-8 cannot encode a lone surrogate, so it is replaced by the six characters of its escape.

    >>> encode({"title": "caf\u00e9 \ud83e"}).decode()
    '{"title":"café \\\\ud83e"}'
    """
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(_clean(msgspec.to_builtins(value)))


def clean(text: str) -> str:
    r"""Returns the text with each lone surrogate replaced by the six characters of its escape.

    >>> clean("caf\u00e9 \ud83e")
    'café \\ud83e'
    """
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {_clean(name): _clean(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(one) for one in value]
    return value
