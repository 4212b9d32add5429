"""Distributes the tables over the nodes of a Citus cluster. Run once, by a command."""

from collections.abc import Iterator
from contextlib import closing

from contacts_api.database.connecting import connect_synchronously
from contacts_api.database.engine import owner_columns
from contacts_api.runtime import CommandError

_DONE = "SELECT logicalrelid::regclass::text FROM pg_dist_partition WHERE partmethod = 'h' OR repmodel = 't'"


def distribute(url: str, shards: int) -> Iterator[str]:
    """Copy the accounts to every node, and shard all tables with an owner by owner. Yields each table when it is done.

    All rows of an owner are then on one node. Every statement names the owner, so Citus routes it to that node. Tables
    without an owner stay on the coordinator. Tables that are already distributed are skipped. Writes to a table are
    blocked while its rows are moved. Raises CommandError if the database does not have the Citus extension.
    """
    users = "user"
    calls = {users: f"""create_reference_table('"{users}"')"""}
    first, *_ = owners = [(column.table.name, column.name) for column in owner_columns()]
    for table, column in owners:
        # Colocate the other tables with the first, so that all rows of an owner are on the same node.
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
