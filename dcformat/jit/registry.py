"""The kernels: functions of arrays and scalars, and how each of them runs in this process."""

from __future__ import annotations

import os
import time
from _thread import RLock  # `threading` takes a millisecond to import
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from dcformat.jit import cpuinfo
from dcformat.jit.observer import can_save, log, observer, tell_missing, tell_unsaved
from dcformat.jit.settings import cache, can_compile, forgo_compiler, import_compiler, mode
from dcformat.jit.signature import parse
from dcformat.jit.work_estimate import WorkEstimate

if TYPE_CHECKING:
    from dcformat.jit.machine_code.image import CodeImage
    from dcformat.jit.machine_code.targets import Target

T = TypeVar("T")

#: Steps of work, each about a microsecond of Python, that a process runs in Python although it could compile.
PATIENCE = 1_500_000
#: The share of one kernel, so that a kernel with little work is not compiled just because others have much.
SHARE = PATIENCE // 3
#: Both, in a process that cannot save what it compiles, so that every run would wait for the compiler. Kernels estimate
#: the most that a call can take, and a usual call takes a tenth of that.
UNSAVED_PATIENCE = 12_000_000

_kernels: list[Kernel] = []
#: A thread holds the first only briefly, and the second while it compiles. Only `resolve` waits for the second.
_lock, _compiling = RLock(), RLock()
_spent = 0
_number = 0


def _renew_locks() -> None:
    """Give a forked child its own locks: the threads that hold the parent's locks do not exist in it."""
    global _lock, _compiling
    if not _compiling.acquire(blocking=False):
        forgo_compiler()
    _lock, _compiling = RLock(), RLock()


os.register_at_fork(after_in_child=_renew_locks)


class KernelMissingError(RuntimeError):
    """DCFORMAT_CACHE=only is set, and a kernel has no saved code."""


class Kernel:
    """A function of arrays and scalars, compiled for one signature at its first call.

    Attributes
    ----------
    python : function
        The plain Python function.
    signature : str
    parsed : Signature
    work : WorkEstimate or None
        Estimates the steps of a call; None if they cannot be predicted.
    state : str
        How the kernel runs: ``"unresolved"``, ``"saved"`` (loaded machine code), ``"compiled"`` (machine code made in
        this process), ``"numba"`` (called through Numba) or ``"python"``.
    """

    def __init__(
        self,
        function: FunctionType,
        signature: str,
        fastmath: frozenset[str] = frozenset(),
        unroll: bool = True,
        work: Callable[..., int] | None = None,
    ) -> None:
        self.python = function
        self.signature = signature
        self.parsed = parse(signature)
        self.work = None if work is None else WorkEstimate(work, function, self.parsed)
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
        """Return whether to run this call in Python rather than compile; if so, count its work as spent."""
        global _spent
        if self.work is None or mode() not in ("native", "numba") or cache() != "auto" or self.ready():
            return False
        steps = self.work(args) if can_compile() else None
        if steps is None:
            return False
        with _lock:
            if not self._affords(steps):
                return False
            _spent += steps
            self._spent += steps
        return True

    def _affords(self, steps: int) -> bool:
        """Return whether the process may do that much more work in Python for this kernel."""
        together, alone = _spent + steps, self._spent + steps
        return (together <= PATIENCE and alone <= SHARE) or (together <= UNSAVED_PATIENCE and not can_save())

    def resolve(self) -> Callable[..., Any]:
        """Return the function that runs the kernel, which is a little faster to call than the kernel."""
        with _compiling:
            if self._call is None:
                self._call = self._find()
            return self._call

    def key(self, target: str) -> bytes:
        """Return the key of this kernel's saved code for a target (`dcformat.jit.machine_code.targets`)."""
        from dcformat.jit.machine_code.keys import kernel_key

        options = (self.signature, sorted(self.fastmath), *(() if self.unroll else ("no unrolling",)))
        return kernel_key(target, self.python, options)

    def path(self) -> str | None:
        """Return the file with this kernel's saved code for this machine, or None without such a file."""
        from dcformat.jit.machine_code import keys, store, targets

        for target in targets.targets():
            found = store.find(self.key(target), keys.compiler())
            if found is not None:
                return found
        return None

    def ready(self) -> bool:
        """Return whether the kernel runs at full speed immediately: it is resolved or has saved code."""
        with _lock:
            if self._call is None and not self._sought and mode() == "native" and cache() != "off":
                self._sought = True
                self._call = self._find_saved() or self._call
            return self.state in ("saved", "compiled", "numba")

    def look_again(self) -> None:
        """Let `ready` look for saved code once more, because another process may have saved some."""
        with _lock:
            self._sought = False

    def _find(self) -> Callable[..., Any]:
        how = mode()
        if how == "native":
            found = self._find_saved() if cache() != "off" else None
            if found is not None:
                return found
            if cache() == "only":
                raise KernelMissingError(f"kernel {self.name}: expected saved code, found none (DCFORMAT_CACHE=only)")
        made = self._compile(how) if how != "python" and can_compile() and import_compiler() else None
        if made is None:
            self.state = "python"
            return self.python
        return made

    def _find_saved(self) -> Callable[..., Any] | None:
        return self._attempt("its saved machine code cannot be used", self._load_saved)

    def _load_saved(self) -> Callable[..., Any] | None:
        """Load saved code if any is usable."""
        from dcformat.jit.machine_code import keys, store, targets
        from dcformat.jit.machine_code.image import unpack

        compiler = keys.compiler()
        for target in targets.targets():
            key = self.key(target)
            data = store.read(key, compiler)
            image = None if data is None else unpack(data, key)
            if data is not None and image is None:
                observer().damaged(self.name)
            call = None if image is None else self._load(image, "saved")
            if call is not None:
                return call
        if not can_compile():
            tell_missing(self.name)
        return None

    def _attempt(self, failure: str, make: Callable[[], T]) -> T | None:
        """Return the result of `make`, or log why it fails: a kernel can always run in another way."""
        try:
            return make()
        except Exception as error:
            log(f"kernel %s: {failure} (%s: %s)", self.name, type(error).__name__, error)
            return None

    def _load(self, image: CodeImage, state: str) -> Callable[..., Any] | None:
        from dcformat.jit.machine_code import loader

        refuse = _Refusal(self)
        refuse.function = self._attempt(
            "its machine code cannot be loaded", lambda: loader.load(image, self.__name__, refuse)
        )
        if refuse.function is not None:
            self.state = state
        return refuse.function

    def _compile(self, how: str) -> Callable[..., Any] | None:
        """Compile the kernel; return None if neither our own compiler nor Numba's can."""
        global _number
        _number += 1
        saved = how == "native" and cache() != "off" and can_save()
        log("kernel %s: compiling", self.name)
        observer().compiling(self.name, _number, saved)
        start = time.perf_counter()
        try:
            call = None
            if how == "native":
                call = self._attempt(
                    "cannot be compiled to machine code that is saved", lambda: self._compile_image(saved)
                )
            if call is None:
                call = self._attempt("Numba cannot compile it", self._compile_by_numba)
        finally:
            observer().compiled()
        log("kernel %s: compiled in %.2f s", self.name, time.perf_counter() - start)
        return call

    def _compile_image(self, saved: bool) -> Callable[..., Any] | None:
        """Compile to machine code, save it if possible, and load it."""
        from dcformat.jit.machine_code import keys, store

        image = self._image(None)
        here, compiler = cpuinfo.identity(), keys.compiler()
        if saved and here is not None and compiler is not None:
            key = self.key(here)
            try:
                store.write(key, compiler, image.pack(key))
            except OSError as error:
                tell_unsaved(error)
        return self._load(image, "compiled")

    def _image(self, target: Target | None) -> CodeImage:
        """Compile for a target (None for this machine)."""
        from dcformat.jit.compiler.code_generation import compile_image
        from dcformat.jit.compiler.inlining import with_compiled_helpers

        function = with_compiled_helpers(self.python, self.fastmath)
        return compile_image(function, self.parsed, set(self.fastmath) or False, target, unroll=self.unroll)

    def export(self, target: str, folder: str) -> str:
        """Compile for a target (a name in `targets.TARGETS`), save the code in a folder, and return the file's path.

        Raises
        ------
        OSError
            The folder cannot be written to, or other users can write to it.
        dcformat.jit.compiler.elf.LinkError
            The kernel cannot be saved.
        """
        from dcformat.jit.machine_code import keys, store
        from dcformat.jit.machine_code.targets import TARGETS

        image, key = self._image(TARGETS[target]), self.key(target)
        return store.write(key, keys.compiler() or "unknown", image.pack(key), folder)

    def _compile_by_numba(self) -> Callable[..., Any]:
        import numba

        from dcformat.jit.compiler.inlining import with_compiled_helpers

        function = with_compiled_helpers(self.python, self.fastmath)
        signature = self.signature.replace("const ", "")
        fastmath = set(self.fastmath) or False
        compiled = numba.njit(signature, nogil=True, error_model="numpy", fastmath=fastmath)(function)
        self.state = "numba"
        if "const " not in self.signature:
            return cast(Callable[..., Any], compiled)
        # Numba has no type for an array that is read-only but written in a branch that is never taken.
        return lambda *args: compiled(*(_writable(value) for value in args))


