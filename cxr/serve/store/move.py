"""Everything of one database into another, empty one: from SQLite to PostgreSQL, or back."""

from pathlib import Path

from sqlalchemy import Integer, func, insert, select, text
from sqlalchemy.orm import Session

from cxr.errors import InputError
from cxr.serve.settings import Settings
from cxr.serve.store.database import Database
from cxr.serve.store.rows import Base

ROWS_AT_ONCE = 500


def open_source(url: str) -> Database:
    """Open a database to copy from, or raise InputError: none is there."""
    address = Settings(database_url=url).database
    scheme, _, path = address.partition(":///")
    if scheme == "sqlite" and not Path(path).is_file():
        raise InputError(f"there is no database at {path}: name it as sqlite:///PATH")
    return Database(address)


def copy_rows(source: Database, target: Database) -> dict[str, int]:
    """Copy every row, all or none; return the number of rows by table.

    Raises:
        InputError: tables of another version, or rows in the target.
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
            if writing.execute(select(func.count()).select_from(table)).scalar_one():
                raise InputError(
                    f"the target has rows in {table.name}: name an empty database, so that "
                    "nothing is mixed"
                )
            counts[table.name] = 0
            reader = reading.execute(select(table).execution_options(yield_per=ROWS_AT_ONCE))
            for rows in reader.mappings().partitions():
                writing.execute(insert(table), [dict(row) for row in rows])
                counts[table.name] += len(rows)
        if not target.is_sqlite:
            _advance_sequences(writing)
    return counts


def _advance_sequences(session: Session) -> None:
    """Let PostgreSQL count on from the copied numbers, not from 1."""
    for table in Base.metadata.sorted_tables:
        keys = list(table.primary_key.columns)
        if len(keys) != 1 or not isinstance(keys[0].type, Integer):
            continue
        last = session.execute(select(func.max(keys[0]))).scalar_one()
        if last is not None:
            words = text("SELECT setval(pg_get_serial_sequence(:table, :column), :last)")
            values = {"table": table.name, "column": keys[0].name, "last": last}
            session.execute(words, values)
