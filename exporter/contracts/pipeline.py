"""Columns, statuses and sources of a saved posting in the pipeline contract."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.contracts.described import Filter

# fmt: off
COLUMNS = (
    "id", "company_name", "job_title", "status", "source", "location", "is_remote", "job_url",
    "job_description", "salary_range_min", "salary_range_max", "ai_match_score", "ai_reasoning",
    "notes", "tags", "applied_at", "interview_at", "offer_at", "rejected_at", "scraped_at",
    "created_at", "updated_at",
)
# fmt: on
"""Columns of a posting in the contract's order.

The table has further columns, which are never exported: the owner, `ai_parsed_data`,
`last_synced_at` and `deleted_at`.
"""
TYPES: Mapping[str, str] = {
    **dict.fromkeys((one for one in COLUMNS if one.endswith("_at")), "moment"),
    **dict.fromkeys(("salary_range_min", "salary_range_max", "ai_match_score"), "float"),
    "is_remote": "flag",
    "tags": "json",
}
"""Types of the columns that are not text."""
STATUSES = ("saved", "applied", "interview", "offer", "rejected")
"""Valid values of `status`."""
SOURCES = ("brightermonday", "fuzu", "linkedin", "manual")
"""Valid values of `source`."""
FILTERS = (
    Filter(name="from", kind="time", description="Created at this time or later."),
    Filter(name="to", kind="time", description="Created before this time."),
    Filter(name="status", kind="texts", choices=STATUSES),
    Filter(name="source", kind="texts", choices=SOURCES),
)
"""The filters of the SQL source, which validates them by itself."""
