"""What a server can be told, by the environment or by a mapping, checked once at the start."""

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import quote

from cxr.errors import InputError
from cxr.imaging.read import MAX_PIXELS

RESEARCH_USE = "Research use only, not a medical device."
"""Stands on every page and in every answer."""
PREFIX = "CXR_"
"""Every field is read from the variable of this prefix and its name in capitals."""
MIN_SECRET_CHARS = 32
CookieRule = Literal["auto", "always", "never"]


@dataclass(frozen=True)
class Settings:
    """How the server runs; ``Settings.load`` reads it."""

    bundle: Path = Path("bundle")
    """Folder of the exported ensemble."""
    data_folder: Path = Path("outputs/app")
    """Folder of the database, the films and the secret key; nothing of it is ever served."""
    database_url: str = ""
    """``postgresql://user:password@host/name``; an SQLite file in the data folder by default."""
    database_password_file: str = ""
    """File to read the database's password from, such as a container's secret."""
    secret_key: str = ""
    """Signs cookies; made at the first start and kept in the data folder by default."""
    secret_key_file: str = ""
    """File to read the secret key from, such as a container's secret."""
    secure_cookies: CookieRule = "auto"
    """``auto`` spares only plain http to this very machine; ``never`` is for trusted networks."""
    trusted_proxies: int = 0
    """How many proxies in front set X-Forwarded-For and -Proto; with 0 these are not believed."""
    session_hours: int = 12
    """After this many hours a user signs in again."""
    idle_minutes: int = 60
    """After this many minutes without a request a user signs in again."""
    login_attempts: int = 5
    """Wrong passwords allowed for one account from one address in ``login_window_minutes``; four
    times as many for one account from anywhere, six times as many from one address."""
    login_window_minutes: int = 15
    """How long wrong passwords are remembered."""
    retention_days: int = 90
    """Films and results older than this are deleted; 0 keeps them."""
    upload_bytes: int = 32 * 1024 * 1024
    """Largest film file."""
    upload_files: int = 16
    """Most films in one upload of the pages."""
    spare_bytes: int = 64 * 1024 * 1024
    """Left free on the data folder's disk, so that the database can still write, and delete."""
    max_pixels: int = 36_000_000
    """Largest film: twice a detector's 4,280 x 3,520 and more."""
    rate_per_minute: int = 60
    """Films that one user may have predicted in a minute, pages and API together."""
    queue_length: int = 6
    """Films in one process at once, from upload to answer; beyond it the answer is 503."""
    batch: int = 4
    """Most films given to the model in one call."""
    deadline_s: float = 30.0
    """A film that waited longer is given up with 503."""
    watch_s: float = 5.0
    """How often the bundle's files are looked at, to load a new bundle."""
    processes: int = 1
    """Processes under gunicorn; each holds a model of its own."""
    request_threads: int = 24
    """Threads that answer requests in each process."""
    threads: int = 0
    """Threads of the model in one process; 0 takes every core."""
    runtime: str = "onnxruntime"
    """What runs the model: onnxruntime or openvino."""
    metrics_token: str = ""
    """Bearer token that /metrics asks for; without one it answers this very machine alone."""
    level: float = 0.9
    """Share of films of each class whose prediction set holds it."""
    automatic_upgrade: bool = True
    """Bring the database to this version's tables at the start."""
    database_wait_seconds: int = 30
    """How long a start waits for a database that does not answer."""

    @classmethod
    def load(
        cls, values: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None
    ) -> "Settings":
        """Read the settings; a value of the mapping goes before the environment's.

        Args:
            values: field name to value.
            environ: the environment; the process's own by default.

        Raises:
            InputError: an unknown field, or a value of the wrong kind or out of range.
        """
        environ = os.environ if environ is None else environ
        known = {field.name: field.type for field in fields(cls)}
        given = {
            name: environ[PREFIX + name.upper()]
            for name in known
            if environ.get(PREFIX + name.upper(), "") != ""
        }
        for name in values or {}:
            if name not in known:
                raise InputError(f"unknown setting {name!r}: allowed are {', '.join(known)}")
        merged = given | dict(values or {})
        read = {name: _convert(name, value, known[name]) for name, value in merged.items()}
        settings = cls(**read)
        settings._check()
        return settings

    def _check(self) -> None:
        at_least_one = (
            "session_hours",
            "idle_minutes",
            "login_attempts",
            "login_window_minutes",
            "upload_files",
            "rate_per_minute",
            "queue_length",
            "batch",
            "deadline_s",
            "request_threads",
            "processes",
        )
        for name in at_least_one:
            _require(getattr(self, name) >= 1, name, getattr(self, name), "1 and above")
        _require(self.watch_s > 0, "watch_s", self.watch_s, "above 0")
        for name in ("trusted_proxies", "retention_days", "threads", "database_wait_seconds"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "0 and above")
        _require(self.upload_bytes >= 1024, "upload_bytes", self.upload_bytes, "1024 and above")
        _require(
            1024 <= self.max_pixels <= MAX_PIXELS,
            "max_pixels",
            self.max_pixels,
            f"1024 to {MAX_PIXELS}",
        )
        _require(0.5 <= self.level < 1, "level", self.level, "0.5 to below 1")
        _require(
            self.secure_cookies in get_args(CookieRule),
            "secure_cookies",
            self.secure_cookies,
            ", ".join(get_args(CookieRule)),
        )

    @property
    def database(self) -> str:
        """The database's address with the driver that is installed.

        Raises:
            InputError: the password's file cannot be read.
        """
        if not self.database_url:
            return f"sqlite:///{(self.data_folder / 'cxr.sqlite').absolute()}"
        address = self.database_url
        if self.database_password_file:
            password = quote(_read(self.database_password_file, "database_password_file"), safe="")
            user, at, rest = address.partition("@")
            address = f"{user}:{password}{at}{rest}"
        for prefix in ("postgresql://", "postgres://"):
            if address.startswith(prefix):
                return "postgresql+pg8000://" + address.removeprefix(prefix)
        return address

    @property
    def max_request_bytes(self) -> int:
        """Largest request: a full upload's form needs a little more than its files."""
        return min(self.upload_files * self.upload_bytes, 512 * 1024 * 1024) + 64 * 1024


