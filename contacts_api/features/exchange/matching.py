"""SQL that matches the rows of an import to contacts, by UID or by identity.

The identity of a contact is computed by `columns_of`: the name plus the e-mail address, or the phone number if there is
no address, or the date of birth if there is neither. Contacts with a name but none of these three have the same
identity only if all their other fields are equal.

The rows are copied into a temporary table, `staged`, and matched in four steps:

1. Rows with the same UID form one person. A row without a UID is a person of its own. The identity of a person is that
   of its first row.
2. A person matches the stored contact whose id or UID equals the UID of one of its rows. Otherwise it matches a stored
   contact with the same identity as one of its rows. If several stored contacts share that identity, the first row
   with it matches the first contact, the second row the second contact, and so on: a re-imported export matches itself.
3. If several persons share an identity and one of them matched a stored contact, all of them match that contact.
4. The remaining persons are new. If several of them share an identity, the first one is created and the others are
   duplicates of it.

Matches are not transitive. If the rows of a person have two identities, because their names or addresses differ, step 3
and step 4 use only the identity of the first row. The worst result is a duplicate contact. Following both identities
could overwrite the contact of another person, and that would lose data.
"""

from sqlalchemy import text

from contacts_api.contacts.models import FIELDS, STORED

# `staged` holds the rows of the file, numbered from 0. `matched` holds the contact that each row matches.
BEGIN = (
    text("CREATE TEMPORARY TABLE staged (n integer PRIMARY KEY, LIKE contact INCLUDING DEFAULTS) ON COMMIT DROP"),
    text("CREATE TEMPORARY TABLE matched (n integer PRIMARY KEY, contact_id uuid, is_stored boolean) ON COMMIT DROP"),
)
# Without statistics on the new table, PostgreSQL would scan all contacts for each staged row.
ANALYZE_STAGED = text("ANALYZE staged")

# A contact has up to two UIDs: its own id, and the UID of the vCard it was imported from.
_KNOWN_UIDS = """
    SELECT id::text AS uid, id FROM contact WHERE owner_id = :owner_id
    UNION ALL SELECT uid, id FROM contact WHERE owner_id = :owner_id AND uid IS NOT NULL
"""
MATCH = text(
    f"""
    WITH stored AS MATERIALIZED (
        SELECT id, identity, row_number() OVER (PARTITION BY identity ORDER BY id) AS nth
        FROM contact JOIN (SELECT DISTINCT identity FROM staged) AS wanted USING (identity)
        WHERE owner_id = :owner_id
    ), uids AS (
        SELECT uid, (array_agg(id ORDER BY id))[1] AS id
        FROM ({_KNOWN_UIDS}) AS known JOIN (SELECT DISTINCT uid FROM staged) AS wanted USING (uid)
        -- PostgreSQL looks at this first, and spares itself the rest for a file without UIDs.
        WHERE (SELECT count(uid) FROM staged) > 0
        GROUP BY uid
    ), identities AS (
        SELECT identity, max(nth) AS last FROM stored GROUP BY identity
    ), numbered AS (
        SELECT n, id, uid, identity,
            row_number() OVER (PARTITION BY identity ORDER BY n) AS nth,
            CASE WHEN uid IS NULL THEN n ELSE min(n) OVER (PARTITION BY uid) END AS person
        FROM staged WHERE owner_id = :owner_id
    ), found AS (
        SELECT n, numbered.id, person, numbered.identity, coalesce(uids.id, twin.id) AS stored_id
        FROM numbered
        LEFT JOIN uids ON uids.uid = numbered.uid
        LEFT JOIN identities ON identities.identity = numbered.identity
        LEFT JOIN stored AS twin
            ON twin.identity = numbered.identity AND twin.nth = least(numbered.nth, identities.last)
    ), persons AS (
        SELECT person, (array_agg(id ORDER BY n))[1] AS id, (array_agg(identity ORDER BY n))[1] AS identity,
            (array_agg(stored_id ORDER BY n) FILTER (WHERE stored_id IS NOT NULL))[1] AS stored_id
        FROM found GROUP BY person
    ), leaders AS (
        SELECT identity, (array_agg(id ORDER BY person))[1] AS id,
            (array_agg(stored_id ORDER BY person) FILTER (WHERE stored_id IS NOT NULL))[1] AS stored_id
        FROM persons GROUP BY identity
    )
    INSERT INTO matched
    SELECT n, coalesce(persons.stored_id, leaders.stored_id, leaders.id),
        coalesce(persons.stored_id, leaders.stored_id) IS NOT NULL
    FROM found JOIN persons USING (person) JOIN leaders ON leaders.identity = persons.identity
    """  # nosec B608 (built from constants)
)

