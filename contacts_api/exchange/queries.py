"""The statements of imports, exports and the calendar. Each on contacts names its owner."""

from sqlalchemy import LargeBinary, bindparam, delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from contacts_api.accounts.models import User
from contacts_api.contacts.models import ContactBase
from contacts_api.exchange.models import CalendarFeed, OnDuplicate

# All are put together from constants, which tools that look for injections cannot know.
# Those of an import are asyncpg's own, since they take longer than SQLAlchemy's dialect lets them.
IMPORT_SECONDS = 60
FIELDS = tuple(ContactBase.model_fields)
STAGED = ("n", "id", "uid", *FIELDS, "search_text", "sort_name")

BEGIN_IMPORT = f"""
    SET LOCAL statement_timeout = '{IMPORT_SECONDS}s';
    SET LOCAL idle_in_transaction_session_timeout = '{IMPORT_SECONDS}s';
    CREATE TEMPORARY TABLE stored (id uuid, uid text, identity text) ON COMMIT DROP;
    CREATE TEMPORARY TABLE staged (
        n integer PRIMARY KEY, id uuid, uid text, first_name text, last_name text, email text, phone_number text,
        date_of_birth date, additional_info text, search_text text, sort_name text COLLATE "C"
    ) ON COMMIT DROP;
    CREATE TEMPORARY TABLE matched (n integer, target uuid, leader integer) ON COMMIT DROP;
"""
# One at a time: two imports at once of the same file would not see each other's contacts.
LOCK_IMPORT = "SELECT pg_try_advisory_xact_lock(hashtextextended('import ' || $1::uuid, 0))"

# The folded name, with the e-mail address or else the number's digits.
_IDENTITY = r"""
    sort_name || E'\n'
    || coalesce(nullif(split_part(search_text, E'\n', 3), ''), split_part(search_text, E'\n', 5))
"""

# The contacts as they were, to find again what a file has of them.
REMEMBER = f"""
    INSERT INTO stored SELECT id, coalesce(uid, id::text), {_IDENTITY} FROM contact WHERE owner_id = $1
"""  # nosec B608
INDEX = """
    CREATE INDEX ON stored (uid);
    CREATE INDEX ON stored (identity);
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
    AND NOT EXISTS (SELECT FROM stored WHERE stored.identity = {_IDENTITY})
"""  # nosec B608
CREATE: dict[OnDuplicate, str] = {"create": _CREATE, "skip": _CREATE_NEW, "update": _CREATE_NEW}

ANALYZE = "ANALYZE staged"
# `target` is the stored contact that a row is, `leader` the first row of the file that is the same contact.
MATCH = f"""
    WITH by_uid AS (
        SELECT DISTINCT ON (uid) uid, id FROM stored ORDER BY uid, id
    ), by_identity AS (
        SELECT DISTINCT ON (identity) identity, id FROM stored ORDER BY identity, id
    ), found AS (
        SELECT n, uid, identity, coalesce(by_uid.id, by_identity.id) AS target
        FROM (SELECT n, uid, {_IDENTITY} AS identity FROM staged) AS staged
        LEFT JOIN by_uid USING (uid)
        LEFT JOIN by_identity USING (identity)
    )
    INSERT INTO matched SELECT n, target, least(
        min(n) OVER (PARTITION BY identity),
        CASE WHEN uid IS NULL THEN n ELSE min(n) OVER (PARTITION BY uid) END,
        CASE WHEN target IS NULL THEN n ELSE min(n) OVER (PARTITION BY target) END
    ) FROM found
"""  # nosec B608
# Until it finds no more: a row may be the same as its leader, which is the same as another before it.
FOLLOW = """
    UPDATE matched SET leader = first.leader FROM matched AS first
    WHERE first.n = matched.leader AND first.leader < matched.leader
"""

# The row that is taken of each contact: to be created the first one, or to update the last one.
_TAKEN: dict[OnDuplicate, str] = {"skip": "min", "update": "max"}
# Of several rows that are one contact, one is created; none, where another of them is a stored contact.
TAKE_BACK: dict[OnDuplicate, str] = {
    on_duplicate: f"""
        DELETE FROM contact USING staged JOIN matched USING (n)
        WHERE contact.owner_id = $1 AND contact.id = staged.id AND matched.target IS NULL
        AND n NOT IN (SELECT {taken}(n) FROM matched GROUP BY leader HAVING count(target) = 0)
    """  # nosec B608
    for on_duplicate, taken in _TAKEN.items()
}


def _update() -> str:
    """Return the statement that gives contacts what the file says; on what it does not say, they stay as they are."""
    new = {name: f"coalesce(staged.{name}, contact.{name})" for name in FIELDS}
    new["uid"] = "coalesce(contact.uid, staged.uid)"
    sources = ("first_name", "last_name", "email", "phone_number", "phone_number")
    lines = [
        rf"split_part(CASE WHEN staged.{name} IS NULL THEN contact.search_text ELSE staged.search_text END, E'\n', {n})"
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
        FROM staged JOIN (
            SELECT {_TAKEN["update"]}(n) AS n, (array_agg(target ORDER BY n) FILTER (WHERE target IS NOT NULL))[1]
            AS target FROM matched GROUP BY leader
        ) AS chosen ON chosen.n = staged.n
        WHERE contact.owner_id = $1 AND contact.id = chosen.target
        AND ({", ".join(f"contact.{name}" for name in new)}) IS DISTINCT FROM ({", ".join(new.values())})
    """  # nosec B608


UPDATE = _update()

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
