"""Which variables of the environment reach the processes of the local stack."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from exporter.local.stack import Addresses, Stack, load_secrets

HERE = Addresses("http://127.0.0.1:1", "exp_1", "http://127.0.0.1:3", "redis://127.0.0.1:2/0", None)


def test_the_stack_names_the_variables_that_have_no_effect_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Given
    for name in list(os.environ):
        if name.startswith(("AWS_", "EXPORTER_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("EXPORTER_S3_PUBLIC_ENDPOINT_URL", "https://files.example.com")
    monkeypatch.setenv("EXPORTER_REDIS_URL", "redis://production")
    monkeypatch.setenv("EXPORTER_CONFIG", " ")
    monkeypatch.setenv("EXPORTER_PART_SIZE", "6MiB")
    # When
    env = Stack(tmp_path, 8800, 1)._environment(HERE, load_secrets(tmp_path / "secrets.json"))
    # Then
    assert env["EXPORTER_REDIS_URL"] == HERE.redis_url
    assert env["EXPORTER_CONFIG"] == str(tmp_path / "exporter.toml")
    assert env["EXPORTER_PART_SIZE"] == "6MiB"
    assert not {"AWS_PROFILE", "EXPORTER_S3_PUBLIC_ENDPOINT_URL"} & set(env)
    assert capsys.readouterr().err == (
        "exporter up: warning: AWS_PROFILE, EXPORTER_REDIS_URL, EXPORTER_S3_PUBLIC_ENDPOINT_URL: "
        "without effect, this stack has its own servers and keys\n"
    )
