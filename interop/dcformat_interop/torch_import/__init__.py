"""Import of networks from PyTorch: programs of `torch.export`, in memory or in ``.pt2`` archives."""

from dcformat_interop.torch_import.reading import import_program, import_pt2, read_pt2
from dcformat_interop.torch_import.translation import quiet

__all__ = ["import_program", "import_pt2", "quiet", "read_pt2"]
