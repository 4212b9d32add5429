"""Mail: a queue in the database, so that a restart loses no mail, and the sender that empties it."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email import policy
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import unquote, urlsplit
from uuid import UUID

import aiosmtplib
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from contacts_api.database.connecting import Row
from contacts_api.database.engine import Database, from_state
from contacts_api.runtime import write_whole_file
from contacts_api.settings import Settings
from contacts_api.text import read_address

logger = logging.getLogger(__name__)

Purpose = Literal["reset", "verify", "invite", "address_changed", "password_changed"]
NOTICES = ("address_changed", "password_changed")
"""Purposes of the mails that contain no token."""
# The maximum number of mails with one purpose to an address, and for an account, within COUNTED.
MAX_OF_A_KIND = 3
COUNTED = timedelta(hours=1)
KEPT = timedelta(days=1)
POLL_SECONDS = 1.0
# A worker sends up to this many mails concurrently, because a mail server may be slow.
AT_ONCE = 10
CONNECT_SECONDS = 10.0
# Long, because a client that hangs up too early sends the mail twice (RFC 5321, 4.5.3.2.6).
SEND_SECONDS = 120.0
# A worker takes a mail for LEASE, and renews this lease every HOLD_SECONDS while it sends. After the lease expires,
# another worker may take the mail.
LEASE, HOLD_SECONDS = timedelta(seconds=45), 15.0
# The first and the longest delay between the starts of two attempts. The delay doubles each time.
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 5.0, 50.0
# The same limit as MAX_OF_A_KIND, for notices. High, so that nobody can suppress a notice by causing others.
MAX_NOTICES = 20

# The longest lines that RFC 5322 (2.1.1) allows, so that links are not wrapped.
_POLICY = policy.SMTPUTF8.clone(max_line_length=998, linesep="\n")
_LOCK = sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))")
# An address without an account also gets a row, marked as done, so that both cases do the same work.
_ADD = sa.text(
    """
    WITH owner AS (SELECT coalesce(CAST(:owner_id AS uuid), (SELECT id FROM "user" WHERE email = :address)) AS id),
        recent AS NOT MATERIALIZED (
            SELECT address, owner_id FROM mail
            WHERE purpose = :purpose AND created_at > now() - CAST(:counted AS interval)
        )
    INSERT INTO mail (id, purpose, address, owner_id, done_at)
    SELECT :id, :purpose, :address, owner.id, CASE WHEN owner.id IS NULL THEN now() END
    FROM owner
    WHERE (SELECT count(*) FROM recent WHERE recent.address = :address) < :limit
        AND (SELECT count(*) FROM recent WHERE recent.owner_id = owner.id) < :limit
    """
).bindparams(counted=COUNTED)
# New mails go first, so that they do not wait for retries.
_TAKE = sa.text(
    """
    UPDATE mail SET next_try_at = now() + CAST(:lease AS interval), tries = tries + 1
    WHERE id = (
        SELECT id FROM mail WHERE done_at IS NULL AND next_try_at <= now()
        ORDER BY tries > 0, next_try_at LIMIT 1 FOR UPDATE SKIP LOCKED
    )
    RETURNING *, created_at < now() - CAST(:kept AS interval) AS is_old
    """
).bindparams(lease=LEASE, kept=KEPT)
_END = sa.text("UPDATE mail SET done_at = now() WHERE id = :mail_id")
# Schedules a retry or renews a lease. Does nothing if another worker has taken the mail in the meantime.
_POSTPONE = sa.text(
    "UPDATE mail SET next_try_at = now() + CAST(:wait AS interval) WHERE id = :mail_id AND tries = :taken"
)

SUBJECTS: dict[str, str] = {
    "reset": "Contacts API: choose a new password",
    "verify": "Contacts API: is this your address?",
    "invite": "Contacts API: your account",
    "address_changed": "Contacts API: your address was changed",
    "password_changed": "Contacts API: your password was changed",
}
TEXTS: dict[str, str] = {
    "reset": """\
{link}

Follow this link to choose a new password for your account {address}. It is valid for an hour, and works once.

If you have not asked for this, do nothing: your password stays as it is.
""",
    "verify": """\
{link}

Follow this link to say that {address} is your address. It is valid for three days.

If you have no account here, do nothing: somebody has mistyped an address.
""",
    "invite": """\
{link}

