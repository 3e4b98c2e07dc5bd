"""Rows read and written by a compiled library, and what the Python code needs to use it.

Everything works without the library, at a fifth of the speed or less: the Python code in
`exporter.formats` and `exporter.sources.http.json_pages` is the definition of every byte, and does
what the library leaves to it.
"""
