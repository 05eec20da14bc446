"""Options that several verbs share, and the types of their values."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from fractions import Fraction
from math import isfinite, isnan
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from dcformat_interop.hub import CHECKPOINT_SUFFIXES, NETWORK_SUFFIXES, cached_repository, model_in

from dcformat import codecs
from dcformat.layout import DEFAULT_MAX_MEMORY, DEFAULT_MAX_WORK
from dcformat.modes import DECODE_SECONDS
from dcformat.source import is_url
from dcformat_cli.failures import misuse
from dcformat_cli.group import Choice
from dcformat_cli.output_files import OutputFile
from dcformat_cli.terminal import set_quiet

#: The key under which the callback of ``-o`` finds ``-f``.
_FORCE = "dcformat_cli.force"

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)

#: The modes of `dcformat.save`; the last one makes the smallest files.
MODES = codecs.MODES


class FileName(click.Path):
    """The type of a file's name; an empty one, as an unset shell variable leaves it, would name this directory."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the name, or fail for an empty one."""
        if value == "":
            self.fail("expected the name of a file, found an empty one", param, ctx)
        return super().convert(value, param, ctx)


class LocalFile(FileName):
    """The type of a file that is read more than once, or of a repository in the cache of Hugging Face."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the name of the file, or of the repository's safetensors directory or model; fail for a URL."""
        if is_url(value):
            self.fail(f"{value}: expected a file, found a URL: download it first", param, ctx)
        found = cached_repository(str(value))
        if found is not None and not any(found.glob("*.safetensors*")):
            found = model_in(found, str(value), (*CHECKPOINT_SUFFIXES, *NETWORK_SUFFIXES))
        return super().convert(value if found is None else str(found), param, ctx)


def size(text: str) -> int:
    """Parse a number of bytes such as ``4096``, ``512M`` or ``4GiB`` (in powers of 1024); the type of an option."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise click.BadParameter(f"expected a number, as in 4096, 512M or 4G, found {text!r}")
    return int(Fraction(match[1]) * _UNITS[match[2].upper()])


def limit(text: str) -> int | None:
    """Parse a `size`, or ``none`` as None; the type of an option."""
    return None if text.strip().lower() == "none" else size(text)


def numbers(text: str) -> tuple[float, ...]:
    """Parse one finite number, or several separated by commas; the type of an option."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or not all(isfinite(value) for value in values):
        raise click.BadParameter(f"expected finite numbers separated by commas, found {text!r}")
    return values


def refuse(why: str, *names: str) -> None:
    """Raise `click.UsageError` if the user gave one of these options, which would have no effect, another value."""
    context = click.get_current_context()
    given = [
        option.opts[-1]
        for option in context.command.params
        if option.name in names
        and context.get_parameter_source(option.name) is not ParameterSource.DEFAULT
        and context.params[option.name] != option.get_default(context)
    ]
    if given:
        raise misuse(f"{', '.join(given)}: {why}")


def output(what: str, *, required: bool = True) -> Callable[[Any], Any]:
    """Return the options ``-o`` and ``-f``; a verb gets both as one `OutputFile` called `output`."""

    def decorate(function: Any) -> Any:
        forced = click.option(
            "-f", "--force", is_flag=True, is_eager=True, expose_value=False, callback=_remember,
            help="Replace an existing output file.",
        )  # fmt: skip
        named = click.option(
            "-o", "--output", required=required, type=FileName(), metavar="FILE", callback=_output,
            help=f"Write {what} here (- for stdout).",
        )  # fmt: skip
        return named(forced(function))

    return decorate


def _remember(context: click.Context, _: click.Parameter, value: bool) -> None:
    context.meta[_FORCE] = value


def _output(context: click.Context, _: click.Parameter, value: str | None) -> OutputFile | None:
    return None if value is None else OutputFile.of(value, context.meta.get(_FORCE, False))


