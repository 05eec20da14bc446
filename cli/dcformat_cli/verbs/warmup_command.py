"""`dcformat warmup`: compile every kernel, or prepare networks, so that later processes start faster."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import click

from dcformat.wording import counted
from dcformat_cli.compiling import Notices, all_kernels
from dcformat_cli.failures import UnfitError, misuse
from dcformat_cli.shared_options import FileName, as_json
from dcformat_cli.terminal import TextTable, emit_json, is_quiet, note, say, shows_progress, warn

if TYPE_CHECKING:
    from dcformat.jit import Kernel

#: Seconds between two lines of progress without a terminal.
_QUIET = 5.0


class _Step(Protocol):
    def __call__(self, done: int, name: str) -> None:
        """Show that `done` kernels are compiled and that `name` is next."""


@click.command("warmup")
@click.argument("files", type=FileName(), metavar="[FILE]...", nargs=-1)
@click.option(
    "--list", "listing", is_flag=True, help="List the kernels with saved code, and the saved networks; compile nothing."
)
@click.option("--clear", is_flag=True, help="Remove all saved code and all saved networks.")
@click.option(
    "--target", metavar="NAME", help="Compile for another kind of machine: aarch64, x86-64-v2, x86-64-v3 or x86-64-v4."
)
@click.option(
    "--into", type=FileName(path_type=Path), metavar="DIR",
    help="With --target: save the code here. Use the folder as DCFORMAT_CACHE_DIR on the other machine.",
)  # fmt: skip
@click.option("-f", "--force", is_flag=True, help="With --into: replace existing kernels.")
@as_json()
def warmup_command(
    files: Sequence[str], listing: bool, clear: bool, target: str | None, into: Path | None, force: bool, as_json: bool
) -> None:
    """Compile the kernels of the codecs and of the runtime, and save their machine code in the user's cache.

    Later processes load the machine code without importing Numba. With FILEs, prepare their networks instead: later
    processes run them without decoding the file. See docs/cold-start.md for where this is saved, and when it becomes
    stale.
    """
    if (target is None) != (into is None):
        raise misuse("--target and --into belong together")
    if force and into is None:
        raise misuse("--force needs --target and --into")
    if sum((bool(files), listing, clear, target is not None)) > 1:
        raise misuse("expected one of FILE, --list, --clear and --target")
    if files:
        _prepare(files, as_json)
    elif clear:
        _clear(as_json)
    elif listing:
        _list(all_kernels(), as_json)
    elif target is not None and into is not None:
        _export(all_kernels(), target, into, force, as_json)
    else:
        _warm(all_kernels(), as_json)


def _folder() -> Path:
    from dcformat.jit.machine_code import store

    place = store.folder()
    if place is None:
        raise UnfitError("warmup", "a home directory, or DCFORMAT_CACHE_DIR", "neither")
    return Path(place)


def _warm(kernels: Sequence[Kernel], as_json: bool) -> None:
    from dcformat import jit

    place, start = _folder(), time.perf_counter()
    missing = [kernel for kernel in kernels if not kernel.ready()]
    if missing and not jit.can_compile():
        raise UnfitError(
            "warmup", f"Numba, to compile {counted(len(missing), 'kernel')}", "none, or one that is switched off"
        )
    if missing:
        _require_room()
    with _progress(len(missing)) as step:
        jit.observe(_Steps(step))
        jit.warm(missing)
        step(len(missing), "")
    unsaved = [kernel.name for kernel in kernels if kernel.path() is None]
    size = _size(place)
    for name in unsaved:
        warn(f"{name}: its machine code could not be saved in {place}")
    if as_json:
        emit_json(
            {
                "folder": str(place), "bytes": size, "kernels": len(kernels), "compiled": len(missing),
                "unsaved": unsaved, "seconds": round(time.perf_counter() - start, 3),
            }
        )  # fmt: skip
    else:
        took = (
            f"{len(missing)} compiled in {time.perf_counter() - start:.1f} s" if missing else "all were already there"
        )
        say(f"{len(kernels) - len(unsaved)} of {len(kernels)} kernels are saved in {place} ({size:,} bytes): {took}")
    if unsaved:
        raise click.exceptions.Exit(1)


def _prepare(files: Sequence[str], as_json: bool) -> None:
    """Save the networks of files beside the kernels that run them."""
    import dcformat_runtime
    from dcformat_runtime.kernels import interpreter

    from dcformat import jit

    place = _folder()
    _require_room()
    if not (interpreter.run.ready() or jit.can_compile()):
        raise UnfitError("warmup", "Numba, to compile the kernels", "none, or one that is switched off")
    sizes = {}
    for file in files:
        sizes[file] = size = dcformat_runtime.prepare(file)
        if size is None:
            warn(f"{file}: its network runs in several parts, and cannot be prepared")
        elif not as_json:
            say(f"{file}: prepared ({size:,} bytes in {place})")
    if as_json:
        emit_json({"folder": str(place), "prepared": [{"file": file, "bytes": size} for file, size in sizes.items()]})
    if None in sizes.values():
        raise click.exceptions.Exit(1)


def _require_room() -> None:
    """Refuse a cache that cannot be written to before spending minutes on compilation."""
    from dcformat.jit.machine_code import store

    try:
        store.check()
    except OSError as error:
        raise UnfitError("warmup", "a folder to save kernels in (DCFORMAT_CACHE_DIR names one)", error) from error


class _Steps(Notices):
    """Shows each kernel as a step before its compilation."""

    def __init__(self, step: _Step) -> None:
        super().__init__()
        self._step = step
        self._done = 0

    def compiling(self, kernel: str, number: int, saved: bool) -> None:
        self._step(self._done, kernel)
        self._done += 1

    def compiled(self) -> None:
        """Leave the line for the next step."""


def _list(kernels: Sequence[Kernel], as_json: bool) -> None:
    from dcformat_runtime.preparing import saved_networks

    place, networks = _folder(), saved_networks()
    paths = {kernel.name: kernel.path() for kernel in kernels}
    if as_json:
        files = {name: None if path is None else str(path) for name, path in paths.items()}
        listed = [saved._asdict() for saved in networks]
        emit_json({"folder": str(place), "bytes": _size(place), "kernels": files, "networks": listed})
        return
    rows = [(name, "" if path is None else f"{Path(path).stat().st_size:,}") for name, path in sorted(paths.items())]
    total = (f"{sum(path is not None for path in paths.values())} of {len(paths)} saved", f"{_size(place):,}")
    TextTable(f"Kernels in {place}", ("kernel", "bytes"), [*rows, total], total=True).show()
    if networks:
        made = [(saved.made_of, f"{saved.bytes:,}", _day(saved.used)) for saved in networks]
        whole = (counted(len(made), "network"), f"{sum(saved.bytes for saved in networks):,}", "")
        TextTable(f"Networks in {place}", ("made of", "bytes", "last used"), [*made, whole], total=True).show()


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(seconds))


def _clear(as_json: bool) -> None:
    from dcformat.jit.machine_code import store

    removed = 0
    for path in map(Path, list(store.entries())):
        removed += path.stat().st_size
        path.unlink()
    if as_json:
        emit_json({"folder": str(_folder()), "removed_bytes": removed})
    else:
        say(f"{_folder()}: {removed:,} bytes removed")


def _export(kernels: Sequence[Kernel], target: str, into: Path, force: bool, as_json: bool) -> None:
    from dcformat.jit.machine_code.targets import TARGETS

    if target not in TARGETS:
        raise misuse(f"--target: expected one of {', '.join(TARGETS)}, found {target!r}")
    place = into / "kernels"
    if not force and _size(place):
        raise misuse(f"{place}: expected no kernels there, found some; -f adds to them and replaces those of {target}")
    with _progress(len(kernels)) as step:
        for done, kernel in enumerate(kernels):
            step(done, kernel.name)
            try:
                kernel.export(target, str(place))
            except OSError as error:
                raise UnfitError("warmup --into", "a folder that only its owner can write to", error) from error
        step(len(kernels), "")
    if as_json:
        emit_json({"folder": str(place), "bytes": _size(place), "kernels": len(kernels), "target": target})
    else:
        say(f"{len(kernels)} kernels for {target} are saved in {place} ({_size(place):,} bytes)")
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        note(f"a Python {version} there finds them with DCFORMAT_CACHE_DIR={into}")


def _size(place: Path) -> int:
    return sum(path.stat().st_size for path in place.glob("*.kernel")) if place.is_dir() else 0


@contextmanager
def _progress(total: int) -> Iterator[_Step]:
    if not shows_progress() or not total:
        last = time.monotonic()

        def line(done: int, name: str) -> None:
            nonlocal last
            if time.monotonic() - last > _QUIET and not is_quiet():
                last = time.monotonic()
                click.echo(f"compiled {done} of {total} kernels", err=True)

        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(), TextColumn("compiling"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("", total=total)
        yield lambda done, name: bars.update(task, completed=done, description=name.rpartition(".")[2])
