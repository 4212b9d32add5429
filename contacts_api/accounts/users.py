"""Accounts: the fastapi-users user manager and its user database."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated, Any, TypeAlias
from uuid import UUID

import jwt
import sqlalchemy as sa
from fastapi import Depends, Request, Response
from fastapi.security import OAuth2PasswordRequestForm
from fastapi_users import BaseUserManager, UUIDIDMixin
from fastapi_users.db import BaseUserDatabase
from fastapi_users.jwt import decode_jwt, generate_jwt
from pydantic_core import PydanticCustomError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.base import Executable
from sqlmodel import col

from contacts_api.accounts import throttle as attempts
from contacts_api.accounts.events import log_event
from contacts_api.accounts.keys import END_KEYS
from contacts_api.accounts.mail import NOTICES, Mails, Purpose
from contacts_api.accounts.models import TokenPair, User, UserCreate, UserUpdate
from contacts_api.accounts.passwords import PasswordHasher, refuse_weak
from contacts_api.accounts.sessions import END, LOCK_SIGN_INS, InvalidToken, Sessions
from contacts_api.accounts.strategy import SignedIn, Tokens
from contacts_api.accounts.throttle import TooManyAttempts, key_of
from contacts_api.database.connecting import Row
from contacts_api.database.engine import Database, from_state, refused_where_taken, table_of
from contacts_api.database.errors import DATABASE_ERRORS
from contacts_api.problems import Busy, Conflict, Invalid, Problem, Unauthorized
from contacts_api.settings import Settings
from contacts_api.text import normalize_email

_USER = table_of(User)
_BY_ID = sa.select(_USER).where(_USER.c.id == sa.bindparam("id"))
_BY_EMAIL = sa.select(_USER).where(_USER.c.email == sa.bindparam("email"))
# FOR NO KEY UPDATE, because FOR UPDATE would wait for a running import: its contacts lock the key of their owner.
_LOCK = sa.select(User).where(col(User.id) == sa.bindparam("id"), col(User.is_active)).with_for_update(key_share=True)
_UPGRADE = (
    sa.update(_USER)
    .where(_USER.c.id == sa.bindparam("user_id"), _USER.c.hashed_password == sa.bindparam("current"))
    .values(hashed_password=sa.bindparam("upgraded"))
)


class BadCredentials(Unauthorized):
    """No active account has this e-mail address and password. The answer does not tell which of them is wrong."""

    advice = "Check both. If the password is lost, ask for a mail: POST /auth/forgot-password."
    code, title = "bad_credentials", "The e-mail address or the password is wrong"


class WrongPassword(Problem):
    """The current password is required to change or delete the account, and this one is wrong."""

    advice = "Send the password that you sign in with as `current_password`."
    status, code, title = 403, "wrong_password", "The current password is wrong"


class EmailTaken(Conflict):
    """An account with this address already exists, perhaps in another spelling."""

    advice = "Sign in with it, or use another address."
    code, title = "email_taken", "There is already an account with this e-mail address"


class RegistrationClosed(Problem):
    """Only the operator of this server creates accounts."""

    advice = "Ask the operator for one."
    status, code, title = 403, "registration_closed", "This server does not accept new accounts"


class InvalidMailToken(Invalid):
    """The link in the mail is invalid, expired or already used, or the address or password has changed since."""

    advice = "Ask for another mail."
    code, title = "invalid_token", InvalidToken.title
    loc = ("body", "token")


class NotVerified(Problem):
    """The password is right, but the e-mail address has not been verified with the link that was mailed to it."""

    advice = "Follow the link in the mail, and sign in then. Each sign-in sends a new one, three times an hour at most."
    status, code, title = 403, "not_verified", "The e-mail address is not verified yet"


class UserDatabase(BaseUserDatabase[User, UUID]):
    """Reads users. Each call runs one statement, so no connection is held between calls."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, id: UUID) -> User | None:  # noqa: A002 (its name in fastapi-users)
        return await self._find(_BY_ID, id=id)

    async def get_by_email(self, email: str) -> User | None:
        """Return the user with this normalized address. Folding case in SQL would depend on the database's locale."""
        return await self._find(_BY_EMAIL, email=email)

    async def _find(self, statement: sa.Select[Any], **parameters: Any) -> User | None:
        rows = await self._database.read(statement, **parameters)
        return User(**rows[0]) if rows else None


