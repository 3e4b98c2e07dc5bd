"""Loading postings from a file."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from exporter.board import database
from tests.integration.board.desk import LIVE, POSTINGS, answer, everything, ids, lines, serving

ORIGINAL = (
    '{"id": 18446744073709551617, "title":"A \\"b\\"\\u2028", "company": "Čapek & Sons",'
    ' "location": "Brno, Moravia, Czechia", "salary": {"min": 1.10, "max": 1E+2, "currency":'
    ' "CZK", "text": "Hourly"}, "posted_at": "2012-01-26T00:00:00.000", "url": null,'
    ' "is_remote": true, "tags": ["x", "\\ud83d"], "extra": [1.10, -0, 1e400,'
    ' 99999999999999999999], "\\u0061": "\u2028\u0085"  }'
)


def test_common_names_become_the_vendors_and_every_original_value_is_kept(tmp_path: Path) -> None:
    # Given
    file = tmp_path / "postings.jsonl"
    file.write_bytes(ORIGINAL.encode() + b"\r\n")
    # When
    count = database.load(tmp_path / "board.db", file)
    with serving(tmp_path / "board.db") as client:
        text = client.get("/v2/jobs/18446744073709551617").text
        nearby = ids(client, locations=[{"city": "brno"}], location_types=["remote"])
    # Then
    assert count == (1, 0)
    assert text.endswith("," + ORIGINAL[1:])
    assert text.startswith('{"_id":"18446744073709551617",')
    assert '"salary_range":{"min":1.10,"max":1E+2,"currency":"CZK","period":"Hourly"}' in text
    served = json.loads(text)
    assert served["job_title"] == served["title"]
    assert served["company_name"] == "Čapek & Sons"
    assert served["company_slug"] == "čapek-sons"
    assert served["location_raw"] == "Brno, Moravia, Czechia"
    assert served["locations"] == [
        {
            "address": "Brno, Moravia, Czechia",
            "city": "Brno",
            "region": "Moravia",
            "country": "Czechia",
        }
    ]
    assert served["date_posted"] == "2012-01-26"
    assert served["application_link"] is None
    assert served["location_type"] == ["Remote"]
    assert served["skills"] == ["x", "\ud83d"]
    assert nearby == ["18446744073709551617"]


def test_a_member_that_has_the_vendors_name_is_never_changed_or_doubled(tmp_path: Path) -> None:
    # Given
    original = (
        '{"_id":"a","id":"b","title":"t","job_title":"j","date_posted":"soon","posted_at":'
        '"2025-01-01","skills":"one, two","tags":["x"],"expired":{}}'
    )
    file = tmp_path / "postings.jsonl"
    file.write_text(original)
    # When
    database.load(tmp_path / "board.db", file)
    with serving(tmp_path / "board.db") as client:
        served = client.get("/v2/jobs/a").text
    # Then
    assert served == original


def test_an_invalid_date_is_kept_and_gives_no_date_posted(tmp_path: Path) -> None:
    # Given
    file = lines(tmp_path / "p.jsonl", [{"id": "a", "posted_at": "NYCHA has no rule."}])
    # When
    database.load(tmp_path / "board.db", file)
    with serving(tmp_path / "board.db") as client:
        served = client.get("/v2/jobs/a").json()
        dated = ids(client, date_posted="0001-01-01")
    # Then
    assert served == {
        "_id": "a",
        "date_posted": None,
        "id": "a",
        "posted_at": "NYCHA has no rule.",
    }
    assert dated == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not JSON"),
        (b'{"id":NaN}', "NaN"),
        (b"[1]", "an object is needed"),
        (b'{"title":"x"}', "no id"),
        (b'{"id":null}', "no id"),
        (b'{"id":true}', "no id"),
        (b'{"id":"\\ud800"}', "surrogate"),
        (b'{"id":"\xff"}', "UTF-8"),
        (b'{"id":"a"} {"id":"b"}', "not JSON"),
        (b'{"id":"a","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    ],
)
def test_an_invalid_line_rejects_the_file_with_the_line_number_and_changes_nothing(
    tmp_path: Path, line: bytes, reason: str
) -> None:
    # Given
    path, file = tmp_path / "board.db", tmp_path / "p.jsonl"
    database.load(path, lines(tmp_path / "first.jsonl", [{"id": "kept", "v": 1}]))
    good = [b'{"id":"%d"}' % number for number in range(1_200)]
    file.write_bytes(b"\n".join([b'{"id":"kept","v":2}', b"", *good, line, b'{"id":"z"}']))
    # When
    with pytest.raises(database.LoadError, match=f"line 1203: .*{reason}"):
        database.load(path, file)
    # Then
    with serving(path) as client:
        assert answer(client)["jobs"] == [{"_id": "kept", "id": "kept", "v": 1}]


def test_a_truncated_gzip_file_is_rejected_and_changes_nothing(tmp_path: Path) -> None:
    # Given
    text = "".join(f'{{"id":"{number}","v":{number**9}}}\n' for number in range(9_000))
    file = tmp_path / "p.gz"
    file.write_bytes(gzip.compress(text.encode())[:-2_000])
    # When
    with pytest.raises(database.LoadError, match="cannot be unpacked"):
        database.load(tmp_path / "board.db", file)
    # Then
    with serving(tmp_path / "board.db") as client:
        assert answer(client)["total_count"] == 0


def test_the_later_of_two_postings_with_one_id_wins_and_loading_twice_changes_nothing(
    tmp_path: Path,
) -> None:
    # Given
    path, file = tmp_path / "board.db", tmp_path / "p.gz"
    found = [{"id": str(number % 700), "v": number} for number in range(1_000)]
    file.write_bytes(gzip.compress("\n".join(map(json.dumps, found)).encode()))
    # When
    first = database.load(path, file)
    with serving(path) as client:
        before = everything(client)
        second = database.load(path, file)
        after = everything(client)
    # Then
    assert first == (1_000, 300)
    assert second == (1_000, 1_000)
    assert {job["_id"]: job["v"] for job in before} == {str(n % 700): n for n in range(1_000)}
    assert len(before) == 700
    assert sorted(before, key=lambda job: job["v"]) == sorted(after, key=lambda job: job["v"])


def test_a_replaced_posting_is_found_by_its_new_words_only(tmp_path: Path) -> None:
    # Given
    path = tmp_path / "board.db"
    old = [{"id": "a", "title": "Baker", "description": "bread"}]
    new = [{"id": "a", "title": "Fitter", "description": "pipes"}]
    database.load(path, lines(tmp_path / "1", old))
    with serving(path) as client:
        assert ids(client, job_titles=["baker"]) == ["a"]
        # When
        database.load(path, lines(tmp_path / "2", new))
        # Then
        assert ids(client, job_titles=["baker"]) == []
        assert ids(client, keywords=["bread"]) == []
        assert ids(client, job_titles=["fitter"], keywords=["pipes"]) == ["a"]


LOADER = """
import sys
from pathlib import Path
from exporter.board import database
database.load(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_reader_sees_the_board_before_or_after_a_load_and_never_half(tmp_path: Path) -> None:
    # Given
    path = tmp_path / "board.db"
    versions = [
        lines(
            tmp_path / f"{version}.jsonl",
            [{"id": f"{n}", "v": version, "title": "t"} for n in range(count)],
        )
        for version, count in ((1, 3_000), (2, 4_000))
    ]
    database.load(path, versions[0])
    seen = set()
    with serving(path) as client:
        # When
        loader = subprocess.Popen([sys.executable, "-c", LOADER, str(path), str(versions[1])])
        deadline = time.monotonic() + 60
        while (last := loader.poll()) is None and time.monotonic() < deadline:
            body = answer(client, page=2, limit=100)
            seen.add((body["total_count"], frozenset(job["v"] for job in body["jobs"])))
        body = answer(client, page=2, limit=100)
        seen.add((body["total_count"], frozenset(job["v"] for job in body["jobs"])))
    # Then
    assert last == 0
    before, after = (3_000, frozenset({1})), (4_000, frozenset({2}))
    assert seen == {before, after}


def test_a_board_starts_to_serve_while_another_process_is_loading(tmp_path: Path) -> None:
    # Given
    path = tmp_path / "board.db"
    database.load(path, lines(tmp_path / "p.jsonl", POSTINGS))
    with database.write_transaction(path) as connection:
        connection.execute("DELETE FROM postings")
        # When
        with serving(path) as client:
            found = ids(client)
    # Then
    assert found == LIVE