An account was made for you: {address}. Follow this link to choose its password. It is valid for an hour, and works
once.

If it is too old, say that you have forgotten the password: another mail comes.
""",
    "address_changed": """\
The account that had this address, {address}, has another one now.

If this was not you, somebody else knows your password. Tell the operator of this server.
""",
    "password_changed": """\
The password of your account {address} was changed.

If this was not you, choose a new one: ask for a mail by "forgot password". Then tell the operator of this server.
""",
}


class Server:
    """A mail server: SMTP (RFC 5321), with STARTTLS (RFC 3207) if the server offers it, or over TLS (`smtps:`)."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        is_tls = parts.scheme == "smtps"
        self._options: dict[str, Any] = {
            "hostname": parts.hostname,
            "port": parts.port or (465 if is_tls else 587 if parts.username else 25),
            "username": unquote(parts.username) if parts.username else None,
            "password": unquote(parts.password) if parts.password else None,
            "use_tls": is_tls,
            # Sending a password requires encryption and a valid certificate. Without a password and without `smtps:`,
            # the certificate is not checked: unauthenticated encryption is better than none (RFC 7435).
            "start_tls": True if parts.username and not is_tls else None,
            "validate_certs": is_tls or bool(parts.username),
        }

    async def send(self, message: EmailMessage, recipient: str) -> None:
        client = aiosmtplib.SMTP(**self._options, timeout=SEND_SECONDS)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await client.connect()
            async with asyncio.timeout(SEND_SECONDS):
                await client.send_message(message, recipients=[recipient])
        finally:
            # Skip QUIT: the server has already accepted or refused the mail, and it may hang.
            client.close()


class Outbox:
    """A directory that mails are written to, for a prototype without a mail server."""

    def __init__(self, url: str) -> None:
        self._directory = Path(unquote(urlsplit(url).path))

    async def send(self, message: EmailMessage, recipient: str) -> None:  # noqa: ARG002 (the mail contains it)
        path = self._directory / f"{datetime.now(UTC):%Y-%m-%d-%H%M%S}-{uuid7().hex[-12:]}.eml"
        await asyncio.to_thread(self._write, path, bytes(message))
        logger.info("a mail is in %s", path)

    def _write(self, path: Path, content: bytes) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole_file(path, content)