class UserManager(UUIDIDMixin, BaseUserManager[User, UUID]):
    """Manages accounts. Holds no database connection while it hashes a password.

    It replaces these methods of the library's manager:

    - Registering, signing in and changing an account. The library hashes passwords on the event loop, lets two
      registrations race, and changes a password without checking the current one.
    - The tokens in mails. The library hashes on the event loop here too, and lets two concurrent requests use the same
      token. Its audiences and its JWT functions are still used.
    """

    reset_password_token_lifetime_seconds = 3600
    verification_token_lifetime_seconds = 3 * 24 * 3600

    def __init__(
        self,
        database: Database,
        hasher: PasswordHasher,
        mails: Mails,
        settings: Settings,
        *,
        ways_in: Sequence[Executable],
    ) -> None:
        """`ways_in` are statements that revoke the access features gave to `owner_id`, such as a calendar address."""
        super().__init__(UserDatabase(database))
        self._database = database
        self.hasher = hasher
        self._mails = mails
        self._secrets = settings.secrets
        self._must_be_verified = settings.require_verification
        self._ways_in = (END_KEYS, *ways_in)

    async def register(self, new: UserCreate, mail: Purpose | None = "verify") -> User:
        """Create an account, and mail a link to its address. Raises WeakPassword, EmailTaken."""
        refuse_weak(new.password, new.email)
        async with self.hasher.places.place():
            hashed_password = await self.hasher.hash(new.password)
        with refused_where_taken(EmailTaken):
            async with self._database.session() as session:
                # Without a mail, the creator of the account vouches for the address.
                user = User(email=new.email, hashed_password=hashed_password, is_verified=mail is None)
                session.add(user)
                await session.flush()
                if mail:
                    await self._mails.add_within(session, mail, user.email, user.id)
        log_event("registered", user_id=user.id)
        return user

    async def authenticate(self, credentials: OAuth2PasswordRequestForm) -> User:
        """Return the user with these credentials. Raises BadCredentials, TooManyAttempts, NotVerified.

        The message and the timing of BadCredentials are the same for every cause.
        """
        key = _sign_in_key(credentials.username)
        async with self.hasher.places.place():
            user = await self.find(credentials.username)
            with _refusal_logged(user):
                await attempts.refuse_while_waiting(self._database, key)
                hashed_password = user.hashed_password if user else None
                is_right, upgraded = await self.hasher.verify(credentials.password, hashed_password)
                if user is None or not is_right or not user.is_active:
                    await attempts.count_failure(self._database, key)
                    raise BadCredentials
        await attempts.forget(self._database, key, _confirmation_key(user))
        if upgraded:
            # If the write fails, for example because a Citus node is down, a later sign-in upgrades the hash.
            with suppress(*DATABASE_ERRORS, Busy):
                await self._database.execute(_UPGRADE, user_id=user.id, current=user.hashed_password, upgraded=upgraded)
                user.hashed_password = upgraded
        if self._must_be_verified and not user.is_verified:
            await self._mails.add("verify", user.email, user.id)
            with _refusal_logged(user):
                raise NotVerified
        return user

    async def change(self, user: User, changes: UserUpdate, session_id: UUID) -> User:
        """Change the address, the password or both. End all sessions except `session_id`.

        A new password also ends the keys. Access given by features stays, because the owner made the change.
        Raises WrongPassword, TooManyAttempts, WeakPassword, EmailTaken, and InvalidToken if the account is gone.
        """
        if changes.password:
            refuse_weak(changes.password, changes.email or user.email)
        with refused_where_taken(EmailTaken):
            async with self._confirmed(user, changes.current_password, changes.password) as (session, account):
                old_email = account.email
                if changes.email and changes.email != old_email:
                    account.email, account.is_verified = changes.email, False
                    account.email_seq += 1
                # Flush before adding mails: registering takes the same locks in this order.
                await session.flush()
                if changes.password:
                    await self._mails.add_within(session, "password_changed", old_email, account.id)
                if account.email != old_email:
                    await self._mails.add_within(session, "address_changed", old_email, account.id)
                    await self._mails.add_within(session, "verify", account.email, account.id)
                await session.execute(END, {"owner_id": account.id, "only": None, "but": session_id})
                if changes.password:
                    await session.execute(END_KEYS, {"owner_id": account.id})
        if account.email != old_email:
            log_event("address_changed", user_id=account.id, session_id=session_id)
        if changes.password:
            log_event("password_changed", user_id=account.id, session_id=session_id)
        return account

    async def erase(self, user: User, current_password: str) -> None:
        """Mark the account as deleted, so that nobody can use or see it.

        Cleanup deletes its rows later, a few thousand at a time, because a million take longer than a request may.
        Raises WrongPassword, TooManyAttempts, and InvalidToken if the account is gone.
        """
        async with self._confirmed(user, current_password) as (session, account):
            await self._end_all(session, account.id)
            # This is not a valid address, so nobody can sign in, and the old address is free for a new account.
            account.email, account.hashed_password = f"erased {account.id}", ""
            account.is_active, account.erased_at = False, datetime.now(UTC)
        log_event("account_deleted", user_id=user.id)

    async def token_for(self, mail: Row) -> str | None:
        """Return the token for a mail: empty if the mail needs none, None if it must not be sent.

        The token of a `reset` or `invite` mail sets the password.
        """
        if mail.purpose in NOTICES:
            return ""
        user = await self.user_db.get_by_email(mail.address)
        if user is None or not user.is_active:
            return None
        claims: dict[str, Any] = {"sub": str(user.id), "email_seq": user.email_seq}
        if mail.purpose == "verify":
            kind, seconds = self.verification_token_audience, self.verification_token_lifetime_seconds
            return None if user.is_verified else self._signed(claims, kind, seconds)
        claims["password"] = _fingerprint(user)
        return self._signed(claims, self.reset_password_token_audience, self.reset_password_token_lifetime_seconds)

    async def reset(self, token: str, password: str) -> None:
        """Set the password, revoke all sessions, keys and other access, and mark the address as verified.

        Raises InvalidMailToken, WeakPassword.
        """
        claims, user = await self._of_token(token, self.reset_password_token_audience)
        if claims.get("password") != _fingerprint(user):
            raise InvalidMailToken
        refuse_weak(password, user.email)
        async with self.hasher.places.place():
            hashed_password = await self.hasher.hash(password)
        async with self._database.session() as session:
            account = await self._locked(session, user)
            if account.hashed_password != user.hashed_password:
                raise InvalidMailToken
            account.hashed_password, account.is_verified = hashed_password, True
            await session.flush()
            await self._mails.add_within(session, "password_changed", account.email, account.id)
            await self._end_all(session, account.id)
        log_event("password_reset", user_id=user.id)
        await attempts.forget(self._database, _sign_in_key(user.email), _confirmation_key(user))

    async def verify_address(self, token: str) -> User:
        """Mark the address of an account as verified. Raises InvalidMailToken."""
        _, user = await self._of_token(token, self.verification_token_audience)
        async with self._database.session() as session:
            account = await self._locked(session, user)
            if account.is_verified:
                raise InvalidMailToken
            account.is_verified = True
        log_event("address_verified", user_id=user.id)
        return account

    def _signed(self, claims: dict[str, Any], audience: str, seconds: int) -> str:
        return generate_jwt({**claims, "aud": audience}, self._secrets[0], seconds)

    async def _of_token(self, token: str, audience: str) -> tuple[dict[str, Any], User]:
        """Return the claims of a mail token, and its account.

        Raises InvalidMailToken, also if the address of the account has changed since.
        """
        for secret in self._secrets:
            try:
                claims = decode_jwt(token, secret, [audience])
                user = await self.user_db.get(UUID(claims["sub"]))
            except (jwt.PyJWTError, LookupError, ValueError, TypeError, AttributeError):
                continue
            # decode_jwt() checks `exp`, but does not require it.
            if "exp" in claims and user and user.is_active and user.email_seq == claims.get("email_seq"):
                return claims, user
        raise InvalidMailToken

    async def _locked(self, session: AsyncSession, user: User) -> User:
        """Lock the account and return it. Raises InvalidMailToken if it is gone or its address has changed."""
        account = await _lock(session, user.id)
        if account is None or account.email_seq != user.email_seq:
            raise InvalidMailToken
        return account

    async def set_password(self, user: User, password: str) -> None:
        """Set the password without checking the current one. Revoke all sessions, keys and other access.

        Raises WeakPassword.
        """
        refuse_weak(password, user.email)
        await attempts.forget(self._database, _sign_in_key(user.email))
        await self._set(user, hashed_password=await self.hasher.hash(password))
        log_event("password_reset", user_id=user.id)

    async def set_active(self, user: User, is_active: bool) -> None:
        """Activate the account, or deactivate it and revoke all sessions, keys and other access."""
        # Raising email_seq invalidates the links in earlier mails.
        await self._set(user, is_active=is_active, email_seq=User.email_seq + 1)
        log_event("account_activated" if is_active else "account_deactivated", user_id=user.id)

    async def find(self, email: str) -> User | None:
        """Return the account with this address, or None. `email` may be in any spelling."""
        address = normalized(email)
        return await self.user_db.get_by_email(address) if address else None

    async def _set(self, user: User, **columns: Any) -> None:
        """Change columns of the account. Revoke all sessions and other access, unless `is_active` becomes true."""
        async with self._database.session() as session:
            await session.execute(LOCK_SIGN_INS, {"owner_id": user.id})
            await session.execute(sa.update(User).where(col(User.id) == user.id).values(columns))
            if "hashed_password" in columns:
                await self._mails.add_within(session, "password_changed", user.email, user.id)
            if not columns.get("is_active"):
                await self._end_all(session, user.id)

    async def _end_all(self, session: AsyncSession, owner_id: UUID) -> None:
        """Revoke all sessions, keys and other access of an account."""
        await session.execute(END, {"owner_id": owner_id, "only": None, "but": None})
        for statement in self._ways_in:
            await session.execute(statement, {"owner_id": owner_id})

    @asynccontextmanager
    async def _confirmed(
        self, user: User, current_password: str, new_password: str | None = None
    ) -> AsyncIterator[tuple[AsyncSession, User]]:
        """Check the current password, then open the transaction that changes the account.

        Yields the database session and the locked account, whose password is already set to the new one. Commits at the
        end of the `async with`. Raises WrongPassword, TooManyAttempts, and InvalidToken if the account is gone.
        """
        while True:
            new_hash = await self._check(user, current_password, new_password)
            async with self._database.session() as session:
                account = await _lock(session, user.id)
                if account is None:
                    raise InvalidToken
                if account.hashed_password == user.hashed_password:
                    account.hashed_password = new_hash or account.hashed_password
                    yield session, account
                    return
            # Another request has changed the hash in the meantime: check the password against the new hash.
            user = account

    async def _check(self, user: User, current_password: str, new_password: str | None) -> str | None:
        """Check the current password. Return the hash of the new one, or None if the password stays the same.

        Raises WrongPassword, TooManyAttempts.
        """
        confirmation, sign_in = _confirmation_key(user), _sign_in_key(user.email)
        async with self.hasher.places.place():
            with _refusal_logged(user):
                await attempts.refuse_while_waiting(self._database, confirmation)
                is_right, _ = await self.hasher.verify(current_password, user.hashed_password)
                if not is_right:
                    # A failure here also counts as a failed sign-in. Failed sign-ins do not count here, because
                    # otherwise a stranger could block a user who is signed in.
                    await attempts.count_failure(self._database, confirmation, sign_in)
                    raise WrongPassword
            await attempts.forget(self._database, confirmation, sign_in)
            if new_password in (None, current_password):
                return None
            return await self.hasher.hash(new_password)


