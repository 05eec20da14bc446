"""Compiled kernels, loaded lazily: a decorated function is plain Python until it is first called.

Importing this module, or a module of kernels, imports no compiler. The first call of a kernel looks for machine code
that an earlier process saved (`dcformat.native`) and that runs without Numba. If there is none, Numba compiles the
kernel and the machine code is saved. Without Numba, or where it fails, the same Python function runs as it is.

A kernel that is not compiled yet runs short work in Python: most small files are decoded long before their kernels
would be compiled. Each kernel states how much work a call is, and a process does no more than `PATIENCE` of it in
Python; a call that does not fit is compiled, whatever a file says.

Kernels validate nothing: whatever they index must have been proved in range by their caller. The types of their
arguments are checked. They allocate nothing, raise nothing and divide by no zero, or they cannot be saved.

Environment: ``DCFORMAT_CACHE=off`` neither loads nor saves machine code, ``only`` never compiles;
``NUMBA_DISABLE_JIT=1`` runs Python; ``NUMBA_BOUNDSCHECK=1`` compiles with bounds checks, and saves nothing.
"""

from __future__ import annotations

import os
import time
from _thread import RLock  # `threading` takes a millisecond to import
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from dcformat.native.helpers import devices, for_compiler, intrinsics
from dcformat.native.settings import cache, can_compile, forgo_compiler, import_compiler, mode
from dcformat.native.watch import Observer, can_save, log, observe, observer, tell_unsaved

if TYPE_CHECKING:
    from dcformat.native.image import Image

__all__ = [
    "PATIENCE", "SHARE", "Kernel", "KernelMissingError", "Observer", "can_compile", "device", "intrinsic", "is_ready",
    "kernel", "kernels", "lacks_compiler", "observe", "warm",
]  # fmt: skip

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

#: Steps of work, about a microsecond of Python each, that a process runs in Python where it could compile instead.
PATIENCE = 1_500_000
#: How much of that one kernel may take, so that those that do little need not be compiled because others do much.
SHARE = PATIENCE // 3

_kernels: list[Kernel] = []
#: Held for a moment, and for as long as something is compiled. `resolve` alone waits for the latter.
_lock, _compiling = RLock(), RLock()
_left = PATIENCE
_number = 0


def _renew_locks() -> None:
    """Let a child that was forked while another thread compiles wait for none of the locks that this thread holds."""
    global _lock, _compiling
    if not _compiling.acquire(blocking=False):
        forgo_compiler()
    _lock, _compiling = RLock(), RLock()


os.register_at_fork(after_in_child=_renew_locks)


class KernelMissingError(RuntimeError):
    """DCFORMAT_CACHE=only, and a kernel has no saved code."""


def device(function: F) -> F:
    """Mark a helper that kernels call: Python in Python, inlined by the compiler when a kernel is compiled."""
    devices[cast(FunctionType, function)] = None
    return function


def intrinsic(build: Callable[[], Any]) -> Callable[[F], F]:
    """Mark a helper whose compiled form is not its own code: `build` makes it (a Numba intrinsic) when it is needed.

    The function itself says what the helper means, and is what runs where nothing is compiled. Saved code is made
    anew when `build` changes, or a module of its package that it names.
    """

    def mark(function: F) -> F:
        intrinsics[cast(FunctionType, function)] = build
        return function

    return mark


