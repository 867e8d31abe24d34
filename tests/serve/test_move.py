"""From one database to another: every row, the types, the numbers that go on."""

from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from cxr.errors import InputError
from cxr.serve.settings import Settings
from cxr.serve.store import counters, predictions, users
from cxr.serve.store.database import Database, copy_rows, open_source
from cxr.serve.store.rows import Base, PredictionRow

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def old(tmp_path):
    """Return an SQLite with something in every table that matters."""
    database = Database(f"sqlite:///{tmp_path / 'old.sqlite'}")
    database.upgrade()
    with database.write() as session:
        for name in ("ann", "bob"):
            user = users.add_user(session, name, "hash", role="admin", now=NOW)
            users.create_token(session, user.id, "laptop", now=NOW)
            users.begin_session(session, user, NOW)
            counters.count_hit(session, f"k{name}", limit=5, window_s=60, now=NOW)
            for _ in range(3):
                made = predictions.new_id()
                predictions.save_prediction(
                    session,
                    PredictionRow(
                        id=made,
                        user_id=user.id,
                        created_at=NOW,
                        origin="api",
                        name="ä.png",
                        stem=made,
                        refused=False,
                        label="viral",
                        refer=True,
                        width_px=9,
                        height_px=8,
                        fingerprint="f",
                        result={"probs": {"viral": 0.5}},
                    ),
                )
    yield database
    database.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def new(request, tmp_path):
    """Return an empty database with this version's tables."""
    if request.param == "sqlite":
        database = Database(f"sqlite:///{tmp_path / 'new.sqlite'}")
    else:
        url = request.getfixturevalue("postgres")
        database = Database(Settings.load({"database_url": url}, environ={}).database)
        with database.engine.begin() as connection:
            connection.execute(sa.text("DROP SCHEMA public CASCADE"))
            connection.execute(sa.text("CREATE SCHEMA public"))
    database.upgrade()
    yield database
    database.close()


def rows(database):
    """Return every row of every table, as plain values."""
    with database.read() as session:
        return {
            table.name: sorted(map(repr, map(tuple, session.execute(sa.select(table)))))
            for table in Base.metadata.sorted_tables
        }


def test_every_row_arrives_and_new_ones_find_their_numbers(old, new):
    counts = copy_rows(old, new)
    assert counts["users"] == counts["tokens"] == 2
    assert counts["predictions"] == 6
    assert rows(new) == rows(old)
    with new.write() as session:
        third = users.add_user(session, "eve", "hash", now=NOW)
        assert third.id == 3
        users.create_token(session, third.id, "laptop", now=NOW)


def test_a_database_with_rows_is_left_alone(old, new):
    copy_rows(old, new)
    before = rows(new)
    with pytest.raises(InputError, match="the target has rows in"):
        copy_rows(old, new)
    assert rows(new) == before


def test_tables_of_another_version_and_missing_files_are_refused(old, tmp_path):
    blank = Database(f"sqlite:///{tmp_path / 'blank.sqlite'}")
    with pytest.raises(InputError, match="the target is at revision empty"):
        copy_rows(old, blank)
    with pytest.raises(InputError, match="the source is at revision empty"):
        copy_rows(blank, old)
    blank.close()
    with pytest.raises(InputError, match="there is no database at"):
        open_source(f"sqlite:///{tmp_path / 'none.sqlite'}")
    assert not (tmp_path / "none.sqlite").exists()
