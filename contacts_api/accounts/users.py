"""All that fastapi-users does for us: the user manager, the hashing of passwords, the JWT strategy."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import cache, lru_cache
from pathlib import Path
from typing import Annotated, TypeAlias
from uuid import UUID

import jwt
from fastapi import Depends, Request, Response
from fastapi.openapi.models import OAuth2 as OAuth2Model
from fastapi.openapi.models import OAuthFlowPassword, OAuthFlows
from fastapi.security import OAuth2PasswordRequestForm
from fastapi.security.base import SecurityBase
from fastapi_users import BaseUserManager, UUIDIDMixin
from fastapi_users.authentication import JWTStrategy
from fastapi_users.jwt import generate_jwt
from fastapi_users.password import PasswordHelper
from fastapi_users_db_sqlalchemy import SQLAlchemyUserDatabase
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from pydantic_core import PydanticCustomError
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contacts_api.accounts.attempts import Attempts, key_of
from contacts_api.accounts.models import TokenPair, User, UserCreate, UserUpdate, normalize_email
from contacts_api.accounts.sessions import END, LEEWAY_SECONDS, Claims, EndedSessions, InvalidRefreshToken, Sessions
from contacts_api.database import Row, Session
from contacts_api.errors import Conflict, FieldError, Invalid, Problem, Unauthorized
from contacts_api.settings import Settings


class InvalidToken(Unauthorized):
    code, title = "invalid_token", "The access token is not valid (any more)"


class BadCredentials(Unauthorized):
    code, title = "bad_credentials", "The e-mail address or the password is wrong"


class WrongPassword(Problem):
    status, code, title = 403, "wrong_password", "The current password is wrong"


class EmailTaken(Conflict):
    code, title = "email_taken", "There is an account with this e-mail address"


class WeakPassword(Invalid):
    code, title = "weak_password", "The password is too easy to guess"

    def __init__(self, detail: str | None = None) -> None:
        detail = detail or f"{self.title}."
        super().__init__(detail, errors=[FieldError(loc=["body", "password"], code=self.code, detail=detail)])


class RegistrationClosed(Problem):
    status, code, title = 403, "registration_closed", "This server takes no new accounts"


@cache
def common_passwords() -> frozenset[str]:
    lines = (Path(__file__).parent / "common_passwords.txt").read_text().splitlines()
    return frozenset(line for line in lines if not line.startswith("#"))


class PasswordHasher:
    """Hashes passwords (argon2id, RFC 9106) in threads of its own, so that nothing else waits for it.

    Its parameters are among those that OWASP's ASVS 5 lists: 19 MiB, two passes, one lane.
    """

    def __init__(self, threads: int) -> None:
        argon2id = Argon2Hasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
        # Whoever checks a password holds a slot from looking up the failures so far to counting
        # its own: of a thousand guesses at once, no more than there are slots go uncounted.
        self.slots = asyncio.Semaphore(threads)
        self._helper = PasswordHelper(PasswordHash((argon2id,)))
        self._threads = ThreadPoolExecutor(threads, "hashing")
        self._nobodys = self._helper.hash(self._helper.generate())

    async def hash(self, password: str) -> str:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._helper.hash, password)

    async def verify(self, password: str, hashed_password: str | None) -> tuple[bool, str | None]:
        """Say whether the password is right, and give its stronger hash where the stored one is weak.

        With no hash to compare to, it takes as long, and is wrong.
        """
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, self._helper.verify_and_update, password, hashed_password or self._nobodys
        )


class UserDatabase(SQLAlchemyUserDatabase[User, UUID]):
    """Looks addresses up as they are stored: folding them in SQL would follow the database's locale."""

    async def get_by_email(self, email: str) -> User | None:
        return await self._get_user(select(User).where(col(User.email) == email))


