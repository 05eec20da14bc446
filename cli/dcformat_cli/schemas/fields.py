"""The parts of the schemas; each has a description, which docs/json.md shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]


def typed(kind: str, about: str, **more: Any) -> Schema:
    """Return the schema of a JSON type."""
    return {"type": kind, "description": about, **more}


def text(about: str, *choices: str) -> Schema:
    """Return the schema of a text, or of one of some words."""
    return typed("string", about, **({"enum": list(choices)} if choices else {}))


def count(about: str) -> Schema:
    """Return the schema of a whole number of at least 0."""
    return typed("integer", about, minimum=0)


def number(about: str) -> Schema:
    """Return the schema of a number."""
    return typed("number", about)


def share(about: str) -> Schema:
    """Return the schema of a fraction from 0 to 1."""
    return typed("number", about, minimum=0, maximum=1)


def flag(about: str) -> Schema:
    """Return the schema of true or false."""
    return typed("boolean", about)


def array(about: str, items: Schema) -> Schema:
    """Return the schema of a list."""
    return typed("array", about, items=items)


def record(about: str, keys: Mapping[str, Schema], optional: tuple[str, ...] = ()) -> Schema:
    """Return the schema of an object with these keys; all except the optional ones are always present."""
    required = [key for key in keys if key not in optional]
    return typed("object", about, properties=dict(keys), required=required)


def mapping(about: str, values: Schema) -> Schema:
    """Return the schema of an object whose keys are names."""
    return typed("object", about, additionalProperties=values)


def maybe(schema: Schema) -> Schema:
    """Return a schema that also takes null."""
    out = {**schema, "type": [schema["type"], "null"]}
    if "enum" in out:
        out["enum"] = [*out["enum"], None]
    return out


def figure(about: str) -> Schema:
    """Return a number that may be infinite or not a number, which JSON writes as a text, or null."""
    return {"type": ["number", "string", "null"], "description": about}
