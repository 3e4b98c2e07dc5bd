"""What the API is measured against: the service that most people would write.

FastAPI over uvicorn; creating validates a pydantic model and calls Celery's `apply_async`; polling
reads a Redis hash and has boto3 sign the link. Nobody is asked for a key and nothing is recorded at
creation, so the comparison is to its advantage.
"""

from __future__ import annotations

import os
import sys
import uuid
from typing import Any

import boto3
import redis.asyncio
import uvicorn
from celery import Celery
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

REDIS = os.environ.get("EXPORTER_REDIS_URL", "redis://127.0.0.1:6379/0")
BUCKET = os.environ.get("EXPORTER_S3_BUCKET", "exports")

celery = Celery("reference", broker=os.environ.get("EXPORTER_BROKER_URL", REDIS))
app = FastAPI()
store = redis.asyncio.Redis.from_url(REDIS, decode_responses=True)
s3 = boto3.client("s3", region_name="us-east-1")


class Query(BaseModel):
    """What to look for."""

    job_titles: list[str] = []
    keywords: list[str] = []


class Wanted(BaseModel):
    """What to export."""

    source: str
    query: Query
    format: str = "csv"
    limit: int | None = None


class Task(BaseModel):
    """An export and, once it is finished, its file."""

    id: str
    state: str
    progress: float = 0.0
    record_count: int = 0
    file_size: int = 0
    download_url: str | None = None


@celery.task(ignore_result=True)  # type: ignore[untyped-decorator, unused-ignore]
def run(task_id: str, wanted: dict[str, Any]) -> None:
    """Never runs: no worker is started."""


@app.post("/exports", status_code=202)
async def create(wanted: Wanted) -> Task:
    """Publish a task and answer with its id."""
    task_id = str(uuid.uuid4())
    run.apply_async((task_id, wanted.model_dump()), task_id=task_id)
    return Task(id=task_id, state="queued")


@app.get("/exports/{task_id}")
async def show(task_id: str) -> Task:
    """Read the record and sign the link."""
    found = await store.hgetall(f"reference:{task_id}")
    if not found:
        raise HTTPException(404)
    link = s3.generate_presigned_url(
        "get_object", Params={"Bucket": BUCKET, "Key": found["key"]}, ExpiresIn=86400
    )
    return Task.model_validate({**dict(found), "id": task_id, "download_url": link})


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=False, log_level="warning")
