"""The short attack: one key, or none, against one running service, over the wire.

Each table grows by one row a probe. Operations are read from the service's own OpenAPI document, so
a new operation is probed without an edit here. `-m soak` asks for random combinations, for minutes.
"""
