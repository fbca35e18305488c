"""Names of resources."""

from __future__ import annotations


def within(collection: str, name: str) -> str:
    """Give the resource name for an id; a resource name stays as it is."""
    return name if name.startswith(f"{collection}/") else f"{collection}/{name}"
