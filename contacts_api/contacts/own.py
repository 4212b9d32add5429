"""The contact in the path of a request, for the routes of all features. It must belong to the owner."""

from typing import Annotated, TypeAlias
from uuid import UUID

from fastapi import Depends

from contacts_api.accounts.strategy import Owner
from contacts_api.contacts import queries
from contacts_api.contacts.models import ContactId
from contacts_api.database.engine import Autocommit
from contacts_api.problems import NotFound, Problem


class ContactNotFound(NotFound):
    """You have no contact with this id. The response is the same if it belongs to another account."""

    advice = "List your contacts to find it. It may have been deleted."
    code, title = "contact_not_found", "Contact not found"


class PreconditionFailed(Problem):
    """The ETag of the contact does not match If-Match, or the contact already exists in spite of `If-None-Match: *`."""

    advice = (
        "Read the contact, make your change to what it is now, and send it with the new ETag, quotes included. "
        "With `If-None-Match: *`: it was created before, perhaps by the same call."
    )
    detail = "The contact is not, or no longer, what the header says. An ETag is sent with its quotes."
    status, code, title = 412, "precondition_failed", "The contact has changed since you read it"


async def get_own_contact_id(contact_id: ContactId, owner: Owner, database: Autocommit) -> UUID:
    if not await database.read(queries.EXISTS, owner_id=owner.user_id, contact_id=contact_id):
        raise ContactNotFound
    return contact_id


OwnContactId: TypeAlias = Annotated[UUID, Depends(get_own_contact_id)]
"""The id of the contact in the path. Raises ContactNotFound unless it belongs to the owner."""
