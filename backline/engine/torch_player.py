"""A model that torch plays: on GPUs, and in tests beside the engine.

Shapes: B songs, T new notes, F families, V_f ids in family f, D residual width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from backline.engine.player import Contexts, NewNotes

if TYPE_CHECKING:
    from backline.layers.cache import KeyValueCache
    from model import PooledTransformer, TrunkOutput


class TorchPlayer:
    """A `PooledTransformer` that plays, in evaluation mode, on its own device."""

    def __init__(self, model: PooledTransformer) -> None:
        self.model = model.eval()
        self.config = model.config
        self.order: Sequence[int] = model.order
        is_half = model.in_norm.weight.dtype == torch.bfloat16
        self.dtype = "bf16" if is_half else "fp32"

    @property
    def surroundings(self) -> dict[str, str]:
        """See `player.Player`."""
        return {"torch": str(torch.__version__),
                "device": self.model.in_norm.weight.device.type,
                "threads": str(torch.get_num_threads())}

    def contexts(self, n_songs: int) -> Contexts:
        """Contexts of songs that have read nothing."""
        return TorchContexts(self.model, n_songs)


class TorchContexts:
    """What the songs of a batch have read, and the note that is being chosen for each.

    See `player.Contexts`.
    """

    def __init__(self, model: PooledTransformer, n_songs: int) -> None:
        self.model = model
        self.device = model.in_norm.weight.device
        self.cache = model.new_cache(n_songs)
        self.states = model.in_norm.weight.new_zeros(n_songs, 1, model.config.d_model)
        self.trunk: TrunkOutput | None = None  # at each song's last note, while one is chosen
        self.hidden = self.states

    @property
    def lengths(self) -> list[int]:
        """See `player.Contexts`."""
        return self.cache.lengths

    # ------------------------------------------------------------ reading

    @torch.inference_mode()
    def read(self, new: NewNotes) -> None:
        """See `player.Contexts`."""
        self.states = self._read(new, self.cache)

    def _read(self, new: NewNotes, cache: KeyValueCache) -> Tensor:
        """(B, 1, D) the trunk's states at each song's last note."""
        sheet = self._tensor(new.sheet).long() if self.model.config.controls else None
        trunk = self.model.read(
            self._tensor(new.ids), cache, new.counts, self._tensor(new.given), sheet)
        last = self._tensor(np.maximum(new.counts, 1) - 1)   # (B,)
        songs = torch.arange(len(last), device=self.device)
        return trunk.states[songs, last][:, None]

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    # ------------------------------------------------------------ songs of the batch

    @torch.inference_mode()
    def replace(self, songs: Sequence[int], windows: NewNotes, sources: Sequence[int]) -> None:
        """See `player.Contexts`."""
        cache = self.model.new_cache(len(windows.counts))
        states = self._read(windows, cache)
        self.cache.replace(songs, cache, sources)
        self.states[list(songs)] = states[list(sources)]

    @torch.inference_mode()
    def keep(self, songs: Sequence[int]) -> None:
        """See `player.Contexts`."""
        self.cache.keep(songs)
        self.states = self.states[list(songs)]

    # ------------------------------------------------------------ choosing a note

    @torch.inference_mode()
    def first_logits(self) -> np.ndarray:
        """See `player.Contexts`."""
        self.trunk = self.model.last_read(self.states, self.cache)
        self.hidden = self.states
        return self._logits(0)

    @torch.inference_mode()
    def next_logits(self, k: int, chosen: np.ndarray, chords: np.ndarray) -> np.ndarray:
        """See `player.Contexts`."""
        if self.model.choice.needs_choices:
            assert self.trunk is not None
            ids = self._tensor(chosen)[:, None].unbind(-1)   # F tensors (B, 1)
            of_chords = None
            if self.model.config.controls:
                of_chords = self._tensor(chords).long()[:, None]
            self.hidden = self.model.advance(k, ids, self.trunk, self.hidden, of_chords)
        return self._logits(k + 1)

    def _logits(self, k: int) -> np.ndarray:
        logits = self.model.head(k, self.states, self.hidden)
        return logits[:, 0].cpu().double().numpy()
