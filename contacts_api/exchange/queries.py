"""The statements of imports, exports and the calendar. Each on contacts names its owner."""

from sqlalchemy import LargeBinary, bindparam, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from contacts_api.accounts.models import User
from contacts_api.contacts.models import ContactBase
from contacts_api.database import table_of
from contacts_api.exchange.models import CalendarFeed, OnDuplicate, RunningImport
from contacts_api.exchange.records import IN_WORDS
from contacts_api.text import NOTE_CHARACTERS

# All are put together from constants, which tools that look for injections cannot know.
# Those of an import are asyncpg's own, since they take longer than SQLAlchemy's dialect lets them.
IMPORT_SECONDS = 60
FIELDS = tuple(ContactBase.model_fields)
STAGED = ("n", "id", "uid", *FIELDS, "search_text", "sort_name")

BEGIN_IMPORT = f"""
    SET LOCAL statement_timeout = '{IMPORT_SECONDS}s';
    SET LOCAL idle_in_transaction_session_timeout = '{IMPORT_SECONDS}s';
    CREATE TEMPORARY TABLE stored (id uuid, uid text, identity text, nth bigint) ON COMMIT DROP;
    CREATE TEMPORARY TABLE staged (
        n integer PRIMARY KEY, id uuid, uid text, first_name text, last_name text, email text, phone_number text,
        date_of_birth date, additional_info text, search_text text, sort_name text COLLATE "C"
    ) ON COMMIT DROP;
    CREATE TEMPORARY TABLE matched (n integer, target uuid, leader integer, is_new boolean) ON COMMIT DROP;
"""
# One at a time: two imports at once of the same file would not see each other's contacts.
LOCK_IMPORT = "SELECT pg_try_advisory_xact_lock(hashtextextended('import ' || $1::uuid, 0))"

# The folded name, with the e-mail address or else the number's digits.
_IDENTITY = r"""
    sort_name || E'\n'
    || coalesce(nullif(split_part(search_text, E'\n', 3), ''), split_part(search_text, E'\n', 5))
"""

# The contacts as they were, to find again what a file has of them: by their ids, by the UIDs that they came with, and
# by what tells people apart; `nth` counts those who have the same of it.
REMEMBER = f"""
    INSERT INTO stored
    SELECT id, id::text, identity, row_number() OVER (PARTITION BY identity ORDER BY id)
    FROM (SELECT id, {_IDENTITY} AS identity FROM contact WHERE owner_id = $1) AS owned
    UNION ALL SELECT id, uid, NULL, NULL FROM contact WHERE owner_id = $1 AND uid IS NOT NULL
"""  # nosec B608
INDEX = """
    CREATE INDEX ON stored (uid);
    CREATE UNIQUE INDEX ON stored (identity) WHERE nth = 1;
    ANALYZE stored;
"""

_CREATE = f"""
    INSERT INTO contact (owner_id, {", ".join(STAGED[1:])})
    SELECT $1, {", ".join(STAGED[1:])} FROM staged WHERE n BETWEEN $2 AND $3
"""  # nosec B608
# While the next rows are read: those that are none of the stored contacts.
_CREATE_NEW = f"""
    {_CREATE}
    AND NOT EXISTS (SELECT FROM stored WHERE stored.uid = staged.uid)
    AND NOT EXISTS (SELECT FROM stored WHERE stored.identity = {_IDENTITY} AND nth = 1)
"""  # nosec B608
CREATE: dict[OnDuplicate, str] = {"create": _CREATE, "skip": _CREATE_NEW, "update": _CREATE_NEW}

