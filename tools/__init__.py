"""Programs: for users in this folder, for maintainers in ``dev/``."""
