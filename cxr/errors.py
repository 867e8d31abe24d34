"""Errors that a user can correct, and the commands that their hints name.

A script prints such an error as one line and exits with status 2. Anything else that
escapes is a bug and keeps its traceback.
"""

import sys
from pathlib import Path


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one line: what was wrong, the value seen, what is allowed, the hint.
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


def command(stage: str, **overrides: str) -> str:
    """Return the command that runs a stage, with the interpreter that runs now.

    ``stage`` is a script's name without its ending, or an experiment's as ``experiments.leak``;
    what is not known of its configuration is left out: ``python scripts/evaluate.py data=cxr4
    run=default``. ``make help`` says how the same is spelled with make.
    """
    python = Path(sys.executable)
    inside = python.is_relative_to(Path.cwd())
    words = [str(python.relative_to(Path.cwd())) if inside else "python"]
    words += ["-m", stage] if stage.startswith("experiments.") else [f"scripts/{stage}.py"]
    return " ".join([*words, *(f"{key}={value}" for key, value in overrides.items())])
