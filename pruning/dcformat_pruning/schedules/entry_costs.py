"""The bits that a nonzero weight takes in a file, estimated while the network is pruned.

The coders of dcformat learn where nonzeros are frequent: in which rows, in which columns, and in which kernels of a
convolution (spec/coders.md, sections 5.2 and 6.3). A nonzero among many others is therefore cheaper than one alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: The bits of a weight's value. About what a codebook of 24 values with a price on bits takes.
_VALUE_BITS = 2.5

#: The number of cells that the expected density weighs as much as, in a row, in a column and in a kernel. A coder, too,
#: has to learn densities from few cells.
_ROW_PRIOR, _COLUMN_PRIOR, _KERNEL_PRIOR = 20, 10, 6

#: Bounds of the probability of a nonzero.
_RAREST, _COMMONEST = 1e-4, 0.9


@torch.no_grad()
def entry_bits(alive: Tensor) -> Tensor:
    """Return the bits that each weight adds to the file if it is nonzero.

    With the probability p of a nonzero, this is ``log2((1 - p) / p)``, the cost of a nonzero less that of a zero, but
    at least 0, and the bits of the value. The probability follows from the densities of the weight's row and column.
    In a convolution, it also follows from the other weights of its kernel.

    Parameters
    ----------
    alive : Tensor
        Bool; the weights that are nonzero now, in the parameter's shape, of rank 2 or more.

    Returns
    -------
    Tensor
        float32 ``(rows, columns)``: a row for each output, and a column for each input and position in the kernel.
    """
    nonzero = alive.flatten(1).float()
    rows, columns = nonzero.shape
    density = nonzero.mean().clamp_min(1e-6)
    in_row = (nonzero.sum(1, keepdim=True) + _ROW_PRIOR * density) / (columns + _ROW_PRIOR)
    in_column = (nonzero.sum(0) + _COLUMN_PRIOR * density) / (rows + _COLUMN_PRIOR)
    p = in_row * in_column / density
    kernel = alive[0, 0].numel()
    if kernel > 1:
        kernels = nonzero.view(rows, -1, kernel)
        others = kernels.sum(2, keepdim=True) - kernels
        p = (others.view_as(p) + _KERNEL_PRIOR * p) / (kernel - 1 + _KERNEL_PRIOR)
    p = p.clamp(_RAREST, _COMMONEST)
    return torch.log2((1 - p) / p).clamp_min(0) + _VALUE_BITS
