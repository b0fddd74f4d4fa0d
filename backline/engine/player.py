"""What a player of a model is asked for: one interface for the engine and for torch. Light: no torch.

Shapes: B songs, T new notes, F families, V_f ids in family f, K controls.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from backline.layers.config import ModelConfig


class NewNotes(NamedTuple):
    """Notes that the songs of a batch read, padded to the same number."""

    ids: np.ndarray  # (B, T, F) int64, bars as the model counts them
    counts: Sequence[int]  # real notes of each song; the rest is padding
    given: np.ndarray  # (B, T) bool
    sheet: np.ndarray  # (B, T, K) ids of the controls that come with them

    def up_to(self, n: int) -> NewNotes:
        """The first `n` of each song."""
        counts = [min(count, n) for count in self.counts]
        return NewNotes(self.ids[:, :n], counts, self.given[:, :n], self.sheet[:, :n])

    def of_song(self, song: int, start: int = 0) -> NewNotes:
        """Those of one song from `start` on, without padding."""
        end = self.counts[song]
        part = (slice(song, song + 1), slice(start, end))
        return NewNotes(self.ids[part], [end - start], self.given[part], self.sheet[part])


class Contexts(Protocol):
    """What the songs of a batch have read, and the note that is being chosen for each."""

    @property
    def lengths(self) -> list[int]:
        """How many notes each song's context holds."""

    def read(self, new: NewNotes) -> None:
        """Read on. A song whose count is 0 is to be replaced before a note is chosen for it."""

    def replace(self, songs: Sequence[int], windows: NewNotes, sources: Sequence[int]) -> None:
        """Let `songs` forget what they have read, and know `windows` instead.

        Args:
            sources: which of the windows each of them reads; each is read by one at least.
        """

    def keep(self, songs: Sequence[int]) -> None:
        """Go on with these songs of the batch alone, in this order."""

    def first_logits(self) -> np.ndarray:
        """(B, V_f) of the family that is chosen first."""

    def next_logits(self, k: int, chosen: np.ndarray, chords: np.ndarray) -> np.ndarray:
        """(B, V_f) of the family at place k + 1 of the order.

        Args:
            chosen: (B, F) int64 ids; those of the families up to place k count.
            chords: (B, 3) ids of the chord told for the onset; they count once it is chosen.
        """


class Player(Protocol):
    """A model that plays."""

    config: ModelConfig
    order: Sequence[int]  # families as they are chosen
    dtype: str  # of the weights, one of `generation.config.DTYPES`

    @property
    def surroundings(self) -> dict[str, str]:
        """What the logits depend on besides the weights: library, device, threads."""

    def contexts(self, n_songs: int) -> Contexts:
        """Contexts of songs that have read nothing."""
