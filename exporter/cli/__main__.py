"""`python -m exporter.cli`: the `exporter` command where its script is not on the PATH."""

from __future__ import annotations

from exporter.cli.main import main

if __name__ == "__main__":
    main()
