"""`dcformat report`: write a page of HTML about a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dcformat_cli.failures import UnfitError, require_report
from dcformat_cli.input_files import opened
from dcformat_cli.output_files import OutputFile
from dcformat_cli.progress import counting
from dcformat_cli.sharded import shards
from dcformat_cli.shared_options import as_json, file_argument, max_memory, max_work, output
from dcformat_cli.terminal import emit_json, say

if TYPE_CHECKING:
    from dcformat_cli.report.chips import Chip, ProgramEstimate
    from dcformat_cli.report.facts import Facts


@click.command("report")
@file_argument()
@output("the page")
@max_memory()
@max_work()
@as_json()
def report_command(file: str, output: OutputFile, max_memory: int | None, max_work: int | None, as_json: bool) -> None:
    """Write a page about FILE (- for stdin) that shows what it holds and what its bytes are for.

    The page is one file of HTML, without scripts, that needs no network: a map of all bytes, the density and the bits
    of each tensor, pictures of the first layer, histograms with codebooks, the lengths of codes, recorded metrics,
    sizes in other formats, and the microcontrollers that the network fits.

    For a large file, the page shows the largest tensors in detail, estimates the sizes of other formats from samples,
    and says so.
    """
    require_report()
    output.check(file)
    if shards(file, max_memory) is not None:
        raise UnfitError(file, "one .dcf file", "several (give one of them, or see inspect)")
    from dcformat_cli.report.facts import gather
    from dcformat_cli.report.page import render

    with opened(file, max_memory, max_work) as content, counting("report:") as progress:
        facts = gather(file, content, max_memory, progress)
        page = render(facts).encode()
    with output.open() as out:
        out.write(page)
    if as_json:
        emit_json(_document(facts, output, len(page)), err=output.to_stdout)
    else:
        say(f"{output}: a page of {len(page):,} bytes about {file}", err=output.to_stdout)


def _document(facts: Facts, output: OutputFile, size: int) -> dict[str, Any]:
    """Return the facts of the page for programs."""
    from dcformat_cli.report.chips import CHIPS, ProgramEstimate
    from dcformat_cli.report.published import PUBLISHED
    from dcformat_cli.report.stages import recorded_stages

    program = facts.program if isinstance(facts.program, ProgramEstimate) else None
    return {
        "file": facts.name,
        "output": str(output),
        "bytes": size,
        "size": facts.file.size,
        "parameters": facts.parameters,
        "stored": facts.entries,
        "tensors": len(facts.tensors),
        "examined": sum(tensor.examined is not None for tensor in facts.tensors),
        "parts": {part: round(count, 3) for part, count in facts.parts.items()},
        "first_layer": None if facts.picture is None else facts.picture.name,
        "stages": [{"stage": stage, "metric": metric} for stage, metric in recorded_stages(facts.file.metadata)],
        "sizes": [each._asdict() for each in facts.sizes],
        "published": [each._asdict() for each in PUBLISHED.get(facts.architecture or "", ())],
        "chips": [] if program is None else [_chip(name, chip, program) for name, chip in CHIPS.items()],
    }  # fmt: skip


def _chip(name: str, chip: Chip, program: ProgramEstimate) -> dict[str, Any]:
    flash, lacks = program.flash(chip.processor), program.lacks(chip)
    return {"chip": name, "flash": flash, "ram": program.memory, "fits": not lacks}
