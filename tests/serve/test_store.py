"""The database, each test on SQLite and on a real PostgreSQL."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from cxr.errors import InputError
from cxr.serve.settings import Settings
from cxr.serve.store import counters, predictions, users
from cxr.serve.store.database import Database, Dialect
from cxr.serve.store.rows import Base, PredictionRow, Token, Usage, User

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgresql"])
def blank(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database without tables."""
    if request.param == "sqlite":
        database = Database(f"sqlite:///{tmp_path / 'deep' / 'cxr.sqlite'}")
    else:
        address = request.getfixturevalue("postgres")
        settings = Settings.load({"database_url": address}, environ={})
        database = Database(settings.database, threads=12)
        with database.engine.begin() as connection:
            connection.execute(sa.text("DROP SCHEMA public CASCADE"))
            connection.execute(sa.text("CREATE SCHEMA public"))
    yield database
    database.close()


@pytest.fixture
def database(blank: Database) -> Database:
    """A database with this version's tables."""
    blank.upgrade()
    return blank


def add(database: Database, name: str = "ann") -> int:
    with database.write() as session:
        return users.add_user(session, name, "hash", now=NOW).id


def row(user_id: int, *, label: str = "viral", name: str = "a.png", age_days: int = 0):
    made = predictions.new_id()
    return PredictionRow(
        id=made,
        user_id=user_id,
        created_at=NOW - timedelta(days=age_days),
        origin="page",
        name=name,
        stem=made,
        refused=not label,
        label=label,
        refer=False,
        width_px=9,
        height_px=8,
        fingerprint="f",
        result={"probs": {"viral": 0.5, "bacterial": 0.25}, "set": ["ä"]},
    )


def test_tables_of_the_revisions_are_those_of_the_models(database):
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    assert database.revision() == database.newest_revision()


def test_upgrade_from_the_first_revision_keeps_every_row(blank):
    blank.upgrade("0001")
    first = sa.MetaData()
    with blank.engine.begin() as connection:
        first.reflect(connection)
        tables = first.tables
        connection.execute(
            tables["users"].insert(),
            [
                {
                    "name": f"u{n}",
                    "password_hash": "h",
                    "role": "user",
                    "disabled": False,
                    "created_at": NOW,
                    "login_at": None,
                }
                for n in (1, 2)
            ],
        )
        connection.execute(
            tables["tokens"].insert(),
            [
                {
                    "user_id": 1,
                    "name": "t",
                    "digest": "d",
                    "hint": "cxr_",
                    "created_at": NOW,
                    "used_at": None,
                }
            ],
        )
        connection.execute(
            tables["predictions"].insert(),
            [
                {
                    "id": f"p{n}",
                    "user_id": 1 + n % 2,
                    "created_at": NOW - timedelta(days=n // 3),
                    "origin": "page",
                    "name": "a",
                    "stem": f"s{n}",
                    "refused": n == 0,
                    "label": "x",
                    "refer": False,
                    "width_px": 1,
                    "height_px": 1,
                    "fingerprint": "f",
                    "result": {"n": n},
                }
                for n in range(5)
            ],
        )
    blank.upgrade()
    with blank.read() as session:
        assert session.scalars(sa.select(User.name).order_by(User.id)).all() == ["u1", "u2"]
        assert session.scalars(sa.select(Token.expires_at)).all() == [None]
        found = session.scalars(sa.select(PredictionRow).order_by(PredictionRow.id)).all()
        assert [item.result for item in found] == [{"n": n} for n in range(5)]
        days = session.scalars(sa.select(Usage).order_by(Usage.user_id, Usage.day)).all()
        assert [(u.user_id, u.day, u.films, u.refused) for u in days] == [
            (1, date(2026, 2, 28), 1, 0),
            (1, date(2026, 3, 1), 2, 1),
            (2, date(2026, 2, 28), 1, 0),
            (2, date(2026, 3, 1), 1, 0),
        ]
    assert add(blank, "new") == 3


def test_processes_that_start_together_upgrade_once(blank):
    others = [
        Database(str(blank.engine.url.render_as_string(hide_password=False)), threads=3)
        for _ in range(3)
    ]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(Database.upgrade, others))
    assert blank.revision() == blank.newest_revision()
    for other in others:
        other.close()


def test_moments_come_back_in_utc(database):
    user_id = add(database)
    with database.read() as session:
        assert session.get_one(User, user_id).created_at == NOW


def test_account_names_are_unique_in_any_case(database):
    add(database, "Ann")
    with database.write() as session, pytest.raises(InputError, match="exists already"):
        users.add_user(session, "aNN", "hash", now=NOW)
    with database.write() as session, pytest.raises(InputError, match="cannot be"):
        users.add_user(session, "a b", "hash", now=NOW)


def test_failed_writing_leaves_nothing(database):
    def fail() -> None:
        with database.write() as session:
            users.add_user(session, "ann", "hash", now=NOW)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        fail()
    with database.read() as session:
        assert users.find_user(session, "ann") is None


def test_history_shows_own_rows_alone(database):
    ann, eve = add(database, "ann"), add(database, "eve")
    mine = row(ann, name="Thorax 1.png")
    with database.write() as session:
        predictions.save_prediction(session, mine)
        predictions.save_prediction(session, row(eve))
        predictions.save_prediction(session, row(ann, label=""))
    with database.read() as session:
        assert predictions.own_predictions(session, ann).total == 2
        assert predictions.own_predictions(session, ann, search="THORAX").total == 1
        assert predictions.own_predictions(session, ann, outcome="refused").total == 1
        assert predictions.own_prediction(session, eve, mine.id) is None
        assert predictions.own_outcomes(session, ann) == ["refused", "viral"]
        found = predictions.own_prediction(session, ann, mine.id)
        assert list(found.result["probs"]) == ["viral", "bacterial"]
    with database.write() as session:
        assert predictions.delete_own(session, eve, mine.id) == []
        assert predictions.delete_own(session, ann, mine.id) == [mine.stem]
        rows = users.list_usage(session, NOW)
    assert [(item.images, item.refused, item.kept) for item in rows] == [(2, 1, 1), (1, 0, 1)]


