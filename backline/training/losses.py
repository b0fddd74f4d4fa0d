"""What a model loses on notes, family by family, in nats.

Shapes: B batch, T notes, F families, V_f ids in family f.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from backline.layers.config import ModelConfig
from backline.layers.positions import with_relative_bars
from backline.music.vocab import FIELDS, FIRST_CONTROL, GIVEN, PAD


def note_losses(logits: Sequence[Tensor], targets: Tensor) -> Tensor:
    """Cross-entropy of each family of each note, in nats.

    Args:
        logits: F tensors (B, T, V_f), in `vocab.FIELDS` order.
        targets: (B, T, F) int64; where they are PAD the loss is 0.
    Returns:
        (B, T, F) float tensor. The sum over families is a note's loss. Report the families apart:
        a mean over them hides the weak one.
    """
    losses = []
    for f, family_logits in enumerate(logits):
        flat_logits = family_logits.flatten(0, 1).float()    # (B·T, V_f)
        flat_targets = targets[..., f].flatten()             # (B·T,)
        losses.append(nn.functional.cross_entropy(
            flat_logits,
            flat_targets,
            ignore_index=PAD,
            reduction="none",
        ))
    return torch.stack(losses, dim=-1).view(targets.shape)


def window_losses(
    model: Callable[..., list[Tensor]],
    config: ModelConfig,
    rows: Tensor,
    heard: Tensor | None = None,
) -> Tensor:
    """Loss of each family of each note but the first of windows of songs.

    Args:
        model: a PooledTransformer with `config`, or what wraps one.
        rows: (B, T, F), (B, T, F + 1) or (B, T, F + 1 + K). A 1 in column GIVEN marks a given
            note, whose loss is 0. The last K columns are ids of the controls, which are unknown
            without them.
        heard: (B, T, F) the notes as the model hears them, in the same bars; None: as they are.
    Returns:
        (B, T − 1, F) in nats.
    """
    notes = rows[..., :len(FIELDS)]
    heard = notes if heard is None else heard
    if config.bars == "relative":
        notes = with_relative_bars(notes)
        heard = with_relative_bars(heard)
    targets = notes[:, 1:]
    told: dict[str, Tensor] = {}
    if rows.shape[-1] > GIVEN:
        given = rows[..., GIVEN].bool()                      # (B, T)
        targets = targets.masked_fill(given[:, 1:, None], PAD)
        told["given"] = given[:, :-1]
    elif config.given:  # DDP needs every parameter in the forward pass
        told["given"] = torch.zeros_like(notes[:, :-1, 0], dtype=torch.bool)
    if config.controls and rows.shape[-1] > FIRST_CONTROL:
        controls = rows[..., FIRST_CONTROL:]                 # (B, T, K)
        n_sheet = len(config.sheet_sizes)
        told["sheet"] = controls[:, :-1, :n_sheet]
        told["chords"] = controls[:, 1:, n_sheet:]
    logits = model(heard[:, :-1], targets, **told)
    return note_losses(logits, targets)


def n_predicted(rows: Tensor) -> int:
    """How many notes of windows (B, T, F or more) `window_losses` predicts."""
    n_notes = rows.shape[0] * (rows.shape[1] - 1)
    if rows.shape[-1] <= GIVEN:
        return n_notes
    return n_notes - int(rows[:, 1:, GIVEN].sum())


def cut_windows(rows: Tensor, size: int) -> list[Tensor]:
    """A song's (N, F) rows in windows (size + 1, F), the last one filled up with PAD.

    Each window begins with the last row of the one before, so that every row but the song's first
    is a target once.
    """
    windows = []
    for start in range(0, len(rows) - 1, size):
        window = rows[start:start + size + 1]
        n_missing = size + 1 - len(window)
        whole = nn.functional.pad(window, (0, 0, 0, n_missing), value=PAD)
        windows.append(whole)
    return windows
