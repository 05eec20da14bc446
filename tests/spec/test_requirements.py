"""A vector or a test names every requirement of the specification."""

from __future__ import annotations

import re

import pytest

from tests.spec.support import ROOT, SPEC, manifest

#: An id in the text: a letter and a number in brackets. Links, [text](where), do not look like it.
ID = re.compile(r"\[([A-Z]\d+)\]")


def required() -> list[str]:
    """Return the ids of both documents, each as often as it occurs."""
    texts = ((SPEC / name).read_text(encoding="utf-8") for name in ("dcformat.md", "coders.md"))
    return [found for text in texts for found in ID.findall(text)]


def shown() -> set[str]:
    """Return the ids that a vector or a test names."""
    vectors = manifest()
    entries = [entry for kind in ("valid", "invalid", "deltas") for entry in vectors[kind].values()]
    found = {requirement for entry in entries for requirement in entry["requirements"]}
    for path in (ROOT / "tests").rglob("*.py"):
        found.update(ID.findall(path.read_text(encoding="utf-8")))
    return found


def test_every_requirement_is_shown() -> None:
    assert not sorted(set(required()) - shown())


def test_vectors_name_requirements_that_exist() -> None:
    vectors = manifest()
    entries = {**vectors["valid"], **vectors["invalid"], **vectors["deltas"]}
    known = set(required())
    unknown = {name: set(entry["requirements"]) - known for name, entry in entries.items()}
    assert not {name: ids for name, ids in unknown.items() if ids}


@pytest.mark.parametrize("document", ["dcformat.md", "coders.md"])
def test_every_must_has_an_id(document: str) -> None:
    """The id of a MUST is in the same sentence or, in a list of requirements, in the same paragraph."""
    text = (SPEC / document).read_text(encoding="utf-8")
    text = text[text.find("## 1. ") :] if "## 1. " in text else text
    paragraphs = re.split(r"\n\s*\n|\n(?=- |\d\. )", text)
    assert not [p for p in paragraphs if "MUST" in p and not ID.search(p)]
