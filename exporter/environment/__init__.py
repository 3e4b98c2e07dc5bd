"""Reads the environment of a process: URLs, values, names of settings, and proxies."""

from __future__ import annotations
