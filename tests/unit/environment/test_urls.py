"""Tests of the checks of URLs in settings, and of the texts of their errors."""

from __future__ import annotations

import re

import pytest

from exporter.environment import urls


def refused(scheme: str, value: str) -> str:
    with pytest.raises(ValueError, match="write") as error:
        urls.redis_url(value) if scheme == "redis" else urls.store_url(value)
    return str(error.value)


@pytest.mark.parametrize("scheme", ["http", "redis"])
@pytest.mark.parametrize(
    "value",
    [
        *("minio:9000", "files.example.com", "//h:9000", "http:/h", ":9000", "/h", "h"),
        *("ftp://h", "s3://bucket", "://h", "unix:///tmp/s", "redis-cluster://h", "amqp://h"),
        *("{s}://", "{s}:///", "{s}://:80", "{s}:// h", "{s}://h\n", "{s}://h h", "{s}://h\x7f"),
        *("{s}://h:0", "{s}://h:65536", "{s}://h:99999", "{s}://h:-1", "{s}://h:abc", "{s}://h:"),
        *(
            "{s}://::1",
            "{s}://::1:80",
            "{s}://[::1",
            "{s}://[h]:80",
            "{s}://1.2.3.999",
            "{s}://h%31",
        ),
        *("{s}://bücher.de", "{s}://h..de", "{s}://-h", "{s}://h?a=b", "{s}://h#a", "'{s}://h'"),
        *("{s}://u@h", "{s}://h,g", "{s}://h:1,g:2/0", "{s}://h;{s}://g", "{s}://" + "h" * 64),
    ],
)
def test_a_wrong_url_is_refused_with_its_value_and_the_right_form(scheme: str, value: str) -> None:
    # Given
    value = value.replace("{s}", scheme)
    # When
    text = refused(scheme, value)
    # Then
    assert re.search(f"write.* {scheme}s?://", text)
    assert repr(value) in text or "***" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    "value",
    [
        *("redis://:s3cret@h:99999/0", "redis://u:s3cret@h/abc", "redis://u:s3cr@et@h:x/0"),
        *("redis://:s3cret/a@h:6379/0", "redis://:a?s3cret@h:6379/0", "redis://:a#s3cret@h/0"),
        *(
            "redis://:s3cret",
            "redis://u:s3cret",
            "redis://s3cret@h",
            "u:s3cret@h:6379",
            "amqp://u:s3cret@h",
        ),
        *("redis://h?password=s3cret", "rediss://h?ssl_password=s3cret&nosuch=1"),
        *(" redis://:s3cret@h:6379/0 x", "redis://:s3cret@h:1,g:2/0", "sentinel://:s3cret@h"),
    ],
)
def test_a_password_in_a_wrong_url_is_never_shown(value: str) -> None:
    # When
    text = refused("redis", value)
    # Then
    assert "s3cr" not in text
    assert "et@" not in text
    assert "***" in text
