"""The TOML file of the operator: the sources, and the source of each surface."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from exporter.core.rates import Rate
from exporter.environment import names, proxies, urls
from exporter.environment.problems import problem_text
from exporter.environment.values import Duration, parse_rate
from exporter.errors import ConfigurationError

MAX_PAGE_TIMEOUT = timedelta(minutes=5)
"""Longest `page_timeout`; far below the 15 minutes after which a hanging slice is interrupted."""

MAX_PAGE_SIZE = 1_000_000
"""Largest `page_size`: the rows of a page are in memory at the same time."""


def _from_environment(value: Any) -> Any:
    """Replaces `${VAR}` in a string by the value of that environment variable."""
    if not isinstance(value, str):
        return value

    def replaced(match: re.Match[str]) -> str:
        if not re.fullmatch(r"\$\{\w+\}", match[0]):
            raise ValueError(
                f"{match[0]!r} names no environment variable: write ${{NAME}}, with letters, "
                "digits and underscores"
            )
        name = match[0][2:-1]
        if not os.environ.get(name):
            raise ValueError(f"the environment variable {name} is not set")
        return os.environ[name]

    return re.sub(r"\$\{[^}]*\}?", replaced, value)


def _not_a_boolean(value: Any) -> Any:
    """Refuses true and false, which pydantic takes for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError(f"{str(value).lower()} is not a number")  # noqa: TRY004 - for pydantic
    return value


Text = Annotated[str, BeforeValidator(_from_environment)]
Name = Annotated[Text, Field(min_length=1)]
Whole = Annotated[int, BeforeValidator(_not_a_boolean)]


