"""The layers of the package: a module imports only from its own package and from those to its left in LAYERS."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "contacts_api"
LAYERS = [
    *("runtime", "settings", "problems", "text"),
    *("database", "http", "accounts", "contacts", "features", "app", "cli", "__main__"),
]
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem != "__init__")
FEATURES = {path.name for path in (PACKAGE / "features").iterdir() if (path / "__init__.py").exists()}
MAX_ROOT_MODULES = 8


def name_of(path: Path) -> list[str]:
    return list(path.relative_to(PACKAGE).with_suffix("").parts)


def imports_of(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return names | {node.module or "" for node in froms} | {f"{n.module}.{a.name}" for n in froms for a in n.names}


def own_imports_of(path: Path) -> list[list[str]]:
    """Return the modules of the package that a module imports, each as the parts of its name."""
    names = [name.split(".")[1:] for name in imports_of(path) if name.startswith("contacts_api.")]
    return [parts for parts in names if parts[0] in LAYERS]


def test_the_root_has_few_modules() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= MAX_ROOT_MODULES


@pytest.mark.parametrize("path", MODULES, ids=lambda path: ".".join(name_of(path)))
def test_a_module_imports_only_from_lower_layers(path: Path) -> None:
    layer, *inner = name_of(path)

    for parts in own_imports_of(path):
        assert LAYERS.index(parts[0]) <= LAYERS.index(layer), f"{layer} imports {'.'.join(parts)}"
        if layer == parts[0] == "features" and inner[0] in FEATURES and len(parts) > 1:
            assert parts[1] not in FEATURES - {inner[0]}, f"the feature {inner[0]} imports the feature {parts[1]}"


def test_only_these_modules_import_fastapi_users() -> None:
    knowing = [name_of(path) for path in MODULES if any(name.startswith("fastapi_users") for name in imports_of(path))]

    assert knowing == [["accounts", "passwords"], ["accounts", "strategy"], ["accounts", "users"]]


def test_routes_have_no_sql_no_bare_depends_and_a_docstring() -> None:
    for path in PACKAGE.rglob("routes.py"):
        functions = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.AsyncFunctionDef)]
        routes = [f for f in functions if any(isinstance(d, ast.Call) for d in f.decorator_list)]
        assert routes
        for route in routes:
            assert "Depends" not in ast.unparse(route.args), route.name
            assert ast.get_docstring(route), route.name
        assert not {"select", "update", "insert", "delete"} & {name.split(".")[-1] for name in imports_of(path)}
