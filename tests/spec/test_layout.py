"""The tables of the specification and the constants of the package agree in both directions."""

from __future__ import annotations

import re
from pathlib import Path

from dcformat import errors, graph_attributes, graph_codec, layout
from dcformat.graph import BINARY, REDUCTIONS, UNARY
from dcformat.graph.graph import PORT_DTYPES
from dcformat.graph.rearranging import COORDINATES, PAD_MODES, RESIZE_MODES, ROUNDINGS

SPEC = Path(__file__).parents[2] / "spec" / "dcformat.md"


def section(title: str) -> str:
    """Return the text below a heading, up to the next heading of any level."""
    text = SPEC.read_text(encoding="utf-8")
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def sentences(title: str) -> str:
    """Return the text below a heading with its lines joined."""
    return " ".join(section(title).split())


def tables(title: str) -> list[list[list[str]]]:
    """Return the tables of a section as rows of cells, without their headings."""
    found: list[list[list[str]]] = []
    last = ""
    for line in section(title).splitlines():
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if not last.startswith("|"):
                found.append([])
            elif not set(line) <= set("|-"):
                found[-1].append(cells)
        last = line
    return found


def number(text: str) -> int:
    """Return the number that a cell holds: 255, 2^16, or 2^31 - 1."""
    base, _, power = text.removesuffix(" - 1").partition("^")
    return int(base) ** int(power or 1) - text.endswith(" - 1")


def constants(prefix: str) -> dict[str, int]:
    """Return the constants of the package's layout whose names begin with `prefix`."""
    return {name: value for name, value in vars(layout).items() if name.startswith(prefix)}


def test_prefix() -> None:
    rows = tables("2. File")[0]
    assert bytes.fromhex(rows[0][2].removeprefix("magic: ")) == layout.MAGIC
    assert rows[1][2] == f"major version: {layout.MAJOR}"
    assert rows[2][2] == f"minor version: {layout.MINOR}"
    assert rows[4][0] == str(layout.PREFIX_BYTES)
    assert rows[5][1] == str(layout.CRC_BYTES)
    assert rows[-1][:2] == [f"end - {layout.DIGEST_BYTES}", str(layout.DIGEST_BYTES)]
    assert 1 << int(re.search(r"bit (\d+): they are packed", rows[3][2])[1]) == layout.CONTENTS_PACKED  # type: ignore[index]


def test_version() -> None:
    title = SPEC.read_text(encoding="utf-8").splitlines()[0]
    assert title == f"# The dcformat file format, version {layout.MAJOR}.{layout.MINOR}"


def test_sections() -> None:
    names = {
        "tensor table": "SECTION_TENSORS", "graph": "SECTION_GRAPH", "labels": "SECTION_LABELS",
        "metadata": "SECTION_METADATA", "self-test": "SECTION_SELF_TEST", "delta": "SECTION_DELTA",
    }  # fmt: skip
    assert {names[row[1]]: int(row[0]) for row in tables("3. Contents")[0]} == constants("SECTION_")
    assert 1 << int(re.search(r"id has bit (\d) set MAY", section("3. Contents"))[1]) == layout.IGNORABLE  # type: ignore[index]


def test_forms_and_dtypes() -> None:
    rows = tables("4. Tensor table")[0]
    names = {
        "constant": "FORM_CONSTANT", "dense": "FORM_DENSE", "dense, shared": "FORM_DENSE_SHARED",
        "sparse": "FORM_SPARSE", "sparse, shared": "FORM_SPARSE_SHARED", "copy": "FORM_COPY",
    }  # fmt: skip
    forms = constants("FORM_")
    assert forms.pop("FORM_EXTENDED") == 7 and "If bits 0-2 are 7" in sentences("4. Tensor table")
    assert {names[row[1].split(":")[0]]: int(row[0]) for row in rows if row[0]} == forms
    assert len(forms) == layout.FORMS
    from dcformat.model import STORAGE

    dtypes = {}
    for row in rows:
        about = row[3].split(";")[0].split(":")[0]
        for number, name in zip(row[2].split(", "), about.split(", "), strict=True):
            dtypes[int(number)] = (name, int(row[4]))
    assert dtypes == {layout.DTYPES.index(n): (n, d.itemsize) for n, d in STORAGE.items()}
    text = sentences("4. Tensor table")
    assert f"a dtype of {layout.KERNEL_DTYPES} to {len(layout.DTYPES) - 1} and the form 0, 1 or 3" in text
    assert layout.MAX_RANK == 7
    assert "bits 5-7 rank" in sentences("4. Tensor table")