class Kernel:
    """A function of arrays and scalars, compiled for one signature at its first call.

    Attributes
    ----------
    python : function
        The function as it is written.
    signature : str
    work : Estimate or None
        Counts the steps of a call; None if that cannot be told.
    state : str
        How it runs: ``"unresolved"``, ``"saved"`` (loaded machine code), ``"compiled"`` (machine code made in this
        process), ``"numba"`` (called through Numba) or ``"python"``.
    """

    def __init__(
        self,
        function: FunctionType,
        signature: str,
        fastmath: frozenset[str] = frozenset(),
        unroll: bool = True,
        work: Callable[..., int] | None = None,
    ) -> None:
        from dcformat.native.signature import parse
        from dcformat.native.work import Estimate

        self.python = function
        self.signature = signature
        self.parsed = parse(signature)
        self.work = None if work is None else Estimate(work, function, self.parsed)
        self.fastmath = fastmath
        self.unroll = unroll
        self.state = "unresolved"
        self.__name__ = function.__name__
        self.__doc__ = function.__doc__
        self._call: Callable[..., Any] | None = None
        self._sought = False
        self._spent = 0

    @property
    def name(self) -> str:
        """The kernel's module and name."""
        return f"{self.python.__module__}.{self.python.__name__}"

    def __call__(self, *args: Any) -> Any:
        """Run the kernel."""
        call = self._call
        if call is None:
            call = self.python if self._is_short(args) else self.resolve()
        return call(*args)

    def _is_short(self, args: tuple[Any, ...]) -> bool:
        """Whether this call is better run in Python than to wait for the compiler; its work is then spent."""
        global _left
        if self.work is None or mode() not in ("native", "numba") or cache() != "auto" or self.ready():
            return False
        steps = self.work(args) if can_compile() else None
        if steps is None:
            return False
        with _lock:
            if steps > min(_left, SHARE - self._spent):
                return False
            _left -= steps
            self._spent += steps
        return True

    def resolve(self) -> Callable[..., Any]:
        """Return what runs the kernel. Calling that is a little faster than calling the kernel."""
        with _compiling:
            if self._call is None:
                self._call = self._find()
            return self._call

    def key(self, target: str) -> bytes:
        """Return what this kernel's saved code for a target (`dcformat.native.keys.targets`) is known by."""
        from dcformat.native.keys import kernel_key

        options = (self.signature, sorted(self.fastmath), *(() if self.unroll else ("no unrolling",)))
        return kernel_key(target, self.python, options, devices, intrinsics)

    def path(self) -> str | None:
        """Return the file with this kernel's saved code for this machine, or None if there is none."""
        from dcformat.native import keys, store

        for target in keys.targets():
            found = store.find(self.key(target), keys.compiler())
            if found is not None:
                return found
        return None

    def ready(self) -> bool:
        """Whether the kernel runs at full speed at once: it is resolved, or has saved code."""
        with _lock:
            if self._call is None and not self._sought and mode() == "native" and cache() != "off":
                self._sought = True
                self._call = self._find_saved() or self._call
            return self.state in ("saved", "compiled", "numba")

    def _find(self) -> Callable[..., Any]:
        how = mode()
        if how == "native":
            found = self._find_saved() if cache() != "off" else None
            if found is not None:
                return found
            if cache() == "only":
                raise KernelMissingError(f"kernel {self.name}: expected saved code, found none (DCFORMAT_CACHE=only)")
        made = self._compiled(how) if how != "python" and can_compile() and import_compiler() else None
        if made is None:
            self.state = "python"
            return self.python
        return made

    def _find_saved(self) -> Callable[..., Any] | None:
        return self._attempt("its saved machine code cannot be used", self._saved)

    def _saved(self) -> Callable[..., Any] | None:
        """Load saved code, if there is any that can be used."""
        from dcformat.native import keys, store
        from dcformat.native.image import unpack

        compiler = keys.compiler()
        for target in keys.targets():
            key = self.key(target)
            data = store.read(key, compiler)
            image = None if data is None else unpack(data, key)
            call = None if image is None else self._load(image, "saved")
            if call is not None:
                return call
        return None

    def _attempt(self, failure: str, make: Callable[[], T]) -> T | None:
        """Return what `make` does, or log why it fails: there is always another way to run a kernel."""
        try:
            return make()
        except Exception as error:
            log(f"kernel %s: {failure} (%s: %s)", self.name, type(error).__name__, error)
            return None

    def _load(self, image: Image, state: str) -> Callable[..., Any] | None:
        from dcformat.native import loader

        refuse = _Refusal(self)
        refuse.function = self._attempt(
            "its machine code cannot be loaded", lambda: loader.load(image, self.__name__, refuse)
        )
        if refuse.function is not None:
            self.state = state
        return refuse.function

    def _compiled(self, how: str) -> Callable[..., Any] | None:
        """Compile; None if neither our own compiler nor Numba's can."""
        global _number
        _number += 1
        saved = how == "native" and cache() != "off" and can_save()
        log("kernel %s: compiling", self.name)
        observer().compiling(self.name, _number, saved)
        start = time.perf_counter()
        try:
            call = None
            if how == "native":
                call = self._attempt("cannot be compiled to machine code that is saved", lambda: self._native(saved))
            if call is None:
                call = self._attempt("Numba cannot compile it", self._through_numba)
        finally:
            observer().compiled()
        log("kernel %s: compiled in %.2f s", self.name, time.perf_counter() - start)
        return call

    def _native(self, saved: bool) -> Callable[..., Any] | None:
        """Compile to machine code, save it if it can be, and load it."""
        from dcformat.native import keys, store
        from dcformat.native.compiler import compile_image

        function = for_compiler(self.python, self.fastmath)
        image = compile_image(function, self.parsed, set(self.fastmath) or False, unroll=self.unroll)
        here, compiler = keys.machine(), keys.compiler()
        if saved and here is not None and compiler is not None:
            key = self.key(here)
            try:
                store.write(key, compiler, image.pack(key))
            except OSError as error:
                tell_unsaved(error)
        return self._load(image, "compiled")

    def export(self, target: str, place: str) -> str:
        """Compile for a kind of machine (a name in `dcformat.native.keys.TARGETS`) and save that in a folder.

        Returns
        -------
        str
            The file.

        Raises
        ------
        OSError
            The folder cannot be written to, or others than the user can write to it.
        dcformat.native.elf.LinkError
            The kernel cannot be saved.
        """
        from dcformat.native import keys, store
        from dcformat.native.compiler import compile_image

        function = for_compiler(self.python, self.fastmath)
        fastmath = set(self.fastmath) or False
        image = compile_image(function, self.parsed, fastmath, keys.TARGETS[target], unroll=self.unroll)
        key = self.key(target)
        return store.write(key, keys.compiler() or "unknown", image.pack(key), place)

    def _through_numba(self) -> Callable[..., Any]:
        import numba

        function = for_compiler(self.python, self.fastmath)
        signature = self.signature.replace("const ", "")
        fastmath = set(self.fastmath) or False
        compiled = numba.njit(signature, nogil=True, error_model="numpy", fastmath=fastmath)(function)
        self.state = "numba"
        if "const " not in self.signature:
            return cast(Callable[..., Any], compiled)
        # Numba has no arrays that are read-only here and written in a branch that is never taken.
        return lambda *args: compiled(*(_writable(value) for value in args))


