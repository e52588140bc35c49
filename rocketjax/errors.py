"""The one exception that a user's mistake raises; the command line prints its message and exits with 1."""


class RocketError(Exception):
    """Bad input or an impossible request, with a message that says where it lies and what to do next."""
