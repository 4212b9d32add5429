"""Entity tags (RFC 9110, 8.8.3)."""


def matches_etag(tags: str, version: object) -> bool:
    """Say whether the value of If-Match or If-None-Match names this version (RFC 9110, 13.1)."""
    return tags.strip() == "*" or f'"{version}"' in (tag.strip() for tag in tags.split(","))
