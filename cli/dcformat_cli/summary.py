"""A file's bytes by purpose: a row for each tensor, as in tables 2 and 3 of Deep Compression, and a ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from dcformat.wording import counted
from dcformat_cli.terminal import TextTable, say

if TYPE_CHECKING:
    from dcformat import DcfFile

_FLOAT32 = 4


@dataclass(frozen=True, slots=True)
class TensorFigures:
    """The figures of one tensor of a file.

    Attributes
    ----------
    weights, entries : int
        Number of elements, and number of stored elements; the zeros of a sparse tensor are implied.
    codebook_size : int
        Number of shared values; 0 if each weight has its own value.
    weight_bits, index_bits : float
        Bits of all codes (or values) and of all indices, as coded.
    other_bits : float
        Bits of the codebook and of the coder's tables.
    size : int
        Number of bytes in the file, the sum of the three above.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    form: str
    weights: int
    entries: int
    codebook_size: int
    coder: str
    weight_bits: float
    index_bits: float
    other_bits: float
    size: int

    @property
    def density(self) -> float:
        """Share of the elements that the file stores, 0 to 1."""
        return self.entries / self.weights if self.weights else 0.0

    @property
    def bits_per_weight(self) -> float:
        """Bits of an entry's code, as coded."""
        return self.weight_bits / self.entries if self.entries else 0.0

    @property
    def bits_per_index(self) -> float:
        """Bits of an entry's index, as coded."""
        return self.index_bits / self.entries if self.entries else 0.0


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of a file's tensors, and its ledger, whose bytes add up to `size`."""

    rows: Sequence[TensorFigures]
    ledger: Sequence[tuple[str, int]]
    size: int

    @property
    def parameters(self) -> int:
        """Number of elements of all tensors."""
        return sum(row.weights for row in self.rows)

    @property
    def float32_bytes(self) -> int:
        """Bytes of all elements as float32, without any header."""
        return _FLOAT32 * self.parameters

    @property
    def ratio(self) -> float:
        """How many times smaller the file is than its elements as float32."""
        return self.float32_bytes / self.size


def summarize(file: DcfFile) -> Summary:
    """Return a file's figures. This decodes each tensor once, to separate the bits of codes from those of indices."""
    rows = []
    for name, usage in file.usages().items():
        info = file.info(name)
        row = TensorFigures(
            name=name,
            shape=info.shape,
            dtype=info.dtype,
            form=info.form,
            weights=prod(info.shape),
            entries=info.stored,
            codebook_size=info.codebook_size,
            coder=usage.coder,
            weight_bits=usage.code_bits,
            index_bits=usage.index_bits,
            other_bits=usage.codebook_bits + usage.table_bits,
            size=info.payload_bytes,
        )
        rows.append(row)
    return Summary(rows, [(entry.what, entry.bytes) for entry in file.ledger()], file.size)


def combined(summaries: Sequence[Summary]) -> Summary:
    """Return the figures of several files together."""
    ledger: dict[str, int] = {}
    for what, size in (row for each in summaries for row in each.ledger):
        ledger[what] = ledger.get(what, 0) + size
    rows = [row for each in summaries for row in each.rows]
    return Summary(rows, list(ledger.items()), sum(each.size for each in summaries))


def headline(name: str, summary: Summary) -> str:
    """Return one line: the size, the ratio to float32, and the number of parameters."""
    return size_line(name, summary.size, summary.parameters)


def size_line(name: str, size: int, parameters: int) -> str:
    """Return the line of `headline` from figures that need no decoding."""
    dense = _FLOAT32 * parameters
    compared = _compared(size, dense)
    return (
        f"{name}: {size:,} bytes, {compared} the {dense:,} bytes of its {counted(parameters, 'parameter')} in float32"
    )


def _compared(size: int, dense: int) -> str:
    """Return how a file's size compares with the size of its elements as float32."""
    if not dense:
        return "larger than"
    if f"{dense / size:.1f}" == "1.0":
        return "about as large as"
    return f"{dense / size:.1f}x smaller than" if size < dense else f"{size / dense:.1f}x as large as"


def layer_table(summary: Summary) -> TextTable:
    """Return the table of tensors, with the bits of an entry's code and index as coded."""
    columns = ("tensor", "shape", "weights", "density", "codebook", "coder", "bits/\nweight", "bits/\nindex", "bytes")
    rows = [_cells(row) for row in summary.rows]
    entries = sum(row.entries for row in summary.rows)
    indexed = sum(row.entries for row in summary.rows if row.form == "sparse")
    total = (
        "together", "", f"{summary.parameters:,}", _percent(entries, summary.parameters), "", "",
        _ratio(sum(row.weight_bits for row in summary.rows), entries),
        _ratio(sum(row.index_bits for row in summary.rows), indexed),
        f"{sum(row.size for row in summary.rows):,}",
    )  # fmt: skip
    return TextTable("tensors", columns, [*rows, total], total=True)


def ledger_table(summary: Summary, whole: str = "the file") -> TextTable:
    """Return the ledger; its last row is the size of the whole."""
    rows = [(what, f"{size:,}", _percent(size, summary.size)) for what, size in summary.ledger]
    rows.append((whole, f"{summary.size:,}", _percent(summary.size, summary.size)))
    return TextTable("where the bytes are", ("part", "bytes", "share"), rows, total=True)


def show_tables(summary: Summary, whole: str = "the file") -> None:
    """Print the tensors, and where the bytes of the whole are."""
    layer_table(summary).show()
    say("")
    ledger_table(summary, whole).show()


def as_json(summary: Summary) -> dict[str, Any]:
    """Return the figures for programs."""
    return {
        "size": summary.size,
        "parameters": summary.parameters,
        "float32_bytes": summary.float32_bytes,
        "ratio": round(summary.ratio, 3),
        "tensors": [
            {
                "name": row.name,
                "shape": list(row.shape),
                "dtype": row.dtype,
                "form": row.form,
                "weights": row.weights,
                "stored": row.entries,
                "density": round(row.density, 6),
                "codebook": row.codebook_size,
                "coder": row.coder,
                "bits_per_weight": round(row.bits_per_weight, 4),
                "bits_per_index": round(row.bits_per_index, 4),
                "table_bytes": round(row.other_bits / 8, 3),
                "bytes": row.size,
            }
            for row in summary.rows
        ],
        "ledger": [{"what": what, "bytes": size} for what, size in summary.ledger],
    }


def _cells(row: TensorFigures) -> tuple[str, ...]:
    return (
        row.name,
        "x".join(map(str, row.shape)) or "scalar",
        f"{row.weights:,}",
        _percent(row.entries, row.weights) if row.form == "sparse" else row.form,
        f"{row.codebook_size:,}" if row.codebook_size else "-",
        row.coder,
        f"{row.bits_per_weight:.2f}",
        f"{row.bits_per_index:.2f}" if row.form == "sparse" else "-",
        f"{row.size:,}",
    )


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f} %" if whole else "-"


def _ratio(bits: float, count: int) -> str:
    return f"{bits / count:.2f}" if count else "-"
