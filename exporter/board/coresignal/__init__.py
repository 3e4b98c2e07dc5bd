"""The Coresignal read API of the board."""

from __future__ import annotations
