"""Checks that Citus would accept all statements on tables distributed by owner, without a Citus server.

Citus sends a statement to several copies of a row, and all must do the same. Therefore RETURNING and DO UPDATE must
only call IMMUTABLE functions, and SET must not call VOLATILE functions or STABLE functions of a column. The test makes
each statement the body of a function. PostgreSQL stores it as a tree that names all functions and operators.
"""

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, TypeAlias

import psycopg2
import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import asyncpg
from sqlmodel import SQLModel

import contacts_api
from contacts_api.accounts.cleanup import _bites_of_owner
from contacts_api.accounts.models import User
from contacts_api.database.citus import distribute
from contacts_api.database.engine import owner_columns, table_of
from contacts_api.features.exchange import matching
from contacts_api.runtime import CommandError

Node: TypeAlias = "dict[str, Node] | list[Node] | str"
_UPDATE, _INSERT, _DELETE = "2", "3", "4"
_CALLS = {"FUNCEXPR": "funcid", "OPEXPR": "opfuncid", "DISTINCTEXPR": "opfuncid", "SCALARARRAYOPEXPR": "opfuncid"}
_TOKEN = re.compile(r'[{}()]|"(?:[^"\\]|\\.)*"|(?:[^\s{}()\\]|\\.)+')
# Values that depend on the clock or the session, such as CURRENT_TIMESTAMP. They are not function calls.
_VALUES_OF_SESSION = "SQLVALUEFUNCTION"


def statements() -> dict[str, str]:
    """Return the SQL of all statements by name: those in modules, and those that the ORM runs on tables of owners."""
    found: dict[str, Any] = {f"bite of an owner {n}": bite for n, bite in enumerate(_bites_of_owner())}
    for module in pkgutil.walk_packages(contacts_api.__path__, "contacts_api."):
        if not module.name.endswith("__main__"):
            members = vars(importlib.import_module(module.name)).items()
            found |= {f"{module.name}.{name}": each for name, each in members if isinstance(each, sa.Executable)}
    for column in owner_columns():
        table = column.table
        others: dict[Any, Any] = {
            each.name: sa.bindparam(f"new_{each.name}") for each in table.c if each.computed is None
        }
        found[f"update of {table.name}"] = sa.update(table).where(column == sa.bindparam("owner")).values(others)
        found[f"insert into {table.name}"] = sa.insert(table).values(others).returning(*table.c)
    dialect = asyncpg.dialect()  # type: ignore[no-untyped-call]
    texts = {name: str(each.compile(dialect=dialect)).strip() for name, each in found.items()}
    return {name: text for name, text in texts.items() if not text.startswith(("CREATE", "ANALYZE"))}


def parse(tree: str) -> Node:
    """Return a PostgreSQL node tree as nested dicts. The key "" holds the name of a node."""

    def read(tokens: Iterator[str], first: str) -> Node:
        if first == "(":
            return [read(tokens, token) for token in iter(lambda: next(tokens), ")")]
        if first != "{":
            return first
        node: dict[str, Node] = {"": next(tokens)}
        member = ""
        for token in iter(lambda: next(tokens), "}"):
            if token.startswith(":"):
                member = token[1:]
                node[member] = []
            else:
                values = node[member]
                assert isinstance(values, list)
                values.append(read(tokens, token))
        return node

    tokens = iter(_TOKEN.findall(tree))
    return read(tokens, next(tokens))


def walk(node: Node) -> Iterator[dict[str, Node]]:
    if isinstance(node, dict):
        yield node
    for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from walk(inner)


def word(node: dict[str, Node], member: str) -> str:
    return str(node[member][0])  # type: ignore[index]


def called(node: Node, volatility: dict[str, str]) -> Iterator[tuple[str, bool]]:
    """Yield the volatility of each call in a tree, and whether a column is among its arguments."""
    for each in walk(node):
        kind = str(each[""])
        if kind in _CALLS:
            takes_column = any(inner[""] == "VAR" for inner in walk(each["args"]))
            yield volatility[word(each, _CALLS[kind])], takes_column
        elif kind == _VALUES_OF_SESSION:
            yield "s", False


