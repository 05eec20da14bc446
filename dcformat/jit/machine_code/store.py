"""The user's folder of saved kernels and prepared networks, which is checked before anything in it is used.

Saved code runs with the user's rights. So a file counts only if its checksum is right and only the user or root can
have written to it or to its folder. Readers treat anything wrong, missing or forbidden as an empty folder; writers
report it. Files are written under a temporary name and renamed, so readers see either a complete file or none.

Paths are plain text here, because an import of pathlib would take 3 ms of a short start.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import BinaryIO

#: Larger files are not read; no kernel comes close to this size.
MAX_BYTES = 1 << 24
_SUFFIX = ".kernel"
#: The suffix of the networks that `dcformat_runtime.prepare` saves.
NETWORK_SUFFIX = ".network"
_PARTIAL = ".partial"
#: A file that is still unfinished after this many seconds belongs to a process that was killed.
_ABANDONED = 3600
#: The folder keeps at most so many networks, of at most so many bytes together: those that were used last.
MAX_NETWORKS, MAX_NETWORK_BYTES = 256, 1 << 27
_DAY = 86400
#: The file that tells which networks were loaded before: a table of tags, one for each slot.
_LOADS, _SLOTS, _TAG = "loads", 4096, 8

#: The folder of a process that can save nothing anywhere else.
_temporary: str | None = None
#: What this process, or one from which it was forked, has looked up in the table: the tags by slot.
_looked_up: dict[int, bytes] = {}


def folder() -> str | None:
    """Return the folder of saved kernels: below DCFORMAT_CACHE_DIR, else below the user's cache directory.

    The latter is the directory that platformdirs returns; this function repeats its rule for Linux, because an import
    of platformdirs takes 10 ms.
    """
    if _temporary is not None:
        return _temporary
    if os.getuid() != os.geteuid() or os.getgid() != os.getegid():
        return None  # The environment may come from a user with fewer rights.
    chosen = os.environ.get("DCFORMAT_CACHE_DIR")
    if chosen:
        return f"{os.path.abspath(chosen)}/kernels"  # noqa: PTH100
    base = os.environ.get("XDG_CACHE_HOME", "").strip() or "~/.cache"
    home = os.path.expanduser(base)  # noqa: PTH111
    return f"{home}/dcformat/kernels" if os.path.isabs(home) else None  # noqa: PTH117


def make_temporary() -> str:
    """Make a folder of saved kernels that lasts as long as this process, and use it from now on."""
    global _temporary
    if _temporary is None:
        import atexit
        import shutil
        import tempfile

        made, process = tempfile.mkdtemp(prefix="dcformat-"), os.getpid()
        atexit.register(lambda: shutil.rmtree(made, ignore_errors=True) if os.getpid() == process else None)
        _temporary = f"{made}/kernels"
    return _temporary


def shipped() -> str:
    """Return the folder of kernels that came with the package; they are trusted as its modules are."""
    return f"{os.path.dirname(__file__)}/prebuilt"  # noqa: PTH120


def ships_code() -> bool:
    """Return whether any kernels came with the package."""
    try:
        return any(name.endswith(_SUFFIX) for name in os.listdir(shipped()))  # noqa: PTH208
    except OSError:
        return False


def read(key: bytes, compiler: str | None) -> bytes | None:
    """Return the file saved under `key`, or None.

    In the user's folder, a file counts only if the installed `compiler` made it. If no compiler is installed, and among
    the files that came with the package, any compiler's file counts.
    """
    return read_named(_wanted(key, compiler), _wanted(key, None))


def read_named(name: str, came: str | None = None) -> bytes | None:
    """Return the file called `name` in the user's folder, else that called `came` (default: `name`) of the package.

    The beginning of a kernel's name stands for the latest such file.
    """
    place = folder()
    data = None if place is None else _read(place, name)
    return _read(shipped(), came or name, trusted=True) if data is None else data


def find(key: bytes, compiler: str | None) -> str | None:
    """Return the file that `read` reads, or None."""
    for place, wanted, trusted in ((folder(), compiler, False), (shipped(), None, True)):
        if place is not None and _read(place, _wanted(key, wanted), trusted) is not None:
            return f"{place}/{_full(os.listdir(place), _wanted(key, wanted))}"  # noqa: PTH208
    return None


def _wanted(key: bytes, compiler: str | None) -> str:
    """Return the name of the file that a compiler made, or its beginning if any compiler's file counts."""
    return f"{key.hex()}-" if compiler is None else _name(key, compiler)


def _full(names: list[str], wanted: str) -> str | None:
    """Return the name of the latest file whose name begins so, made by any compiler."""
    return max((name for name in names if name.startswith(wanted) and name.endswith(_SUFFIX)), default=None)


def _read(place: str, wanted: str, trusted: bool = False) -> bytes | None:
    try:
        handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if not (trusted or _trusted(os.fstat(handle))):
            return None
        # List the folder that was checked, even if its name now refers to another one.
        name = _full(os.listdir(handle), wanted) if wanted.endswith("-") else wanted  # noqa: PTH208
        return None if name is None else _read_file(handle, name, trusted)
    except OSError:
        return None
    finally:
        os.close(handle)


def _read_file(place: int, name: str, trusted: bool) -> bytes | None:
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=place)
    with os.fdopen(file, "rb", buffering=0) as opened:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or not (trusted or _trusted(status)) or status.st_size > MAX_BYTES:
            return None
        return opened.read(status.st_size)


def _trusted(status: os.stat_result) -> bool:
    """Return whether only this user or root can have written the file."""
    return status.st_uid in (0, os.geteuid()) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _name(key: bytes, compiler: str) -> str:
    return f"{key.hex()}-{compiler.replace(' ', '_')}{_SUFFIX}"


