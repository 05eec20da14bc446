"""The details of `inspect --tensor`: a tensor's place, its bits by purpose, its codebook, its values, its rows."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from dcformat.conversions import numbers_of
from dcformat.wording import counted, shaped
from dcformat_cli.byte_map import payload_offset
from dcformat_cli.terminal import TextTable, say

if TYPE_CHECKING:
    from dcformat import DcfFile
    from dcformat.model import Tensor

#: Maximum number of values of a codebook that a table shows.
_SHOWN = 32


def details(file: DcfFile, name: str) -> dict[str, Any]:
    """Return the details of a tensor, which is decoded, for programs. Raises `FormatError`."""
    info, tensor = file.info(name), file.tensor(name)
    usage = file.usage(info.copy_of or name)
    stored = numbers_of(tensor.data if tensor.codebook is None else tensor.codebook, tensor)
    finite = None if stored is None or np.iscomplexobj(stored) else stored
    return {
        "name": name,
        "copy_of": info.copy_of,
        "block": info.block,
        "offset": payload_offset(file, info),
        "payload_bytes": file.info(info.copy_of or name).payload_bytes,
        "code_bits": usage.code_bits,
        "index_bits": usage.index_bits,
        "codebook_bits": usage.codebook_bits,
        "table_bits": usage.table_bits,
        "codebook": _codebook(tensor),
        "minimum": None if finite is None or not finite.size else _number(finite.min()),
        "maximum": None if finite is None or not finite.size else _number(finite.max()),
        "rows": _rows(tensor),
    }


def _codebook(tensor: Tensor) -> list[dict[str, Any]] | None:
    if tensor.codebook is None:
        return None
    counts = np.bincount(tensor.data, minlength=len(tensor.codebook)).tolist()
    values = numbers_of(tensor.codebook, tensor)
    assert values is not None  # dtypes with codebooks are numbers
    return [{"value": _number(value), "count": count} for value, count in zip(values, counts, strict=True)]


def _rows(tensor: Tensor) -> dict[str, int] | None:
    if tensor.indptr is None or not tensor.rows:
        return None
    entries = np.diff(tensor.indptr)
    return {
        "rows": tensor.rows, "empty": int(np.count_nonzero(entries == 0)), "least": int(entries.min()),
        "most": int(entries.max()),
    }  # fmt: skip


def _number(value: Any) -> int | float | str:
    number: int | float = value.item()
    return number if isfinite(number) else str(number)


def show(file: DcfFile, found: Mapping[str, Any]) -> None:
    """Print the details of a tensor."""
    info = file.info(found["name"])
    say(f"{found['name']}: {info.dtype} {shaped(info.shape)}, {info.form}, {info.stored:,} of {info.size:,} stored")
    place = f"payload: {found['payload_bytes']:,} bytes at byte {found['offset']:,} (data block {found['block']})"
    say(place if found["copy_of"] is None else f"{place}, a copy of {found['copy_of']}")
    bits = {key: found[f"{key}_bits"] for key in ("code", "index", "codebook", "table")}
    say("bits: " + ", ".join(f"{key} {count:,.0f}" for key, count in bits.items()))
    if found["minimum"] is not None:
        say(f"stored values: {found['minimum']} to {found['maximum']}")
    if found["rows"] is not None:
        rows = found["rows"]
        say(f"rows: {rows['least']:,} to {counted(rows['most'], 'entry', 'entries')}, {rows['empty']:,} rows are empty")
    if found["codebook"] is not None:
        codebook = found["codebook"]
        total = sum(entry["count"] for entry in codebook) or 1
        rows = [
            (str(entry["value"]), f"{entry['count']:,}", f"{100 * entry['count'] / total:.2f} %")
            for entry in codebook[:_SHOWN]
        ]
        TextTable("codebook", ("value", "entries", "share"), rows).show()
        if len(codebook) > _SHOWN:
            say(f"and {counted(len(codebook) - _SHOWN, 'more value')} (--json has all)")