def refused(tree: Node, spread: set[str], volatility: dict[str, str]) -> set[str]:
    """Return the clauses of a statement that Citus would refuse."""
    found = set()
    for query in walk(tree):
        if query[""] != "QUERY" or word(query, "commandType") not in (_UPDATE, _INSERT, _DELETE):
            continue
        target: Any = query["rtable"][0][int(word(query, "resultRelation")) - 1]  # type: ignore[index]
        if word(target, "relid") not in spread:
            continue
        if any(each != "i" for each, _ in called(query["returningList"], volatility)):
            found.add("RETURNING")
        if any(each != "i" for each, _ in called(query["onConflict"], volatility)):
            found.add("DO UPDATE")
        calls = called(query["targetList"], volatility) if word(query, "commandType") == _UPDATE else ()
        if any(each == "v" or (each == "s" and of_column) for each, of_column in calls):
            found.add("SET")
    return found


@pytest.fixture
def refusals(database_url: str) -> Iterator[Callable[[str], set[str]]]:
    """Return a function that returns the clauses of a statement that Citus would refuse."""
    with closing(psycopg2.connect(database_url)) as connection:
        cursor = connection.cursor()

        def rows(statement: str) -> list[tuple[Any, ...]]:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

        for statement in (*matching.BEGIN, matching.BEGIN_CHANGES):
            cursor.execute(str(statement))
        names = [column.table.name for column in owner_columns()]
        spread = {str(oid) for name in names for (oid,) in rows(f"SELECT '{name}'::regclass::oid")}
        volatility = {str(oid): volatile for oid, volatile in rows("SELECT oid, provolatile FROM pg_proc")}

        def find(statement: str) -> set[str]:
            cursor.execute(f"PREPARE asked AS {statement}")
            ((types,),) = rows("SELECT parameter_types::text[] FROM pg_prepared_statements WHERE name = 'asked'")
            cursor.execute("DEALLOCATE asked")
            # asyncpg looks up each array type, which takes 0.7 s on Citus.
            assert not any(kind.endswith("[]") for kind in types), statement
            head = f"CREATE FUNCTION pg_temp.asked({', '.join(types)}) RETURNS void LANGUAGE sql"
            cursor.execute(f"{head} BEGIN ATOMIC {statement}; END")
            ((tree,),) = rows("SELECT prosqlbody::text FROM pg_proc WHERE proname = 'asked'")
            cursor.execute("DROP FUNCTION pg_temp.asked")
            return refused(parse(tree), spread, volatility)

        yield find


def test_citus_accepts_every_statement(refusals: Callable[[str], set[str]]) -> None:
    refused_where = {name: refusals(sql) for name, sql in statements().items()}

    assert {name: where for name, where in refused_where.items() if where} == {}


@pytest.mark.parametrize(
    ("statement", "where"),
    [
        ("UPDATE contact SET updated_at = clock_timestamp()", {"SET"}),
        ("UPDATE contact SET updated_at = created_at + interval '1 day'", {"SET"}),
        ("UPDATE contact SET updated_at = now()", set()),
        ("UPDATE contact SET first_name = concat_ws(' ', first_name, 'x')", {"SET"}),
        ("UPDATE contact SET version = version + 1 RETURNING to_char(updated_at, 'YYYY')", {"RETURNING"}),
        (
            "INSERT INTO contact_tally VALUES ($1, 1) ON CONFLICT (owner_id) DO UPDATE SET at_most = random()::int",
            {"DO UPDATE"},
        ),
        ("WITH gone AS (DELETE FROM contact RETURNING now()) SELECT FROM gone", {"RETURNING"}),
        ("UPDATE failed_attempt SET failed_at = clock_timestamp()", set()),
    ],
)
def test_statements_that_citus_refuses_are_detected(
    refusals: Callable[[str], set[str]], statement: str, where: set[str]
) -> None:
    assert refusals(statement) == where


def test_every_table_of_owners_is_distributed() -> None:
    names = {"ended_session", "failed_attempt", "mail", "alembic_version", table_of(User).name}

    assert {column.table.name for column in owner_columns()} == SQLModel.metadata.tables.keys() - names


def test_without_citus_the_command_fails_with_a_message(database_url: str) -> None:
    with pytest.raises(CommandError, match="no Citus"):
        list(distribute(database_url, 4))
