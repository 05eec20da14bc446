"""Makes a `dcformat.Model` from a PyTorch module.

`from_module` exports a user's module (`module_export`): `preparation` copies it, `inputs` makes examples, `program`
runs `torch.export`, and `dcformat_interop.torch_import` turns the program into a graph. `architecture_model` exports
the networks that this package trains, whose graphs are known. `fold_batch_norm` changes a module in place before its
weights are shared.
"""

from __future__ import annotations

from dcformat_pruning.export.architecture_export import architecture_model
from dcformat_pruning.export.folding import fold_batch_norm
from dcformat_pruning.export.module_export import from_module
from dcformat_pruning.tracing import UnsupportedModuleError

__all__ = ["UnsupportedModuleError", "architecture_model", "fold_batch_norm", "from_module"]
