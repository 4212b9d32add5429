"""Access and refresh tokens (JWT, RFC 7519), and the dependencies that authenticate a request."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from typing import Annotated, TypeAlias
from uuid import UUID

import jwt
from fastapi import Depends, Request
from fastapi.openapi.models import OAuth2, OAuthFlowPassword, OAuthFlows
from fastapi.security.base import SecurityBase
from fastapi_users.jwt import JWT_ALGORITHM, generate_jwt

from contacts_api.accounts.keys import PREFIX, KeyClaims, KeyNotAllowed, Keys
from contacts_api.accounts.models import TokenPair
from contacts_api.accounts.sessions import LEEWAY_SECONDS, Claims, EndedSessions, InvalidRefreshToken, InvalidToken
from contacts_api.database.connecting import Row
from contacts_api.database.engine import from_state
from contacts_api.database.waiting import act_for
from contacts_api.problems import Busy, DatabaseUnavailable, Unauthorized, documented
from contacts_api.settings import Settings

MAX_TOKEN_LENGTH = 2048


class TokenKind:
    """Signs and verifies the tokens of one audience (HS256).

    This class uses only `generate_jwt` of fastapi-users. The library's JWTStrategy has no sessions, so its tokens
    cannot be revoked, and it accepts tokens without `exp`.
    """

    def __init__(
        self,
        secrets: Sequence[str],
        audience: str,
        seconds: int,
        clock: Callable[[], datetime],
        refusal: type[Unauthorized],
    ) -> None:
        """The first secret signs new tokens. Tokens signed with any of the secrets are accepted."""
        self._secrets = secrets
        self._audience = audience
        self._seconds = seconds
        self._clock = clock
        self._refusal = refusal
        # Verifying a signature takes fifty times as long as a cache hit.
        self._decode_once = lru_cache(maxsize=8192)(self._decode)

    def sign(self, session: Row, expires_at: int, **claims: int) -> str:
        whose = {"sub": str(session.user_id), "sid": str(session.id), "aud": self._audience}
        times = {"iat": int(session.refreshed_at.timestamp()), "exp": expires_at}
        return generate_jwt({**whose, **claims, **times}, self._secrets[0])

    def read(self, token: str) -> Claims:
        """Return the claims of a token, even if it has expired.

        Raises the `refusal` of this kind (a 401) if the signature or the audience is wrong.
        """
        if len(token) > MAX_TOKEN_LENGTH:
            raise self._refusal
        try:
            return self._decode_once(token)
        except (jwt.PyJWTError, ValueError, TypeError, AttributeError, OverflowError):
            raise self._refusal from None

    def verify(self, token: str) -> Claims:
        """Return the claims of a token.

        Raises the `refusal` of this kind (a 401) if the token has expired, or its signature or audience is wrong.
        """
        claims = self.read(token)
        if claims.expires_at + LEEWAY_SECONDS <= self._clock().timestamp():
            raise self._refusal
        return claims

    def _decode(self, token: str) -> Claims:
        *others, last = self._secrets
        for secret in others:
            with suppress(jwt.InvalidSignatureError):
                return self._decode_by(secret, token)
        return self._decode_by(last, token)

    def _decode_by(self, secret: str, token: str) -> Claims:
        payload = jwt.decode(
            token,
            secret,
            algorithms=[JWT_ALGORITHM],
            audience=self._audience,
            # `verify` checks the expiry at each use, because the result of this function is cached.
            options={"require": ["sub", "sid", "aud", "iat", "exp"], "verify_exp": False, "verify_iat": False},
        )
        # After the setting is lowered, older tokens also expire earlier, because ended sessions are not remembered for
        # longer than the new lifetime.
        expires_at = min(_whole(payload["exp"]), _whole(payload["iat"]) + self._seconds)
        seq = _whole(payload["seq"], bits=31) if "seq" in payload else None
        return Claims(UUID(payload["sub"]), UUID(payload["sid"]), expires_at, seq)


def _whole(claim: object, bits: int = 53) -> int:
    """Return a claim that is a non-negative integer of at most `bits` bits. Raises ValueError."""
    if isinstance(claim, int) and not isinstance(claim, bool) and 0 <= claim < 2**bits:
        return claim
    raise ValueError("This is no whole number in range.")


class Tokens:
    """Issues the tokens of a session. They depend only on its row, so that a retry gets the same pair."""

    def __init__(self, settings: Settings, clock: Callable[[], datetime]) -> None:
        secrets, self._access_seconds = settings.secrets, settings.access_token_seconds
        self.access = TokenKind(secrets, "contacts:access", self._access_seconds, clock, InvalidToken)
        seconds = settings.refresh_token_seconds
        self.refresh = TokenKind(secrets, "contacts:refresh", seconds, clock, InvalidRefreshToken)

    def pair(self, session: Row) -> TokenPair:
        issued_at, ends_at = int(session.refreshed_at.timestamp()), int(session.expires_at.timestamp())
        expires_at = min(issued_at + self._access_seconds, ends_at)
        return TokenPair(
            access_token=self.access.sign(session, expires_at),
            refresh_token=self.refresh.sign(session, ends_at, seq=session.seq),
            expires_in=expires_at - issued_at,
        )


class BearerToken(SecurityBase):
    """The security scheme (RFC 6750): a dependency that returns the claims of the request's access token or key.

    Raises Unauthorized, InvalidToken, KeyNotAllowed.
    """

    def __init__(self, *, takes_keys: bool) -> None:
        flow = OAuthFlowPassword(tokenUrl="auth/token", refreshUrl="auth/token")
        self.model = OAuth2(flows=OAuthFlows(password=flow), description="Your e-mail address and password.")
        self.scheme_name = "Account"
        self._takes_keys = takes_keys

    async def __call__(self, request: Request) -> Claims | KeyClaims:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthorized
        token = token.strip()
        if token.startswith(PREFIX):
            return await self._check_key(request, token)
        tokens: Tokens = request.app.state.tokens
        ended: EndedSessions = request.app.state.ended_sessions
        claims = tokens.access.verify(token)
        act_for(request, claims.user_id)
        if await ended.has_ended(claims):
            raise InvalidToken
        return claims

    async def _check_key(self, request: Request, text: str) -> KeyClaims:
        keys: Keys = request.app.state.keys
        claims = await keys.find(text)
        if claims is None:
            raise InvalidToken
        act_for(request, claims.user_id)
        if not self._takes_keys:
            raise KeyNotAllowed("A key is for contacts alone. Sign in for this.")
        if claims.scope != "write" and request.method not in ("GET", "HEAD"):
            raise KeyNotAllowed("This key may only read.")
        return claims


identify = BearerToken(takes_keys=True)
ALWAYS = documented(DatabaseUnavailable, Busy)
"""The problems that every route may return."""
SIGNED_IN = documented(Unauthorized, InvalidToken, KeyNotAllowed)
"""The further problems of a route with an `Owner` or `SignedIn` parameter."""
FOR_OWNERS = {**ALWAYS, **SIGNED_IN}
Owner: TypeAlias = Annotated[Claims | KeyClaims, Depends(identify)]
"""The account that the request acts for, by an access token or a key. Every statement is limited to `owner.user_id`."""
SignedIn: TypeAlias = Annotated[Claims, Depends(BearerToken(takes_keys=False))]
"""The session that the request acts for, for operations that keys may not use."""


class BearerTokenOrBody(BearerToken):
    """Like BearerToken, but returns None for a missing or invalid token if the request has a body."""

    async def __call__(self, request: Request) -> Claims | KeyClaims | None:  # type: ignore[override]
        try:
            return await super().__call__(request)
        except Unauthorized:
            if await request.body():
                return None
            raise


SignedInOrBody: TypeAlias = Annotated[Claims | None, Depends(BearerTokenOrBody(takes_keys=False))]
AppTokens: TypeAlias = Annotated[Tokens, from_state("tokens")]