async def _lock(session: AsyncSession, user_id: UUID) -> User | None:
    """Lock an account and its sign-ins before a change that ends sessions. Return the account, or None if inactive."""
    await session.execute(LOCK_SIGN_INS, {"owner_id": user_id})
    account: User | None = await session.scalar(_LOCK, {"id": user_id})
    return account


@contextmanager
def _refusal_logged(user: User | None) -> Iterator[None]:
    """Log a refused password, or a refused account with the right password, and raise the error again."""
    try:
        yield
    except (BadCredentials, NotVerified, TooManyAttempts, WrongPassword):
        log_event("sign_in_refused", user_id=user.id if user else None)
        raise


def _fingerprint(user: User) -> str:
    """Return a digest that changes with the password and does not reveal its hash."""
    return sha256(user.hashed_password.encode()).hexdigest()[:32]


def _sign_in_key(email: str) -> bytes:
    return key_of("sign-in", normalized(email) or email)


def _confirmation_key(user: User) -> bytes:
    return key_of("confirmation", str(user.id))


def normalized(email: str) -> str | None:
    """Return the address in the form in which it is stored, or None if it is not an address."""
    try:
        return normalize_email(email.strip())
    except PydanticCustomError:
        return None


Users: TypeAlias = Annotated[UserManager, from_state("users")]


