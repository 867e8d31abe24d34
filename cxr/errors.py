"""Errors that a user can mend.

A script prints such an error as one line and exits with status 2. Anything else that
escapes is a bug and keeps its traceback.
"""


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one line: what was wrong, the value seen, what is allowed, the mend.
    """


class MissingInputError(InputError, FileNotFoundError):
    """A file or folder that a stage needs is not there."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else "a needed file is missing"


def reason_of(error: BaseException, limit: int = 160) -> str:
    """Return an error's text on one line, at most ``limit`` characters, or else its kind."""
    return " ".join(str(error).split())[:limit] or type(error).__name__


class NonFiniteLossError(InputError):
    """Training produced a loss that is not a finite number."""
