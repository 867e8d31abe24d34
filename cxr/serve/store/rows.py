"""The tables. Changing them needs a new revision in ``cxr/serve/migrations/versions``."""

from datetime import UTC, date, datetime
from typing import Annotated, Any, ClassVar

from sqlalchemy import JSON, DateTime, Dialect, ForeignKey, Index, String, TypeDecorator
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

ROLES = ("user", "admin")
"""What an account may be; an admin also sees the accounts and how much they use."""
NAME_CHARS = 64
"""Longest account name and token name."""
FILE_NAME_CHARS = 160
"""Longest shown name of an image."""
OwnerId = Annotated[int, mapped_column(ForeignKey("users.id", ondelete="CASCADE"))]


class UtcDateTime(TypeDecorator[datetime]):
    """A moment with its time zone, also where the database knows none (SQLite)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Store UTC."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Root of the tables."""

    type_annotation_map: ClassVar = {datetime: UtcDateTime, dict[str, Any]: JSON}


class User(Base):
    """An account."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(NAME_CHARS), unique=True)
    """Lower case."""
    password_hash: Mapped[str] = mapped_column(String(255))
    role: Mapped[str] = mapped_column(String(16), default="user")
    disabled: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime]
    login_at: Mapped[datetime | None]


class LoginSession(Base):
    """Someone signed in, by the digest of what the cookie holds."""

    __tablename__ = "sessions"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    user_id: Mapped[OwnerId] = mapped_column(index=True)
    created_at: Mapped[datetime]
    used_at: Mapped[datetime] = mapped_column("seen_at")


class Token(Base):
    """An API token, by its digest; the token itself is shown once and stored nowhere."""

    __tablename__ = "tokens"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[OwnerId] = mapped_column(index=True)
    name: Mapped[str] = mapped_column(String(NAME_CHARS))
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    hint: Mapped[str] = mapped_column(String(16))
    """The first characters, to tell tokens apart."""
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    used_at: Mapped[datetime | None]


class PredictionRow(Base):
    """An image and what the ensemble said of it."""

    __tablename__ = "predictions"
    __table_args__ = (Index("ix_predictions_user_created", "user_id", "created_at"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    """Random, so that it cannot be guessed; part of the address."""
    user_id: Mapped[OwnerId]
    created_at: Mapped[datetime] = mapped_column(index=True)
    origin: Mapped[str] = mapped_column(String(8))
    """``page`` or ``api``."""
    name: Mapped[str] = mapped_column(String(FILE_NAME_CHARS))
    """What the user's file was called, for the user alone."""
    stem: Mapped[str] = mapped_column(String(32), unique=True)
    """Folder of the image below the data folder; random and in no address."""
    refused: Mapped[bool]
    label: Mapped[str] = mapped_column(String(64))
    """Predicted class; "" where the image was refused."""
    refer: Mapped[bool]
    width_px: Mapped[int]
    height_px: Mapped[int]
    fingerprint: Mapped[str] = mapped_column(String(64))
    """Of the bundle that answered."""
    result: Mapped[dict[str, Any]]
    """What is shown and handed out as JSON."""


class Counter(Base):
    """How often something happened in one window of time, for all processes."""

    __tablename__ = "counters"

    key: Mapped[str] = mapped_column(String(96), primary_key=True)
    slot: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """Number of the window since 1970."""
    count: Mapped[int]
    expires_at: Mapped[datetime] = mapped_column(index=True)


class Usage(Base):
    """Images of a user on one day; stays when the history is deleted."""

    __tablename__ = "usage"

    user_id: Mapped[OwnerId] = mapped_column(primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    origin: Mapped[str] = mapped_column(String(8), primary_key=True)
    films: Mapped[int]
    refused: Mapped[int]


def add_counts(
    session: Session, table: type[Base], keys: dict[str, Any], counts: dict[str, int], **fixed: Any
) -> postgresql.Insert | sqlite.Insert:
    """Return what inserts a row of counts, or adds them to the row that has these keys."""
    on_sqlite = session.get_bind().dialect.name == "sqlite"
    insert = sqlite.insert if on_sqlite else postgresql.insert
    row = insert(table).values(**keys, **counts, **fixed)
    more = {name: getattr(table, name) + count for name, count in counts.items()}
    return row.on_conflict_do_update(index_elements=list(keys), set_=more)