def mode(what: str) -> Callable[[Any], Any]:
    """Return ``--mode``, the coder of a file."""
    return click.option(
        "--mode", type=Choice(("auto", *MODES)), default="auto", show_default=True,
        help=f"The coder of {what}: fast to decode, small, or tiny for small networks; auto tries them and keeps the "
        "smallest file that decodes within --seconds. Large networks get fast without a trial.",
    )  # fmt: skip


def decode_seconds() -> Callable[[Any], Any]:
    """Return ``--seconds``; `refuse` it for any mode but ``auto``."""
    return click.option(
        "--seconds", type=click.FloatRange(min=0, min_open=True), default=DECODE_SECONDS, show_default=True,
        help="With --mode auto: the longest time to decode, counted in steps of 1 ns on every machine.",
    )  # fmt: skip


def check_seconds(mode: str, seconds: float) -> None:
    """Raise `click.UsageError` if ``--seconds`` is no number, or was given with a mode for which it has no effect."""
    if mode != "auto":
        refuse("only for --mode auto", "seconds")
    if isnan(seconds):
        raise misuse("--seconds: expected a number, found nan")


def file_argument() -> Callable[[Any], Any]:
    """Return the argument FILE, a ``.dcf`` file or ``-``."""
    return click.argument("file", type=FileName(), metavar="FILE")


def base(*, required: bool = False) -> Callable[[Any], Any]:
    """Return ``--base``, the ``.dcf`` file from which a delta differs."""
    what = "The file from which the delta differs." if required else "Store only what changes from this .dcf file."
    return click.option("--base", type=FileName(), metavar="OLD.dcf", required=required, help=what)


def max_memory() -> Callable[[Any], Any]:
    """Return ``--max-memory``, in bytes; None stands for no limit."""
    return click.option(
        "--max-memory", type=limit, default=str(DEFAULT_MAX_MEMORY), metavar="SIZE",
        help="Refuse a file that takes more memory than this; 'none' removes the limit [default: 4G].",
    )  # fmt: skip


def max_work() -> Callable[[Any], Any]:
    """Return ``--max-work``, in steps; None stands for no limit."""
    return click.option(
        "--max-work", type=limit, default=str(DEFAULT_MAX_WORK), metavar="STEPS",
        help="Refuse a file that takes more steps (of about 1 ns) than this; 'none' removes the limit [default: 1T].",
    )  # fmt: skip


def as_json() -> Callable[[Any], Any]:
    """Return ``--json``, which a verb gets as `as_json`, and the other options of every verb."""

    def decorate(function: Any) -> Any:
        schema = click.option(
            "--json-schema", is_flag=True, is_eager=True, expose_value=False, callback=_print_schema,
            help="Print the JSON Schema of that document, and exit.",
        )  # fmt: skip
        document = click.option("--json", "as_json", is_flag=True, help="Print one JSON document for programs.")
        return document(schema(verbosity(function)))

    return decorate


def verbosity(function: Any) -> Any:
    """Add ``-q`` and ``-v``, which take effect immediately."""

    def quiet(context: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            set_quiet(context)

    def verbose(_: click.Context, __: click.Parameter, value: bool) -> None:
        if value:
            logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")

    for names, what, callback in (
        (("-v", "--verbose"), "Show the log on stderr.", verbose),
        (("-q", "--quiet"), "Show neither notes nor progress on stderr.", quiet),
    ):
        function = click.option(*names, is_flag=True, is_eager=True, expose_value=False, callback=callback, help=what)(
            function
        )
    return function


def _print_schema(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        from dcformat_cli.schemas import schema_of

        root = context.find_root().command_path
        click.echo(json.dumps(schema_of(context.command_path.removeprefix(root).strip()), indent=2))
        context.exit()


def data() -> Callable[[Any], Any]:
    """Return ``--data``."""
    return click.option(
        "--data", type=FileName(path_type=Path), metavar="DIR",
        help="Directory of IDX files [default: $DCFORMAT_DATA, or data/mnist in this directory or one above].",
    )  # fmt: skip
