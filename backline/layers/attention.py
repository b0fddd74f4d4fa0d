"""What attention is computed with: scores and weighted sums, rotation and norms of queries and keys, dropout.

Shapes: B batch, T notes, D residual width, H heads, C width of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

CHUNK = 128  # queries at a time on a CPU
QK_GAIN = 1.2  # of normed queries, or attention could hardly be sharp


class Dropout(nn.Dropout):
    """Dropout, on a CPU with a byte of chance for each number where torch draws a whole float.

    The share is then the nearest multiple of 1/256, the scale the one that belongs to it.
    """

    def forward(self, x: Tensor) -> Tensor:
        threshold = round(self.p * 256)
        plain = x.device.type != "cpu" or torch.compiler.is_compiling()  # which draws within its own kernels
        if plain or not self.training or not 0 < threshold < 256:
            return super().forward(x)
        drawn = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-2 ** 63, None)
        kept = drawn.view(torch.uint8)[:x.numel()].view(x.shape) >= threshold
        return x * (kept.to(x.dtype) * (256 / (256 - threshold)))


def normed_query(query: Tensor) -> Tensor:
    """(B, H, T, C) queries of equal length, so that their directions alone count (Henry et al. 2020, with RMS)."""
    return nn.functional.rms_norm(query, query.shape[-1:]) * QK_GAIN


def normed_key(key: Tensor) -> Tensor:
    """The same of keys. Both are normed before they are rotated."""
    return nn.functional.rms_norm(key, key.shape[-1:])


def causal_attention(query: Tensor, key: Tensor, value: Tensor, dropout: Dropout, visible: Tensor | None = None,
                     ) -> Tensor:
    """softmax(Q Kᵀ / √C) V over each note and those before it (Vaswani et al. 2017, section 3.2.1).

    On a CPU some queries at a time, each lot against the keys it may see, in plain matrix products: they and their
    gradients use the processor's bf16 units, and little of the work goes into what the mask throws away.

    Args:
        query: (B, H, T, C), of the last T of L notes.
        key, value: (B, H, L, C); in bfloat16 perhaps where the queries are not.
        dropout: what is applied to the weights.
        visible: (B, 1, T, L) bool, what each query sees where songs have read different numbers of notes.
    """
    asked_in, query = query.dtype, query.to(key.dtype)
    if query.shape[2] == 1 or visible is not None:
        # Keys times queries and not the other way round: a CPU's product of a matrix and a vector is faster so.
        scores = (key @ (query * query.shape[-1] ** -0.5).transpose(2, 3)).transpose(2, 3)  # (B, H, T, L)
        scores = scores if visible is None else scores.masked_fill(~visible, -torch.inf)
        return (dropout(scores.softmax(-1)) @ value).to(asked_in)
    length, before = query.shape[2], key.shape[2] - query.shape[2]
    if query.device.type != "cpu":
        mask = query.new_ones((length, before + length), dtype=torch.bool).tril(before) if before else None
        return nn.functional.scaled_dot_product_attention(
            query, key, value, mask, dropout.p if dropout.training else 0.0, is_causal=mask is None)
    shape = query.shape
    query, key, value = (x.flatten(0, 1) for x in (query * shape[-1] ** -0.5, key, value))  # each (B·H, …, C)
    future = query.new_full((CHUNK, CHUNK), -torch.inf).triu(1)
    out = []
    for start in range(0, length, CHUNK):
        end = min(start + CHUNK, length)
        mask = nn.functional.pad(future[:end - start, :end - start], (before + start, 0)).expand(len(query), -1, -1)
        scores = torch.baddbmm(mask, query[:, start:end], key[:, :before + end].transpose(1, 2))
        weights = dropout(scores.softmax(-1))
        out.append(weights @ value[:, :before + end])
    return torch.cat(out, dim=1).view(shape).to(asked_in)


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn the pairs (x_i, x_{i + C/2}) of (B, H, T, C) by `rotation`, a (2, B or 1, 1, T, C/2) cosine and sine."""
    cosine, sine = rotation
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)
