"""JSON documents of the command, checked against their schemas."""

from __future__ import annotations

import json
from typing import Any

from dcformat_cli.schemas import schema_of
from jsonschema import Draft202012Validator, validate


def strict(schema: Any) -> Any:
    """Return a schema that refuses keys without a description; users' schemas take those of later versions."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {"additionalProperties": False} if "required" in schema and "properties" in schema else {}
    return {**{key: strict(each) for key, each in schema.items()}, **closed}


def valid(verb: str, text: str) -> dict[str, Any]:
    """Parse a verb's document, validate it against the verb's schema, and return it."""
    parsed: dict[str, Any] = json.loads(text)
    validate(parsed, strict(schema_of(verb)), Draft202012Validator)
    assert text.isascii()
    return parsed
