"""Job board for tests and local use: imitates four vendors' job APIs over one SQLite file.

The vendors are Hirebase, Coresignal, Bindbee and Qwestly.
"""

from __future__ import annotations