def test_dtypes_of_ports() -> None:
    cells = [cell for row in tables("5.1 Inputs and outputs")[0] for cell in row]
    found = dict(zip(map(int, cells[::2]), cells[1::2], strict=True))
    assert found == dict(enumerate(PORT_DTYPES))
    text = sentences("5. Graph")
    assert f"{graph_codec.PORTS} is the *long interface*" in text


def test_operators() -> None:
    rows = tables("5.2 Operators")[0]
    assert {int(row[0]): row[1] for row in rows} == {
        number: kind.__name__ for number, kind in graph_attributes.OPERATORS.items()
    }
    for number, _, operands, weights in rows:
        kind = graph_attributes.OPERATORS[int(number)]
        count = str(kind.arity) if kind.arity is not None else f"{kind.least_arity} or more"
        takes = ", c" if kind.takes_constants else ", t" if kind.takes_tensors else ""
        assert operands == count + takes
        assert weights == ", ".join(graph_codec.WEIGHTS.get(kind, ()))
        assert kind.takes_tensors >= kind.takes_constants


def test_attributes() -> None:
    _, rows, words = tables("5.3 Attributes")
    tables_of_words = {name: tuple(listed.split(", ")) for name, listed in words}
    assert tables_of_words == {
        "Reduce": REDUCTIONS, "Unary": UNARY, "Binary": BINARY, "Pad mode": PAD_MODES, "Resize mode": RESIZE_MODES,
        "Resize coordinates": COORDINATES, "Resize rounding": ROUNDINGS,
    }  # fmt: skip
    kinds = {kind.__name__: kind for kind in graph_attributes.ATTRIBUTES}
    assert [(row[0], row[1]) for row in rows] == [
        (kind.__name__, field) for kind, fields in sorted(
            graph_attributes.ATTRIBUTES.items(), key=lambda item: [row[0] for row in rows].index(item[0].__name__)
        ) for field in fields
    ]  # fmt: skip
    for name, kind in kinds.items():
        defaults = [row[3] for row in rows if row[0] == name]
        expected = graph_attributes.DEFAULTS.get(kind)
        assert defaults == ["" for _ in defaults] if expected is None else list(map(shown, expected)), name


def shown(default: object) -> str:
    """Return a default as the specification writes it."""
    if isinstance(default, tuple):
        return " ".join(map(str, default))
    return "none" if default is None else str(int(default)) if isinstance(default, bool) else str(default)


def test_codings() -> None:
    limits = {row[0]: number(row[1].removeprefix("varint, at most ").partition(":")[0])
              for row in tables("5.3 Attributes")[0] if row[1].startswith("varint, at most")}  # fmt: skip
    max_dimension = layout.MAX_RANK - 1
    assert limits == {
        "count": layout.MAX_ATTRIBUTE, "size": layout.MAX_ELEMENTS, "dimension": max_dimension,
        "dimensions": (1 << layout.MAX_RANK) - 1, "integer": 2 * layout.MAX_ATTRIBUTE,
        "optional dimension": max_dimension, "optional tensor": layout.MAX_TENSORS,
    }  # fmt: skip


def test_head_of_an_operator() -> None:
    text = sentences("5.2 Operators")
    masks = (graph_codec.WIRED, graph_codec.BIAS, graph_codec.GIVEN)
    for mask, what in zip(masks, ("the operands are given", "it has a bias", "its attributes are given"), strict=True):
        assert f"bit {mask.bit_length() - 1}: {what}" in text
    assert graph_codec.OPERATOR_MASK == 31 and "bits 0-4 operator" in text
    kinds = (graph_codec.VALUE, graph_codec.TENSOR, graph_codec.CONSTANT)
    assert kinds == (0, 1, 2) and "a remainder of 0 stands for the value x back, 1 for tensor x, and 2" in text


