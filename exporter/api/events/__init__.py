"""Live events of exports: what has changed, and the streams that tell it to callers."""
