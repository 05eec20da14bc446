"""`dcformat export onnx`: write a file's network as an ONNX model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dcformat_cli.failures import UnfitError, require_onnx
from dcformat_cli.input_files import naming, opened
from dcformat_cli.output_files import OutputFile
from dcformat_cli.shared_options import as_json, file_argument, max_memory, max_work, output
from dcformat_cli.terminal import emit_json, note, say

if TYPE_CHECKING:
    from dcformat import Model


@click.command("onnx", short_help="the network as an ONNX model")
@file_argument()
@output("the ONNX model")
@click.option(
    "--sparse", is_flag=True, help="Store weights with few entries as sparse initializers, which are smaller."
)
@max_memory()
@max_work()
@as_json()
def onnx_command(
    file: str, output: OutputFile, sparse: bool, max_memory: int | None, max_work: int | None, as_json: bool
) -> None:
    """Write the network of FILE (- for stdin) as an ONNX model, and check it.

    Names of inputs, outputs and tensors stay the same, and so do the dtypes of tensors. The model takes preprocessed
    input; mean, std and labels become its metadata. It must pass onnx's checker and compute the same outputs as the
    file from random inputs, in onnxruntime or, if that is not installed, in onnx's evaluator.
    """
    require_onnx("an ONNX model")
    from dcformat_interop.onnx_export import to_onnx

    output.check(file)
    with opened(file, max_memory, max_work) as content:
        if content.graph is None:
            raise UnfitError(file, "a file with a network", "one that holds only tensors (see unpack)")
        model = content.model()
    with naming(file):
        made = to_onnx(model, sparse=sparse, max_memory=max_memory)
        checked = _checked(str(output), model, made, max_memory, max_work)
    with output.open() as out:
        out.write(made)
    if as_json:
        document = {"file": file, "output": str(output), "format": "onnx", "bytes": len(made), "check": checked}
        emit_json(document, err=output.to_stdout)
    else:
        say(f"{output}: {len(made):,} bytes", err=output.to_stdout)


def _checked(
    path: str, model: Model, made: bytes, max_memory: int | None, max_work: int | None
) -> dict[str, Any] | None:
    """Compare the ONNX model with a session; return None if the session takes no random inputs."""
    from dcformat_interop.onnx_export.export_checking import check_export
    from dcformat_runtime import InputError, Session

    session = Session.from_model(model, max_memory=max_memory, max_work=max_work)
    try:
        compared = check_export(path, model, made, session)
    except InputError as error:
        note(f"not checked, as the network does not take random inputs ({error})")
        return None
    note(compared.describe())
    return {"engine": compared.engine, "difference": compared.difference}
