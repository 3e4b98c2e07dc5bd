"""In which encodings a body is read, and what is said of the others."""

from __future__ import annotations

import codecs
import gzip
import json

import pytest

from tests.integration.api_server import CREATED, Service

NATIVE, BODY = CREATED["native"]
JSON = "application/json"
PATHS = {
    "native": (NATIVE, 415, 400),
    "hirebase": (CREATED["hirebase"][0], 422, 422),
    "coresignal": ("/v2/data_requests/job_base/filter", 415, 400),
}


def text(value: object = "Müller") -> str:
    return json.dumps({**BODY, "query": {"job_titles": [value]}}, ensure_ascii=False)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (JSON, codecs.BOM_UTF8 + text().encode()),
        ("application/json; charset=UTF-8", text().encode()),
        ('application/json; charset="utf-8"', text().encode()),
        ("application/json; charset=ISO-8859-1", text("plain").encode()),
        ("application/vnd.api+json", text().encode()),
        (JSON, b"\r\n " + text().encode()),
    ],
)
def test_a_body_in_utf_8_is_read(api: Service, kind: str, body: bytes) -> None:
    # When
    answer = api.http.post(NATIVE, content=body, headers={"Content-Type": kind})

    # Then
    assert answer.status_code == 202, answer.text
    assert answer.json()["query"]["job_titles"] in (["Müller"], ["plain"])


@pytest.mark.parametrize("surface", PATHS)
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, identity", "x-gzip"])
def test_a_compressed_body_is_refused_with_the_header(
    api: Service, surface: str, encoding: str
) -> None:
    # Given
    path, status, _ = PATHS[surface]
    headers = {"Content-Type": JSON, "Content-Encoding": encoding}

    # When
    answer = api.http.post(path, content=gzip.compress(text().encode()), headers=headers)

    # Then
    assert answer.status_code == status, answer.text
    assert f"Content-Encoding is '{encoding}': send the body without compression" in answer.text
    assert answer.headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize(
    "path",
    [
        "/v2/data_requests/job_base/ids",
        "/v2/data_requests/job_base/id_file",
        "/v1/professional_network/job/bulk_collect/id_file",
    ],
)
def test_a_compressed_upload_is_refused_with_the_header(api: Service, path: str) -> None:
    # When
    form = "multipart/form-data; boundary=x"
    headers = {"Content-Type": form, "Content-Encoding": "gzip"}
    answer = api.http.post(path, content=b"\x1f\x8b--x", headers=headers)

    # Then
    assert answer.status_code == 415
    assert "send the body without compression" in answer.json()["detail"]


@pytest.mark.parametrize("surface", PATHS)
@pytest.mark.parametrize(
    ("body", "said"),
    [
        (text().encode("latin-1"), "is not UTF-8: send the body in UTF-8"),
        (text().encode("cp1252"), "byte 0xfc at"),
        (text().encode("utf-16"), "UTF-16"),
        (text().encode("utf-16-le"), "UTF-16"),
        (text().encode("utf-16-be"), "UTF-16"),
        (text().encode("utf-32"), "UTF-32"),
        (gzip.compress(text().encode(), mtime=0), "compressed by gzip"),
        (b"", "the body is empty: send a JSON object"),
        (b" \r\n", "the body is empty"),
        (codecs.BOM_UTF8, "the body is empty"),
        (b'{"limit": NaN}', "not valid JSON"),
        (b'{"limit": Infinity}', "not valid JSON"),
        (b'{"source": "\\ud800"}', "not valid JSON"),
        (b"{'source': 1}", "not valid JSON"),
        (b"source=board&format=csv", "not valid JSON"),
    ],
)
def test_a_body_that_is_no_json_in_utf_8_is_refused_with_the_reason(
    api: Service, surface: str, body: bytes, said: str
) -> None:
    # Given
    path, _, status = PATHS[surface]

    # When
    answer = api.http.post(path, content=body, headers={"Content-Type": JSON})

    # Then
    assert answer.status_code == status, answer.text
    assert said in answer.text


@pytest.mark.parametrize("surface", PATHS)
@pytest.mark.parametrize("charset", ["utf-16", "iso-8859-1", "windows-1252", "shift_jis"])
def test_another_charset_is_refused_by_its_name(api: Service, surface: str, charset: str) -> None:
    # Given
    path, status, _ = PATHS[surface]
    body = text("é" if charset != "shift_jis" else "日").encode(charset)

    # When
    headers = {"Content-Type": f"application/json; charset={charset}"}
    answer = api.http.post(path, content=body, headers=headers)

    # Then
    assert answer.status_code == status, answer.text
    assert f"the charset of Content-Type is '{charset}': send the body in UTF-8" in answer.text


@pytest.mark.parametrize("surface", PATHS)
@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/xml", "", "json"]
)
def test_another_content_type_is_refused_by_its_name(api: Service, surface: str, kind: str) -> None:
    # Given
    path, status, _ = PATHS[surface]

    # When
    answer = api.http.post(path, content=text().encode(), headers={"Content-Type": kind})

    # Then
    assert answer.status_code == status, answer.text
    assert f"Content-Type is '{kind}': send application/json" in answer.text


@pytest.mark.parametrize("surface", PATHS)
@pytest.mark.parametrize(
    "body",
    [
        b'{"webhook_url": null, "a": {"b": 1}, "webhook_url": null}',
        b'{"webhook_url": null, "webhook\\u005furl": null}',
        b'{"query": {"webhook_url": null, "a": [{"webhook_url": 1}], "webhook_url": null}}',
    ],
)
def test_a_field_that_is_given_twice_is_refused(api: Service, surface: str, body: bytes) -> None:
    # When
    answer = api.http.post(PATHS[surface][0], content=body, headers={"Content-Type": JSON})

    # Then
    assert answer.status_code == 422, answer.text
    assert "the field is given twice" in answer.text
    assert "webhook_url" in answer.text


def test_a_form_that_is_not_in_utf_8_is_refused(api: Service) -> None:
    for body in (b"ids=1&webhook_url=http://\xfc", b"ids=1&webhook_url=http://%FC"):
        # When
        answer = api.http.post(
            "/v2/data_requests/job_base/ids",
            content=body,
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )

        # Then
        assert answer.status_code == 400, answer.text
        assert "UTF-8" in answer.json()["detail"]
