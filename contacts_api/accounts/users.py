"""Accounts: the user manager of fastapi-users, and its database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, TypeAlias
from uuid import UUID

from fastapi import Depends, Request, Response
from fastapi.security import OAuth2PasswordRequestForm
from fastapi_users import BaseUserManager, UUIDIDMixin
from fastapi_users.db import BaseUserDatabase
from fastapi_users_db_sqlalchemy import SQLAlchemyUserDatabase
from pydantic_core import PydanticCustomError
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contacts_api.accounts.attempts import Attempts, key_of
from contacts_api.accounts.cleanup import Cleanup
from contacts_api.accounts.models import TokenPair, User, UserCreate, UserUpdate, normalize_email
from contacts_api.accounts.passwords import PasswordHasher, refuse_weak
from contacts_api.accounts.sessions import END, Sessions
from contacts_api.accounts.tokens import InvalidToken, Owner, Tokens
from contacts_api.database import Database
from contacts_api.problems import Conflict, Problem, Unauthorized


class BadCredentials(Unauthorized):
    code, title = "bad_credentials", "The e-mail address or the password is wrong"


class WrongPassword(Problem):
    status, code, title = 403, "wrong_password", "The current password is wrong"


class EmailTaken(Conflict):
    code, title = "email_taken", "There is an account with this e-mail address"


class RegistrationClosed(Problem):
    status, code, title = 403, "registration_closed", "This server takes no new accounts"


class UserDatabase(BaseUserDatabase[User, UUID]):
    """The users, each call in a transaction of its own: no connection is held from one to the next."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, id: UUID) -> User | None:  # noqa: A002 (its name in fastapi-users)
        async with self._database.session() as session:
            return await session.get(User, id)

    async def get_by_email(self, email: str) -> User | None:
        """Look the address up as it is stored: folding it in SQL would follow the database's locale."""
        async with self._database.session() as session:
            return (await session.execute(select(User).where(col(User.email) == email))).scalar_one_or_none()

    async def create(self, create_dict: dict[str, Any]) -> User:
        async with self._database.session() as session:
            return await SQLAlchemyUserDatabase(session, User).create(create_dict)


class UserManager(UUIDIDMixin, BaseUserManager[User, UUID]):
    """Accounts. Holds no connection while a password is hashed."""

    def __init__(self, database: Database, hasher: PasswordHasher, attempts: Attempts) -> None:
        super().__init__(UserDatabase(database))
        self._database = database
        self._hasher = hasher
        self._attempts = attempts

    async def register(self, new: UserCreate) -> User:
        """Create an account. Raises WeakPassword, and EmailTaken: of two that race for an address, one gets it."""
        refuse_weak(new.password, new.email)
        async with self._hasher.places.place():
            hashed_password = await self._hasher.hash(new.password)
        try:
            return await self.user_db.create({"email": new.email, "hashed_password": hashed_password})
        except IntegrityError as error:
            raise _taken_or(error) from None

    async def authenticate(self, credentials: OAuth2PasswordRequestForm) -> User:
        """Return the user. Raises BadCredentials, equal in words and time for every cause."""
        key = self._sign_in_key(credentials.username)
        async with self._hasher.places.place():
            await self._attempts.refuse_while_waiting(key)
            user = await self.find(credentials.username)
            is_right, upgraded = await self._hasher.verify(credentials.password, user.hashed_password if user else None)
            if user is None or not is_right or not user.is_active:
                await self._attempts.count_failure(key)
                raise BadCredentials
        await self._attempts.forget(key, self._confirmation_key(user))
        if upgraded:
            await self._upgrade(user, upgraded)
        return user

    async def change(self, user: User, changes: UserUpdate, session_id: UUID) -> User:
        """Change the address, the password or both, and end the sessions but `session_id`.

        Raises WrongPassword and EmailTaken.
        """
        if changes.password:
            refuse_weak(changes.password, changes.email or user.email)
        try:
            async with self._confirmed(user, changes.current_password, changes.password) as (session, account):
                if changes.email:
                    account.email = changes.email
                await session.flush()
                await session.execute(END, {"owner_id": account.id, "only": None, "but": session_id})
        except IntegrityError as error:
            raise _taken_or(error) from None
        return account

    async def erase(self, user: User, current_password: str) -> None:
        """Mark the account as deleted: to everybody it is gone. Raises WrongPassword.

        Cleanup deletes its rows, in bites: a million take longer than a request may.
        """
        async with self._confirmed(user, current_password) as (session, account):
            await session.execute(END, _all_of(account))
            # No address, so that nobody can sign in with it, and its own is free for the next account.
            account.email, account.hashed_password = f"erased {account.id}", ""
            account.is_active, account.erased_at = False, datetime.now(UTC)

    async def set_password(self, user: User, password: str) -> None:
        """Set the password on the operator's word, and end all sessions. Raises WeakPassword."""
        refuse_weak(password, user.email)
        await self._attempts.forget(self._sign_in_key(user.email))
        await self._set(user, hashed_password=await self._hasher.hash(password))

    async def set_active(self, user: User, is_active: bool) -> None:
        await self._set(user, is_active=is_active)

    async def find(self, email: str) -> User | None:
        """Return the account with this address, as it is typed."""
        address = _normalized(email)
        return await self.user_db.get_by_email(address) if address else None

    async def _set(self, user: User, **columns: Any) -> None:
        """Change the account, and end all its sessions unless it is activated."""
        async with self._database.session() as session:
            await session.execute(update(User).where(col(User.id) == user.id).values(columns))
            if not columns.get("is_active"):
                await session.execute(END, _all_of(user))

    @asynccontextmanager
    async def _confirmed(
        self, user: User, current_password: str, new_password: str = ""
    ) -> AsyncIterator[tuple[AsyncSession, User]]:
        """Yield the user whose password is `current_password`, locked and with the new one if there is one."""
        while True:
            new_hash = await self._check(user, current_password, new_password)
            async with self._database.session() as session:
                # The contacts that an import is creating keep the key, for as long as it takes.
                query = select(User).where(col(User.id) == user.id, col(User.is_active)).with_for_update(key_share=True)
                account = (await session.execute(query)).scalar_one_or_none()
                if account is None:
                    raise InvalidToken
                if account.hashed_password == user.hashed_password:
                    account.hashed_password = new_hash or account.hashed_password
                    yield session, account
                    return
            # Another request has set a new hash meanwhile, perhaps of the same password.
            user = account

    async def _check(self, user: User, current_password: str, new_password: str) -> str | None:
        """Return the hash of the new password, if it is new. Raises WrongPassword."""
        key = self._confirmation_key(user)
        async with self._hasher.places.place():
            await self._attempts.refuse_while_waiting(key)
            is_right, _ = await self._hasher.verify(current_password, user.hashed_password)
            if not is_right:
                # It counts against signing in, too; but who fails to sign in does not lock out who is signed in.
                await self._attempts.count_failure(key, self._sign_in_key(user.email))
                raise WrongPassword
            await self._attempts.forget(key, self._sign_in_key(user.email))
            if new_password in ("", current_password):
                return None
            return await self._hasher.hash(new_password)

    @staticmethod
    def _sign_in_key(email: str) -> bytes:
        return key_of("sign-in", _normalized(email) or email)

    @staticmethod
    def _confirmation_key(user: User) -> bytes:
        return key_of("confirmation", str(user.id))

    async def _upgrade(self, user: User, hashed_password: str) -> None:
        unchanged = (col(User.id) == user.id, col(User.hashed_password) == user.hashed_password)
        async with self._database.session() as session:
            await session.execute(update(User).where(*unchanged).values(hashed_password=hashed_password))
        user.hashed_password = hashed_password


