"""`dcformat verify`: read and check every byte of a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from dcformat.wording import counted
from dcformat_cli.failures import UnfitError, describe
from dcformat_cli.input_files import opened
from dcformat_cli.options import as_json, max_memory, max_work
from dcformat_cli.terminal import complain, emit_json, say

if TYPE_CHECKING:
    from dcformat import DcfFile

#: The report of a file that cannot be read.
_NOTHING = {"bytes": None, "tensors": None, "digest": None, "self_test_inputs": None, "error": None}


@click.command("verify")
@click.argument("files", type=click.Path(), metavar="FILE...", nargs=-1, required=True)
@max_memory()
@max_work()
@as_json()
def verify_command(files: Sequence[str], max_memory: int | None, max_work: int | None, as_json: bool) -> None:
    """Check every byte of each FILE (- for stdin): the checksums, the structure, the tensors, and the content digest.

    If a file holds a self-test, verify also runs it: the network must classify the test's inputs as it did on the
    machine that made the file. The exit code is 0 if every file reads back exactly as it was saved, and 1 if at least
    one file failed; a line on stderr says why.
    """
    reports = []
    for file in files:
        report = {"file": file, "good": True, **_NOTHING}
        try:
            with opened(file, max_memory, max_work) as content:
                report |= _check(file, content, max_memory, max_work)
        except Exception as error:
            if len(files) == 1 and not as_json:
                raise
            report |= {"good": False, "error": describe(error)}
        reports.append(report)
        if not as_json:
            _say(report)
    if as_json:
        emit_json({"files": reports})
    if not all(report["good"] for report in reports):
        raise click.exceptions.Exit(1)


def _check(file: str, content: DcfFile, max_memory: int | None, max_work: int | None) -> dict[str, Any]:
    """Read the whole file, run its self-test, and return the report."""
    content.verify()
    test = content.self_test
    if test is not None:
        _run_self_test(file, content, max_memory, max_work)
    return {
        "bytes": content.size,
        "tensors": len(content.names),
        "digest": content.digest.hex(),
        "self_test_inputs": None if test is None else test.samples,
    }


def _say(report: dict[str, Any]) -> None:
    if not report["good"]:
        complain(f"dcformat: {report['error']}")
        return
    inputs = report["self_test_inputs"]
    tested = "" if inputs is None else f", self-test of {counted(inputs, 'input')} passed"
    say(
        f"{report['file']}: good: {report['bytes']:,} bytes, {counted(report['tensors'], 'tensor')}, "
        f"content digest {report['digest']}{tested}"
    )


def _run_self_test(file: str, content: DcfFile, max_memory: int | None, max_work: int | None) -> None:
    from dcformat_runtime import InputError, Session
    from dcformat_runtime.self_testing import run_self_test

    model = content.model()
    session = Session.from_model(model, max_memory=max_memory, max_work=max_work)
    try:
        passed = run_self_test(model, session)
    except InputError as error:
        raise ValueError(f"{file}: self-test: {error}") from None
    if not passed:
        raise UnfitError(file, "the results that its self-test states", "others: this machine computes wrongly")
