"""Passwords: refusing weak ones, and hashing."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path

from fastapi_users.password import PasswordHelper
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from contacts_api.accounts.models import compose
from contacts_api.database.waiting import Places
from contacts_api.problems import Invalid

# The length of the queue, for each thread. A hash takes about 25 ms of a core, so the last one in a full queue still
# meets the deadline.
HASHES_WAITING = 64
HASHING_SECONDS = 4.0


class WeakPassword(Invalid):
    """The password is one of the most common ones, or is the e-mail address."""

    advice = "Take another one: three or four words that do not belong together are easy to remember."
    code, title = "weak_password", "The password is too easy to guess"
    loc = ("body", "password")


@cache
def common_passwords() -> frozenset[str]:
    lines = (Path(__file__).parent / "common_passwords.txt").read_text().splitlines()
    return frozenset(line for line in lines if not line.startswith("#"))


def refuse_weak(password: str, email: str) -> None:
    """Raise WeakPassword for a common password or the e-mail address (NIST SP 800-63B, 3.1.1.2)."""
    if password.casefold() in common_passwords():
        raise WeakPassword("This password is one of the 3,000 commonest.")
    if password.strip().casefold() == email.casefold():
        raise WeakPassword("The password must not be the e-mail address.")


def _give_way() -> None:
    """Let the event loop take precedence over this thread when they share a core (on Linux).

    A hash evicts the CPU caches. Without this, reads get less than half of a core while sign-ins use the other half.
    """
    if hasattr(os, "SCHED_BATCH"):
        # A sandbox may forbid this. Sign-ins also work without it.
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


class PasswordHasher:
    """Hashes passwords (argon2id, RFC 9106) in its own threads, so that nothing else waits for it.

    The parameters are 19 MiB, two passes and one lane, one of the sets that OWASP ASVS 5 lists.
    """

    def __init__(self, threads: int) -> None:
        argon2id = Argon2Hasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
        # A password check holds its place from reading the failure count until it has counted its own failure. Among a
        # thousand concurrent guesses, at most one for each place starts before earlier failures are counted.
        self.places = Places(threads, max_waiting=HASHES_WAITING * threads, max_seconds=HASHING_SECONDS)
        self._helper = PasswordHelper(PasswordHash((argon2id,)))
        self._threads = ThreadPoolExecutor(threads, "hashing", _give_way)
        self._nobodys = self._helper.hash(self._helper.generate())

    async def hash(self, password: str) -> str:
        """Return the hash of the NFC form of a password."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._helper.hash, compose(password))

    async def verify(self, password: str, hashed_password: str | None) -> tuple[bool, str | None]:
        """Return True if the password is right, and a new hash if the stored one is weak or not of the NFC form.

        Without a hash, this takes the same time, so that the timing does not reveal which accounts exist.
        """
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, self._verify, password, hashed_password or self._nobodys
        )

    def _verify(self, password: str, hashed_password: str) -> tuple[bool, str | None]:
        composed = compose(password)
        is_right, upgraded = self._helper.verify_and_update(composed, hashed_password)
        if is_right or composed == password:
            return is_right, upgraded
        # Earlier releases hashed the password without normalizing it.
        is_right, _ = self._helper.verify_and_update(password, hashed_password)
        return is_right, self._helper.hash(composed) if is_right else None