def read_secret_key(settings: Settings) -> str:
    """Return the key that signs cookies; the first start makes one, readable by its owner alone.

    Raises:
        InputError: a key under 32 characters, or the data folder cannot be written.
    """
    given, where = settings.secret_key, "CXR_SECRET_KEY"
    if not given and settings.secret_key_file:
        where = settings.secret_key_file
        given = _read(where, "secret_key_file")
    if not given:
        path = settings.data_folder / "secret_key"
        where, given = str(path), _stored_key(path)
    if len(given) < MIN_SECRET_CHARS:
        raise InputError(
            f"the secret key of {where} has {len(given)} characters: at least {MIN_SECRET_CHARS} "
            "are needed; make one with python -c 'import secrets; print(secrets.token_hex(32))'"
        )
    return given


def _read(path: str, setting: str) -> str:
    """Read a secret that stands in a file of its own."""
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise InputError(
            f"setting {setting} is {path!r}, which cannot be read ({error.strerror}): mend "
            f"{PREFIX}{setting.upper()}"
        ) from None


def _stored_key(path: Path) -> str:
    """Read the stored key; make it first if there is none, one for all processes."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        if not path.exists():
            handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(secrets.token_hex(32) + "\n")
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(fresh, path)  # fails where another process was first, unlike a rename
            except FileExistsError:
                pass
            finally:
                fresh.unlink()
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise InputError(
            f"the data folder {path.parent} cannot be used ({error.strerror}): mend "
            f"{PREFIX}DATA_FOLDER"
        ) from None


def _convert(name: str, value: Any, kind: Any) -> Any:
    """Turn what the environment says into the field's kind."""
    try:
        if kind is Path:
            return Path(value)
        if kind is bool:
            return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[
                str(value).lower()
            ]
        if kind in (int, float):
            return kind(value)
    except (ValueError, KeyError):
        wanted = "true or false" if kind is bool else f"a number ({kind.__name__})"
        raise InputError(f"setting {name} is {value!r}: {wanted} is needed") from None
    return str(value)


def _require(right: bool, name: str, value: object, allowed: str) -> None:
    if not right:
        raise InputError(
            f"setting {name} is {value!r}: allowed are {allowed}; mend {PREFIX}{name.upper()}"
        )
