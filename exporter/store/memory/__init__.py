"""Export store in memory: the rules of the Redis store in plain Python."""

from __future__ import annotations
