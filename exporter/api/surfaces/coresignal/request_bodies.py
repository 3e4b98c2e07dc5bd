"""Parses the request bodies of the Coresignal contract: JSON, and forms with ids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import parse_qs

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from exporter.api import errors, webhook_fields
from exporter.api.files import uploads
from exporter.api.openapi import bounds
from exporter.api.refusal import Refusal
from exporter.api.surfaces.coresignal.versions import V2
from exporter.contracts.coresignal import JobFilters
from exporter.contracts.filters import refuse
from exporter.errors import problem

MAX_FORM_FIELDS = 20_000
"""Maximum number of fields in a form: more than the ids that it may contain."""

_BLANK_OR_WEBHOOK: dict[str, Any] = {
    **bounds.WEBHOOK,
    "pattern": r"^(\s*|https?://[!-~]+)$",
}
"""A blank URL means no webhook, because the vendor's templates leave the field blank."""
_ID: dict[str, Any] = {
    "anyOf": [
        {"type": "integer", "minimum": 0, "maximum": 10**uploads.MAX_ID_DIGITS - 1},
        {"type": "string", "pattern": f"^[0-9]{{1,{uploads.MAX_ID_DIGITS}}}$"},
    ]
}

Model = TypeVar("Model", bound=BaseModel)


def _none_if_blank(url: str | None) -> str | None:
    """Returns None for a blank URL, because the vendor's templates leave the field blank."""
    return url if url and url.strip() else None


def _parse_ids(value: Any) -> Any:
    """Returns the ids as numbers; refuses too many ids, and the list at its first wrong one."""
    if not isinstance(value, list):
        return value
    if len(value) > V2.max_ids:
        raise uploads.too_many(V2.max_ids)
    return [_parse_id(place, one) for place, one in enumerate(value)]


def _parse_id(place: int, value: Any) -> int:
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not (text.isascii() and text.isdigit() and len(text) <= uploads.MAX_ID_DIGITS):
        shown = text[:50] if text else type(value).__name__
        message = f"{shown!r} is not an id: ids are numbers of up to {uploads.MAX_ID_DIGITS} digits"
        refuse("value_error", f"entry {place}: {message}")
    return int(text)


class Options(webhook_fields.WebhookFields):
    """The fields of every request."""

    model_config = ConfigDict(extra="forbid", strict=True)

    webhook_url: Annotated[str | None, AfterValidator(_none_if_blank)] = Field(
        None,
        description=webhook_fields.WEBHOOK_URL_DESCRIPTION + " Blank text counts as null.",
        json_schema_extra=_BLANK_OR_WEBHOOK,
    )
    data_format: Literal["json"] | None = Field(
        None, description="Always `json`; accepted because older clients send this field."
    )


class Limited(Options):
    """The fields of a request for postings."""

    limit: int | None = Field(
        None, ge=1, description="Maximum number of records.", json_schema_extra=bounds.COUNT
    )


class FilterRequest(Limited):
    """A request for postings that match filters. Unknown fields are rejected."""

    filters: dict[str, Any] = Field(
        description="The filters, all optional; `{}` matches every posting.",
        json_schema_extra=bounds.objects(JobFilters),
    )


class DslRequest(Limited):
    """A request for postings that match an Elasticsearch query, in either documented field."""

    # The rule "one of these fields" is not expressed field by field: client generators would make a
    # choice between objects of it, each without the other fields.
    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    es_dsl_query: dict[str, Any] | None = Field(None, description='`{"query": {…}}`')
    query: dict[str, Any] | None = Field(None, description="The query without the outer object.")


class IdsRequest(Limited):
    """A request for postings with given ids."""

    ids: Annotated[list[int], BeforeValidator(_parse_ids)] = Field(
        description="Numbers, or strings of digits; each id once.",
        json_schema_extra={"items": _ID, "minItems": 1, "uniqueItems": True},
    )


class RequestIdentity(BaseModel):
    """The content that must be equal in all requests with the same Idempotency-Key."""

    search: dict[str, Any]
    limit: int | None
    webhook_url: str | None
    webhook_events: list[str] | None
    ids: str | None


def parse_form(body: bytes) -> dict[str, str]:
    """Returns the fields of a form; a field that is repeated becomes a list with commas."""
    try:
        text = body.decode()
        fields = parse_qs(
            text, keep_blank_values=True, max_num_fields=MAX_FORM_FIELDS, errors="strict"
        )
    except UnicodeDecodeError:
        detail = "the form is not in UTF-8: send it in UTF-8"
        raise Refusal(400, "form_malformed", detail) from None
    except ValueError:
        message = f"the form has over {MAX_FORM_FIELDS} fields: send fewer"
        raise errors.invalid([problem(("body",), message, "too_long")]) from None
    return {name: ",".join(values) for name, values in fields.items()}


def parse_id_form(fields: Mapping[str, str]) -> IdsRequest:
    """Parses a form whose field `ids` is `1,2`, `[1, 2]` or one id per line."""
    given = parse_form_fields(fields)
    if "ids" in given:
        given["ids"] = given["ids"].strip("[] \r\n\t").replace(",", " ").split()
    limit = str(given.get("limit", ""))
    if limit.isascii() and limit.isdigit() and len(limit) <= uploads.MAX_ID_DIGITS:
        given["limit"] = int(limit)
    return validate(IdsRequest, given)


def parse_form_fields(fields: Mapping[str, str]) -> dict[str, Any]:
    """Returns the fields of a form that are not blank; `webhook_events` becomes a list of names."""
    given: dict[str, Any] = {name: text for name, text in fields.items() if text.strip()}
    if "webhook_events" in given:
        given["webhook_events"] = given["webhook_events"].replace(",", " ").split()
    return given


def validate(model: type[Model], given: Mapping[str, Any]) -> Model:
    """Returns the fields of a form as a model; raises Refusal 422, naming all wrong fields."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise errors.invalid(errors.field_problems(error, model)) from None
