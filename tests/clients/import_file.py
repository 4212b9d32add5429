"""Uses the client that openapi-python-client generates: signs in, imports a file and handles an error."""

import sys
from io import BytesIO

from contacts_client import AuthenticatedClient, Client
from contacts_client.api.contacts import create_contact
from contacts_client.api.files import import_contacts
from contacts_client.api.start_here import login
from contacts_client.models import (
    BodyImportContacts,
    ContactCreate,
    Credentials,
    ImportReport,
    ProblemDetails,
    TokenPair,
)
from contacts_client.types import File


def main(server: str, email: str, password: str) -> None:
    """Import a file, and try to create an invalid contact."""
    tokens = login.sync(client=Client(server), body=Credentials(email=email, password=password))
    assert isinstance(tokens, TokenPair)
    client = AuthenticatedClient(server, token=tokens.access_token)

    file = File(BytesIO(b"first_name,last_name\r\nDorothy,Vaughan\r\n"), "contacts.csv", "text/csv")
    report = import_contacts.sync(client=client, body=BodyImportContacts(file=file))
    assert isinstance(report, ImportReport)
    print(report.created, report.failed)

    nobody = ContactCreate(first_name="", last_name=None, email=None, phone_number=None, date_of_birth=None)
    refused = create_contact.sync(client=client, body=nobody)
    assert isinstance(refused, ProblemDetails)
    print(refused.code, [(error.loc, error.code) for error in refused.errors or ()])


if __name__ == "__main__":
    main(*sys.argv[1:])
