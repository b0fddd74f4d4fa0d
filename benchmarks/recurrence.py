"""Segment recurrence (Transformer-XL, Dai et al. 2019): each row sees the keys and values of the row before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from backline.layers.cache import KeyValueCache
from backline.music.vocab import BAR, FIELDS, PAD
from backline.preparation.dataset import song_rows
from backline.training.losses import cut_windows, note_losses
from backline.training.run import Run


class RecurrentRun(Run):
    """Training rows in the order of the songs, as many streams of them side by side as a step has rows.

    A run that is stopped begins its streams without memory when it is continued.
    """

    memory: KeyValueCache | None = None  # of the step before, without gradients

    def batches(self) -> Iterator[Tensor]:
        train = self.split.train
        self.steps_per_epoch = len(train) // self.data.rows_per_step
        firsts = torch.arange(self.data.rows_per_step) * self.steps_per_epoch
        while True:
            step = self.progress.step % self.steps_per_epoch
            if not step:
                self.memory = None
            yield train[firsts + step]

    def _losses(self, rows: Tensor, heard: Tensor | None = None) -> Tensor:
        assert heard is None, "wrong_notes: not in this benchmark"
        losses, memory = self._remembering(rows, self.memory)
        self.memory = memory
        return losses.mean((0, 1))

    def _remembering(self, rows: Tensor, memory: KeyValueCache | None) -> tuple[Tensor, KeyValueCache]:
        """(B, T − 1, F) losses of rows (B, T, F) that see `memory`, and the memory they leave."""
        rows = rows.to(self.device).long()
        config, ids = self.model.config, rows[:, :-1]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"):
            kind = torch.bfloat16 if self.settings.precision == "bf16" else torch.float32
            shape = (len(rows), config.n_heads, 2 * ids.shape[1], config.d_model // config.n_heads)
            cache = KeyValueCache(config.n_layers, shape, self.device, kind)
            if memory is not None:
                last = slice(memory.lengths[0] - ids.shape[1], memory.lengths[0])
                cache.begin(ids.shape[1])
                for layer, (keys, values) in enumerate(memory.layers):
                    cache.extend(layer, keys[:, :, last], values[:, :, last])
                cache.end([ids.shape[1]] * len(rows))
            reading = self.model.read(ids, cache)
            losses = note_losses(self.model.logits(reading, rows[:, 1:]), rows[:, 1:])
        cache.layers = [(keys.detach(), values.detach()) for keys, values in cache.layers]
        return losses, cache

    @torch.no_grad()
    def validate(self) -> list[float]:
        """Each family's loss on held-out rows, every row with the memory of the row before it."""
        self.model.eval()
        rows = self.split.held_out
        wanted = min(self.settings.validate_rows or len(rows), len(rows)) - 1
        chosen = 1 + torch.arange(wanted) * (len(rows) - 1) // wanted
        total = torch.zeros(len(FIELDS), dtype=torch.float64)
        for places in chosen.split(self.settings.batch_size):
            _, memory = self._remembering(rows[places - 1], None)
            losses, _ = self._remembering(rows[places], memory)
            total += losses.mean((0, 1)).double().cpu() * len(places)
        return (total / wanted).tolist()

    @torch.no_grad()
    def song_losses(self, songs: Sequence[int]) -> Tensor:
        """(n_songs, F + 1) sums over whole songs, as `evaluation.Losses.by_song`, from window to window with memory."""
        self.model.eval()
        result = torch.zeros(len(songs), len(FIELDS) + 1, dtype=torch.float64)
        for sums, song in zip(result, songs, strict=True):
            memory = None
            for window in cut_windows(song_rows(self.dataset, song), self.model.config.block_size):
                losses, memory = self._remembering(window[None], memory)
                sums[:-1] += losses[0].double().sum(0).cpu()
                sums[-1] += (window[1:, BAR] != PAD).sum()
        return result
