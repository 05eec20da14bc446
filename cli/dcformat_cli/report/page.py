"""Makes the page of a report: gathers texts, tables and pictures, and fills the template."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dcformat import __version__
from dcformat.graph import with_batch
from dcformat.model import STORAGE
from dcformat.wording import counted, shaped
from dcformat_cli.report import charts
from dcformat_cli.report.chips import CHIPS, ProgramEstimate
from dcformat_cli.report.facts import PARTS, Facts, TensorFacts
from dcformat_cli.report.pictures import Picture
from dcformat_cli.report.published import PUBLISHED, TITLES
from dcformat_cli.report.stages import recorded_stages
from dcformat_cli.report.tensor_facts import Examined, entropy, position_entropy
from dcformat_cli.report.tree import cells
from dcformat_cli.report.weights_image import montage

if TYPE_CHECKING:
    from jinja2 import Environment

    from dcformat.contents import TensorInfo

#: Tensors in the chart of layers, in pictures of values and codes, and in tables; texts and their characters.
_BARS, _PICTURED, _ROWS, _TEXTS, _LENGTH = 30, 12, 300, 50, 400
#: Symbols of a code that is worth a picture.
_SYMBOLS = 4


class Pictures(NamedTuple):
    """A picture drawn twice: for a wide screen, and for a phone."""

    wide: Picture
    narrow: Picture


@cache
def _templates() -> Environment:
    """Return the environment of the templates, which are compiled at their first use."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("dcformat_cli.report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "short": charts.elided,
        "bytes": "{:,.0f}".format,
        "percent": _percent,
        "tile": charts.short_bytes,
    }
    return environment


def render(facts: Facts) -> str:
    """Return the page as HTML."""
    return _templates().get_template("page.html.jinja").render(
        facts=facts, version=__version__, parts_known=PARTS, **_overview(facts), **_layers(facts), **_values(facts),
        **_costs(facts), **_stages(facts), **_comparison(facts), **_microcontrollers(facts), **_about(facts),
    )  # fmt: skip


def _overview(facts: Facts) -> dict[str, Any]:
    parts = [(part, PARTS[part], size, size / facts.file.size) for part, size in facts.parts.items()]
    missing = Counter(tensor.reason for tensor in facts.tensors if tensor.examined is None)
    dense = 4 * facts.parameters
    return {
        "ratio": dense / facts.file.size, "float32_bytes": dense, "parts": parts, "missing": missing.most_common(10),
        "density": facts.entries / facts.parameters if facts.parameters else 0.0, "cells": cells(facts),
    }  # fmt: skip


def _largest(facts: Facts, count: int) -> list[TensorFacts]:
    """Return the tensors with the largest payloads, in the file's order."""
    order = sorted(range(len(facts.tensors)), key=lambda number: -facts.tensors[number].info.payload_bytes)
    return [facts.tensors[number] for number in sorted(order[:count])]


class TensorRow(NamedTuple):
    """A row of the table of tensors; numbers of bits are None for parts that were not examined or do not exist."""

    name: str
    shape: str
    dtype: str
    form: str
    density: float
    codebook: int
    coder: str
    value_bits: float | None
    position_bits: float | None
    bytes: int


def _layers(facts: Facts) -> dict[str, Any]:
    shown = _largest(facts, _ROWS)
    rows = [_row(tensor) for tensor in shown]
    bars = [
        charts.LayerBar(row.name, row.density, row.value_bits or 0.0, row.position_bits or 0.0)
        for row in map(_row, _largest(facts, _BARS))
    ]
    rest = len(facts.tensors) - len(shown)
    rest_bytes = sum(tensor.info.payload_bytes for tensor in facts.tensors) - sum(row.bytes for row in rows)
    return {
        "rows": rows, "rest": rest, "rest_bytes": rest_bytes, "bars": len(bars),
        "layers_picture": Pictures(charts.layers(bars, True), charts.layers(bars, False)) if bars else None,
    }  # fmt: skip


def _row(tensor: TensorFacts) -> TensorRow:
    info, usage = tensor.info, None if tensor.examined is None else tensor.examined.usage
    sparse, entries = info.form == "sparse", max(info.stored, 1)
    return TensorRow(
        info.name, "x".join(map(str, info.shape)) or "scalar", info.dtype,
        f"a copy of {charts.elided(info.copy_of)}" if info.copy_of else info.form,
        info.stored / info.size if info.size and sparse else 1.0, info.codebook_size, usage.coder if usage else "",
        usage.code_bits / entries if usage else None, usage.index_bits / entries if usage and sparse else None,
        info.payload_bytes,
    )  # fmt: skip


def _values(facts: Facts) -> dict[str, Any]:
    images: dict[str, Any] = {"image": None, "used": None}
    if facts.picture is not None:
        images["image"] = montage(facts.picture.tiles)
        images["used"] = None if facts.picture.used is None else montage(facts.picture.used[None], 1.0)
    pictures: list[tuple[str, Picture]] = []
    for number, tensor in enumerate(_largest(facts, _PICTURED)):
        examined, name = tensor.examined, tensor.info.name
        if examined is not None and examined.codebook is not None:
            pictures.append((name, charts.codebook(number, name, examined)))
        elif examined is not None and examined.histogram is not None:
            pictures.append((name, charts.histogram(number, name, examined.histogram)))
    return {**images, "value_pictures": pictures}


