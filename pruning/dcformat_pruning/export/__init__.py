"""From PyTorch modules to `dcformat.Model`.

`from_module` exports a user's module (`module_export`): `preparation` copies it without parts that tracing would miss,
`graph_builder` traces the copy and turns it into a graph with the help of `operators` and `folding`, and `agreement`
compares the graph (evaluated by `graph_forward`) with the module. `architecture_model` exports the networks that this
package trains.
"""

from __future__ import annotations

from dcformat_pruning.export.architecture_export import architecture_model
from dcformat_pruning.export.folding import fold_batch_norm
from dcformat_pruning.export.module_export import from_module
from dcformat_pruning.tracing import UnsupportedModuleError

__all__ = ["UnsupportedModuleError", "architecture_model", "fold_batch_norm", "from_module"]
