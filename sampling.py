"""Sample songs note by note: what may come next, which of it is likely enough, and one draw.

A note is drawn family by family in the model's order, under masks that leave only valid notes: special ids all
or none, (bar, start_pos, pitch_instrument) strictly increasing, and never a choice after which nothing is left.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from attention import KeyValueCache
from generation_args import GenConfig
from model import PooledTransformer, Reading, bar_offsets
from vocab import BAR, BOS, EOS, FIELDS, FIRST_ID, PITCH_INSTRUMENT, START_POS, Vocabulary

NEXT_BARS = 4  # songs seldom rest for longer
TIME = (BAR, START_POS, PITCH_INSTRUMENT)  # the order of notes

# ---------------------------------------------------------------- what is valid


@dataclasses.dataclass(frozen=True)
class Rules:
    """Which ids may follow. `last_bar` is the id of the last bar that may hold a note."""

    vocabulary: Vocabulary
    last_bar: int

    def mask(self, family: int, chosen: dict[int, int], previous: tuple[int, ...] | None, may_end: bool) -> Tensor:
        """(V_f,) bool: the ids of `family` that are valid.

        Args:
            chosen: ids of this note's families that are chosen already.
            previous: the note before, None at the beginning.
            may_end: whether EOS is allowed where a note could still follow.
        """
        allowed = torch.zeros(self.vocabulary.sizes[family], dtype=torch.bool)
        allowed[FIRST_ID:self.last_bar + 1 if family == BAR else None] = True
        if previous is not None:  # what may still be chosen, at its latest, must come after the note before
            latest = {f: self.vocabulary.sizes[f] - 1 for f in TIME} | {BAR: self.last_bar}
            ids = torch.arange(len(allowed))
            allowed &= self._key(latest | chosen | {family: ids}) > self._key(dict(enumerate(previous)))
        if not chosen:
            allowed[EOS] = may_end or not allowed.any()
        return allowed

    def _key(self, ids: dict[int, int | Tensor]) -> int | Tensor:
        """A number that grows with (bar, start_pos, pitch_instrument)."""
        _, n_starts, _, n_pitches = self.vocabulary.sizes
        return (ids[BAR] * n_starts + ids[START_POS]) * n_pitches + ids[PITCH_INSTRUMENT]

    def end_beyond(self, logits: Tensor, previous: tuple[int, ...] | None) -> Tensor:
        """Bar logits (V,) in which wanting to go on from the last bar counts as wanting the end.

        Masked without this, that wish would go to the last bar, and crowd it with notes. Only the bars right after
        it count: what a model spreads over all the far ones is noise, and would end songs early.
        """
        if previous is None or previous[BAR] < self.last_bar:
            return logits
        next_bars = logits[self.last_bar + 1:self.last_bar + 1 + NEXT_BARS]
        ending = torch.cat([logits[EOS:EOS + 1], next_bars]).logsumexp(0)
        return logits.index_fill(0, torch.tensor([EOS]), ending)


# ---------------------------------------------------------------- what is likely enough


def filtered(logits: Tensor, sampling_fn: str, threshold: float) -> Tensor:
    """(V,) logits with those that the filter removes set to −inf; see `GenConfig` for what `threshold` means.

    Ids masked before (−inf) stay so; the most likely id always stays.
    """
    if sampling_fn == "top_k":
        keep = max(1, math.ceil(round((1 - threshold) * len(logits), 6)))  # rounded: 1 − 0.9 is not exactly a tenth
        return logits.masked_fill(logits < logits.topk(keep).values[-1], -torch.inf)
    if sampling_fn == "top_p":
        probabilities, order = logits.softmax(-1).sort(descending=True, stable=True)
        beyond = probabilities.cumsum(-1) - probabilities >= threshold  # the mass before it is enough already
        beyond[0] = False
        return logits.masked_fill(torch.zeros_like(beyond).scatter(0, order, beyond), -torch.inf)
    if sampling_fn == "min_p":
        probabilities = logits.softmax(-1)
        return logits.masked_fill(probabilities < threshold * probabilities.max(), -torch.inf)
    return logits


# ---------------------------------------------------------------- what the model remembers


def window_start(n_rows: int, block_size: int) -> int:
    """How many of `n_rows` rows read are forgotten: when the context is full, its oldest half is dropped."""
    half = max(block_size // 2, 1)
    return half * -(-(n_rows - block_size) // half) if n_rows > block_size else 0


class Context:
    """Reads rows one after another and says what the model makes of them.

    With or without a cache of keys and values the window is the same, and so is the reading.
    """

    def __init__(self, model: PooledTransformer, cached: bool = True) -> None:
        self.model, self.cached = model, cached
        self.rows = torch.zeros((0, len(FIELDS)), dtype=torch.long)
        self.start = 0
        self.bar_offset = 0  # what the model's bars are less than the song's
        self.cache: KeyValueCache | None = None

    def read(self, rows: Tensor) -> Reading:
        """Take in (N, F) rows; returns what there is after the last, for a batch of one."""
        self.rows = torch.cat([self.rows, rows])
        start = window_start(len(self.rows), self.model.config.block_size)
        if not self.cached or self.cache is None or start != self.start:
            rows, self.start = self.rows[start:], start
            self.cache = self.model.new_cache(1) if self.cached else None
            if self.model.config.bars == "relative":
                self.bar_offset = int(bar_offsets(rows[None]))
        rows = moved(rows, -self.bar_offset)
        return self.model.read(rows[None].to(self.model.in_linear.weight.device), self.cache).last()


def moved(rows: Tensor, bars: int) -> Tensor:
    """(N, F) rows, the notes among them moved by a number of bars."""
    rows = rows.clone()
    rows[:, BAR] += bars * (rows[:, BAR] >= FIRST_ID)
    return rows


# ---------------------------------------------------------------- one song


@torch.inference_mode()
def sample_song(model: PooledTransformer, vocabulary: Vocabulary, prompt: np.ndarray, config: GenConfig, seed: int,
                cached: bool = True, on_note: Callable[[], object] = lambda: None) -> np.ndarray:
    """Sample one song, or the continuation of `prompt`.

    Args:
        model: in evaluation mode.
        prompt: (N, F) note ids in order, N = 0 for none, special rows left out.
        seed: same seed, same song, on the same machine and versions.
        cached: keep keys and values of the notes read; the slow way without gives the same song.
        on_note: called after each note, for progress.
    Returns:
        (M, F) int64 ids of the new notes, without the prompt and special rows.
    """
    generator = torch.Generator().manual_seed(seed)
    bars_begun = int(prompt[-1, BAR]) + 1 if len(prompt) else FIRST_ID
    rules = Rules(vocabulary, min(bars_begun + config.num_bars, vocabulary.sizes[BAR]) - 1)
    context = Context(model, cached)
    begin = torch.full((1, len(FIELDS)), BOS)
    reading = context.read(torch.cat([begin, torch.from_numpy(np.asarray(prompt, np.int64)).view(-1, len(FIELDS))]))
    previous = tuple(prompt[-1].tolist()) if len(prompt) else None
    new: list[tuple[int, ...]] = []
    for note in _notes(context, reading, rules, previous, config, generator):
        new.append(note)
        on_note()
    return np.array(new, np.int64).reshape(-1, len(FIELDS))


def _notes(context: Context, reading: Reading, rules: Rules, previous: tuple[int, ...] | None, config: GenConfig,
           generator: torch.Generator) -> Iterator[tuple[int, ...]]:
    for step in range(config.max_steps):
        if step:
            reading = context.read(torch.tensor([previous]))
        offset = context.bar_offset  # in the model's bars
        note = sample_note(context.model, reading, dataclasses.replace(rules, last_bar=rules.last_bar - offset),
                           in_bar(previous, -offset), config, generator, may_end=step > 0)
        if note is None:
            return
        previous = in_bar(note, offset)
        yield previous


def in_bar(note: tuple[int, ...] | None, bars: int) -> tuple[int, ...] | None:
    """`note` moved by a number of bars."""
    return note and tuple(id_ + bars * (family == BAR) for family, id_ in enumerate(note))


def sample_note(model: PooledTransformer, reading: Reading, rules: Rules, previous: tuple[int, ...] | None,
                config: GenConfig, generator: torch.Generator, may_end: bool) -> tuple[int, ...] | None:
    """Draw one note's ids in `FIELDS` order, for a batch of one; None is the end of the song."""
    chosen: dict[int, int] = {}
    tensors: dict[int, Tensor] = {}
    for family in model.order:
        logits = model.family_logits(reading, tensors)[0, 0].double().cpu()
        if family == BAR and not chosen:
            logits = rules.end_beyond(logits, previous)
        logits = logits.masked_fill(~rules.mask(family, chosen, previous, may_end), -torch.inf)
        logits = filtered(logits, config.sampling_fn, config.threshold[family])
        logits = (logits - logits.max()) / config.temperature[family]  # of all sizes, without overflow
        drawn = torch.multinomial(logits.softmax(-1), 1, generator=generator)
        chosen[family] = int(drawn)
        if chosen[family] == EOS:
            return None
        tensors[family] = drawn[None].to(reading.states.device)
    return tuple(chosen[family] for family in range(len(FIELDS)))
