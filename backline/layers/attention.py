"""Causal self-attention: what a note may see of the notes before it, with a cache and rotated queries and keys.

Shapes: B batch, T notes, D residual width, H heads, C width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence

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


class KeyValueCache:
    """Keys and values of the notes that each song of a batch has read so far, written in place.

    One (B, H, capacity, C) pair per layer. Songs may have read different numbers of notes: `lengths`. `read` of the
    model then takes the notes of all in one go, filled up to the same number.
    """

    def __init__(self, n_layers: int, shape: tuple[int, int, int, int], device: torch.device,
                 dtype: torch.dtype) -> None:
        """`shape`: (B, H, capacity, C)."""
        self.layers = [(torch.zeros(shape, device=device, dtype=dtype), torch.zeros(shape, device=device, dtype=dtype))
                       for _ in range(n_layers)]
        self.lengths = [0] * shape[0]
        self.capacity, self.device = shape[2], device
        self.places: Tensor | None = None  # (B, T) where the notes under way belong, None where that is a slice
        self.visible: Tensor | None = None  # (B, 1, T, L) what each of them may see, None where that is all before it

    def begin(self, n_rows: int) -> Tensor:
        """Make ready for `n_rows` T more notes of each song; returns their indices, (B or 1, T)."""
        index = torch.arange(n_rows, device=self.device)
        if len(set(self.lengths)) <= 1:
            self.places = self.visible = None
            return (self.lengths[0] + index)[None]
        places = torch.tensor(self.lengths, device=self.device)[:, None] + index
        self.places = places.clamp(max=self.capacity - 1)  # what only fills the batch may go where nobody looks
        end = min(max(self.lengths) + n_rows, self.capacity)
        self.visible = torch.arange(end, device=self.device) <= places[:, None, :, None]
        return places

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add (B, H, T, C) keys and values of one layer; returns all of that layer's, (B, H, L, C)."""
        end = min(max(self.lengths) + key.shape[2], self.capacity)
        for store, new in zip(self.layers[layer], (key, value), strict=True):
            if self.places is None:
                store[:, :, self.lengths[0]:end] = new
            else:
                songs = torch.arange(len(store), device=self.device)[:, None]
                store[songs, :, self.places] = new.transpose(1, 2).to(store.dtype)
        keys, values = self.layers[layer]
        return keys[:, :, :end], values[:, :, :end]

    def held(self, layer: int) -> tuple[Tensor, Tensor]:
        """One layer's (B, H, L, C) keys and values of all notes read, for as many as the longest song has."""
        keys, values = self.layers[layer]
        return keys[:, :, :max(self.lengths)], values[:, :, :max(self.lengths)]

    def end(self, counts: Sequence[int]) -> None:
        """Of the notes added, keep the first so many of each song; the others were there to fill the batch."""
        self.lengths = [length + count for length, count in zip(self.lengths, counts, strict=True)]

    def keep(self, songs: Sequence[int]) -> None:
        """Keep these songs of the batch, in this order."""
        index, length = torch.tensor(songs, device=self.device), max(self.lengths)
        for layer, pair in enumerate(self.layers):
            for store in pair:
                store[:len(songs), :, :length] = store[index, :, :length]
            self.layers[layer] = tuple(store[:len(songs)] for store in pair)
        self.lengths = [self.lengths[song] for song in songs]

    def replace(self, songs: Sequence[int], other: KeyValueCache, sources: Sequence[int]) -> None:
        """Put in place of these songs' notes those of the `sources` among the songs of `other`."""
        index, source = (torch.tensor(which, device=self.device) for which in (songs, sources))
        length = max(other.lengths)
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            for store, new in zip(mine, theirs, strict=True):
                store[index, :, :length] = new[source, :, :length]
        for song, there in zip(songs, sources, strict=True):
            self.lengths[song] = other.lengths[there]


def normed_query(query: Tensor) -> Tensor:
    """(B, H, T, C) queries of equal length, so that their directions alone count (Henry et al. 2020, with RMS)."""
    return nn.functional.rms_norm(query, query.shape[-1:]) * QK_GAIN


def normed_key(key: Tensor) -> Tensor:
    """The same of keys. Both are normed before they are rotated."""
    return nn.functional.rms_norm(key, key.shape[-1:])


class Attention(nn.Module):
    """Causal self-attention without biases, optionally with rotated queries and keys."""

    def __init__(self, width: int, n_heads: int, dropout: float, qk_norm: bool = False) -> None:
        super().__init__()
        self.n_heads, self.dropout = n_heads, Dropout(dropout)
        self.qk_norm = qk_norm
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, rotation: Tensor | None, cache: KeyValueCache | None, layer: int) -> Tensor:
        """(B, T, D) from (B, T, D); `cache` holds the notes before these and takes them in as its `layer`."""
        batch, length, width = x.shape
        query, key, value = (self.to_qkv(x).view(batch, length, 3, self.n_heads, width // self.n_heads)
                             .permute(2, 0, 3, 1, 4))  # each (B, H, T, C)
        if self.qk_norm:
            query, key = normed_query(query), normed_key(key)
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)
        visible = None
        if cache is not None:
            key, value = cache.extend(layer, key, value)
            visible = cache.visible
        out = causal_attention(query, key, value, self.dropout, visible)
        return self.to_out(out.transpose(1, 2).reshape(batch, length, width))


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


class LateAttention(nn.Module):
    """From notes under way, of which the time is known, to the notes read, by how far apart in time they sound."""

    def __init__(self, width: int, n_heads: int, dropout: float, qk_norm: bool = False) -> None:
        super().__init__()
        self.n_heads, self.dropout = n_heads, Dropout(dropout)
        self.qk_norm = qk_norm
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_kv = nn.Linear(2 * width, 2 * width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)

    def keys_values(self, read: Tensor, rotation: Tensor) -> tuple[Tensor, Tensor]:
        """(B, H, T, C) keys and values of notes read, of which (B, T, 2·D) is known."""
        key, value = self.to_kv(read).unflatten(-1, (2, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        key = normed_key(key) if self.qk_norm else key
        return rotate(key, rotation), value

    def queries(self, x: Tensor, rotation: Tensor) -> Tensor:
        """(B, H, T, C) of notes under way (B, T, D)."""
        query = self.to_q(x).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
        query = normed_query(query) if self.qk_norm else query
        return rotate(query, rotation)

    def forward(self, x: Tensor, rotation: Tensor, key: Tensor, value: Tensor, visible: Tensor | None) -> Tensor:
        """(B, T, D) from (B, T, D): each note under way sees all that was read before it, L ≥ T notes in the end."""
        out = causal_attention(self.queries(x, rotation), key, value, self.dropout, visible)
        return self.to_out(out.transpose(1, 2).flatten(2))


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn the pairs (x_i, x_{i + C/2}) of (B, H, T, C) by `rotation`, a (2, B or 1, 1, T, C/2) cosine and sine."""
    cosine, sine = rotation
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)
