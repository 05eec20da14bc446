"""`dcformat verify`: read and check every byte of a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from dcformat.errors import FormatError
from dcformat.wording import counted
from dcformat_cli.failures import UnfitError, describe, misuse
from dcformat_cli.input_files import model_source, naming, opened
from dcformat_cli.progress import counting
from dcformat_cli.sharded import compare_index, shards
from dcformat_cli.shared_options import FileName, as_json, max_memory, max_work
from dcformat_cli.terminal import complain, emit_json, say

if TYPE_CHECKING:
    from dcformat import DcfFile

#: The report of a file that cannot be read.
_NOTHING = {"bytes": None, "tensors": None, "digest": None, "self_test_inputs": None, "error": None}


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """The options of the command line; their help texts explain them."""

    files: Sequence[str]
    base: str | None
    repair_info: bool
    max_memory: int | None
    max_work: int | None
    as_json: bool


@click.command("verify")
@click.argument("files", type=FileName(), metavar="FILE...", nargs=-1, required=True)
@click.option("--base", type=FileName(), metavar="OLD.dcf", help="Also apply each FILE, a delta, to this base.")
@click.option("--repair-info", is_flag=True, help="List which tensors of a damaged file are whole.")
@max_memory()
@max_work()
@as_json()
def verify_command(**options: Any) -> None:
    """Check every byte of each FILE (- for stdin): the checksums, the structure, the tensors, and the content digest.

    If a file holds a self-test, verify also runs it: the network must classify the test's inputs as it did on the
    machine that made the file. A delta is checked on its own and, with --base, by making the new file in memory. The
    exit code is 0 if every file reads back exactly as it was saved, and 1 if at least one file failed; a line on stderr
    says why, and names the tensors that are damaged.

    FILE may also be the index of several files (*.dcf.index.json), or their directory: verify checks them all, and that
    each tensor is in the file that the index names.

    With --repair-info, the command continues after the first damage and lists the tensors that are whole; `dcformat
    unpack --skip-damaged` rescues them.
    """
    _verify(VerifyOptions(**options))


def _verify(options: VerifyOptions) -> None:
    if options.repair_info and "-" in options.files:
        raise misuse("--repair-info: expected a file that can be read twice, found - (stdin)")
    reports = []
    for report in (each for name in options.files for each in _reports(name, options)):
        reports.append(report)
        if not options.as_json:
            _say(report)
    if options.as_json:
        emit_json({"files": reports})
    if not all(report["good"] for report in reports):
        raise click.exceptions.Exit(1)


def _reports(name: str, options: VerifyOptions) -> Iterator[dict[str, Any]]:
    """Yield the report of a file, or those of the files that an index names and, if it is wrong, of the index."""
    try:
        files = shards(name, options.max_memory)
    except UnfitError as error:
        yield {"file": name, "good": False, **_NOTHING, "error": describe(error)}
        return
    if files is None:
        yield _report(name, options)
        return
    good = True
    for file in files:
        report = _report(file, options)
        good = good and report["good"]
        yield report
    if good:
        try:
            compare_index(name, options.max_memory)
        except UnfitError as error:
            yield {"file": name, "good": False, **_NOTHING, "error": describe(error)}


def _report(file: str, options: VerifyOptions) -> dict[str, Any]:
    report = {"file": file, "good": True, **_NOTHING}
    try:
        with opened(file, options.max_memory, options.max_work, delta=True) as content:
            report |= _check(file, content, options)
    except Exception as error:
        if [file] == list(options.files) and not options.as_json and not options.repair_info:
            raise
        report |= {"good": False, "error": describe(error)}
    if options.repair_info:
        report |= _repair_info(file, options)
    return report


def _check(file: str, content: DcfFile, options: VerifyOptions) -> dict[str, Any]:
    """Read the whole file, run its self-test, apply it to its base, and return the report."""
    with counting("checking") as progress:
        content.verify(progress)
    test = content.self_test
    if test is not None:
        _run_self_test(file, content, options.max_memory, options.max_work)
    if options.base is not None:
        import dcformat

        with naming(file):
            dcformat.apply(content, options.base, max_memory=options.max_memory, max_work=options.max_work)
    return {
        "bytes": content.size,
        "tensors": len(content.names),
        "digest": content.digest.hex(),
        "self_test_inputs": None if test is None else test.samples,
    }


def _repair_info(file: str, options: VerifyOptions) -> dict[str, Any]:
    """Return the names of the tensors that are whole, and those that are not with the reasons."""
    import dcformat

    whole: list[str] = []
    damaged: list[dict[str, str]] = []
    given, label = model_source(file)
    try:
        with dcformat.open(given, partial=True, max_memory=options.max_memory, max_work=options.max_work) as content:
            bad = content.damaged()
            for name in content.names:
                if name not in bad:
                    whole.append(name)
                    continue
                bad[name].path = bad[name].path or label
                damaged.append({"name": name, "error": describe(bad[name])})
    except (FormatError, OSError):
        pass  # If a file's contents are damaged, which `error` reports, it has no tensors.
    return {"whole": whole, "damaged": damaged}


def _say(report: dict[str, Any]) -> None:
    if report["good"]:
        inputs = report["self_test_inputs"]
        tested = "" if inputs is None else f", self-test of {counted(inputs, 'input')} passed"
        say(
            f"{report['file']}: good: {report['bytes']:,} bytes, {counted(report['tensors'], 'tensor')}, "
            f"content digest {report['digest']}{tested}"
        )
        return
    complain(f"dcformat: {report['error']}")
    if "whole" not in report:
        return
    bad = {entry["name"] for entry in report["damaged"]}
    say(f"{report['file']}: {len(report['whole']):,} of {counted(len(report['whole']) + len(bad), 'tensor')} whole")
    for name in report["whole"]:
        say(f"  whole: {name}")
    for entry in report["damaged"]:
        say(f"  damaged: {entry['name']}")
    if report["whole"] and bad:
        say(f"rescue those that are whole: dcformat unpack --skip-damaged {report['file']} -o OUT.safetensors")


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