def check(place: str | None = None) -> None:
    """Raise `OSError`, with the reason as its text, unless files can be saved in a folder (default: the user's)."""
    os.close(_open_to_write(place or _require_folder()))


def write(key: bytes, compiler: str, data: bytes, place: str | None = None) -> str:
    """Save a kernel in a folder (default: the user's) and return its path; raise `OSError` as `write_named`."""
    return write_named(_name(key, compiler), data, place)


def write_named(name: str, data: bytes, place: str | None = None) -> str:
    """Save a file in a folder (default: the user's) and return its path.

    Raises
    ------
    OSError
        The file cannot be saved; the text says why.
    """
    place = place or _require_folder()
    handle = _open_to_write(place)
    try:
        with _new_file(handle, name, f"{os.getpid()}-{os.urandom(8).hex()}") as file:
            file.write(data)
    except OSError as error:
        raise OSError(f"{place}: {error.strerror}") from error
    finally:
        os.close(handle)
    return f"{place}/{name}"


@contextmanager
def new_network(name: str) -> Iterator[BinaryIO]:
    """Open a file that becomes the saved network `name` in the user's folder when the block ends.

    Raises
    ------
    OSError
        The file cannot be saved, or another process is saving this network.
    """
    handle = _open_to_write(_require_folder())
    try:
        with _new_file(handle, name, name) as file:
            yield file
    finally:
        os.close(handle)


@contextmanager
def _new_file(place: int, name: str, unfinished: str) -> Iterator[BinaryIO]:
    """Open a file that gets its name when the block ends; until then, it is called after `unfinished`."""
    temporary = f".{unfinished}{_PARTIAL}"
    try:
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=place)
        try:
            with os.fdopen(file, "wb") as opened:
                yield opened
            os.rename(temporary, name, src_dir_fd=place, dst_dir_fd=place)
        except BaseException:
            os.unlink(temporary, dir_fd=place)
            raise
    finally:
        _tidy(place)


def loaded_before(name: str) -> bool:
    """Return whether an earlier process called this for the network `name`, and note that this one did.

    The table has a fixed size. Networks that share a slot displace each other, so any number of files that are loaded
    only once leave no trace but this.
    """
    tag, slot = bytes.fromhex(name[: 2 * _TAG]), int(name[2 * _TAG :][:4], 16) % _SLOTS
    if _looked_up.get(slot) == tag:
        return False
    _looked_up[slot] = tag
    try:
        return _exchange(tag, slot * _TAG) == tag
    except OSError:
        return False


def _exchange(tag: bytes, offset: int) -> bytes:
    """Write a tag into the table and return the previous one."""
    place = _open_to_write(_require_folder())
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        file = os.open(_LOADS, flags, 0o600, dir_fd=place)
    finally:
        os.close(place)
    try:
        before = os.pread(file, _TAG, offset)
        if before != tag:
            os.pwrite(file, tag, offset)
        return before
    finally:
        os.close(file)


def note_use(name: str) -> None:
    """Note, once a day, that a network in the user's folder was used, so that it is kept."""
    path = f"{folder()}/{name}"
    with suppress(OSError):
        if time.time() - os.lstat(path).st_mtime > _DAY:
            os.utime(path, follow_symlinks=False)


@contextmanager
def lock() -> Iterator[None]:
    """Let one process at a time fill the user's folder."""
    import fcntl

    handle = _open_to_write(_require_folder())
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _require_folder() -> str:
    place = folder()
    if place is None:
        raise OSError("there is no home directory, or the process runs with another user's rights")
    return place


def _open_to_write(place: str) -> int:
    """Open a folder that only this user and root can write to, and create it if it is missing."""
    try:
        os.makedirs(place, 0o700, exist_ok=True)  # noqa: PTH103
        handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise OSError(f"{place}: {error.strerror}") from error
    status = os.fstat(handle)
    reason = ""
    if status.st_uid not in (0, os.geteuid()):
        reason = f"belongs to another user (uid {status.st_uid})"
    elif not _trusted(status):
        reason = f"others may write to it (mode {stat.S_IMODE(status.st_mode):o})"
    elif not os.access(place, os.W_OK | os.X_OK):
        reason = "may not be written to"
    if reason:
        os.close(handle)
        raise OSError(f"{place}: {reason}")
    return handle


def _tidy(place: int) -> None:
    """Remove unfinished files of processes that were killed, and the networks that were used longest ago."""
    networks = []
    for name in os.listdir(place):
        with suppress(OSError):  # Another process was faster.
            if name.endswith(NETWORK_SUFFIX):
                status = os.lstat(name, dir_fd=place)
                networks.append((status.st_mtime_ns, status.st_size, name))
            elif name.endswith(_PARTIAL) and time.time() - os.lstat(name, dir_fd=place).st_mtime > _ABANDONED:
                os.unlink(name, dir_fd=place)
    total = 0
    for number, (_, size, name) in enumerate(sorted(networks, reverse=True)):
        total += size
        if number >= MAX_NETWORKS or total > MAX_NETWORK_BYTES:
            with suppress(OSError):
                os.unlink(name, dir_fd=place)


def entries() -> Iterator[str]:
    """Yield the files in the user's folder, including temporary ones that interrupted processes left."""
    place = folder()
    if place is not None and os.path.isdir(place):  # noqa: PTH112
        names = sorted(os.listdir(place))  # noqa: PTH208
        ours = (_SUFFIX, NETWORK_SUFFIX, _PARTIAL)
        yield from (f"{place}/{name}" for name in names if name.endswith(ours) or name == _LOADS)
