"""Whether the engine plays the model that was trained.

`model.py` and the engine's graphs are written apart. Somebody who changes one of them would train
one model and play another. So a released file holds the plain model's logits for a short song, and
the engine is compared with them whenever it is made.

Shapes: N notes, F families, V_f ids in family f, K controls.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backline.common.errors import UserError
from backline.engine.player import NewNotes, Player
from backline.layers.config import ModelConfig
from backline.music.vocab import BAR, BOS, FIELDS, FIRST_ID

if TYPE_CHECKING:
    from model import PooledTransformer

CHECK_FACT = "check_logits"  # under which a file holds them
N_NOTES = 12
DIGITS = 5  # of the logits stored
# How far logits may be off, in standard deviations of those expected.
# Rounding the bundled model to 8 bits costs 0.009, a model of width 16 up to 0.15.
TOLERANCE = {"fp32": 1e-3, "int8": 0.2}
SMALLEST_DEVIATION = 1e-3  # of a model that expects everything alike


# ---------------------------------------------------------------- the song


def check_song(config: ModelConfig) -> tuple[NewNotes, np.ndarray, np.ndarray]:
    """A short song that uses all that a model has.

    Returns:
        The notes read, (F,) ids of the note that is chosen then, and (3,) those of its chord.
    """
    random = np.random.default_rng(0)
    sizes = np.array(config.n_tokens)
    highest = np.minimum(sizes - 1, FIRST_ID + 60)
    ids = random.integers(np.minimum(FIRST_ID, sizes - 1), highest + 1, (N_NOTES + 1, len(FIELDS)))
    ids = np.minimum(ids, sizes - 1)
    bars = np.minimum(FIRST_ID + np.arange(N_NOTES + 1) // 4, sizes[BAR] - 1)
    ids[:, BAR] = bars
    ids[0] = BOS
    given = (np.arange(N_NOTES) % 3 == 1)[None]
    sheet = random.integers(0, config.sheet_sizes or (1,), (1, N_NOTES, len(config.sheet_sizes) or 1))
    chord = random.integers(0, config.chord_sizes or (1,) * 3, 3)
    notes = NewNotes(ids[None, :-1], [N_NOTES], given & config.given, sheet)
    return notes, ids[-1], chord


def logits_of_player(player: Player) -> list[np.ndarray]:
    """(V_f,) logits of each family, in the order of choice, for the note behind the check song.

    Most of the song is read at once, and the rest note by note.
    """
    notes, chosen, chord = check_song(player.config)
    contexts = player.contexts(1)
    n_first = N_NOTES // 2
    contexts.replace([0], notes.up_to(n_first), [0])
    for note in range(n_first, N_NOTES):
        contexts.read(notes.up_to(note + 1).of_song(0, note))
    logits = [contexts.first_logits()[0].copy()]
    for k in range(len(FIELDS) - 1):
        of_next = contexts.next_logits(k, chosen[None], chord[None])
        logits.append(of_next[0].copy())
    return logits


def logits_of_model(model: PooledTransformer) -> list[np.ndarray]:
    """The same by a plain model in torch, on its device."""
    import torch

    notes, chosen, chord = check_song(model.config)
    device = model.in_norm.weight.device

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    next_ids = np.concatenate([notes.ids[0, 1:], chosen[None]])[None]  # (1, N, F)
    told: dict[str, Any] = {}
    if model.config.controls:
        chords = np.broadcast_to(chord, (1, N_NOTES, len(chord)))
        told = {"sheet": tensor(notes.sheet), "chords": tensor(chords)}
    with torch.inference_mode():
        logits = model(tensor(notes.ids), tensor(next_ids), tensor(notes.given), **told)
    return [logits[family][0, -1].float().cpu().numpy() for family in model.order]


def check_logits(model: PooledTransformer) -> list[list[float]]:
    """What a released file holds under `CHECK_FACT`."""
    return [[round(float(x), DIGITS) for x in of_family] for of_family in logits_of_model(model)]


# ---------------------------------------------------------------- the comparison


def verify(player: Player, expected: Sequence[np.ndarray | list[float]], path: Path) -> None:
    """Raise UserError if a player of the model at `path` does not give the logits expected."""
    found = logits_of_player(player)
    pairs = zip(found, expected, strict=True)
    worst = max(_distance(of_player, np.array(of_model)) for of_player, of_model in pairs)
    if not worst <= TOLERANCE[player.dtype]:
        raise UserError(f"{path}: the engine would not play this model as it was trained (its "
                        f"logits are {worst:.1g} standard deviations off); update Backline, or "
                        "play it with the version that trained it")


def _distance(found: np.ndarray, expected: np.ndarray) -> float:
    """The root mean square difference, in standard deviations of what is expected."""
    if found.shape != expected.shape:
        return np.inf
    difference = np.sqrt(np.square(found - expected).mean())
    return float(difference / max(expected.std(), SMALLEST_DEVIATION))
