"""3 x 3 convolutions with a third of the multiplications, for CPUs: the libraries that torch uses there have none.

Winograd's F(3 x 3, 3 x 3): a tile of 5 x 5 inputs and the kernel are evaluated at 25 points, multiplied there, and
3 x 3 outputs are read off. In float32 the result differs from a direct convolution by some millionths.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

OUT, IN = 3, 5  # width of a tile
POINTS = (0.0, 1.0, -1.0, 2.0)  # and infinity


def _matrices() -> tuple[Tensor, Tensor]:
    """What evaluates a kernel (25, 9), the transpose of which reads outputs off, and what evaluates inputs (25, 25)."""
    powers = torch.tensor([[p**i for i in range(IN)] for p in POINTS] + [[0.0] * (IN - 1) + [1.0]], dtype=torch.float64)
    small = torch.cat([powers[:-1, :OUT], powers[-1:, -OUT:]])  # (5, 3)
    inputs = torch.linalg.inv(powers).T.contiguous()
    return torch.kron(small, small).float(), torch.kron(inputs, inputs).float()


KERNEL, INPUTS = _matrices()


class Winograd:
    """The convolution with this weight (C, D, 3, 3) and bias, stride 1, padding 1, of channels-last images on a CPU."""

    def __init__(self, weight: Tensor, bias: Tensor):
        kernels = KERNEL @ weight.permute(2, 3, 1, 0).reshape(9, -1)  # (25, D * C)
        self.kernels, self.bias = kernels.view(IN * IN, weight.shape[1], weight.shape[0]), bias

    def __call__(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        rows, columns = -(-height // OUT), -(-width // OUT)
        padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, columns * OUT + 1 - width, 1, rows * OUT + 1 - height))
        tiles = padded.unfold(1, IN, OUT).unfold(2, IN, OUT).permute(4, 5, 0, 1, 2, 3)  # (5, 5, B, rows, columns, D)
        points = INPUTS @ tiles.reshape(IN * IN, -1)
        found = torch.bmm(points.view(IN * IN, -1, x.shape[1]), self.kernels)  # (25, B * rows * columns, C)
        read = (KERNEL.T @ found.flatten(1)).view(OUT, OUT, batch, rows, columns, -1)
        image = read.permute(2, 3, 0, 4, 1, 5).reshape(batch, rows * OUT, columns * OUT, -1)
        return (image[:, :height, :width] + self.bias).permute(0, 3, 1, 2)
