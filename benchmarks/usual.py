"""The usual build, as in the tutorials: FastAPI, a SQLModel session for each request, fastapi-users."""

import os
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException
from fastapi_users import BaseUserManager, FastAPIUsers, UUIDIDMixin
from fastapi_users.authentication import AuthenticationBackend, BearerTransport, JWTStrategy
from fastapi_users_db_sqlalchemy import SQLAlchemyUserDatabase
from pydantic import EmailStr, Json, field_validator
from sqlalchemy import URL, DateTime, make_url
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlmodel import Field, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession


def asyncpg_url(url: str) -> URL:
    return make_url(url).set(drivername="postgresql+asyncpg")


def utc_now() -> datetime:
    return datetime.now(UTC)


engine = create_async_engine(asyncpg_url(os.environ["DATABASE_URL"]), pool_size=10)
make_session = async_sessionmaker(engine, class_=AsyncSession, expire_on_commit=False)


class User(SQLModel, table=True):
    id: uuid.UUID = Field(default_factory=uuid.uuid4, primary_key=True)
    email: str = Field(unique=True)
    hashed_password: str
    is_active: bool = True
    is_superuser: bool = False
    is_verified: bool = False


class ContactCreate(SQLModel):
    first_name: str = Field(min_length=1, max_length=100)
    last_name: str = Field(min_length=1, max_length=100)
    email: EmailStr
    phone_number: str = Field(min_length=3, max_length=32)
    date_of_birth: date
    additional_info: str | None = Field(default=None, max_length=2000)


class ContactUpdate(SQLModel):
    first_name: str | None = Field(default=None, min_length=1, max_length=100)
    last_name: str | None = Field(default=None, min_length=1, max_length=100)
    email: EmailStr | None = None
    phone_number: str | None = Field(default=None, min_length=3, max_length=32)
    date_of_birth: date | None = None
    additional_info: str | None = Field(default=None, max_length=2000)


class Contact(ContactCreate, table=True):
    owner_id: uuid.UUID = Field(foreign_key="user.id", primary_key=True)
    id: uuid.UUID = Field(default_factory=uuid.uuid4, primary_key=True)
    created_at: datetime = Field(default_factory=utc_now, sa_type=DateTime(timezone=True))
    updated_at: datetime = Field(default_factory=utc_now, sa_type=DateTime(timezone=True))
    birthday: int
    labels: str = "[]"
    details: str = "[]"
    search_text: str = ""
    sort_name: str = ""


class Detail(SQLModel):
    kind: str
    label: str | None
    value: str


class ContactPublic(ContactCreate):
    id: uuid.UUID
    birthday: str
    labels: Json[list[str]]
    details: Json[list[Detail]]
    created_at: datetime
    updated_at: datetime

    @field_validator("birthday", mode="before")
    @classmethod
    def month_and_day(cls, number: int) -> str:
        return f"{number // 100:02}-{number % 100:02}"


class ContactList(SQLModel):
    items: list[ContactPublic]


class Birthday(SQLModel):
    contact: ContactPublic
    birthday_on: date
    days_until: int
    turns: int


class BirthdayList(SQLModel):
    items: list[Birthday]


class UserManager(UUIDIDMixin, BaseUserManager[User, uuid.UUID]):
    pass


async def get_session() -> AsyncIterator[AsyncSession]:
    async with make_session() as session:
        yield session


Session = Annotated[AsyncSession, Depends(get_session)]


async def get_user_manager(session: Session) -> AsyncIterator[UserManager]:
    yield UserManager(SQLAlchemyUserDatabase(session, User))


def get_strategy() -> JWTStrategy[User, uuid.UUID]:
    return JWTStrategy(os.environ["JWT_SECRET"], lifetime_seconds=3600, token_audience=["contacts:access"])


backend = AuthenticationBackend(name="jwt", transport=BearerTransport(tokenUrl="auth/login"), get_strategy=get_strategy)
users = FastAPIUsers[User, uuid.UUID](get_user_manager, [backend])
CurrentUser = Annotated[User, Depends(users.current_user(active=True))]

app = FastAPI()


@app.get("/contacts", response_model=ContactList)
async def list_contacts(user: CurrentUser, session: Session, q: str | None = None) -> dict[str, object]:
    statement = select(Contact).where(Contact.owner_id == user.id)
    if q is not None:
        statement = statement.where(col(Contact.search_text).ilike(f"%{q}%"))
    found = await session.exec(statement.order_by(col(Contact.sort_name), col(Contact.id)).limit(50))
    return {"items": found.all()}


@app.get("/contacts/birthdays", response_model=BirthdayList)
async def list_birthdays(user: CurrentUser, session: Session, days: int = 7) -> dict[str, object]:
    today = datetime.now(UTC).date()
    upcoming = {day.month * 100 + day.day: day for day in (today + timedelta(days=n) for n in range(days + 1))}
    found = await session.exec(select(Contact).where(Contact.owner_id == user.id, col(Contact.birthday).in_(upcoming)))
    items: list[dict[str, Any]] = []
    for contact in found.all():
        day = upcoming[contact.birthday]
        turns = day.year - contact.date_of_birth.year
        items.append({"contact": contact, "birthday_on": day, "days_until": (day - today).days, "turns": turns})
    return {"items": sorted(items, key=lambda item: item["birthday_on"])}


async def get_own_contact(contact_id: uuid.UUID, user: CurrentUser, session: Session) -> Contact:
    contact = (await session.exec(select(Contact).where(Contact.owner_id == user.id, Contact.id == contact_id))).first()
    if contact is None:
        raise HTTPException(404)
    return contact


OwnContact = Annotated[Contact, Depends(get_own_contact)]


@app.get("/contacts/{contact_id}", response_model=ContactPublic)
async def get_contact(contact: OwnContact) -> Contact:
    return contact


@app.patch("/contacts/{contact_id}", response_model=ContactPublic)
async def update_contact(patch: ContactUpdate, contact: OwnContact, session: Session) -> Contact:
    contact.sqlmodel_update(patch.model_dump(exclude_unset=True), update={"updated_at": utc_now()})
    session.add(contact)
    await session.commit()
    await session.refresh(contact)
    return contact


@app.delete("/contacts/{contact_id}", status_code=204)
async def delete_contact(contact: OwnContact, session: Session) -> None:
    await session.delete(contact)
    await session.commit()


@app.post("/contacts", status_code=201, response_model=ContactPublic)
async def create_contact(new: ContactCreate, user: CurrentUser, session: Session) -> Contact:
    searched = (new.first_name, new.last_name, new.email, new.phone_number)
    born = new.date_of_birth
    derived = {
        "birthday": born.month * 100 + born.day,
        "search_text": "\n".join(searched).lower(),
        "sort_name": f"{new.last_name}\n{new.first_name}".lower(),
    }
    contact = Contact.model_validate(new, update={"owner_id": user.id, **derived})
    session.add(contact)
    await session.commit()
    await session.refresh(contact)
    return contact
