"""Accounts, sessions, keys and mails: the tables, and the bodies of requests and responses."""

import re
import unicodedata
from datetime import UTC, datetime
from typing import Annotated, Literal
from uuid import UUID

import sqlalchemy as sa
from pydantic import AfterValidator, AwareDatetime, BeforeValidator, JsonValue, StringConstraints
from pydantic import Field as Rule
from pydantic_core import PydanticCustomError
from sqlmodel import Field, SQLModel
from uuid_utils.compat import uuid7

from contacts_api.database.engine import stamped
from contacts_api.http.bodies import Body, with_example
from contacts_api.text import A_TIME, CreatedAt, Name, OneLine, Timestamp, Trimmed, normalize_email


class User(SQLModel, table=True):
    """An account. fastapi-users requires `is_superuser`; nothing here uses it."""

    id: UUID = Field(default_factory=uuid7, primary_key=True)
    email: str = Field(sa_type=sa.String(320), unique=True)
    # Raised when the address changes and when the account is activated or deactivated. Invalidates earlier mail tokens.
    email_seq: int = Field(default=0, sa_column_kwargs={"server_default": sa.text("0")})
    hashed_password: str
    is_active: bool = True
    is_superuser: bool = False
    is_verified: bool = False
    created_at: datetime = stamped()
    # When the user deleted the account. This row is deleted last, after all rows that belong to the account.
    erased_at: datetime | None = Field(default=None, sa_type=sa.DateTime(timezone=True))

    __table_args__ = (sa.Index("ix_user_erased_at", "erased_at", postgresql_where=sa.text("erased_at IS NOT NULL")),)


class AuthSession(SQLModel, table=True):
    """A session. Its tokens are not stored; `seq` is the number of its newest refresh token."""

    __tablename__ = "auth_session"

    user_id: UUID = Field(primary_key=True, foreign_key="user.id", ondelete="CASCADE")
    id: UUID = Field(default_factory=uuid7, primary_key=True)
    seq: int = 0
    created_at: datetime = stamped()
    refreshed_at: datetime = stamped()
    expires_at: datetime = Field(sa_type=sa.DateTime(timezone=True), index=True)
    # When the session ends, regardless of refreshes. Workers of an earlier release do not set it and use the default.
    ends_at: datetime = Field(
        sa_type=sa.DateTime(timezone=True), sa_column_kwargs={"server_default": sa.text("now() + interval '30 days'")}
    )
    user_agent: str | None = None


class Mail(SQLModel, table=True):
    """A mail to send. Its token is created when it is sent.

    The row is kept for an hour, because the number of mails in an hour is limited. There is no foreign key, because
    addresses without an account are counted too.
    """

    id: UUID = Field(default_factory=uuid7, primary_key=True)
    purpose: str
    address: str = Field(index=True)
    owner_id: UUID | None = Field(default=None, index=True)
    created_at: datetime = stamped(index=True)
    next_try_at: datetime = stamped()
    tries: int = Field(default=0, sa_column_kwargs={"server_default": sa.text("0")})
    done_at: datetime | None = Field(default=None, sa_type=sa.DateTime(timezone=True))

    __table_args__ = (
        sa.Index("ix_mail_due", sa.text("(tries > 0)"), "next_try_at", postgresql_where=sa.text("done_at IS NULL")),
    )


class EndedSession(SQLModel, table=True):
    """An ended session whose access token may still be valid. No foreign key, because it outlives its account."""

    __tablename__ = "ended_session"

    id: UUID = Field(primary_key=True)
    ended_at: datetime = stamped(index=True)


class AccessKey(SQLModel, table=True):
    """A key for scripts. Its text is not stored. Expired keys are deleted."""

    __tablename__ = "access_key"

    owner_id: UUID = Field(primary_key=True, foreign_key="user.id", ondelete="CASCADE")
    id: UUID = Field(primary_key=True)
    name: str
    scope: str
    key_hash: bytes
    created_at: datetime = stamped()
    expires_at: datetime | None = Field(default=None, sa_type=sa.DateTime(timezone=True), index=True)
    last_used_at: datetime | None = Field(default=None, sa_type=sa.DateTime(timezone=True))


class FailedAttempt(SQLModel, table=True):
    """The number of consecutive wrong passwords for an account, and the time until which it is blocked."""

    __tablename__ = "failed_attempt"

    key: bytes = Field(primary_key=True)
    failures: int
    failed_at: datetime = stamped(index=True)
    blocked_until: datetime | None = Field(default=None, sa_type=sa.DateTime(timezone=True))


EmailAddress = Annotated[
    str,
    Trimmed,
    OneLine,
    AfterValidator(normalize_email),
    Rule(json_schema_extra={"format": "email", "maxLength": 254}),
]
MAX_PASSWORD_LENGTH = 128


