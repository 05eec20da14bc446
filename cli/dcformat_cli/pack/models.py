"""Packs a model in memory: the rewrites that keep its function, the choice of a mode, and the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import dcformat
from dcformat.errors import FormatError
from dcformat.model import Model
from dcformat_cli import summary
from dcformat_cli.pack import delta_packing
from dcformat_cli.pack.pack_options import PackOptions
from dcformat_cli.terminal import emit_json, say
from dcformat_cli.writing import packed_in, packed_model, say_choice, trials_as_json

if TYPE_CHECKING:
    from dcformat.codecs import Mode
    from dcformat.modes import AnyMode, SmallestFile


def packed(model: Model, options: PackOptions) -> SmallestFile:
    """Return the model's bytes in the chosen mode, or those of its delta."""

    def make(mode: Mode) -> bytes:
        new = rewritten(model, mode, options)
        if options.base is not None:
            return delta_packing.packed_delta(new, options.base, str(options.output), mode, options.max_memory)
        return packed_model(new, str(options.output), mode, options.relative_index)

    return packed_in(mode_of(options), make, model.elements, options.seconds)


def rewritten(model: Model, mode: Mode, options: PackOptions) -> Model:
    """Apply the requested transforms, which keep the network's function and save bytes in a mode."""
    from dcformat import transforms

    if options.fold_scales:
        model = transforms.fold_scales(model, mode)
    if options.reorder_units:
        model = transforms.reorder_units(model, mode)
    if options.self_test is not None:
        from dcformat_runtime import InputError
        from dcformat_runtime.self_testing import with_self_test

        try:
            model = with_self_test(model, options.self_test)
        except FormatError:
            raise
        except InputError as error:
            raise ValueError(f"{options.checkpoint}: self-test: {error}") from None
        except ValueError as error:
            raise ValueError(f"{options.checkpoint}: {error}") from None
    return model


def write_and_report(options: PackOptions, left_out: Mapping[str, str], model: Model, made: SmallestFile) -> None:
    """Write the file, and print its size and why its mode was kept."""
    output = options.output
    with output.open() as out:
        out.write(made.data)
    with dcformat.open(made.data, max_memory=options.max_memory, max_work=None) as content:
        delta = content.delta
        figures = summary.as_json(summary.summarize(content)) if options.as_json else {}
    if options.as_json:
        if delta is not None:
            figures["delta"] = delta_packing.as_json(delta)
        document = {"file": str(output), "mode": made.mode, "tried": trials_as_json(made.trials)}
        emit_json({**document, "left_out": dict(left_out), **figures}, err=output.to_stdout)
        return
    if delta is not None:
        say(delta_packing.line(str(output), len(made.data), delta, model), err=output.to_stdout)
    else:
        say(summary.size_line(str(output), len(made.data), model.elements), err=output.to_stdout)
    say_choice(mode_of(options), made.trials, made.mode, err=output.to_stdout)


def mode_of(options: PackOptions) -> AnyMode:
    """Return the mode; a filler implies Huffman coding, so there is nothing to choose."""
    return "fast" if options.mode == "auto" and options.relative_index == "filler" else options.mode
