"""A model made ready to play: layers that read their weights faster, and weights that are fewer bytes to read.

One song at a time, a note costs one reading of all weights: what counts is how many bytes they are, how fast they come
in, and how little happens between two products.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from attention import KeyValueCache, causal_attention, rotate
from model import Block, PooledTransformer

FEW_ROWS = 16  # what the packed weights are laid out for: a note of each song of a batch


class PackedLinear(nn.Module):
    """A linear layer with its weights laid out by oneDNN for products with few rows.

    torch's own layout reaches two thirds of their speed with one row and less than half with sixteen (fp32, AMD EPYC).
    """

    def __init__(self, linear: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().to(dtype), FEW_ROWS)
        self.bias = None if linear.bias is None else linear.bias.detach().to(dtype)

    def forward(self, x: Tensor, activation: str = "none") -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, activation, [], "none")

    def added_to(self, residual: Tensor, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise.binary(x, residual, self.packed, self.bias, "add")


class ByteLinear(nn.Module):
    """A linear layer with weights of 8 bits, a scale for each output; what comes in is rounded as it comes."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scales = (weight.abs().amax(1).clamp(min=1e-12) / 127).double()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch announces a successor; requirements.txt pins the version
            zeros = torch.zeros(len(scales), dtype=torch.long)
            rounded = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
        bias = None if linear.bias is None else linear.bias.detach().float()
        self.packed = torch.ops.quantized.linear_prepack(rounded, bias)

    def forward(self, x: Tensor, activation: str = "none") -> Tensor:
        out = torch.ops.quantized.linear_dynamic(x, self.packed, True)
        return nn.functional.gelu(out) if activation == "gelu" else out

    def added_to(self, residual: Tensor, x: Tensor) -> Tensor:
        return residual + self(x)


class PlayingBlock(nn.Module):
    """`model.Block` without dropout, in as few operations as there are."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.norms = block.attention_norm, block.ff_norm
        self.to_qkv, self.to_out, self.n_heads = block.attention.to_qkv, block.attention.to_out, block.attention.n_heads
        self.widen, self.narrow = block.ff[0], block.ff[-1]
        self.no_dropout = block.dropout.eval()

    def forward(self, x: Tensor, rotation: Tensor | None, cache: KeyValueCache, layer: int) -> Tensor:
        batch, length, width = x.shape
        attention_norm, ff_norm = self.norms
        qkv = self.to_qkv(attention_norm(x)).view(batch, length, 3, self.n_heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, H, T, C)
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)
        key, value = cache.extend(layer, key, value)
        out = causal_attention(query, key, value, self.no_dropout, cache.visible)
        x = self.to_out.added_to(x, out.transpose(1, 2).reshape(batch, length, width))
        return self.narrow.added_to(x, self.widen(ff_norm(x), "gelu"))


def can_pack(dtype: torch.dtype) -> bool:
    """Whether this machine and this torch have `PackedLinear`."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _replace_linears(model: nn.Module, make: Callable[[nn.Linear], nn.Module]) -> None:
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Linear:
                setattr(module, name, make(child))


def prepared(model: PooledTransformer, dtype: str) -> PooledTransformer:
    """`model`, changed in place, to play with weights of `dtype`, one of `generation_args.DTYPES`.

    "bf16" computes in bfloat16. "int8" rounds the weights of linear layers to 8 bits and keeps keys and values in
    bfloat16; on a CPU only.
    """
    model.eval().requires_grad_(False)
    on_cpu = model.in_norm.weight.device.type == "cpu"
    kind = torch.bfloat16 if dtype == "bf16" else torch.float32
    model.to(kind)
    if dtype == "int8":
        model.cache_dtype = torch.bfloat16
        _replace_linears(model, ByteLinear)
    elif on_cpu and can_pack(kind):
        _replace_linears(model, lambda linear: PackedLinear(linear, kind))
    else:
        return model
    model.blocks = nn.ModuleList(PlayingBlock(block) for block in model.blocks)
    return model