class _Source(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    page_size: Whole = Field(default=100, ge=1, le=MAX_PAGE_SIZE)
    """Maximum number of rows that the upstream returns in one page."""
    columns: tuple[str, ...] | None = None
    """Columns of a CSV in order; default: the columns of the contract."""
    rate: Annotated[Rate, BeforeValidator(parse_rate)] | None = None
    """Rate limit of all workers together, such as `100/60s`; default: the contract's, or none."""
    tolerated_drift: Annotated[float, BeforeValidator(_not_a_boolean)] = Field(
        default=0.05, ge=0, le=1
    )
    """Share of its rows by which a source may change while it is read by page number.

    With a smaller change the export is `partial` and reports the change; with a larger one it
    fails. 0: any change fails the export.
    """

    @field_validator("columns")
    @classmethod
    def _are_distinct(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and (not all(value) or len(set(value)) < len(value)):
            raise ValueError("every column needs a name that is not empty and not repeated")
        return value


class SourceConfig(_Source):
    """An upstream job API: `[sources.NAME]` of the TOML file."""

    type: Literal["hirebase", "qwestly", "bindbee", "coresignal"]
    base_url: Text
    api_key: Text = ""
    connector_token: Text = ""
    """Bindbee only: token of the end customer whose jobs are read."""
    max_in_flight: Whole = Field(default=8, ge=1, le=64)
    """Maximum number of concurrent requests of one worker, if the contract allows several."""
    page_timeout: Duration = timedelta(seconds=60)
    """Maximum time that a worker spends on one page, retries included.

    If the page has not arrived by then, the export's phase becomes waiting, and the worker is free
    for other exports. A worker that shuts down waits no longer than this either. If the upstream
    can be asked for smaller pages, each request gets half of the remaining time, so that time is
    left for a smaller page.
    """

    @model_validator(mode="after")
    def _has_only_keys_of_its_type(self) -> Self:
        if self.type == "bindbee" and "max_in_flight" in self.model_fields_set:
            raise ValueError(
                "max_in_flight has no effect with type bindbee, whose pages are read one after the "
                "other: leave it out"
            )
        return self

    @model_validator(mode="after")
    def _has_its_token(self) -> Self:
        if (self.type == "bindbee") != bool(self.connector_token):
            raise ValueError(
                "connector_token is required with type bindbee, and not allowed with other types"
            )
        return self

    @field_validator("base_url")
    @classmethod
    def _is_address(cls, value: str) -> str:
        try:
            return urls.http_url(value.strip(), example="https://HOST or http://HOST:PORT")
        except ValueError as error:
            raise ValueError(f"this is not the address of an API: {error}") from None

    @field_validator("api_key", "connector_token")
    @classmethod
    def _fits_a_header(cls, value: str) -> str:
        # The HTTP client quotes an invalid header in its error, and users would see the key there.
        value = value.strip()
        if not (value.isascii() and value.isprintable()):
            raise ValueError(
                "the value has characters that are not allowed in an HTTP header: copy the key"
                " again"
            )
        return value

    @field_validator("page_timeout")
    @classmethod
    def _is_within_bounds(cls, value: timedelta) -> timedelta:
        if value > MAX_PAGE_TIMEOUT:
            raise ValueError("a worker waits at most 5m for a page: lower page_size instead")
        return value


class SqlConfig(_Source):
    """A table of postings in which each row has an owner: `[sources.NAME]` with type "sql"."""

    type: Literal["sql"]
    url: Text
    """SQLAlchemy's URL of the database, such as `postgresql+psycopg://USER:PASSWORD@HOST/DB`."""
    table: Name = "jobs"
    """Name of the table or view."""
    key: Name = "id"
    """Column with a unique value in each row; rows are read in the order of this column."""
    owner: Name = "user_id"
    """Column with the id of the user who owns the row; a user's exports read only these rows."""
    page_size: Whole = Field(default=1_000, ge=1, le=MAX_PAGE_SIZE)
    """Maximum number of rows that one statement reads; they are in memory at the same time."""

    @field_validator("url")
    @classmethod
    def _is_url_of_a_database(cls, value: str) -> str:
        value = value.strip()
        match = re.match(r"[a-z][a-z0-9_]*(\+[a-z0-9_]+)?://(?P<place>.*)", value, re.DOTALL)
        place = re.split(r"[/?]", match["place"].rpartition("@")[2])[0] if match else ""
        port = re.search(r":([^:\]]*)$", place)
        if not match or (port and not re.fullmatch(r"[0-9]{1,5}", port[1])):
            raise ValueError(
                "this is not the URL of a database: write it like "
                "postgresql+psycopg://USER:PASSWORD@HOST/DATABASE or sqlite:///FILE"
            )
        return value


AnySource = Annotated[SourceConfig | SqlConfig, Field(discriminator="type")]


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


_SECRETS = ("api_key", "connector_token", "url")
"""Keys whose values no error shows."""
_TYPES = ("hirebase", "qwestly", "bindbee", "coresignal", "sql")


def check_proxies(config: Config, s3_endpoint_url: str | None) -> None:
    """Raises ConfigurationError if the environment names a proxy that cannot be used.

    Only the proxies for the sources and for the object store are checked.
    """
    addresses = [one.base_url for one in config.sources.values() if isinstance(one, SourceConfig)]
    for address in (*addresses, s3_endpoint_url or "https://s3.amazonaws.com"):
        proxies.find(address)


def _text(problem: Mapping[str, Any]) -> str:
    """Returns what is wrong at a place of the file, with the name that was probably meant."""
    place, kind = problem["loc"], problem["type"]
    if kind == "extra_forbidden":
        return names.unknown(str(place[-1]), _known_keys(place[:-1]))
    if kind == "union_tag_not_found":
        return f"Field required: write type = {', '.join(map(repr, _TYPES))}"
    if kind == "union_tag_invalid":
        tag = problem["ctx"]["tag"]
        return f"{tag!r} is an {names.unknown(tag, _TYPES, 'type')} (such as 'hirebase')"
    return problem_text(problem, secret=place[-1] in _SECRETS)


def _known_keys(table: Sequence[str | int]) -> Collection[str]:
    """Returns the keys of a table of the file, given by pydantic's location."""
    models: Mapping[str, type[BaseModel]] = {"surfaces": Surfaces, "sql": SqlConfig}
    model = models.get(str(table[-1]), SourceConfig) if table else Config
    return model.model_fields


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
