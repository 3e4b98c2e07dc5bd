"""Operations of the service, as its OpenAPI document describes them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import quote

JSON = "application/json"
FORM = "multipart/form-data"
BOUNDARY = "attack-boundary"
ALIASES = {
    "/v1/professional_network/": "/cdapi",
    "/v1/bulk_collect/": "/cdapi",
    "/v2/data_requests/": "/cdapi",
}
"""Beginnings of paths that are served under a prefix as well; the document has them once."""
PUBLIC_PARAMETERS = ("job_id", "company_slug", "job_slug", "name")
"""Parts of paths that name what belongs to no user, such as the name of a source."""


class Operation(NamedTuple):
    """An operation on one path."""

    method: str
    path: str
    name: str
    keyed: bool
    """True if it needs an API key."""
    parameters: Sequence[Mapping[str, Any]]
    media_type: str | None
    """Of its body; None: it has none."""
    example: Any
    """A body that it accepts."""
    schema: Mapping[str, Any]
    """Of its body."""

    def named(self, place: str) -> list[str]:
        """Names of the parameters in the path, the query or the headers."""
        return [one["name"] for one in self.parameters if one["in"] == place]

    @property
    def own_ids(self) -> list[str]:
        """Names of the path's parameters that belong to one user."""
        return [name for name in self.named("path") if name not in PUBLIC_PARAMETERS]

    def at(self, values: Mapping[str, str], fallback: str = "1") -> str:
        """The path with these values, quoted."""

        def value(match: re.Match[str]) -> str:
            return quote(values.get(match[1], fallback), safe="")

        return re.sub(r"\{(\w+)\}", value, self.path)

    def body(self, example: Any = None) -> tuple[list[tuple[str, str]], bytes | None]:
        """Headers and bytes of this body, or of the documented example."""
        sent = self.example if example is None else example
        if self.media_type is None:
            return [], None
        if self.media_type == FORM:
            return [("Content-Type", f"{FORM}; boundary={BOUNDARY}")], form(sent)
        return [("Content-Type", JSON)], json.dumps(sent).encode()


def form(fields: Mapping[str, Any]) -> bytes:
    """The fields as multipart/form-data; the field `ids_file` is a file."""
    lines = []
    for name, value in fields.items():
        file = '; filename="ids.csv"' if name == "ids_file" else ""
        kind = f'Content-Disposition: form-data; name="{name}"{file}'
        lines.append(f"--{BOUNDARY}\r\n{kind}\r\n\r\n{value}\r\n")
    return "".join([*lines, f"--{BOUNDARY}--\r\n"]).encode()


def read(document: Mapping[str, Any], webhook_url: str) -> list[Operation]:
    """All operations, those under a prefix too; examples have this URL for webhooks."""
    found = []
    for path, methods in document["paths"].items():
        for method, described in methods.items():
            content = described.get("requestBody", {}).get("content", {})
            media_type = next(iter(content), None)
            example = content[media_type].get("example", {}) if media_type else None
            if isinstance(example, dict):
                own = {"url": webhook_url, "since": f"{datetime.now(UTC):%Y-%m-%d}"}
                example |= {name: own[name] for name in own.keys() & example}
            operation = Operation(
                method.upper(),
                path,
                described["operationId"],
                described["security"] != [],
                described.get("parameters", []),
                media_type,
                example,
                resolve(content[media_type]["schema"], document) if media_type else {},
            )
            found.append(operation)
            found += [
                operation._replace(path=prefix + path)
                for beginning, prefix in ALIASES.items()
                if path.startswith(beginning)
            ]
    return found


def resolve(schema: Mapping[str, Any], document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema with its first reference followed."""
    for key in ("allOf", "anyOf"):
        if key in schema:
            return resolve(schema[key][0], document)
    name = schema.get("$ref", "").rpartition("/")[2]
    return document["components"]["schemas"][name] if name else schema


def fields(operation: Operation, document: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Paths of all fields of the body, to a depth of two."""
    for name, schema in operation.schema.get("properties", {}).items():
        yield (name,)
        for inner in resolve(schema, document).get("properties", {}):
            yield (name, inner)


def changed(example: Any, path: Sequence[str], value: Any) -> Any:
    """A copy of the body with another value in that place."""
    first, *rest = path
    outer = example if isinstance(example, dict) else {}
    inner = changed(outer.get(first), rest, value) if rest else value
    return {**outer, first: inner}
