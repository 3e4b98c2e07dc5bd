"""The settings of a source: what each type of source derives its own model from."""

from __future__ import annotations

import os
import re
from abc import abstractmethod
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, ClassVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from exporter.clock import Clock
from exporter.contracts.described import Filter
from exporter.core.columns import split_type
from exporter.core.rates import UNLIMITED, Budget, Rate
from exporter.environment import urls
from exporter.environment.values import Duration, parse_rate
from exporter.sources.base import Source
from exporter.sources.http.client import Upstream

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


def _http_url(value: str) -> str:
    try:
        return urls.http_url(value.strip(), example="https://HOST or http://HOST:PORT")
    except ValueError as error:
        raise ValueError(f"this is not the address of an API: {error}") from None


def _header(value: str) -> str:
    # The HTTP client quotes an invalid header in its error, and users would see the key there.
    value = value.strip()
    if not (value.isascii() and value.isprintable()):
        raise ValueError(
            "the value has characters that are not allowed in an HTTP header: copy the key again"
        )
    return value


def _distinct(value: tuple[str, ...] | None) -> tuple[str, ...] | None:
    names = [split_type(one)[0] for one in value or ()]
    if value is not None and (not all(names) or len(set(names)) < len(names)):
        raise ValueError("every column needs a name that is not empty and not repeated")
    return value


def _short(value: timedelta) -> timedelta:
    if value > MAX_PAGE_TIMEOUT:
        raise ValueError("a worker waits at most 5m for a page: lower page_size instead")
    return value


Text = Annotated[str, BeforeValidator(_from_environment)]
Name = Annotated[Text, Field(min_length=1)]
Whole = Annotated[int, BeforeValidator(_not_a_boolean)]
PageSize = Annotated[Whole, Field(ge=1, le=MAX_PAGE_SIZE)]
RateLimit = Annotated[Rate, BeforeValidator(parse_rate)]
InFlight = Annotated[Whole, Field(ge=1, le=64)]
Secret = Annotated[Text, Field(repr=False)]
"""A text that no error and no log shows."""
HeaderSecret = Annotated[Secret, AfterValidator(_header)]
"""A key that is sent as a header, or as a part of one."""


class SourceConfig(BaseModel):
    """The settings of one source; a subclass is one type of source, and all that is known of it.

    A subclass names its type by `type: Literal["NAME"] = "NAME"`, adds its own keys, and makes its
    source. Each key has a docstring, which documents it for operators.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    documented_columns: ClassVar[tuple[str, ...]] = ()
    """The fields that the vendor documents, whichever `columns` the settings choose."""
    documented_types: ClassVar[Mapping[str, str]] = {}
    """The types of the vendor's fields, by name."""
    filters: ClassVar[tuple[Filter, ...]] = ()
    """The filters of a search, for forms and documentation."""

    type: str
    page_size: PageSize = 100
    """Maximum number of rows that the upstream returns in one page."""
    columns: Annotated[tuple[str, ...] | None, AfterValidator(_distinct)] = None
    """Columns of a CSV in order, each `name` or `name:type`; default: those of the contract.

    The types are text (default), int, float, decimal(18,2), flag, date, moment and json.
    """
    rate: RateLimit | None = None
    """Rate limit of all workers together, such as `100/60s`; default: unlimited."""
    tolerated_drift: Annotated[float, Field(ge=0, le=1), BeforeValidator(_not_a_boolean)] = 0.05
    """Share of its rows by which a source may change while it is read by page number.

    With a smaller change the export is `partial` and reports the change; with a larger one it
    fails. 0: any change fails the export.
    """

    @property
    def names(self) -> tuple[str, ...] | None:
        """The names of `columns`; None without any."""
        return None if self.columns is None else tuple(split_type(one)[0] for one in self.columns)

    @property
    def types(self) -> dict[str, str]:
        """The types of those of `columns` that are given with one."""
        found = {one: split_type(one) for one in self.columns or ()}
        return {name: kind for one, (name, kind) in found.items() if name != one}

    @classmethod
    def type_name(cls) -> str:
        """Returns the name of this type of source, which is the value of `type`."""
        return str(get_args(cls.model_fields["type"].annotation)[0])

    def feature(self, search: Mapping[str, Any]) -> str:  # noqa: ARG002
        """Returns the feature of a plan that an export of this search needs."""
        return "export"

    @abstractmethod
    def make(self, clock: Clock, budget: Budget = UNLIMITED) -> Source:
        """Returns the source; each of its requests is counted in `budget`."""


class HttpConfig(SourceConfig):
    """The settings of a source that reads the HTTP API of an upstream."""

    base_url: Annotated[Text, AfterValidator(_http_url)]
    """Address of the API."""
    api_key: HeaderSecret = ""
    """Key of the API."""
    page_timeout: Annotated[Duration, AfterValidator(_short)] = timedelta(seconds=60)
    """Maximum time that a worker spends on one page, retries included.

    If the page has not arrived by then, the export's phase becomes waiting, and the worker is free
    for other exports. A worker that shuts down waits no longer than this either. If the upstream
    can be asked for smaller pages, each request gets half of the remaining time, so that time is
    left for a smaller page.
    """

    def connect(self, headers: Mapping[str, str], clock: Clock, budget: Budget) -> Upstream:
        """Returns the client of the API, which sends these headers with each request."""
        timeout = self.page_timeout.total_seconds()
        return Upstream(self.base_url, headers, clock, budget=budget, timeout=timeout)
