"""Optional parts of the API. Each is a package with a `FEATURE`; to remove one, see docs/extending.md."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from fastapi import APIRouter

from contacts_api.http.pages import CodeList

FEATURES = ("exchange", "feed")
"""The packages of the features, in the order in which their routes are tried."""


@dataclass(frozen=True, kw_only=True)
class Feature:
    """What a feature adds to the application. The core knows no feature by name."""

    name: str
    routers: Sequence[APIRouter] = ()
    code_lists: Sequence[CodeList] = ()
    """Sections of the page /docs/errors."""


def load_features() -> list[Feature]:
    return [import_module(f"{__name__}.{name}").FEATURE for name in FEATURES]


def load_commands() -> list[Any]:
    """Return the modules named `commands` of the features: each adds its commands by `register(app)`.

    They import what takes long inside of the commands, so that `--help` stays quick.
    """
    names = [f"{__name__}.{name}.commands" for name in FEATURES]
    return [import_module(name) for name in names if find_spec(name)]
