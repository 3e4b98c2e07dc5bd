"""A draft is the whole specification of an export, or names every wrong field of its request."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from exporter.clock import FakeClock
from exporter.config import Config
from exporter.core import canonical
from exporter.core.exports import Dialect, Export, Phase, Spec, State
from exporter.core.plans import UNLIMITED, NotInPlan, Plan
from exporter.core.rates import MemoryBudgets
from exporter.errors import QueryError, problem
from exporter.service import drafts
from exporter.service.configured_sources import ConfiguredSources
from exporter.service.drafts import NewExport
from exporter.sources.coresignal import CoresignalConfig
from exporter.sources.hirebase import HirebaseConfig

NOW = datetime(2026, 3, 2, tzinfo=UTC)
FIRST, SECOND = "0b8c2c4e-6a57-4a2b-9a50-0e6a3a2f6b11", "77aa10ff-6a57-4a2b-9a50-0e6a3a2f6b11"
NEW = NewExport(id=FIRST, user_id="ann", surface="native", source="board", search={})
SEARCH_ONLY = Plan(None, features=frozenset({"search"}))


@pytest.fixture
def sources() -> ConfiguredSources:
    clock = FakeClock()
    board = HirebaseConfig(base_url="http://127.0.0.1:9", columns=("_id", "title"))
    bulk = CoresignalConfig(base_url="http://127.0.0.1:9")
    config = Config(sources={"board": board, "bulk": bulk})
    return ConfiguredSources(config, clock, MemoryBudgets(clock).open)


def draft(sources: ConfiguredSources, plan: Plan = UNLIMITED, **fields: Any) -> Spec:
    return drafts.draft(msgspec.structs.replace(NEW, **fields), plan, sources, NOW)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"format": "json", "columns": (), "limit": None, "reserved": 0, "webhook": None}),
        ({}, {"file_name": "board-jobs-2026-03-02-0b8c2c4e.json"}),
        ({"format": "csv"}, {"columns": ("_id", "title")}),
        ({"format": "csv", "columns": ["title"]}, {"columns": ("title",)}),
        ({"format": "csv", "columns": ["visa_sponsored"]}, {"columns": ("visa_sponsored",)}),
        (
            {"search": {"days_ago": 2, "limit": 5, "page": 3}},
            {"query": {"date_posted": "2026-02-28"}, "limit": 5, "offset": 10},
        ),
        ({"search": {"limit": 5}, "limit": 7}, {"limit": 7}),
        ({"ids": ["a", "b"], "search": {"odd": 1}}, {"ids": 2, "query": {}}),
        ({"compression": "gzip"}, {"file_name": "board-jobs-2026-03-02-0b8c2c4e.json.gz"}),
        ({"file_stem": "expired"}, {"file_name": "expired-jobs-2026-03-02-0b8c2c4e.json"}),
        ({"file_name": "mine.json"}, {"file_name": "mine.json"}),
        ({"keep": timedelta(hours=1)}, {"keep_seconds": 3600.0}),
    ],
)
def test_a_draft_has_what_was_asked_for_and_the_defaults_of_the_source(
    sources: ConfiguredSources, fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    # When
    spec = draft(sources, **fields)
    # Then
    assert {name: getattr(spec, name) for name in expected} == expected
    assert spec.query_sha256 == canonical.digest(spec.query)
    assert (spec.id, spec.user_id, spec.surface) == (FIRST, "ann", "native")


EVERYTHING_WRONG = {
    "wrong": [problem(("webhook_url",), "w")],
    "format": "pdf",
    "compression": "rar",
    "priority": 10,
    "limit": 0,
    "columns": ["title", "title", ""],
    "file_name": "a/b",
    "search": {"colour": "red", "limit": 0},
}
PLACES: list[tuple[Any, ...]] = [
    ("webhook_url",),
    ("format",),
    ("compression",),
    ("priority",),
    ("limit",),
    ("columns", 1),
    ("columns", 2),
    ("file_name",),
]


@pytest.mark.parametrize(
    ("fields", "places"),
    [
        (EVERYTHING_WRONG, [*PLACES, ("search", "limit"), ("search", "colour")]),
        ({**EVERYTHING_WRONG, "source": "none"}, [("source",), *PLACES]),
        (
            {**EVERYTHING_WRONG, "search": {"keywords": ["x" * 2_000_000]}},
            [("search",), *PLACES],
        ),
        ({"format": "json", "dialect": Dialect(bom=True)}, [("bom",)]),
        ({"columns": ["titel"], "limit": -1}, [("limit",), ("columns", 0)]),
        ({"columns": []}, [("columns",)]),
        ({"search": {"page": 2}}, [("search", "page")]),
        ({"formats": ("csv",)}, [("format",)]),
    ],
)
def test_one_refusal_names_every_wrong_field_in_a_fixed_order(
    sources: ConfiguredSources, fields: dict[str, Any], places: list[tuple[Any, ...]]
) -> None:
    # When
    with pytest.raises(QueryError) as wrong:
        draft(sources, **fields)
    # Then
    assert [tuple(one["loc"]) for one in wrong.value.problems] == places


def test_the_plan_is_checked_first_and_the_priority_last(sources: ConfiguredSources) -> None:
    # Then
    with pytest.raises(NotInPlan, match="'export'"):
        draft(sources, SEARCH_ONLY, format="pdf")
    with pytest.raises(QueryError):
        draft(sources, Plan(None, priority_ceiling=3), format="pdf", priority=5)
    with pytest.raises(NotInPlan, match="priority 5"):
        draft(sources, Plan(None, priority_ceiling=3), priority=5)


@pytest.mark.parametrize(
    ("fields", "feature"),
    [
        ({}, "export"),
        ({"search": {"expired_since": "2026-03-01"}}, "expired"),
        ({"ids": ["a"]}, "bulk"),
        ({"source": "bulk"}, "bulk"),
    ],
)
def test_an_export_needs_the_feature_of_its_source_and_kind(
    sources: ConfiguredSources, fields: dict[str, Any], feature: str
) -> None:
    # When
    spec = draft(sources, Plan("key", features=frozenset({feature}), concurrency=2), **fields)
    # Then
    assert (spec.account, spec.concurrency) == ("key", 2)
    with pytest.raises(NotInPlan, match=f"'{feature}'"):
        draft(sources, SEARCH_ONLY, **fields)


def ended(spec: Spec, **fields: Any) -> Export:
    return Export(
        spec=spec,
        state=State.FAILED,
        phase=Phase.DONE,
        progress=0.0,
        created_at=NOW,
        updated_at=NOW,
        **fields,
    )


def test_a_retry_repeats_all_but_the_id_the_name_and_the_account(
    sources: ConfiguredSources,
) -> None:
    # Given
    before = draft(sources, search={"days_ago": 2}, priority=4)
    # When
    again = drafts.redraft(ended(before), SECOND, Plan("key", concurrency=2), sources)
    # Then
    assert again == msgspec.structs.replace(
        before,
        id=SECOND,
        file_name="board-jobs-2026-03-02-77aa10ff.json",
        account="key",
        concurrency=2,
        created_by="key",
        retry_of=before.id,
    )


@pytest.mark.parametrize(
    ("fields", "plan", "place"),
    [
        ({"ids": ["a"]}, UNLIMITED, "ids"),
        ({}, Plan("key", metered=True), "limit"),
    ],
)
def test_a_retry_without_its_ids_or_its_credits_is_refused(
    sources: ConfiguredSources, fields: dict[str, Any], plan: Plan, place: str
) -> None:
    # Given
    before = ended(draft(sources, **fields))
    # Then
    with pytest.raises(QueryError) as wrong:
        drafts.redraft(before, SECOND, plan, sources)
    assert [tuple(one["loc"]) for one in wrong.value.problems] == [(place,)]
