"""The one kind of error that is the user's to mend."""


class Problem(Exception):
    """Something the user can mend, told in one message that names the file, the entry, what was given, what is due."""
