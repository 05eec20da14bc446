"""The specification's text: its lines, tables, checksums and traced example."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence

import numpy as np
import pytest
from dcformat_runtime import Session
from dcformat_runtime.input_rows import InputError

from dcformat import layout
from dcformat.codecs import logistic
from dcformat.graph import Graph, ReLU
from dcformat.model import Model
from tests.spec.support import SPEC, reference_coders, reference_decoder, reference_mixing, trace_coder_3

DCFORMAT = (SPEC / "dcformat.md").read_text(encoding="utf-8")
CODERS = (SPEC / "coders.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["dcformat.md", "coders.md", "errata.md", "vectors/v1/README.md"])
def test_lines_are_at_most_100_columns(name: str) -> None:
    lines = (SPEC / name).read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if len(line) > 100]


def crc(numbers: Sequence[int]) -> str:
    """Return the CRC-32C of numbers as the specification lays them out: int32, little-endian."""
    return f"{reference_decoder.crc32c(struct.pack(f'<{len(numbers)}i', *numbers)):08x}"


def test_tables_have_the_checksums_in_the_text() -> None:
    tables = {
        "stretch": [reference_coders.stretch(q) for q in range(4096)],
        "squash": [reference_mixing.squash(x) for x in range(-3071, 3072)],
        "log": [reference_mixing.log(n) for n in range(8192)],
        "trust": [2560 * n // (10 * n + 18) for n in range(511)],
    }
    found = dict(re.findall(r"^\| (\w+) \| ([\d,]+ \| [0-9a-f]{8}) \|$", CODERS, re.MULTILINE))
    assert found == {name: f"{len(table):,} | {crc(table)}" for name, table in tables.items()}
    for name, array in (("stretch", logistic.STRETCH), ("squash", logistic.SQUASH), ("log", logistic.LOG)):
        assert array.tolist() == tables[name], name
    near = re.findall(r"near\(d\) \| d = ([\d, ]+) \| ([\d, ]+) \|", CODERS)[0]
    assert dict(zip(*(map(int, part.split(", ")) for part in near), strict=True)) == reference_mixing.NEAR


def test_preset_has_the_length_and_checksum_in_the_text() -> None:
    length, checksum = re.findall(r"following ([\d,]+) bytes.*?CRC-32C is\s+0x([0-9a-f]{8})", DCFORMAT, re.DOTALL)[0]
    assert length == f"{len(layout.CONTENTS_PRESET):,}" == "1,018"
    assert int(checksum, 16) == reference_decoder.crc32c(layout.CONTENTS_PRESET) == 0x835EF587


def test_traced_example_matches_the_reference_decoder() -> None:
    assert f"\n{trace_coder_3.text()}\n" in CODERS
    _, trace, places, codes = trace_coder_3.traced()
    assert trace[0].split()[-4:] == ["23450", "0d6104a7", "18c00000", "0"]
    assert places == list(trace_coder_3.ELEMENTS)
    assert [trace_coder_3.CODEBOOK[code] for code in codes] == list(trace_coder_3.ELEMENTS.values())


def test_pixels_are_refused_without_preprocessing() -> None:
    """[G10]: no preprocessing is not the same as mean 0 and deviation 1."""
    session = Session.from_model(Model({}, Graph.sequential((4,), (ReLU((0,)),))), backend="numpy")
    with pytest.raises(InputError, match="no preprocessing"):
        session(np.zeros((1, 4), np.uint8))
    assert session(np.ones((1, 4), np.float32)).tolist() == [[1, 1, 1, 1]]


def test_every_term_is_used() -> None:
    """The glossary explains only terms that the text uses."""
    table = DCFORMAT.partition("## Terms")[2].partition("## 1.")[0]
    rest = DCFORMAT.partition("## 1. Notation")[2] + CODERS
    terms = [term for row in re.findall(r"^\| ([a-z, ]+) \|", table, re.MULTILINE)[1:] for term in row.split(", ")]
    assert len(terms) > 25
    assert not [term for term in terms if term.split(" or ")[0].lower() not in rest.lower()]
