"""How often a key may ask."""

from __future__ import annotations

from exporter.core.rates import Rate
from tests.integration.api_server import Service
from tests.integration.hirebase_jobs.desk import EVERYTHING


def test_a_key_may_ask_so_often_and_then_learns_when_it_may_again(jobs: Service) -> None:
    # Given
    settings = jobs.engine.settings
    jobs.engine.settings = settings.model_copy(update={"hirebase_rate": Rate(3, 60)})

    # When
    answers = [jobs.http.post("/v2/jobs/search", json=EVERYTHING) for _ in range(5)]
    another = jobs.http.get("/v2/tasks", headers={"X-API-Key": jobs.bob})

    # Then
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == list("21000")
    assert {answer.headers["X-RateLimit-Limit"] for answer in answers} == {"3"}
    assert answers[3].json() == {"detail": "Rate limit exceeded"}
    assert 1 <= int(answers[3].headers["Retry-After"]) <= 60
    assert "X-Billing-Code" not in answers[3].headers
    assert another.status_code == 200
    assert another.headers["X-RateLimit-Remaining"] == "2"


def test_errors_count_and_tell_what_remains_as_answers_do(jobs: Service) -> None:
    # When
    answer = jobs.http.post("/v2/jobs/search", json={"limit": 101})

    # Then
    assert answer.status_code == 422
    assert answer.headers["X-RateLimit-Remaining"] == "99"


def test_polling_a_task_does_not_use_up_requests(jobs: Service) -> None:
    # Given
    settings = jobs.engine.settings
    jobs.engine.settings = settings.model_copy(update={"hirebase_rate": Rate(2, 60)})
    created = jobs.http.post("/v2/jobs/export", json={"search": {}, "format": "json"})
    path = f"/v2/tasks/{created.json()['id']}"

    # When
    polls = [jobs.http.get(path).status_code for _ in range(20)]
    after = jobs.http.get("/v2/tasks")

    # Then
    assert polls == [200] * 20
    assert after.headers["X-RateLimit-Remaining"] == "0"
