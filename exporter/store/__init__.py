"""Stores of export records, API keys, credits and rate limits."""

from __future__ import annotations
