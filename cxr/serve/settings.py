"""What a server can be told, by the environment or by a mapping, checked once at the start."""

import contextlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Annotated, Any, Literal, get_args
from urllib.parse import quote

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from cxr.errors import InputError
from cxr.imaging.raster import MAX_PIXELS

RESEARCH_USE = "Research use only, not a medical device."
"""Stands on every page and in every answer."""
PREFIX = "CXR_"
"""Every field is read from the variable of this prefix and its name in capitals."""
MIN_SECRET_CHARS = 32
NotNegative = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]


class Settings(BaseSettings):
    """How the server runs; ``Settings.load`` reads it."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True
    )

    bundle: Path = Path("bundle")
    """Folder of the exported ensemble."""
    data_folder: Path = Path("outputs/app")
    """Folder of the database, the images and the secret key; nothing of it is ever served."""
    database_url: str = ""
    """``postgresql://user:password@host/name``; an SQLite file in the data folder by default."""
    database_password_file: str = ""
    """File to read the database's password from, such as a container's secret."""
    secret_key: str = ""
    """Signs cookies; made at the first start and kept in the data folder by default."""
    secret_key_file: str = ""
    """File to read the secret key from, such as a container's secret."""
    secure_cookies: Literal["auto", "always", "never"] = "auto"
    """``auto`` spares only plain http to this very machine; ``never`` is for trusted networks."""
    trusted_proxies: NotNegative = 0
    """How many proxies in front set X-Forwarded-For and -Proto; with 0 these are not believed."""
    session_hours: Positive = 12
    """After this many hours a user signs in again."""
    idle_minutes: Positive = 60
    """After this many minutes without a request a user signs in again."""
    login_attempts: Positive = 5
    """Wrong passwords allowed for one account from one address in ``login_window_minutes``; four
    times as many for one account from anywhere, six times as many from one address."""
    login_window_minutes: Positive = 15
    """How long wrong passwords are remembered."""
    retention_days: NotNegative = 90
    """Images and results older than this are deleted; 0 keeps them."""
    upload_bytes: Annotated[int, Field(ge=1024)] = 32 * 1024 * 1024
    """Largest image file."""
    upload_files: Positive = 16
    """Most images in one upload of the pages."""
    spare_bytes: int = 64 * 1024 * 1024
    """Left free on the data folder's disk, so that the database can still write, and delete."""
    max_pixels: Annotated[int, Field(ge=1024, le=MAX_PIXELS)] = 36_000_000
    """Largest image: twice a detector's 4,280 x 3,520 and more."""
    rate_per_minute: Positive = 60
    """Images that one user may have predicted in a minute, pages and API together."""
    queue_length: Positive = 6
    """Images in one process at once, from upload to answer; beyond it the answer is 503."""
    batch: Positive = 4
    """Most images given to the model in one call."""
    deadline_s: Annotated[float, Field(ge=1)] = 30.0
    """An image that waited longer is given up with 503."""
    watch_s: Annotated[float, Field(gt=0)] = 5.0
    """How often the bundle's files are looked at, to load a new bundle."""
    processes: Positive = 1
    """Processes under gunicorn; each holds a model of its own."""
    request_threads: Positive = 24
    """Threads that answer requests in each process."""
    threads: NotNegative = 0
    """Threads of the model in one process; 0 takes every core."""
    runtime: str = "onnxruntime"
    """What runs the model: onnxruntime or openvino."""
    metrics_token: str = ""
    """Bearer token that /metrics asks for; without one it answers this very machine alone."""
    level: Annotated[float, Field(ge=0.5, lt=1)] = 0.9
    """Share of images of each class whose prediction set holds it."""
    automatic_upgrade: bool = True
    """Bring the database to this version's tables at the start."""
    database_wait_seconds: NotNegative = 30
    """How long a start waits for a database that does not answer."""

    @classmethod
    def settings_customise_sources(cls, *_: Any, **sources: Any) -> tuple[Any, ...]:
        """Take the values of the call alone; ``load`` adds the environment's."""
        return (sources["init_settings"],)

    @classmethod
    def load(
        cls, values: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None
    ) -> "Settings":
        """Read the settings; a value by its field's name goes before the environment's.

        An unknown field, or a value of the wrong kind or out of range, is an InputError.
        """
        source = EnvSettingsSource(cls)
        environ = os.environ if environ is None else environ
        source.env_vars = {name.lower(): value for name, value in environ.items() if value}
        try:
            return cls(**{**source(), **(values or {})})
        except ValidationError as error:
            raise InputError(_line_of(error)) from None

    @property
    def database(self) -> str:
        """The database's address with the driver that is installed, and its password."""
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


def read_secret_key(settings: Settings) -> str:
    """Return the key that signs cookies; the first start makes one, readable by its owner alone.

    A key under 32 characters, or a data folder that cannot be written, is an InputError.
    """
    key, where = settings.secret_key, "CXR_SECRET_KEY"
    if not key and settings.secret_key_file:
        where = settings.secret_key_file
        key = _read(where, "secret_key_file")
    if not key:
        path = settings.data_folder / "secret_key"
        where, key = str(path), _stored_key(path)
    if len(key) < MIN_SECRET_CHARS:
        raise InputError(
            f"the secret key of {where} has {len(key)} characters: at least {MIN_SECRET_CHARS} "
            "are needed; make one with python -c 'import secrets; print(secrets.token_hex(32))'"
        )
    return key


def _read(path: str, setting: str) -> str:
    """Read a secret that stands in a file of its own."""
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise InputError(
            f"setting {setting} is {path!r}, which cannot be read ({error.strerror}): set "
            f"{PREFIX}{setting.upper()}"
        ) from None


def _stored_key(path: Path) -> str:
    """Read the stored key; make it first if there is none, one for all processes."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            # Readable by its owner alone, which is how tempfile makes it.
            with NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.") as fresh:
                fresh.write(secrets.token_hex(32) + "\n")
                fresh.flush()
                os.fsync(fresh.fileno())
                with contextlib.suppress(FileExistsError):
                    os.link(fresh.name, path)  # fails where another process was first
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise InputError(
            f"the data folder {path.parent} cannot be used ({error.strerror}): set "
            f"{PREFIX}DATA_FOLDER"
        ) from None


def _line_of(error: ValidationError) -> str:
    """Return the first thing that is wrong as one line: setting, value, what is allowed, hint."""
    first = error.errors()[0]
    name, kind = str(first["loc"][0]), first["type"].split("_")[0]
    if kind == "extra":
        return f"unknown setting {name!r}: allowed are {', '.join(Settings.model_fields)}"
    field, variable = Settings.model_fields[name], f"{PREFIX}{name.upper()}"
    kinds = {"bool": "true or false", "path": "a path", "string": "text"}
    allowed = kinds.get(kind, "a number")
    if kind == "literal":
        allowed = ", ".join(get_args(field.annotation))
    elif kind in ("greater", "less"):
        allowed = _range_of(field.metadata)
    return f"setting {name} is {first['input']!r}: allowed are {allowed}; set {variable}"


def _range_of(rules: list[Any]) -> str:
    keys = ("gt", "ge", "lt", "le")
    bound = {key: getattr(rule, key) for rule in rules for key in keys if hasattr(rule, key)}
    if "gt" in bound:
        return f"above {bound['gt']}"
    if "le" in bound or "lt" in bound:
        upper = bound["le"] if "le" in bound else f"below {bound['lt']}"
        return f"{bound['ge']} to {upper}"
    return f"{bound['ge']} and above"
