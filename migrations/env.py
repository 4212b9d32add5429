"""Runs the migrations: with the URL they are given, or that of DATABASE_URL."""

from alembic import context
from sqlalchemy import URL, NullPool, create_engine, text
from sqlmodel import SQLModel

import contacts_api.accounts.models
import contacts_api.contacts.models
import contacts_api.exchange.models  # noqa: F401  (they define the tables to compare with)
from contacts_api.database import psycopg2_url
from contacts_api.settings import Settings

# Any number will do, as long as nothing else in the database locks it.
LOCK = 7_265_420_318


def url_to_migrate() -> URL:
    url: URL | None = context.config.attributes.get("url")
    if url is not None:
        return url
    database_url = Settings().database_url
    if database_url is None:
        raise SystemExit("DATABASE_URL is not set.")
    return psycopg2_url(database_url.get_secret_value())


with create_engine(url_to_migrate(), poolclass=NullPool).connect() as connection:
    context.configure(connection=connection, target_metadata=SQLModel.metadata, compare_type=True)
    with context.begin_transaction():
        # Of several that migrate at once, the first does, and the others find it done.
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        context.run_migrations()
