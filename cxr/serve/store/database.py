"""The connection to SQLite or PostgreSQL: sessions that read and write, upgrades, a copy."""

import contextlib
import fcntl
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.pg8000 import PGDialect_pg8000
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.orm import Session, sessionmaker

from cxr.errors import InputError
from cxr.serve.store.rows import Base

log = logging.getLogger(__name__)

MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"
DIALECT = "postgresql.cxr_pg8000"
BUSY_SECONDS = 15
"""How long a writer waits for another one on SQLite."""
ROWS_AT_ONCE = 500
"""Of a copy from one database to another."""
UPGRADE_LOCK = 0x637872
"""Key of PostgreSQL's advisory lock around upgrades; any number that others do not use."""


class Database:
    """A database of the server; safe to share between threads, each with a connection.

    An address that cannot be understood, or a folder that cannot be written, is an InputError.
    """

    def __init__(self, url: str, *, threads: int = 20) -> None:
        try:
            parsed = sa.make_url(url)
            if parsed.drivername == "postgresql+pg8000":
                parsed = parsed.set(drivername=DIALECT.replace(".", "+"))
            self.is_sqlite = parsed.get_backend_name() == "sqlite"
            if self.is_sqlite:
                Path(parsed.database or "").parent.mkdir(parents=True, exist_ok=True)
            # A password must not stand in a log: nothing here prints the address.
            self.engine: sa.Engine = sa.create_engine(
                parsed,
                pool_pre_ping=not self.is_sqlite,
                pool_size=threads,
                max_overflow=0,
                pool_timeout=10,
                connect_args={"timeout": BUSY_SECONDS},
            )
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
            raise InputError(
                f"the database's address cannot be used ({type(error).__name__}): allowed are "
                "sqlite:///PATH and postgresql://USER:PASSWORD@HOST/NAME; correct CXR_DATABASE_URL"
            ) from None
        except OSError as error:
            folder = Path(parsed.database or "").parent
            raise InputError(
                f"the database's folder {folder} cannot be used ({error.strerror}): correct "
                "CXR_DATABASE_URL or CXR_DATA_FOLDER"
            ) from None
        self._writer = self.engine
        if self.is_sqlite:
            self._lock_path = Path(f"{parsed.database}.upgrade-lock")
            sa.event.listen(self.engine, "connect", _prepare_sqlite)
            sa.event.listen(self.engine, "begin", _begin_sqlite)
            self._writer = self.engine.execution_options(cxr_write=True)
        # Sessions: one that changes nothing, one that is committed at the end, or taken back on an
        # error. What they found stays usable afterwards.
        self.read = sessionmaker(self.engine, expire_on_commit=False)
        self.write = sessionmaker(self._writer, expire_on_commit=False).begin

    def ping(self) -> None:
        """Ask the database for a row of its tables, or raise DBAPIError: it does not answer."""
        with self.engine.connect() as connection:
            connection.execute(sa.text("SELECT 1 FROM alembic_version"))

    def wait(self, seconds: float) -> None:
        """Wait until the database takes connections, or raise InputError: it did not in time."""
        end = time.monotonic() + seconds
        while True:
            try:
                with self.engine.connect():
                    return
            except DBAPIError as error:
                if time.monotonic() >= end:
                    raise InputError(
                        f"the database does not answer ({type(error.orig).__name__}): start it, "
                        "or correct CXR_DATABASE_URL or CXR_DATA_FOLDER"
                    ) from None
                log.warning("the database does not answer yet")
                time.sleep(min(1.0, max(0.05, end - time.monotonic())))

    def upgrade(self, revision: str = "head") -> None:
        """Bring the tables to a revision; processes that start together take turns."""
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        with self._upgrade_turn(), self._writer.connect() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
            connection.commit()

    def revision(self) -> str | None:
        """Return the revision of the tables, or None before the first upgrade."""
        with self.engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()

    @staticmethod
    def newest_revision() -> str | None:
        """Return the revision that this version of the program needs."""
        return ScriptDirectory(str(MIGRATIONS)).get_current_head()

    def close(self) -> None:
        """Close the connections."""
        self.engine.dispose()

    @contextlib.contextmanager
    def _upgrade_turn(self) -> Iterator[None]:
        if self.is_sqlite:
            with self._lock_path.open("a") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield
            return
        with self.engine.connect() as connection:
            connection.execute(sa.text(f"SELECT pg_advisory_lock({UPGRADE_LOCK})"))
            try:
                yield
            finally:
                connection.execute(sa.text(f"SELECT pg_advisory_unlock({UPGRADE_LOCK})"))


