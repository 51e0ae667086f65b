"""The kinds of error that the user can fix."""


class UserError(Exception):
    """Something the user can fix, in one message: the file, the entry, what was given, what is expected."""


class Edited(UserError):
    """A file was edited after it was read: what is computed from now on may not match its text."""


class Unsupported(Exception):
    """Why a method or metric cannot serve a classifier; the report prints n/a with this reason."""


class Fault(UserError):
    """A function wrote or read what it must not: whatever it may have spoiled is made anew, or the run ends.

    Args:
        message: One line: which function, what it did, and what to do instead.
        kind, name: The entry of params.yaml with that function.
    """

    def __init__(self, message: str, kind: str, name: str):
        super().__init__(message, kind, name)  # all arguments, so that the exception can be pickled
        self.kind, self.name = kind, name

    def __str__(self) -> str:
        return self.args[0]
