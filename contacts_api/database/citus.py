"""Spreading the tables of owners over the nodes of a Citus cluster: once, by a command."""

from collections.abc import Iterator
from contextlib import closing

from contacts_api.database.connecting import connect_synchronously
from contacts_api.database.engine import owner_columns
from contacts_api.runtime import CommandError

_DONE = "SELECT logicalrelid::regclass::text FROM pg_dist_partition WHERE partmethod = 'h' OR repmodel = 't'"


def distribute(url: str, shards: int) -> Iterator[str]:
    """Copy the accounts to every node, and spread what belongs to them by owner. Yields each table when it is done.

    All that an owner has is on one node then, and every statement on it names the owner, so that it goes there. The
    tables that belong to no owner stay on the coordinator. What is done already is left alone. A table cannot be
    written to while its rows are moved. Raises CommandError.
    """
    users = "user"
    calls = {users: f"""create_reference_table('"{users}"')"""}
    first, *_ = owners = [(column.table.name, column.name) for column in owner_columns()]
    for table, column in owners:
        # What belongs to one owner is kept together: the others go where the shards of the first are.
        where = f"shard_count => {shards:d}" if (table, column) == first else f"""colocate_with => '"{first[0]}"'"""
        calls[table] = f"""create_distributed_table('"{table}"', '{column}', {where})"""
    with closing(connect_synchronously(url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_extension WHERE extname = 'citus'")
        if not cursor.fetchone():
            raise CommandError("This database has no Citus: see Growing in docs/operating.md.")
        cursor.execute(_DONE)
        done = {name.strip('"') for (name,) in cursor.fetchall()}
        for table in (table for table in calls if table not in done):
            cursor.execute("SET LOCAL statement_timeout = 0")
            cursor.execute(f"SELECT {calls[table]}")
            connection.commit()
            yield table
