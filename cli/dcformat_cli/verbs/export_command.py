"""`dcformat export`: write a file in the form of another program. Each form has a module `export_FORM`."""

from __future__ import annotations

import click

from dcformat_cli.group import Group
from dcformat_cli.verbs.export_c import c_command
from dcformat_cli.verbs.export_onnx import onnx_command
from dcformat_cli.verbs.export_tensors import scipy_command, state_dict_command


@click.group("export", cls=Group)
def export_command() -> None:
    """Write a file's network or its tensors in the form of another program.

    `dcformat unpack` writes all tensors as .safetensors or .npz, with the same dtypes and bits.
    """


for _command in (c_command, onnx_command, scipy_command, state_dict_command):
    export_command.add_command(_command)
