"""Print the median times of failed sign-ins, by their cause; exit with 1 if they differ by more than 10 %.

python -m tests.safety.timing http://127.0.0.1:8000 postgresql://…/contacts
"""

import statistics
import sys
import time
from contextlib import closing
from uuid import uuid4

import httpx
import psycopg2

from tests.client import A_PASSWORD

ROUNDS = 8  # an account waits after ten failures
ACCOUNTS = 10


def main(url: str, database_url: str) -> None:
    times: dict[str, list[float]] = {"unknown e-mail": [], "wrong password": [], "deactivated user": []}
    with httpx.Client(base_url=url) as client, closing(psycopg2.connect(database_url)) as connection, connection:
        for _ in range(ACCOUNTS):
            emails = {cause: f"{uuid4().hex}@example.com" for cause in times}
            for cause in "wrong password", "deactivated user":
                client.post("/auth/register", json={"email": emails[cause], "password": A_PASSWORD}).raise_for_status()
            off = 'UPDATE "user" SET is_active = false WHERE email = %s'
            connection.cursor().execute(off, [emails["deactivated user"]])
            connection.commit()
            for _ in range(ROUNDS):
                for cause, email in emails.items():
                    password = A_PASSWORD if cause == "deactivated user" else "wrong horse"
                    began_at = time.perf_counter()
                    answer = client.post("/auth/login", json={"email": email, "password": password})
                    times[cause].append(time.perf_counter() - began_at)
                    assert answer.status_code == 401
    medians = {cause: statistics.median(measured) * 1000 for cause, measured in times.items()}
    for cause, median in medians.items():
        print(f"{cause:17} {median:7.1f} ms")
    sys.exit(max(medians.values()) > 1.1 * min(medians.values()))


if __name__ == "__main__":
    main(*sys.argv[1:])