# PostgreSQL knows nothing yet of the contacts that were just created, and would go through all of them for each row.
ANALYZE = "ANALYZE staged (n, id, uid); SET LOCAL enable_nestloop = off"
# `target` is the stored contact that a row is, `leader` the first row of the file that is the same contact, and a row
# `is_new` that was none of the stored contacts by itself, so that it has been created.
# Where several stored contacts have one identity, as in an export, the rows that have it are these in turn.
MATCH = f"""
    WITH by_uid AS (
        SELECT DISTINCT ON (uid) uid, id FROM stored ORDER BY uid, id
    ), identities AS (
        SELECT identity, max(nth) AS last FROM stored GROUP BY identity
    ), numbered AS (
        SELECT n, uid, identity, row_number() OVER same AS nth, first_value(n) OVER same AS first_of_identity
        FROM (SELECT n, uid, {_IDENTITY} AS identity FROM staged) AS staged
        WINDOW same AS (PARTITION BY identity ORDER BY n)
    ), found AS (
        SELECT n, numbered.uid, first_of_identity, coalesce(by_uid.id, by_identity.id) AS target
        FROM numbered
        LEFT JOIN by_uid USING (uid)
        LEFT JOIN identities ON identities.identity = numbered.identity
        LEFT JOIN stored AS by_identity
            ON by_identity.identity = numbered.identity AND by_identity.nth = least(numbered.nth, identities.last)
    ), agreed AS (
        SELECT n, first_of_identity,
            CASE WHEN uid IS NULL THEN target ELSE first_value(target) OVER same END AS target,
            CASE WHEN uid IS NULL THEN n ELSE min(n) OVER (PARTITION BY uid) END AS first_of_uid,
            target IS NULL AS is_new
        FROM found
        WINDOW same AS (PARTITION BY uid ORDER BY target IS NULL, n)
    )
    INSERT INTO matched SELECT n, target, least(
        first_of_identity, first_of_uid, CASE WHEN target IS NULL THEN n ELSE min(n) OVER (PARTITION BY target) END
    ), is_new FROM agreed
"""  # nosec B608
# Until it finds no more: a row may be the same as its leader, which is the same as another before it.
FOLLOW = """
    UPDATE matched SET leader = first.leader FROM matched AS first
    WHERE first.n = matched.leader AND first.leader < matched.leader AND matched.leader < matched.n
"""
# A row may be a stored contact only by another row that is the same.
ADOPT = """
    UPDATE matched SET target = first.target
    FROM (SELECT DISTINCT ON (leader) leader, target FROM matched WHERE target IS NOT NULL ORDER BY leader, n) AS first
    WHERE matched.target IS NULL AND matched.leader = first.leader
"""

# Of several rows that are one new contact, one stays: the first one, or the last one, which the others then fill up.
_STAYS: dict[OnDuplicate, str] = {"skip": "n = leader", "update": "n IN (SELECT max(n) FROM matched GROUP BY leader)"}
TAKE_BACK: dict[OnDuplicate, str] = {
    on_duplicate: f"""
        DELETE FROM contact USING staged JOIN matched USING (n)
        WHERE contact.owner_id = $1 AND contact.id = staged.id AND is_new AND NOT (target IS NULL AND {stays})
    """  # nosec B608
    for on_duplicate, stays in _STAYS.items()
}
# Copies are contacts of their own: of those with one UID, one keeps it.
SEPARATE = """
    UPDATE contact SET uid = NULL FROM staged
    WHERE contact.owner_id = $1 AND contact.id = staged.id AND staged.uid IS NOT NULL AND staged.n NOT IN (
        SELECT min(n) FROM staged AS new
        WHERE uid IS NOT NULL AND NOT EXISTS (SELECT FROM stored WHERE stored.uid = new.uid) GROUP BY uid
    )
"""


