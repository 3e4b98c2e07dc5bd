"""Data and rules of exports, without any server, client or other input and output."""

from __future__ import annotations
