"""Optional parts of the API. Each is a package with a `FEATURE`."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from fastapi import APIRouter

from contacts_api.http.pages import CodeList

FEATURES = ("exchange", "feed")
"""The packages of the features, in the order in which their routes are matched."""


@dataclass(frozen=True, kw_only=True)
class Feature:
    """What a feature adds to the application. The core does not name any feature."""

    name: str
    routers: Sequence[APIRouter] = ()
    code_lists: Sequence[CodeList] = ()
    """Sections of the page /docs/errors."""


def load_features() -> list[Feature]:
    return [import_module(f"{__name__}.{name}").FEATURE for name in FEATURES]
