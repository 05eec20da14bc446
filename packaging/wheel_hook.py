"""Puts machine code of kernels into a wheel, and names the platform and the Python version of the code.

`make wheel` compiles the kernels and sets DCFORMAT_WHEEL_KERNELS to their folder and DCFORMAT_WHEEL_MACHINE to the
machine (x86_64 or aarch64). Without these, the wheel is one of pure Python, whose kernels are compiled at first use.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

#: Where `dcformat.jit.machine_code.store` looks for code that came with the package.
INSIDE = "dcformat/jit/machine_code/prebuilt"


class KernelsHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the kernels and the tag of a wheel that has any."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the files, unless this is an editable install or a wheel without kernels."""
        folder, machine = (os.environ.get(f"DCFORMAT_WHEEL_{name}") for name in ("KERNELS", "MACHINE"))
        if version != "standard" or not folder or not machine:
            return
        kernels = sorted(Path(folder).glob("*.kernel"))
        if not kernels:
            raise ValueError(f"{folder}: expected kernels, found none")
        for kernel in kernels:
            build_data["force_include"][str(kernel)] = f"{INSIDE}/{kernel.name}"
        # The keys of kernels depend on bytecode, and so on the version of Python. The code calls nothing of the C
        # library that is newer than the platform's oldest version.
        python = f"cp{sys.version_info.major}{sys.version_info.minor}"
        build_data["tag"] = f"{python}-{python}-manylinux2014_{machine}"
        build_data["pure_python"] = False
