"""Encryption of objects by the store, as a bucket's policy may ask for it in each write."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

_FORM = re.compile(r"(AES256)|(aws:kms(?::dsse)?)(?::([\x21-\x7e]{1,2048}))?", re.ASCII)
_BY_LOWER_CASE = {"aes256": "AES256", "aws:kms": "aws:kms", "aws:kms:dsse": "aws:kms:dsse"}


class Encryption(NamedTuple):
    """Algorithm, and the key of a KMS with which the store encrypts an object."""

    algorithm: str
    key: str | None = None
    """Id, alias or ARN; None: the default key of the store or bucket."""

    def __str__(self) -> str:
        """Returns the form that `parse` reads."""
        return f"{self.algorithm}:{self.key}" if self.key else self.algorithm

    @property
    def arguments(self) -> Mapping[str, str]:
        """Arguments of boto3 for a request that begins an object."""
        key = {"SSEKMSKeyId": self.key} if self.key else {}
        return {"ServerSideEncryption": self.algorithm, **key}


def parse(text: str) -> Encryption:
    """Returns the encryption that a setting names; raises ValueError for another form.

    >>> parse("aws:kms:alias/files")
    Encryption(algorithm='aws:kms', key='alias/files')
    """
    found = _FORM.fullmatch(_BY_LOWER_CASE.get(text.lower(), text))
    if found is None:
        raise ValueError(
            f"{text!r} is no encryption: write AES256, aws:kms for the default key, or "
            "aws:kms:KEY with the id, alias or ARN of a key"
        )
    return Encryption(found[1] or found[2], found[3])
