"""`dcformat inspect`: its figures add up, its text is safe, and it imports only what it needs."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from dcformat_cli.summary import size_line

import dcformat
from dcformat import from_dense
from dcformat.graph import Add, Graph, Output, Port
from dcformat.model import Extension, Model, Tensor
from tests.cli.support import PACK, Invoke, State, refused, spawn


def test_the_ledger_adds_up_to_the_files_size(invoke: Invoke, dcf: Path) -> None:
    document = json.loads(invoke("inspect", dcf, "--json").stdout)
    assert sum(row["bytes"] for row in document["ledger"]) == document["size"] == dcf.stat().st_size


def test_each_tensors_bits_add_up_to_its_bytes(invoke: Invoke, dcf: Path) -> None:
    document = json.loads(invoke("inspect", dcf, "--json").stdout)
    for row in document["tensors"]:
        bits = row["stored"] * (row["bits_per_weight"] + row["bits_per_index"]) + 8 * row["table_bytes"]
        assert bits == pytest.approx(8 * row["bytes"], abs=1 + row["stored"] * 1e-4)


def test_the_figures_are_the_models(invoke: Invoke, dcf: Path, state: State) -> None:
    document = json.loads(invoke("inspect", dcf, "--json").stdout)
    assert document["parameters"] == sum(values.size for values in state.values()) == 266_610
    assert document["float32_bytes"] == 1_066_440
    assert document["ratio"] == pytest.approx(1_066_440 / dcf.stat().st_size, abs=1e-3)
    rows = {row["name"]: row for row in document["tensors"]}
    for name, values in state.items():
        assert rows[name]["shape"] == list(values.shape)
        if name.endswith(".weight"):
            assert rows[name]["stored"] == np.count_nonzero(values)
            assert rows[name]["codebook"] == 16
            assert 0 < rows[name]["bits_per_weight"] <= 4.5
    assert document["network"]["input_shape"] == [784]
    assert [node["kind"] for node in document["network"]["nodes"]] == ["linear", "relu"] * 2 + ["linear"]
    assert document["network"]["preprocessing"] == {"mean": [0.0], "std": [1.0]}


def test_the_table_has_the_papers_columns(invoke: Invoke, dcf: Path) -> None:
    result = invoke("inspect", dcf)
    assert result.exit_code == 0
    assert result.stderr == ""
    size = f"{dcf.stat().st_size:,}"
    assert f"{dcf}: {size} bytes, " in result.stdout
    for word in ("shape", "density", "codebook", "bits/weight", "bits/index", "bytes", "300x784", "fc3.bias", "linear"):
        assert word in result.stdout
    last = result.stdout.splitlines()[-1].split()
    assert last == ["the", "file", size, "100.00", "%"]


def test_from_stdin(invoke: Invoke, dcf: Path) -> None:
    result = invoke("inspect", "-", "--json", stdin=dcf.read_bytes())
    assert json.loads(result.stdout)["size"] == dcf.stat().st_size
    refused(invoke("inspect", "-", stdin=b""), "stdin: not a .dcf file (an empty file) [E01]")
    size = dcf.stat().st_size
    cut = refused(invoke("inspect", "-", stdin=dcf.read_bytes()[:-1]))
    assert cut == f"dcformat: stdin: truncated: {size - 1:,} of {size:,} bytes [E03]"


def test_predicted_memory_matches_the_model(invoke: Invoke, dcf: Path) -> None:
    rows = json.loads(invoke("inspect", dcf, "--memory", "--json").stdout)["memory"]
    memory = {row["what"]: row["bytes"] for row in rows}
    sizes = {
        name: sum(a.nbytes for a in (t.data, t.codebook, t.indptr, t.indices) if a is not None)
        for name, t in dcformat.load(dcf).tensors.items()
    }
    held = memory["all tensors in packed form: sparse rows, codes, codebooks"]
    assert held == pytest.approx(sum(sizes.values()), rel=0.02)
    assert memory["the largest tensor in packed form"] == pytest.approx(max(sizes.values()), rel=0.02)
    assert memory["all tensors in dense form, as float32"] == 1_066_440
    assert any(what.startswith("run: ") for what in memory)
    assert "maximum memory" in invoke("inspect", dcf, "--memory").stdout


def test_a_bag_of_tensors_and_sections_of_a_later_version(invoke: Invoke, tmp_path: Path) -> None:
    tensor = Tensor("t", (2, 2), "float32", np.array([1, 2, 3, 4], "<f4"))
    model = Model({"t": tensor}, extensions=(Extension(100, b"abc"),))
    dcformat.save(model, tmp_path / "a.dcf")
    text = invoke("inspect", tmp_path / "a.dcf").stdout
    assert "no network" in text
    assert "unknown section of kind 100, 3 bytes" in text
    document = json.loads(invoke("inspect", tmp_path / "a.dcf", "--json").stdout)
    assert document["network"] is None
    assert document["extensions"] == [{"kind": 100, "bytes": 3}]


def test_several_inputs_and_outputs(invoke: Invoke, tmp_path: Path) -> None:
    nodes = (Add((0, "t", float("-inf"))), Add((2, 1, 0.5)))
    ports = (Port((2, 1), "x"), Port((), "\x1bstate", "int64", None))
    graph = Graph(ports, nodes, (Output(3, "y"), Output(2, "z", "float64", 1)))
    tensor = Tensor("t", (2,), "float32", np.array([1, 2], "<f4"))
    dcformat.save(Model({"t": tensor}, graph), tmp_path / "a.dcf")
    text = invoke("inspect", tmp_path / "a.dcf").stdout
    lines = [
        "network: 2 add", "input x: float32 (batch, 2, 1)", "input \\x1bstate: int64 ()",
        "output y: float32 (batch, 2, 2)", "output z: float64 (2, batch, 2)",
    ]  # fmt: skip
    assert text.splitlines()[2:7] == lines
    network = json.loads(invoke("inspect", tmp_path / "a.dcf", "--json").stdout)["network"]
    assert network["input_shape"] is None
    assert network["inputs"][0]["shape"] == ["batch", 2, 1]
    assert network["inputs"][1] == {"name": "\x1bstate", "shape": [], "dtype": "int64", "batch_axis": None}
    assert network["outputs"][1] == {
        "name": "z", "value": 2, "shape": [2, "batch", 2], "dtype": "float64", "batch_axis": 1,
    }  # fmt: skip
    assert network["nodes"][0]["inputs"] == [0, "t", {"constant": "-inf"}]
    assert network["nodes"][1]["inputs"] == [2, 1, {"constant": 0.5}]


def test_names_cannot_reach_the_terminal_as_commands(invoke: Invoke, tmp_path: Path) -> None:
    name = "evil\x1b[2J\u202ename"
    tensor = Tensor(name, (2,), "float32", np.array([1, 2], "<f4"))
    dcformat.save(Model({name: tensor}, metadata={"k\x07": "line\nfeed"}), tmp_path / "a.dcf")
    text = invoke("inspect", tmp_path / "a.dcf").stdout
    assert all(unicodedata.category(c) not in ("Cc", "Cf") for c in text.replace("\n", ""))
    assert "\\x1b[2J" in text
    assert "line\\nfeed" in text
    assert json.loads(invoke("inspect", tmp_path / "a.dcf", "--json").stdout)["tensors"][0]["name"] == name


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", " (an empty file)"),
        (b"\0" * 100, ""),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", " (looks like a JPEG image)"),
        (b"PK\3\4 and more", " (looks like a zip archive, as .npz and PyTorch files are: use dcformat pack)"),
        (b"\x02\0\0\0\0\0\0\0{}", " (looks like safetensors: use dcformat pack)"),
        (b"\x08\x07\x12\x07pytorch", " (looks like ONNX: use dcformat pack)"),
        (bytes(257) + b"ustar", " (looks like a tar archive: unpack it first)"),
    ],
)
def test_other_files(invoke: Invoke, tmp_path: Path, content: bytes, found: str) -> None:
    (tmp_path / "a.dcf").write_bytes(content)
    assert refused(invoke("inspect", tmp_path / "a.dcf")).endswith(f"a.dcf: not a .dcf file{found} [E01]")


def test_another_kind_of_file_from_stdin(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stdin").write_bytes(b"%PDF-1.7")
    line = refused(invoke("inspect", "-", stdin=b"\x89PNG\r\n\x1a\n"))
    assert line == "dcformat: stdin: not a .dcf file (looks like a PNG image) [E01]"


def test_missing_files_and_directories(invoke: Invoke, tmp_path: Path) -> None:
    refused(invoke("inspect", tmp_path / "no.dcf"), "no.dcf: no such file or directory")
    refused(invoke("inspect", tmp_path), f"{tmp_path}: expected model.dcf, or a single .dcf file, found none")
    refused(invoke("inspect"), "Missing argument 'FILE'", code=2)


#: `cython_runtime` comes with NumPy 1.
ALLOWED_IN_BASE = {"numpy", "cython_runtime", "dcformat", "bitarray", "crc32c", "google_crc32c"}


@pytest.mark.parametrize(
    "code",
    [
        "import dcformat",
        "import dcformat_runtime",
        "from dcformat_cli.main import cli; cli(['--help'])",
        "from dcformat_cli.main import cli; cli(['inspect', FILE])",
        "from dcformat_cli.main import cli; cli(['verify', '--help'])",
        "from dcformat_cli.main import cli; cli(['compress', '--help'])",
    ],
)
def test_neither_torch_nor_numba_is_loaded(dcf: Path, code: str) -> None:
    program = (
        f"import sys\nFILE = {str(dcf)!r}\ntry:\n    {code}\nexcept SystemExit as e:\n    assert not e.code, e.code\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    result = spawn(program, python=True)
    loaded = set(result.stderr.decode().split())
    assert result.returncode == 0, result.stderr
    assert not loaded & {"torch", "numba", "llvmlite", "scipy", "matplotlib", "safetensors", "onnxruntime"}


def test_importing_dcformat_loads_little() -> None:
    program = "import sys; before = set(sys.modules); import dcformat\nprint(*(set(sys.modules) - before))"
    result = spawn(program, python=True)
    names = {name.partition(".")[0] for name in result.stdout.decode().split()}
    import sys

    foreign = {name for name in names if name not in sys.stdlib_module_names and not name.startswith("_")}
    assert foreign <= ALLOWED_IN_BASE


def test_sizes_are_compared_in_words() -> None:
    assert size_line("f", 50, 25) == "f: 50 bytes, 2.0x smaller than the 100 bytes of its 25 parameters in float32"
    assert size_line("f", 98, 25) == "f: 98 bytes, about as large as the 100 bytes of its 25 parameters in float32"
    assert size_line("f", 60, 1) == "f: 60 bytes, 15.0x as large as the 4 bytes of its 1 parameter in float32"
    assert size_line("f", 36, 0) == "f: 36 bytes, larger than the 0 bytes of its 0 parameters in float32"


def test_details_of_a_tensor(invoke: Invoke, tmp_path: Path) -> None:
    matrix = np.zeros((4, 6), np.float32)
    matrix[0, :4], matrix[2, 1:3] = [0.5, -1, 0.5, 0.5], [-1, 0.5]
    matrix = np.tile(matrix, (16, 1))
    tensors = [from_dense("w", matrix), from_dense("tied", matrix), from_dense("b", np.array([np.inf, 1], np.float32))]
    path = tmp_path / "a.dcf"
    dcformat.save(dcformat.Model({tensor.name: tensor for tensor in tensors}), path)
    names = ("--tensor", "w", "--tensor", "tied", "--tensor", "b")
    document = json.loads(invoke("inspect", path, *names, "--json").stdout)
    first, second, third = document["details"]
    size = {tensor["name"]: tensor["bytes"] for tensor in document["tensors"]}
    assert (first["payload_bytes"], second["payload_bytes"]) == (size["w"], size["w"])
    assert (second["copy_of"], second["offset"], first["copy_of"]) == ("w", first["offset"], None)
    assert sum(first[f"{part}_bits"] for part in ("code", "index", "codebook", "table")) == 8 * size["w"]
    assert first["codebook"] == [{"value": -1.0, "count": 32}, {"value": 0.5, "count": 64}]
    assert first["rows"] == {"rows": 64, "empty": 32, "least": 0, "most": 4}
    assert (first["minimum"], first["maximum"], third["maximum"]) == (-1.0, 0.5, "inf")
    lines = invoke("inspect", path, "--tensor", "w").stdout.splitlines()
    assert lines[0] == "w: float32 (64, 6), sparse, 96 of 384 stored"
    assert "rows: 0 to 4 entries, 32 rows are empty" in lines
    refused(invoke("inspect", path, "--tensor", "v"), "no tensor 'v'", code=2)


def test_parts_cover_the_file(invoke: Invoke, dcf: Path) -> None:
    whole = dcf.read_bytes()
    parts = json.loads(invoke("inspect", dcf, "--hex", "--json").stdout)["parts"]
    assert [part["offset"] for part in parts] == [0, *np.cumsum([part["bytes"] for part in parts])[:-1]]
    assert sum(part["bytes"] for part in parts) == len(whole)
    for part in parts:
        assert bytes.fromhex(part["hex"]) == whole[part["offset"] :][: min(part["bytes"], 16)]
    assert [(part["what"], part["section"]) for part in parts[:2]] == [("magic", "2 File"), ("version", "2 File")]
    assert (parts[-1]["what"], parts[-1]["section"]) == ("content digest", "7 Content digest")
    (payload,) = [part for part in parts if part["what"] == "payload of fc2.weight"]
    inner = json.loads(invoke("inspect", dcf, "--hex", "--tensor", "fc2.weight", "--json").stdout)["parts"]
    assert sum(part["bytes"] for part in inner) == payload["bytes"]
    assert (inner[0]["offset"], inner[0]["hex"][:2]) == (payload["offset"], payload["hex"][:2])
    assert invoke("inspect", dcf, "--hex").stdout.splitlines()[3].split()[-4:] == ["89", "44", "43", "46"]


@pytest.mark.parametrize(
    ("options", "pixels"),
    [((), "pixel / 255"), (("--mean", "0.1307", "--std", "0.3081"), "(pixel / 255 - 0.1307) / 0.3081")],
)
def test_the_preprocessing_of_pixels(
    invoke: Invoke, npz: Path, tmp_path: Path, options: tuple[str, ...], pixels: str
) -> None:
    made = invoke(*PACK, npz, "-o", tmp_path / "a.dcf", "--architecture", "lenet-300-100", *options)
    assert made.exit_code == 0
    assert f"relu; pixels: {pixels}\n" in invoke("inspect", tmp_path / "a.dcf").stdout
