"""Which contact each row of a file is, found by PostgreSQL: by its UID, else by its identity (`columns_of`).

An identity is the name, and the e-mail address or else the number or else the date of birth. Two of one name that have
none of these are one person only if all their other fields are the same.

The rows of a file are staged, and compared with the contacts that are stored and with the rows before them:

1. Rows with the same UID are one person. A row without a UID is a person by itself. A person has the identity of the
   first of its rows.
2. A person is the stored contact whose id or UID one of its rows has, else one with the identity of one of its rows.
   Where several stored contacts have one identity, as in an export, the rows that have it are these in turn.
3. If several persons have one identity, and one of them is a stored contact, all of them are that contact.
4. What is left is new. Of new persons with the same identity, the first one is created, and the others are that one.

Sameness is not followed any further: where a person has two identities, since two of its rows say different names or
addresses, only the first of them leads to other persons. Nothing is lost by that: at worst there are two contacts,
where one that was taken for another person would be overwritten.
"""

from sqlalchemy import text

from contacts_api.contacts.models import FIELDS, STORED

# What is known of a row beside the columns of a contact: its number, and the contact that it is.
BEGIN = (
    text("CREATE TEMPORARY TABLE staged (n integer PRIMARY KEY, LIKE contact INCLUDING DEFAULTS) ON COMMIT DROP"),
    text("CREATE TEMPORARY TABLE matched (n integer PRIMARY KEY, contact_id uuid, is_stored boolean) ON COMMIT DROP"),
)
# PostgreSQL knows nothing yet of the staged rows, and would go through all contacts for each of them.
ANALYZE_STAGED = text("ANALYZE staged")

# The UIDs by which a contact is known: its own id, and the UID of the card that it came from.
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
    """  # nosec B608 (of constants)
)

_NAMES = ("owner_id", "id", "uid", *STORED)
STAGED = ("n", *_NAMES)

CREATE_NEW = text(
    f"""
    INSERT INTO contact ({", ".join(_NAMES)})
    SELECT {", ".join(_NAMES)} FROM staged JOIN matched USING (n)
    WHERE owner_id = :owner_id AND id = contact_id AND NOT is_stored
    """  # nosec B608 (of names of columns)
)
# Each row becomes a contact of its own. A UID stays with the stored contact that has it, or else with its first row.
# Joins, since PostgreSQL reads all contacts again for each row of `uid IN (SELECT …) OR …` where they exceed work_mem.
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
        """  # nosec B608 (of constants)
    ),
)
CREATE_ALL = text(
    f"""
    INSERT INTO contact ({", ".join(_NAMES)})
    SELECT {", ".join(_NAMES)} FROM staged WHERE owner_id = :owner_id
    """  # nosec B608 (of names of columns)
)

# A row that is a stored contact, or a contact that an earlier row creates; and that contact. Its columns are null if it
# has been deleted since it was matched.
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
    """  # nosec B608 (of names of columns)
)


def _duplicates(condition: str = "true") -> str:
    # Only the first row of a contact comes with its columns: they may have 64 KiB, and the file 200,000 rows of it.
    return f"""
        SELECT is_first, {_COLUMNS}
        FROM (
            SELECT n, contact_id, is_stored, row_number() OVER (PARTITION BY contact_id ORDER BY n) = 1 AS is_first
            FROM matched JOIN staged USING (n) WHERE {_DUPLICATE} AND {condition}
        ) AS duplicate
        JOIN staged USING (n)
        LEFT JOIN contact ON is_first AND contact.owner_id = :owner_id AND contact.id = contact_id
        WHERE staged.owner_id = :owner_id ORDER BY contact_id, n
    """  # nosec B608 (of names of columns)


DUPLICATES = text(_duplicates())
BEGIN_CHANGES = text("CREATE TEMPORARY TABLE changed (LIKE contact INCLUDING DEFAULTS) ON COMMIT DROP")
CHANGED = ("version", *_NAMES)
# In the order of LOCK_ALL and LOCK_LABELLED, so that neither waits for the other.
LOCK_CHANGED = text(
    """
    SELECT count(*) FROM (
        SELECT FROM contact JOIN changed USING (owner_id, id) WHERE owner_id = :owner_id
        ORDER BY id FOR UPDATE OF contact
    ) AS locked
    """
)
# Contacts that were edited or deleted after they were read, and before they were locked.
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
    """  # nosec B608 (of names of columns)
)
