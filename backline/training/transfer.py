"""A trained model taken over to another vocabulary or a smaller size: what it knows of music stays.

Each new id begins with the weights of the old id that means the same, or else the most like it: the
same time in the bar, the nearest length, the same pitch of the part that plays most like it. Of all
the layers between, nothing changes, and training goes on from there.

Rotations that count steps, not bars (half of those of `metre`, all of `music_time`), stretch with a
finer grid; training mends that.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from backline.layers.config import ModelConfig
from backline.music.chords import CHORD_SIZES
from backline.music.controls import Field, fields
from backline.music.vocab import (
    FIELDS,
    FIRST_ID,
    Part,
    Vocabulary,
)
from model import PooledTransformer


def transferred(model: PooledTransformer, old: Vocabulary, new: Vocabulary) -> PooledTransformer:
    """A copy of a model of vocabulary `old`, for vocabulary `new`.

    Where several new ids begin as one old id, they share its probability.
    """
    sources = id_sources(old, new)
    config = _config(model.config, new)
    rows = {}
    for family, source in enumerate(sources):
        rows[f"embeddings.{family}.weight"] = source
        rows[f"heads.{family}.weight"] = source
        rows[f"heads.{family}.bias"] = source
    if config.heads != "parallel":
        for k, name in enumerate(config.order[:-1]):
            rows[f"chosen.{k}.weight"] = sources[FIELDS.index(name)]
    if config.controls:
        rows["sheet_vectors.vectors"] = sheet_sources(old, new)
    weights: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        weights[name] = tensor[torch.from_numpy(rows[name])] if name in rows else tensor
    for family, source in enumerate(sources):
        n_alike = np.bincount(source)[source]
        weights[f"heads.{family}.bias"] -= torch.from_numpy(np.log(n_alike)).float()
    copy = PooledTransformer(config)
    copy.load_state_dict(weights)
    return copy.eval()


def narrowed(model: PooledTransformer, width: int) -> PooledTransformer:
    """A copy whose feed-forward layers have `width` hidden units, fewer than before.

    Of each layer those stay that can add most: whose weights in and out have the largest product
    of lengths. They keep their order.
    """
    weights = model.state_dict()
    for name in [name for name in weights if name.endswith(".ff.0.weight")]:
        layer = name.removesuffix("0.weight")
        strength = weights[name].norm(dim=1) * weights[f"{layer}3.weight"].norm(dim=0)
        kept = strength.topk(width).indices.sort().values
        weights[name] = weights[name][kept]
        weights[f"{layer}0.bias"] = weights[f"{layer}0.bias"][kept]
        weights[f"{layer}3.weight"] = weights[f"{layer}3.weight"][:, kept]
    copy = PooledTransformer(dataclasses.replace(model.config, d_ff=width))
    copy.load_state_dict(weights)
    return copy.eval()


def _config(config: ModelConfig, vocabulary: Vocabulary) -> ModelConfig:
    """The same settings, with the sizes of a vocabulary."""
    of_vocabulary = ("n_tokens", "steps_per_bar", "control_sizes")
    settings = {field.name: getattr(config, field.name)
                for field in dataclasses.fields(config)
                if field.name not in of_vocabulary}
    return ModelConfig.for_vocabulary(vocabulary, **settings)


def id_sources(old: Vocabulary, new: Vocabulary) -> tuple[np.ndarray, ...]:
    """For each family, (V_f,) the old id that each new id begins as. Special ids stay."""
    def family(values: np.ndarray) -> np.ndarray:
        """Ids of values counted from 0, behind the special ids."""
        return np.concatenate([np.arange(FIRST_ID), FIRST_ID + values])

    bar = np.minimum(np.arange(new.bars), old.bars - 1)
    start = np.arange(new.steps_per_bar) * old.steps_per_bar // new.steps_per_bar
    steps = np.arange(1, new.max_duration_steps + 1)
    nearest = np.rint(steps * old.steps_per_bar / new.steps_per_bar).astype(int)
    duration = np.clip(nearest, 1, old.max_duration_steps) - 1
    pitches = []
    for part in new.parts:
        index = part_like(part, old)
        like = old.parts[index]
        pitch = np.arange(part.lowest_pitch, part.highest_pitch + 1)
        inside = np.clip(pitch, like.lowest_pitch, like.highest_pitch)
        first = old.first_pitch_ids[index] - FIRST_ID
        pitches.append(first + inside - like.lowest_pitch)
    return tuple(map(family, (bar, start, duration, np.concatenate(pitches))))  # as in FIELDS


def part_like(part: Part, vocabulary: Vocabulary) -> int:
    """Index of the part that plays most like one of another vocabulary.

    The one of its name; else the one that accepts its program; else the last one of its kind, drums
    or not; else the last one.
    """
    parts = vocabulary.parts
    if part.name in vocabulary.part_names:
        return vocabulary.part_names.index(part.name)
    of_kind = [index for index, other in enumerate(parts) if other.is_drum == part.is_drum]
    by_program = [index
                  for index in of_kind
                  if not part.is_drum and parts[index].accepts_program(part.program)]
    if by_program:
        return by_program[0]
    return of_kind[-1] if of_kind else len(parts) - 1


def sheet_sources(old: Vocabulary, new: Vocabulary) -> np.ndarray:
    """(n,) the old row of each row of the vectors that tell a model what to play."""
    starts = {}
    row = 0
    for field in _sheet_fields(old):
        starts[field.name] = row
        row += field.size
    rows = []
    for field in _sheet_fields(new):
        name = field.name
        if field.part is not None:
            part = new.parts[field.part]
            like = old.part_names[part_like(part, old)]
            name = like + field.name.removeprefix(part.name)
        rows.append(starts[name] + np.arange(field.size))
    return np.concatenate(rows)


def _sheet_fields(vocabulary: Vocabulary) -> tuple[Field, ...]:
    """The controls that come with the notes read: all but the chord's."""
    return fields(vocabulary)[:-len(CHORD_SIZES)]
