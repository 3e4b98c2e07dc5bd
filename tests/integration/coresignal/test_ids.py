"""Data requests by lists of ids: the shapes that are taken, and what is refused."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import pytest

from exporter.storage import keys
from exporter.store.memory.store import MemoryStore
from tests.integration.api_server import Service
from tests.integration.coresignal.desk import V1, V2, check_flat, collected, is_empty


def upload(api: Service, content: bytes, root: str = V2, **fields: str) -> httpx.Response:
    files = {"ids_file": ("ids.csv", content, "text/csv")}
    return api.http.post(f"{root}/id_file", files=files, data=fields)


@pytest.mark.parametrize(
    "content",
    [
        b"3\n1\n4711\n",
        b"3\r\n1\r\n4711\r\n",
        b"\xef\xbb\xbf3\n1\n4711",
        b"3\n1\n4711\n\n\r\n  \n",
        b" 3\n1 \n\t4711\n",
    ],
    ids=["lf", "crlf", "bom", "blank-end", "blanks"],
)
def test_ids_of_a_file_are_collected_in_its_order_and_unknown_ones_are_listed_apart(
    api: Service, content: bytes
) -> None:
    # When
    answer = upload(api, content, data_format="json", webhook_url="")
    place = collected(api, answer)

    # Then
    listed = api.http.get(place).json()
    assert list(listed) == ["data_request_files", "unknown_ids_file"]
    (name,) = listed["data_request_files"]
    lines = gzip.decompress(api.http.get(f"{place}/{name}").content).decode().split("\n")
    assert [json.loads(line)["_id"] for line in lines if line] == ["3", "1"]
    unknown = api.http.get(f"{place}/{listed['unknown_ids_file']}")
    assert unknown.headers["Content-Type"] == "application/gzip"
    assert gzip.decompress(unknown.content) == b"4711\n"


def test_ids_of_which_none_exists_are_told_when_collecting(api: Service) -> None:
    # When
    place = collected(api, upload(api, b"98\n99\n"))
    text = check_flat(api.http.get(place), 422, "did not find any matching IDs")

    # Then
    name = next(word for word in text.split() if word.startswith("unknown-ids")).rstrip(".")
    assert gzip.decompress(api.http.get(f"{place}/{name}").content) == b"98\n99\n"


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        (b"id\n1\n2\n", 400, "line 1 of the list of ids is 'id'"),
        (b"1\n2,3\n", 400, "line 2 of the list of ids is '2,3'"),
        (b"1,2,3", 400, "line 1 of the list of ids is '1,2,3'"),
        (b"1\n\n2\n", 400, "line 2 of the list of ids is ''"),
        (b'"1"\n', 400, "line 1"),
        (b"1\n-2\n", 400, "line 2"),
        (b"1\n1_000\n", 400, "line 2"),
        (b"1\n2.0\n", 400, "line 2"),
        ("1\n٢\n".encode(), 400, "line 2"),
        ("1\n2\n".encode("utf-16"), 400, "line 1"),
        (b"1\r2\r3\r", 400, "line 1"),
        (b"1\n" + b"9" * 19, 400, "line 2"),
        (b"1\n" + b"x" * 5_000_000, 400, "line 2"),
        (b"7\n8\n07\n", 422, "id 7 is listed twice"),
        (b"", 422, "empty"),
        (b"\n\n", 422, "empty"),
        (
            b"\n".join(b"%d" % n for n in range(10_001)),
            400,
            "File contains too many IDs. Maximum is 10,000 IDs",
        ),
    ],
)  # fmt: skip
def test_a_list_of_ids_that_is_not_understood_entirely_is_not_taken_at_all(
    api: Service, content: bytes, status: int, said: str
) -> None:
    # When
    answer = upload(api, content)

    # Then
    text = check_flat(answer, status, said)
    assert len(text) < 300
    assert is_empty(api)


def test_the_older_path_takes_more_ids_than_10000(api: Service) -> None:
    # Given
    content = b"\n".join(b"%d" % n for n in range(10_001))

    # When
    answer = upload(api, content, V1)

    # Then
    assert answer.status_code == 201
    export = api.engine.store.get(answer.json()["request_id"])
    assert export is not None
    assert (export.spec.ids, export.spec.limit) == (10_001, None)


def _form(*parts: tuple[str, bytes], end: bytes = b"--\r\n") -> bytes:
    heads = (f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n' for name, _ in parts)
    return (
        b"".join(
            head.encode() + content + b"\r\n"
            for head, (_, content) in zip(heads, parts, strict=True)
        )
        + b"--x"
        + end
    )


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (_form(("ids_file", b"1\n2\n"))[:-4], 400, "stops before its last boundary"),
        (_form(("ids_file", b"1\n2\n"))[:-20], 400, "stops before its last boundary"),
        (b"", 400, "stops before"),
        (b"1\n2\n", 400, "not valid multipart"),
        (_form(("ids_file", b"1\n"), ("ids_file", b"2\n")), 422, "ids_file: the field occurs"),
        (_form(("ids", b"1\n")), 422, "known: ids_file, webhook_url, webhook_events, data_format"),
        (_form(("data_format", b"json")), 422, "empty"),
        (_form(("ids_file", b"1\n"), ("data_format", b"csv")), 422, "data_format"),
        (_form(("webhook_url", b"nowhere"), ("ids_file", b"1\n")), 422, "webhook_url"),
        (_form(("webhook_url", b"x" * 5_000), ("ids_file", b"1\n")), 422, "webhook_url"),
        (_form(("ids_file", b"".join(b"%018d\n" % n for n in range(900_000)))), 413, "16777216"),
    ],
    ids=["cut", "cut-in-list", "nothing", "no-form", "twice", "unknown-field", "no-file",
         "format", "webhook", "endless-field", "too-long"],
)  # fmt: skip
def test_a_form_that_is_malformed_or_cut_off_is_refused(
    api: Service, body: bytes, status: int, said: str
) -> None:
    # When
    answer = api.http.post(
        f"{V1}/id_file", content=body, headers={"Content-Type": "multipart/form-data; boundary=x"}
    )

    # Then
    check_flat(answer, status, said)
    assert is_empty(api)


def test_a_list_of_ids_in_a_field_without_a_file_name_is_one_too(api: Service) -> None:
    # When
    answer = api.http.post(
        f"{V2}/id_file",
        content=_form(("ids_file", b"1\n2\n")),
        headers={"Content-Type": "multipart/form-data; boundary=x"},
    )

    # Then
    assert answer.status_code == 201


def test_another_content_type_than_a_form_is_refused_with_what_to_send(api: Service) -> None:
    # When
    answers = [
        api.http.post(f"{V2}/id_file", content=b"1\n2\n", headers={"Content-Type": "text/csv"}),
        api.http.post(f"{V2}/id_file", json={"ids": [1]}),
    ]

    # Then
    for answer in answers:
        check_flat(answer, 415, "multipart/form-data")


IDS: Sequence[tuple[str, Callable[[httpx.Client], httpx.Response]]] = [
    ("json", lambda http: http.post(f"{V2}/ids", json={"ids": [3, 1], "limit": 5})),
    ("json-texts", lambda http: http.post(f"{V2}/ids", json={"ids": ["3", "1"]})),
    ("form", lambda http: http.post(f"{V2}/ids", data={"ids": "3,1", "limit": "5"})),
    ("form-repeated", lambda http: http.post(f"{V2}/ids", data={"ids": ["3", "1"]})),
    ("multipart", lambda http: http.post(f"{V2}/ids", files={"ids": (None, b"[3, 1]")})),
    ("multipart-lines", lambda http: http.post(f"{V2}/ids", files={"ids": (None, b"3\n1\n")})),
    (
        "multipart-repeated",
        lambda http: http.post(f"{V2}/ids", files=[("ids", (None, b"3")), ("ids", (None, b"1"))]),
    ),
]


@pytest.mark.parametrize("way", [way for _, way in IDS], ids=[name for name, _ in IDS])
def test_ids_are_taken_in_every_shape_that_the_vendors_documentation_shows(
    api: Service, way: Callable[[httpx.Client], httpx.Response]
) -> None:
    # When
    place = collected(api, way(api.http))

    # Then
    (name,) = api.http.get(place).json()["data_request_files"]
    lines = gzip.decompress(api.http.get(f"{place}/{name}").content).splitlines()
    assert [json.loads(line)["_id"] for line in lines] == ["3", "1"]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"ids": []}, 422, "empty"),
        ({"ids": [1, "x"]}, 422, "ids"),
        ({"ids": [1, True]}, 422, "ids"),
        ({"ids": [1, 2.0]}, 422, "ids"),
        ({"ids": [1, None]}, 422, "ids"),
        ({"ids": [1, -2]}, 422, "ids"),
        ({"ids": [1, 2**63]}, 422, "ids"),
        ({"ids": "1,2"}, 422, "ids"),
        ({"ids": [5, "05"]}, 422, "id 5 is listed twice"),
        ({"ids": [1], "limit": 0}, 422, "limit"),
        (
            {"ids": list(range(10_001))},
            400,
            "File contains too many IDs. Maximum is 10,000 IDs",
        ),
    ],
)
def test_wrong_ids_are_refused(api: Service, body: dict[str, Any], status: int, said: str) -> None:
    # When
    answer = api.http.post(f"{V2}/ids", json=body)

    # Then
    check_flat(answer, status, said)
    assert is_empty(api)


def test_the_ids_of_a_refused_list_are_not_kept(api: Service) -> None:
    # Given: a key without credits, and an idempotency key that was used with other ids
    poor = {"apikey": api.keys.create("cid", balance=0)}
    found = api.keys.find(poor["apikey"])
    assert found is not None
    assert isinstance(api.engine.store, MemoryStore)
    api.engine.store.accounts.open(found.id, 0)
    mark = {"Idempotency-Key": "once"}
    first = api.http.post(f"{V2}/ids", json={"ids": [1]}, headers=mark).json()["request_id"]

    # When
    refused = [
        api.http.post(f"{V2}/ids", json={"ids": [2]}, headers=poor),
        api.http.post(f"{V2}/id_file", files={"ids_file": b"3\n"}, headers=poor),
        api.http.post(f"{V2}/ids", json={"ids": [4]}, headers=mark),
    ]

    # Then
    assert [answer.status_code for answer in refused] == [402, 402, 422]
    assert [one.key for one in api.storage.objects("")] == [keys.input_key(first)]
