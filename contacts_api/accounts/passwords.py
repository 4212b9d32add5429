"""Passwords: which are refused, and how they are hashed."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from fastapi_users.password import PasswordHelper
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from contacts_api.problems import Invalid
from contacts_api.waiting import Places

# A hash takes a core some 25 ms: who comes last into a full queue has a turn in time.
HASHES_WAITING = 64
HASHING_SECONDS = 4.0


class WeakPassword(Invalid):
    code, title = "weak_password", "The password is too easy to guess"
    loc = ("body", "password")


@cache
def common_passwords() -> frozenset[str]:
    lines = (Path(__file__).parent / "common_passwords.txt").read_text().splitlines()
    return frozenset(line for line in lines if not line.startswith("#"))


def refuse_weak(password: str, email: str) -> None:
    """Raise WeakPassword for what is guessed first (NIST SP 800-63B, 3.1.1.2)."""
    if password.casefold() in common_passwords():
        raise WeakPassword("This password is one of the 3,000 commonest.")
    if password.strip().casefold() == email.casefold():
        raise WeakPassword("The password must not be the e-mail address.")


class PasswordHasher:
    """Hashes passwords (argon2id, RFC 9106) in threads of its own, so that nothing else waits for it.

    Its parameters are among those that OWASP's ASVS 5 lists: 19 MiB, two passes, one lane.
    """

    def __init__(self, threads: int) -> None:
        argon2id = Argon2Hasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
        # Whoever checks a password holds a place from looking up the failures so far to counting
        # its own: of a thousand guesses at once, no more than there are places go uncounted.
        self.places = Places(threads, waiting=HASHES_WAITING * threads, seconds=HASHING_SECONDS)
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
