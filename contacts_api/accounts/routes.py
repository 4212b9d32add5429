"""Registration, signing in and out, and your own account."""

from collections.abc import Container, Iterable
from typing import Annotated, Any, ClassVar

from fastapi import APIRouter, Form, Request, Response
from fastapi.exceptions import RequestValidationError

from contacts_api.accounts import models
from contacts_api.accounts.cleanup import AccountCleanup
from contacts_api.accounts.keys import AccessKeys, KeyNotFound, TooManyKeys
from contacts_api.accounts.mail import MailQueue
from contacts_api.accounts.models import TokenPair, User, UserPublic
from contacts_api.accounts.passwords import WeakPassword
from contacts_api.accounts.sessions import InvalidRefreshToken, OpenSessions
from contacts_api.accounts.strategy import ALWAYS, FOR_OWNERS, SIGNED_IN, AppTokens, SignedIn, SignedInOrBody
from contacts_api.accounts.throttle import TooManyAttempts
from contacts_api.accounts.users import (
    BadCredentials,
    CurrentUser,
    EmailTaken,
    IfRegistrationIsOpen,
    InvalidMailToken,
    Issuer,
    NotVerified,
    RegistrationClosed,
    Users,
    WrongPassword,
    normalized,
)
from contacts_api.database.errors import DATABASE_ERRORS
from contacts_api.http.answers import JSON
from contacts_api.http.errors import problem_of
from contacts_api.http.route import Handler, Route
from contacts_api.problems import FieldError, InternalError, Invalid, NotFound, Problem, documented


class SessionNotFound(NotFound):
    """You have no session with this id. It may have expired."""

    advice = "List your sessions: GET /auth/sessions."
    code, title = "session_not_found", "Session not found"


class TokenRoute(Route):
    """A route whose problems are also OAuth 2.0 error responses (RFC 6749, 5.2)."""

    ERRORS: ClassVar = {
        401: "invalid_grant",
        403: "invalid_grant",
        429: "temporarily_unavailable",
        503: "temporarily_unavailable",
    }

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def handle_as_oauth(request: Request) -> Response:
            try:
                return await handle(request)
            except (Problem, RequestValidationError, *DATABASE_ERRORS) as error:
                problem = problem_of(error)
                if isinstance(problem, InternalError):
                    raise
                refused = [(each["loc"], each["code"]) for each in problem.body.get("errors", ())]
                is_grant_unknown = (["body", "grant_type"], "not_allowed") in refused
                fallback = "unsupported_grant_type" if is_grant_unknown else "invalid_request"
                problem.body["error"] = self.ERRORS.get(problem.status, fallback)
                problem.body["error_description"] = problem.detail
                raise problem from None

        return handle_as_oauth


def refuse_missing(required: Iterable[str], form: Container[str]) -> None:
    """Raise Invalid (a 422) with the names of the required fields that are missing in the form."""
    missing = [
        FieldError(loc=["body", name], code="missing", detail="Is required.") for name in required if name not in form
    ]
    if missing:
        raise Invalid(errors=missing)


auth = APIRouter(prefix="/auth", route_class=Route, responses=ALWAYS)
token = APIRouter(prefix="/auth", route_class=TokenRoute, responses=ALWAYS)
users = APIRouter(prefix="/users", route_class=Route, responses=FOR_OWNERS)


@auth.post(
    "/register",
    status_code=201,
    response_model=UserPublic,
    responses=documented(RegistrationClosed, EmailTaken, WeakPassword),
    dependencies=[IfRegistrationIsOpen],
)
async def register(new: models.UserCreate, users: Users) -> User:
    """Create an account. The password must have 8 to 128 characters."""
    return await users.register(new)


@auth.post("/login", responses=documented(BadCredentials, NotVerified, TooManyAttempts))
async def login(credentials: models.Credentials, issuer: Issuer) -> TokenPair:
    """Sign in with an e-mail address and a password."""
    return await issuer.sign_in(credentials.email, credentials.password)


@token.post("/token", responses=documented(BadCredentials, InvalidRefreshToken, NotVerified, TooManyAttempts))
async def issue_token(form: Annotated[models.TokenRequest, Form()], request: Request, issuer: Issuer) -> TokenPair:
    """Sign in or refresh with an OAuth 2.0 form. The Authorize button of this page uses it."""
    # Look in the raw form, because FastAPI drops empty fields. An empty password is a wrong one, not a missing one.
    refuse_missing(form.required(), await request.form())
    if form.grant_type == "refresh_token":
        return await issuer.refresh(form.refresh_token)
    return await issuer.sign_in(form.username or "", form.password or "")


@auth.post("/refresh", responses=documented(InvalidRefreshToken))
async def refresh(body: models.RefreshRequest, issuer: Issuer) -> TokenPair:
    """Get the next pair of tokens.

    A refresh token works once. A second use within ten seconds returns the same pair, so that a retry is safe. A later
    one ends the session, because the token may have been stolen.
    """
    return await issuer.refresh(body.refresh_token)


