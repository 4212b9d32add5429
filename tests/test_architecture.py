"""A module imports its own package, or what is above it in this list; never what is below."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "contacts_api"
LAYERS = [
    "__init__",
    "runtime",
    "settings",
    "text",
    "collation",
    "problems",
    "field_errors",
    "waiting",
    "connecting",
    "database",
    "migrating",
    "embedded",
    "protocol",
    "handlers",
    "standby",
    "bodies",
    "query_parameters",
    "etags",
    "access_log",
    "cors",
    "routing",
    "answers",
    "openapi",
    "pagination",
    "accounts",
    "contacts",
    "calendar",
    "exchange",
    "pages",
    "app",
    "demo",
    "distributing",
    "commands",
    "cli",
    "__main__",
]
WITHIN = [
    "__init__",
    "fields",
    "files",
    "dates",
    "models",
    "columns",
    "reader",
    "birthdays",
    "events",
    "passwords",
    "attempts",
    "sessions",
    "keys",
    "mail",
    "cleanup",
    "tokens",
    "users",
    "csv",
    "vcard",
    "icalendar",
    "queries",
    "own",
    "quota",
    "store",
    "labels",
    "reindexing",
    "budget",
    "matching",
    "imports",
    "exports",
    "feeds",
    "routes",
]
MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> list[str]:
    return list(path.relative_to(PACKAGE).with_suffix("").parts)


def imports_of(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return names | {node.module or "" for node in froms} | {f"{n.module}.{a.name}" for n in froms for a in n.names}


def test_every_module_has_its_place() -> None:
    assert {name_of(path)[0] for path in MODULES} == set(LAYERS)
    assert {name_of(path)[1] for path in MODULES if len(name_of(path)) > 1} <= set(WITHIN)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: ".".join(name_of(path)))
def test_imports_point_upwards(path: Path) -> None:
    layer, *inner = name_of(path)
    for imported in imports_of(path):
        parts = imported.split(".")[1:]
        if not imported.startswith("contacts_api.") or parts[0] not in LAYERS:
            continue
        if parts[0] == layer and inner:
            assert len(parts) == 1 or WITHIN.index(parts[1]) < WITHIN.index(inner[0]), imported
        else:
            assert LAYERS.index(parts[0]) < LAYERS.index(layer), imported


def test_only_these_modules_know_fastapi_users() -> None:
    knowing = [name_of(path) for path in MODULES if any(name.startswith("fastapi_users") for name in imports_of(path))]

    assert knowing == [["accounts", "passwords"], ["accounts", "tokens"], ["accounts", "users"]]


def test_routes_are_free_of_sql_and_of_bare_dependencies() -> None:
    for path in PACKAGE.glob("*/routes.py"):
        functions = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.AsyncFunctionDef)]
        routes = [f for f in functions if any(isinstance(d, ast.Call) for d in f.decorator_list)]
        assert routes
        for route in routes:
            assert "Depends" not in ast.unparse(route.args), route.name
            assert ast.get_docstring(route), route.name
        assert not {"select", "update", "insert", "delete"} & {name.split(".")[-1] for name in imports_of(path)}
