"""The SQL statements of calendars. Each is limited to one owner."""

from sqlalchemy import LargeBinary, bindparam, delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from contacts_api.accounts.models import User
from contacts_api.contacts.models import Contact
from contacts_api.database.engine import table_of
from contacts_api.features.feed.models import CalendarFeed
from contacts_api.http.paging import Listing

_contact, _feed = table_of(Contact).c, table_of(CalendarFeed).c
_BORN = (_contact.owner_id == bindparam("owner_id"), _contact.birthday.is_not(None))
_FEED_OF_OWNER = _feed.owner_id == bindparam("owner_id")

BIRTHDAYS = Listing(
    select(
        *(_contact[name] for name in ("id", "first_name", "last_name", "date_of_birth", "birthday", "updated_at"))
    ).where(*_BORN),
    _contact.id,
)
# Every change of a calendar changes at least one of these columns.
STATE = select(
    func.count().label("count"),
    func.coalesce(func.sum(_contact.version), 0).label("versions"),
    func.max(_contact.updated_at).label("updated_at"),
).where(*_BORN)

_NEW_FEED = insert(table_of(CalendarFeed))
OPEN_FEED = _NEW_FEED.on_conflict_do_update(
    index_elements=["owner_id"],
    set_={name: _NEW_FEED.excluded[name] for name in ("key_hash", "created_at")},
)
CLOSE_FEED = delete(CalendarFeed).where(_FEED_OF_OWNER)
# Inactive users cannot sign in, so they have no calendar either.
FIND_FEED = (
    select(_feed.owner_id)
    .join(User, col(User.id) == _feed.owner_id)
    .where(_FEED_OF_OWNER, _feed.key_hash == bindparam("key_hash", type_=LargeBinary), col(User.is_active))
)
