"""Causal self-attention: what a note may see of the notes before it, with a cache and rotated queries and keys.

Shapes: B batch, T notes, D residual width, H heads, C width of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

CHUNK = 128  # queries at a time on a CPU


class KeyValueCache:
    """Keys and values of the notes read so far, one (B, H, capacity, C) pair per layer, written in place."""

    def __init__(self, n_layers: int, shape: tuple[int, int, int, int], device: torch.device,
                 dtype: torch.dtype) -> None:
        """`shape`: (B, H, capacity, C)."""
        self.layers = [(torch.zeros(shape, device=device, dtype=dtype), torch.zeros(shape, device=device, dtype=dtype))
                       for _ in range(n_layers)]
        self.length = 0

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Append (B, H, T, C) keys and values of one layer; returns all of that layer's, (B, H, length + T, C)."""
        keys, values = self.layers[layer]
        end = self.length + key.shape[2]
        keys[:, :, self.length:end] = key
        values[:, :, self.length:end] = value
        return keys[:, :, :end], values[:, :, :end]


class Attention(nn.Module):
    """Causal self-attention without biases, optionally with rotated queries and keys."""

    def __init__(self, width: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads, self.dropout = n_heads, dropout
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, rotation: Tensor | None, cache: KeyValueCache | None, layer: int) -> Tensor:
        """(B, T, D) from (B, T, D); `cache` holds the notes before these and takes them in as its `layer`."""
        batch, length, width = x.shape
        query, key, value = (self.to_qkv(x).view(batch, length, 3, self.n_heads, width // self.n_heads)
                             .permute(2, 0, 3, 1, 4))  # each (B, H, T, C)
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)
        if cache is None:
            out = causal_attention(query, key, value, self.dropout if self.training else 0.0)
        else:
            key, value = cache.extend(layer, key, value)
            # New notes see all earlier ones and, among themselves, the past.
            mask = torch.ones(length, key.shape[2], dtype=torch.bool, device=x.device).tril(key.shape[2] - length)
            out = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.to_out(out.transpose(1, 2).reshape(batch, length, width))


def causal_attention(query: Tensor, key: Tensor, value: Tensor, dropout: float = 0.0) -> Tensor:
    """softmax(Q Kᵀ / √C) V over each note and those before it (Vaswani et al. 2017, section 3.2.1).

    On a CPU some queries at a time, each lot against the keys it may see: in plain matrix products, which run
    at several times the speed of torch's fused kernel there when it comes to gradients (`benchmarks.bench_train`).

    Args:
        query, key, value: (B, H, T, C).
        dropout: the share of weights set to 0.
    """
    if query.device.type != "cpu":
        return nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, dropout_p=dropout)
    shape = query.shape
    query, key, value = (x.flatten(0, 1) for x in (query * shape[-1] ** -0.5, key, value))  # each (B·H, T, C)
    future = query.new_full((CHUNK, CHUNK), -torch.inf).triu(1)
    out = []
    for start in range(0, shape[2], CHUNK):
        end = min(start + CHUNK, shape[2])
        mask = nn.functional.pad(future[:end - start, :end - start], (start, 0)).expand(len(query), -1, -1)
        scores = torch.baddbmm(mask, query[:, start:end], key[:, :end].transpose(1, 2))
        weights = nn.functional.dropout(scores.softmax(-1), dropout)
        out.append(weights @ value[:, :end])
    return torch.cat(out, dim=1).view(shape)


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn the pairs (x_i, x_{i + C/2}) of (B, H, T, C) by `rotation`, a (2, B or 1, 1, T, C/2) cosine and sine."""
    cosine, sine = rotation
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)
