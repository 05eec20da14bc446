"""`dcformat export state-dict` and `dcformat export scipy`: write a file's tensors for PyTorch and for SciPy."""

from __future__ import annotations

import click

from dcformat.wording import counted
from dcformat_cli.failures import UnfitError, require_torch
from dcformat_cli.group import suggestion
from dcformat_cli.input_files import naming, opened
from dcformat_cli.output_files import OutputFile
from dcformat_cli.shared_options import as_json, file_argument, max_memory, max_work, output
from dcformat_cli.terminal import emit_json, say


@click.command("state-dict", short_help="the tensors as a PyTorch state_dict")
@file_argument()
@output("the state_dict")
@max_memory()
@max_work()
@as_json()
def state_dict_command(
    file: str, output: OutputFile, max_memory: int | None, max_work: int | None, as_json: bool
) -> None:
    """Write the tensors of FILE (- for stdin) as a state_dict, which torch.load reads with weights_only=True.

    Names, shapes, dtypes and bits stay the same, except that scaled int8 becomes float32.
    """
    require_torch("a state_dict")
    from dcformat_interop.state_dict_export import write_state_dict

    output.check(file)
    with opened(file, max_memory, max_work) as content:
        model = content.model()
    with naming(file), output.open() as out:
        write_state_dict(model, out, max_memory)
    if as_json:
        tensors = [{"name": t.name, "shape": list(t.shape), "dtype": t.dtype} for t in model.tensors.values()]
        document = {"file": file, "output": str(output), "format": "state-dict", "tensors": tensors}
        emit_json(document, err=output.to_stdout)
    else:
        say(f"{output}: {counted(len(model.tensors), 'tensor')}", err=output.to_stdout)


@click.command("scipy", short_help="a tensor as a SciPy sparse matrix")
@file_argument()
@output("the matrix, OUT.npz,")
@click.option("--tensor", "name", metavar="NAME", help="The tensor [default: the only one of at least two dimensions].")
@max_memory()
@max_work()
@as_json()
def scipy_command(
    file: str, output: OutputFile, name: str | None, max_memory: int | None, max_work: int | None, as_json: bool
) -> None:
    """Write a tensor of FILE (- for stdin) as a sparse matrix in CSR form, which scipy.sparse.load_npz reads.

    Rows are the tensor's first dimension, and columns all others. The tensor is never made dense. Values keep their
    dtype, except that float16, bfloat16 and scaled int8 become float32.
    """
    from dcformat_interop.scipy_export import write_csr

    output.check(file)
    with opened(file, max_memory, max_work) as content:
        tensor = content.tensor(_chosen(file, name, {n: content.info(n).shape for n in content.names}))
    with naming(file), output.open() as out:
        write_csr(file, tensor, out, max_memory)
    if as_json:
        described = {"name": tensor.name, "shape": list(tensor.shape), "dtype": tensor.dtype}
        document = {"file": file, "output": str(output), "format": "scipy", "tensors": [described]}
        emit_json(document, err=output.to_stdout)
    else:
        entries = counted(tensor.nnz, "entry", "entries")
        say(f"{output}: {tensor.name}, {tensor.rows:,} x {tensor.columns:,}, {entries}", err=output.to_stdout)


def _chosen(file: str, name: str | None, shapes: dict[str, tuple[int, ...]]) -> str:
    if name is None:
        matrices = [found for found, shape in shapes.items() if len(shape) >= 2]
        if len(matrices) == 1:
            return matrices[0]
        found = f"{len(matrices)}: give --tensor {'NAME' if not matrices else ' or '.join(matrices[:5])}"
        raise UnfitError(file, "a file with one tensor of at least two dimensions", found)
    if name not in shapes:
        raise UnfitError(file, "a tensor of the file", f"{name!r}{suggestion(name, list(shapes))}", "--tensor")
    return name
