"""Compiles programs for microcontrollers: measures their flash and memory, and runs them in emulators.

Everything here needs compilers that other packages provide. Targets whose tools are missing are left out, with a
reason.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import NamedTuple

#: The flags of every compiler; programs compile without any of these warnings.
FLAGS = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror")
_SIZE_FLAGS = ("-Os", "-ffunction-sections", "-fdata-sections", "-fstack-usage")
#: An instruction takes 32 ns of QEMU's time, and a tick of the board's timer 40 ns.
_ICOUNT_SHIFT, _TICK_NS = 5, 40
_SECONDS = 600


class ChipTarget(NamedTuple):
    """A processor: its compiler and flags, and the machine of an emulator that runs it, if there is one."""

    compiler: str
    flags: tuple[str, ...]
    emulator: str = ""
    machine: str = ""


#: The processors by name.
TARGETS = {
    "cortex-m0": ChipTarget("arm-none-eabi-gcc", ("-mthumb", "-mcpu=cortex-m0")),
    "cortex-m3": ChipTarget("arm-none-eabi-gcc", ("-mthumb", "-mcpu=cortex-m3"), "qemu-system-arm", "mps2-an385"),
    "cortex-m4": ChipTarget(
        "arm-none-eabi-gcc", ("-mthumb", "-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"),
        "qemu-system-arm", "mps2-an386",
    ),
    "atmega1284p": ChipTarget("avr-gcc", ("-mmcu=atmega1284p",), "simavr", "atmega1284p"),
    "atmega328p": ChipTarget("avr-gcc", ("-mmcu=atmega328p",), "simavr", "atmega328p"),
}  # fmt: skip


class Sizes(NamedTuple):
    """Bytes of a linked program: code, constants (weights included), variables, and an upper bound of the stack.

    The stack is the sum of the frames of all functions of the program: it has no recursion, so none occurs twice. The
    compiler's own library needs a few dozen bytes more.
    """

    text: int
    rodata: int
    ram: int
    stack: int

    @property
    def flash(self) -> int:
        """Bytes of flash."""
        return self.text + self.rodata


class Ran(NamedTuple):
    """An emulated run of the tests: how many failed, whether the checksum matched, and the length of one inference.

    `length` is in cycles under simavr, and in instructions under QEMU, which counts no cycles.
    """

    failed: int
    checked: bool
    length: int
    unit: str


class ToolchainError(RuntimeError):
    """A compiler or an emulator failed; the message is what it printed."""


def missing(target: str, emulator: bool = False) -> str | None:
    """Return the first program that a target needs and that is not installed; None if all are."""
    found = TARGETS[target]
    for name in (found.compiler, found.emulator) if emulator else (found.compiler,):
        if not name or shutil.which(name) is None:
            return name or "an emulator"
    return None


def measure(files: Mapping[str, str], target: str, *, warnings: bool = True) -> Sizes:
    """Return the sizes of a program, compiled with ``-Os``.

    Parameters
    ----------
    files : mapping of str to str
        Those of `export_c`.
    target : str
        One of `TARGETS`.
    warnings : bool
        Whether a warning is an error.

    Raises
    ------
    ToolchainError
        The compiler failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        _put(Path(folder), files, "size.c")
        found = TARGETS[target]
        static = ("-DSTATIC_INPUT",) if "model_input(void)" in files["model.h"] else ()
        link = ("-nostartfiles", "-Wl,--gc-sections", "-Wl,-e,entry", "-Wl,-u,entry")
        flags = FLAGS if warnings else FLAGS[:1]
        _call(folder, found.compiler, *flags, *_SIZE_FLAGS, *found.flags, *static, *link, "-o", "model.elf",
              "model.c", "size.c", "-lm")  # fmt: skip
        sections = _call(folder, found.compiler.replace("-gcc", "-size"), "-A", "model.elf")
        usage = "".join(path.read_text() for path in Path(folder).glob("*model.su"))
    sizes: dict[str, int] = {}
    for name, size in re.findall(r"^\.(\S+)\s+(\d+)", sections, re.MULTILINE):
        sizes[name.split(".")[0]] = sizes.get(name.split(".")[0], 0) + int(size)
    data = sizes.get("data", 0)
    text = sizes.get("text", 0) + sizes.get("ARM", 0)
    stack = sum(int(size) for size in re.findall(r"\t(\d+)\t", usage))
    return Sizes(text, sizes.get("rodata", 0) + data, data + sizes.get("bss", 0), stack)


def emulate(files: Mapping[str, str], target: str, optimization: str = "-O2") -> Ran:
    """Run the tests of a program in the target's emulator."""
    found = TARGETS[target]
    avr = found.emulator == "simavr"
    with tempfile.TemporaryDirectory() as folder:
        _put(Path(folder), files, "avr.c" if avr else "cortex_m.c", "cortex_m.ld")
        link = () if avr else ("-nostartfiles", "-T", "cortex_m.ld", "--specs=nosys.specs")
        board = "avr.c" if avr else "cortex_m.c"
        _call(folder, found.compiler, "-std=gnu99", optimization, *found.flags, *link, "-o", "model.elf",
              "model.c", board, "-lm")  # fmt: skip
        if avr:
            printed = _call(folder, "simavr", "-m", found.machine, "-f", "16000000", "model.elf")
        else:
            printed = _call(
                folder, found.emulator, "-M", found.machine, "-nographic", "-monitor", "none", "-serial", "none",
                "-icount", f"shift={_ICOUNT_SHIFT}", "-semihosting-config", "enable=on,target=native",
                "-kernel", "model.elf",
            )  # fmt: skip
    numbers = dict(re.findall(r"(failed|checked|ticks|cycles) (\d+)", printed))
    if not {"failed", "checked"} <= numbers.keys():
        raise ToolchainError(printed)
    unit = "cycles" if "cycles" in numbers else "instructions"
    count = int(numbers.get("cycles", 0)) or int(numbers["ticks"]) * _TICK_NS >> _ICOUNT_SHIFT
    return Ran(int(numbers["failed"]), numbers["checked"] == "1", count, unit)


def _put(folder: Path, files: Mapping[str, str], *boards: str) -> None:
    for name, text in files.items():
        (folder / name).write_text(text, "utf-8")
    for name in boards:
        board = resources.files(__package__).joinpath("boards", name)
        (folder / name).write_text(board.read_text("utf-8"), "utf-8")


def _call(folder: str, *command: str) -> str:
    done = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=_SECONDS, check=False,
    )  # fmt: skip
    text = done.stdout.decode(errors="replace")
    if done.returncode:
        raise ToolchainError(text)
    return text
