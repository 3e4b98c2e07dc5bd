"""HTTP access to upstreams: client, connections, JSON pages and numbered pages."""

from __future__ import annotations
