"""Contract of presigned links: content, headers, lifetime."""

from __future__ import annotations

from tests.contract.conftest import Bench
from tests.contract.storage.given import CSV, published


def test_a_link_gives_the_file_with_its_headers_to_a_bare_get(bench: Bench) -> None:
    # Given
    storage, small = bench.storage, bench.prefix + "small"
    storage.put_small(small, b"id\n1\n", CSV)
    large = published(storage, bench.prefix, b"id\n2\n")

    for key, content in [(small, b"id\n1\n"), (large, b"id\n2\n")]:
        # When
        status, headers, body = bench.get(storage.presign(key, 60))

        # Then
        assert (status, body) == (200, content)
        assert headers["content-type"] == "text/csv; charset=utf-8"
        assert headers["content-disposition"] == 'attachment; filename="postings.csv"'
        assert headers["content-length"] == str(len(content))


def test_a_link_dies_at_its_expiry(bench: Bench) -> None:
    # Given
    key = bench.prefix + "a.csv"
    bench.storage.put_small(key, b"a", CSV)
    link = bench.storage.presign(key, 2)
    assert bench.get(link)[0] == 200

    # When
    bench.clock.sleep(3.1)

    # Then
    status, _, body = bench.get(link)
    assert status == 403
    assert b"expired" in body


def test_a_link_for_longer_than_a_store_signs_is_cut_and_works(bench: Bench) -> None:
    # Given
    key = bench.prefix + "a.csv"
    bench.storage.put_small(key, b"a", CSV)

    # When
    link = bench.storage.presign(key, 400 * 24 * 3600)

    # Then
    assert bench.get(link)[0] == 200


def test_a_link_made_for_one_object_opens_no_other(bench: Bench) -> None:
    # Given
    mine, theirs = bench.prefix + "mine", bench.prefix + "theirs"
    for key in mine, theirs:
        bench.storage.put_small(key, b"a", CSV)

    # When
    status, _, _ = bench.get(bench.storage.presign(mine, 60).replace("/mine?", "/theirs?"))

    # Then
    assert status == 403


def test_a_link_to_nothing_is_not_found(bench: Bench) -> None:
    # Given, When
    status, _, _ = bench.get(bench.storage.presign(bench.prefix + "nothing", 60))

    # Then
    assert status == 404
