"""Texts for tenants name no host, port, path or query of the deployment."""

from __future__ import annotations

import pytest

from exporter.core.public_text import with_hosts_only, without_addresses

LIBRARY_TEXTS = {
    "redis": "Error 111 connecting to cache-1:6379. Connection refused.",
    "redis by name": "Error -2 connecting to redis.internal:6379. Name or service not known.",
    "redis over IPv6": "Error 111 connecting to [fd00::12]:6379. Connection refused.",
    "redis reading": "Error while reading from 10.1.2.3:6379 : (104, 'Connection reset by peer')",
    "s3": 'Could not connect to the endpoint URL: "http://minio:9000/exports/e1/jobs.csv?uploads"',
    "s3 timeout": 'Read timeout on endpoint URL: "https://s3.eu-1.amazonaws.com/b/k?partNumber=1"',
    "s3 policy": "User: arn:aws:iam::123456789012:user/exporter may not write to it",
    "tls": "certificate verify failed: Hostname mismatch, certificate is not valid for 'minio'.",
    "postgres": 'connection to server at "db" (10.0.0.5), port 5432 failed: FATAL: sorry',
    "postgres socket": 'connection to server on socket "/run/pg/.s.PGSQL.5432" failed',
    "postgres name": 'could not translate host name "db-primary" to address: Name not known',
    "psycopg": "failed to resolve host 'db-primary': [Errno -2] Name or service not known",
    "apache": "The page was not found. Apache/2.4 Server at api.board.example.com Port 80",
    "nginx": "upstream: http://10.3.0.7:8080/v2/jobs/search?key=s3cr3t, while connecting",
    "json of PHP": r'{"next":"https:\/\/board.internal\/v2\/jobs?token=s3cr3t"}',
    "user in a URL": "https://user:s3cr3t@board:8443/x is wrong",
    "another scheme": "rediss://:s3cr3t@cache:6380/0 and postgresql://reader:s3cr3t@db/app",
    "bare": "localhost:8810 answered 503; ask admin@board.internal",
    "a path without a scheme": "see board.example.com/v2/jobs?key=s3cr3t",
}
PARTS = (
    *("cache", "redis.internal", "fd00", "10.", "minio", "exports/e1", "amazonaws", "1234567890"),
    *("db", "/run/pg", "board", "s3cr3t", "8080", "6379", "9000", "5432", "localhost", "v2/jobs"),
)
HARMLESS = (
    "answered 503: over capacity, retry after 12:30:45 on 2026-11-30T12:30:45.123Z",
    "search.job_titles: must be a list; known: salary_range.min, salary_range.max",
    'the answer is not JSON: expected ":" at line 1:20, {"status":503,"code":1234}',
    "std::vector, node.js 18.2.1, C#, 1.10, 100:200, e.g. this; rows 1...5",
    "gave up after waiting since 2026-11-30 12:30:45Z: the source answered 429: slow down",
    "Check AWS_ACCESS_KEY_ID, or name another bucket in EXPORTER_S3_BUCKET.",
    "page 3: the source announced 40 rows, but has sent 41 (at try 4)",
)


@pytest.mark.parametrize("text", LIBRARY_TEXTS.values(), ids=LIBRARY_TEXTS)
def test_no_part_of_an_address_is_left(text: str) -> None:
    # When
    shown = without_addresses(text)
    # Then
    assert "(address)" in shown
    assert not [part for part in PARTS if part in shown.replace("(address)", "").lower()]


@pytest.mark.parametrize("text", HARMLESS)
def test_a_text_without_an_address_is_unchanged(text: str) -> None:
    assert without_addresses(text) == text


@pytest.mark.parametrize("text", LIBRARY_TEXTS.values(), ids=LIBRARY_TEXTS)
def test_an_operator_sees_the_host_of_a_url_but_no_path_query_or_password(text: str) -> None:
    # When
    shown = with_hosts_only(text)
    # Then
    if "://" in text:
        assert "//" not in shown
        assert "s3cr3t" not in shown
        assert "uploads" not in shown
        assert any(host in shown for host in ("minio", "amazonaws", "10.3.0.7", "board", "cache"))
