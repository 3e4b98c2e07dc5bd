"""What the tests of the job search share: a service with a board behind it."""

from __future__ import annotations

from exporter.sources.hirebase import HirebaseConfig
from tests import boards
from tests.integration.api_server import Service

ROWS = 120
EVERYTHING = {"include_expired": "true"}
DAY = "2020-01-01"


def behind(api: Service, url: str) -> Service:
    """The same service, its source at that address."""
    api.engine.config.sources["board"] = HirebaseConfig(base_url=url, api_key=boards.KEY)
    return api
