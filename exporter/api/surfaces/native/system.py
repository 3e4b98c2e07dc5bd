"""The system overview of the native contract, for operators."""

from __future__ import annotations

from typing import Annotated

import msgspec
from anyio import to_thread
from fastapi import Request
from starlette.responses import Response

from exporter.api import auth, responses
from exporter.api.state import observer_of
from exporter.api.surface import Answer, Operation
from exporter.store.redis.overview import Overview


class System(Overview, frozen=True, kw_only=True):
    """The state of the installation: processes, queues, waits, webhooks, Redis and the bucket."""

    health: Annotated[
        dict[str, str], msgspec.Meta(description="`ok`, or what is wrong, of Redis and S3.")
    ]


async def system(request: Request) -> Response:
    """Returns the state of the installation. The key needs the scope `operator`.

    The numbers are read one after the other, so they may differ by changes in between.
    """
    await to_thread.run_sync(auth.operator, request)
    overview = await to_thread.run_sync(observer_of(request).read)
    health = await request.app.state.health.verdicts()
    return responses.reply(System(**msgspec.structs.asdict(overview), health=health))


_SINCE = "2026-03-02T09:14:58.201933Z"
OPERATIONS = (
    Operation(
        "GET /v1/system",
        system,
        "getSystem",
        "Get the state of the installation",
        {
            200: Answer(
                "The state of the installation.",
                System,
                {
                    "processes": {
                        "workers": ["worker-5d1f0c2a:7"],
                        "senders": ["sender-1f0c:7"],
                        "beats": ["beat-77aa:7"],
                    },
                    "levels": [{"level": 5, "ready": 3, "oldest_at": _SINCE}],
                    "running": 4,
                    "waiting": 2,
                    "waits": [
                        {
                            "source": "board",
                            "reason": "the source answered 503: busy",
                            "exports": 2,
                            "next_at": "2026-03-02T09:15:31.118204Z",
                        }
                    ],
                    "oldest": [
                        {
                            "id": "0b8c2c4e-6a57-4a2b-9a50-0e6a3a2f6b11",
                            "user_id": "acme",
                            "source": "board",
                            "state": "processing",
                            "phase": "waiting",
                            "created_at": _SINCE,
                            "progress": 0.41,
                            "error": "the source answered 503: busy",
                        }
                    ],
                    "webhooks": {"events": 0, "due": 1, "due_since": _SINCE, "in_flight": 1},
                    "redis": {
                        "used_bytes": 48_318_464,
                        "max_bytes": 1_073_741_824,
                        "append_only": True,
                        "last_write_ok": True,
                        "saved_at": None,
                        "version": "7.2.5",
                    },
                    "health": {"redis": "ok", "s3": "ok"},
                },
            )
        },
    ),
)
