"""Every regular expression of the package takes linear time on any text.

Each compiled pattern is run as the source uses it, on repetitions of its own tokens, because a superlinear pattern
shows on texts that it almost matches. New patterns are found and tested without a change here.
"""

import ast
import importlib
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from inspect import getsource
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

import contacts_api

# The parser of patterns has no public name.
_PARSER: Any = importlib.import_module("re._parser")
METHODS = {"search", "match", "fullmatch", "split", "sub", "subn", "findall", "finditer"}
# Start small: exponential time shows on few characters, and on more it would never end.
SIZES = (12, 20, 30, 120, 500, 2000, 8000)
# A shorter run is too short to judge, and too short to do harm.
SLOW = 0.004
# The exponent of growth: 1 for linear time, 2 for quadratic time.
MAX_POWER = 1.55
_CANDIDATES = "aZ09_ \t\n;,:.=-\"'()/+@#*\\é\x01"
_FAILURE = "\x00\n"


class Use(NamedTuple):
    """A pattern and the method that the package calls on it."""

    place: str
    pattern: re.Pattern[Any]
    method: str


def modules() -> list[ModuleType]:
    root = Path(contacts_api.__path__[0])
    names = [".".join(path.relative_to(root.parent).with_suffix("").parts) for path in sorted(root.rglob("*.py"))]
    return [importlib.import_module(name) for name in names if "__" not in name]


def patterns_in(value: object, package: str, depth: int = 4) -> Iterator[tuple[re.Pattern[Any], str]]:
    """Yield the patterns in a value, with the method if the value is a method of a pattern."""
    if isinstance(value, re.Pattern):
        yield value, ""
    elif isinstance(getattr(value, "__self__", None), re.Pattern):
        yield value.__self__, value.__name__  # type: ignore[attr-defined]  # a method of a pattern
    elif depth:
        members: Iterable[object] = ()
        if isinstance(value, Mapping):
            members = [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set | frozenset):
            members = value
        elif getattr(type(value) if not isinstance(value, type) else value, "__module__", "").startswith(package):
            slots = getattr(type(value), "__slots__", ())
            members = [*getattr(value, "__dict__", {}).values(), *(getattr(value, name, None) for name in slots)]
        elif callable(value) and getattr(value, "__module__", None) and hasattr(value, "__defaults__"):
            cells = [cell.cell_contents for cell in getattr(value, "__closure__", None) or ()]
            members = [*(value.__defaults__ or ()), *cells]
        for member in members:
            yield from patterns_in(member, package, depth - 1)


@cache
def methods_by_name() -> dict[str, set[str]]:
    """Return the methods that the source calls on each name, such as `_DATE.match(…)` in its module or `text.DATE`
    elsewhere.

    An imported name counts both in its own module and in the importing one.
    """
    found: dict[str, set[str]] = {}
    for module in modules():
        for node in ast.walk(ast.parse(getsource(module))):
            if isinstance(node, ast.Attribute) and node.attr in METHODS:
                owner = node.value
                name = f"{module.__name__}.{owner.id}" if isinstance(owner, ast.Name) else getattr(owner, "attr", "")
                found.setdefault(name, set()).add(node.attr)
    return found


def calls_of_re() -> Iterator[tuple[str, ast.Call]]:
    """Yield calls such as `re.search(…)`, and calls of `re.compile` within functions."""
    for module in modules():
        tree = ast.parse(getsource(module))
        within = {id(each) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) for each in ast.walk(node)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner, method = node.func.value, node.func.attr
                is_of_re = isinstance(owner, ast.Name) and owner.id == "re"
                if is_of_re and (method in METHODS or (method == "compile" and id(node) in within)):
                    yield f"{module.__name__}:{node.lineno}", node


def uses() -> list[Use]:
    found: dict[tuple[re.Pattern[Any], str], str] = {}
    for module in modules():
        for name, value in vars(module).items():
            for pattern, method in patterns_in(value, "contacts_api."):
                # A pattern that is passed on or kept in a list may be used with any method.
                calls = methods_by_name()
                known = calls.get(f"{module.__name__}.{name}", set()) | calls.get(name, set())
                known = {method} if method else known or {"search", "fullmatch", "sub"}
                for each in sorted(known):
                    found.setdefault((pattern, each), f"{module.__name__}.{name}")
    for place, call in calls_of_re():
        if isinstance(call.args[0], ast.Constant) and call.func.attr in METHODS:  # type: ignore[attr-defined]
            found.setdefault((re.compile(call.args[0].value), call.func.attr), place)  # type: ignore[attr-defined]
    return [Use(place, pattern, method) for (pattern, method), place in found.items()]


def members_of(items: Any) -> list[str]:
    """Return a few characters of a class."""
    is_negated = items[0][0] is _PARSER.NEGATE
    named: list[str] = []
    for op, value in items:
        if op is _PARSER.LITERAL:
            named.append(chr(value))
        elif op is _PARSER.RANGE:
            named.append(chr(value[0]))
        elif op is _PARSER.CATEGORY:
            word = str(value).rpartition("_")[2].lower()
            is_not = "NOT" in str(value)
            matches = re.compile({"digit": r"\d", "space": r"\s", "word": r"\w"}[word]).match
            named += [each for each in _CANDIDATES if (matches(each) is None) is is_not][:2]
    if not is_negated:
        return named[:4]
    ranges = [value for op, value in items if op is _PARSER.RANGE]
    others = [c for c in _CANDIDATES if c not in named and not any(low <= ord(c) <= high for low, high in ranges)]
    return others[:4]


