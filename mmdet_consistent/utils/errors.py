"""Errors that need no traceback."""


class UserError(Exception):
    """A mistake of the user. The message names it and suggests a fix."""


class ConfigError(UserError, ValueError):
    """A config doesn't fit the data, or names something that doesn't exist."""
