"""The JSON documents of all verbs, as JSON Schema (draft 2020-12): `dcformat VERB --json-schema` prints them.

A verb may have several documents, depending on its options. docs/json.md is made from the same table.
"""

from __future__ import annotations

from collections.abc import Mapping

from dcformat_cli.schemas import file_verbs, network_verbs
from dcformat_cli.schemas.fields import Schema, maybe, record, text
from dcformat_cli.terminal import SCHEMA

_DIALECT = "https://json-schema.org/draft/2020-12/schema"

#: Verb, such as ``export onnx`` -> when the document is printed -> its keys besides `schema`.
DOCUMENTS = {**file_verbs.DOCUMENTS, **network_verbs.DOCUMENTS}

_VERSION = {"const": SCHEMA, "description": "the version of this layout"}

#: The document that every verb prints if it fails.
FAILURE: dict[str, Schema] = {
    "schema": _VERSION,
    "error": record(
        "the failure",
        {
            "message": text("the line that is on stderr too"),
            "code": maybe(text("the code of a `FormatError`, such as `E01`; null for other failures")),
            "exit_code": {"enum": [1, 2, 130], "description": "1 failed, 2 misused, 130 interrupted"},
        },
    ),
}


def schema_of(verb: str) -> Schema:
    """Return the JSON Schema of everything that a verb prints with ``--json``, such as ``export onnx``."""
    documents = [_document(keys) for keys in DOCUMENTS[verb].values()]
    return {
        "$schema": _DIALECT,
        "title": f"dcformat {verb} --json",
        "anyOf": [*documents, record("a failure", FAILURE)],
    }


def _document(keys: Mapping[str, Schema]) -> Schema:
    optional = tuple(key.strip("()") for key in keys if key.startswith("("))
    plain = {key.strip("()"): schema for key, schema in keys.items()}
    return record("a result", {"schema": _VERSION, **plain}, optional)
