"""`dcformat run` gives the same answers as the network computed by hand, and clear errors for unsuitable input."""

from __future__ import annotations

import io
import json
import os
import pty
import shutil
import subprocess
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from dcformat_cli.array_files import read_arrays

import dcformat
from dcformat.model import Model
from dcformat.records import replace
from tests.cli.support import PACK, Invoke, State, blobs, command, environment, read_terminal, refused, write_idx


def by_hand(state: State, x: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    value = x.reshape(len(x), -1).astype(np.float64)
    for layer in ("fc1", "fc2", "fc3"):
        value = value @ state[f"{layer}.weight"].T.astype(np.float64) + state[f"{layer}.bias"]
        value = value if layer == "fc3" else np.maximum(value, 0)
    return value


def test_accuracy_on_a_data_set(invoke: Invoke, dcf: Path, data: Path, state: State) -> None:
    images, labels = blobs(200, 2)
    expected = int((by_hand(state, images / np.float32(255)).argmax(1) == labels).sum())
    document = json.loads(invoke("run", dcf, "--data", data, "--json").stdout)
    assert document == {
        "schema": 1, "file": str(dcf), "backend": document["backend"], "images": 200, "correct": expected,
        "accuracy": expected / 200,
    }  # fmt: skip
    assert document["backend"] in ("numba", "numpy")
    text = invoke("run", dcf, "--data", data).stdout
    accuracy = expected / 2
    shown = f"{expected} of 200 test images right: accuracy {accuracy:.2f} %, error {100 - accuracy:.2f} % (backend "
    assert shown in text


def test_the_data_variable_and_stdin(invoke: Invoke, dcf: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DCFORMAT_DATA", str(data))
    assert json.loads(invoke("run", "-", "--json", stdin=dcf.read_bytes()).stdout)["images"] == 200


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_an_array_to_logits(invoke: Invoke, dcf: Path, tmp_path: Path, state: State, dtype: type) -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (1030, 784)).astype(np.uint8)
    x = pixels if dtype is np.uint8 else (pixels / 255).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    out = tmp_path / "logits.npy"
    assert invoke("run", dcf, "--input", tmp_path / "x.npy", "-o", out).exit_code == 0
    logits = np.load(out)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, by_hand(state, (pixels / 255).astype(np.float32)), rtol=1e-4, atol=1e-4)


