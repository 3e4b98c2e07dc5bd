"""Reads the environment of a process: URLs, names of settings, and proxies."""

from __future__ import annotations
