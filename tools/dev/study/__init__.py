"""See ``__main__.py``, or ../README.md."""
