"""`dcformat report`: its page is whole, safe and self-contained, and its numbers are those of the file."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import dcformat
from dcformat.graph import Conv, Graph
from dcformat.model import Extension, Model, SelfTest
from tests.cli.documents import valid
from tests.cli.support import Invoke, refused

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

MODELS = Path(__file__).parents[2] / "models"

#: Elements of HTML that have no end tag.
_VOID = {"meta", "link", "img", "br", "input", "hr"}


class Page(HTMLParser):
    """A parsed page, and what the command printed; fails if a tag is not closed."""

    def __init__(self, text: str, said: str = "") -> None:
        super().__init__()
        self.text, self.said, self.open = text, said, list[str]()
        self.ids, self.uses, self.links = list[str](), set[str](), list[str]()
        self.tags, self.headings, self.words = list[str](), list[int](), list[str]()
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in _VOID:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        for name, value in attrs:
            assert not name.startswith("on")
            if name == "id":
                self.ids.append(str(value))
            elif name in ("aria-labelledby", "for"):
                self.uses.update(str(value).split())
            elif name in ("href", "src", "xlink:href", "srcset", "action", "data"):
                self.links.append(str(value))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def words_shown(self) -> str:
        return " ".join(" ".join(self.words).split())


def page_of(invoke: Invoke, model: Path | Model, folder: Path, *options: object) -> Page:
    """Make a report, check what every page must have, and return it."""
    if isinstance(model, Model):
        dcformat.save(model, folder / "model.dcf")
        model = folder / "model.dcf"
    result = invoke("report", model, "-o", folder / "page.html", "-f", *options)
    assert result.exit_code == 0, result.output
    page = Page((folder / "page.html").read_text(encoding="utf-8"), result.stdout)
    assert len(set(page.ids)) == len(page.ids)
    assert all(link.startswith(("#", "data:image/png;base64,", "data:,")) for link in page.links)
    assert {link[1:] for link in page.links if link.startswith("#")} | page.uses <= set(page.ids)
    assert set(re.findall(r"url\(([^)]*)\)", page.text)) <= {f"#{each}" for each in page.ids}
    assert not {"script", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert page.headings[0] == 1
    assert all(after <= before + 1 for before, after in zip(page.headings, page.headings[1:], strict=False))
    return page


def random(name: str, *shape: int, density: float = 1.0, dtype: str = "float32") -> dcformat.Tensor:
    generator = np.random.default_rng(len(name))
    values = generator.standard_normal(shape).astype(np.float32)
    values[generator.random(shape) >= density] = 0
    return dcformat.from_dense(name, values.astype(dtype), dtype)


def test_a_published_network(invoke: Invoke, tmp_path: Path) -> None:
    page = page_of(invoke, MODELS / "lenet-5.dcf", tmp_path, "--json")
    shown = page.words_shown
    assert "2,379 bytes for 431,080 parameters, 725 times smaller than in float32." in shown
    assert "10 of 20 have weights" in shown
    assert "positions 1,375 57.8 % where the entries are" in shown
    assert "Published results for LeNet-5" in shown
    assert "MIRACLE 2019 3,000 0.69 % Havasi, Peharz and Hernández-Lobato, arXiv:1810.00440" in shown
    assert "STM32L011F4 ✗ too little RAM" in shown
    assert "STM32F030F4 ✓ fits" in shown
    assert "metadata: recipe record" in shown
    assert page.tags.count("svg") == 14  # layers, costs and sizes twice, and eight tensors
    assert page.tags.count("img") == 1
    document = valid("report", page.said)
    assert list(document) == [
        "schema", "file", "output", "bytes", "size", "parameters", "stored", "tensors", "examined", "parts",
        "first_layer", "stages", "sizes", "published", "chips",
    ]  # fmt: skip
    assert document["bytes"] == (tmp_path / "page.html").stat().st_size
    assert document["size"] == 2379
    assert sum(document["parts"].values()) == pytest.approx(2379, abs=0.01)
    assert (document["tensors"], document["examined"], document["first_layer"]) == (8, 8, "conv1.weight")
    sizes = {row["name"]: (row["bytes"], row["exact"]) for row in document["sizes"]}
    assert sizes["safetensors, same dtypes"] == (4 * 431_080 + 8 + 592, True)
    assert sizes["dense int8, a scale for each tensor"] == (431_080 + 32, True)
    assert sizes["xz -6"][1]
    assert [row["bytes"] for row in document["published"]] == [44_000, 15_000, 4_700, 3_000, 2_840]
    chips = {row["chip"]: row["fits"] for row in document["chips"]}
    assert not chips["ATmega328P"] and chips["RP2040"]


def test_names_and_texts_are_only_texts(invoke: Invoke, tmp_path: Path) -> None:
    names = ["<script>alert(1)</script>", "\"quoted' & <b>", "שלום עולם", "\u202eevil", "x" * 255, "line\nfeed",
             "$\\frac{1}{2}$", "名前", "-->", "]]>", "&amp;"]  # fmt: skip
    tensors = {name: random(name, 6, 7, density=0.5) for name in names}
    metadata = {"<img src=x onerror=alert(1)>": "</dd><script>\u202e", "k": "v" * 10_000}
    model = Model(tensors, labels=("<b>", '"'), metadata=metadata, extensions=(Extension(100, b"abc"),))
    page = page_of(invoke, model, tmp_path)
    for name in ("<script>alert(1)</script>", "\"quoted' & <b>", "שלום עולם", "\\u202eevil", "line\\nfeed", "&amp;"):
        assert name in page.words_shown
    assert "</dd><script>\\u202e" in page.words_shown
    assert "\u202e" not in page.text
    assert "x" * 200 not in page.words_shown
    assert "v" * 1000 not in page.text
    assert "kind 100, 3 bytes" in page.words_shown


def test_every_dtype_and_form(invoke: Invoke, tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    bits = {"bfloat16": "<u2", **dict.fromkeys(("float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu"), "u1")}
    tensors = {
        dtype: dcformat.from_dense(dtype, generator.integers(0, 256, (9, 9)).astype(bits.get(dtype, dtype)), dtype)
        for dtype in ("int64", "uint8", "bool", "complex64", "float64", "float16", *bits)
    }
    odd = {
        "not finite": np.array([np.nan, np.inf, -np.inf, 3e38, -3e38], "<f4"), "empty": np.zeros((0, 3), "<f4"),
        "scalar": np.array(3, "<f4"), "zeros": np.zeros((9, 9), "<f4"), "constant": np.full((9, 9), 2.5, "<f4"),
    }  # fmt: skip
    tensors |= {name: dcformat.from_dense(name, values) for name, values in odd.items()}
    page = page_of(invoke, Model(tensors), tmp_path)
    assert "constant" in page.words_shown
    assert "The file has no network, only tensors." in page.words_shown


def test_a_file_without_tensors(invoke: Invoke, tmp_path: Path) -> None:
    page = page_of(invoke, Model({}), tmp_path)
    assert "25 bytes for 0 parameters." in page.words_shown


def test_a_network_of_images_in_colour(invoke: Invoke, tmp_path: Path) -> None:
    graph = Graph.sequential((3, 8, 8), (Conv((0,), "w", None),))
    model = Model({"w": random("w", 4, 3, 3, 3)}, graph, self_test=SelfTest(1, 2, bytes(8)))
    page = page_of(invoke, model, tmp_path)
    assert "4 of 4 have weights. The three channels of the input are red, green and blue" in page.words_shown
    assert "self-test 2 inputs from seed 1" in page.words_shown


def test_the_metric_of_each_stage(invoke: Invoke, tmp_path: Path) -> None:
    model = Model({"w": random("w", 4, 5)}, metadata={"metrics": "dense 0.9912, pruned 0.9876, file 0.9875"})
    page = page_of(invoke, model, tmp_path)
    assert "dense 0.9912 pruned 0.9876 file 0.9875" in page.words_shown
    assert {"stages-wide-title", "stages-narrow-title"} <= set(page.ids)


def test_numbers_at_the_ends_of_their_range(invoke: Invoke, tmp_path: Path) -> None:
    huge, tiny = 1.7e308, 5e-324
    arrays = {
        "book": np.resize([-huge, huge, 0.0, 1.0, 1.0], (20, 64)),
        "dense": huge * np.cos(np.arange(640.0)).reshape(10, 64),
        "tiny": np.resize([tiny, 2 * tiny, 0.0, 0.0, 0.0], (20, 64)),
    }
    metadata = {"metrics": f"a {huge}, b {-huge}, c {tiny}"}
    tensors = {name: dcformat.from_dense(name, values, "float64") for name, values in arrays.items()}
    page = page_of(invoke, Model(tensors, metadata=metadata), tmp_path)
    assert all(name in page.words_shown for name in arrays)


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_first_layer_without_weights_has_no_picture(invoke: Invoke, tmp_path: Path, value: float) -> None:
    weight = dcformat.from_dense("w", np.full((20, 64), value, "f4"), "float32")
    page = page_of(invoke, Model({"w": weight}), tmp_path)
    assert "holds only zeros" in " ".join(page.words)


def test_huffman_codes(invoke: Invoke, tmp_path: Path) -> None:
    generator = np.random.default_rng(2)
    values = (generator.geometric(0.3, (200, 60)).clip(1, 15) * (generator.random((200, 60)) < 0.1)).astype(np.float32)
    dcformat.save(Model({"w": dcformat.from_dense("w", values)}), tmp_path / "a.dcf", mode="fast")
    page = page_of(invoke, tmp_path / "a.dcf", tmp_path)
    assert "Huffman codes have words of whole bits" in page.words_shown
    assert {"codes-gaps-0-title", "codes-codes-0-title"} <= set(page.ids)


@pytest.mark.slow
def test_thousands_of_tensors_make_a_short_page(invoke: Invoke, tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    tensors = {
        f"t{i}": dcformat.from_dense(f"t{i}", generator.standard_normal(2).astype(np.float32)) for i in range(1010)
    }
    page = page_of(invoke, Model(tensors), tmp_path)
    assert "10 tensors were not examined: 1,000 others are larger." in page.words_shown
    assert "710 others" in page.words_shown
    assert len(page.text) < 400_000


def test_tensors_beyond_the_limits_are_named_and_the_rest_is_shown(invoke: Invoke, tmp_path: Path) -> None:
    model = Model({"large": random("large", 600, 500), "small": random("small", 5, 5)})
    page = page_of(invoke, model, tmp_path, "--max-memory", "1000000")
    assert "1 tensor was not examined: it needs more memory than allowed" in page.words_shown
    assert "tensors that were not examined" in page.words_shown


def test_a_page_goes_where_it_should(invoke: Invoke, tmp_path: Path) -> None:
    dcf, out = tmp_path / "small.dcf", tmp_path / "page.html"
    dcformat.save(Model({"w": random("w", 4, 5)}), dcf)
    result = invoke("report", dcf, "-o", "-", "--json")
    Page(result.stdout)
    assert json.loads(result.stderr)["output"] == "stdout"
    piped = invoke("report", "-", "-o", out, stdin=dcf.read_bytes())
    assert re.fullmatch(rf"{re.escape(str(out))}: a page of [\d,]+ bytes about -\n", piped.stdout)
    again = page_of(invoke, dcf, tmp_path).text
    assert again == result.stdout  # the same file makes the same page
    refused(invoke("report", dcf, "-o", out), "-f replaces it", code=2)
    refused(invoke("report", dcf, "-f", "-o", dcf), "expected an output other than the input", code=2)
    refused(invoke("report", tmp_path / "none.dcf", "-o", tmp_path / "b.html"), "no such file")


def test_what_is_refused(invoke: Invoke, dcf: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    (tmp_path / "cut.dcf").write_bytes(dcf.read_bytes()[:-1])
    refused(invoke("report", tmp_path / "cut.dcf", "-o", out), "truncated")
    damaged = bytearray(dcf.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "bad.dcf").write_bytes(damaged)
    refused(invoke("report", tmp_path / "bad.dcf", "-o", out), "bad.dcf")
    base, new = (Model({"w": random("w", 30, density=density)}) for density in (1.0, 0.9))
    dcformat.save(base, tmp_path / "base.dcf")
    dcformat.save(dcformat.delta(new, tmp_path / "base.dcf"), tmp_path / "delta.dcf")
    refused(invoke("report", tmp_path / "delta.dcf", "-o", out), "delta")
    (tmp_path / "empty").mkdir()
    refused(invoke("report", tmp_path / "empty", "-o", out), "expected model.dcf", "found none")
    assert not out.exists()
