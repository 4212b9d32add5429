"""Entity tags and the headers that carry them (RFC 9110, 8.8.3 and 13.1)."""

from typing import Annotated, TypeAlias

from fastapi import Header

IfMatch: TypeAlias = Annotated[str | None, Header()]
IfNoneMatch: TypeAlias = Annotated[str | None, Header()]


def etag_of(version: object) -> str:
    return f'"{version}"'


def matches_etag(tags: str, version: object) -> bool:
    """Say whether the value of If-Match or If-None-Match names this version."""
    return tags.strip() == "*" or etag_of(version) in (tag.strip() for tag in tags.split(","))


def is_known(if_none_match: str | None, version: object) -> bool:
    """Say whether the client has this version already: weak tags count (RFC 9110, 8.8.3.2)."""
    return if_none_match is not None and matches_etag(if_none_match.replace("W/", ""), version)