def _writable(value: Any) -> Any:
    flags = getattr(value, "flags", None)
    return value if flags is None or flags.writeable else value.copy()


class _Refusal:
    """What machine code calls when its arguments are not what it was compiled for: puts them right, or raises."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.function: Callable[..., Any] | None = None

    def __call__(self, *args: Any) -> Any:
        from dcformat.native.arguments import conform

        name = self.kernel.name
        better = conform(name, self.kernel.parsed, args)
        if self.function is None or all(a is b for a, b in zip(better, args, strict=True)):
            raise RuntimeError(f"kernel {name}: failed although its arguments have the right types")
        return self.function(*better)


def kernel(
    signature: str, *, work: Callable[..., int] | None = None, fastmath: Iterable[str] = (), unroll: bool = True
) -> Callable[[Callable[..., Any]], Kernel]:
    """Make a function a `Kernel`.

    Parameters
    ----------
    signature : str
        As Numba writes it, of scalars and C-contiguous arrays, e.g. ``"int64(const uint8[::1], int64[::1], int64)"``.
        ``const``: the array is only read, and may be read-only.
    work : callable, optional
        How much work a call is: a function of some of the kernel's parameters, by their names, that returns how many
        microseconds the call takes in Python at most, e.g. ``work=lambda lines, length: 20 * lines * length``. Array
        parameters are given as they are. Without it the kernel is never run in Python where it can be compiled.
    fastmath : iterable of str
        LLVM's flags, as for `numba.njit`.
    unroll : bool
        Whether LLVM may unroll loops. Short ones become larger and slower by it: what is left over is a second loop,
        whose end the processor does not foresee.
    """

    def make(function: Callable[..., Any]) -> Kernel:
        made = Kernel(cast(FunctionType, function), signature, frozenset(fastmath), unroll, work)
        _kernels.append(made)
        return made

    return make


def kernels() -> tuple[Kernel, ...]:
    """Return all kernels of the modules that have been imported."""
    return tuple(_kernels)


def is_ready(*which: Kernel) -> bool:
    """Whether all of these run at full speed at once. Loads saved code, compiles nothing."""
    return all(item.ready() for item in which)


def warm(which: Iterable[Kernel], progress: Callable[[Kernel], None] | None = None) -> None:
    """Load or compile kernels now. Safe beside other threads that call them.

    Parameters
    ----------
    which : iterable of Kernel
    progress : callable, optional
        Called with each kernel when it is done.
    """
    for item in which:
        item.resolve()
        if progress is not None:
            progress(item)


def lacks_compiler(which: Kernel) -> bool:
    """Whether a kernel runs as Python for want of Numba and of saved code, not because that was asked for.

    Compiles nothing to find that out.
    """
    if which.state == "unresolved" and not which.ready():
        return mode() != "python" and not can_compile()
    return which.state == "python" and mode() != "python"
