"""The web console: pages for people, over the operations of the API."""

from __future__ import annotations
