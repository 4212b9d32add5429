"""Which contact each row of a file is, found by PostgreSQL: by its UID, else by its identity (`columns_of`).

An identity is the name, and the e-mail address or else the number or else the date of birth. Where one of two has no
address, the numbers are compared, and where one has no number either, the dates: `ALIGN` gives such a row the identity
of the other. Two of one name of whom nothing of this is known are one person only if all else that is said of them is
the same.

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
    text(
        'CREATE TEMPORARY TABLE known (sort_name text COLLATE "C", has_email boolean, digits text, born integer, '
        "identity text, n integer) ON COMMIT DROP"
    ),
    text('CREATE TEMPORARY TABLE alike (sort_name text COLLATE "C" PRIMARY KEY) ON COMMIT DROP'),
    text("CREATE TEMPORARY TABLE matched (n integer PRIMARY KEY, contact_id uuid, is_stored boolean) ON COMMIT DROP"),
)
# PostgreSQL knows nothing yet of the staged rows, and would go through all contacts for each of them.
ANALYZE_STAGED = text("ANALYZE staged")

_SHARED = """
    sort_name, email IS NOT NULL, regexp_replace(coalesce(phone_number, ''), '[^0-9]', '', 'g'),
    date_of_birth - date '1900-01-01', identity
"""
# Names of which some contact or row has no e-mail address: only for these there is more to compare.
ALIKE_ROWS = text("INSERT INTO alike SELECT DISTINCT sort_name FROM staged WHERE email IS NULL")
ALIKE_STORED = text(
    """
    INSERT INTO alike SELECT DISTINCT sort_name
    FROM contact JOIN (SELECT DISTINCT sort_name FROM staged) AS wanted USING (sort_name)
    WHERE owner_id = :owner_id AND email IS NULL
    ON CONFLICT DO NOTHING
    """
)
# What tells contacts of these names apart: first those that are stored, then the rows of the file.
KNOW_STORED = text(
    f"""
    INSERT INTO known SELECT {_SHARED}, -1
    FROM contact JOIN alike USING (sort_name) WHERE owner_id = :owner_id
    """  # nosec B608 (of constants)
)
KNOW_ROWS = text(f"INSERT INTO known SELECT {_SHARED}, n FROM staged JOIN alike USING (sort_name)")  # nosec B608
ANALYZE_KNOWN = text("ANALYZE known")
ALIGN = text(
    """
    WITH keys AS (
        SELECT sort_name, has_email, digits <> '' AS has_digits, identity, n, 'number' AS kind, digits AS key
        FROM known WHERE digits <> ''
        UNION ALL SELECT sort_name, has_email, digits <> '', identity, n, 'date', born::text
        FROM known WHERE born IS NOT NULL
    ), firsts AS (
        SELECT DISTINCT ON (sort_name, kind, key, has_email, has_digits) * FROM keys
        ORDER BY sort_name, kind, key, has_email, has_digits, n
    ), identities AS (
        SELECT identity, min(n) AS n FROM known GROUP BY identity
    ), found AS (
        SELECT DISTINCT ON (keys.n) keys.identity AS own, firsts.identity
        FROM keys JOIN identities ON identities.identity = keys.identity AND identities.n = keys.n
        JOIN firsts ON firsts.sort_name = keys.sort_name AND firsts.kind = keys.kind AND firsts.key = keys.key
        WHERE keys.n >= 0 AND firsts.n < keys.n AND NOT (firsts.has_email AND keys.has_email)
        AND (keys.kind = 'number' OR NOT (firsts.has_digits AND keys.has_digits))
        ORDER BY keys.n, keys.kind DESC, firsts.n
    )
    UPDATE staged SET identity = found.identity FROM found WHERE staged.identity = found.own
    """
)
"""Give a row the identity of an earlier row, or of a stored contact, of the same name if

- they have the same number, and at least one of them has no e-mail address; or
- they have the same date of birth, and at least one has no address and at least one has no number.

Example: `Ann Lee, ann@example.com, 555 0101` and `Ann Lee, , 555 0101` are one person.
"""

MATCH = text(
    """
    WITH stored AS MATERIALIZED (
        SELECT id, identity, row_number() OVER (PARTITION BY identity ORDER BY id) AS nth
        FROM contact JOIN (SELECT DISTINCT identity FROM staged) AS wanted USING (identity)
        WHERE owner_id = :owner_id
    ), uids AS (
        SELECT uid, (array_agg(id ORDER BY id))[1] AS id
        FROM (
            SELECT id::text AS uid, id FROM contact WHERE owner_id = :owner_id
            UNION ALL SELECT uid, id FROM contact WHERE owner_id = :owner_id AND uid IS NOT NULL
        ) AS stored_uids JOIN (SELECT DISTINCT uid FROM staged) AS wanted USING (uid)
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
    """
)

_NAMES = ("owner_id", "id", "uid", *STORED)
STAGED, CHANGED = ("n", *_NAMES), _NAMES

CREATE_NEW = text(
    f"""
    INSERT INTO contact ({", ".join(_NAMES)})
    SELECT {", ".join(_NAMES)} FROM staged JOIN matched USING (n)
    WHERE owner_id = :owner_id AND id = contact_id AND NOT is_stored
    """  # nosec B608 (of names of columns)
)
# Copies are contacts of their own: of those with one UID, one keeps it.
SEPARATE = text(
    """
    UPDATE staged SET uid = NULL
    WHERE uid IN (SELECT id::text FROM contact WHERE owner_id = :owner_id)
    OR uid IN (SELECT uid FROM contact WHERE owner_id = :owner_id)
    OR n NOT IN (SELECT min(n) FROM staged GROUP BY uid)
    """
)
CREATE_ALL = text(
    f"""
    INSERT INTO contact ({", ".join(_NAMES)})
    SELECT {", ".join(_NAMES)} FROM staged WHERE owner_id = :owner_id
    """  # nosec B608 (of names of columns)
)

# What the rows say of contacts that are stored, or that the file has made of several rows.
_SAID = f"""
    SELECT n, contact_id, is_stored, {", ".join(f"contact.{name} AS {name}" for name in ("uid", *FIELDS))},
        {", ".join(f"staged.{name} AS said_{name}" for name in ("uid", *FIELDS))}
    FROM staged JOIN matched USING (n)
    JOIN contact ON contact.owner_id = :owner_id AND contact.id = matched.contact_id
    WHERE is_stored OR staged.id <> contact_id
"""  # nosec B608 (of names of columns)
SAID, FIRST_SAID = text(f"{_SAID} ORDER BY contact_id, n"), text(f"{_SAID} ORDER BY n LIMIT :limit")
BEGIN_CHANGES = text("CREATE TEMPORARY TABLE changed (LIKE contact INCLUDING DEFAULTS) ON COMMIT DROP")
CHANGE = text(
    f"""
    UPDATE contact SET version = contact.version + 1, updated_at = :now,
        {", ".join(f"{name} = changed.{name}" for name in _NAMES[2:])}
    FROM changed WHERE contact.owner_id = :owner_id AND contact.id = changed.id
    """  # nosec B608 (of names of columns)
)
