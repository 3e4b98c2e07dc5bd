"""Client library of the export service: create exports, wait for them, download their files.

It imports nothing of the service, only httpx and msgspec.

    from pathlib import Path
    from exporter.client import Exporter

    with Exporter("https://exports.example.com", "exp_…") as exporter:
        export = exporter.create("board", {"job_titles": ["engineer"]}, format="csv")
        export = exporter.wait(export.id)
        exporter.download(export, Path("engineers.csv"))

Rows without a file, one after the other:

        for row in exporter.rows(export):
            print(row["job_title"])

`AsyncExporter` has the same methods, to be awaited. A receiver of webhooks verifies them:

    from exporter.client import webhooks

    event = webhooks.verify(request.body, request.headers, "whsec_…")
    if event.type == "export.finished":
        print(event.data["id"])
"""

from __future__ import annotations

from exporter.client import webhooks
from exporter.client.aio import AsyncExporter
from exporter.client.errors import (
    ApiError,
    ClientError,
    Conflict,
    ConnectionFailed,
    DownloadFailed,
    ExportFailed,
    Forbidden,
    InvalidRequest,
    NotFound,
    QuotaExceeded,
    ServerFailed,
    Unauthorized,
    WaitExpired,
    WebhookRefused,
)
from exporter.client.models import (
    Activity,
    Completeness,
    Delivery,
    Export,
    File,
    Filter,
    FirstRows,
    Listener,
    Preview,
    Source,
    TakenWebhook,
    Webhook,
)
from exporter.client.sync import Exporter

__all__ = [
    "Activity",
    "ApiError",
    "AsyncExporter",
    "ClientError",
    "Completeness",
    "Conflict",
    "ConnectionFailed",
    "Delivery",
    "DownloadFailed",
    "Export",
    "ExportFailed",
    "Exporter",
    "File",
    "Filter",
    "FirstRows",
    "Forbidden",
    "InvalidRequest",
    "Listener",
    "NotFound",
    "Preview",
    "QuotaExceeded",
    "ServerFailed",
    "Source",
    "TakenWebhook",
    "Unauthorized",
    "WaitExpired",
    "Webhook",
    "WebhookRefused",
    "webhooks",
]
