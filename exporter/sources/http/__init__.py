"""Pages read over HTTP: client, connections, JSON pages, numbered pages."""

from __future__ import annotations