def compose(password: str) -> str:
    """Return the password in NFC, so that composed and decomposed letters from different keyboards give the same text.

    A text of more than 4 * MAX_PASSWORD_LENGTH code points is returned unchanged, because normalizing a long run of
    combining marks takes quadratic time. It cannot be an allowed password: a code point decomposes into at most four
    (Unicode, UAX 15).
    """
    return unicodedata.normalize("NFC", password) if len(password) <= 4 * MAX_PASSWORD_LENGTH else password


Password = Annotated[
    str,
    StringConstraints(min_length=8, max_length=MAX_PASSWORD_LENGTH),
    BeforeValidator(lambda password: compose(password) if isinstance(password, str) else password),
    OneLine,
    Rule(json_schema_extra={"format": "password"}),
]
# Not validated: a password that breaks a rule must get the same answer as a wrong one.
Secret = Annotated[str, Rule(json_schema_extra={"format": "password"})]

_AN_EMAIL = "ada@example.com"
_A_PASSWORD = "correct horse battery staple"  # noqa: S105 (an example)
_A_TOKEN = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIwMWEyMjA0MiJ9.c2lnbmF0dXJl"  # noqa: S105 (an example)

NewPassword = Annotated[
    Password,
    Rule(
        description="A password of 8 to 128 characters, none of the commonest and not the address.",
        examples=[_A_PASSWORD],
    ),
]
CurrentPassword = Annotated[Secret, Rule(description="The password that you sign in with.", examples=[_A_PASSWORD])]
Address = Annotated[
    EmailAddress,
    Rule(description="An e-mail address of at most 254 characters, the same in any letter case.", examples=[_AN_EMAIL]),
]
RefreshToken = Annotated[Secret, Rule(description="The refresh token that you were given last.", examples=[_A_TOKEN])]


class UserCreate(Body):
    """A new account."""

    email: Address
    password: NewPassword


class UserUpdate(Body):
    """The changes, and the current password."""

    # The current password and at least one change.
    model_config = with_example({"current_password": _A_PASSWORD, "email": _AN_EMAIL}, minProperties=2)

    current_password: CurrentPassword
    # null is rejected; the default applies only if the field is omitted.
    email: Annotated[Address, Rule(None)]
    password: Annotated[NewPassword, Rule(None)]


class PasswordCheck(Body):
    """The current password, as a confirmation."""

    current_password: CurrentPassword


class Credentials(Body):
    """An e-mail address and a password."""

    email: str = Rule(description="The address that you registered with.", examples=[_AN_EMAIL])
    password: CurrentPassword


class RefreshRequest(Body):
    """The newest refresh token."""

    refresh_token: RefreshToken


class LogoutRequest(Body):
    """A refresh token of the session to sign out."""

    refresh_token: RefreshToken


class AddressOfAccount(Body):
    """The address of an account."""

    email: str = Rule(description="The address that you registered with.", examples=[_AN_EMAIL])


class PasswordReset(Body):
    """The token from a mail, and a new password."""

    token: Secret = Rule(description="The token, from the link of the mail.", examples=[_A_TOKEN])
    password: NewPassword


class Verification(Body):
    """The token from a mail."""

    token: Secret = Rule(description="The token, from the link of the mail.", examples=[_A_TOKEN])


def _requires(*names: str) -> dict[str, JsonValue]:
    """Return a schema that requires these members. It defines them, and allows others, as linters expect."""
    return {"properties": {name: {} for name in names}, "required": list(names), "additionalProperties": True}


_REQUIRED_BY_GRANT: dict[str, JsonValue] = {
    "if": {"properties": {"grant_type": {"const": "password"}}, "additionalProperties": True},
    "then": _requires("username", "password"),
    "else": _requires("refresh_token"),
}


class TokenRequest(Body):
    """An OAuth 2.0 token request (RFC 6749, 4.3.2 and 6).

    The client id, the client secret and unknown fields are ignored (3.2).
    """

    model_config = with_example(
        {"grant_type": "password", "username": _AN_EMAIL, "password": _A_PASSWORD}, **_REQUIRED_BY_GRANT
    ) | {"extra": "ignore"}

    grant_type: Literal["password", "refresh_token"] = Rule(
        description="`password` to sign in, `refresh_token` to get the next pair.", examples=["password"]
    )
    # The docs page fills in examples only for fields without a default in the OpenAPI document.
    username: Annotated[
        str, Rule(None, description="Your e-mail address; required with `grant_type=password`.", examples=[_AN_EMAIL])
    ]
    password: Annotated[
        Secret, Rule(None, description="Your password; required with `grant_type=password`.", examples=[_A_PASSWORD])
    ]
    refresh_token: Secret = Rule(
        "", description="The newest one; required with `grant_type=refresh_token`.", examples=[_A_TOKEN]
    )
    scope: str = Rule("", description="Ignored.", examples=[""])
    client_id: str = Rule("", description="Ignored.", examples=[""])
    client_secret: Secret = Rule("", description="Ignored.", examples=[""])

    def required(self) -> tuple[str, ...]:
        """Return the names of the fields that the grant type requires."""
        return ("refresh_token",) if self.grant_type == "refresh_token" else ("username", "password")


