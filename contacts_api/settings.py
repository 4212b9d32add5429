"""The settings, read from environment variables or `.env`."""

import os
from email.utils import getaddresses
from importlib.resources import files
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import psycopg2
from platformdirs import PlatformDirs
from platformdirs.unix import Unix
from psycopg2.extensions import parse_dsn
from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt, SecretStr
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

SECRET_BYTES = 32
# Not from zoneinfo.available_timezones(), which opens about 600 files.
_TIME_ZONES = frozenset((files("tzdata") / "zones").read_text().split())

# Unix paths on macOS, too. The usual directory there has a space in its name, which the embedded PostgreSQL does not
# support.
_DIRECTORIES = (Unix if os.name == "posix" else PlatformDirs)("contacts-api", appauthor=False)


def _postgresql_url(value: SecretStr) -> SecretStr:
    url = value.get_secret_value()
    scheme, is_url, rest = url.partition("://")
    if not is_url:
        raise ValueError("is not a URL; expected postgresql://user:password@host/database")
    # Also accept SQLAlchemy's form, which has a driver name: postgresql+asyncpg://.
    if scheme.partition("+")[0] not in ("postgres", "postgresql"):
        raise ValueError("must start with postgresql://")
    url = f"postgresql://{rest}"
    try:
        parse_dsn(url)
    except psycopg2.ProgrammingError:
        # The error of libpq may quote the password.
        raise ValueError("is not a URL that PostgreSQL's own programs could read (PostgreSQL, 34.1.1)") from None
    return SecretStr(url)


def _mail_url(value: SecretStr) -> SecretStr:
    url = urlsplit(value.get_secret_value())
    try:
        is_server = url.scheme in ("smtp", "smtps") and bool(url.hostname) and (url.port or 1) > 0
    except ValueError:
        is_server = False
    if not is_server and not (url.scheme == "file" and url.path.startswith("/")):
        raise ValueError("must be smtp://user:password@host:port, smtps://… or file:///directory")
    return value


def _sender(value: str) -> str:
    addresses = [address for _, address in getaddresses([value])]
    is_one = len(addresses) == 1 and value.isprintable()
    if not is_one or not addresses[0].isascii() or not addresses[0].partition("@")[2]:
        raise ValueError("must be an address, such as contacts@example.com or Contacts <contacts@example.com>")
    return value


def _long_secret(value: SecretStr) -> SecretStr:
    # RFC 7518, 3.2: a key for HS256 must have at least 256 bits.
    if len(value.get_secret_value().encode()) < SECRET_BYTES:
        raise ValueError(f"must have at least {SECRET_BYTES} bytes; try: openssl rand -hex 32")
    return value


def known_time_zone(name: str | None) -> str | None:
    """Return the name. Raises PydanticCustomError if it is not a time zone of the IANA database.

    `ZoneInfo(name)` does not check this: it opens any file that the name resolves to.
    """
    if name is not None and name not in _TIME_ZONES:
        raise PydanticCustomError("not_allowed", "Must be a time zone of the IANA database, such as Europe/Kyiv.")
    return name


def _comma_separated(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class Settings(BaseSettings):
    """The settings. Environment variables have the same names in upper case. docs/operating.md explains them."""

    model_config = SettingsConfigDict(
        env_file=".env", env_ignore_empty=True, extra="ignore", hide_input_in_errors=True, frozen=True
    )

    database_url: Annotated[SecretStr, AfterValidator(_postgresql_url)] | None = None
    database_read_url: Annotated[SecretStr, AfterValidator(_postgresql_url)] | None = None
    prepared_statements: bool = True
    jwt_secret: Annotated[SecretStr, AfterValidator(_long_secret)] | None = None
    jwt_secret_previous: Annotated[SecretStr, AfterValidator(_long_secret)] | None = None
    data_dir: Path = _DIRECTORIES.user_data_path

    access_token_seconds: PositiveInt = 15 * 60
    refresh_token_seconds: PositiveInt = 14 * 24 * 3600
    session_seconds: PositiveInt = 30 * 24 * 3600

    registration_open: bool = True
    require_verification: bool = False
    smtp_url: Annotated[SecretStr, AfterValidator(_mail_url)] | None = None
    mail_from: Annotated[str, AfterValidator(_sender)] = "contacts@localhost"
    public_url: Annotated[str, Field(pattern=r"^(https?://[^/?#]+(/[^/?#]+)*/?)?$")] = ""
    max_contacts: PositiveInt = 1_000_000
    max_keys: PositiveInt = 100
    import_max_bytes: PositiveInt = 100_000_000
    import_max_rows: PositiveInt = 200_000
    time_zone: Annotated[str, AfterValidator(known_time_zone)] = "UTC"
    cors_origins: Annotated[list[str], NoDecode, BeforeValidator(_comma_separated)] = []

    root_path: Annotated[str, Field(pattern=r"^(/[^/?#]+)*$")] = ""
    forwarded_allow_ips: str = "127.0.0.1"
    web_concurrency: PositiveInt = 1
    pool_size: PositiveInt = 10
    log_level: Annotated[str, Field(pattern="^(DEBUG|INFO|WARNING|ERROR)$")] = "INFO"
    log_format: Annotated[str, Field(pattern="^(text|json)$")] = "text"

    @property
    def url(self) -> str:
        """The URL of the database. Raises RuntimeError if it is not set."""
        if self.database_url is None:
            raise RuntimeError("DATABASE_URL is not set; `python -m contacts_api` does without it.")
        return self.database_url.get_secret_value()

    @property
    def secrets(self) -> list[str]:
        """The keys for tokens: the current one, which signs, and during a key rotation the previous one."""
        given = (self.jwt_secret, self.jwt_secret_previous)
        return [secret.get_secret_value() for secret in given if secret]

    @property
    def hashing_threads(self) -> int:
        """The number of passwords that one worker hashes at the same time: its share of the CPU cores."""
        return max(1, (os.cpu_count() or 1) // self.web_concurrency)
