"""Write docs/json.md from the schemas of the command: python docs/json_page.py (the packages must be on the path)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dcformat_cli.schemas import DOCUMENTS, FAILURE
from dcformat_cli.schemas.shared import FIGURES

PAGE = Path(__file__).with_name("json.md")

HEAD = """\
# JSON output

<!-- Made by docs/json_page.py from cli/dcformat_cli/schemas. -->

Every command takes `--json` and then prints one JSON document in ASCII; `--json-schema` prints its JSON Schema (draft
2020-12). The first key of every document is `schema`, the version of the layout below, which is 1. A later release may
add keys under the same number. Renaming or removing a key, or changing its meaning, raises the number.

The document goes to stdout, or to stderr if `-o -` sends the command's file to stdout. Numbers are bytes, counts or
seconds, as their descriptions say; accuracies and densities are fractions from 0 to 1. `null` stands for a value that
does not exist. In the tables, `[]` stands for each entry of a list and `{}` for each value of an object whose keys are
names.

A command that fails prints this document instead, besides the line on stderr. Only `verify` reports files that are
damaged in its own document, and exits with 1.
"""


def page() -> str:
    """Return the text of the page."""
    parts = [HEAD, *_table(FAILURE), "\n## Figures of a file\n", *_table(FIGURES)]
    for verb, documents in DOCUMENTS.items():
        parts.append(f"\n## {verb}\n")
        for when, keys in documents.items():
            if when:
                parts.append(f"\n{_when(when)}:\n")
            parts += _table(keys)
    return "\n".join(parts).replace("\n\n\n", "\n\n") + "\n"


def _when(text: str) -> str:
    return f"With `{text}`" if text.startswith("-") or text.isupper() else text[:1].upper() + text[1:]


def _table(keys: Mapping[str, Any]) -> list[str]:
    lines = ["", "| key | type | value |", "|---|---|---|"]
    if keys is FIGURES or not FIGURES.items() <= keys.items():
        return [*lines, *_rows("", keys)]
    names = ", ".join(f"`{key}`" for key in FIGURES)
    others = {key: schema for key, schema in keys.items() if key not in FIGURES}
    return [*lines, *_rows("", others), f"| {names} | | the [figures of the file](#figures-of-a-file) |"]


def _rows(prefix: str, keys: Mapping[str, Any]) -> Iterator[str]:
    for key, schema in keys.items():
        yield from _row(f"{prefix}{key.strip('()')}", schema)


def _row(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    yield f"| `{name}` | {_type(schema)} | {schema['description']} |"
    yield from _inner(name, schema)


def _inner(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    """Yield the rows of a value's parts, unless it is a single number or text."""
    if "items" in schema:
        place, inner = f"{name}[]", schema["items"]
    elif isinstance(schema.get("additionalProperties"), dict):
        place, inner = f"{name}{{}}", schema["additionalProperties"]
    else:
        yield from _rows(f"{name}.", schema.get("properties", {}))
        return
    if "properties" in inner:
        yield from _rows(f"{place}.", inner["properties"])
    elif "items" in inner or "additionalProperties" in inner:
        yield from _inner(place, inner)


def _type(schema: Mapping[str, Any]) -> str:
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{'null' if word is None else word}`" for word in schema["enum"])
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    names = {"array": "list"}
    kinds = [names.get(kind, kind) for kind in kinds]
    inner = schema.get("items") or schema.get("additionalProperties")
    if isinstance(inner, dict) and isinstance(inner.get("type"), str) and "properties" not in inner:
        kinds[0] = f"{kinds[0]} of {names.get(inner['type'], inner['type'])}s"
    return " or ".join(kinds)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
