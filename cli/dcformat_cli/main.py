"""The command: finds the verb, and turns every failure into one line and an exit code.

Results go to stdout; errors, warnings and progress go to stderr. The help text of `cli` lists the exit codes.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from io import StringIO
from itertools import pairwise
from typing import Any

import click

from dcformat import __version__
from dcformat_cli.failures import describe
from dcformat_cli.group import Group
from dcformat_cli.shared_options import verbosity
from dcformat_cli.terminal import complain, emit_json

#: Verb -> its line in the help. The function `VERB_command` is in the module of the same name in `verbs`.
VERBS = {
    "compress": "train, prune and share a network's weights, and pack it",
    "pack": "pack a checkpoint into a .dcf file and keep its values exactly",
    "repack": "write the same content in another mode",
    "apply": "make the new file from a delta and its base",
    "unpack": "write a file's tensors as .safetensors or .npz",
    "export": "write a file for ONNX, PyTorch or SciPy, or as C",
    "inspect": "show what a file holds, and where its bytes go",
    "report": "write a page that shows what a file holds",
    "verify": "check every byte of a file",
    "doctor": "explain why a model is as large as it is, or examine the installation",
    "diff": "compare two files: tensors, networks and outputs",
    "run": "run a file on a data set or on an array",
    "bench": "time a file on this runtime and on other installed ones",
    "warmup": "compile the kernels, or prepare networks, so that runs start fast",
    "sweep": "map the sizes and accuracies of a grid of pruned networks",
    "study": "compare pruning criteria, or rank layers by sensitivity",
}


class Dcformat(Group):
    """A group that imports a verb's module when the verb is used, and reports failures in one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in their usual order of use."""
        return list(VERBS)

    def find_command(self, name: str) -> click.Command | None:
        """Import a verb's module and return its command; return None for an unknown verb."""
        if name not in VERBS:
            return None
        module = importlib.import_module(f"dcformat_cli.verbs.{name}_command")
        command: click.Command = getattr(module, f"{name}_command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command and exit with its code; with ``--debug``, a failure ends in a traceback."""
        kwargs["standalone_mode"] = False
        given = list(kwargs.get("args") or (args[0] if args else None) or sys.argv[1:])
        try:
            code = super().main(*args, **kwargs)
        except click.UsageError as error:
            name = error.ctx.command_path if error.ctx else "dcformat"
            code = _fail(given, 2, f"{name}: {error.format_message()} (see {name} --help)", error)
        except click.ClickException as error:
            code = _fail(given, error.exit_code, f"dcformat: {error.format_message()}", error)
        except (KeyboardInterrupt, click.Abort) as error:
            code = _fail(given, 130, "dcformat: interrupted", error)
        except OSError as error:  # Printing a help text or the version can fail like this.
            code = _fail(given, 1, f"dcformat: {describe(error)}", error)
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb and flush stdout, so that a full disk or a closed pipe is noticed here."""
        try:
            super().invoke(ctx)
            sys.stdout.flush()
        except (KeyboardInterrupt, click.Abort):
            # Catch this before click does, which would print an empty line.
            raise _InterruptedError("interrupted") from None
        except BrokenPipeError:
            raise  # click silences the streams and exits with 1
        except Exception as error:
            if isinstance(error, click.ClickException | click.exceptions.Exit) or ctx.params.get("debug"):
                raise
            raise click.ClickException(describe(error)) from error


class _InterruptedError(click.ClickException):
    exit_code = 130


def _fail(arguments: Sequence[str], code: int, line: str, error: BaseException) -> int:
    """Print why the command failed on stderr and, with ``--json``, as a document; return the exit code."""
    _forget_unwritten()
    with contextlib.suppress(OSError):  # If stderr cannot be written to, the exit code still reports the failure.
        complain(line)
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if "--json" in options:
        found = {"message": line.partition(": ")[2], "code": getattr(error.__cause__, "code", None), "exit_code": code}
        with contextlib.suppress(OSError):
            emit_json({"error": found}, err=_writes_to_stdout(options))
    return code


def _writes_to_stdout(options: Sequence[str]) -> bool:
    """Return whether ``-o -`` sends a file to stdout, where no document may follow it."""
    named = {"-o-", "--output=-"}
    return not named.isdisjoint(options) or any(pair in (("-o", "-"), ("--output", "-")) for pair in pairwise(options))


def _forget_unwritten() -> None:
    """Flush stdout and drop any output that cannot be written; otherwise Python would complain again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        sys.stdout = StringIO()


@click.group(cls=Dcformat, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="dcformat", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show tracebacks and the log.")
@verbosity
def cli(debug: bool) -> None:
    """Compress neural networks by pruning and weight sharing, pack them, and run the packed files.

    `dcformat COMMAND --help` explains a command. The name - stands for stdin as an input and for stdout as an output.

    Exit codes: 0 the command succeeded; 1 it failed (a damaged file, unsuitable data, a full disk); 2 it was misused
    (an unknown option, a missing argument, an output that exists); 130 it was interrupted.
    """
    if debug:
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    from dcformat import jit
    from dcformat_cli.compiling import Notices

    jit.observe(Notices())


def main() -> None:
    """Run the command line; never returns."""
    for stream, flag, mode in (("stdin", os.O_RDONLY, "r"), ("stdout", os.O_WRONLY, "w"), ("stderr", os.O_WRONLY, "w")):
        if getattr(sys, stream) is None:  # The caller closed it.
            setattr(sys, stream, os.fdopen(os.open(os.devnull, flag), mode))
    cli(prog_name="dcformat")
