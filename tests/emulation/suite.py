"""Run the runtime's tests on an emulated AArch64 machine, with the wheel's machine code (see README.md).

Everything that the emulated machine needs is downloaded into a folder once: Debian's Python for AArch64, and wheels of
NumPy, crc32c, pytest and what they need. There, neither Numba nor PyTorch is installed, so kernels run only if their
saved code does, and tests that compile or compare with PyTorch skip.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
#: The packages of the emulated Python, as Debian 12 names them.
DEBIAN = (
    f"libpython{VERSION}-stdlib", f"python{VERSION}-minimal", f"libpython{VERSION}-minimal", "libc6", "libgcc-s1",
    "libstdc++6", "libexpat1", "zlib1g", "libffi8", "libssl3", "libbz2-1.0", "liblzma5", "libuuid1",
)  # fmt: skip
COMPILED = ("numpy", "crc32c", "bitarray")
PURE = ("click", "hypothesis", "platformdirs", "pytest")
#: Linux's answer on a small 64-bit Arm machine. QEMU's user mode shows the host's processor.
CPUINFO = "processor\t: 0\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\n\n"
#: Every emulated Python process begins with this, so that the processes which tests start are emulated too.
CUSTOMIZE = """
import sys
sys.executable = {launcher!r}
from dcformat.jit import cpuinfo
cpuinfo.PATH = {cpuinfo!r}
"""
#: Runs pytest; fails if a kernel had to run in Python.
RUN = """
import sys
import pytest
code = pytest.main(sys.argv[1:])
from dcformat import jit
states = sorted({kernel.state for kernel in jit.kernels()})
print("kernels of the tests' own process:", ", ".join(states))
sys.exit(code or not {"saved", "unresolved"} >= set(states))
"""
#: Ends with 0 if a forked child of a process with threads can start a thread. QEMU 7.2 aborts such a child of any
#: program (the assertion is in `qemu_plugin_vcpu_init_hook`).
THREAD_IN_CHILD = """
import os, threading
end = threading.Event()
threading.Thread(target=end.wait).start()
child = os.fork()
if child == 0:
    threading.Thread(target=int).start()
    os._exit(0)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
end.set()
os._exit(code != 0)
"""
#: The tests that need it.
WITH_THREAD_IN_CHILD = ("tests/runtime/test_fork.py::test_a_fork_while_workers_run",)


def missing() -> str | None:
    """Return the reason why this machine cannot emulate another, or None."""
    if sys.platform != "linux":
        return f"Linux (this is {sys.platform})"
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            return f"Debian ({program} is not installed)"
    return None if _qemu() else "qemu-aarch64, of Debian's package qemu-user or qemu-user-static"


def _qemu() -> str | None:
    return shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")


def fetch_python(folder: Path) -> Path:
    """Unpack Debian's Python for AArch64 below `folder`, without root's rights; return its root."""
    root, state = folder / "root", folder / "apt"
    if (root / "usr" / "bin" / f"python{VERSION}").exists():
        return root
    for part in ("state/lists/partial", "cache/archives/partial"):
        (state / part).mkdir(parents=True, exist_ok=True)
    (state / "status").write_text("")
    settings = {
        "APT::Architecture": "arm64", "APT::Architectures": "arm64", "Dir::State": state / "state",
        "Dir::State::status": state / "status", "Dir::Cache": state / "cache", "APT::Sandbox::User": "",
    }  # fmt: skip
    options = [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]
    subprocess.run(["apt-get", *options, "-qq", "update"], cwd=state, check=True)
    subprocess.run(["apt-get", *options, "-qq", "download", *DEBIAN], cwd=state, check=True)
    for package in sorted(state.glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", str(package), str(root)], check=True)
    return root


def fetch_packages(folder: Path) -> Path:
    """Unpack wheels for AArch64 below `folder`; return the folder with the packages."""
    site, wheels = folder / "site", folder / "wheels"
    if not site.exists():
        platforms = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
        download = [sys.executable, "-m", "pip", "download", "--quiet", "-c", str(ROOT / "constraints.txt"),
                    "--only-binary=:all:", "--python-version", VERSION, "--dest", str(wheels)]  # fmt: skip
        for platform in platforms:
            download += ["--platform", platform]
        subprocess.run([*download, *COMPILED, *PURE], check=True)
        with tempfile.TemporaryDirectory(dir=folder) as name:
            for wheel in sorted(wheels.glob("*.whl")):
                zipfile.ZipFile(wheel).extractall(name)
            shutil.copytree(name, site)
    return site


def run(root: Path, site: Path, kernels: Path, arguments: list[str]) -> int:
    """Run pytest under QEMU; return its exit code."""
    with tempfile.TemporaryDirectory() as name:
        cpuinfo, launcher = Path(name) / "cpuinfo", Path(name) / "python"
        cpuinfo.write_text(CPUINFO)
        launcher.write_text(f'#!/bin/sh\nexec {_qemu()} {root}/usr/bin/python{VERSION} "$@"\n')
        launcher.chmod(0o755)
        text = CUSTOMIZE.format(launcher=str(launcher), cpuinfo=str(cpuinfo))
        (Path(name) / "sitecustomize.py").write_text(text)
        packages = [str(ROOT / part) for part in ("", "runtime", "interop", "cli", "pruning")]
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("DCFORMAT_", "PYTHON"))}
        environment |= {
            "PYTHONPATH": os.pathsep.join((name, *packages, str(site))), "QEMU_LD_PREFIX": str(root),
            "DCFORMAT_CACHE_DIR": str(kernels), "OPENBLAS_NUM_THREADS": "1",
        }  # fmt: skip
        command = [str(launcher), "-c", RUN, "-p", "no:cacheprovider", *arguments]
        probe = [str(launcher), "-c", THREAD_IN_CHILD]
        if subprocess.run(probe, env=environment, capture_output=True, check=False).returncode:
            print("left out, because this QEMU cannot start a thread in a forked child:", *WITH_THREAD_IN_CHILD)
            command += [part for test in WITH_THREAD_IN_CHILD for part in ("--deselect", test)]
        return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def main() -> int:
    """Download, run, and return the exit code; a machine that cannot emulate another skips with a reason."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernels", type=Path, required=True, help="folder of `dcformat warmup --target aarch64`")
    parser.add_argument("--into", type=Path, required=True, help="folder for what is downloaded")
    parser.add_argument("tests", nargs="*", help="arguments of pytest [the runtime's tests that need no compiler]")
    options = parser.parse_args()
    if (absent := missing()) is not None:
        print(f"skipped: the emulation of AArch64 needs {absent}")
        return 0
    into = options.into.resolve()  # apt-get runs in its own folder
    into.mkdir(parents=True, exist_ok=True)
    root, site = fetch_python(into), fetch_packages(into)
    tests = options.tests or ["tests/runtime", "-m", "not slow and not needs_compiler"]
    return run(root, site, options.kernels.resolve(), tests)


if __name__ == "__main__":
    sys.exit(main())