def test_retention_deletes_what_is_older(database):
    ann = add(database)
    old, young = row(ann, age_days=91), row(ann, age_days=89)
    with database.write() as session:
        predictions.save_prediction(session, old)
        predictions.save_prediction(session, young)
        assert predictions.delete_older(session, NOW - timedelta(days=90)) == [old.stem]
        assert predictions.known_stems(session, [old.stem, young.stem, "x"]) == {young.stem}


def test_limit_holds_and_comes_free_again(database):
    def hit(at: float):
        with database.write() as session:
            moment = NOW + timedelta(seconds=at)
            return counters.count_hit(session, "k", limit=3, window_s=60, now=moment)

    assert [hit(at) for at in (0, 10, 20)] == [0, 0, 0]
    wait_s = hit(30)
    assert wait_s > 0
    assert hit(30 + wait_s - 2) > 0
    assert hit(30 + wait_s) == 0


def test_limit_cannot_be_used_twice_around_a_border(database):
    allowed = 0
    for at in (*range(50, 60), *range(60, 70)):
        with database.write() as session:
            wait_s = counters.count_hit(
                session, "k", limit=10, window_s=60, now=NOW + timedelta(seconds=at)
            )
        allowed += wait_s == 0
    assert allowed <= 11


def test_hits_from_many_threads_are_all_counted(database):
    barrier = threading.Barrier(8)

    def hit(_: int) -> bool:
        barrier.wait()
        allowed = 0
        for _ in range(5):
            with database.write() as session:
                wait_s = counters.count_hit(session, "k", limit=25, window_s=3600, now=NOW)
            allowed += wait_s == 0
        return allowed

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(hit, range(8))) == 25


def test_taking_back_uncounts(database):
    with database.write() as session:

        def hit():
            return counters.count_hit(session, "k", limit=2, window_s=60, now=NOW) == 0

        assert [hit(), hit(), hit()] == [True, True, False]
        counters.take_back(session, "k", window_s=60, now=NOW)
        assert [hit(), hit()] == [True, False]
        counters.drop_expired(session, NOW + timedelta(hours=1))


def test_token_limits(database):
    ann = add(database)
    with database.write() as session:
        for name in ("", "x" * 65, "a\x00b"):
            with pytest.raises(InputError, match="name"):
                users.create_token(session, ann, name, now=NOW)
        for number in range(users.MOST_TOKENS):
            users.create_token(session, ann, str(number), now=NOW)
        with pytest.raises(InputError, match="revoke one"):
            users.create_token(session, ann, "more", now=NOW)


def test_deleting_a_user_takes_everything_of_theirs(database):
    ann = add(database)
    with database.write() as session:
        predictions.save_prediction(session, row(ann))
        users.create_token(session, ann, "t", now=NOW)
        users.begin_session(session, session.get_one(User, ann), NOW)
        session.execute(sa.delete(User).where(User.id == ann))
    with database.read() as session:
        for table in Base.metadata.tables.values():
            if table.name != "alembic_version":
                assert session.execute(sa.select(sa.func.count()).select_from(table)).scalar() == 0


def test_reading_goes_on_while_another_writes(database):
    ann = add(database)
    with database.write() as writing:
        writing.get_one(User, ann).role = "admin"
        writing.flush()
        with database.read() as reading:
            assert reading.get_one(User, ann).role == "user"


def test_connection_that_was_cut_is_replaced(database):
    if database.is_sqlite:
        pytest.skip("SQLite has no connections that others can cut")
    user_id = add(database)
    others = sa.text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
    admin = Database(database.engine.url.render_as_string(hide_password=False), threads=1)
    with database.read() as one, database.read() as two:  # fill the pool
        one.get_one(User, user_id), two.get_one(User, user_id)
    for _ in range(2):
        with admin.write() as session:
            session.execute(others)
        with database.write() as session:
            session.get_one(User, user_id).role = "admin"
    admin.close()


@pytest.mark.parametrize("name", ["do_ping", "do_execute", "do_commit", "do_rollback"])
def test_socket_that_broke_while_reading_is_a_broken_connection(name):
    dialect = Dialect()
    dialect.dbapi = dialect.import_dbapi()

    class Broken:
        def cursor(self):
            return self

        def close(self):
            pass

        def fail(self, *args):
            raise ConnectionResetError(104, "Connection reset by peer")

        execute = commit = rollback = fail

    broken, words = Broken(), ("SELECT 1", ()) if name == "do_execute" else ()
    with pytest.raises(dialect.loaded_dbapi.InterfaceError) as caught:
        getattr(dialect, name)(broken, *words)
    assert dialect.is_disconnect(caught.value, broken, None)


@pytest.mark.parametrize("url", ["nonsense", "mysql://a/b", "postgresql+nodriver://a/b"])
def test_bad_address_is_one_line_without_the_password(url):
    with pytest.raises(InputError, match="CXR_DATABASE_URL"):
        Database(url)


def test_database_that_does_not_answer_is_one_line():
    settings = Settings.load({"database_url": "postgresql://a:secret@127.0.0.1:1/b"}, environ={})
    database = Database(settings.database)
    with pytest.raises(InputError, match="does not answer") as caught:
        database.wait(0)
    assert "secret" not in str(caught.value)
    database.close()
