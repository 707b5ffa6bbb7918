"""The one error a user may see as a single line."""


class UserError(Exception):
    """Something the user can mend: says what is wrong, where, and what to do. Shown without a traceback."""
