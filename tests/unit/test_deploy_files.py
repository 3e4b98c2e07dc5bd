"""What is deployed says what the code relies on."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from typer.testing import CliRunner

from exporter.cli.main import app
from exporter.core import limits
from exporter.local import ports
from exporter.local.children import Child
from exporter.local.redis import RedisServer
from exporter.settings import Settings
from exporter.sources.config import HttpConfig
from exporter.storage import keys

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
LOCKS = ("requirements.lock", "requirements-runtime.lock", "requirements-local.lock")
PIN = re.compile(r"^([a-z0-9.\-]+)(?:\[[^]]*\])?==(\S+)")

Pins = dict[str, tuple[str, frozenset[str]]]


def pins(lock: Path) -> Pins:
    """Package to its version and hashes."""
    found: Pins = {}
    for block in re.split(r"\n(?=\S)", lock.read_text("utf-8")):
        match = PIN.match(block)
        assert match, f"no pinned package in {lock.name}: {block[:80]!r}"
        found[match[1]] = (match[2], frozenset(re.findall(r"sha256:[0-9a-f]{64}", block)))
    return found


def needed(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=!~ ;]", one)[0].lower() for one in requirements}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    parsed: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return parsed


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    return parsed


@pytest.mark.parametrize("name", LOCKS[1:])
def test_the_image_and_the_demo_install_exactly_what_the_tests_ran_with(name: str) -> None:
    # Given
    tested = pins(DEPLOY / "requirements.lock")

    # When
    installed = pins(DEPLOY / name)

    # Then
    assert installed.items() <= tested.items()
    assert all(hashes for _, hashes in tested.values())


def test_the_locks_hold_all_that_is_declared_and_the_image_no_more(
    project: dict[str, Any],
) -> None:
    # Given
    extras = project["optional-dependencies"]
    only_tests = needed([*extras["dev"], *extras["local"]]) - needed(project["dependencies"])
    build = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["build-system"]["requires"]

    # When
    everything = pins(DEPLOY / "requirements.lock").keys()
    image = pins(DEPLOY / "requirements-runtime.lock").keys()
    local = pins(DEPLOY / "requirements-local.lock").keys()

    # Then
    assert needed(project["dependencies"]) <= image
    assert needed(project["dependencies"]) | only_tests <= everything
    assert not only_tests & image
    assert needed([*extras["local"], *build]) <= local
    assert not local & needed(extras["dev"]) - needed([*build, "editables"])


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_no_place_to_download_from(name: str) -> None:
    # When
    text = (DEPLOY / name).read_text("utf-8")

    # Then
    assert "://" not in text
    assert "index" not in text


@pytest.mark.external
def test_a_redis_with_our_configuration_keeps_all_and_evicts_nothing(tmp_path: Path) -> None:
    # Given a real server that reads the file; only where it lives is of this machine
    port = ports.find_free(1)[0]
    binary = RedisServer(tmp_path, port).command[0]

    def answers() -> bool:
        with redis.Redis(port=port) as client:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False

    there = ["--port", str(port), "--dir", str(tmp_path), "--bind", "127.0.0.1"]
    command = [binary, str(DEPLOY / "redis.conf"), *there]
    with (
        Child("redis", command, tmp_path / "redis.log", answers=answers, env={}),
        redis.Redis(port=port) as client,
    ):
        # When
        config = client.config_get("*")

    # Then
    assert config["appendonly"] == "yes"
    assert config["appendfsync"] == "always"
    assert config["no-appendfsync-on-rewrite"] == "no"
    assert config["save"] == ""
    assert config["maxmemory-policy"] == "noeviction"
    assert int(config["maxmemory"]) > 0
    assert config["protected-mode"] == "yes"


def test_every_process_of_the_procfile_and_of_compose_is_a_command(
    compose: dict[str, Any],
) -> None:
    # Given
    known = {
        info.name or info.callback.__name__ for info in app.registered_commands if info.callback
    } | {group.name for group in app.registered_groups}

    # When
    lines = (ROOT / "Procfile").read_text("utf-8").splitlines()
    named = {line.split(": ")[0]: line.split(": ")[1].split()[1] for line in lines}
    composed = {
        name: service["command"][0]
        for name, service in compose["services"].items()
        if "build" in service and "entrypoint" not in service and "command" in service
    }

    # Then
    processes = {"worker": "worker", "webhooks": "webhooks", "beat": "beat"}
    assert named == processes | {"api": "api"}
    assert composed == processes | {"board": "board"}
    assert {*named.values(), *composed.values()} <= known


@pytest.mark.parametrize(
    "place", ["Procfile", "deploy/Dockerfile", "deploy/README.md", "exporter/cli/main.py"]
)
def test_who_names_the_processes_names_all_four(place: str) -> None:
    # When
    text = (ROOT / place).read_text("utf-8")
    if place.endswith("main.py"):
        text = CliRunner().invoke(app, ["up", "--help"]).output
    # Then
    assert [name for name in ("api", "worker", "webhooks", "beat") if name not in text] == []
    assert "three processes" not in text


def test_every_setting_is_documented() -> None:
    # Given
    operating = (DEPLOY / "README.md").read_text("utf-8") + limits.document()
    documented = set(re.findall(r"EXPORTER_(\w+)", operating.replace("…_", "EXPORTER_")))

    # Then
    assert {name.upper() for name in Settings.model_fields} <= documented


def test_the_readme_is_short_and_names_files_that_exist() -> None:
    # Given
    text = (ROOT / "README.md").read_text("utf-8")

    # When
    links = re.findall(r"\]\((?!http)([^)]+)\)", text)
    folders = [
        name
        for line in re.findall(r"^\| (`.*?/`) \|", text, re.MULTILINE)
        for name in re.findall(r"`([^`]+)`", line)
    ]
    missing = [one for one in [*links, *folders] if not (ROOT / one).exists()]

    # Then
    assert len(text.splitlines()) < 200
    assert missing == []


def test_compose_publishes_to_this_machine_only_and_has_no_default_password(
    compose: dict[str, Any],
) -> None:
    # Given
    services = compose["services"]

    # When
    published = [port for service in services.values() for port in service.get("ports", [])]
    redis_url = services["api"]["environment"]["EXPORTER_REDIS_URL"]
    secret = services["s3"]["environment"]["AWS_SECRET_ACCESS_KEY"]

    # Then
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert "${REDIS_PASSWORD:?" in redis_url
    assert secret.startswith("${S3_SECRET_KEY:?")


def test_compose_mounts_files_that_exist_and_sets_settings_that_exist(
    compose: dict[str, Any],
) -> None:
    # Given
    fields = {f"EXPORTER_{name.upper()}" for name in Settings.model_fields}

    # When
    mounted = {
        volume.split(":")[0]
        for service in compose["services"].values()
        for volume in service.get("volumes", [])
    }
    files = {name for name in mounted if name.startswith(".")}
    settings = {
        name
        for service in compose["services"].values()
        for name in service.get("environment", {})
        if name.startswith("EXPORTER_")
    }

    # Then
    assert files == {"./redis.conf", "./bucket-lifecycle.json"}
    assert all((DEPLOY / name).is_file() for name in files)
    assert mounted - files == set(compose["volumes"])
    assert settings
    assert settings <= fields


def test_the_sources_in_compose_are_a_configuration_once_compose_has_read_them(
    compose: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    from exporter.config import load_config

    path = tmp_path / "exporter.toml"
    path.write_text(compose["configs"]["sources"]["content"].replace("$$", "$"))
    monkeypatch.setenv("SOURCE_URL", "http://board:8810")
    monkeypatch.setenv("SOURCE_KEY", "key")

    # When
    config = load_config(path)

    # Then
    source = config.sources[config.surfaces.hirebase]
    assert isinstance(source, HttpConfig)
    assert source.base_url == "http://board:8810"


def test_the_bucket_keeps_files_longer_than_the_service_does() -> None:
    # Given
    rules = json.loads((DEPLOY / "bucket-lifecycle.json").read_text("utf-8"))["Rules"]

    # When
    expiry = [rule for rule in rules if "Expiration" in rule]
    abort = [rule for rule in rules if "AbortIncompleteMultipartUpload" in rule]

    # Then
    assert [rule["Filter"]["Prefix"] for rule in expiry] == [keys.ROOT]
    assert timedelta(days=expiry[0]["Expiration"]["Days"]) > Settings().retention
    patience = timedelta(days=abort[0]["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"])
    assert patience > Settings().patience


@pytest.mark.external
def test_all_folders_with_tests_are_run() -> None:
    # Given
    folders = {file.relative_to(ROOT).parts[1] for file in (ROOT / "tests").rglob("test_*.py")}
    # When
    whole = (ROOT / "deploy" / "test").read_text("utf-8").rpartition("--coverage ]")[2]
    # Then
    assert {f"tests/{name}" for name in folders} == set(re.findall(r"tests/[a-z]+", whole))


@pytest.mark.parametrize("name", ["deploy/setup", "deploy/demo", "deploy/test", ".ci/run"])
def test_a_script_can_be_run_and_is_plain_sh(name: str) -> None:
    # Given
    script = ROOT / name

    # When
    checked = subprocess.run(["sh", "-n", str(script)], capture_output=True, text=True)

    # Then
    assert os.access(script, os.X_OK)
    assert script.read_text("utf-8").startswith("#!/bin/sh\n")
    assert checked.stderr == ""


def a_copy(folder: Path) -> Path:
    """A project folder, with a blank in its name, that holds what deploy/setup reads."""
    root = folder / "a project"
    (root / "deploy").mkdir(parents=True)
    shutil.copy(DEPLOY / "setup", root / "deploy" / "setup")
    for name in LOCKS:
        (root / "deploy" / name).write_text("one==1\n")
    (root / "pyproject.toml").write_text("[project]\n")
    return root


def a_program(path: Path, body: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


class Setup:
    """deploy/setup in a copy of the project, whose environment has a Python of the test."""

    def __init__(self, folder: Path, body: str = "") -> None:
        self.root = a_copy(folder)
        self.lock = self.root / "deploy" / "requirements.lock"
        self._asked = folder / "asked"
        python = f'printf "%s\\n" "$*" >> "{self._asked}"\n{body}'
        a_program(self.root / ".venv" / "bin" / "python", python)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        self._asked.write_text("")
        command = [str(self.root / "deploy" / "setup"), *arguments]
        return subprocess.run(command, cwd="/", capture_output=True, text=True)

    def installs(self, *arguments: str) -> list[str]:
        """The locks that a successful run installs from."""
        assert self.run(*arguments).returncode == 0
        return re.findall(r"-r deploy/(\S+)", self._asked.read_text())


@pytest.mark.external
def test_setup_installs_once_and_again_when_the_lock_changes(tmp_path: Path) -> None:
    # Given an environment whose Python writes down what it is asked
    setup = Setup(tmp_path)

    # When
    first, second = setup.installs(), setup.installs()
    setup.lock.write_text("one==2\n")
    third = setup.installs()

    # Then
    assert (first, second, third) == ([LOCKS[0]], [], [LOCKS[0]])


@pytest.mark.external
def test_the_tools_of_the_tests_are_added_to_what_the_demo_installed(tmp_path: Path) -> None:
    # Given
    setup = Setup(tmp_path)

    # When
    demo, again = setup.installs("--run"), setup.installs("--run")
    tests, demo_after_tests = setup.installs(), setup.installs("--run")

    # Then
    assert demo == [*LOCKS[1:]]
    assert again == []
    assert tests == [LOCKS[0]]
    assert demo_after_tests == []


@pytest.mark.external
@pytest.mark.parametrize("failing", ["--require-hashes", "--editable"])
def test_an_installation_that_fails_shows_why_and_is_tried_again(
    failing: str, tmp_path: Path
) -> None:
    # Given an index that cannot be reached
    setup = Setup(tmp_path, f'case "$*" in *{failing}*) echo "ERROR: no route"; exit 1;; esac')

    # When
    first, second = setup.run("--run"), setup.run("--run")

    # Then
    assert (first.returncode, second.returncode) == (1, 1)
    assert "ERROR: no route" in first.stderr
    assert "ERROR: no route" in second.stderr


@pytest.mark.external
def test_setup_refuses_an_option_it_does_not_know(tmp_path: Path) -> None:
    # Given
    setup = Setup(tmp_path)

    # When
    refused = setup.run("--runtime")

    # Then
    assert refused.returncode == 64
    assert "Usage: " in refused.stderr


def test_the_demo_leaves_out_the_tools_that_only_the_tests_need() -> None:
    # When
    demo, tests = ((DEPLOY / name).read_text("utf-8") for name in ("demo", "test"))

    # Then
    assert '/deploy/setup" --run\n' in demo
    assert '/deploy/setup"\n' in tests


@pytest.mark.external
def test_setup_stops_with_the_remedy_when_there_is_no_new_python(tmp_path: Path) -> None:
    # Given a machine whose every Python is too old
    root = a_copy(tmp_path)
    for name in ("python3", "python3.11", "python3.12", "python3.13", "python3.14", "python"):
        a_program(tmp_path / "bin" / name, '[ "$1" = --version ] && echo "Python 3.8.10"; exit 1')

    # When
    done = subprocess.run(
        [root / "deploy" / "setup"],
        env={"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )

    # Then
    assert done.returncode == 1
    assert "Python 3.11 or newer is needed; python3 here is: Python 3.8.10" in done.stderr
    assert "PYTHON=/path/to/python3" in done.stderr
    assert not (root / ".venv").exists()


@pytest.mark.external
def test_setup_leaves_no_half_environment_when_the_venv_module_is_missing(tmp_path: Path) -> None:
    # Given a Python that is new enough and has no venv, as Debian ships it
    root = a_copy(tmp_path)
    a_program(
        tmp_path / "python3",
        'case "$1" in -m) mkdir -p "$4"; exit 1;; *) exit 0;; esac',
    )

    # When
    done = subprocess.run(
        [root / "deploy" / "setup"],
        env={"PATH": "/usr/bin:/bin", "PYTHON": str(tmp_path / "python3")},
        capture_output=True,
        text=True,
    )

    # Then
    assert done.returncode == 1
    assert "python3-venv" in done.stderr
    assert not (root / ".venv").exists()
