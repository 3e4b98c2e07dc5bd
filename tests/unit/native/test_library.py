"""A library that cannot be used is refused with the reason, and the Python code serves."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.native import build, library, pages

CC = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
VERSION = b"unsigned kernel_version(void) { return %d; }"
needs_compiler = pytest.mark.skipif(CC is None, reason="there is no C compiler on this machine")
needs_library = pytest.mark.skipif(library.find()[0] is None, reason=library.find()[1])


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A library of its own, with its stamp."""
    path = tmp_path / library.PATH.name
    shutil.copy(library.PATH, path)
    library.stamp_path(path).write_bytes(library.stamp(path))
    return path


@pytest.fixture
def refind() -> Iterator[None]:
    library.find.cache_clear()
    yield
    library.find.cache_clear()


def compiled(source: bytes, path: Path) -> Path:
    assert CC is not None
    command = [CC, "-shared", "-fPIC", "-x", "c", "-", "-o", str(path)]
    subprocess.run(command, input=source, check=True)
    return path


def refused(path: Path) -> str:
    with pytest.raises(OSError) as error:  # noqa: PT011 - the caller checks the text
        library.load(path)
    assert str(path) in str(error.value)
    return str(error.value)


def test_a_missing_library_is_refused(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "kernel.library")


@pytest.mark.parametrize("content", [b"", b"no library", b"\x7fELF" + bytes(60)])
def test_a_file_that_is_no_library_is_refused(content: bytes, tmp_path: Path) -> None:
    # Given
    path = tmp_path / "kernel.library"
    path.write_bytes(content)
    # When / Then
    assert refused(path)


@needs_library
def test_a_whole_library_is_taken(copy: Path) -> None:
    assert library.load(copy).kernel_version() == library.VERSION


@needs_library
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9])
def test_a_truncated_library_is_refused(copy: Path, share: float) -> None:
    # Given
    body = copy.read_bytes()
    copy.write_bytes(body[: int(len(body) * share)])
    # When / Then
    assert "is damaged" in refused(copy)


@needs_library
def test_a_library_with_another_byte_is_refused(copy: Path) -> None:
    # Given
    body = bytearray(copy.read_bytes())
    body[len(body) // 2] ^= 1
    copy.write_bytes(body)
    # When / Then
    assert "is damaged" in refused(copy)


@needs_library
def test_a_library_for_another_processor_is_refused(copy: Path) -> None:
    # Given the library with the machine of its ELF header changed to FR30
    body = bytearray(copy.read_bytes())
    if body[:4] != b"\x7fELF":
        pytest.skip("the libraries of this machine are not ELF")
    body[18:20] = b"\x54\x00"
    copy.write_bytes(body)
    library.stamp_path(copy).write_bytes(library.stamp(copy))
    # When / Then
    assert "is damaged" not in refused(copy)


@needs_library
def test_a_library_of_other_sources_is_refused(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given sources that were changed after the library was compiled
    for source in build.FOLDER.glob("*.[ch]"):
        shutil.copy(source, copy.parent)
    monkeypatch.setattr(library, "PATH", copy)
    library.load(copy)
    with (copy.parent / "csv.h").open("a") as changed:
        changed.write("/* another rule */")
    # When / Then
    assert "was not compiled from the C sources" in refused(copy)


@needs_compiler
@pytest.mark.external
@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (b"int other(void) { return 1; }", "is another library"),
        (VERSION % (library.VERSION + 1), f"has version {library.VERSION + 1}"),
        (VERSION % library.VERSION, "is another library"),
    ],
    ids=["another library", "another version", "functions missing"],
)
def test_a_library_of_something_else_is_refused(source: bytes, reason: str, tmp_path: Path) -> None:
    assert reason in refused(compiled(source, tmp_path / "kernel.library"))


@pytest.mark.usefixtures("refind")
def test_without_a_library_pages_are_left_to_the_python_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Given
    monkeypatch.setattr(library.load, "__defaults__", (tmp_path / "none",))
    monkeypatch.delenv(library.VARIABLE, raising=False)
    # When
    cut = pages.cut(b'{"jobs":[{"a":1}]}', ["jobs"], None)
    # Then
    assert cut is None
    assert "does not exist" in library.find()[1]


@pytest.mark.usefixtures("refind")
def test_the_variable_turns_the_library_off(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given
    monkeypatch.setenv(library.VARIABLE, "0")
    # When / Then
    assert library.find() == (None, "EXPORTER_NATIVE=0 turns it off")


@needs_compiler
@pytest.mark.external
@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("/nowhere/cc -O3", "/nowhere/cc -O3: [Errno 2]"),
        ("cc '", "cc ': No closing quotation"),
        ("true", "true: OSError: "),
        ("cc -nosuchoption", "cc -nosuchoption: "),
    ],
    ids=["missing", "malformed", "writes nothing", "refuses"],
)
def test_a_named_compiler_that_fails_is_reported_and_the_next_is_tried(
    named: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Given
    monkeypatch.setenv("CC", named)
    (tmp_path / "kernel.c").write_bytes(VERSION % 0)
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    path = tmp_path / "kernel.library"
    # When
    (failure,) = build.compile_library(path)
    # Then
    assert failure.startswith(said)
    assert "\n" not in failure
    assert library.stamp_path(path).read_bytes() == library.stamp(path)


def test_without_a_compiler_the_library_of_before_stays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Given
    monkeypatch.setenv("CC", "cc '")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    path = tmp_path / "kernel.library"
    path.write_bytes(b"before")
    # When
    with pytest.raises(build.NoCompiler, match=r"^cc ': No closing quotation$"):
        build.compile_library(path)
    # Then
    assert [one.name for one in tmp_path.iterdir()] == ["kernel.library"]
    assert path.read_bytes() == b"before"


def test_setup_says_in_one_line_why_the_library_was_not_built(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Given
    path = tmp_path / "kernel.library"
    monkeypatch.setattr(library, "PATH", path)
    monkeypatch.setattr(library.load, "__defaults__", (path,))
    monkeypatch.setenv("CC", "cc '")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setattr("sys.argv", ["build", "--if-missing"])
    # When
    with pytest.raises(SystemExit) as ended:
        build.main()
    # Then
    text = str(ended.value.code)
    assert text.startswith("The compiled library was not built: cc ': No closing quotation. All")
    assert "\n" not in text


@needs_library
def test_setup_leaves_a_library_that_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given
    monkeypatch.setattr("sys.argv", ["build", "--if-missing"])
    monkeypatch.setattr(build, "compile_library", lambda _: pytest.fail("compiled"))
    # When / Then
    build.main()
