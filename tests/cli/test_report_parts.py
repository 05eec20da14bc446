"""The computations of a report: areas of the treemap, numbers, entropies, programs of microcontrollers, colours."""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from dcformat_cli.report.chips import CHIPS, Chip, ProgramEstimate
from dcformat_cli.report.numbers import numbers
from dcformat_cli.report.published import architecture
from dcformat_cli.report.stages import recorded_stages
from dcformat_cli.report.tensor_facts import entropy, examine, position_entropy
from dcformat_cli.report.treemap import Box, cut, squarify

import dcformat
from dcformat.graph import Graph, Linear
from dcformat.model import Model

ROOT = Path(__file__).parents[2]


def test_a_treemap_divides_its_box_by_size() -> None:
    # The example of the paper: a box of 6 by 4.
    boxes = squarify([6, 6, 4, 3, 2, 2, 1], Box(0, 0, 6, 4))
    assert [round(box.width * box.height, 9) for box in boxes] == [6, 6, 4, 3, 2, 2, 1]
    assert boxes[0] == Box(0, 0, 3, 2)
    assert boxes[1] == Box(0, 2, 3, 2)
    assert all(box.x >= 0 and box.x + box.width <= 6 + 1e-9 and box.y + box.height <= 4 + 1e-9 for box in boxes)
    assert squarify([], Box(0, 0, 6, 4)) == []
    assert len(squarify([1e9, *[1e-3] * 50], Box(0, 0, 6, 4))) == 51


def test_strips_lie_across_the_longer_side() -> None:
    assert cut([1, 3], Box(1, 1, 8, 2)) == [Box(1, 1, 2, 2), Box(3, 1, 6, 2)]
    assert cut([1, 1], Box(0, 0, 2, 8)) == [Box(0, 0, 2, 4), Box(0, 4, 2, 4)]


@pytest.mark.parametrize(
    ("dtype", "patterns", "expected"),
    [
        ("bfloat16", [0x3F80, 0xC000], [1.0, -2.0]),
        ("float8_e4m3fn", [0x38, 0x7E, 0x01, 0x80, 0x7F], [1.0, 448.0, 2.0**-9, 0.0, np.nan]),
        ("float8_e5m2", [0x3C, 0x7B, 0x01, 0xBC, 0x7C], [1.0, 57344.0, 2.0**-16, -1.0, np.nan]),
        ("float8_e4m3fnuz", [0x40, 0x7F, 0x80], [1.0, 240.0, np.nan]),
        ("float8_e5m2fnuz", [0x40, 0x7F, 0x80], [1.0, 57344.0, np.nan]),
        ("float8_e8m0fnu", [127, 128, 255], [1.0, 2.0, np.nan]),
    ],
)
def test_bit_patterns_as_numbers(dtype: str, patterns: list[int], expected: list[float]) -> None:
    values = np.array(patterns, "<u2" if dtype == "bfloat16" else "u1")
    np.testing.assert_array_equal(numbers(values, dtype), expected)


def test_numbers_with_a_scale_and_magnitudes() -> None:
    np.testing.assert_array_equal(numbers(np.array([-128, 2], "i1"), "int8", 0.5), [-64.0, 1.0])
    np.testing.assert_array_equal(numbers(np.array([3 + 4j], "<c8"), "complex64"), [5.0])


def test_entropies() -> None:
    assert entropy(np.array([5, 5, 0, 5, 5])) == 2.0
    assert entropy(np.array([7, 0])) == entropy(np.zeros(3, np.int64)) == 0.0
    assert position_entropy(1000, 500) == pytest.approx(2.0)
    assert position_entropy(1000, 1000) == position_entropy(1000, 0) == 0.0