def open_source(address: str) -> Database:
    """Open a database to copy from, or raise InputError: none is there."""
    scheme, _, path = address.partition(":///")
    if scheme == "sqlite" and not Path(path).is_file():
        raise InputError(f"there is no database at {path}: name it as sqlite:///PATH")
    return Database(address)


def copy_rows(source: Database, target: Database) -> dict[str, int]:
    """Copy every row, all or none; return the number of rows by table.

    Tables of another version, and rows in the target, are an InputError.
    """
    needed = Database.newest_revision()
    for database, which in ((source, "the source"), (target, "the target")):
        if (revision := database.revision()) != needed:
            raise InputError(
                f"{which} is at revision {revision or 'empty'}, this version needs {needed}: "
                "run db upgrade on it first"
            )
    counts = {}
    with source.read() as reading, target.write() as writing:
        for table in Base.metadata.sorted_tables:
            if writing.execute(sa.select(sa.func.count()).select_from(table)).scalar_one():
                raise InputError(
                    f"the target has rows in {table.name}: name an empty database, so that "
                    "nothing is mixed"
                )
            counts[table.name] = 0
            reader = reading.execute(sa.select(table).execution_options(yield_per=ROWS_AT_ONCE))
            for rows in reader.mappings().partitions():
                writing.execute(sa.insert(table), [dict(row) for row in rows])
                counts[table.name] += len(rows)
        if not target.is_sqlite:
            _advance_sequences(writing)
    return counts


def _advance_sequences(session: Session) -> None:
    """Let PostgreSQL count on from the copied numbers, not from 1."""
    for table in Base.metadata.sorted_tables:
        keys = list(table.primary_key.columns)
        if len(keys) != 1 or not isinstance(keys[0].type, sa.Integer):
            continue
        last = session.execute(sa.select(sa.func.max(keys[0]))).scalar_one()
        if last is not None:
            words = sa.text("SELECT setval(pg_get_serial_sequence(:table, :column), :last)")
            values = {"table": table.name, "column": keys[0].name, "last": last}
            session.execute(words, values)


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    """Let readers and a writer work side by side, and leave BEGIN to ``_begin_sqlite``."""
    connection.isolation_level = None
    rules = ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON")
    for rule in (*rules, f"busy_timeout={BUSY_SECONDS * 1000}"):
        connection.execute(f"PRAGMA {rule}")


def _begin_sqlite(connection: sa.Connection) -> None:
    """Begin; a writer takes its turn at once, for a reader that turns writer may not wait."""
    writes = connection.get_execution_options().get("cxr_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _as_network_error(name: str) -> Callable[..., Any]:
    """Return a method of the dialect whose OSError becomes pg8000's own network error."""
    method = getattr(PGDialect_pg8000, name)

    def call(self: PGDialect_pg8000, *args: Any, **options: Any) -> Any:
        try:
            return method(self, *args, **options)
        except OSError as error:
            # The words by which is_disconnect knows it.
            raise self.loaded_dbapi.InterfaceError("network error") from error

    return call


class Dialect(PGDialect_pg8000):
    """SQLAlchemy's dialect of pg8000, for which a broken socket is a broken connection.

    pg8000 turns a socket that broke while writing into its InterfaceError, but lets the OSError of
    one that broke while reading through, which SQLAlchemy takes for a fault of the program.
    """

    supports_statement_cache = True
    do_ping = _as_network_error("do_ping")
    do_execute = _as_network_error("do_execute")
    do_executemany = _as_network_error("do_executemany")
    do_commit = _as_network_error("do_commit")
    do_rollback = _as_network_error("do_rollback")

    def do_close(self, dbapi_connection: Any) -> None:
        """Close; of a connection that is broken, nothing is left to be said goodbye to."""
        with contextlib.suppress(OSError, self.loaded_dbapi.InterfaceError):
            super().do_close(dbapi_connection)  # type: ignore[no-untyped-call]


registry.register(DIALECT, __name__, "Dialect")