def test_coding_byte() -> None:
    names = {
        "fixed width": "CODER_RAW", "canonical Huffman": "CODER_HUFFMAN",
        "adaptive binary arithmetic coding": "CODER_ADAPTIVE", "logistic mixing": "CODER_MIXING",
        "planes": "CODER_PLANES", "tables by place": "CODER_TABLES", "prediction": "CODER_PREDICTION",
    }  # fmt: skip
    rows = tables("6. Payloads")[0]
    coders = constants("CODER_")
    assert coders.pop("CODER_MASK") == 15
    assert {names[row[1]]: int(row[0]) for row in rows} == coders
    assert len(rows) == layout.CODERS
    text = sentences("6. Payloads")
    bits = {"transposed": layout.CODING_TRANSPOSED, "every element": layout.CODING_EVERY_ELEMENT}
    for what, bit in {**bits, "fillers": layout.CODING_FILLERS, "blocks": layout.CODING_BLOCKS}.items():
        assert f"bit {bit.bit_length() - 1} *{what}*" in text
    assert f"2^{layout.FREE_ELEMENTS.bit_length() - 1} + {layout.ELEMENTS_EACH} x nnz elements [P14]" in text
    assert f"that has {layout.INTERLEAVE_FROM:,} symbols or more" in sentences("6.2 Packed chunks (coders 0 and 1)")


#: Row of the table of limits -> constant of the package.
LIMITS = {
    "rank": "MAX_RANK",
    "elements of a tensor": "MAX_ELEMENTS",
    "bytes of a name, of a metadata key": "MAX_NAME_BYTES",
    "tensors": "MAX_TENSORS",
    "values of a codebook": "MAX_CODEBOOK",
    "bytes of the contents, as stored and before packing": "MAX_CONTENTS_BYTES",
    "operators": "MAX_NODES",
    "operands of an operator": "MAX_INPUTS",
    "inputs of a graph, and outputs": "MAX_PORTS",
    "an attribute of an operator": "MAX_ATTRIBUTE",
    "labels": "MAX_LABELS",
    "bytes of a label": "MAX_LABEL_BYTES",
    "metadata entries": "MAX_METADATA_ENTRIES",
    "bytes of a metadata value": "MAX_METADATA_BYTES",
    "samples of the self-test": "MAX_SELF_TEST_SAMPLES",
    "bytes of a payload": "MAX_PAYLOAD_BYTES",
    "bytes of a data block of several tensors": "MAX_SHARED_BLOCK_BYTES",
    "elements of a line under coders 2 and 3, rows and columns of a transposed tensor": "MAX_CONTEXT_LENGTH",
    "bits of a gap symbol": "MAX_GAP_BITS",
}


def test_limits() -> None:
    rows = {row[0]: number(row[1]) for row in tables("9. Limits")[0]}
    from dcformat.codecs import axis_tables, huffman, value_blocks

    assert rows.pop("bits of a Huffman code") == huffman.LIMIT
    assert rows.pop("tables of a coded plane") == value_blocks.MAX_TABLES
    assert rows.pop("values in a codebook of coder 5") == axis_tables.MAX_CODES
    assert {LIMITS[what]: limit for what, limit in rows.items()} == constants("MAX_")


def test_sizes_of_chunks_whose_elements_are_coded_one_by_one() -> None:
    text = " ".join(SPEC.with_name("coders.md").read_text(encoding="utf-8").split())
    for coder, requirement in zip(layout.MOST_ELEMENTS, ("A11", "A12", "A20"), strict=True):
        before = text.partition(f"[{requirement}] (E06)")[0]
        stated = re.findall(r"above 2\^(\d+)", before)[-2:]
        assert [1 << int(power) for power in stated] == [layout.MOST_ELEMENTS[coder], layout.MOST_COLUMNS], requirement


def test_chunks() -> None:
    rule = f"{layout.FREE_CHUNKS} + (coded + lines) div {layout.CHUNK_LEAST:,}"
    assert rule in sentences("6. Payloads")


def test_preset() -> None:
    text = section("Appendix A. Preset")
    hexadecimal = "".join(line.strip() for line in text.splitlines() if line.startswith("    "))
    assert bytes.fromhex(hexadecimal) == layout.CONTENTS_PRESET


def test_errors() -> None:
    classes = {
        kind.code: kind.__name__
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.FormatError) and kind is not errors.FormatError
    }
    assert {row[0]: row[1] for row in tables("11. Errors")[0]} == classes
