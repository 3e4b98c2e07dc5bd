"""Tests of answers in other encodings than UTF-8."""

from __future__ import annotations

import codecs
import json
import logging
from typing import Any

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.core.exports import Outcome
from exporter.sources.bindbee import BindbeeConfig, BindbeeSource
from exporter.sources.hirebase import HirebaseConfig, HirebaseSource
from exporter.sources.http import charsets
from exporter.sources.http.charsets import Converted, UnknownCharset
from tests import fast
from tests.harness import Bench
from tests.upstreams import reply, serving

TEXT = '{"title":"Köchin für 2 €"}'
UTF8 = TEXT.encode()
JSON = "application/json"

CONVERTED: dict[str, tuple[bytes, str]] = {
    "windows-1252": (TEXT.encode("cp1252"), f"{JSON}; charset=windows-1252"),
    "in quotes": (TEXT.encode("cp1252"), f'{JSON}; Charset = "CP1252"; x=y'),
    "ISO-8859-15": (TEXT.encode("iso8859-15"), f"{JSON};charset=ISO-8859-15"),
    "UTF-16 with a BOM": (TEXT.encode("utf-16"), JSON),
    "UTF-16 with a BOM and a charset": (TEXT.encode("utf-16"), f"{JSON}; charset=utf-16"),
    "UTF-16 declared as UTF-8": (TEXT.encode("utf-16"), f"{JSON}; charset=utf-8"),
    "UTF-16 of the other order": (codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"), JSON),
    "UTF-16 without a BOM": (TEXT.encode("utf-16-le"), f"{JSON}; charset=UTF-16"),
    "UTF-16 in the other order": (TEXT.encode("utf-16-be"), f"{JSON}; charset=UTF-16LE"),
    "UTF-32": (TEXT.encode("utf-32"), JSON),
    "UTF-32 without a BOM": (TEXT.encode("utf-32-be"), f"{JSON}; charset=utf-32"),
    "EBCDIC": (TEXT.encode("cp1140"), f"{JSON}; charset=cp1140"),
    "GB 18030": (TEXT.encode("gb18030"), f"{JSON}; charset=gb18030"),
}


@pytest.mark.parametrize(("body", "content_type"), CONVERTED.values(), ids=CONVERTED)
def test_a_body_in_another_encoding_is_converted_to_utf8(body: bytes, content_type: str) -> None:
    # When
    found = charsets.to_utf8(body, content_type)
    # Then
    assert found == UTF8
    assert isinstance(found, Converted)


UNCHANGED: dict[str, tuple[bytes, str]] = {
    "no charset": (UTF8, JSON),
    "no content type": (UTF8, ""),
    "UTF-8": (UTF8, f"{JSON}; charset=utf-8"),
    "a charset that is not used": (UTF8, f"{JSON}; charset=ISO-8859-1"),
    "UTF-16 that is not used": (UTF8, f"{JSON}; charset=utf-16"),
    "an unknown charset that is not used": (UTF8, f"{JSON}; charset=utf8mb4"),
    "ASCII": (b"{}", f"{JSON}; charset=windows-1252"),
    "nothing": (b"", f"{JSON}; charset=windows-1252"),
    "Latin-1 without a charset": (TEXT.encode("cp1252"), JSON),
    "Latin-1 declared as UTF-8": (TEXT.encode("cp1252"), f"{JSON}; charset=utf-8"),
    "a name that only ends in charset": (TEXT.encode("cp1252"), f"{JSON}; xcharset=latin-1"),
}


@pytest.mark.parametrize(("body", "content_type"), UNCHANGED.values(), ids=UNCHANGED)
def test_a_body_that_is_utf8_or_declares_nothing_else_stays_as_it_is(
    body: bytes, content_type: str
) -> None:
    # When
    found = charsets.to_utf8(body, content_type)
    # Then
    assert found == body
    assert not isinstance(found, Converted)


def test_the_bom_of_utf8_is_removed_and_nothing_else() -> None:
    # When / Then
    assert charsets.to_utf8(codecs.BOM_UTF8 + UTF8, f"{JSON}; charset=latin-1") == UTF8


@pytest.mark.parametrize(
    "name", ["foo", "hex", "base64", "rot13", "unicode_escape", "utf-7", "idna", "\0", "9" * 999]
)
def test_a_charset_that_is_not_one_of_texts_is_named(name: str) -> None:
    # When
    with pytest.raises(UnknownCharset) as error:
        charsets.to_utf8(TEXT.encode("cp1252"), f"{JSON}; charset={name}")
    # Then
    assert str(error.value) == name


def test_escape_sequences_of_a_charset_in_ascii_are_read() -> None:
    # Given
    body = '{"title":"料理人"}'
    # When
    found = charsets.to_utf8(body.encode("iso-2022-jp"), f"{JSON}; charset=iso-2022-jp")
    # Then
    assert found.decode() == body


@given(
    body=st.binary(max_size=60) | st.text(max_size=30).map(lambda text: text.encode("utf-16")),
    charset=st.sampled_from(
        ["latin-1", "cp1252", "shift_jis", "utf-16", "utf-32", "gb18030", "euc-jp", "big5", "utf-8"]
    ),
)
@settings(max_examples=fast.examples(40), deadline=None)
def test_no_bytes_break_the_conversion(body: bytes, charset: str) -> None:
    # When
    found = charsets.to_utf8(body, f"{JSON}; charset={charset}")
    # Then
    found.decode("utf-8", "surrogateescape")


def jobs(count: int) -> Any:
    return {"jobs": [{"_id": f"j{n}", "title": "Köchin"} for n in range(count)], "total_count": 2}


@pytest.mark.external
@pytest.mark.parametrize(
    ("charset", "converted", "replaced"),
    [("iso-8859-1", 2, 0), ("utf-8", 0, 2), ("foo", 0, 2)],
)
def test_converted_rows_are_counted_and_those_that_cannot_be_say_so(
    charset: str, converted: int, replaced: int
) -> None:
    # Given
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    pages = [json.dumps(jobs(count), ensure_ascii=False).encode("latin-1") for count in (2, 0)]
    replies = [reply(200, page, content_type=f"{JSON}; charset={charset}") for page in pages]
    bench = Bench([], format="csv")
    with serving(*replies) as upstream, structlog.testing.capture_logs() as logs:
        bench.source = HirebaseSource(
            HirebaseConfig(base_url=upstream.url, page_size=2), bench.clock
        )
        # When
        bench.run()
        bench.source.close()
    # Then
    result = bench.export.result
    assert result is not None
    assert result.completeness.outcome is Outcome.COMPLETE
    counts = result.row_counts
    assert (counts.converted_rows, counts.replaced_characters) == (converted, replaced)
    assert bench.file().decode().count("Köchin") == converted
    odd = [log["charset"] for log in logs if log["event"] == "source.charset_unknown"]
    assert odd == (["foo"] if charset == "foo" else [])


@pytest.mark.external
@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_bytes_that_the_charset_does_not_have_are_replaced_and_counted(encoding: str) -> None:
    # Given: 0x81 is no character of windows-1252; a lone surrogate none of UTF-16
    spoiled = "\x81".encode("latin-1") if encoding == "cp1252" else b"\x00\xdc"
    page = json.dumps(
        {"cursor": None, "page_size": 1, "items": [{"id": "1", "name": "Kö?"}]}, ensure_ascii=False
    ).encode(encoding)
    page = page.replace("?".encode(encoding.replace("16", "16-le")), spoiled)
    bench = Bench([], format="json")
    with serving(reply(200, page, content_type=f"{JSON}; charset={encoding}")) as upstream:
        config = BindbeeConfig(base_url=upstream.url, connector_token="t", page_size=2)
        bench.source = BindbeeSource(config, bench.clock)
        # When
        bench.run()
        bench.source.close()
    # Then
    assert json.loads(bench.file()) == {"id": "1", "name": "Kö\ufffd"}
    assert bench.export.result is not None
    counts = bench.export.result.row_counts
    assert (counts.converted_rows, counts.replaced_characters) == (1, 1)