def _update() -> str:
    """Return the statement that gives contacts what the file says; on what it does not say, they stay as they are.

    Of several rows that are one contact, the last one counts that says something. The second parameter says which
    contacts: those that were stored (false), or those that the file has made of several rows (true).
    """
    sources = ("first_name", "last_name", "email", "phone_number", "phone_number")
    said = [(name, f"staged.{name}", name) for name in ("uid", *FIELDS)]
    said += [(name, rf"split_part(search_text, E'\n', {n})", f"line_{n}") for n, name in enumerate(sources, 1)]
    lasts = [
        f"(array_agg({value} ORDER BY n DESC) FILTER (WHERE staged.{name} IS NOT NULL))[1] AS {alias}"
        for name, value, alias in said
    ]
    new = {name: f"coalesce(said.{name}, contact.{name})" for name in FIELDS}
    new["uid"] = "coalesce(contact.uid, nullif(said.uid, contact.id::text))"
    # A birthday in words is no note: it takes the place of none.
    new["additional_info"] = rf"""CASE
        WHEN said.additional_info NOT LIKE '{IN_WORDS}%' OR said.additional_info LIKE E'%\n%' THEN said.additional_info
        WHEN said.additional_info IS NULL OR contact.date_of_birth IS NOT NULL
            OR strpos(contact.additional_info, said.additional_info) > 0 THEN contact.additional_info
        ELSE left(concat_ws(E'\n', contact.additional_info, said.additional_info), {NOTE_CHARACTERS})
    END"""
    lines = [
        rf"CASE WHEN said.{name} IS NULL THEN split_part(contact.search_text, E'\n', {n}) ELSE said.line_{n} END"
        for n, name in enumerate(sources, 1)
    ]
    changes = new | {
        "search_text": rf"concat_ws(E'\n', {', '.join(lines)})",
        "sort_name": rf"left(concat_ws(E'\n', {lines[1]}, {lines[0]}), 500)",
        "version": "version + 1",
        "updated_at": "clock_timestamp()",
    }
    return f"""
        UPDATE contact SET {", ".join(f"{name} = {value}" for name, value in changes.items())}
        FROM (
            SELECT coalesce(target, (array_agg(staged.id ORDER BY n DESC))[1]) AS id, {", ".join(lasts)}
            FROM staged JOIN matched USING (n)
            WHERE (target IS NULL) = $2
            GROUP BY target, CASE WHEN target IS NULL THEN leader END
            HAVING count(*) > 1 OR NOT $2
        ) AS said
        WHERE contact.owner_id = $1 AND contact.id = said.id
        AND ({", ".join(f"contact.{name}" for name in new)}) IS DISTINCT FROM ({", ".join(new.values())})
    """  # nosec B608


UPDATE = _update()

_RUNNING = table_of(RunningImport)
_THIS_IMPORT = (_RUNNING.c.owner_id == bindparam("owner_id"), _RUNNING.c.id == bindparam("import_id"))
_NOW = bindparam("now", type_=_RUNNING.c.alive_at.type)
CLAIM_IMPORT = (
    insert(_RUNNING)
    .values(owner_id=bindparam("owner_id"), id=bindparam("import_id"), alive_at=_NOW)
    .on_conflict_do_update(
        index_elements=["owner_id"],
        set_={"id": bindparam("import_id"), "alive_at": _NOW},
        where=_RUNNING.c.alive_at < bindparam("dead_since", type_=_RUNNING.c.alive_at.type),
    )
    .returning(_RUNNING.c.id)
)
"""Begin the one import of an owner. Returns no row where one is running."""
KEEP_IMPORT = update(_RUNNING).where(*_THIS_IMPORT).values(alive_at=_NOW)
END_IMPORT = delete(_RUNNING).where(*_THIS_IMPORT)

_KEY_HASH = bindparam("key_hash", type_=LargeBinary)
_FEED_OWNER = col(CalendarFeed.owner_id) == bindparam("owner_id")

_NEW_FEED = insert(CalendarFeed).values({name: bindparam(name) for name in ("owner_id", "key_hash")})
OPEN_FEED = _NEW_FEED.on_conflict_do_update(
    index_elements=["owner_id"], set_={"key_hash": _NEW_FEED.excluded.key_hash, "created_at": func.now()}
)
CLOSE_FEED = delete(CalendarFeed).where(_FEED_OWNER)
# Whoever cannot sign in has no calendar either.
FIND_FEED = (
    select(col(CalendarFeed.owner_id))
    .join(User, col(User.id) == col(CalendarFeed.owner_id))
    .where(_FEED_OWNER, col(CalendarFeed.key_hash) == _KEY_HASH, col(User.is_active))
)
