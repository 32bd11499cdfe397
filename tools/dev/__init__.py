"""Programs for maintainers; see README.md."""
