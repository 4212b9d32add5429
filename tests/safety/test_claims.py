"""Tokens signed with the right secret but with nonsensical content get a 401."""

import hmac
import json
import time
from base64 import urlsafe_b64encode
from hashlib import sha256
from types import SimpleNamespace
from typing import Any

import httpx
import jwt
import pytest
from fastapi import FastAPI

from tests.client import Client
from tests.conftest import SECRET

# As JSON text, because Python cannot express all of these values.
ODD_VALUES = {
    "Infinity": "Infinity",
    "-Infinity": "-Infinity",
    "NaN": "NaN",
    "1e400": "1e400",
    "1e300": "1e300",
    "digits": "9" * 5_000,
    "digits of less than nothing": "-" + "9" * 5_000,
    "text of digits": f'"{"9" * 5_000}"',
    "-1": "-1",
    "-2^63 - 1": "-9223372036854775809",
    "2^63": "9223372036854775808",
    "fraction": "0.5",
    "empty text": '""',
    "text": '"x"',
    "NUL": r'"\u0000"',
    "lone surrogate": r'"\ud800"',
    "list": "[]",
    "list of lists": "[[]]",
    "object": "{}",
    "null": "null",
    "true": "true",
    "false": "false",
}
CLAIMS = ["sub", "sid", "aud", "iat", "exp", "seq", "nbf", "jti"]
# The claims that each token must have. Other claims may be ignored.
OURS = {"access": {"sub", "sid", "aud", "iat", "exp"}, "refresh": {"sub", "sid", "aud", "iat", "exp", "seq"}}
# Times that are far off but readable: the token may be accepted if its other claims are valid.
FAR_AHEAD = {"1e300", "2^63"}
LONG_AGO = {"-1", "-2^63 - 1", "fraction"}
READABLE = {("access", "exp"): FAR_AHEAD, ("access", "iat"): FAR_AHEAD}
READABLE |= {("refresh", "exp"): FAR_AHEAD, ("refresh", "iat"): FAR_AHEAD | LONG_AGO}
ODD_PAYLOADS = {
    "nothing": "",
    "list": "[]",
    "text": '"x"',
    "number": "1",
    "null": "null",
    "Infinity": "Infinity",
    "unfinished": "{",
    "depth": "[" * 2_000,
    "many claims": json.dumps(dict.fromkeys(map(str, range(400)), 1)),
}
ODD_HEADERS = {
    "alg a number": '{"alg": 1}',
    "alg a list": '{"alg": ["HS256"]}',
    "alg null": '{"alg": null}',
    "alg an object": '{"alg": {}}',
    "alg missing": "{}",
    "list": "[]",
    "text": '"HS256"',
    "nothing": "",
    "digits": '{"alg": "HS256", "kid": %s}' % ("9" * 5_000),
    "kid a list": '{"alg": "HS256", "kid": []}',
    "crit a number": '{"alg": "HS256", "crit": 1}',
    "crit an object": '{"alg": "HS256", "crit": [{}]}',
    "not encoded": '{"alg": "HS256", "b64": false, "crit": ["b64"]}',
    "depth": '{"alg": "HS256", "x": ' + "[" * 2_000,
}


def encoded(text: str) -> str:
    return urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def signed(payload: str, header: str = '{"alg": "HS256", "typ": "JWT"}') -> str:
    """Return a token (RFC 7515) with exactly this text as its payload."""
    content = f"{encoded(header)}.{encoded(payload)}"
    signature = hmac.digest(SECRET.encode(), content.encode(), sha256)
    return f"{content}.{urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def claims_of(client: Client, kind: str) -> dict[str, Any]:
    return dict(jwt.decode(client.tokens[f"{kind}_token"], options={"verify_signature": False}))


def with_claim(claims: dict[str, Any], name: str, value: str) -> str:
    """Return the claims as JSON, with the text as the value of one claim."""
    return json.dumps({**claims, name: "the value"}).replace('"the value"', value)


async def present(client: Client, kind: str, token: str) -> list[httpx.Response]:
    """Return the answers of all operations that take such a token."""
    if kind == "access":
        paths = ("/users/me", "/contacts", "/auth/sessions")
        return [await client.get(path, headers={"Authorization": f"Bearer {token}"}) for path in paths]
    form = {"grant_type": "refresh_token", "refresh_token": token}
    return [
        await client.post("/auth/refresh", json={"refresh_token": token}),
        await client.post("/auth/token", data=form),
        await client.post("/auth/logout", json={"refresh_token": token}, headers={"Authorization": ""}),
    ]