class UserManager(UUIDIDMixin, BaseUserManager[User, UUID]):
    """Accounts. Holds no connection while a password is hashed."""

    def __init__(self, session: AsyncSession, hasher: PasswordHasher, attempts: Attempts) -> None:
        super().__init__(UserDatabase(session, User))
        self.session = session
        self._hasher = hasher
        self._attempts = attempts

    def refuse_weak(self, password: str, email: str) -> None:
        """Raise WeakPassword for what is guessed first (NIST SP 800-63B, 3.1.1.2)."""
        if password.casefold() in common_passwords():
            raise WeakPassword("This password is one of the 3,000 commonest.")
        if password.strip().casefold() == email.casefold():
            raise WeakPassword("The password must not be the e-mail address.")

    async def register(self, new: UserCreate) -> User:
        """Create an account. Raises WeakPassword, and EmailTaken: of two that race for an address, one gets it."""
        self.refuse_weak(new.password, new.email)
        hashed_password = await self._hasher.hash(new.password)
        try:
            return await self.user_db.create({"email": new.email, "hashed_password": hashed_password})
        except IntegrityError as error:
            raise _taken_or(error) from None

    async def authenticate(self, credentials: OAuth2PasswordRequestForm) -> User:
        """Return the user. Raises BadCredentials, equal in words and time for every cause."""
        key = self._sign_in_key(credentials.username)
        async with self._hasher.slots:
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
            self.refuse_weak(changes.password, changes.email or user.email)
        user = await self._confirm(user, changes.current_password, changes.password)
        if changes.email:
            user.email = changes.email
        try:
            await self.session.flush()
        except IntegrityError as error:
            raise _taken_or(error) from None
        await self.session.execute(END, {"owner_id": user.id, "only": None, "but": session_id})
        return user

    async def erase(self, user: User, current_password: str) -> None:
        """Delete the account with all that it owns. Raises WrongPassword."""
        user = await self._confirm(user, current_password)
        await self._end_sessions(user)
        await self.session.delete(user)

    async def set_password(self, user: User, password: str) -> None:
        """Set the password on the operator's word, and end all sessions. Raises WeakPassword."""
        self.refuse_weak(password, user.email)
        await self._attempts.forget(self._sign_in_key(user.email))
        user.hashed_password = await self._hasher.hash(password)
        await self.session.flush()
        await self._end_sessions(user)

    async def set_active(self, user: User, is_active: bool) -> None:
        user.is_active = is_active
        await self.session.flush()
        if not is_active:
            await self._end_sessions(user)

    async def find(self, email: str) -> User | None:
        """Return the account with this address, as it is typed."""
        address = _normalized(email)
        user = await self.user_db.get_by_email(address) if address else None
        await self.session.commit()
        return user

    async def _confirm(self, user: User, current_password: str, new_password: str = "") -> User:
        """Return the user, locked, whose password is `current_password` still, and set the new one if there is one."""
        await self.session.commit()
        verified = user.hashed_password
        key = self._confirmation_key(user)
        async with self._hasher.slots:
            await self._attempts.refuse_while_waiting(key)
            is_right, _ = await self._hasher.verify(current_password, verified)
            if not is_right:
                # It counts against signing in, too; but who fails to sign in does not lock out who is signed in.
                await self._attempts.count_failure(key, self._sign_in_key(user.email))
                raise WrongPassword
        await self._attempts.forget(key, self._sign_in_key(user.email))
        hashed_password = await self._hasher.hash(new_password) if new_password else verified
        locked = await self.session.scalar(
            select(User)
            .where(col(User.id) == user.id, col(User.hashed_password) == verified)
            # The contacts that an import is creating keep the key, for as long as it takes.
            .with_for_update(key_share=True)
        )
        if locked is None:
            raise WrongPassword
        locked.hashed_password = hashed_password
        return locked

    @staticmethod
    def _sign_in_key(email: str) -> bytes:
        return key_of("sign-in", _normalized(email) or email)

    @staticmethod
    def _confirmation_key(user: User) -> bytes:
        return key_of("confirmation", str(user.id))

    async def _upgrade(self, user: User, hashed_password: str) -> None:
        unchanged = (col(User.id) == user.id, col(User.hashed_password) == user.hashed_password)
        await self.session.execute(update(User).where(*unchanged).values(hashed_password=hashed_password))
        await self.session.commit()

    async def _end_sessions(self, user: User) -> None:
        await self.session.execute(END, {"owner_id": user.id, "only": None, "but": None})


def _taken_or(error: IntegrityError) -> Exception:
    """Return EmailTaken where the unique index says so, and else the error itself."""
    return EmailTaken() if getattr(error.orig, "sqlstate", None) == "23505" else error


