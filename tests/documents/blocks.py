"""The code blocks of a document: their kinds, how they run, and whether the output that they show is right.

A block is fenced, and its language gives its kind:

- ``python`` runs in one scope with the page's other Python blocks; a ``text`` block behind it shows what it
  prints;
- ``sh`` holds commands; ``console`` holds commands behind ``$``, each with its output (or none);
- ``text`` is output, or anything else that does not run;
- any other language needs a reason.

Shown output may leave out parts by ``...``. After a comment ``<!-- numbers vary -->``, its numbers need only be about
right. A comment ``<!-- not run: REASON -->`` before a block keeps it from running; commands of dcformat in it must
still be right.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from typing import Any, NamedTuple

import click
from click.testing import CliRunner
from dcformat_cli.main import cli

#: Languages of blocks that run.
RUN = ("python", "sh", "console")

_BLOCK = re.compile(
    r"(?:^<!-- (?:not run: (?P<reason>[^\n]+?)|(?P<vary>numbers vary)) -->\n+)?"
    r"^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_NUMBER = re.compile(r"\b[0-9a-f]{16}\b|-?\d[\d,]*(?:\.\d+)?(?:e[-+]\d+)?")
_SHELL = re.compile(r"[|<>;&*$`]")


class Block(NamedTuple):
    """One block of a document.

    Attributes
    ----------
    line : int
        Where it begins, from 1.
    language, text : str
    reason : str or None
        Why it does not run.
    vary : bool
        Whether numbers in its output depend on the machine.
    """

    line: int
    language: str
    text: str
    reason: str | None
    vary: bool


class Step(NamedTuple):
    """One command of a block, and its output as shown; None if none is shown."""

    command: str
    output: str | None


def blocks(document: str) -> list[Block]:
    """Return the fenced blocks of a document in order."""
    return [
        Block(document[: m.start("language")].count("\n") + 1, m["language"], m["text"], m["reason"], bool(m["vary"]))
        for m in _BLOCK.finditer(document)
    ]


def indented_code(document: str) -> list[str]:
    """Return lines that are code because they are indented; their language is unknown."""
    text = _BLOCK.sub("", document)
    return [line for before, line in re.findall(r"(^|\n)\n(    \S.*)", text) if not before.startswith("-")]


def steps(block: Block) -> list[Step]:
    """Return the commands of an ``sh`` or ``console`` block."""
    if block.language == "sh":
        lines = block.text.replace("\\\n", " ").splitlines()
        commands = (shlex.join(shlex.split(line, comments=True)) if not _SHELL.search(line) else line for line in lines)
        return [Step(command, None) for command in commands if command]
    parts = re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]
    split = (part.partition("\n")[::2] for part in parts)
    return [Step(command, output if output.strip() else None) for command, output in split]


def check_arguments(line: str) -> None:
    """Parse a command of dcformat without running it.

    Raises
    ------
    click.UsageError
        The command has no such verb or option.
    """
    _, *arguments = shlex.split(re.split(r"\s[|<>]", line, maxsplit=1)[0], comments=True)
    # Commands keep their help option, whose names come from the context of the whole command.
    command: click.Command = cli
    context = cli.make_context("dcformat", [], resilient_parsing=True)
    while isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
        name, *arguments = arguments
        found = command.get_command(context, name)
        assert found is not None, f"dcformat has no command {name!r}"
        rest = [] if isinstance(found, click.Group) else arguments
        context = found.make_context(name, rest, parent=context, resilient_parsing=isinstance(found, click.Group))
        command = found


def run_page(document: str, scope: dict[str, Any], name: str) -> None:
    """Run a document's blocks in the working directory, and compare the output that it shows."""
    printed: str | None = None
    for block in blocks(document):
        where = f"{name}:{block.line}"
        if block.language == "text" and block.reason is None and printed is not None:
            assert_shown(block.text, printed, where, vary=block.vary)
        printed = None
        if block.reason is not None or block.language not in RUN:
            continue
        if block.language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as stdout:
                # Padded, so that a traceback has the line of the document.
                exec(compile("\n" * block.line + block.text, name, "exec"), scope)
            printed = stdout.getvalue()
        else:
            for step in steps(block):
                run_command(step, where, vary=block.vary)


def run_command(step: Step, where: str, *, vary: bool) -> None:
    """Run a command; it must succeed, unless an error is shown, and print what is shown."""
    if step.command.startswith("dcformat ") and not _SHELL.search(step.command):
        result = CliRunner().invoke(cli, shlex.split(step.command, comments=True)[1:], prog_name="dcformat")
        code, output = result.exit_code, result.output
    else:
        code, output = _run_in_shell(step.command)
    fails = step.output is not None and re.search(r"^dcformat\b.*: ", step.output, re.MULTILINE) is not None
    assert fails or code == 0, f"{where}: {step.command}\n{output}"
    if step.output is not None:
        assert_shown(step.output, output, f"{where}: {step.command}", vary=vary)


def _run_in_shell(command: str) -> tuple[int, str]:
    program = f'{shlex.quote(sys.executable)} -c "from dcformat_cli.entry import main; main()" "$@"'
    script = f"dcformat() {{ {program}; }}\nset -o pipefail\n{command}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    result = subprocess.run(
        ["bash", "-c", script], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    return result.returncode, result.stdout.decode()


def assert_shown(shown: str, real: str, where: str, *, vary: bool) -> None:
    """Assert that output is as shown, except for ``...`` and for the lengths of spaces and rules.

    If numbers vary, those above 0.001 must be right up to a factor of two, and the others must only be present.
    """
    message = f"{where} shows\n{shown}\nbut the output is\n{real}"
    # NumPy answers until another process has compiled the kernels.
    real = real.replace("(backend numpy)", "(backend numba)")
    expected, found = (re.sub(r"\s+", " ", re.sub(r"-{3,}", "---", text)).strip() for text in (shown, real))
    numbers = _NUMBER.findall(expected) if vary else []
    pattern = re.escape(_NUMBER.sub("\0", expected) if vary else expected).replace("\0", f"({_NUMBER.pattern})")
    pattern = re.sub(r"(?:\\ )?\\\.\\\.\\\.(?:\\ )?", ".*", pattern)
    match = re.fullmatch(pattern, found, re.DOTALL)
    assert match, message
    for one, other in zip(numbers, match.groups(), strict=True):
        if not re.fullmatch(r"[0-9a-f]{16}", one):  # a digest
            a, b = (float(text.replace(",", "")) for text in (one, other))
            assert max(a, b) < 1e-3 or min(a, b) >= max(a, b) / 2, f"{one}, {other}: {message}"