def _all_of(user: User) -> dict[str, Any]:
    """Return the parameters that make END end all sessions."""
    return {"owner_id": user.id, "only": None, "but": None}


def _taken_or(error: IntegrityError) -> Exception:
    """Return EmailTaken where the unique index says so, and else the error itself."""
    return EmailTaken() if getattr(error.orig, "sqlstate", None) == "23505" else error


def _normalized(email: str) -> str | None:
    """Return the address as it would be stored; None for what is no address."""
    try:
        return normalize_email(email.strip())
    except PydanticCustomError:
        return None


async def get_users(request: Request) -> UserManager:
    return UserManager(request.app.state.database, request.app.state.hasher, request.app.state.attempts)


Users: TypeAlias = Annotated[UserManager, Depends(get_users)]


async def get_current_user(owner: Owner, users: Users) -> User:
    user = await users.user_db.get(owner.user_id)
    if user is None or not user.is_active:
        raise InvalidToken
    return user


CurrentUser: TypeAlias = Annotated[User, Depends(get_current_user)]


class TokenIssuer:
    """Turns credentials, or a refresh token, into a pair of tokens."""

    def __init__(self, request: Request, response: Response, users: Users) -> None:
        self.sessions: Sessions = request.app.state.sessions
        self._tokens: Tokens = request.app.state.tokens
        self._users = users
        self._user_agent = request.headers.get("user-agent", "")[:200] or None
        response.headers["Cache-Control"] = "no-store"

    async def sign_in(self, email: str, password: str) -> TokenPair:
        """Open a session. Raises BadCredentials."""
        session = None
        # Where the account has changed since its password was checked, it is checked anew.
        while session is None:
            user = await self._users.authenticate(OAuth2PasswordRequestForm(username=email, password=password))
            session = await self.sessions.open(user, self._user_agent)
        return self._tokens.pair(session)

    async def refresh(self, refresh_token: str) -> TokenPair:
        """Go on with a session. Raises InvalidRefreshToken."""
        return self._tokens.pair(await self.sessions.rotate(self._tokens.refresh.verify(refresh_token)))


async def get_token_issuer(request: Request, response: Response, users: Users) -> TokenIssuer:
    return TokenIssuer(request, response, users)


Issuer: TypeAlias = Annotated[TokenIssuer, Depends(get_token_issuer)]


async def get_sessions(request: Request) -> Sessions:
    sessions: Sessions = request.app.state.sessions
    return sessions


OpenSessions: TypeAlias = Annotated[Sessions, Depends(get_sessions)]


async def get_cleanup(request: Request) -> Cleanup:
    cleanup: Cleanup = request.app.state.cleanup
    return cleanup


AccountCleanup: TypeAlias = Annotated[Cleanup, Depends(get_cleanup)]


async def require_open_registration(request: Request) -> None:
    if not request.app.state.settings.registration_open:
        raise RegistrationClosed
