"""SQLAlchemy's dialect of pg8000, for which a broken socket is a broken connection.

pg8000 turns a socket that broke while writing into its InterfaceError, but lets the OSError of one
that broke while reading through, which SQLAlchemy takes for a fault of the program.
"""

import contextlib
from collections.abc import Callable
from typing import Any

from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.pg8000 import PGDialect_pg8000

NAME = "postgresql.cxr_pg8000"


def _told(name: str) -> Callable[..., Any]:
    """Return a method of the dialect whose OSError is told as pg8000's own network error."""
    method = getattr(PGDialect_pg8000, name)

    def call(self: PGDialect_pg8000, *args: Any, **options: Any) -> Any:
        try:
            return method(self, *args, **options)
        except OSError as error:
            # The words by which is_disconnect knows it.
            raise self.loaded_dbapi.InterfaceError("network error") from error

    return call


class Dialect(PGDialect_pg8000):
    """See the module."""

    supports_statement_cache = True
    do_ping = _told("do_ping")
    do_execute = _told("do_execute")
    do_executemany = _told("do_executemany")
    do_commit = _told("do_commit")
    do_rollback = _told("do_rollback")

    def do_close(self, dbapi_connection: Any) -> None:
        """Close; of a connection that is broken, nothing is left to be said goodbye to."""
        with contextlib.suppress(OSError, self.loaded_dbapi.InterfaceError):
            super().do_close(dbapi_connection)  # type: ignore[no-untyped-call]


registry.register(NAME, __name__, "Dialect")
