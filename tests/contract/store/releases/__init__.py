"""Scripts and records of the release before this one, which may run beside it.

To freeze the release that is about to be made, replace the folder of the one before:

    mkdir NEW NEW/store NEW/webhooks
    cp exporter/store/redis/scripts/*.lua NEW/store; rm NEW/store/probe.lua
    cp exporter/webhooks/scripts/*.lua NEW/webhooks
    python -m tests.contract.store.releases.installation NEW/records.json

The renaming of keys in `test_releases.py` is for 0.2.0 alone; `test_schema.py` keeps its records.
A new state or script needs a line in `installation.py` or in the operations of `test_releases.py`.
"""
