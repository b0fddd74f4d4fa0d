"""Keys and values of the notes that songs have read: what lets a model read each note once.

Shapes: B batch, T notes, H heads, C width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


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
