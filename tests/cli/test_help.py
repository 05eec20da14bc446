"""The first steps of new users: the bare command, misspelled words, Ctrl-C, closed pipes, `python -m dcformat`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from dcformat_cli.main import VERBS, cli

from tests.cli.support import Invoke, command, environment, refused, spawn

FULL = Path("/dev/full")


def test_the_bare_command_prints_its_help(invoke: Invoke) -> None:
    for arguments in ([], ["--help"], ["-h"]):
        result = invoke(*arguments)
        assert result.exit_code == 0
        assert result.stderr == ""
        lines = result.stdout.splitlines()
        assert lines[0] == "Usage: dcformat [OPTIONS] COMMAND [ARGS]..."
        assert "\\n" not in result.stdout
        for verb in VERBS:
            assert any(line.startswith(f"  {verb} ") for line in lines)
        text = " ".join(result.stdout.split())
        for code in (
            "Exit codes: 0 the command succeeded",
            "1 it failed",
            "2 it was misused",
            "130 it was interrupted",
        ):
            assert code in text


@pytest.mark.parametrize(
    "words", [*VERBS, "export c", "study layers", "compress a.onnx", "compress -", "compress --module a:b"]
)
def test_every_help_ends_with_the_exit_codes(invoke: Invoke, words: str) -> None:
    lines = invoke(*words.split(), "--help").stdout.splitlines()
    assert lines[-1] == "  Exit codes: 0 done, 1 failed, 2 misused, 130 interrupted."


@pytest.mark.parametrize(("group", "command"), [("study", "criteria"), ("export", "onnx")])
def test_a_group_alone_prints_its_help(invoke: Invoke, group: str, command: str) -> None:
    result = invoke(group)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: dcformat {group} ")
    assert f"  {command} " in result.stdout


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ("warmup", "study", "export", "doctor")])
def test_a_verb_alone_prints_its_help_and_fails(invoke: Invoke, verb: str) -> None:
    result = invoke(verb)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"Usage: dcformat {verb} ")
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"dcformat {verb}: Missing ")
    assert last.endswith(f"(see dcformat {verb} --help)")


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["inpsect", "a.dcf"], "inspect"),
        (["INSPECT", "a.dcf"], "inspect"),
        (["unpak"], "unpack"),
        (["study", "criterai"], "criteria"),
        (["inspect", "a.dcf", "--jsn"], "--json"),
        (["pack", "a.npz", "--ouput", "a.dcf"], "--output"),
        (["--debgu"], "--debug"),
        (["pack", "a.npz", "-o", "a.dcf", "--mode", "smal"], "small"),
        (["pack", "a.npz", "-o", "a.dcf", "--architecture", "lenet5"], "lenet-5"),
        (["compress", "LeNet-300-100", "-o", "a.dcf"], "lenet-300-100"),
        (["compress", "lenet-5", "-o", "a.dcf", "--recipe", "clasic"], "classic"),
        (["run", "a.dcf", "--backend", "numpyy"], "numpy"),
        (["bench", "a.dcf", "--peer", "tensorflow-lite"], None),
        (["zzz"], None),
    ],
)
def test_a_misspelled_word_gets_a_suggestion(invoke: Invoke, arguments: list[str], meant: str | None) -> None:
    line = refused(invoke(*arguments), meant or "", code=2)
    # Click before 8.4 words the error for a misspelled option differently.
    assert ("Did you mean" in line or "Possible options" in line) == (meant is not None)


def complete(line: str) -> list[str]:
    """Return the completions that bash offers for the last word of `line`."""
    words = line.split(" ")
    variables = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "_DCFORMAT_COMPLETE": "bash_complete"}
    result = CliRunner().invoke(cli, prog_name="dcformat", env=variables)
    assert (result.exit_code, result.stderr) == (0, "")
    return [word.removeprefix("plain,") for word in result.stdout.splitlines()]


def test_reading_a_closed_stdin() -> None:
    for arguments in (["inspect", "-"], ["pack", "-", "-o", "-"]):
        shell = ["sh", "-c", '"$@" <&-', "sh", *command(*arguments)]
        done = subprocess.run(shell, env=environment(), capture_output=True, check=False)
        assert done.returncode == 1
        assert done.stderr.startswith(b"dcformat: stdin: ")


def test_completion() -> None:
    assert complete("dcformat ins") == ["inspect"]
    assert complete("dcformat ") == list(VERBS)
    assert complete("dcformat inspect --j") == ["--json", "--json-schema"]
    assert complete("dcformat study ") == ["article", "criteria", "layers", "networks", "schedules"]
    assert complete("dcformat compress lenet") == ["lenet-300-100", "lenet-5"]
    assert complete("dcformat pack a.npz --mode t") == ["tiny"]
    for line in ("dcformat inspect mod", "dcformat verify a b", "dcformat pack a -o b", "dcformat run a --input b"):
        assert complete(line) == [f"file,{line.split(' ')[-1]}"]
    for shell in ("bash", "zsh", "fish"):
        script = CliRunner().invoke(cli, prog_name="dcformat", env={"_DCFORMAT_COMPLETE": f"{shell}_source"})
        assert "_DCFORMAT_COMPLETE" in script.stdout


@pytest.mark.parametrize(
    ("shell", "word", "expected"),
    [
        ("bash", "1", "plain,inspect\n"),
        ("zsh", "1", "plain\ninspect\nShow what FILE "),
        ("fish", "ins", "plain,inspect\tShow what FILE "),
    ],
)
def test_completion_in_a_process_of_its_own(shell: str, word: str, expected: str) -> None:
    variables = {"COMP_WORDS": "dcformat ins", "COMP_CWORD": word, "_DCFORMAT_COMPLETE": f"{shell}_complete"}
    done = subprocess.run(command(), env={**environment(), **variables}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(expected)


def test_as_a_module() -> None:
    arguments = [sys.executable, "-m", "dcformat", "--version"]
    done = subprocess.run(arguments, env=environment(), capture_output=True, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith(b"dcformat ")


def test_the_package_does_not_import_the_command_line() -> None:
    program = "import sys, dcformat\nfor name in dir(dcformat): getattr(dcformat, name)\nprint('click' in sys.modules)"
    assert spawn(program, python=True).stdout == b"False\n"


@pytest.mark.skipif(not FULL.exists(), reason="/dev/full is Linux's")
@pytest.mark.parametrize("arguments", [[], ["--help"], ["--version"], ["pack", "--help"]])
def test_a_help_text_on_a_full_disk(arguments: list[str]) -> None:
    with FULL.open("wb") as out:
        result = spawn(*arguments, stdout=out)
    assert result.returncode == 1
    assert result.stderr.decode() == "dcformat: output: the disk is full\n"


@pytest.mark.parametrize("arguments", [[], ["--version"], ["inspect"], ["verify"], ["inspect", "--json"]])
def test_a_closed_pipe_is_not_reported(dcf: Path, arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = spawn(*arguments, *([dcf] if arguments[:1] in (["inspect"], ["verify"]) else []), stdout=writer)
    finally:
        os.close(writer)
    assert result.returncode == 1
    assert result.stderr == b""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_with_closed_streams(dcf: Path, closed: str) -> None:
    done = subprocess.run(["sh", "-c", f'"$@" {closed}', "sh", *command("verify", dcf)], env=environment(), check=False)
    assert done.returncode == 0


def test_ctrl_c_while_the_command_is_imported() -> None:
    program = (
        "import sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'click': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from dcformat_cli.entry import main; main()"
    )
    done = spawn(program, python=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"dcformat: interrupted\n")


def test_ctrl_c_while_the_module_is_imported(tmp_path: Path) -> None:
    for package in ("click", "numpy"):
        (tmp_path / f"{package}.py").write_text("raise KeyboardInterrupt")
    variables = environment()
    variables["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{variables['PYTHONPATH']}"
    for arguments in ([], ["--help"], ["verify", "a.dcf"]):
        module = [sys.executable, "-m", "dcformat", *arguments]
        done = subprocess.run(module, env=variables, cwd=tmp_path, capture_output=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"dcformat: interrupted\n")


def test_ctrl_c_while_reading_stdin() -> None:
    for arguments in (["inspect", "-"], ["pack", "-", "-o", "-"], ["verify", "-"]):
        process = subprocess.Popen(
            command(*arguments),
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdin is not None
        try:
            # A valid beginning, longer than a pipe's buffer: the call returns only when the process reads.
            begin = b"PK\3\4" if arguments[0] == "pack" else b"\x89DCF"
            process.stdin.write(begin + bytes(1 << 20))
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=60)
        finally:
            process.kill()
        assert (process.returncode, stdout, stderr) == (130, b"", b"dcformat: interrupted\n")


def test_a_missing_choice_is_told_in_one_line(invoke: Invoke) -> None:
    refused(invoke("compress", "-o", "a.dcf"), "Choose from lenet-300-100, lenet-5. (see", code=2)
