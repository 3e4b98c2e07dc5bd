"""Excerpts of upstream answers for error texts: one short printable line.

An excerpt contains no secret and no address, because users see the texts of errors.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

import httpx

from exporter.core import public_text

MAX_EXCERPT_CHARS = 300
"""Maximum length of the excerpt of an upstream's answer in an error text."""
_HIDDEN = "(the API key)"
_MAX_FORM_BYTES = 16
"""Maximum length of one character that is encoded as in a URL, JSON, HTML or Python."""


class Redactor:
    """Replaces secrets, such as the API key of the upstream, and addresses in texts.

    Some upstreams and proxies echo all headers of a request and its URL, and users see the texts of
    errors. `url` is the upstream's address.
    """

    def __init__(self, secrets: Iterable[str], url: httpx.URL) -> None:
        self._base_path = url.path.rstrip("/")
        # A name such as `api` in another case is an ordinary word.
        case = re.IGNORECASE if "." in url.host else 0
        self._host = re.compile(rf"(?<![\w.-]){re.escape(url.host)}(?::[0-9]+)?(?![\w-])", case)
        whole = {secret for secret in secrets if secret}
        packed = {base64.b64encode(secret.encode()).decode().rstrip("=") for secret in whole}
        # The longest first, because one secret may be the beginning of another.
        ordered = sorted(whole | packed, key=len, reverse=True)
        self._max_secret_bytes = _MAX_FORM_BYTES * len(ordered[0]) if ordered else 0
        self._secret = re.compile(
            "|".join("".join(map(_forms, secret)) for secret in ordered) or r"(?!)", re.IGNORECASE
        )

    def redact(self, text: str) -> str:
        """Returns the text with each secret replaced."""
        return self._secret.sub(_HIDDEN, text)

    def excerpt(self, body: bytes, path: str = "") -> str:
        """Returns the beginning of an answer, printable, without secrets and addresses.

        `path` is the path and query of the request, which many error pages repeat.
        """
        most = MAX_EXCERPT_CHARS * 4
        # Redacted before the text is cut, so that a secret across the cut is recognised.
        text = self.redact(body[: most + self._max_secret_bytes].decode("utf-8", "replace"))[:most]
        shown = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        shown = self._without_addresses(shown, path)
        if not shown:
            return "(an empty body)" if not body else "(nothing printable)"
        return shown[:MAX_EXCERPT_CHARS] + ("…" if len(shown) > MAX_EXCERPT_CHARS else "")

    def _without_addresses(self, text: str, path: str) -> str:
        text = public_text.without_addresses(text)
        for written in (path, path.partition("?")[0]):
            for whole in (self._base_path + written, written):
                if len(whole) > 1:
                    text = text.replace(whole, public_text.HIDDEN)
        return self._host.sub(public_text.HIDDEN, text)


def _forms(character: str) -> str:
    """Returns a regular expression that matches every known encoding of the character."""
    if character.isalnum() and character.isascii():
        return character
    number = ord(character)
    forms = {
        character,
        quote(character, safe=""),
        quote_plus(character),
        f"%{number:02x}",
        f"\\{character}",
        f"\\x{number:02x}",
        f"\\u{number:04x}",
        f"&#{number};",
        f"&#x{number:x};",
        html.escape(character),
    }
    return f"(?:{'|'.join(map(re.escape, sorted(forms, key=len, reverse=True)))})"