def test_a_tensors_codes_and_histogram() -> None:
    generator = np.random.default_rng(2)
    values = (generator.geometric(0.3, (200, 60)).clip(1, 15) * (generator.random((200, 60)) < 0.1)).astype(np.float32)
    book, (shared, counts) = dcformat.from_dense("book", values), np.unique(values[values != 0], return_counts=True)
    numbers = generator.uniform(-1, 1, 1000).astype(np.float32)
    dense = dcformat.from_dense("dense", numbers)
    fed: list[int] = []
    with dcformat.open(dcformat.dumps(Model({"book": book, "dense": dense}), mode="fast")) as file:
        found = examine(file, "book", lambda pieces: fed.append(sum(len(piece) for piece in pieces)))
        assert found.codebook is not None and found.counts is not None
        assert (found.codebook.tolist(), found.counts.tolist()) == (shared.tolist(), counts.tolist())
        (code,), gaps = found.usage.code_codes, found.usage.gap_code
        assert code.counts[: len(counts)].tolist() == counts.tolist()
        assert gaps is not None
        assert found.usage.index_bits == (gaps.lengths * gaps.counts).sum()
        assert found.usage.code_bits == (code.lengths * code.counts).sum()
        found = examine(file, "dense", lambda pieces: None)
        assert found.histogram is not None
        assert found.histogram.counts.sum() == 1000
        assert (found.histogram.edges[0], found.histogram.edges[-1]) == (numbers.min(), numbers.max())
    assert fed == [12_000]


def test_programs_are_estimated_above_all_measured_ones() -> None:
    layers = {"lenet-5": 4, "lenet-300-100": 3, "lenet-300-100-extreme": 3, "kws_dscnn_int8": 10}
    measured = json.loads((ROOT / "docs" / "results" / "microcontrollers.json").read_text())["networks"]
    compared = [network for network in measured if network["name"] in layers]
    assert len(compared) == 4
    for network in compared:
        row = next(r for r in network["programs"] if (r["numbers"], r["form"]) == ("int8", "fast"))
        # At least this much of the constants are weights; the rest are small tables.
        weights = row["targets"]["cortex-m3"]["rodata"] - 100 * layers[network["name"]]
        for target, sizes in row["targets"].items():
            assert ProgramEstimate(weights, layers[network["name"]], 0).flash(target) >= sizes["flash"], network["name"]


def test_what_a_chip_lacks() -> None:
    chip = Chip(16, 2, "cortex-m0", "")
    assert ProgramEstimate(1000, 2, 1000).lacks(chip) == []
    assert ProgramEstimate(15_000, 2, 1000).lacks(chip) == ["flash"]
    assert ProgramEstimate(1000, 2, 1793).lacks(chip) == ["RAM"]
    assert ProgramEstimate(20_000, 2, 5000).lacks(chip) == ["flash", "RAM"]
    assert ProgramEstimate(1000, 2, 1000).flash("atmega328p") - 1000 == 2 * (
        ProgramEstimate(1000, 2, 1000).flash("cortex-m3") - 1000
    )
    assert len(CHIPS) == 12


def test_only_a_network_with_the_graph_of_an_architecture_is_one() -> None:
    with dcformat.open(ROOT / "models" / "lenet-5.dcf") as file:
        assert architecture(file) == "lenet-5"
        tensors = file.model().tensors
    with dcformat.open(dcformat.dumps(Model(tensors))) as file:
        assert architecture(file) is None
    weight = dcformat.from_dense("w", np.ones((3, 4), np.float32))
    graph = Graph.sequential((4,), (Linear((0,), "w", None),))
    with dcformat.open(dcformat.dumps(Model({"w": weight}, graph))) as file:
        assert architecture(file) is None


def test_stages_come_from_the_metadata() -> None:
    assert recorded_stages({"metrics": "dense 0.99, my stage 1, file -2e-3"}) == [
        ("dense", 0.99), ("my stage", 1.0), ("file", -0.002),
    ]  # fmt: skip
    for text in ("0.98", "dense high", "dense nan, file 1", "dense 1,", ""):
        assert recorded_stages({"metrics": text}) == []
    assert recorded_stages({}) == []


def test_text_has_contrast_in_both_themes() -> None:
    style = (resources.files("dcformat_cli.report") / "templates" / "page.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    themes = [dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block)) for block in blocks]
    assert len(themes) == 2
    for theme in themes:
        for ink in ("ink", "muted", "link", "good", "bad"):
            assert min(_contrast(theme[ink], theme[back]) for back in ("card", "page")) >= 4.5, ink
        for part in ("positions", "values", "codebooks", "tables", "payload", "contents", "checks"):
            assert _contrast(theme["cell-ink"], theme[part]) >= 4.5, part
            assert _contrast(theme[part], theme["card"]) >= 3, part


def _contrast(one: str, other: str) -> float:
    """Return the contrast ratio of the Web Content Accessibility Guidelines."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
