"""The query string of the pipeline contract: its parameters, and their validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from fastapi import Request

from exporter.api import errors, webhook_fields
from exporter.api.openapi import bounds
from exporter.api.refusal import Refusal
from exporter.api.state import service_of
from exporter.contracts.pipeline import COLUMNS, SOURCES, STATUSES
from exporter.core import events
from exporter.errors import (
    ConfigurationError,
    FieldProblem,
    QueryError,
    problem,
    within,
)
from exporter.service.exports import ExportService
from exporter.sources.sql.source import SqlSource

CSV_COLUMNS = tuple(
    name for name in COLUMNS if name not in ("job_description", "ai_reasoning", "scraped_at")
)
FORMATS: Mapping[str, str] = {"json": "json_envelope", "csv": "csv"}
"""Maps the contract's format names to the service's format names."""


class ParsedQuery(NamedTuple):
    """The valid parameters of a request."""

    format: str
    csv_safe: bool
    filters: dict[str, Any]
    hook: webhook_fields.RequestedWebhook


def parse(request: Request, user_id: str, later: bool, now: datetime) -> ParsedQuery:
    """Returns the parameters of a request. Raises Refusal 400, which names all wrong ones."""
    given = request.query_params
    problems: list[FieldProblem] = []
    single = ("format", "from", "to", "csv_safe", "webhook_url")
    listed = ("status", "source", "webhook_events")
    for name in given:
        if name not in (*single, *listed):
            known = ", ".join((*single, *listed))
            problems.append(problem(("query", name), f"unknown parameter; known: {known}"))
        elif name in single and len(given.getlist(name)) > 1:
            problems.append(problem(("query", name), "given more than once"))
    wanted = given.get("format", "json")
    if wanted not in FORMATS:
        text = f"Invalid format {wanted[:100]!r}: give {' or '.join(FORMATS)}"
        problems.append(problem(("query", "format"), text))
    csv_safe = given.get("csv_safe", "false")
    if csv_safe not in ("true", "false"):
        problems.append(problem(("query", "csv_safe"), f"{csv_safe[:100]!r} is not true or false"))
    fields = webhook_fields.WebhookFields.model_construct(
        webhook_url=given.get("webhook_url"), webhook_events=given.getlist("webhook_events") or None
    )
    hook = webhook_fields.read_webhook(request, user_id, fields)
    problems += [problem(("query", str(one["loc"][0])), one["msg"]) for one in hook.wrong]
    if fields.webhook_url is not None and not later:
        text = "a webhook needs the header Prefer: respond-async: send that, too"
        problems.append(problem(("query", "webhook_url"), text))
    filters: dict[str, Any] = {name: given[name] for name in ("from", "to") if name in given}
    filters |= {name: given.getlist(name) for name in ("status", "source") if name in given}
    try:
        source_of(service_of(request)).search(filters, now, user_id=user_id)
    except QueryError as error:
        problems += within("query", error.problems)
    except ConfigurationError:
        if not problems:
            raise
    if problems:
        raise invalid(problems)
    return ParsedQuery(wanted, csv_safe == "true", filters, hook)


def invalid(problems: Sequence[FieldProblem]) -> Refusal:
    """Returns the refusal of a request with these problems."""
    return Refusal(400, "validation_error", errors.invalid(problems).detail, problems=problems)


def file_name(asked: ParsedQuery, now: datetime) -> str:
    """Returns the name of the file."""
    return f"pipeline-jobs-{now:%Y-%m-%d}.{asked.format}"


def source_of(service: ExportService) -> SqlSource:
    """Returns the source of this contract. Raises ConfigurationError if it does not fit."""
    name = service.config.surfaces.pipeline
    source = service.source(name)
    if not isinstance(source, SqlSource):
        raise ConfigurationError(f"[surfaces] pipeline = {name!r} is not a source of type sql")
    missing = [column for column in COLUMNS if column not in source.columns]
    if missing:
        raise ConfigurationError(
            f"[sources.{name}] columns lacks {', '.join(missing)}, which the pipeline contract"
            " needs: add these columns, or leave `columns` out"
        )
    return source


def _parameter(name: str, text: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": text, "schema": schema}


def _enum_list(known: Sequence[str]) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string", "enum": list(known)}}


PARAMETERS = (
    _parameter(
        "format",
        "The format of the file.",
        {"type": "string", "enum": list(FORMATS), "default": "json"},
    ),
    _parameter(
        "from", "Only jobs created at or after this date (UTC) or time.", bounds.DAY_OR_MOMENT
    ),
    _parameter("to", "Only jobs created before this date (UTC) or time.", bounds.DAY_OR_MOMENT),
    _parameter("status", "Only jobs with this status; may be repeated.", _enum_list(STATUSES)),
    _parameter("source", "Only jobs from this source; may be repeated.", _enum_list(SOURCES)),
    _parameter(
        "csv_safe",
        "`true`: put an apostrophe before CSV text that a spreadsheet would run as a formula.",
        {"type": "boolean", "default": False},
    ),
    _parameter(
        "webhook_url",
        f"With `Prefer: respond-async`: {webhook_fields.WEBHOOK_URL_DESCRIPTION}",
        {"type": "string"},
    ),
    _parameter(
        "webhook_events",
        "An event to send; may be repeated. Default: all but `export.progress`.",
        _enum_list(events.EXPORT_EVENTS),
    ),
    {
        "name": "Prefer",
        "in": "header",
        "required": False,
        "description": "`respond-async`: the response is 202 at once, with an export to poll.",
        "schema": {"type": "string"},
    },
)
