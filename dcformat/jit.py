"""Compiled kernels, loaded lazily: a decorated function is plain Python until it is first called.

Importing this module, or a module of kernels, imports no compiler. The first call of a kernel looks for machine code
saved by an earlier process (`dcformat.native`), which runs without Numba; else compiles it with Numba and saves it; and
without Numba, the same Python function runs as it is. A kernel that is not compiled yet runs short work in Python: a
file of some kilobytes is decoded long before its kernels would be compiled.

Kernels validate nothing: whatever they index must have been proved in range by their caller. The types of their
arguments are checked. They allocate nothing, raise nothing and divide by no zero, or they cannot be saved.

Environment: ``DCFORMAT_CACHE=off`` neither loads nor saves machine code, ``only`` never compiles;
``NUMBA_DISABLE_JIT=1`` runs Python; ``NUMBA_BOUNDSCHECK=1`` compiles with bounds checks, and saves nothing.
"""

from __future__ import annotations

import os
import sys
import time
from _thread import RLock  # `threading` takes a millisecond to import
from collections.abc import Callable, Iterable
from functools import cache
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from dcformat.native.image import Image

F = TypeVar("F", bound=Callable[..., Any])

_devices: dict[FunctionType, Any] = {}
_intrinsics: dict[FunctionType, Callable[[], Any]] = {}
_kernels: list[Kernel] = []
_lock = RLock()

#: Work is short while the arrays of a call hold no more elements than this together, and Python has run kernels for no
#: more seconds than this in all. To import Numba and compile one kernel takes about as long.
_SHORT = 1 << 17
_PATIENCE = 0.5
_spent = 0.0


class KernelMissingError(RuntimeError):
    """DCFORMAT_CACHE=only, and a kernel has no saved code."""


def device(function: F) -> F:
    """Mark a helper that kernels call: Python in Python, inlined by the compiler when a kernel is compiled."""
    _devices[cast(FunctionType, function)] = None
    return function


def intrinsic(build: Callable[[], Any]) -> Callable[[F], F]:
    """Mark a helper whose compiled form is not its own code: `build` makes it (a Numba intrinsic) when it is needed.

    The function itself says what the helper means, and is what runs where nothing is compiled. Saved code is made
    anew when `build` changes, or a module of its package that it names.
    """

    def mark(function: F) -> F:
        _intrinsics[cast(FunctionType, function)] = build
        return function

    return mark