class Cost(NamedTuple):
    """A row of the table of costs, in bits of an entry: of fixed width, by entropy (or None), and as coded."""

    name: str
    coder: str
    fixed: int
    entropy: float | None
    spent: float
    random: float | None
    spent_on_position: float | None


def _costs(facts: Facts) -> dict[str, Any]:
    costs: list[Cost] = []
    pictures: list[tuple[str, Picture]] = []
    for number, tensor in enumerate(_largest(facts, _BARS)):
        examined, info = tensor.examined, tensor.info
        if examined is None or not info.stored or not (info.codebook_size or info.form == "sparse"):
            continue
        usage = examined.usage
        costs.append(_cost(info, examined))
        kinds = [("gaps", usage.gap_code), *(("codes", code) for code in usage.code_codes[:1])]
        pictures += [
            (info.name, charts.code_lengths(number, info.name, kind, code))
            for kind, code in kinds
            if usage.coder == "huffman"
            and code is not None
            and np.count_nonzero(code.counts) >= _SYMBOLS
            and len(pictures) < _PICTURED
        ]
    bars = [
        charts.CostBar(cost.name, cost.spent, *(np.nan if bits is None else bits for bits in (
            cost.entropy, cost.spent_on_position, cost.random,
        )))
        for cost in costs
    ]  # fmt: skip
    drawn = Pictures(charts.costs(bars, True), charts.costs(bars, False)) if bars else None
    return {"costs": costs, "costs_picture": drawn, "code_pictures": pictures}


def _cost(info: TensorInfo, examined: Examined) -> Cost:
    usage, sparse = examined.usage, info.form == "sparse"
    return Cost(
        info.name, usage.coder,
        (info.codebook_size - 1).bit_length() if info.codebook_size else 8 * STORAGE[info.dtype].itemsize,
        None if examined.counts is None else entropy(examined.counts), usage.code_bits / info.stored,
        position_entropy(info.size, info.stored) if sparse else None,
        usage.index_bits / info.stored if sparse else None,
    )  # fmt: skip


def _stages(facts: Facts) -> dict[str, Any]:
    found = recorded_stages(facts.file.metadata)
    picture = None
    if len(found) > 1:
        names, values = zip(*found, strict=True)
        picture = Pictures(charts.stages(names, values, True), charts.stages(names, values, False))
    return {"stages": found, "stages_picture": picture}


def _comparison(facts: Facts) -> dict[str, Any]:
    published = PUBLISHED.get(facts.architecture or "", ())
    bars = [charts.SizeBar("this file", facts.file.size, True)]
    bars += [charts.SizeBar(size.name + ("" if size.exact else " (estimate)"), size.bytes) for size in facts.sizes]
    bars += [charts.SizeBar(f"{each.method}, {each.year}", each.bytes) for each in published]
    bars.sort(key=lambda bar: bar.bytes)
    return {
        "published": published, "published_title": TITLES.get(facts.architecture or ""),
        "sizes_picture": Pictures(charts.sizes(bars, True), charts.sizes(bars, False)),
    }  # fmt: skip


def _microcontrollers(facts: Facts) -> dict[str, Any]:
    program = facts.program
    if not isinstance(program, ProgramEstimate):
        return {"chips": [], "no_program": program}
    rows = [(name, chip, program.flash(chip.processor), program.lacks(chip)) for name, chip in CHIPS.items()]
    return {"chips": rows, "no_program": ""}


def _about(facts: Facts) -> dict[str, Any]:
    file = facts.file
    rows = [
        ("format", f"{file.version[0]}.{file.version[1]}"),
        ("content digest", file.digest.hex()),
        *_network(facts),
        ("labels", _list(file.labels)),
        *((f"metadata: {key}", value) for key, value in list(file.metadata.items())[:_TEXTS]),
    ]
    if len(file.metadata) > _TEXTS:
        rows.append(("metadata", f"{len(file.metadata) - _TEXTS:,} more entries"))
    if file.self_test is not None:
        rows.append(("self-test", f"{counted(file.self_test.samples, 'input')} from seed {file.self_test.seed}"))
    rows += [("unknown section", f"kind {e.kind}, {counted(len(e.payload), 'byte')}") for e in file.extensions[:_TEXTS]]
    return {"about": [(charts.elided(key, 80), charts.elided(text, _LENGTH)) for key, text in rows if text]}


def _network(facts: Facts) -> list[tuple[str, str]]:
    graph = facts.file.graph
    if graph is None:
        return [("network", "none, only tensors")]
    kinds = Counter(node.kind for node in graph.nodes)
    shapes = graph.shapes({name: facts.file.info(name).shape for name in facts.file.names})
    rows = [("network", ", ".join(f"{count} {kind}" for kind, count in kinds.items()))]
    rows += [(f"input {port.name}", f"{port.dtype} {shaped(port.full_shape)}") for port in graph.inputs[:_TEXTS]]
    for output in graph.outputs[:_TEXTS]:
        shape = with_batch(shapes[output.value], output.batch_axis)
        rows.append((f"output {output.name}", f"{output.dtype} {shaped(shape)}"))
    return rows


def _list(texts: Sequence[str]) -> str:
    more = f" … ({len(texts):,})" if len(texts) > 20 else ""
    return ", ".join(charts.elided(text) for text in texts[:20]) + more


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
