"""The one kind of error that is the user's to mend."""


class Problem(Exception):
    """Something the user can mend, told in one message that names the file, the entry, what was given, what is due."""


class Unsupported(Exception):
    """Say why a method or metric cannot serve a classifier; the report prints n/a with this reason."""