class Kernel:
    """A function of arrays and scalars, compiled for one signature at its first call.

    Attributes
    ----------
    python : function
        The function as it is written.
    signature : str
    state : str
        How it runs: ``"unresolved"``, ``"saved"`` (loaded machine code), ``"compiled"`` (machine code made in this
        process), ``"numba"`` (called through Numba) or ``"python"``.
    """

    def __init__(self, function: FunctionType, signature: str, fastmath: frozenset[str], unroll: bool) -> None:
        from dcformat.native.signature import parse

        self.python = function
        self.signature = signature
        self.parsed = parse(signature)
        self.fastmath = fastmath
        self.unroll = unroll
        self.state = "unresolved"
        self.__name__ = function.__name__
        self.__doc__ = function.__doc__
        self._call: Callable[..., Any] | None = None
        self._sought = False

    @property
    def name(self) -> str:
        """The kernel's module and name."""
        return f"{self.python.__module__}.{self.python.__name__}"

    def __call__(self, *args: Any) -> Any:
        """Run the kernel."""
        call = self._call
        if call is None:
            call = self._python_for_now if self._can_wait(args) else self.resolve()
        return call(*args)

    def _can_wait(self, args: tuple[Any, ...]) -> bool:
        """Whether this call is better run in Python than to wait for the compiler."""
        if _spent > _PATIENCE or sum(getattr(value, "size", 1) for value in args) > _SHORT:
            return False
        return _mode() == "native" and _cache() == "auto" and not self.ready()

    def _python_for_now(self, *args: Any) -> Any:
        """Run in Python, and count how long that takes."""
        global _spent
        start = time.thread_time()
        try:
            return self.python(*args)
        finally:
            _spent += time.thread_time() - start

    def resolve(self) -> Callable[..., Any]:
        """Return what runs the kernel. Calling that is a little faster than calling the kernel."""
        with _lock:
            if self._call is None:
                self._call = self._find()
            return self._call

    def key(self, target: str) -> bytes:
        """Return what this kernel's saved code for a target (`dcformat.native.keys.targets`) is known by."""
        from dcformat.native.keys import kernel_key

        options = (self.signature, sorted(self.fastmath), *(() if self.unroll else ("no unrolling",)))
        return kernel_key(target, self.python, options, _devices, _intrinsics)

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
            if self._call is None and not self._sought and _mode() == "native" and _cache() != "off":
                self._sought = True
                self._call = self._saved()
            return self.state in ("saved", "compiled", "numba")

    def _find(self) -> Callable[..., Any]:
        mode = _mode()
        if mode == "native":
            found = self._saved() if _cache() != "off" else None
            if found is not None:
                return found
            if _cache() == "only":
                raise KernelMissingError(f"kernel {self.name}: expected saved code, found none (DCFORMAT_CACHE=only)")
        if mode == "python" or not can_compile():
            self.state = "python"
            return self.python
        return self._compiled(mode)

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

    def _load(self, image: Image, state: str) -> Callable[..., Any] | None:
        from dcformat.native import loader

        refuse = _Refusal(self)
        try:
            refuse.function = loader.load(image, self.__name__, refuse)
        except (OSError, LookupError) as error:
            _log("kernel %s: its machine code cannot be loaded (%s)", self.name, error)
            return None
        self.state = state
        return refuse.function

    def _compiled(self, mode: str) -> Callable[..., Any]:
        start = time.perf_counter()
        function = _for_compiler(self.python, self.fastmath)
        call = self._native(function) if mode == "native" else None
        if call is None:
            call = self._through_numba(function)
        _log("kernel %s: compiled in %.2f s", self.name, time.perf_counter() - start)
        return call

    def _native(self, function: FunctionType) -> Callable[..., Any] | None:
        """Compile to machine code, save and load it."""
        from dcformat.native import keys, store
        from dcformat.native.compiler import compile_image
        from dcformat.native.elf import LinkError

        try:
            image = compile_image(function, self.parsed, set(self.fastmath) or False, unroll=self.unroll)
        except LinkError as error:
            _log("kernel %s: cannot be saved (%s)", self.name, error)
            return None
        here, compiler = keys.machine(), keys.compiler()
        if here is not None and compiler is not None and _cache() != "off":
            key = self.key(here)
            store.write(key, compiler, image.pack(key))
        return self._load(image, "compiled")

    def export(self, target: str, place: str) -> str | None:
        """Compile for a kind of machine (a name in `dcformat.native.keys.TARGETS`) and save that in a folder.

        Returns
        -------
        str or None
            The file. None: the folder cannot be written to, or others than the user can write to it.

        Raises
        ------
        dcformat.native.elf.LinkError
            The kernel cannot be saved.
        """
        from dcformat.native import keys, store
        from dcformat.native.compiler import compile_image

        function = _for_compiler(self.python, self.fastmath)
        fastmath = set(self.fastmath) or False
        image = compile_image(function, self.parsed, fastmath, keys.TARGETS[target], unroll=self.unroll)
        key = self.key(target)
        return store.write(key, keys.compiler() or "unknown", image.pack(key), place)

    def _through_numba(self, function: FunctionType) -> Callable[..., Any]:
        import numba

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
    signature: str, *, fastmath: Iterable[str] = (), unroll: bool = True
) -> Callable[[Callable[..., Any]], Kernel]:
    """Make a function a `Kernel`.

    Parameters
    ----------
    signature : str
        As Numba writes it, of scalars and C-contiguous arrays, e.g. ``"int64(const uint8[::1], int64[::1], int64)"``.
        ``const``: the array is only read, and may be read-only.
    fastmath : iterable of str
        LLVM's flags, as for `numba.njit`.
    unroll : bool
        Whether LLVM may unroll loops. Short ones become larger and slower by it: what is left over is a second loop,
        whose end the processor does not foresee.
    """

    def make(function: Callable[..., Any]) -> Kernel:
        made = Kernel(cast(FunctionType, function), signature, frozenset(fastmath), unroll)
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
        return _mode() != "python" and not can_compile()
    return which.state == "python" and _mode() != "python"


def can_compile() -> bool:
    """Whether Numba is installed (it is not imported to see)."""
    return _mode() != "python" and _is_installed()


@cache
def _is_installed() -> bool:
    from importlib.util import find_spec

    return find_spec("numba") is not None and find_spec("llvmlite") is not None


def _mode() -> str:
    """Return how kernels are to run: as "python", through "numba", or as "native" machine code."""
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        return "python"
    if os.environ.get("NUMBA_BOUNDSCHECK", "0") not in ("", "0"):
        return "numba"
    from dcformat.native.loader import layout_known

    return "native" if layout_known() else "numba"


def _cache() -> str:
    value = os.environ.get("DCFORMAT_CACHE", "") or "auto"
    if value not in ("auto", "off", "only"):
        raise ValueError(f"DCFORMAT_CACHE: expected auto, off or only, found {value!r}")
    return value


def _log(message: str, *args: object) -> None:
    logging = sys.modules.get("logging")  # whoever wants to see it has imported it
    if logging is not None:
        logging.getLogger(__name__).info(message, *args)


def _for_compiler(function: FunctionType, fastmath: frozenset[str]) -> FunctionType:
    """Copy a function so that the helpers among its globals are the compiled ones."""
    scope = dict(function.__globals__)
    for name in function.__code__.co_names:
        helper = scope.get(name)
        if isinstance(helper, FunctionType) and (helper in _intrinsics or helper in _devices):
            scope[name] = _helper(helper, fastmath)
    return FunctionType(function.__code__, scope, function.__name__, function.__defaults__, function.__closure__)


_helpers: dict[tuple[FunctionType, frozenset[str]], Any] = {}


def _helper(function: FunctionType, fastmath: frozenset[str]) -> Any:
    import numba

    key = (function, fastmath)
    if key not in _helpers:
        if function in _intrinsics:
            _helpers[key] = _intrinsics[function]()
        else:
            # Inlined by LLVM: to inline Numba's own form takes three times as long to compile.
            options = {"forceinline": True, "error_model": "numpy", "fastmath": set(fastmath) or False,
                       "_nrt": False, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}  # fmt: skip
            _helpers[key] = numba.njit(**options)(_for_compiler(function, fastmath))
    return _helpers[key]