async def get_current_user(owner: SignedIn, users: Users) -> User:
    user = await users.user_db.get(owner.user_id)
    if user is None or not user.is_active:
        raise InvalidToken
    return user


CurrentUser: TypeAlias = Annotated[User, Depends(get_current_user)]


class TokenIssuer:
    """Issues a pair of tokens for credentials or for a refresh token. Sets `Cache-Control: no-store`."""

    def __init__(self, request: Request, response: Response, users: Users) -> None:
        self.sessions: Sessions = request.app.state.sessions
        self._tokens: Tokens = request.app.state.tokens
        self._users = users
        self._user_agent = request.headers.get("user-agent", "")[:200] or None
        response.headers["Cache-Control"] = "no-store"

    async def sign_in(self, email: str, password: str) -> TokenPair:
        """Open a session. Raises BadCredentials, NotVerified, TooManyAttempts."""
        session = None
        # `open` returns None if the account has changed since the check of its password. Check it again.
        while session is None:
            user = await self._users.authenticate(OAuth2PasswordRequestForm(username=email, password=password))
            session = await self.sessions.open(user, self._user_agent)
        return self._tokens.pair(session)

    async def refresh(self, refresh_token: str) -> TokenPair:
        """Refresh a session. Raises InvalidRefreshToken."""
        return self._tokens.pair(await self.sessions.rotate(self._tokens.refresh.verify(refresh_token)))


async def get_token_issuer(request: Request, response: Response, users: Users) -> TokenIssuer:
    return TokenIssuer(request, response, users)


Issuer: TypeAlias = Annotated[TokenIssuer, Depends(get_token_issuer)]


async def require_open_registration(request: Request) -> None:
    if not request.app.state.settings.registration_open:
        raise RegistrationClosed


IfRegistrationIsOpen = Depends(require_open_registration)
