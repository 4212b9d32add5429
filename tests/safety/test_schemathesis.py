"""Schemathesis generates calls and sequences of calls from the OpenAPI document and runs all its checks."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import schemathesis
import uvicorn
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import Status, from_schema
from schemathesis.engine.events import FatalError, NonFatalError, ScenarioFinished

from contacts_api.app import create_app
from contacts_api.settings import Settings
from tests.client import A_PASSWORD
from tests.safety.document import document, operations

ENDING_THE_SESSION = ["logout", "end_session", "end_all_sessions", "update_me", "delete_me"]

# Input that is valid by its schema but is refused, because a schema cannot express the rule.
NOT_IN_THE_SCHEMA = {
    "list_contacts": "a cursor is one that we have given; q has at most eight words",
    "list_birthdays": "a cursor is one that we have given; tz is a zone of the IANA database, of which there are 600",
    "create_contact": "a date of birth is not after today; an address obeys RFC 5321",
    "create_contacts": "as create_contact",
    "update_contacts": "as create_contact; and no id is there twice",
    "import_contacts": "a file is CSV or vCards",
    "replace_contact": "as create_contact",
    "update_contact": "as create_contact",
    "create_key": "a key ends in the future",
    "reset_password": "a token is one that was mailed",
    "verify": "as reset_password",
    "register": "a password is none of the 3,000 commonest, nor the address; an address obeys RFC 5321",
    "update_me": "as register",
}
# With If-Match the answer may be a 412. The contract treats it like a 422, and allows it before the body is validated.
REFUSED = [400, 401, 403, 404, 405, 406, 409, 412, 413, 415, 422, 428, 429]
ACCEPTED = ["2xx", "3xx", 401, 403, 404, 409, 412, 429]


@pytest.fixture(scope="module")
def server(make_settings: Callable[..., Settings]) -> Iterator[str]:
    """The application on its own port, served as in production."""
    config = uvicorn.Config(
        create_app(make_settings(pool_size=4)), port=0, log_config=None, timeout_graceful_shutdown=10
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    (listening,) = server.servers[0].sockets
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join()


def sign_up(server: str, email: str) -> str:
    """Return the access token of a new account."""
    credentials = {"email": email, "password": A_PASSWORD}
    assert httpx.post(f"{server}/auth/register", json=credentials).status_code == 201
    return str(httpx.post(f"{server}/auth/login", json=credentials).json()["access_token"])


def run(server: str, token: str, names: list[str], **phases: Any) -> dict[str, set[str]]:
    """Run Schemathesis on the operations and return which were called in which phase."""
    config = SchemathesisConfig.from_dict(
        {
            "seed": 1,
            "suppress-health-check": ["too_slow", "data_too_large", "filter_too_much"],
            "base-url": server,
            "headers": {"Authorization": f"Bearer {token}"},
            "generation": {"deterministic": True, "max-examples": 8, "database": "none"},
            "phases": phases,
            "checks": {
                "negative_data_rejection": {"expected-statuses": REFUSED},
                "positive_data_acceptance": {"expected-statuses": ACCEPTED},
            },
            "operations": [
                {"include-operation-id": name, "checks": {"positive_data_acceptance": {"enabled": False}}}
                for name in NOT_IN_THE_SCHEMA
            ]
            + [
                {"include-operation-id": each.name, "enabled": False} for each in operations() if each.name not in names
            ],
        }
    )
    schema = schemathesis.openapi.from_dict(json.loads(json.dumps(document())), config=config)
    called: dict[str, set[str]] = {}
    faults = []
    for event in from_schema(schema).execute():
        if isinstance(event, FatalError | NonFatalError):
            faults.append(str(event))
        if isinstance(event, ScenarioFinished):
            called.setdefault(event.phase.value, set()).update(
                case.value.operation.definition.raw["operationId"] for case in event.recorder.cases.values()
            )
            faults += [
                f"{event.recorder.cases[case_id].value.as_curl_command()}\n{check.failure_info.failure}"
                for case_id, checks in event.recorder.checks.items()
                for check in checks
                if check.status == Status.FAILURE and check.failure_info
            ]
    assert not faults, "\n\n".join(faults)
    return called


def test_every_operation_conforms_to_the_document(server: str) -> None:
    names = [operation.name for operation in operations() if operation.name not in ENDING_THE_SESSION]

    # Run more sequences, so that one of them follows each link of a contact.
    called = run(
        server, sign_up(server, "schemathesis@example.com"), names, stateful={"generation": {"max-examples": 24}}
    )

    assert called["coverage"] == called["fuzzing"] == set(names)
    assert called["stateful"] >= {"get_contact", "replace_contact", "update_contact", "delete_contact"}


@pytest.mark.parametrize("name", ENDING_THE_SESSION)
def test_operations_that_end_the_session_conform_to_the_document(server: str, name: str) -> None:
    called = run(server, sign_up(server, f"{name}@example.com"), [name], stateful={"enabled": False})

    assert called["coverage"] == {name}


def test_each_exception_is_for_an_existing_operation() -> None:
    assert {*NOT_IN_THE_SCHEMA, *ENDING_THE_SESSION} <= {operation.name for operation in operations()}
