"""Expired rows are deleted in batches, and a failure with one kind of row does not stop the others."""

import pytest
from fastapi import FastAPI

from contacts_api.accounts.cleanup import BITE_ROWS
from contacts_api.database.errors import DATABASE_ERRORS
from tests.client import Client
from tests.conftest import Execute

OLD = """
    INSERT INTO failed_attempt (key, failures, failed_at)
    SELECT uuid_send(gen_random_uuid()), 1, now() - interval '2 days' FROM generate_series(1, %s)
"""


async def test_a_backlog_with_equal_times_is_deleted_in_batches(app: FastAPI, ada: Client, execute: Execute) -> None:
    execute(OLD, 2 * BITE_ROWS + 1)

    await app.state.cleanup.sweep()

    assert execute("SELECT count(*) FROM failed_attempt") == [(0,)]


async def test_a_failing_sweep_does_not_stop_the_others(app: FastAPI, ada: Client, execute: Execute) -> None:
    execute(OLD, 3)
    execute("INSERT INTO ended_session VALUES (gen_random_uuid(), now() - interval '1 day')")
    execute("ALTER TABLE auth_session RENAME TO away")
    try:
        with pytest.raises(DATABASE_ERRORS):
            await app.state.cleanup.sweep()
    finally:
        execute("ALTER TABLE away RENAME TO auth_session")

    assert execute("SELECT (SELECT count(*) FROM failed_attempt), (SELECT count(*) FROM ended_session)") == [(0, 0)]


async def test_current_rows_are_kept(app: FastAPI, ada: Client, execute: Execute) -> None:
    execute("INSERT INTO failed_attempt (key, failures) VALUES ('a', 1)")
    execute("INSERT INTO ended_session VALUES (gen_random_uuid(), now())")

    await app.state.cleanup.sweep()

    counts = "SELECT (SELECT count(*) FROM failed_attempt), (SELECT count(*) FROM ended_session)"
    assert execute(f"{counts}, (SELECT count(*) FROM auth_session)") == [(1, 1, 1)]