class Mails:
    """The queue of mails. Without SMTP_URL, nothing is queued."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._are_sent = settings.smtp_url is not None

    async def add(self, purpose: Purpose, address: str, owner_id: UUID | None = None) -> None:
        """Queue a mail, unless the limit for its purpose has been reached within the last hour.

        Without `owner_id`, the mail is for the account with this address, if there is one.
        """
        if self._are_sent:
            async with self._database.session() as session:
                await self.add_within(session, purpose, address, owner_id)

    async def add_within(
        self, session: AsyncSession, purpose: Purpose, address: str, owner_id: UUID | None = None
    ) -> None:
        """Queue a mail as `add` does, as part of the given transaction."""
        if not self._are_sent:
            return
        await session.execute(_LOCK, {"key": f"{purpose} {address}"})
        limit = MAX_NOTICES if purpose in NOTICES else MAX_OF_A_KIND
        mail = {"id": uuid7(), "purpose": purpose, "address": address, "owner_id": owner_id}
        await session.execute(_ADD, {**mail, "limit": limit})


class Sender:
    """Sends the queued mails. A worker leases each mail, so that another worker can take over if it dies."""

    def __init__(
        self, database: Database, settings: Settings, token_for: Callable[[Row], Awaitable[str | None]]
    ) -> None:
        """`token_for` returns the token for a mail: empty if the mail needs none, None if it must not be sent."""
        self._database, self._token_for = database, token_for
        self._from, self._public_url = settings.mail_from, settings.public_url.rstrip("/")
        url = settings.smtp_url.get_secret_value() if settings.smtp_url else ""
        self._transport: Server | Outbox | None = None
        if url:
            self._transport = Outbox(url) if url.startswith("file:") else Server(url)
        self._places = asyncio.Semaphore(AT_ONCE)

    async def run(self) -> None:
        """Send mails until cancelled."""
        if self._transport is None:
            return
        async with asyncio.TaskGroup() as sending:
            while True:
                await self._places.acquire()
                if mail := await self._take():
                    sending.create_task(self._deliver(mail, self._transport))
                else:
                    self._places.release()
                    await asyncio.sleep(POLL_SECONDS)

    async def _take(self) -> Row | None:
        """Take the next mail that is due, or return None."""
        try:
            return next(iter(await self._database.execute(_TAKE)), None)
        except Exception as error:
            logger.warning("cannot read the queue of mails: %s", type(error).__name__)
            return None

    async def _deliver(self, mail: Row, transport: Server | Outbox) -> None:
        holding = asyncio.create_task(self._hold(mail))
        try:
            if await self._try(mail, transport):
                await self._end(mail)
            else:
                # Keep the slot for a moment, so that an unavailable server is not tried continuously.
                await asyncio.sleep(POLL_SECONDS)
        except Exception as error:
            logger.warning("cannot note when to try mail %s again: %s", mail.id, type(error).__name__)
        finally:
            holding.cancel()
            self._places.release()

    async def _try(self, mail: Row, transport: Server | Outbox) -> bool:
        """Send a mail. Return True if it is done: sent, refused, too old or not needed. Otherwise schedule a retry."""
        if mail.is_old:
            logger.warning("mail %s was not sent within a day, and is dropped", mail.id)
            return True
        begun_at = time.monotonic()
        try:
            if (token := await self._token_for(mail)) is not None:
                await transport.send(self._message(mail, token), _ascii(mail.address))
        except Exception as error:
            if code := _final_code(error):
                logger.warning("mail %s is refused for good: the mail server answered %d", mail.id, code)
                return True
            logger.warning("mail %s is not sent yet: %s %s", mail.id, type(error).__name__, getattr(error, "code", ""))
            seconds = min(FIRST_RETRY_SECONDS * 2 ** min(mail.tries - 1, 10), LAST_RETRY_SECONDS)
            wait = timedelta(seconds=max(0, begun_at + seconds - time.monotonic()))
            await self._database.execute(_POSTPONE, mail_id=mail.id, taken=mail.tries, wait=wait)
            return False
        return True

    def _message(self, mail: Row, token: str) -> EmailMessage:
        page = "verify" if mail.purpose == "verify" else "reset-password"
        link = f"{self._public_url}/{page}#token={token}"
        message = EmailMessage(_POLICY)
        message["From"], message["To"] = self._from, _ascii(mail.address)
        message["Subject"] = SUBJECTS[mail.purpose]
        # The same for each attempt: if a reply is lost and the mail is sent twice, the duplicate can be recognized.
        message["Date"], message["Message-ID"] = format_datetime(mail.created_at), f"<{mail.id}@contacts-api>"
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834
        message.set_content(TEXTS[mail.purpose].format(link=link, address=mail.address))
        return message

    async def _hold(self, mail: Row) -> None:
        """Renew the lease of the mail until cancelled."""
        while True:
            await asyncio.sleep(HOLD_SECONDS)
            try:
                await self._database.execute(_POSTPONE, mail_id=mail.id, taken=mail.tries, wait=LEASE)
            except Exception as error:
                logger.warning("cannot say that mail %s is being sent: %s", mail.id, type(error).__name__)

    async def _end(self, mail: Row) -> None:
        """Mark a mail as done. Retries until this succeeds, because otherwise the mail would be sent again."""
        while True:
            try:
                await self._database.execute(_END, mail_id=mail.id)
                return
            except Exception as error:
                logger.warning("cannot note yet that mail %s is done with: %s", mail.id, type(error).__name__)
                await asyncio.sleep(POLL_SECONDS)


def _ascii(address: str) -> str:
    """Return the address with its domain in ASCII (RFC 5891). The part before the @ may contain other letters."""
    parts = read_address(address)
    return parts.ascii_email or f"{parts.local_part}@{parts.ascii_domain}"


def _final_code(error: Exception) -> int | None:
    """Return the reply code with which the server refused a mail permanently (RFC 5321, 4.2.1: 500 and above).

    Return None if a retry may help. An error that concerns the connection and not the mail is not final: the operator
    can fix a wrong password (535), for example.
    """
    match error:
        case aiosmtplib.SMTPRecipientsRefused():
            code = min(recipient.code for recipient in error.recipients)
        case aiosmtplib.SMTPSenderRefused() | aiosmtplib.SMTPDataError():
            code = error.code
        case _:
            return None
    return code if code >= 500 else None


MailQueue: TypeAlias = Annotated[Mails, from_state("mails")]
