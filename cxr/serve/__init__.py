"""The application: pages, REST and accounts around the exported ensemble, without torch."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flask import Flask

    from cxr.serve.settings import Settings


def create_app(
    config: "Settings | Mapping[str, Any] | None" = None, *, load: Callable[..., Any] | None = None
) -> "Flask":
    """Make the application; see ``cxr.serve.app``. Nothing is imported before it is called."""
    import click
    from flask.cli import NoAppException

    from cxr.errors import InputError
    from cxr.serve import app

    try:
        return app.create_app(config, load=load)
    except InputError as error:
        if click.get_current_context(silent=True) is None:
            raise
        raise NoAppException(str(error)) from None  # the flask command shows it as one line
