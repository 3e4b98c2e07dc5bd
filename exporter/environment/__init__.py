"""What the environment of a process says: URLs, names of settings, and proxies."""

from __future__ import annotations
