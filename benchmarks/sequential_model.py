"""The baseline without pooling: the same decoder blocks over one family after another, as in `sequential.py`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from backline.layers.config import ModelConfig
from backline.layers.positions import cos_sin, frequencies
from backline.music.vocab import BAR, FIELDS, FIRST_ID, PAD
from backline.preparation.dataset import Dataset, Split, song_rows
from backline.training.losses import cut_windows
from backline.training.run import Run
from benchmarks.sequential_tokenizer import ORDER, MidiTokenizerSequential
from model import Block


class SequentialTransformer(nn.Module):
    """Rotary positions, `config`'s blocks and width, one embedding and one head for all ids."""

    def __init__(self, config: ModelConfig, n_tokens: int) -> None:
        super().__init__()
        self.config = config
        self.embedding, self.in_norm = nn.Embedding(n_tokens, config.d_model), nn.LayerNorm(config.d_model)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.out_norm, self.head = nn.LayerNorm(config.d_model), nn.Linear(config.d_model, n_tokens)
        for parameter in (self.embedding.weight, self.head.weight):
            nn.init.normal_(parameter, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits (B, T, V) of the token after each of `ids` (B, T)."""
        x = self.in_norm(self.embedding(ids))
        rates = frequencies(self.config.d_model // self.config.n_heads // 2, ids.device)
        rotation = cos_sin(torch.arange(ids.shape[1], device=ids.device)[None, :, None] * rates).to(x.dtype)
        for layer, block in enumerate(self.blocks):
            x = block(x, rotation, None, layer)
        return self.head(self.out_norm(x))

    def n_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


class SequentialRun(Run):
    """A training run on flat tokens: rows are (B, T, 1), losses still nats per note and family."""

    family_of: Tensor  # (V,) of each id; special ids count as bars, as theirs do in pooled tokens
    notes_per_token: float

    def _losses(self, rows: Tensor, heard: Tensor | None = None) -> Tensor:
        """(F,) nats per note: the sum over a family's tokens by the number of notes, which have one pitch each."""
        assert heard is None, "wrong_notes: not in this benchmark"
        n_tokens = len(rows) * (rows.shape[1] - 1)
        return self._sums(rows) / (n_tokens * self.notes_per_token)

    def _sums(self, rows: Tensor) -> Tensor:
        """(F,) losses in nats of the tokens of (B, T, 1) rows but the first, summed by family; PAD does not count."""
        ids = rows[..., 0].to(self.device).long()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"):
            logits = self.forward(ids[:, :-1])
        targets = ids[:, 1:].flatten()
        losses = nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets, ignore_index=PAD, reduction="none")
        return losses.new_zeros(len(FIELDS)).index_add(0, self.family_of[targets], losses)

    @torch.no_grad()
    def song_losses(self, songs: Sequence[int]) -> Tensor:
        """(n_songs, F + 1) sums over whole songs, as `evaluation.Losses.by_song`: of the same notes, EOS among them."""
        self.model.eval()
        tokenizer, size = MidiTokenizerSequential(self.dataset.vocabulary), self.model.config.block_size
        result = torch.zeros(len(songs), len(FIELDS) + 1, dtype=torch.float64)
        for sums, song in zip(result, songs, strict=True):
            notes = song_notes(self.dataset, song)
            ids = torch.tensor(tokenizer.rows_to_ids(notes))
            sums[:-1] = self._sums(torch.stack(cut_windows(ids[:, None], size)))
            sums[-1] = len(notes) + 1
        return result


def flat_split(dataset: Dataset, split: Split, length: int) -> tuple[Split, float]:
    """The songs of `split` as rows (N, T, 1) of flat tokens, and how many notes there are for a token."""
    tokenizer = MidiTokenizerSequential(dataset.vocabulary)
    n_train = dataset.n_songs - len(split.held_out_songs)
    parts = []
    for songs in (range(n_train), range(n_train, dataset.n_songs)):
        flat = np.concatenate([tokenizer.rows_to_ids(song_notes(dataset, song)) for song in songs]).astype(np.int16)
        parts.append(torch.from_numpy(flat[:len(flat) // length * length]).view(-1, length, 1))
    n_tokens = sum(part.numel() for part in parts)
    return Split(parts[0], parts[1], split.held_out_songs), len(dataset.notes) / n_tokens


def song_notes(dataset: Dataset, song: int) -> np.ndarray:
    """(N, F) note ids of one song, without special rows."""
    rows = song_rows(dataset, song).numpy()
    return rows[rows[:, BAR] >= FIRST_ID]


def families(tokenizer: MidiTokenizerSequential) -> Tensor:
    """(V,) the family of each flat id."""
    place = np.searchsorted(tokenizer.first_ids, np.arange(tokenizer.n_tokens), side="right") - 1
    return torch.tensor([ORDER[max(p, 0)] for p in place])
