"""The log of security events: one line for each event, from the logger `contacts_api.security`."""

import logging
from typing import Literal
from uuid import UUID

from contacts_api.http.middleware import describe_request

logger = logging.getLogger("contacts_api.security")

Event = Literal[
    "registered",
    "signed_in",
    "sign_in_refused",
    "refresh_token_reused",
    "signed_out",
    "sessions_ended",
    "password_changed",
    "password_reset",
    "address_changed",
    "address_verified",
    "key_made",
    "key_deleted",
    "account_activated",
    "account_deactivated",
    "account_deleted",
]


def log_event(event: Event, **ids: UUID | None) -> None:
    """Log an event with the given ids, the client's address and the id of the request.

    Call it after the commit. Pass ids only: addresses, passwords and tokens must not be logged.
    """
    members = {name: str(value) for name, value in ids.items() if value} | describe_request()
    text = " ".join([event, *(f"{name}={value}" for name, value in members.items())])
    logger.info("%s", text, extra={"members": {"event": event, **members}})
