"""What attention is made of: scores and weighted sums, rotation and norms, dropout.

Shapes: B batch, T notes, L notes seen, D residual width, H heads, C width of a head.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from backline.layers.config import QK_GAIN

CHUNK = 128  # queries at a time on a CPU
BYTE_VALUES = 256


class Dropout(nn.Dropout):
    """Dropout; on a CPU with one random byte per element where torch draws a float.

    There the rate is rounded to a multiple of 1/256, and the scale follows.
    """

    def forward(self, x: Tensor) -> Tensor:
        """A copy of `x` with some elements set to 0 and the others scaled up."""
        threshold = round(self.p * BYTE_VALUES)
        is_off = not self.training or not 0 < threshold < BYTE_VALUES
        # torch.compile draws within its own kernels.
        if is_off or x.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(x)
        n_words = math.ceil(x.numel() / 8)
        words = torch.empty(n_words, dtype=torch.int64)
        words.random_(-2 ** 63, None)
        random_bytes = words.view(torch.uint8)[:x.numel()]
        kept = random_bytes.view(x.shape) >= threshold
        scale = BYTE_VALUES / (BYTE_VALUES - threshold)
        return x * (kept.to(x.dtype) * scale)


def normed_query(query: Tensor) -> Tensor:
    """(B, H, T, C) queries of equal length: only their direction counts (Henry et al. 2020).

    By the root mean square here. Queries and keys are normed before they are rotated.
    """
    normed = nn.functional.rms_norm(query, query.shape[-1:])
    return normed * QK_GAIN


def normed_key(key: Tensor) -> Tensor:
    """(B, H, T, C) keys of equal length; see `normed_query`."""
    return nn.functional.rms_norm(key, key.shape[-1:])


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotate the pairs (x_i, x_{i + C/2}) of (B, H, T, C).

    Args:
        rotation: (2, B or 1, 1, T, C/2) cosine and sine, see `positions.cos_sin`.
    """
    cosine, sine = rotation
    first, second = x.chunk(2, dim=-1)                       # each (B, H, T, C/2)
    rotated_first = first * cosine - second * sine
    rotated_second = first * sine + second * cosine
    return torch.cat([rotated_first, rotated_second], dim=-1)


class KeysValues(NamedTuple):
    """Keys and values of notes read, and which of them a note sees."""

    keys: Tensor  # (B, H, L, C)
    values: Tensor  # (B, H, L, C)
    visible: Tensor | None = None  # as for `causal_attention`

    def attend(self, query: Tensor, dropout: Dropout) -> Tensor:
        """(B, T, D) from (B, H, T, C) queries."""
        out = causal_attention(query, self.keys, self.values, dropout, self.visible)
        return out.transpose(1, 2).flatten(2)


def causal_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout: Dropout,
    visible: Tensor | None = None,
) -> Tensor:
    """softmax(Q Kᵀ / √C) V over each note and those before it (Vaswani et al. 2017, section 3.2.1).

    Args:
        query: (B, H, T, C), of the last T of L notes.
        key, value: (B, H, L, C); perhaps in bfloat16 where the queries are not.
        dropout: what is applied to the weights.
        visible: (B, 1, T, L) bool, which notes each query sees; None: all up to its own.
    Returns:
        (B, H, T, C).
    """
    out_dtype = query.dtype
    query = query.to(key.dtype)
    if query.shape[2] == 1 or visible is not None:
        return _masked_attention(query, key, value, dropout, visible).to(out_dtype)
    if query.device.type == "cpu":
        return _chunked_attention(query, key, value, dropout).to(out_dtype)
    return _fused_attention(query, key, value, dropout)


def _fused_attention(query: Tensor,
                     key: Tensor,
                     value: Tensor,
                     dropout: Dropout) -> Tensor:
    """The same in torch's kernel for a GPU."""
    n_before = key.shape[2] - query.shape[2]
    mask = None
    if n_before:
        size = (query.shape[2], key.shape[2])
        mask = query.new_ones(size, dtype=torch.bool)
        mask = mask.tril(n_before)                           # (T, L)
    rate = dropout.p if dropout.training else 0.0
    return nn.functional.scaled_dot_product_attention(
        query, key, value, mask, rate, is_causal=mask is None)


def _masked_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout: Dropout,
    visible: Tensor | None,
) -> Tensor:
    """The same where every query sees all notes, or those in `visible`."""
    query = query * query.shape[-1] ** -0.5
    # Keys times queries, not queries times keys: a CPU multiplies a matrix by a vector faster so.
    scores = key @ query.transpose(2, 3)                     # (B, H, L, T)
    scores = scores.transpose(2, 3)                          # (B, H, T, L)
    if visible is not None:
        scores = scores.masked_fill(~visible, -torch.inf)
    weights = dropout(scores.softmax(-1))
    return weights @ value                                   # (B, H, T, C)


def _chunked_attention(query: Tensor,
                       key: Tensor,
                       value: Tensor,
                       dropout: Dropout) -> Tensor:
    """The same on a CPU: queries go in chunks, each against only the keys it can see.

    Plain matrix products let both passes use the bf16 units, and little work is masked away.
    """
    shape = query.shape
    length = shape[2]
    n_before = key.shape[2] - length
    query = query * shape[-1] ** -0.5
    query = query.flatten(0, 1)                              # (B·H, T, C)
    key = key.flatten(0, 1)                                  # (B·H, L, C)
    value = value.flatten(0, 1)
    future = query.new_full((CHUNK, CHUNK), -torch.inf).triu(1)
    chunks = []
    for start in range(0, length, CHUNK):
        end = min(start + CHUNK, length)
        n_seen = n_before + end
        mask = future[:end - start, :end - start]
        mask = nn.functional.pad(mask, (n_before + start, 0))  # (chunk, n_seen)
        mask = mask.expand(len(query), -1, -1)
        keys_seen = key[:, :n_seen].transpose(1, 2)          # (B·H, C, n_seen)
        scores = torch.baddbmm(mask, query[:, start:end], keys_seen)
        weights = dropout(scores.softmax(-1))                # (B·H, chunk, n_seen)
        chunks.append(weights @ value[:, :n_seen])
    out = torch.cat(chunks, dim=1)                           # (B·H, T, C)
    return out.view(shape)
