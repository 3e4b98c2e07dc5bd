"""Bounds on how deeply JSON texts are nested, checked before a parser or encoder recurses."""

from __future__ import annotations

import re
from itertools import islice

MAX_TOKENS = 10_000
"""Strings and brackets that are read to name a field, which takes 10 ms."""
_STRING = rb'"(?:[^"\\]++|\\.)*+"?'
"""A JSON string, possibly cut off. Possessive, so that matching takes linear time."""
_strings = re.compile(_STRING, re.DOTALL)
_tokens = re.compile(_STRING + rb"|[\[\]{}]", re.DOTALL)
_AS_PARENTHESES = bytes.maketrans(b"[{]}", b"(())")
_NO_BRACKETS = bytes(set(range(256)).difference(b"[]{}"))


def is_deeper(text: bytes, levels: int) -> bool:
    """True if objects and lists are nested in the JSON text in more than so many levels.

    Takes time linear in the text and does not recurse. Malformed JSON gives either result.

    >>> is_deeper(b'{"a": [[], "[["]}', 3), is_deeper(b'{"a": [[], "[["]}', 2)
    (False, True)
    """
    if text.count(b"[") + text.count(b"{") <= levels:
        return False
    brackets = _strings.sub(b"", text).translate(_AS_PARENTHESES, _NO_BRACKETS)
    if b"(" * (levels + 1) + b")" in brackets:
        return True
    for _ in range(levels):
        before, brackets = brackets, brackets.replace(b"()", b"")  # the innermost level
        if brackets == before:
            break
    return b"()" in brackets


def first_deeper(text: bytes, levels: int) -> str:
    """Returns the name of the first field of the object that is nested deeper than `levels`.

    Empty if there is no such field among the first MAX_TOKENS strings and brackets.

    >>> first_deeper(b'{"a": [], "b": {"c": [[]]}}', 3)
    'b'
    """
    depth, name = 0, b""
    for match in islice(_tokens.finditer(text), MAX_TOKENS):
        token = match[0]
        if token[:1] == b'"':
            name = token if depth == 1 else name
        elif token in b"]}":
            depth -= 1
        else:
            depth += 1
            if depth > levels:
                return name.strip(b'"').decode("utf-8", "replace")
    return ""