class UserPublic(SQLModel):
    """An account."""

    id: UUID = Rule(description="The id of the account.", examples=["01a22042-9c1f-7b36-9a52-3f0b6f1d2c44"])
    email: str = Rule(description="The address that signs in, in lower case.", examples=[_AN_EMAIL])
    is_active: bool = Rule(description="Whether the account can sign in.", examples=[True])
    is_verified: bool = Rule(description="Whether a mail to the address has been answered.", examples=[False])
    created_at: CreatedAt


class TokenPair(SQLModel):
    """An access token and a refresh token. Both are JWTs (RFC 7519)."""

    access_token: str = Rule(description="Send it with every call, as `Authorization: Bearer …`.", examples=[_A_TOKEN])
    refresh_token: str = Rule(description="Gets the next pair, once.", examples=[_A_TOKEN])
    token_type: Literal["bearer"] = Rule(
        "bearer", description="How the access token is sent (RFC 6750).", examples=["bearer"]
    )
    expires_in: int = Rule(description="For how many seconds the access token is valid.", examples=[900])


SessionId = Annotated[
    UUID, Rule(description="The id of the session, a UUID.", examples=["01a22042-a0b1-7c3d-8e4f-5a6b7c8d9e0f"])
]


class SessionPublic(SQLModel):
    """A session: one sign-in to your account."""

    id: SessionId
    created_at: Timestamp = Rule(description="When it began, in UTC.", examples=[A_TIME])
    refreshed_at: Timestamp = Rule(description="When its tokens were last issued, in UTC.", examples=[A_TIME])
    expires_at: Timestamp = Rule(
        description="When it ends unless it is refreshed before, in UTC.", examples=["2026-12-12T09:30:00.000000Z"]
    )
    user_agent: str | None = Rule(
        description="What the program that signed in called itself; null: nothing.", examples=["Mozilla/5.0"]
    )
    current: bool = Rule(description="Whether it is the session of this call.", examples=[True])


Scope = Literal["read", "write"]
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}")


# The last day of year 9999 is out of range in another time zone.
_LAST_YEAR = 9998


def _time_ahead(moment: datetime) -> datetime:
    if moment <= datetime.now(UTC):
        raise PydanticCustomError("too_small", "Must lie ahead.")
    if moment.year > _LAST_YEAR:
        raise PydanticCustomError("too_large", f"Must lie before the year {_LAST_YEAR + 1}.")
    return moment


def _time_as_text(value: object) -> object:
    # Pydantic would also accept a number of seconds, or a date without a time.
    if value is not None and not isinstance(value, str):
        raise PydanticCustomError("wrong_type", "Must be a time as text: YYYY-MM-DDTHH:MM:SSZ.")
    if value is not None and not _TIME.match(value):
        raise PydanticCustomError("malformed", "Must be a time with its zone: YYYY-MM-DDTHH:MM:SSZ.")
    return value


KeyId = Annotated[
    UUID, Rule(description="The id of the key, a UUID.", examples=["01a22042-c2d3-7e4f-9051-6b7c8d9e0f1a"])
]
KeyName = Annotated[
    Name, Rule(description="What the key is for: 1 to 100 characters on one line.", examples=["Newsletter"])
]
KeyScope = Annotated[
    Scope,
    Rule(description="`read` for reading contacts; `write` for changing them as well.", examples=["read"]),
]


class KeyCreate(Body):
    """A new key."""

    name: KeyName
    scope: KeyScope
    expires_at: Annotated[
        Annotated[AwareDatetime, AfterValidator(_time_ahead)] | None,
        BeforeValidator(_time_as_text),
        Rule(description="When it ends, with a time zone; null: it does not end.", examples=[None]),
    ] = None


class KeyPublic(SQLModel):
    """A key for a script."""

    id: KeyId
    name: str = Rule(description="What the key is for.", examples=["Newsletter"])
    scope: KeyScope
    expires_at: Timestamp | None = Rule(description="When it ends, in UTC; null: it does not end.", examples=[None])
    created_at: CreatedAt
    last_used_at: Timestamp | None = Rule(
        description="When it was last used, to two minutes, in UTC; null: never.", examples=[None]
    )


class NewKey(KeyPublic):
    """A new key, with its text."""

    key: str = Rule(
        description="The key: a Bearer token. It is shown this once, so keep it.",
        examples=["ck_AaIgQpwfezaaUj8Lbx0sRAGiIELC035PkFFrfI2eDxpZm9yIHRoZSBkb2N1bWVudGF0aW9uIG9ubHkhISE"],
    )


class KeyList(SQLModel):
    """Your keys."""

    items: list[KeyPublic] = Rule(description="The keys, the oldest first.")


class SessionList(SQLModel):
    """Your sessions."""

    items: list[SessionPublic] = Rule(description="The sessions, the oldest first, at most 100.")
