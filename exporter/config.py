"""What an operator writes into the TOML file: the sources, and which surface exports from which."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

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
from exporter.errors import ConfigurationError
from exporter.settings import Duration, parse_rate, said

LONGEST_PAGE = timedelta(minutes=5)
"""A slice that hangs is interrupted after a quarter of an hour, so a page must end well before."""


def _from_environment(value: Any) -> Any:
    """`${VAR}` in a string is replaced by that environment variable."""
    if not isinstance(value, str):
        return value

    def replaced(match: re.Match[str]) -> str:
        try:
            return os.environ[match[1]]
        except KeyError:
            raise ValueError(f"the environment variable {match[1]} is not set") from None

    return re.sub(r"\$\{(\w+)\}", replaced, value)


Text = Annotated[str, BeforeValidator(_from_environment)]


class _Source(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    page_size: int = Field(default=100, ge=1)
    """The most rows that the upstream gives at once."""
    columns: tuple[str, ...] | None = None
    """Columns of a CSV and their order; default: the contract's."""
    rate: Annotated[Rate, BeforeValidator(parse_rate)] | None = None
    """Requests that all workers together may start, such as `100/60s`; default: the contract's
    own bound, or none."""
    tolerated_drift: float = Field(default=0.05, ge=0, le=1)
    """Share of its rows by which a source read by page number may change during an export; the
    export is then `partial` and says by how much. Beyond it, it fails. 0: any change fails it."""

    @field_validator("columns")
    @classmethod
    def _are_distinct(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and (not all(value) or len(set(value)) < len(value)):
            raise ValueError("every column needs a name of its own")
        return value


class SourceConfig(_Source):
    """An upstream job API: `[sources.NAME]` of the TOML file."""

    type: Literal["hirebase", "qwestly", "bindbee", "coresignal"]
    base_url: Text
    api_key: Text = ""
    connector_token: Text = ""
    """Of Bindbee: which end customer's jobs are read."""
    max_in_flight: int = Field(default=8, ge=1, le=64)
    """Requests that one worker may have under way at once, where the contract can use several."""
    page_timeout: Duration = timedelta(seconds=60)
    """How long a worker waits for one page, all tries together, before it lets the export wait.
    One that must shut down waits for no more than that; a page that could be asked for smaller
    gets half of what is left, so that the smaller ones have their turn."""

    @model_validator(mode="after")
    def _has_its_token(self) -> Self:
        if (self.type == "bindbee") != bool(self.connector_token):
            raise ValueError("connector_token is needed by type bindbee, and by no other")
        return self

    @field_validator("base_url")
    @classmethod
    def _is_address(cls, value: str) -> str:
        try:
            url = urlsplit(value)
            well = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
        except ValueError:
            well = False
        # Paths are put behind it, so a query would be cut apart.
        if not well or "?" in value or "#" in value:
            raise ValueError("it is no address of an API: write https://HOST or http://HOST:PORT")
        return value

    @field_validator("api_key", "connector_token")
    @classmethod
    def _fits_a_header(cls, value: str) -> str:
        # The HTTP client quotes a header that it refuses, and that text would reach users.
        value = value.strip()
        if not (value.isascii() and value.isprintable()):
            raise ValueError("it holds characters that no HTTP header takes: copy the key again")
        return value

    @field_validator("page_timeout")
    @classmethod
    def _lets_go_of_workers(cls, value: timedelta) -> timedelta:
        if value > LONGEST_PAGE:
            raise ValueError("a worker waits at most 5m for a page: lower page_size instead")
        return value


class SqlConfig(_Source):
    """A table of postings, each row with an owner: `[sources.NAME]` with type "sql"."""

    type: Literal["sql"]
    url: Text
    """The database as SQLAlchemy names it, such as `postgresql+psycopg://USER:PASSWORD@HOST/DB`."""
    table: Text = "jobs"
    key: Text = "id"
    """The column that no two rows share; rows are read in its order."""
    owner: Text = "user_id"
    """The column that holds the user whose row it is. Nobody reads another's."""
    page_size: int = Field(default=1_000, ge=1)
    """Rows read by one statement: what is held in memory at once."""


AnySource = Annotated[SourceConfig | SqlConfig, Field(discriminator="type")]


class Surfaces(BaseModel):
    """Which source each contract exports from: `[surfaces]` of the TOML file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hirebase: str = "board"
    coresignal: str = "coresignal"
    pipeline: str = "pipeline"


class Config(BaseModel):
    """The TOML file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sources: dict[str, AnySource] = Field(default_factory=dict)
    surfaces: Surfaces = Surfaces()


LOCAL = """\
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
"""What holds when there is no file: the board and the table of the local stack."""


def load_config(path: Path | None) -> Config:
    """The sources and surfaces. Raises ConfigurationError naming file, table and key."""
    if path is None and (default := Path("exporter.toml")).exists():
        path = default
    name = str(path) if path else "the built-in configuration"
    try:
        text = path.read_text("utf-8") if path else LOCAL
        return Config.model_validate(tomllib.loads(text))
    except OSError as error:
        raise ConfigurationError(
            f"EXPORTER_CONFIG names {name}, which cannot be read: {error.strerror}"
        ) from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{name} is not TOML: {error}") from None
    except ValidationError as error:
        problems = "; ".join(f"{_place(dict(e))}: {said(e)}" for e in error.errors())
        raise ConfigurationError(f"{name}: {problems}") from None


def _place(problem: Mapping[str, Any]) -> str:
    """Where in the file: pydantic names the type of a source as if it were a table."""
    table, *rest = problem["loc"]
    if table == "sources" and problem["type"].startswith("union_tag"):
        rest.append("type")
    elif table == "sources":
        del rest[1:2]
    return ".".join(map(str, [table, *rest]))
