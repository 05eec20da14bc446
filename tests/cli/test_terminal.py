"""Text for people is aligned, and contains nothing that a terminal would act upon."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from pathlib import Path

import pytest
from dcformat_cli.shared_options import numbers, size
from dcformat_cli.terminal import TextTable, printable
from hypothesis import given
from hypothesis import strategies as st

from tests.cli.support import PACK, Invoke, command, environment, read_terminal


@given(st.text())
def test_printable_text_is_one_harmless_line(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    shown.encode()
    if text.isprintable():
        assert shown == text


def test_a_table_is_aligned() -> None:
    table = TextTable("title", ("name", "bytes"), [("a", "1"), ("long name", "1,000"), ("sum", "1,001")], total=True)
    assert table.lines() == [
        "title",
        "  name       bytes",
        "  ----------------",
        "  a              1",
        "  long name  1,000",
        "  ----------------",
        "  sum        1,001",
    ]


LONG = TextTable(
    "a title that is longer than the table is allowed to be",
    ("tensor", "shape", "weights", "bits/\nweight", "bytes"),
    [("fc1.weight", "300x784", "235,200", "12.34", "123,456"), ("together", "", "235,200", "12.34", "123,456")],
    total=True,
)


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (53, [
            "a title that is longer than the table is allowed to",
            "be",
            "  tensor        shape  weights  bits/weight    bytes",
            "  --------------------------------------------------",
            "  fc1.weight  300x784  235,200        12.34  123,456",
            "  --------------------------------------------------",
            "  together             235,200        12.34  123,456",
        ]),
        (43, [
            "a title that is longer than the table is",
            "allowed to be",
            "                              bits/",
            "  tensor       shape weights weight   bytes",
            "  -----------------------------------------",
            "  fc1.weight 300x784 235,200  12.34 123,456",
            "  -----------------------------------------",
            "  together           235,200  12.34 123,456",
        ]),
        (30, [
            "a title that is longer than",
            "the table is allowed to be",
            "  tensor       shape weights",
            "     bits/",
            "    weight   bytes",
            "  --------------------------",
            "  fc1.weight 300x784 235,200",
            "     12.34 123,456",
            "  --------------------------",
            "  together           235,200",
            "     12.34 123,456",
        ]),
    ],
)  # fmt: skip
def test_a_table_in_a_narrow_terminal(width: int, expected: list[str]) -> None:
    assert LONG.lines(width) == expected


@pytest.mark.parametrize("width", [60, 72, 80, 100, 120, 200])
def test_no_number_is_broken_at_any_width(
    invoke: Invoke, dcf: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    whole = invoke("inspect", dcf, "--memory").stdout
    numbers = re.findall(r"\d[\d,.x]*", whole[whole.index("tensors\n") :])
    monkeypatch.setenv("COLUMNS", str(width))
    shown = invoke("inspect", dcf, "--memory").stdout
    tables = shown[shown.index("tensors\n") :]
    assert re.findall(r"\d[\d,.x]*", tables) == numbers
    assert max(map(len, tables.splitlines())) <= width


def on_a_terminal(dcf: Path, **variables: str) -> bytes:
    """Return what `inspect` writes to a terminal of 60 columns, without carriage returns."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    kept = {key: value for key, value in environment().items() if key not in ("COLUMNS", "NO_COLOR")}
    process = subprocess.Popen(command("inspect", dcf), stdout=slave, env={**kept, **variables})
    os.close(slave)
    shown = read_terminal(master)
    assert process.wait(timeout=60) == 0
    return shown.replace(b"\r", b"")


def test_terminals_wide_narrow_dumb_and_without_colour(dcf: Path) -> None:
    plain = re.compile(rb"\x1b\[\d*m")
    bold = on_a_terminal(dcf, TERM="xterm")
    assert b"\x1b[1m" in bold
    narrow = plain.sub(b"", bold)
    assert max(map(len, narrow.splitlines())) <= 60
    assert on_a_terminal(dcf, TERM="xterm", NO_COLOR="1") == narrow
    assert on_a_terminal(dcf, TERM="dumb") == narrow
    wide = on_a_terminal(dcf, TERM="dumb", COLUMNS="200")
    assert 60 < max(map(len, wide.splitlines())) <= 200


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1", 1), ("4096", 4096), ("1k", 1024), ("1.5M", 3 << 19), ("2GiB", 2 << 30), ("3 TB", 3 << 40)],
)
def test_sizes(text: str, expected: int) -> None:
    assert size(text) == expected


def test_numbers() -> None:
    assert numbers("0.5") == (0.5,)
    assert numbers("1,-2.5, 3e1") == (1, -2.5, 30)


def test_quiet_and_verbose(invoke: Invoke, npz: Path, tmp_path: Path) -> None:
    arguments = [*PACK, npz, "-f", "-o", tmp_path / "a.dcf"]
    assert invoke(*arguments).stderr == "note: without --architecture, the file holds only tensors and cannot be run\n"
    for quiet in ([*arguments, "-q"], ["-q", *arguments], [*arguments, "--quiet", "-v"]):
        result = invoke(*quiet)
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout.startswith(f"{tmp_path / 'a.dcf'}: ")
    assert invoke("inspect", "-q", tmp_path / "no.dcf").stderr.endswith("no such file or directory\n")
