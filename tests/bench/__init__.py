"""How quick this is beside what else does the same; never part of a test run."""