def tokens_of(parsed: Any) -> tuple[list[str], list[str]]:
    """Return the tokens of a sequence and the texts of its first one, two, … elements."""
    tokens: list[str] = []
    beginnings = [""]
    for op, value in parsed:
        heads: list[str] = []
        if op in (_PARSER.LITERAL, _PARSER.NOT_LITERAL):
            heads = [chr(value)] if op is _PARSER.LITERAL else [c for c in "ab" if ord(c) != value][:1]
            tokens += heads
        elif op is _PARSER.ANY:
            heads = ["a"]
            tokens += heads
        elif op is _PARSER.IN:
            heads = members_of(value)
            tokens += heads
        elif op is _PARSER.BRANCH:
            for alternative in value[1]:
                within, begins = tokens_of(alternative)
                tokens += [*within, *begins[-1:]]
                heads += begins[-1:]
        elif op in (_PARSER.MAX_REPEAT, _PARSER.MIN_REPEAT, _PARSER.POSSESSIVE_REPEAT):
            within, begins = tokens_of(value[2])
            tokens += [*within, *begins[-1:]]
            heads = [begins[-1] * max(1, min(value[0], 4))]
        elif op in (_PARSER.SUBPATTERN, _PARSER.ATOMIC_GROUP, _PARSER.ASSERT, _PARSER.ASSERT_NOT):
            inner = value if op is _PARSER.ATOMIC_GROUP else value[-1]
            within, begins = tokens_of(inner)
            tokens += [*within, *begins[-1:]]
            heads = begins[-1:] if op in (_PARSER.SUBPATTERN, _PARSER.ATOMIC_GROUP) else []
        if heads:
            beginnings.append(beginnings[-1] + heads[0])
    return tokens, beginnings


def texts_of(use: Use) -> tuple[list[str], list[str]]:
    """Return the texts to repeat, and the prefixes to put in front of them."""
    tokens, beginnings = tokens_of(_PARSER.parse(use.pattern.pattern, use.pattern.flags & ~re.DEBUG))
    distinct = [each for each in dict.fromkeys([*beginnings, *tokens]) if each]
    chance = random.Random(43)  # noqa: S311  (the same texts each time)
    few = distinct if len(distinct) <= 12 else [*distinct[:4], *chance.sample(distinct[4:], 8)]
    triples = ["".join(each) for each in product(few, repeat=3)]
    repeated = [*distinct[:60], *map("".join, product(few, repeat=2)), *chance.sample(triples, min(40, len(triples)))]
    is_anchored = use.method in ("match", "fullmatch") or beginnings == [""]
    return list(dict.fromkeys(repeated)), beginnings[:6] if is_anchored else [""]


def seconds(use: Use, text: Any, rounds: int = 1) -> float:
    empty = text[:0]
    run: Callable[[], Any]
    if use.method in ("sub", "subn"):
        run = lambda: use.pattern.sub(empty, text)  # noqa: E731
    elif use.method == "finditer":
        run = lambda: list(use.pattern.finditer(text))  # noqa: E731
    else:
        run = lambda: getattr(use.pattern, use.method)(text)  # noqa: E731
    best = float("inf")
    for _ in range(rounds):
        begin = time.thread_time()
        run()
        best = min(best, time.thread_time() - begin)
    return best


def growth_of(use: Use, beginning: str, unit: str) -> str:
    """Return an error message if the pattern takes superlinear time on the text, or an empty string."""

    def text(size: int) -> Any:
        written = beginning + unit * (size // len(unit) + 1) + _FAILURE
        return written.encode("latin-1", "replace") if isinstance(use.pattern.pattern, bytes) else written

    shorter = SIZES[0]
    for size in SIZES[1:]:
        if seconds(use, text(size)) > SLOW:
            longer = seconds(use, text(size), 3)
            before = seconds(use, text(shorter), 5)
            if longer > SLOW and longer > before * (size / shorter) ** MAX_POWER:
                return f"{size} characters of {unit!r} after {beginning!r}: {longer:.4f} s, {shorter}: {before:.4f} s"
        shorter = size
    return ""


@pytest.mark.parametrize("use", [pytest.param(each, id=f"{each.place}-{each.method}") for each in uses()])
def test_the_time_of_a_pattern_grows_no_faster_than_the_text(use: Use) -> None:
    repeated, beginnings = texts_of(use)

    found = next(filter(None, (growth_of(use, start, unit) for start in beginnings for unit in repeated)), "")

    assert not found


def test_patterns_are_compiled_on_import_or_are_constants() -> None:
    """Patterns must be compiled on import or be constants. Otherwise the test above does not see them."""
    assert [place for place, call in calls_of_re() if not isinstance(call.args[0], ast.Constant)] == []


@pytest.mark.parametrize(
    ("pattern", "method"),
    [("(a+)+b", "search"), ("a.*b.*c", "search"), (r"\s+$", "sub"), (";X-CUSTOM\\(.*?,([^)]*)\\)", "search")],
)
def test_a_superlinear_pattern_is_detected(pattern: str, method: str) -> None:
    use = Use("here", re.compile(pattern), method)
    repeated, beginnings = texts_of(use)

    assert any(growth_of(use, start, unit) for start in beginnings for unit in repeated)
