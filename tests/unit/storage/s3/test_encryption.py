"""The setting for the encryption of objects, and what boto3 is given for it."""

from __future__ import annotations

import pytest

from exporter.storage.s3.encryption import Encryption, parse

ARN = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab"


@pytest.mark.parametrize(
    ("text", "meant", "arguments"),
    [
        ("AES256", Encryption("AES256"), {"ServerSideEncryption": "AES256"}),
        ("aes256", Encryption("AES256"), {"ServerSideEncryption": "AES256"}),
        ("aws:kms", Encryption("aws:kms"), {"ServerSideEncryption": "aws:kms"}),
        (
            f"aws:kms:{ARN}",
            Encryption("aws:kms", ARN),
            {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": ARN},
        ),
        (
            "aws:kms:alias/files",
            Encryption("aws:kms", "alias/files"),
            {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "alias/files"},
        ),
        ("aws:kms:dsse", Encryption("aws:kms:dsse"), {"ServerSideEncryption": "aws:kms:dsse"}),
        (
            "aws:kms:dsse:k",
            Encryption("aws:kms:dsse", "k"),
            {"ServerSideEncryption": "aws:kms:dsse", "SSEKMSKeyId": "k"},
        ),
    ],
)
def test_an_encryption_is_read_and_given_to_boto3(
    text: str, meant: Encryption, arguments: dict[str, str]
) -> None:
    # When
    found = parse(text)

    # Then
    assert found == meant
    assert found.arguments == arguments
    assert parse(str(found)) == found


@pytest.mark.parametrize(
    "text", ["", "true", "AES128", "AES256:key", "aws:kms:", "kms", "aws:kms:a b", "aws:kms:\u00e9"]
)
def test_another_form_is_refused_with_its_value_and_the_right_forms(text: str) -> None:
    # When, Then
    with pytest.raises(ValueError, match=r"write AES256, aws:kms .*aws:kms:KEY") as caught:
        parse(text)
    assert repr(text) in str(caught.value)
