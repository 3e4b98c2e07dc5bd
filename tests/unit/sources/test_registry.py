"""A type of source is one model and one entry of the registry: all else follows from them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exporter import config
from exporter.clock import FakeClock
from exporter.config import Config
from exporter.errors import ConfigurationError, QueryError
from exporter.run.run_slice import Ending
from exporter.service.drafts import NewExport
from exporter.service.exports import ExportService
from exporter.settings import Settings
from exporter.sources import registry
from exporter.sources.memory import MemorySource
from exporter.storage.memory import MemoryStorage
from exporter.store.memory.store import MemoryStore
from tests.rows_source import RowsConfig
from workers import draining, tasks

TABLE = """\
[sources.mine]
type = "rows"
page_size = 2
rows = [{_id = "1", title = "welder"}, {_id = "2", title = "nurse"}, {_id = "3", title = "baker"}]
"""

DOCUMENT = Path(__file__).parents[3] / "deploy" / "SOURCES.md"

Load = Callable[[str], Config]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Load:
    """Reads a file as if the type "rows" had its line in the registry."""
    monkeypatch.setattr(registry, "TYPES", {**registry.TYPES, RowsConfig.type_name(): RowsConfig})
    spec = importlib.util.spec_from_file_location("config_with_rows", config.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)

    def load(text: str) -> Any:
        (tmp_path / "own.toml").write_text(text)
        return module.load_config(tmp_path / "own.toml")

    return load


def service(load: Load) -> ExportService:
    clock = FakeClock()
    return ExportService(
        settings=Settings(),
        config=load(TABLE),
        store=MemoryStore(clock),
        storage=MemoryStorage(clock),
        clock=clock,
    )


def test_the_document_of_the_types_is_up_to_date() -> None:
    # Then
    assert DOCUMENT.read_text("utf-8") == registry.document(), (
        "run: python -m exporter.sources.registry > deploy/SOURCES.md"
    )


@pytest.mark.usefixtures("load")
def test_a_new_type_and_its_keys_are_in_the_document() -> None:
    # When
    found = registry.document()
    # Then
    assert "\n- `rows`: The rows of the table itself.\n" in found
    assert "| `password` | `rows` |  | Something that no error shows. |" in found


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("pagesize = 5", "sources.mine.pagesize: unknown key: did you mean page_size?"),
        ("pasword = 'x'", "sources.mine.pasword: unknown key: did you mean password?"),
        ("password = ['s3cret']", "sources.mine.password: the value is not a text"),
        ("[sources.o]\ntype = 'row'", "o.type: 'row' is an unknown type: did you mean rows?"),
        ("[sources.o]\ntype = 'rows'", "sources.o.rows: Field required"),
        ("[sources.o]\nrows = []", "sources.o.type: Field required: write type = 'bindbee', "),
    ],
)
def test_a_mistake_in_a_table_of_a_new_type_is_named_as_in_any_other(
    load: Load, line: str, said: str
) -> None:
    # When
    with pytest.raises(ConfigurationError) as error:
        load(f"{TABLE}{line}\n")
    # Then
    assert said in str(error.value)
    assert "s3cret" not in str(error.value)


def test_a_secret_of_a_new_type_is_not_in_its_repr(load: Load) -> None:
    # When
    found = load(f"{TABLE}password = 's3cret'\n")
    # Then
    assert "welder" in repr(found)
    assert "s3cret" not in repr(found)


def test_a_column_that_a_new_type_does_not_declare_is_refused_with_the_similar_one(
    load: Load,
) -> None:
    # Given
    new = NewExport(user_id="u1", surface="native", source="mine", search={}, columns=["titel"])
    # When
    with pytest.raises(QueryError) as error:
        service(load).create(new)
    # Then
    assert "did you mean 'title'?" in error.value.problems[0]["msg"]


def test_an_export_from_a_new_type_goes_on_where_the_worker_before_left_it(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given: workers that shut down after a page
    engine = service(load)
    source, endings = engine.source("mine"), list[Ending]()
    assert isinstance(source, MemorySource)
    monkeypatch.setattr(tasks, "service", lambda: engine)
    monkeypatch.setattr(draining, "requested", lambda: source.fetched > len(endings))
    new = NewExport(user_id="u1", surface="native", source="mine", search={}, format="csv")
    export_id = engine.create(new).id
    # When
    while (ending := tasks.work()) is not None:
        endings.append(ending)
    # Then
    assert endings == [Ending.HANDED_OVER, Ending.FINISHED]
    found = engine.store.get(export_id)
    assert found is not None
    assert found.result is not None
    assert isinstance(engine.storage, MemoryStorage)
    _, _, body = engine.storage.fetch(engine.storage.presign(found.result.key, 60))
    assert body.decode().splitlines() == ["_id,title", "1,welder", "2,nurse", "3,baker"]
