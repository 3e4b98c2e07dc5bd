"""Tests of plans: allowed features and priorities, and the texts of refusals."""

from __future__ import annotations

import pytest

from exporter.core.plans import FEATURES, UNLIMITED, CreditsSpent, NotInPlan, Plan


@pytest.mark.parametrize("feature", FEATURES)
def test_a_plan_without_a_list_includes_every_feature(feature: str) -> None:
    # When / Then: nothing is raised
    UNLIMITED.check(feature)
    UNLIMITED.check_priority(9)


def test_a_feature_outside_the_plan_is_refused_with_a_text_that_names_the_features() -> None:
    # Given
    plan = Plan("k", features=frozenset({"search", "export"}))

    # When
    plan.check("export")
    with pytest.raises(NotInPlan) as refusal:
        plan.check("bulk")

    # Then
    text = str(refusal.value)
    assert "does not include 'bulk' (collecting postings in bulk" in text
    assert text.endswith("it includes: export, search")


def test_a_plan_may_include_no_feature() -> None:
    # Given
    plan = Plan("k", features=frozenset())

    # When / Then
    for feature in FEATURES:
        with pytest.raises(NotInPlan, match="it includes: nothing"):
            plan.check(feature)


def test_priorities_end_at_the_ceiling_of_the_plan() -> None:
    # Given
    plan = Plan("k", priority_ceiling=4)

    # When / Then
    for priority in range(5):
        plan.check_priority(priority)
    for priority in range(5, 10):
        with pytest.raises(NotInPlan, match=rf"priority {priority} .* give at most 4"):
            plan.check_priority(priority)


def test_the_error_for_spent_credits_has_the_credits_needed_and_left() -> None:
    # When
    error = CreditsSpent(500, 12)

    # Then
    assert (error.needed, error.left) == (500, 12)
    assert "500" in str(error)
    assert "12 are left" in str(error)