@pytest.mark.parametrize("kind", ["access", "refresh"])
@pytest.mark.parametrize("name", CLAIMS)
async def test_a_token_with_a_nonsensical_claim_is_refused(ada: Client, kind: str, name: str) -> None:
    wrong = []
    for what, value in ODD_VALUES.items():
        # A nonsensical refresh token may have ended the session.
        await ada.sign_in()
        answers = await present(ada, kind, signed(with_claim(claims_of(ada, kind), name, value)))
        may_pass = name not in OURS[kind] or what in READABLE.get((kind, name), ())
        statuses = [answer.status_code for answer in answers]
        if not set(statuses) <= ({401, 200, 204} if may_pass else {401}):
            wrong.append(f"{name}: {what}: {statuses}")

    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("kind", ["access", "refresh"])
async def test_a_token_with_a_nonsensical_payload_or_header_is_refused(ada: Client, kind: str) -> None:
    claims = json.dumps(claims_of(ada, kind))
    tokens = {f"payload: {what}": signed(payload) for what, payload in ODD_PAYLOADS.items()}
    tokens |= {f"header: {what}": signed(claims, header) for what, header in ODD_HEADERS.items()}

    wrong = []
    for what, token in tokens.items():
        statuses = [answer.status_code for answer in await present(ada, kind, token)]
        if set(statuses) != {401}:
            wrong.append(f"{what}: {statuses}")

    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("kind", ["access", "refresh"])
async def test_a_token_with_valid_claims_is_accepted(ada: Client, kind: str) -> None:
    """Without this, the tests above would prove nothing."""
    answers = await present(ada, kind, signed(json.dumps(claims_of(ada, kind))))

    assert {answer.status_code for answer in answers} <= {200, 204}


# The claims that a mailed token must have.
MAILED = {
    "reset": {"sub", "aud", "exp", "email_seq", "password"},
    "verify": {"sub", "aud", "exp", "email_seq"},
}
# Values that are accepted: a time far ahead, and a number that PyJWT or Python reads as a different one.
READABLE_IN_MAILS = {("exp", what) for what in FAR_AHEAD | {"digits"}} | {("email_seq", "false")}


async def mailed_claims(app: FastAPI, purpose: str) -> dict[str, Any]:
    token = await app.state.users.token_for(SimpleNamespace(purpose=purpose, address="ada@example.com"))
    return dict(jwt.decode(token, options={"verify_signature": False}))


async def use_mailed(client: Client, purpose: str, token: str) -> tuple[int, str]:
    path, body = (
        ("/auth/verify", {}) if purpose == "verify" else ("/auth/reset-password", {"password": "a long phrase"})
    )
    answer = await client.post(path, json={"token": token, **body})
    return answer.status_code, answer.json()["code"] if answer.is_error else ""


@pytest.mark.parametrize("purpose", MAILED)
async def test_a_mailed_token_needs_each_of_its_claims(ada: Client, app: FastAPI, purpose: str) -> None:
    claims = await mailed_claims(app, purpose)
    assert claims.keys() == MAILED[purpose]

    for name in claims:
        without = json.dumps({other: value for other, value in claims.items() if other != name})
        assert await use_mailed(ada, purpose, signed(without)) == (422, "invalid_token"), name
    expired = json.dumps({**claims, "exp": int(time.time()) - 1})
    assert await use_mailed(ada, purpose, signed(expired)) == (422, "invalid_token")
    assert await use_mailed(ada, purpose, signed(json.dumps(claims))) in {(200, ""), (204, "")}


@pytest.mark.parametrize("purpose", MAILED)
@pytest.mark.parametrize("name", ["sub", "aud", "exp", "iat", "nbf", "email_seq", "password"])
async def test_a_mailed_token_with_a_nonsensical_claim_is_refused(
    ada: Client, app: FastAPI, purpose: str, name: str
) -> None:
    claims = await mailed_claims(app, purpose)
    wrong = []
    for what, value in {**ODD_VALUES, "another script": '"п"'}.items():
        answer = await use_mailed(ada, purpose, signed(with_claim(claims, name, value)))
        may_pass = name not in MAILED[purpose] or (name, what) in READABLE_IN_MAILS
        if answer != (422, "invalid_token") and not (may_pass and answer[0] in (200, 204)):
            wrong.append(f"{name}: {what}: {answer}")

    assert not wrong, "\n".join(wrong)