def test_classes_without_a_label_go_by_their_number(invoke: Invoke, dcf: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(6).random((40, 784), np.float32)
    np.save(tmp_path / "x.npy", x)
    model = dcformat.load(dcf)
    classes = json.loads(invoke("run", dcf, "--input", tmp_path / "x.npy", "--json").stdout)["classes"]
    count = sorted(set(classes))[-1]  # every class found has a label, except the last
    named = tmp_path / "named.dcf"
    dcformat.save(replace(model, labels=tuple(f"class {k}" for k in range(count))), named)
    expected = [str(index) if index == count else f"class {index}" for index in classes]
    assert str(count) in expected
    assert invoke("run", named, "--input", tmp_path / "x.npy").stdout.splitlines() == expected
    document = json.loads(invoke("run", named, "--input", tmp_path / "x.npy", "--json").stdout)
    assert document["labels"] == expected and document["classes"] == classes


def test_an_array_to_classes_and_labels(invoke: Invoke, npz: Path, tmp_path: Path, state: State) -> None:
    x = np.random.default_rng(6).random((5, 784), np.float32)
    buffer = io.BytesIO()
    np.save(buffer, x)
    names = [f"class-{digit}" for digit in range(10)]
    packed = tmp_path / "a.dcf"
    invoke(*PACK, npz, "-o", packed, "--architecture", "lenet-300-100", "--labels", ",".join(names))
    expected = by_hand(state, x).argmax(1).tolist()
    result = invoke("run", packed, "--input", "-", stdin=buffer.getvalue())
    assert result.stdout.split() == [names[index] for index in expected]
    document = json.loads(invoke("run", packed, "--input", "-", "--json", stdin=buffer.getvalue()).stdout)
    assert document["classes"] == expected
    assert document["labels"] == [names[index] for index in expected]


def test_an_empty_batch(invoke: Invoke, dcf: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((0, 784), np.float32))
    assert invoke("run", dcf, "--input", tmp_path / "x.npy", "-o", tmp_path / "y.npy").exit_code == 0
    assert np.load(tmp_path / "y.npy").shape == (0, 10)
    document = json.loads(invoke("run", dcf, "--input", tmp_path / "x.npy", "--json").stdout)
    assert (document["images"], document["classes"], document["outputs"][0]["shape"]) == (0, [], [0, 10])
    assert document["outputs"][0]["mean"] is None


@pytest.mark.parametrize("backend", ["auto", "numpy"])
def test_the_backends_agree(invoke: Invoke, dcf: Path, data: Path, backend: str) -> None:
    plain = json.loads(invoke("run", dcf, "--data", data, "--json").stdout)
    arguments = ["run", dcf, "--data", data, "--json", "--backend", backend, "--threads", "1", "--deterministic"]
    found = json.loads(invoke(*arguments).stdout)
    assert backend in ("auto", found["backend"])
    assert found == {**plain, "backend": found["backend"]}


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 783), np.float32), "expected (batch, 784), found (2, 783)"),
        (np.zeros((2, 784)), "expected float32 or uint8, found float64"),
        (np.zeros((2, 784), np.int32), "expected float32 or uint8, found int32"),
        (np.float32(3), "input shape: expected (batch, 784), found ()"),
        (np.array([{}], object), "expected a NumPy .npy array of numbers, found pickled objects"),
    ],
)
def test_arrays_that_do_not_fit(
    invoke: Invoke, dcf: Path, tmp_path: Path, array: npt.NDArray[np.generic], message: str
) -> None:
    np.save(tmp_path / "x.npy", array)
    (tmp_path / "y.npy").write_bytes(b"precious")
    refused(invoke("run", dcf, "--input", tmp_path / "x.npy", "-f", "-o", tmp_path / "y.npy"), "x.npy: ", message)
    assert (tmp_path / "y.npy").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a NumPy .npy array or .npz archive of numbers (an empty file)"),
        (b"\2\0\0\0\0\0\0\0{}", "not a NumPy .npy array or .npz archive of numbers (looks like safetensors: use"),
        (b"text", "not a NumPy .npy array or .npz archive of numbers (bytes of no known kind)"),
        (b"PK\3\4", "expected a NumPy .npz archive of plain arrays, found a damaged one"),
        (b"\x93NUMPY", "expected a NumPy .npy array of numbers, found a damaged one"),
        (b"\x93NUMPY\x01\x00\x10\x00nonsense........", "expected a NumPy .npy array of numbers, found a damaged one"),
    ],
)
def test_files_that_are_not_arrays(invoke: Invoke, dcf: Path, tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.npy").write_bytes(content)
    refused(invoke("run", dcf, "--input", tmp_path / "x.npy"), f"x.npy: {message}")


def test_an_array_cut_short(invoke: Invoke, dcf: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 784), np.float32))
    raw = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(raw[:-1])
    refused(invoke("run", dcf, "--input", tmp_path / "x.npy"), "x.npy: expected a NumPy .npy array")


@pytest.mark.parametrize("shape", [(0, 1 << 62), (1 << 63,), (1 << 31, 0, 1 << 31)])
def test_shapes_that_numpy_does_not_support(invoke: Invoke, dcf: Path, tmp_path: Path, shape: tuple[int, ...]) -> None:
    with (tmp_path / "x.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    message = f"x.npy: expected a shape that NumPy supports, found {shape}"
    refused(invoke("run", dcf, "--input", tmp_path / "x.npy"), message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "y.npy"], "-o needs --input"),
        (["--input", "x.npy", "--data", "d"], "found both"),
        (["--threads", "0"], "0 is not in the range"),
        (["--backend", "gpu"], "'gpu' is not one of"),
    ],
)
def test_misuse(invoke: Invoke, dcf: Path, options: list[str], message: str) -> None:
    refused(invoke("run", dcf, *options), message, code=2)


def test_a_file_without_preprocessing(invoke: Invoke, dcf: Path, data: Path, tmp_path: Path) -> None:
    model = dcformat.load(dcf)
    assert model.graph is not None
    dcformat.save(replace(model, graph=replace(model.graph, preprocessing=None)), tmp_path / "raw.dcf")
    result = invoke("run", tmp_path / "raw.dcf", "--data", data)
    refused(result, "raw.dcf: input dtype: expected float32, found uint8", "no preprocessing")


def test_a_file_without_a_network(invoke: Invoke, dcf: Path, tmp_path: Path) -> None:
    dcformat.save(Model(dcformat.load(dcf).tensors), tmp_path / "bag.dcf")
    refused(invoke("run", tmp_path / "bag.dcf"), "bag.dcf: invalid: graph: expected a network to run", "[E11]")


