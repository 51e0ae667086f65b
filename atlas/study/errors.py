"""The kinds of error that are the user's to mend."""


class UserError(Exception):
    """Something the user can mend, told in one message that names the file, the entry, what was given, what is due."""


class Unsupported(Exception):
    """Why a method or metric cannot serve a classifier; the report prints n/a with this reason."""


class Fault(UserError):
    """A function wrote, or read, what it must not: what it may have spoiled is to be made anew, or the run ends.

    Args:
        told: In one line: which function, what it did, and what to do instead.
        kind, name: The entry of params.yaml whose function it is.
    """

    def __init__(self, told: str, kind: str, name: str):
        super().__init__(told, kind, name)  # all of them: it is sent from process to process
        self.kind, self.name = kind, name

    def __str__(self) -> str:
        return self.args[0]
