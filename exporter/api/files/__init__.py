"""Uploads to the API, downloads of stored files, and files streamed while they are produced."""

from __future__ import annotations
