"""What a model loses on notes, family by family, in nats.

Shapes: B batch, T notes, F families, V_f ids in family f.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from backline.layers.positions import with_relative_bars
from backline.music.vocab import FIELDS, FIRST_CONTROL, GIVEN, PAD
from model import ModelConfig


def note_losses(logits: list[Tensor], targets: Tensor) -> Tensor:
    """Cross-entropy of each family of each note, in nats.

    Args:
        logits: F tensors (B, T, V_f), in `vocab.FIELDS` order.
        targets: (B, T, F) int64; where they are PAD the loss is 0.
    Returns:
        (B, T, F) float tensor. Report the families apart: a mean over them hides the weak one. Their sum is a note's.
    """
    losses = [nn.functional.cross_entropy(of_family.flatten(0, 1).float(), targets[..., f].flatten(),
                                          ignore_index=PAD, reduction="none")
              for f, of_family in enumerate(logits)]
    return torch.stack(losses, dim=-1).view(targets.shape)


def window_losses(model: Callable[[Tensor, Tensor], list[Tensor]], config: ModelConfig, rows: Tensor) -> Tensor:
    """Loss of each family of each note but the first, (B, T − 1, F) nats, of windows (B, T, F) of songs.

    Args:
        model: a PooledTransformer, or what wraps one, with `config`.
        rows: perhaps with one more column, in which given notes have a 1: what they cost is left out, as 0; and behind
            it perhaps those of the controls, which are unknown without.
    """
    notes = rows[..., :len(FIELDS)]
    given = rows[..., GIVEN].bool() if rows.shape[-1] > GIVEN else None
    notes = with_relative_bars(notes) if config.bars == "relative" else notes
    if given is None and config.given:  # all of the model takes part, as several processes want it
        given = torch.zeros_like(notes[..., 0], dtype=torch.bool)
    targets = notes[:, 1:]
    told = {}
    if given is not None:
        targets = targets.masked_fill(given[:, 1:, None], PAD)
        told["given"] = given[:, :-1]
    if config.controls and rows.shape[-1] > FIRST_CONTROL:
        n_sheet = len(config.sheet_sizes)
        controls = rows[..., FIRST_CONTROL:]
        told["sheet"] = controls[:, :-1, :n_sheet]
        told["chords"] = controls[:, 1:, n_sheet:]
    return note_losses(model(notes[:, :-1], targets, **told), targets)


def counted(rows: Tensor) -> int:
    """How many notes of windows (B, T, F or more) `window_losses` predicts."""
    given = int(rows[:, 1:, GIVEN].sum()) if rows.shape[-1] > GIVEN else 0
    return rows.shape[0] * (rows.shape[1] - 1) - given
