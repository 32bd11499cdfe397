"""Errors that explain themselves."""


class UserError(Exception):
    """A mistake whose message names it and the way out: no traceback is needed."""


class ConfigError(UserError, ValueError):
    """A config doesn't fit the data, or names what doesn't exist."""
