"""What else does the same, each a process of its own; imports nothing of the project."""