def test_data_directories_that_cannot_be_used(invoke: Invoke, dcf: Path, data: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(invoke("run", dcf, "--data", empty), f"{empty}: expected a directory with train-images", "found none")
    refused(invoke("run", dcf, "--data", tmp_path / "no"), "no: expected a directory", "found nothing")
    part = tmp_path / "part"
    part.mkdir()
    shutil.copy(data / "t10k-images-idx3-ubyte.gz", part)
    refused(invoke("run", dcf, "--data", part), f"{part}: expected t10k-labels-idx1-ubyte(.gz), found no such file")
    wide, many = tmp_path / "wide", tmp_path / "many"
    wide.mkdir()
    many.mkdir()
    write_idx(wide, "t10k", np.zeros((3, 32, 32), np.uint8), np.zeros(3, np.uint8))
    refused(invoke("run", dcf, "--data", wide), f"{wide}: expected images of 784 values", "found 32x32 pixels")
    write_idx(many, "t10k", np.zeros((3, 28, 28), np.uint8), np.array([1, 26, 3], np.uint8))
    refused(invoke("run", dcf, "--data", many), f"{many}: expected at most 10 classes, found 27")


def npy(header: str, data: bytes = b"", version: int = 1) -> bytes:
    """Return a .npy file with any text as its header."""
    raw = header.encode()
    return b"\x93NUMPY" + bytes((version, 0)) + len(raw).to_bytes(2 if version == 1 else 4, "little") + raw + data


PIXELS = "'descr': '<f4', 'fortran_order': False, 'shape': "


@pytest.mark.parametrize(
    "raw",
    [
        npy("{'descr': '<f4', \n 'fortran_order"),  # which makes Python's tokenizer fail
        npy("(" * 9000),
        npy("{" + PIXELS + "9" * 5000 + "}"),
        npy("{" + PIXELS + "(-1, 784)}"),
        npy("{" + PIXELS + "(True, 784)}"),
        npy("{" + PIXELS + "[1, 784]}"),
        npy("{" + PIXELS + "(1.0, 784)}"),
        npy("{" + PIXELS + f"{(1,) * 33}" + "}"),
        npy("{'descr': '<f3', 'fortran_order': False, 'shape': (1,)}", bytes(3)),
        npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", bytes(4)),
        npy("{'descr': '<U1', 'fortran_order': False, 'shape': (1,)}", bytes(4)),
        npy("{'descr': '\\d', 'fortran_order': False, 'shape': (1,)}"),
        npy("{'shape': (1,)}"),
        npy("__import__('os').abort()"),
        npy("\0"),
        npy(" " * 10_001 + "{" + PIXELS + "(0, 784)}", version=2),
        b"\x93NUMPY\2\0\xff\xff\xff\xff",
        b"\x93NUMPY\4\0" + bytes(100),
    ],
)
def test_hostile_headers(invoke: Invoke, dcf: Path, tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "x.npy").write_bytes(raw)
    refused(invoke("run", dcf, "--input", tmp_path / "x.npy"), "x.npy: expected a NumPy .npy array of numbers, found")


def test_headers_that_declare_more_than_the_array_holds(invoke: Invoke, dcf: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(npy("{" + PIXELS + "(1000000, 784)}"))
    refused(invoke("run", dcf, "--input", path), "x.npy: expected", "with 3,136,000,000 bytes", "found 0 bytes")
    refused(
        invoke("run", dcf, "--input", path, "--max-memory", "100M"),
        "x.npy: needs more memory than --max-memory allows: array: ",
        "expected at most 104,857,600, found 3,136,000,000 bytes [E07]",
    )
    path.write_bytes(npy("{" + PIXELS + "(1, 784)}", bytes(4 * 784 + 1)))
    refused(invoke("run", dcf, "--input", path), "x.npy: expected", "with 3,136 bytes", "found more")


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_form_of_array(tmp_path: Path, version: tuple[int, int], order: Literal["C", "F"]) -> None:
    path = tmp_path / "x.npy"
    for dtype in ("u1", "<f4", ">f4", "<i8", "?", "<c16", "<f2"):
        values = np.arange(24).reshape(2, 3, 4).astype(dtype, order=order)
        with path.open("wb") as file:
            np.lib.format.write_array(file, values, version)
        found = read_arrays(str(path))
        assert isinstance(found, np.ndarray)
        assert found.dtype == values.dtype and np.array_equal(found, values)


def test_progress_on_a_terminal(dcf: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((30_000, 784), np.uint8))
    master, slave = pty.openpty()
    process = subprocess.Popen(
        command("run", dcf, "--input", tmp_path / "x.npy", "-o", tmp_path / "y.npy"),
        stdout=subprocess.DEVNULL, stderr=slave, stdin=slave, env={**environment(), "TERM": "xterm"},
    )  # fmt: skip
    os.close(slave)
    assert b"of 30,000)" in read_terminal(master)
    assert process.wait(timeout=60) == 0
    assert np.load(tmp_path / "y.npy").shape == (30_000, 10)
