"""Make the vectors of a version, once: `python spec/make_vectors.py`. Existing files are never overwritten.

The tensors of valid files and the error codes of invalid files are known before the files are made, so the manifest
does not depend on any decoder. The reference decoder and the package must both agree with it before anything is
written.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from generator import (  # noqa: E402
    boundaries,
    broken_graphs,
    broken_planes,
    container,
    deltas,
    graph_runs,
    graphs,
    lies,
    modelled,
    payloads,
    planes,
    predicted,
    samples,
    written,
)  # fmt: skip
from generator.samples import Invalid, Valid  # noqa: E402
from reference_decoder import apply, decode, summary  # noqa: E402
from reference_reader import DecodeError  # noqa: E402
from run_arrays import Array, from_bits  # noqa: E402
from run_graph import run  # noqa: E402

import dcformat  # noqa: E402
from dcformat.errors import FormatError  # noqa: E402

FOLDER = Path(__file__).parent / "vectors" / "v1"


def valid() -> Iterator[Valid]:
    """All valid vectors."""
    yield from container.valid_container()
    yield from graphs.valid_graphs()
    yield from payloads.valid_payloads()
    yield from modelled.valid_modelled()
    for name, ids, item in planes.valid_planes():
        yield samples.valid(name, [item], ids=ids)
    yield from predicted.valid_predicted()
    yield from boundaries.valid_boundaries()
    yield from (made for made, _ in graph_runs.runs())
    yield from written.valid_written()
    yield from written.valid_models()


def invalid() -> Iterator[Invalid]:
    """All invalid vectors."""
    yield from container.invalid_container()
    yield from container.invalid_table()
    yield from payloads.invalid_dense_payloads()
    yield from broken_graphs.invalid_graphs()
    yield from payloads.invalid_payloads()
    yield from broken_planes.invalid_planes()
    yield from lies.invalid_modelled()
    yield from predicted.invalid_predicted()
    yield from boundaries.invalid_boundaries()
    yield from deltas.invalid_deltas()


def entry(data: bytes, requirements: str, **more: object) -> dict[str, Any]:
    """Return the manifest's entry for a file."""
    digest = hashlib.sha256(data).hexdigest()
    return {"bytes": len(data), "file_sha256": digest, "requirements": requirements.split(), **more}


def verify(data: bytes) -> None:
    """Decode all of a file with the package."""
    with dcformat.open(data) as file:
        file.verify()


def evaluated(data: bytes, inputs: list[list[float]]) -> list[list[float]]:
    """Return the results of a graph of float32 tensors for one sample."""
    file = decode(data)
    assert file.graph is not None
    tensors = {
        name: Array(tensor.shape, [from_bits(bits) for bits in tensor.values]) for name, tensor in file.tensors.items()
    }
    given = [Array(port["shape"], values) for port, values in zip(file.graph["inputs"], inputs, strict=True)]
    return [output.values for output in run(file.graph, tensors, given)]


def code_of(decoder: Callable[..., object], *data: bytes) -> str:
    """Return the code of the error that a decoder finds."""
    try:
        decoder(*data)
    except (DecodeError, FormatError) as error:
        return error.code
    return "none"


def main() -> int:
    """Make all files and the manifest, or none."""
    files: dict[Path, bytes] = {}
    manifest: dict[str, dict[str, Any]] = {"valid": {}, "invalid": {}}
    inputs = {made[0]: given for made, given in graph_runs.runs()}
    for name, requirements, data, tensors in valid():
        holds = summary(decode(data))
        verify(data)
        for found in holds["tensors"]:
            tensor = tensors[found["name"]]
            about = {"name": found["name"], "shape": list(tensor.shape), "dtype": tensor.dtype, "scale": tensor.scale}
            assert found == {**about, **tensor.hashes()}, name
        assert len(holds["tensors"]) == len(tensors), name
        path = FOLDER / "valid" / f"{name}.dcf"
        assert path not in files, name
        files[path] = data
        manifest["valid"][path.name] = entry(data, requirements, holds=holds)
        if name in inputs:
            outputs = evaluated(data, inputs[name])
            manifest["valid"][path.name]["run"] = {"inputs": inputs[name], "outputs": outputs}
    for name, expected, requirements, data in invalid():
        assert (code_of(decode, data), code_of(verify, data)) == (expected, expected), name
        path = FOLDER / "invalid" / f"{name}.dcf"
        assert path not in files, name
        files[path] = data
        manifest["invalid"][path.name] = entry(data, requirements, code=expected)
    manifest["deltas"] = {}
    for name, requirements, data, base, made in deltas.deltas():
        path, base_path = FOLDER / "deltas" / f"{name}.dcf", FOLDER / "deltas" / f"base_of_{name}.dcf"
        files[path], files[base_path] = data, base
        verify(data)
        if isinstance(made, str):
            assert (code_of(apply, data, base), code_of(dcformat.apply, data, base)) == (made, made), name
            manifest["deltas"][path.name] = entry(data, requirements, code=made)
            continue
        holds = summary(apply(data, base))
        assert holds["tensors"] == summary(decode(dcformat.dumps(dcformat.apply(data, base))))["tensors"], name
        assert [found["sha256"] for found in holds["tensors"]] == [t.hashes()["sha256"] for t in made.values()], name
        manifest["deltas"][path.name] = entry(data, requirements, holds=holds)
    files[FOLDER / "manifest.json"] = (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode()
    existing = [path for path in files if path.exists()]
    if existing:
        print(f"vectors are frozen: {existing[0]} exists", file=sys.stderr)
        return 1
    for path, data in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    total = sum(map(len, files.values()))
    counts = (
        f"{len(manifest['valid'])} valid, {len(manifest['invalid'])} invalid files, {len(manifest['deltas'])} deltas"
    )
    print(f"{counts}; {total} bytes with the manifest")
    return 0


if __name__ == "__main__":
    sys.exit(main())
