"""What a plan allows, and what it says when it does not."""

from __future__ import annotations

import pytest

from exporter.core.plans import FEATURES, UNLIMITED, CreditsSpent, NotInPlan, Plan


@pytest.mark.parametrize("feature", FEATURES)
def test_a_plan_without_a_list_holds_every_feature(feature: str) -> None:
    # When / Then: no complaint
    UNLIMITED.check(feature)
    UNLIMITED.check_priority(9)


def test_a_feature_that_is_not_in_the_plan_is_refused_in_words_for_its_reader() -> None:
    # Given
    plan = Plan("k", features=frozenset({"search", "export"}))

    # When
    plan.check("export")
    with pytest.raises(NotInPlan) as refusal:
        plan.check("bulk")

    # Then
    said = str(refusal.value)
    assert "does not hold 'bulk' (collecting postings in bulk" in said
    assert said.endswith("it holds: export, search")


def test_a_plan_may_hold_nothing() -> None:
    # Given
    plan = Plan("k", features=frozenset())

    # When / Then
    for feature in FEATURES:
        with pytest.raises(NotInPlan, match="it holds: nothing"):
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


def test_spent_credits_say_what_was_needed_and_what_is_left() -> None:
    # When
    error = CreditsSpent(500, 12)

    # Then
    assert (error.needed, error.left) == (500, 12)
    assert "500" in str(error)
    assert "12 are left" in str(error)
