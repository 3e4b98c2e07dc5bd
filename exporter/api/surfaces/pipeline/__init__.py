"""The pipeline contract: the caller's own jobs as one file in the response itself."""

from __future__ import annotations
