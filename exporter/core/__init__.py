"""What an export is: pure data and rules, without any server or client."""

from __future__ import annotations
