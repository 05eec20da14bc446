"""`dcformat repack`: write the same content with other coders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

import dcformat
from dcformat_cli.group import Choice
from dcformat_cli.input_files import naming, opened
from dcformat_cli.options import as_json, file_argument, max_memory, max_work, output, refuse
from dcformat_cli.output_files import Output
from dcformat_cli.terminal import emit_json, say
from dcformat_cli.writing import packed_model

if TYPE_CHECKING:
    from dcformat import Model
    from dcformat.codecs import Mode

_MODES: tuple[Mode, ...] = ("fast", "small", "tiny")

#: Steps per second of compiled code.
_STEPS = 1e9


@click.command("repack")
@file_argument()
@output("the new file")
@click.option(
    "--mode",
    type=Choice(("auto", *_MODES)),
    default="auto",
    show_default=True,
    help="The coder; auto tries all and keeps the smallest file that decodes within --seconds.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=0.1,
    show_default=True,
    help="With --mode auto: the longest time to decode, at about a billion steps a second.",
)
@max_memory()
@max_work()
@as_json()
def repack_command(
    file: str,
    output: Output,
    mode: Mode | Literal["auto"],
    seconds: float,
    max_memory: int | None,
    max_work: int | None,
    as_json: bool,
) -> None:
    """Write the content of FILE (- for stdin) in another mode.

    Tensors, network, labels and metadata stay the same to the bit; only the coders change. The times that --mode auto
    compares are counts of steps, so that the choice does not depend on the machine. If no mode decodes in time, the one
    that decodes fastest is kept.
    """
    if mode != "auto":
        refuse("only for --mode auto", "seconds")
    output.check(file)
    with opened(file, max_memory, max_work, delta=True) as content:
        model, before = content.model(), content.size
    with naming(file):
        tried = {name: _Packed(model, file, name) for name in (_MODES if mode == "auto" else (mode,))}
    in_time = {name: packed for name, packed in tried.items() if packed.seconds <= seconds}
    kept = min(in_time or tried, key=lambda name: len(tried[name].data) if in_time else tried[name].seconds)
    with output.open() as out:
        out.write(tried[kept].data)
    figures = {name: {"bytes": len(packed.data), "seconds": packed.seconds} for name, packed in tried.items()}
    if as_json:
        document = {"file": file, "output": str(output), "mode": kept, "before": before, "tried": figures}
        emit_json(document, err=output.to_stdout)
        return
    sizes = ", ".join(f"{name} {len(packed.data):,}" for name, packed in tried.items())
    choice = f": kept {kept}" if len(tried) > 1 else ""
    decodes = f"decodes in about {1e3 * tried[kept].seconds:.2g} ms"
    say(f"{output}: {sizes} bytes{choice} (was {before:,}); {decodes}", err=output.to_stdout)


class _Packed:
    """A model packed in a mode, and the estimated time to decode it."""

    def __init__(self, model: Model, label: str, mode: Mode) -> None:
        self.data = packed_model(model, label, mode)
        with dcformat.open(self.data, max_memory=None, max_work=None) as content:
            self.seconds = content.work() / _STEPS