_NAMES = ("owner_id", "id", "uid", *STORED)
STAGED = ("n", *_NAMES)

CREATE_NEW = text(
    f"""
    INSERT INTO contact ({", ".join(_NAMES)})
    SELECT {", ".join(_NAMES)} FROM staged JOIN matched USING (n)
    WHERE owner_id = :owner_id AND id = contact_id AND NOT is_stored
    """  # nosec B608 (built from column names)
)
# For on_duplicate=create: every row becomes a new contact. UIDs must stay unique, so clear the UID of a row if an
# earlier row or a stored contact has it. These are joins because PostgreSQL would evaluate `uid IN (SELECT …) OR …` by
# scanning all contacts for each row, if they do not fit into work_mem.
SEPARATE = (
    text(
        """
        UPDATE staged SET uid = NULL
        FROM (SELECT uid, min(n) AS n FROM staged WHERE uid IS NOT NULL GROUP BY uid) AS first
        WHERE staged.owner_id = :owner_id AND staged.uid = first.uid AND staged.n > first.n
        """
    ),
    text(
        f"""
        UPDATE staged SET uid = NULL FROM ({_KNOWN_UIDS}) AS known
        WHERE staged.owner_id = :owner_id AND staged.uid = known.uid
        AND (SELECT count(uid) FROM staged) > 0
        """  # nosec B608 (built from constants)
    ),
)
CREATE_ALL = text(
    f"""
    INSERT INTO contact ({", ".join(_NAMES)})
    SELECT {", ".join(_NAMES)} FROM staged WHERE owner_id = :owner_id
    """  # nosec B608 (built from column names)
)

# A duplicate is a row that matches a stored contact or an earlier row. It is selected together with its contact, whose
# columns are null if it was deleted after matching.
_DUPLICATE = "staged.owner_id = :owner_id AND (is_stored OR staged.id <> contact_id)"
_COLUMNS = f"""
    n, contact_id, is_stored, {", ".join(f"contact.{name} AS {name}" for name in ("version", "uid", *FIELDS))},
    {", ".join(f"staged.{name} AS row_{name}" for name in ("uid", *FIELDS))}
"""
FIRST_DUPLICATES = text(
    f"""
    SELECT {_COLUMNS}
    FROM matched JOIN staged USING (n)
    LEFT JOIN contact ON contact.owner_id = :owner_id AND contact.id = contact_id
    WHERE {_DUPLICATE} ORDER BY n LIMIT :limit
    """  # nosec B608 (built from column names)
)


def _duplicates(condition: str = "true") -> str:
    # Join the contact to its first row only. A contact can have 64 KiB, and 200,000 rows can match the same one.
    return f"""
        SELECT is_first, {_COLUMNS}
        FROM (
            SELECT n, contact_id, is_stored, row_number() OVER (PARTITION BY contact_id ORDER BY n) = 1 AS is_first
            FROM matched JOIN staged USING (n) WHERE {_DUPLICATE} AND {condition}
        ) AS duplicate
        JOIN staged USING (n)
        LEFT JOIN contact ON is_first AND contact.owner_id = :owner_id AND contact.id = contact_id
        WHERE staged.owner_id = :owner_id ORDER BY contact_id, n
    """  # nosec B608 (built from column names)


DUPLICATES = text(_duplicates())
BEGIN_CHANGES = text("CREATE TEMPORARY TABLE changed (LIKE contact INCLUDING DEFAULTS) ON COMMIT DROP")
CHANGED = ("version", *_NAMES)
# Lock in the same order as LOCK_ALL and LOCK_LABELLED, to avoid deadlocks.
LOCK_CHANGED = text(
    """
    SELECT count(*) FROM (
        SELECT FROM contact JOIN changed USING (owner_id, id) WHERE owner_id = :owner_id
        ORDER BY id FOR UPDATE OF contact
    ) AS locked
    """
)
# Contacts that were edited or deleted between reading and locking.
_STALE = """
    SELECT changed.id FROM changed
    LEFT JOIN contact ON contact.owner_id = :owner_id AND contact.id = changed.id AND contact.version = changed.version
    WHERE contact.id IS NULL
"""
STALE = text(_STALE)
STALE_DUPLICATES = text(_duplicates(f"contact_id IN ({_STALE})"))
CHANGE = text(
    f"""
    UPDATE contact SET version = contact.version + 1, updated_at = :now,
        {", ".join(f"{name} = changed.{name}" for name in _NAMES[2:])}
    FROM changed
    WHERE contact.owner_id = :owner_id AND contact.id = changed.id AND contact.version = changed.version
    """  # nosec B608 (built from column names)
)