def _writable(value: Any) -> Any:
    flags = getattr(value, "flags", None)
    return value if flags is None or flags.writeable else value.copy()


class _Refusal:
    """Called by machine code if its arguments have unexpected types: it converts them or raises."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.function: Callable[..., Any] | None = None

    def __call__(self, *args: Any) -> Any:
        from dcformat.jit.arguments import conform

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
        Scalars and C-contiguous arrays in Numba's notation, e.g. ``"int64(const uint8[::1], int64[::1], int64)"``.
        ``const`` marks an array that the kernel only reads, and that may therefore be read-only.
    work : callable, optional
        A function of some of the kernel's parameters, by name, that returns the maximum number of microseconds that a
        call takes in Python, e.g. ``work=lambda lines, length: 20 * lines * length``. It gets array parameters
        unchanged. Without `work`, the kernel never runs in Python if it can be compiled.
    fastmath : iterable of str
        LLVM's flags, as for `numba.njit`.
    unroll : bool
        Whether LLVM may unroll loops. Unrolling makes short loops larger and slower: the remainder becomes a second
        loop, whose end the processor mispredicts.
    """

    def make(function: Callable[..., Any]) -> Kernel:
        made = Kernel(cast(FunctionType, function), signature, frozenset(fastmath), unroll, work)
        _kernels.append(made)
        return made

    return make


def kernels() -> tuple[Kernel, ...]:
    """Return all kernels of the modules that have been imported."""
    return tuple(_kernels)


def warm(which: Iterable[Kernel], progress: Callable[[Kernel], None] | None = None) -> None:
    """Load or compile kernels now; other threads may call them at the same time.

    Parameters
    ----------
    which : iterable of Kernel
    progress : callable, optional
        Called with each kernel after it is loaded or compiled.
    """
    for item in which:
        item.resolve()
        if progress is not None:
            progress(item)


def lacks_compiler(which: Kernel) -> bool:
    """Return whether a kernel runs as Python because Numba and saved code are missing, not on the user's request.

    Compiles nothing.
    """
    if which.state == "unresolved" and not which.ready():
        return mode() != "python" and not can_compile()
    return which.state == "python" and mode() != "python"
