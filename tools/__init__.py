"""Programs: those in this folder are for users, those in ``dev/`` for maintainers."""
