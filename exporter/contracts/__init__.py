"""The words of each vendor's contract, shared by its source, its surface and the board."""

from __future__ import annotations