def _normalized(email: str) -> str | None:
    """Return the address as it would be stored; None for what is no address."""
    try:
        return normalize_email(email.strip())
    except PydanticCustomError:
        return None


class SessionStrategy(JWTStrategy[User, UUID]):
    """fastapi-users' JWT strategy for one audience (HS256, RFC 7519), with a session behind each token."""

    MAX_LENGTH = 2048

    def __init__(
        self, secret: str, audience: str, clock: Callable[[], datetime], refusal: type[Unauthorized] = InvalidToken
    ) -> None:
        super().__init__(secret, lifetime_seconds=None, token_audience=[audience])
        self._clock = clock
        self._refusal = refusal
        # Checking a signature takes fifty times as long as finding out that it was checked.
        self._decode_once = lru_cache(maxsize=8192)(self._decode)

    def sign(self, session: Row, expires_at: int, **claims: int) -> str:
        claims |= {"iat": int(session.refreshed_at.timestamp()), "exp": expires_at}
        whose = {"sub": str(session.user_id), "sid": str(session.id), "aud": self.token_audience[0]}
        return generate_jwt(whose | claims, self.encode_key, algorithm=self.algorithm)

    def verify(self, token: str) -> Claims:
        """Return what the token says. Raises a 401 unless it is ours, of this audience, and of today."""
        if len(token) > self.MAX_LENGTH:
            raise self._refusal
        try:
            claims = self._decode_once(token)
        except (jwt.PyJWTError, ValueError, TypeError, AttributeError):
            raise self._refusal from None
        if claims.expires_at + LEEWAY_SECONDS <= self._clock().timestamp():
            raise self._refusal
        return claims

    def _decode(self, token: str) -> Claims:
        payload = jwt.decode(
            token,
            str(self.decode_key),
            algorithms=[self.algorithm],
            audience=self.token_audience,
            # The time is checked at each use, not only at the first.
            options={"require": ["sub", "sid", "aud", "iat", "exp"], "verify_exp": False, "verify_iat": False},
        )
        return Claims(UUID(payload["sub"]), UUID(payload["sid"]), int(payload["exp"]), payload.get("seq"))


class Tokens:
    """The pair of tokens of a session: a function of its row alone, so that a retry gets the same pair."""

    def __init__(self, settings: Settings, secret: str, clock: Callable[[], datetime]) -> None:
        self._access_seconds = settings.access_token_seconds
        self.access = SessionStrategy(secret, "contacts:access", clock)
        self.refresh = SessionStrategy(secret, "contacts:refresh", clock, InvalidRefreshToken)

    def pair(self, session: Row) -> TokenPair:
        issued_at, ends_at = int(session.refreshed_at.timestamp()), int(session.expires_at.timestamp())
        expires_at = min(issued_at + self._access_seconds, ends_at)
        return TokenPair(
            access_token=self.access.sign(session, expires_at),
            refresh_token=self.refresh.sign(session, ends_at, seq=session.seq),
            expires_in=expires_at - issued_at,
        )


class BearerSession(SecurityBase):
    """The session of the access token that a request bears (RFC 6750)."""

    def __init__(self) -> None:
        flow = OAuthFlowPassword(tokenUrl="auth/token", refreshUrl="auth/token")
        self.model = OAuth2Model(flows=OAuthFlows(password=flow), description="Your e-mail address and password.")
        self.scheme_name = "Account"

    async def __call__(self, request: Request) -> Claims:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthorized
        tokens: Tokens = request.app.state.tokens
        ended: EndedSessions = request.app.state.ended_sessions
        claims = tokens.access.verify(token.strip())
        if await ended.has_ended(claims):
            raise InvalidToken
        return claims


identify = BearerSession()
Owner: TypeAlias = Annotated[Claims, Depends(identify)]
"""Whoever signed in: `owner.user_id` belongs into every statement."""


async def get_users(request: Request, session: Session) -> UserManager:
    return UserManager(session, request.app.state.hasher, request.app.state.attempts)


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
        user = await self._users.authenticate(OAuth2PasswordRequestForm(username=email, password=password))
        session = await self.sessions.open(user, self._user_agent)
        if session is None:
            raise BadCredentials
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


async def require_open_registration(request: Request) -> None:
    if not request.app.state.settings.registration_open:
        raise RegistrationClosed
