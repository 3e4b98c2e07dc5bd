"""The TOML file of the operator: the sources, and the source of each surface."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from exporter.environment import names, proxies
from exporter.environment.problems import problem_text
from exporter.errors import ConfigurationError
from exporter.sources import registry
from exporter.sources.config import HttpConfig, SourceConfig

if TYPE_CHECKING:
    AnySource = SourceConfig
else:
    AnySource = Annotated[Union[*registry.TYPES.values()], Field(discriminator="type")]


class Surfaces(BaseModel):
    """The source of each surface, by name: `[surfaces]` of the TOML file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hirebase: str = "board"
    coresignal: str = "coresignal"
    pipeline: str = "pipeline"


class Config(BaseModel):
    """The content of the TOML file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sources: dict[Annotated[str, Field(pattern=r"\S")], AnySource] = Field(default_factory=dict)
    surfaces: Surfaces = Surfaces()


LOCAL_CONFIG = """\
[sources.board]
type = "hirebase"
base_url = "http://127.0.0.1:8810"
api_key = "${BOARD_KEY}"
page_size = 100

[sources.qwestly]
type = "qwestly"
base_url = "http://127.0.0.1:8810"
api_key = "${BOARD_KEY}"
page_size = 200

[sources.bindbee]
type = "bindbee"
base_url = "http://127.0.0.1:8810"
api_key = "${BOARD_KEY}"
connector_token = "${BOARD_KEY}"
page_size = 200

[sources.coresignal]
type = "coresignal"
base_url = "http://127.0.0.1:8810/cdapi"
api_key = "${BOARD_KEY}"
page_size = 1000

[sources.pipeline]
type = "sql"
url = "sqlite:///.exporter/pipeline.sqlite"

[surfaces]
hirebase = "board"
coresignal = "coresignal"
pipeline = "pipeline"
"""
"""The configuration that applies without a file: the sources of the local stack."""


def load_config(path: Path | None) -> Config:
    """Returns the sources and surfaces of the file, or LOCAL_CONFIG if there is no file.

    Without a path, exporter.toml in the current directory is read if it exists. Raises
    ConfigurationError, whose text names the file and each wrong table and key.
    """
    if path is None and (default := Path("exporter.toml")).exists():
        path = default
    name = str(path) if path else "the built-in configuration"
    try:
        text = path.read_text("utf-8") if path else LOCAL_CONFIG
        config = Config.model_validate(tomllib.loads(text))
    except OSError as error:
        raise ConfigurationError(
            f"EXPORTER_CONFIG names {name}, which cannot be read: {error.strerror}"
        ) from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{name} is not TOML: {error}") from None
    except ValidationError as error:
        places: dict[str, list[str]] = {}
        for one in map(dict, error.errors()):
            places.setdefault(_text(one), []).append(_place(one))
        problems = "; ".join(f"{', '.join(where)}: {what}" for what, where in places.items())
        raise ConfigurationError(f"{name}: {problems}") from None
    _check_surfaces(config, name)
    return config


def _check_surfaces(config: Config, file: str) -> None:
    """Raises ConfigurationError if the file names a source for a surface that it does not have."""
    for surface in sorted(config.surfaces.model_fields_set):
        source = getattr(config.surfaces, surface)
        if source not in config.sources:
            hint = names.unknown(source, config.sources, "source")
            raise ConfigurationError(f"{file}: surfaces.{surface}: {source!r} is an {hint}")


def check_proxies(config: Config, s3_endpoint_url: str | None) -> None:
    """Raises ConfigurationError if the environment names a proxy that cannot be used.

    Only the proxies for the sources and for the object store are checked.
    """
    addresses = [one.base_url for one in config.sources.values() if isinstance(one, HttpConfig)]
    for address in (*addresses, s3_endpoint_url or "https://s3.amazonaws.com"):
        proxies.find(address)


def _text(problem: Mapping[str, Any]) -> str:
    """Returns what is wrong at a place of the file, with the name that was probably meant."""
    place, kind = problem["loc"], problem["type"]
    if kind == "extra_forbidden":
        return names.unknown(str(place[-1]), _model(place).model_fields)
    if kind == "union_tag_not_found":
        return f"Field required: write type = {', '.join(map(repr, registry.TYPES))}"
    if kind == "union_tag_invalid":
        tag = problem["ctx"]["tag"]
        return f"{tag!r} is an {names.unknown(tag, registry.TYPES, 'type')} (such as 'hirebase')"
    field = _model(place).model_fields.get(str(place[_DEPTH])) if len(place) > _DEPTH else None
    return problem_text(problem, secret=field is not None and not field.repr)


_DEPTH = 3
"""Place of a key in pydantic's location, after `sources`, the name and the type of the source."""


def _model(place: Sequence[str | int]) -> type[BaseModel]:
    """Returns the model of the table that holds the key at pydantic's location."""
    if place[0] == "sources" and len(place) > _DEPTH:
        return registry.TYPES[str(place[2])]
    return Surfaces if place[0] == "surfaces" and len(place) > 1 else Config


def _place(problem: Mapping[str, Any]) -> str:
    """Returns the place of an error in the file, such as `sources.board.page_size`.

    pydantic's location also contains the type of the source, such as `hirebase`, after the name of
    the source. It is not part of the file's structure, so it is removed.
    """
    table, *rest = problem["loc"]
    if table == "sources" and problem["type"].startswith("union_tag"):
        rest.append("type")
    elif table == "sources":
        del rest[1:2]
    return ".".join(map(str, [table, *rest]))
