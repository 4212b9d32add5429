"""Users and their sessions: the tables, and the bodies of requests and answers."""

import unicodedata
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import sqlalchemy as sa
from pydantic import AfterValidator, StringConstraints
from pydantic import Field as Rule
from sqlmodel import Field, SQLModel
from uuid_utils.compat import uuid7

from contacts_api.bodies import Body, with_example
from contacts_api.database import stamped, table_of
from contacts_api.text import OneLine, Timestamp, Trimmed, is_plain_address, read_address


class User(SQLModel, table=True):
    """An account. `is_superuser` and `is_verified` are there because fastapi-users asks for them."""

    id: UUID = Field(default_factory=uuid7, primary_key=True)
    email: str = Field(sa_type=sa.String(320), unique=True)
    hashed_password: str
    is_active: bool = True
    is_superuser: bool = False
    is_verified: bool = False
    created_at: datetime = stamped()
    # When the user deleted the account. Its row is deleted last, after all that it owns.
    erased_at: datetime | None = Field(default=None, sa_type=sa.DateTime(timezone=True))

    __table_args__ = (sa.Index("ix_user_erased_at", "erased_at", postgresql_where=sa.text("erased_at IS NOT NULL")),)


class AuthSession(SQLModel, table=True):
    """A session, opened by a sign-in. Its tokens are not stored; `seq` is the number of the newest refresh token."""

    __tablename__ = "auth_session"

    user_id: UUID = Field(primary_key=True, foreign_key="user.id", ondelete="CASCADE")
    id: UUID = Field(default_factory=uuid7, primary_key=True)
    seq: int = 0
    created_at: datetime = stamped()
    refreshed_at: datetime = stamped()
    expires_at: datetime = Field(sa_type=sa.DateTime(timezone=True), index=True)
    # When it ends, however often it is refreshed until then. Workers of a release before leave it to the default.
    ends_at: datetime = Field(
        sa_type=sa.DateTime(timezone=True), sa_column_kwargs={"server_default": sa.text("now() + interval '30 days'")}
    )
    user_agent: str | None = None


class EndedSession(SQLModel, table=True):
    """A session that has ended while its access token may still be valid. No foreign key: it outlives its account."""

    __tablename__ = "ended_session"

    id: UUID = Field(primary_key=True)
    ended_at: datetime = stamped(index=True)


class FailedAttempt(SQLModel, table=True):
    """How many wrong passwords in a row were tried for an account, and until when it is blocked."""

    __tablename__ = "failed_attempt"

    key: bytes = Field(primary_key=True)
    failures: int
    failed_at: datetime = stamped(index=True)
    blocked_until: datetime | None = Field(default=None, sa_type=sa.DateTime(timezone=True))


def owner_columns() -> list[sa.Column[UUID]]:
    """Return the column that names the owner, of each table whose rows belong to a user: referring tables last."""
    return [
        key.parent
        for table in SQLModel.metadata.sorted_tables
        for key in table.foreign_keys
        if key.column is table_of(User).c.id
    ]


def normalize_email(text: str) -> str:
    """Return the one form of an account's address: NFC, the domain in Unicode, all in lower case."""
    if is_plain_address(text):
        return text.lower()
    return unicodedata.normalize("NFC", read_address(text).normalized.lower())


EmailAddress = Annotated[
    str,
    Trimmed,
    OneLine,
    AfterValidator(normalize_email),
    Rule(json_schema_extra={"format": "email", "maxLength": 254}),
]
Password = Annotated[
    str,
    StringConstraints(min_length=8, max_length=128),
    OneLine,
    Rule(json_schema_extra={"format": "password"}),
]
# No rules here: a password that breaks one must get the same answer as a wrong one.
Secret = Annotated[str, Rule(json_schema_extra={"format": "password"})]

_AN_EMAIL = "ada@example.com"
_A_PASSWORD = "correct horse battery staple"  # noqa: S105 (an example)


class UserCreate(Body):
    model_config = with_example(email=_AN_EMAIL, password=_A_PASSWORD)

    email: EmailAddress
    password: Password


class UserUpdate(Body):
    """The changes, and the current password."""

    model_config = with_example(current_password=_A_PASSWORD, email="ada.lovelace@example.com")

    current_password: Secret
    # A null is refused: only who leaves a member out gets the default.
    email: EmailAddress = Field(default=None)
    password: Password = Field(default=None)


class PasswordCheck(Body):
    model_config = with_example(current_password=_A_PASSWORD)

    current_password: Secret


class Credentials(Body):
    model_config = with_example(email=_AN_EMAIL, password=_A_PASSWORD)

    email: str
    password: Secret


class RefreshRequest(Body):
    model_config = with_example(refresh_token="the one you were given last")  # noqa: S106

    refresh_token: Secret


class TokenRequest(Body):
    """The form of OAuth 2.0 (RFC 6749, 4.3.2 and 6).

    The name and secret of a client are ignored, and so are fields that are not known (3.2).
    """

    model_config = with_example(grant_type="password", username=_AN_EMAIL, password=_A_PASSWORD) | {"extra": "ignore"}

    grant_type: Literal["password", "refresh_token"]
    # The docs page fills in the examples of fields that have no default in the document.
    username: Annotated[
        str, Rule(description="Your e-mail address, with `grant_type=password`.", examples=[_AN_EMAIL])
    ] = Field(default=None)
    password: Annotated[Secret, Rule(examples=[_A_PASSWORD])] = Field(default=None)
    refresh_token: Secret = ""
    scope: str = ""
    client_id: str = ""
    client_secret: Secret = ""


class UserPublic(SQLModel):
    id: UUID
    email: str
    is_active: bool
    created_at: Timestamp


class TokenPair(SQLModel):
    """An access token, valid for `expires_in` seconds, and a refresh token to get the next pair with. Both are JWTs."""

    access_token: str
    refresh_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105
    expires_in: int


class SessionPublic(SQLModel):
    id: UUID
    created_at: Timestamp
    refreshed_at: Timestamp
    expires_at: Timestamp
    user_agent: str | None
    current: bool


class SessionList(SQLModel):
    items: list[SessionPublic]
