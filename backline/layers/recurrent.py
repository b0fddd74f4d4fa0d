"""A recurrent cell that torch.compile can look into on a GPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def recur(cell: nn.GRUCell, x: Tensor, hidden: Tensor) -> Tensor:
    """The cell's next state (N, D) from inputs and states (N, D)."""
    if x.device.type == "cpu" or not torch.compiler.is_compiling():
        return cell(x, hidden)
    # torch.compile cannot look into CUDA's fused cell: pytorch issue 191153.
    return written_out(cell, x, hidden)


def written_out(cell: nn.GRUCell, x: Tensor, hidden: Tensor) -> Tensor:
    """The same in single operations (Cho et al. 2014, with the reset gate after the product)."""
    of_x = nn.functional.linear(x, cell.weight_ih, cell.bias_ih)  # (N, 3·D)
    of_hidden = nn.functional.linear(hidden, cell.weight_hh, cell.bias_hh)  # (N, 3·D)
    reset_x, update_x, new_x = of_x.chunk(3, dim=-1)
    reset_hidden, update_hidden, new_hidden = of_hidden.chunk(3, dim=-1)
    reset = (reset_x + reset_hidden).sigmoid()
    update = (update_x + update_hidden).sigmoid()
    new = (new_x + reset * new_hidden).tanh()
    return new + update * (hidden - new)
