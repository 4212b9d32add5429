"""Password resets and address verification with a real mail server, which can refuse, hang and die."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from fastapi import FastAPI

from contacts_api.accounts import mail
from contacts_api.app import create_app
from contacts_api.settings import Settings
from tests.client import A_PASSWORD, Client
from tests.conftest import Execute, client_of
from tests.servers import free_port

ANOTHER_PASSWORD = "another long phrase"
MakeSettings = Callable[..., Settings]


async def until(is_so: Callable[[], object], seconds: float = 15) -> None:
    async with asyncio.timeout(seconds):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


class Inbox:
    """The handler of a mail server. It keeps accepted mails; `answer` is its reply to each mail."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.asked = 0
        self.answer = "250 OK"
        self.hangs = False
        self.is_quick = False

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: ARG002, N802 (aiosmtpd's)
        self.asked += 1
        is_slow = envelope.rcpt_tos[0].startswith("slow")
        await until(lambda: not self.hangs and (self.is_quick or not is_slow), 60)
        if self.answer.startswith("250"):
            mail = message_from_bytes(envelope.original_content or b"", policy=policy.default)
            assert isinstance(mail, EmailMessage)
            self.mails.append(mail)
        return self.answer

    async def wait_for(self, count: int, seconds: float = 15) -> list[EmailMessage]:
        await until(lambda: len(self.mails) >= count, seconds)
        return self.mails

    def token(self) -> str:
        """Return the token of the newest mail."""
        return token_in(self.mails[-1])


def token_in(mail: EmailMessage) -> str:
    found = re.match(r"https://contacts\.example\.com/[a-z-]+#token=(\S+)\s", mail.get_content())
    assert found, mail.get_content()
    return found[1]


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
async def inbox(port: int) -> AsyncIterator[Inbox]:
    inbox = Inbox()
    server = Controller(inbox, hostname="127.0.0.1", port=port)
    server.start()
    yield inbox
    inbox.hangs, inbox.is_quick = False, True
    server.stop()


@asynccontextmanager
async def running(make_settings: MakeSettings, port: int, **changes: Any) -> AsyncIterator[FastAPI]:
    settings = {"smtp_url": f"smtp://127.0.0.1:{port}", "public_url": "https://contacts.example.com", **changes}
    app = create_app(make_settings(**settings))
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def app_with_mail(make_settings: MakeSettings, port: int) -> AsyncIterator[FastAPI]:
    async with running(make_settings, port) as app:
        yield app


@pytest.fixture
async def eve(app_with_mail: FastAPI, inbox: Inbox) -> AsyncIterator[Client]:
    """A user who has registered on a server that sends mail, and has received the first mail."""
    async with client_of(app_with_mail) as client:
        await client.sign_up("eve@example.com")
        await inbox.wait_for(1)
        yield client


async def ask(client: Client, email: str = "eve@example.com") -> None:
    response = await client.post("/auth/forgot-password", json={"email": email})
    assert (response.status_code, response.content) == (202, b"")


async def reset(client: Client, token: str, password: str = ANOTHER_PASSWORD) -> tuple[int, str]:
    response = await client.post("/auth/reset-password", json={"token": token, "password": password})
    return response.status_code, response.json()["code"] if response.content else ""


async def sign_in(client: Client, password: str, email: str = "eve@example.com") -> int:
    return (await client.post("/auth/login", json={"email": email, "password": password})).status_code


async def test_registering_mails_a_link_that_verifies_the_address(eve: Client, inbox: Inbox) -> None:
    (mail,) = inbox.mails
    before = (await eve.get("/users/me")).json()["is_verified"]

    verified = await eve.post("/auth/verify", json={"token": inbox.token()})
    again = await eve.post("/auth/verify", json={"token": inbox.token()})

    assert (mail["To"], mail["Auto-Submitted"]) == ("eve@example.com", "auto-generated")
    assert mail.get_content().startswith("https://contacts.example.com/verify#token=")
    assert (before, verified.json()["is_verified"]) == (False, True)
    assert (again.status_code, again.json()["code"]) == (422, "invalid_token")
    assert again.json()["errors"][0]["loc"] == ["body", "token"]


@pytest.mark.parametrize("page", ["/verify", "/reset-password"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_opening_the_page_of_a_link_changes_nothing(eve: Client, inbox: Inbox, page: str, method: str) -> None:
    opened = await eve.request(method, page, params={"token": inbox.token()})

    assert opened.status_code == 200
    assert "default-src 'self'" in opened.headers["content-security-policy"]
    assert opened.headers["referrer-policy"] == "no-referrer"
    assert (await eve.get("/users/me")).json()["is_verified"] is False
    assert (await eve.post("/auth/verify", json={"token": inbox.token()})).status_code == 200


async def test_a_mailed_link_resets_a_forgotten_password(eve: Client, inbox: Inbox) -> None:
    key = (await eve.post("/auth/keys", json={"name": "x", "scope": "read"})).json()["key"]
    await ask(eve, " EVE@example.com ")
    mail = (await inbox.wait_for(2))[-1]

    assert mail.get_content().startswith("https://contacts.example.com/reset-password#token=")
    assert await reset(eve, token_in(mail), "password") == (422, "weak_password")
    assert await reset(eve, token_in(mail)) == (204, "")
    assert await reset(eve, token_in(mail)) == (422, "invalid_token")
    await asyncio.sleep(1)
    assert (await eve.get("/users/me")).status_code == 401
    assert (await eve.get("/contacts", headers={"Authorization": f"Bearer {key}"})).status_code == 401
    assert await sign_in(eve, A_PASSWORD) == 401
    assert await sign_in(eve, ANOTHER_PASSWORD) == 200
    await eve.post("/auth/login", json={"email": "eve@example.com", "password": ANOTHER_PASSWORD})


async def test_only_one_of_many_concurrent_resets_succeeds(eve: Client, inbox: Inbox) -> None:
    await ask(eve)
    await inbox.wait_for(2)

    answers = await asyncio.gather(*(reset(eve, inbox.token(), f"{ANOTHER_PASSWORD} {n}") for n in range(4)))

    assert sorted(answers) == [(204, ""), *[(422, "invalid_token")] * 3]


async def test_a_reset_ends_the_wait_after_wrong_passwords(eve: Client, inbox: Inbox) -> None:
    for _ in range(11):
        last = await sign_in(eve, "a wrong phrase")
    await ask(eve)
    await inbox.wait_for(2)
    await reset(eve, inbox.token())

    assert last == 429
    assert await sign_in(eve, ANOTHER_PASSWORD) == 200


@pytest.mark.parametrize("change", [{"password": ANOTHER_PASSWORD}, {"email": "eve.2@example.com"}])
async def test_a_change_of_password_or_address_invalidates_a_reset_token(
    eve: Client, inbox: Inbox, change: dict[str, str]
) -> None:
    await ask(eve)
    token = token_in((await inbox.wait_for(2))[-1])
    await eve.patch("/users/me", json={"current_password": A_PASSWORD, **change})

    assert await reset(eve, token, "a third long phrase") == (422, "invalid_token")


async def test_a_token_is_valid_only_for_its_purpose(eve: Client, inbox: Inbox) -> None:
    verify = inbox.token()
    await ask(eve)
    await inbox.wait_for(2)

    as_reset = await reset(eve, verify)
    as_verify = await eve.post("/auth/verify", json={"token": inbox.token()})
    access = await reset(eve, eve.tokens["access_token"])

    assert as_reset == access == (422, "invalid_token")
    assert as_verify.json()["code"] == "invalid_token"
    assert (await eve.get("/users/me", headers={"Authorization": f"Bearer {verify}"})).status_code == 401


async def test_deactivating_the_account_invalidates_its_tokens(
    eve: Client, inbox: Inbox, app_with_mail: FastAPI
) -> None:
    await ask(eve)
    await inbox.wait_for(2)
    users = app_with_mail.state.users
    for is_active in (False, True):
        await users.set_active(await users.find("eve@example.com"), is_active)

    assert await reset(eve, inbox.token()) == (422, "invalid_token")


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "\x00", "x" * 5000, "é"])
async def test_an_invalid_token_is_refused(eve: Client, token: str) -> None:
    assert await reset(eve, token) == (422, "invalid_token")


async def test_the_answer_does_not_reveal_which_addresses_have_accounts(
    eve: Client, inbox: Inbox, execute: Execute
) -> None:
    await ask(eve, "nobody@example.com")
    await ask(eve, "no address")
    await ask(eve)
    await inbox.wait_for(2)
    await asyncio.sleep(0.3)

    assert [mail["To"] for mail in inbox.mails] == ["eve@example.com"] * 2
    # Both cases do the same work: they insert a row.
    assert execute("SELECT count(*) FROM mail WHERE purpose = 'reset'") == [(2,)]


async def test_at_most_three_links_an_hour_are_sent(eve: Client, inbox: Inbox, execute: Execute) -> None:
    await asyncio.gather(*(ask(eve) for _ in range(6)))
    await inbox.wait_for(4)
    for _ in range(6):
        assert (await eve.post("/auth/request-verify-token")).status_code == 202
    await inbox.wait_for(6)
    await asyncio.sleep(0.5)

    assert len(inbox.mails) == 6
    execute("UPDATE mail SET created_at = created_at - interval '61 minutes'")
    await ask(eve)
    await inbox.wait_for(7)


async def test_a_new_address_gets_a_link_and_the_old_one_a_notice(eve: Client, inbox: Inbox) -> None:
    await eve.post("/auth/verify", json={"token": inbox.token()})

    changed = await eve.patch("/users/me", json={"current_password": A_PASSWORD, "email": "eve.2@example.com"})
    await inbox.wait_for(3)
    by_recipient = {mail["To"]: mail for mail in inbox.mails[1:]}

    assert changed.json()["is_verified"] is False
    assert "token" not in by_recipient["eve@example.com"].get_content()
    verified = await eve.post("/auth/verify", json={"token": token_in(by_recipient["eve.2@example.com"])})
    assert verified.json()["is_verified"] is True


async def test_the_limit_on_links_survives_a_change_of_address(eve: Client, inbox: Inbox, execute: Execute) -> None:
    for _ in range(3):
        await ask(eve)
    await inbox.wait_for(4)
    await eve.patch("/users/me", json={"current_password": A_PASSWORD, "email": "eve.2@example.com"})
    await ask(eve, "eve.2@example.com")
    await inbox.wait_for(6)
    await asyncio.sleep(0.5)

    assert execute("SELECT count(*) FROM mail WHERE purpose = 'reset'") == [(3,)]
    assert len(inbox.mails) == 6


async def test_a_token_verifies_once_even_if_the_address_is_set_again(eve: Client, inbox: Inbox) -> None:
    token = inbox.token()
    used = await eve.post("/auth/verify", json={"token": token})
    for email in ("eve.2@example.com", "eve@example.com"):
        await eve.patch("/users/me", json={"current_password": A_PASSWORD, "email": email})

    again = await eve.post("/auth/verify", json={"token": token})

    assert (used.status_code, again.status_code) == (200, 422)
    assert (await eve.get("/users/me")).json()["is_verified"] is False


async def test_notices_are_not_limited_like_links(eve: Client, inbox: Inbox) -> None:
    for n in range(5):
        await eve.patch("/users/me", json={"current_password": A_PASSWORD, "email": f"eve.{n}@example.com"})

    await until(lambda: len([mail for mail in inbox.mails if "was changed" in mail["Subject"]]) == 5)


async def by_its_owner(eve: Client, app: FastAPI, inbox: Inbox) -> None:
    changes = {"current_password": A_PASSWORD, "password": ANOTHER_PASSWORD, "email": "eve.2@example.com"}
    assert (await eve.patch("/users/me", json=changes)).status_code == 200


async def by_a_mail(eve: Client, app: FastAPI, inbox: Inbox) -> None:
    await ask(eve)
    await inbox.wait_for(2)
    assert await reset(eve, inbox.token()) == (204, "")


async def by_the_operator(eve: Client, app: FastAPI, inbox: Inbox) -> None:
    users = app.state.users
    await users.set_password(await users.find("eve@example.com"), ANOTHER_PASSWORD)


@pytest.mark.parametrize("change", [by_its_owner, by_a_mail, by_the_operator])
async def test_a_password_change_notifies_the_previous_address(
    eve: Client, app_with_mail: FastAPI, inbox: Inbox, change: Callable[..., Any]
) -> None:
    await change(eve, app_with_mail, inbox)
    await until(lambda: [mail for mail in inbox.mails if "your password was changed" in mail["Subject"]])

    (notice,) = (mail for mail in inbox.mails if "your password was changed" in mail["Subject"])
    assert notice["To"] == "eve@example.com"
    assert "http" not in notice.get_content()
    assert "token" not in notice.get_content()
    assert ANOTHER_PASSWORD not in notice.get_content()


async def test_a_notice_of_a_changed_password_is_not_throttled_like_links(eve: Client, inbox: Inbox) -> None:
    passwords = [A_PASSWORD, ANOTHER_PASSWORD]
    for n in range(6):
        changes = {"current_password": passwords[n % 2], "password": passwords[(n + 1) % 2]}
        assert (await eve.patch("/users/me", json=changes)).status_code == 200

    await until(lambda: len([mail for mail in inbox.mails if "password was changed" in mail["Subject"]]) == 6)


async def test_no_notice_is_sent_if_the_password_does_not_change(eve: Client, inbox: Inbox, execute: Execute) -> None:
    wrong = {"current_password": "a wrong phrase", "password": ANOTHER_PASSWORD}
    await eve.patch("/users/me", json=wrong)
    await eve.patch("/users/me", json={"current_password": A_PASSWORD, "email": "eve.2@example.com"})
    await reset(eve, inbox.token())

    assert execute("SELECT count(*) FROM mail WHERE purpose = 'password_changed'") == [(0,)]


async def test_no_link_is_mailed_to_verified_or_deactivated_users(
    eve: Client, inbox: Inbox, app_with_mail: FastAPI
) -> None:
    await eve.post("/auth/verify", json={"token": inbox.token()})
    await eve.post("/auth/request-verify-token")
    users = app_with_mail.state.users
    await users.set_active(await users.find("eve@example.com"), False)
    await ask(eve)
    await asyncio.sleep(1)

    assert len(inbox.mails) == 1


async def test_required_verification_must_precede_the_sign_in(
    make_settings: MakeSettings, port: int, inbox: Inbox
) -> None:
    async with running(make_settings, port, require_verification=True) as app, client_of(app) as client:
        await client.post("/auth/register", json={"email": "eve@example.com", "password": A_PASSWORD})
        refused = await client.post("/auth/login", json={"email": "eve@example.com", "password": A_PASSWORD})
        wrong = await sign_in(client, "a wrong phrase")
        await inbox.wait_for(2)
        await client.post("/auth/verify", json={"token": inbox.token()})

        assert (refused.status_code, refused.json()["code"]) == (403, "not_verified")
        assert wrong == 401
        assert await sign_in(client, A_PASSWORD) == 200


async def test_a_mail_is_retried_if_the_server_is_away_or_busy(
    make_settings: MakeSettings, port: int, execute: Execute
) -> None:
    inbox = Inbox()
    inbox.answer = "451 try again"
    async with running(make_settings, port) as app, client_of(app) as client:
        await client.sign_up("eve@example.com")
        await asyncio.sleep(0.5)
        server = Controller(inbox, hostname="127.0.0.1", port=port)
        server.start()
        try:
            # The first retry comes within ten seconds.
            await until(lambda: inbox.asked, 12)
            inbox.answer = "250 OK"
            execute("UPDATE mail SET next_try_at = now()")
            await inbox.wait_for(1)
        finally:
            server.stop()

    assert len(inbox.mails) == 1


async def test_a_permanent_refusal_is_not_retried(
    eve: Client, inbox: Inbox, execute: Execute, caplog: pytest.LogCaptureFixture
) -> None:
    inbox.answer = "550 no such user"
    await ask(eve)
    await until(lambda: execute("SELECT count(*) FROM mail WHERE done_at IS NULL") == [(0,)])

    assert (inbox.asked, len(inbox.mails)) == (2, 1)
    assert "refused for good: the mail server answered 550" in caplog.text


async def test_mail_is_sent_after_the_smtp_credentials_are_corrected(
    make_settings: MakeSettings, inbox: Inbox, port: int, execute: Execute, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"smtp://eve:secret%20word@127.0.0.1:{port}"
    async with running(make_settings, port, smtp_url=url) as app, client_of(app) as client:
        await client.sign_up("eve@example.com")
        await until(lambda: "is not sent yet" in caplog.text)
    async with running(make_settings, port):
        execute("UPDATE mail SET next_try_at = now()")
        await inbox.wait_for(1)

    # The password was not sent in the clear, because this server has no STARTTLS.
    assert "SMTPException" in caplog.text
    assert "secret" not in caplog.text


async def test_a_hanging_server_does_not_block_requests_and_is_retried(
    make_settings: MakeSettings, port: int, inbox: Inbox, monkeypatch: pytest.MonkeyPatch, execute: Execute
) -> None:
    monkeypatch.setattr(mail, "SEND_SECONDS", 1.0)
    inbox.hangs = True
    async with running(make_settings, port) as app, client_of(app) as client:
        await client.sign_up("eve@example.com")
        await until(lambda: inbox.asked)
        assert (await client.get("/users/me")).status_code == 200
        await until(lambda: execute("SELECT tries FROM mail WHERE next_try_at < now() + interval '6 s'") == [(1,)])
        inbox.hangs = False
        await until(lambda: execute("SELECT tries FROM mail WHERE done_at IS NOT NULL") == [(2,)], 12)

    # The first attempt may have been delivered after all. Both have the same id.
    assert len({mail["Message-ID"] for mail in inbox.mails}) == 1


async def test_slow_recipients_do_not_delay_other_mail(make_settings: MakeSettings, port: int, inbox: Inbox) -> None:
    async with running(make_settings, port) as app, client_of(app) as client:
        for n in range(5):
            await client.sign_up(f"slow.{n}@example.com")
        await until(lambda: inbox.asked == 5)
        await client.sign_up("eve@example.com")
        (received,) = await inbox.wait_for(1)
        # Shutdown does not wait for the slow recipients either.
        stopping_at = time.monotonic()

    assert received["To"] == "eve@example.com"
    assert time.monotonic() - stopping_at < 10


async def test_a_busy_database_does_not_cause_a_second_delivery(
    eve: Client, inbox: Inbox, app_with_mail: FastAPI, execute: Execute
) -> None:
    inbox.hangs = True
    await ask(eve)
    await until(lambda: inbox.asked == 2)
    places = app_with_mail.state.database._places
    async with AsyncExitStack() as held:
        for _ in range(places._free):
            await held.enter_async_context(places.place())
        inbox.hangs = False
        await inbox.wait_for(2)
        await asyncio.sleep(3)
    await until(lambda: execute("SELECT count(*) FROM mail WHERE done_at IS NULL") == [(0,)])

    assert len(inbox.mails) == 2


async def test_a_mail_is_delivered_after_the_server_died_during_delivery(
    make_settings: MakeSettings, port: int, execute: Execute
) -> None:
    inbox = Inbox()
    inbox.hangs = True
    server = Controller(inbox, hostname="127.0.0.1", port=port)
    server.start()
    async with running(make_settings, port) as app, client_of(app) as client:
        await client.sign_up("eve@example.com")
        await until(lambda: inbox.asked)
        inbox.answer, inbox.hangs = "", False
        server.stop()
        back = Inbox()
        server = Controller(back, hostname="127.0.0.1", port=port)
        server.start()
        try:
            await back.wait_for(1, 40)
            await until(lambda: execute("SELECT count(*) FROM mail WHERE done_at IS NULL") == [(0,)])
        finally:
            server.stop()

    assert (len(inbox.mails), len(back.mails)) == (0, 1)


async def test_an_internationalised_address_gets_mail(make_settings: MakeSettings, port: int, inbox: Inbox) -> None:
    async with running(make_settings, port) as app, client_of(app) as client:
        await client.sign_up("eve@exämple.com")
        (received,) = await inbox.wait_for(1)
        verified = await client.post("/auth/verify", json={"token": token_in(received)})

    assert received["To"] == "eve@xn--exmple-cua.com"
    assert "eve@exämple.com is your address" in received.get_content()
    assert verified.json()["is_verified"] is True


async def test_a_restart_loses_no_mail_and_two_workers_send_each_once(
    make_settings: MakeSettings, port: int, inbox: Inbox, execute: Execute
) -> None:
    async with running(make_settings, free_port()) as app, client_of(app) as client:
        for n in range(20):
            await client.post("/auth/register", json={"email": f"eve.{n}@example.com", "password": A_PASSWORD})
            await client.post("/auth/forgot-password", json={"email": f"eve.{n}@example.com"})
    async with running(make_settings, port), running(make_settings, port):
        execute("UPDATE mail SET next_try_at = now()")
        await inbox.wait_for(40, 60)
        await asyncio.sleep(1)

    recipients = sorted(f"{mail['To']} {mail['Subject']}" for mail in inbox.mails)
    assert len(recipients) == len(set(recipients)) == 40


async def test_a_mail_that_cannot_be_sent_within_a_day_is_dropped(
    make_settings: MakeSettings, execute: Execute, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(make_settings, free_port()) as app, client_of(app) as client:
        await client.sign_up("eve@example.com")
        await asyncio.sleep(0.5)
        execute("UPDATE mail SET created_at = created_at - interval '25 hours', next_try_at = now()")
        await until(lambda: execute("SELECT count(*) FROM mail WHERE done_at IS NULL") == [(0,)])

    assert "not sent within a day" in caplog.text


async def test_no_token_is_in_the_database_or_the_log(
    eve: Client, inbox: Inbox, execute: Execute, caplog: pytest.LogCaptureFixture
) -> None:
    await ask(eve)
    await inbox.wait_for(2)
    tokens = [token_in(mail) for mail in inbox.mails]
    inbox.answer = "550 no"
    await eve.post("/auth/request-verify-token")
    await asyncio.sleep(1)

    kept = str(execute("SELECT t::text FROM mail t")) + caplog.text
    assert all(token not in kept and token.rpartition(".")[2] not in kept for token in tokens)


async def test_a_file_url_writes_mails_to_an_outbox_directory(make_settings: MakeSettings, tmp_path: Path) -> None:
    outbox = tmp_path / "out box"
    url = f"file://{str(outbox).replace(' ', '%20')}"
    async with running(make_settings, 0, smtp_url=url) as app, client_of(app) as client:
        await client.sign_up("eve@example.com")
        await until(lambda: outbox.is_dir() and list(outbox.glob("*.eml")))
        (path,) = outbox.iterdir()
        mail = message_from_bytes(path.read_bytes(), policy=policy.default)
        assert isinstance(mail, EmailMessage)
        verified = await client.post("/auth/verify", json={"token": token_in(mail)})

    assert verified.status_code == 200
    assert path.stat().st_mode & 0o077 == 0


async def test_without_a_mail_server_no_mail_is_queued(ada: Client, execute: Execute) -> None:
    await ask(ada, "ada@example.com")
    await ada.post("/auth/request-verify-token")

    assert execute("SELECT count(*) FROM mail") == [(0,)]
    assert (await ada.get("/users/me")).json()["is_verified"] is False


async def test_expired_tokens_are_refused(eve: Client, inbox: Inbox, app_with_mail: FastAPI) -> None:
    users = app_with_mail.state.users
    user = await users.find("eve@example.com")
    claims = {"sub": str(user.id), "email": user.email}
    old = users._signed(claims, users.verification_token_audience, -int(timedelta(minutes=1).total_seconds()))

    response = await eve.post("/auth/verify", json={"token": old})

    assert (response.status_code, response.json()["code"]) == (422, "invalid_token")
