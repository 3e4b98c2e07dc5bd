"""The words of the pipeline contract: columns, statuses and sources of a saved posting."""

from __future__ import annotations

# fmt: off
COLUMNS = (
    "id", "company_name", "job_title", "status", "source", "location", "is_remote", "job_url",
    "job_description", "salary_range_min", "salary_range_max", "ai_match_score", "ai_reasoning",
    "notes", "tags", "applied_at", "interview_at", "offer_at", "rejected_at", "scraped_at",
    "created_at", "updated_at",
)
# fmt: on
"""The job of the pipeline contract, in its order. The table has more, which is not given to
anybody: the owner, `ai_parsed_data`, `last_synced_at` and `deleted_at`."""
STATUSES = ("saved", "applied", "interview", "offer", "rejected")
SOURCES = ("brightermonday", "fuzu", "linkedin", "manual")
"""The contract's words."""
