"""Second derivatives from few inputs, and the matrices that they belong to."""

from __future__ import annotations

import numpy as np
import torch
from dcformat_pruning.calibration.layers import find_layers
from dcformat_pruning.calibration.sensitivity import shrunk

from dcformat.graph import Conv, Graph


def test_a_mean_of_few_products_is_drawn_towards_the_identity() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.diag(torch.linspace(0.5, 1.5, 40, dtype=torch.float64))

    def estimates(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.randn(count, 40, generator=generator, dtype=torch.float64) @ truth.sqrt()
        mean = (x.T @ x)[None] / count
        return mean, shrunk(mean, x.square().sum(1).square().mean()[None], count)

    few, drawn = estimates(20)
    assert torch.linalg.matrix_rank(few[0]) == 20 and torch.linalg.eigvalsh(drawn[0])[0] > 0.3
    assert (drawn - truth).norm() < 0.3 * (few - truth).norm()
    many, kept = estimates(4000)
    assert (kept - truth).norm() < (many - truth).norm()


def test_more_products_than_columns_leave_columns_their_own_weight() -> None:
    mean, squares = torch.diag(torch.tensor([3.0, 1.0], dtype=torch.float64))[None], torch.tensor([14.0])
    assert torch.equal(shrunk(mean, squares, 2)[0].diagonal(), torch.tensor([2.0, 2.0], dtype=torch.float64))
    # The share with the least error is a half; there are twice as many products as columns.
    assert torch.equal(shrunk(mean, squares, 4)[0].diagonal(), torch.tensor([2.75, 1.25], dtype=torch.float64))


def test_equal_products_are_certain() -> None:
    product = torch.tensor([[[4.0, 2.0], [2.0, 1.0]]], dtype=torch.float64)
    assert torch.equal(shrunk(product, product.square().sum((1, 2)), 5), product)
    assert not shrunk(torch.zeros(1, 3, 3, dtype=torch.float64), torch.zeros(1), 5).any()


def test_wide_matrices_have_blocks_of_columns_that_add_up() -> None:
    node = Conv((0,), "w", stride=(1,), padding=(0,), padding_end=(0,), dilation=(1,), groups=2)
    graph = Graph.sequential((6, 700), [node])
    (layer,) = find_layers(graph, {"w": (4, 3, 500)})
    assert layer.parts == 2  # 1,500 columns
    generator = torch.Generator().manual_seed(0)
    w, x = torch.randn(4, 3, 500, generator=generator), torch.randn(2, 6, 700, generator=generator)
    matrix = layer.matrix(w)
    assert matrix.shape == (8, 750) and torch.equal(layer.tensor(matrix), w)
    blocks = layer.vectors(node, x) @ matrix.reshape(4, 2, 750).transpose(1, 2)
    y = torch.nn.functional.conv1d(x, w, groups=2)
    found = blocks.reshape(2, 2, -1, 2).sum(1)
    np.testing.assert_allclose(found.numpy(), layer.results(node, y)[::2].numpy(), rtol=0, atol=1e-3)
