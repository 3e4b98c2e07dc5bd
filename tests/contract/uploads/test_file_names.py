"""Contract of the headers of an upload: every name of a file arrives."""

from __future__ import annotations

import pytest

from exporter.storage.base import FileHeaders
from tests.contract.uploads.given import UploadBench


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ('a "b".csv', "attachment; filename=\"a _b_.csv\"; filename*=UTF-8''a%20%22b%22.csv"),
        (
            "çalışanlar 100%.csv",
            'attachment; filename="_al__anlar 100_.csv"; '
            "filename*=UTF-8''%C3%A7al%C4%B1%C5%9Fanlar%20100%25.csv",
        ),
        ("a\r\nSet-Cookie: b=c", 'attachment; filename="a__Set-Cookie: b=c"'),
        ("../../etc\\passwd\x00", 'attachment; filename=".._.._etc_passwd_"'),
        ("\ud800.csv", 'attachment; filename="_.csv"'),
    ],
    ids=["quotes", "unicode", "line breaks", "folders", "lone surrogate"],
)
def test_any_file_name_arrives_and_none_adds_a_header(
    bench: UploadBench, name: str, expected: str
) -> None:
    # Given
    key = bench.prefix + "a.csv"
    upload_id = bench.storage.begin(key, FileHeaders("text/csv", name))
    part = bench.storage.put_part(key, upload_id, 1, b"a")
    bench.storage.complete(key, upload_id, [part])

    # When
    status, headers, _ = bench.get(bench.storage.presign(key, 60))

    # Then
    assert status == 200
    assert headers["content-disposition"] == expected
    assert "set-cookie" not in headers