@auth.post(
    "/logout",
    status_code=204,
    responses=documented(InvalidRefreshToken, onto=SIGNED_IN),
    # The Bearer token is optional.
    openapi_extra={"security": [{}]},
)
async def logout(
    request: Request,
    owner: SignedInOrBody,
    tokens: AppTokens,
    sessions: OpenSessions,
    body: models.LogoutRequest | None = None,
) -> None:
    """Sign out. The tokens of this session stop working.

    Without a body, this ends the session of the access token. With a refresh token in the body, even an old one, it
    also ends the session of that token. Signing out therefore works after the access token has expired.
    """
    if body is None and await request.body():
        raise Invalid.field("body", code="missing", detail="Is required.")
    named = tokens.refresh.read(body.refresh_token) if body else None
    for claims in filter(None, (owner, named)):
        await sessions.sign_out(claims)


@auth.get("/sessions", response_model=models.SessionList, responses=SIGNED_IN)
async def list_sessions(owner: SignedIn, sessions: OpenSessions) -> Any:
    """List your sessions, the oldest first."""
    rows = await sessions.list(owner.user_id)
    return {"items": [{**row, "current": row.id == owner.session_id} for row in rows]}


@auth.delete("/sessions/{session_id:uuid}", status_code=204, responses=documented(SessionNotFound, onto=SIGNED_IN))
async def end_session(session_id: models.SessionId, owner: SignedIn, sessions: OpenSessions) -> None:
    """End one of your sessions."""
    if not await sessions.end(owner.user_id, only=session_id):
        raise SessionNotFound


@auth.delete("/sessions", status_code=204, responses=SIGNED_IN)
async def end_all_sessions(owner: SignedIn, sessions: OpenSessions) -> None:
    """Sign out everywhere, this session included."""
    await sessions.end(owner.user_id)


@auth.post("/forgot-password", status_code=202)
async def forgot_password(body: models.AddressOfAccount, mails: MailQueue) -> None:
    """Request a mail with a link to choose a new password. The response is the same for any address."""
    if address := normalized(body.email):
        await mails.add("reset", address)


@auth.post("/reset-password", status_code=204, responses=documented(InvalidMailToken, WeakPassword))
async def reset_password(body: models.PasswordReset, users: Users) -> None:
    """Choose a new password with the token of a mail.

    This ends all sessions and keys of the account, and revokes its calendar address.
    """
    await users.reset(body.token, body.password)


@auth.post("/request-verify-token", status_code=202, responses=SIGNED_IN)
async def request_verify_token(user: CurrentUser, mails: MailQueue) -> None:
    """Request another mail with a link to verify your address. If it is verified already, nothing is sent."""
    if not user.is_verified:
        await mails.add("verify", user.email, user.id)


@auth.post(
    "/verify",
    response_model=UserPublic,
    responses=documented(InvalidMailToken, onto={200: {"content": {JSON: {"example": {"is_verified": True}}}}}),
)
async def verify(body: models.Verification, users: Users) -> User:
    """Verify an address with the token of a mail. The token works once."""
    return await users.verify_address(body.token)


@auth.post("/keys", status_code=201, response_model=models.NewKey, responses=documented(TooManyKeys, onto=SIGNED_IN))
async def create_key(
    new: models.KeyCreate, request: Request, response: Response, owner: SignedIn, keys: AccessKeys
) -> Any:
    """Create a key for a script. It is a Bearer token for your contacts only, and is shown only this once."""
    response.headers["Cache-Control"] = "no-store"
    return await keys.create(owner, new, request.app.state.settings.max_keys)


@auth.get("/keys", response_model=models.KeyList, responses=SIGNED_IN)
async def list_keys(owner: SignedIn, keys: AccessKeys) -> Any:
    """List your keys, the oldest first."""
    return {"items": await keys.list(owner.user_id)}


@auth.delete("/keys/{key_id:uuid}", status_code=204, responses=documented(KeyNotFound, onto=SIGNED_IN))
async def delete_key(key_id: models.KeyId, owner: SignedIn, keys: AccessKeys) -> None:
    """Delete one of your keys. It stops working within a second."""
    await keys.delete(owner.user_id, key_id)


@users.get("/me", response_model=UserPublic)
async def get_me(user: CurrentUser) -> User:
    """Return your account."""
    return user


@users.patch(
    "/me",
    response_model=UserPublic,
    responses=documented(WrongPassword, EmailTaken, WeakPassword, TooManyAttempts),
)
async def update_me(changes: models.UserUpdate, user: CurrentUser, owner: SignedIn, users: Users) -> User:
    """Change your e-mail address, your password or both. This ends all your other sessions."""
    if not (changes.email or changes.password):
        raise Invalid.field("body", code="missing", detail="Give a new email, a new password or both.")
    return await users.change(user, changes, owner.session_id)


@users.post("/me/delete", status_code=204, responses=documented(WrongPassword, TooManyAttempts))
async def delete_me(
    confirmation: models.PasswordCheck, user: CurrentUser, users: Users, cleanup: AccountCleanup
) -> None:
    """Delete your account and all your contacts."""
    await users.erase(user, confirmation.current_password)
    await cleanup.erase(user.id)
