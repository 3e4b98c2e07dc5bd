"""The seam of surfaces: one value describes a contract that the API serves.

The routes, the OpenAPI document, the error shapes, the checks of `edge` and the shortcut of
frequent requests are made from these values. `surfaces.registry` lists them, and says how to add
one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

import msgspec
from pydantic import BaseModel

from exporter.api.refusal import Refusal


class Header(NamedTuple):
    """A response header of the OpenAPI document."""

    name: str
    description: str
    schema: Mapping[str, Any] = {"type": "string"}


class Answer(NamedTuple):
    """An answer of one operation with one status."""

    description: str
    shape: type[msgspec.Struct] | None = None
    """The JSON body; None: no body, or only those of `content`."""
    example: Any = None
    """A JSON body, with all its nulls."""
    headers: Sequence[Header] = ()
    """Headers in addition to those that all operations have."""
    content: Mapping[str, Mapping[str, Any]] = {}
    """OpenAPI entries of bodies, by media type, besides the JSON body."""


class Body(NamedTuple):
    """The request body of an operation."""

    model: type[BaseModel] | Mapping[str, Any]
    """The pydantic model that validates the body, or a JSON Schema."""
    example: Any
    required: bool = True
    media_type: str = "application/json"
    nested: Sequence[type[BaseModel]] = ()
    """Further models, to which the schema of the model refers by name."""


class Operation(NamedTuple):
    """An operation: one handler on one method and path."""

    place: str
    """Method and path, such as `GET /v1/exports/{export_id}`; an id is passed in lower case."""
    handler: Callable[..., Any]
    """Its docstring is the description, and its annotated parameters are those of the query."""
    id: str
    """Published name that generated clients use; never changes."""
    summary: str
    answers: Mapping[int, Answer]
    errors: Sequence[int] | Mapping[int, Sequence[Header]] = ()
    """Statuses of errors besides those of every operation, with their headers if they have any."""
    body: Body | None = None
    parameters: Sequence[Mapping[str, Any]] = ()
    """OpenAPI entries of the headers and query parameters that the handler reads itself."""
    limit_headers: Sequence[Header] = ()
    """Headers about the caller's rate limit, on answers of any status except 401 and 405."""
    aliases: Sequence[str] = ()
    """Further paths of the operation, which the document leaves out."""
    is_public: bool = False
    """The operation needs no API key."""
    is_frequent: bool = False
    """The shortcut serves the operation if its request has nothing that must be checked.

    The handler is a coroutine. That of a GET takes the request and the id at the end of its path,
    that of a POST the request and the body.
    """
    codes: Mapping[int, str] = {}
    """Codes of typical errors by status, for the examples, where the usual error does not fit."""

    @property
    def method(self) -> str:
        """The HTTP method."""
        return self.place.partition(" ")[0]

    @property
    def path(self) -> str:
        """The path, with its parameters in braces."""
        return self.place.partition(" ")[2]

    @property
    def headers(self) -> frozenset[bytes]:
        """Names of the documented request headers, in lower case."""
        names = (one["name"] for one in self.parameters if one["in"] == "header")
        return frozenset(name.lower().encode() for name in names)


class Asked(NamedTuple):
    """The facts about a request that an error may repeat."""

    request_id: str
    now: datetime
    query: Mapping[str, str]


class ErrorShape(NamedTuple):
    """The form of the errors of a surface: each Refusal is rendered as one JSON object."""

    schema: type[msgspec.Struct]
    render: Callable[[Refusal, Asked], msgspec.Struct]
    media_type: str = "application/json"
    statuses: Mapping[str, int] = {}
    """Statuses by the code of the Refusal, where they differ from the Refusal's own."""
    examples: Mapping[int, Refusal] = {}
    """Examples by status, where those of all shapes do not fit."""

    def status(self, code: str, usual: int) -> int:
        """Returns the status of errors with this code, whose usual status is given."""
        return self.statuses.get(code, usual)


@dataclass(frozen=True, eq=False)
class Surface:
    """A contract of the API."""

    name: str
    tag: str
    """Tag of the operations in the OpenAPI document."""
    description: str
    prefixes: Sequence[str]
    """Beginnings of the paths that belong to the surface, each up to a whole step of the path.

    A prefix with a slash at its end does not own the path without it. Of two prefixes the longer
    one decides.
    """
    errors: ErrorShape
    operations: Sequence[Operation]
    extras: Literal["refuse", "name", "pass"] = "refuse"
    """Answer to query parameters and bodies that an operation does not document.

    `refuse`: status 422. `name`: they are ignored and named in X-Ignored-Parameters, for contracts
    whose clients send more than is documented. `pass`: the handlers check their query strings.
    """
    feature: str | None = None
    """Feature that the plan of a key must include for any request; None: no feature.

    `ExportService` checks the feature of each export by itself.
    """
    default_source: str | None = None
    """Source of the exports unless `[surfaces]` names another; None: requests name their source.

    `config.Surfaces` has a field of the surface's name with this default.
    """


def special_headers(surfaces: Iterable[Surface]) -> frozenset[bytes]:
    """Returns the names of all headers that some operation documents, in lower case."""
    operations = (operation for surface in surfaces for operation in surface.operations)
    return frozenset[bytes]().union(*(operation.headers for operation in operations))


class Surfaces:
    """The surfaces of one app. A path that no surface owns has the `default` error shape."""

    def __init__(self, surfaces: Iterable[Surface], default: ErrorShape) -> None:
        self._all = tuple(surfaces)
        self._default = default
        found = [(prefix, one) for one in self._all for prefix in one.prefixes]
        self._owners = sorted(found, key=lambda owner: len(owner[0]), reverse=True)
        self._featured = [one for one in self._owners if one[1].feature]

    def __iter__(self) -> Iterator[Surface]:
        return iter(self._all)

    def owner(self, path: str) -> Surface | None:
        """Returns the surface with the longest prefix of the path."""
        return next((one for prefix, one in self._owners if _owns(prefix, path)), None)

    def errors(self, path: str) -> ErrorShape:
        """Returns the error shape of the path."""
        owner = self.owner(path)
        return owner.errors if owner else self._default

    def feature(self, path: str) -> str | None:
        """Returns the feature that requests of the path need."""
        # Asked at each request: few surfaces have a feature, so most prefixes are not compared.
        if not any(_owns(prefix, path) for prefix, _ in self._featured):
            return None
        owner = self.owner(path)
        return owner.feature if owner else None


def _owns(prefix: str, path: str) -> bool:
    return path == prefix or path.startswith(prefix.rstrip("/") + "/")
