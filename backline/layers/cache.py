"""Keys and values of the notes that songs have read, so that each note is read once.

Most of this module is for ragged batches: songs in one batch have read different numbers of notes,
some end before others, and a song whose context is full starts a new window.

Shapes: B batch, T new notes, L notes in the cache, H heads, C width of a head.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from backline.layers.attention import KeysValues


@dataclasses.dataclass(frozen=True)
class Step:
    """Where the new notes of a batch go, and what they see."""

    index: Tensor  # (B or 1, T) number of each new note in its song
    places: Tensor | None  # (B, T) slots of the new notes; None: the slots from `start` on
    visible: Tensor | None  # (B, 1, T, L) bool, which notes each sees; None: all up to itself
    start: int  # notes read before, where songs have read equally many
    end: int  # L, slots in use once the new notes are in


class KeyValueCache:
    """Keys and values of all layers, written in place: one (B, H, capacity, C) pair for each layer.

    Songs may have read different numbers of notes: `lengths`. New notes of all songs go in
    together, padded to the same number:

        step = cache.begin(n_rows)
        memory = cache.extend(layer, key, value)  # in each layer
        cache.end(counts)
    """

    def __init__(
        self,
        n_layers: int,
        shape: tuple[int, int, int, int],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """An empty cache; `shape` is (B, H, capacity, C)."""
        self.layers = [(torch.zeros(shape, device=device, dtype=dtype),
                        torch.zeros(shape, device=device, dtype=dtype))
                       for _ in range(n_layers)]
        self.lengths = [0] * shape[0]
        self.capacity = shape[2]
        self.device = device
        self.step: Step | None = None  # between `begin` and `end`

    # ------------------------------------------------------------ new notes

    def begin(self, n_rows: int) -> Step:
        """Make ready for `n_rows` T more notes of each song."""
        index = torch.arange(n_rows, device=self.device)
        end = min(max(self.lengths) + n_rows, self.capacity)
        if len(set(self.lengths)) == 1:
            start = self.lengths[0]
            index = (start + index)[None]                    # (1, T)
            self.step = Step(index, None, None, start, end)
            return self.step
        starts = torch.tensor(self.lengths, device=self.device)
        index = starts[:, None] + index                      # (B, T)
        # Padding goes to a spare slot that is never read.
        places = index.clamp(max=self.capacity - 1)
        slots = torch.arange(end, device=self.device)        # (L,)
        visible = slots <= index[:, None, :, None]           # (B, 1, T, L)
        self.step = Step(index, places, visible, 0, end)
        return self.step

    def extend(self, layer: int, key: Tensor, value: Tensor) -> KeysValues:
        """Add (B, H, T, C) keys and values to one layer; returns what its new notes see."""
        assert self.step is not None
        start = self.step.start
        end = self.step.end
        keys, values = self.layers[layer]
        for buffer, new in ((keys, key), (values, value)):
            if self.step.places is None:
                buffer[:, :, start:end] = new
            else:
                songs = torch.arange(len(buffer), device=self.device)[:, None]
                by_note = new.transpose(1, 2)                # (B, T, H, C)
                buffer[songs, :, self.step.places] = by_note.to(buffer.dtype)
        keys = keys[:, :, :end]
        values = values[:, :, :end]
        return KeysValues(keys, values, self.step.visible)

    def end(self, counts: Sequence[int]) -> None:
        """Keep the first `counts[i]` new notes of song i; the rest was padding."""
        both = zip(self.lengths, counts, strict=True)
        self.lengths = [length + count for length, count in both]
        self.step = None

    # ------------------------------------------------------------ notes read

    def last_seen(self) -> Tensor | None:
        """(B, 1, 1, L) bool: which slots hold notes of each song; None: all of L."""
        if len(set(self.lengths)) == 1:
            return None
        lengths = torch.tensor(self.lengths, device=self.device)
        slots = torch.arange(max(self.lengths), device=self.device)  # (L,)
        return slots < lengths[:, None, None, None]

    def held(self, layer: int, visible: Tensor | None) -> KeysValues:
        """What one layer holds of all notes read.

        Args:
            visible: from `last_seen`.
        """
        keys, values = self.layers[layer]
        end = max(self.lengths)
        keys = keys[:, :, :end]
        values = values[:, :, :end]
        return KeysValues(keys, values, visible)

    # ------------------------------------------------------------ songs of the batch

    def keep(self, songs: Sequence[int]) -> None:
        """Keep these songs of the batch, in this order."""
        index = torch.tensor(songs, device=self.device)
        length = max(self.lengths)
        for layer, (keys, values) in enumerate(self.layers):
            for buffer in (keys, values):
                buffer[:len(songs), :, :length] = buffer[index, :, :length]
            self.layers[layer] = keys[:len(songs)], values[:len(songs)]
        self.lengths = [self.lengths[song] for song in songs]

    def replace(self,
                songs: Sequence[int],
                other: KeyValueCache,
                sources: Sequence[int]) -> None:
        """Overwrite `songs` with the songs `sources` of `other`."""
        index = torch.tensor(songs, device=self.device)
        source = torch.tensor(sources, device=self.device)
        length = max(other.lengths)
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            for buffer, new in zip(mine, theirs, strict=True):
                buffer[index, :, :length] = new[source, :, :length]
        for song, there in zip(songs, sources, strict=True):
            self.lengths[song] = other.lengths[there]
