"""Which of several songs, made for the same wish, to keep: a score for each, and why.

The score is the mean of four marks from 0 to 1; one that does not apply is left out.

likely   whether the song surprised the model as much as its rivals did: 1 for nats per note within their middle half,
         and as far outside as this is wide 0. Less is a song that drones, more is one that lost its way.
in key   the share of new notes, drums left out, in the scale asked for, or without in the major or minor scale that
         the known notes fit best.
groove   how alike the places in the bar are at which new notes and known ones begin: 1 minus half the sum of the
         differences of their shares (total variation), a mean over the new bars.
fresh    whether bars are new: 1 as long as half of them at most copy, note for note, a known bar of the same parts or
         one before; 0 if all do.

Known are the prompt and the given notes; a song from scratch is measured against itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from backline.generation.config import RuleConfig
from backline.music.theory import OCTAVE, best_scale, scale_pitch_classes
from backline.music.vocab import BAR, FIRST_ID, PITCH_INSTRUMENT, START_POS, Vocabulary


@dataclasses.dataclass(frozen=True)
class Score:
    """Marks from 0 to 1, None for one that does not apply, and the facts behind them."""

    likely: float
    in_key: float | None
    groove: float
    fresh: float
    nats_per_note: float
    key: str  # asked for, or of the known notes: "A minor"
    copied: float  # share of the bars

    @property
    def total(self) -> float:
        return float(np.mean([mark for mark in (self.likely, self.in_key, self.groove, self.fresh)
                              if mark is not None]))

    def describe(self) -> str:
        in_key = "" if self.in_key is None else f"{self.in_key:.0%} in {self.key}, "
        return (f"score {self.total:.3f}: likely {self.likely:.2f} ({self.nats_per_note:.2f} nats/note), {in_key}"
                f"groove {self.groove:.2f}, fresh {self.fresh:.2f} ({self.copied:.0%} of the bars copied)")


def rank(songs: Sequence[np.ndarray], nats: Sequence[np.ndarray], known: np.ndarray, vocabulary: Vocabulary,
         rules: RuleConfig) -> list[tuple[int, Score]]:
    """Indices and scores of songs, the best first, the earlier first of equals; songs without a note are left out.

    Args:
        songs: of each the new notes, (N, F) ids in order.
        nats: of each what its notes surprised the model by, (N,).
        known: (M, F) ids of notes that were there before.
        rules: what the songs keep to; a key among them is the one that counts.
    """
    playing = [i for i, rows in enumerate(songs) if len(rows)]
    means = [float(nats[i].mean()) for i in playing]
    scores = [(i, _score(songs[i], mean, likelihood_mark(mean, means), known, vocabulary, rules))
              for i, mean in zip(playing, means, strict=True)]
    return sorted(scores, key=lambda scored: -scored[1].total)


def _score(new: np.ndarray, mean: float, likely: float, known: np.ndarray, vocabulary: Vocabulary,
           rules: RuleConfig) -> Score:
    key, in_key = key_mark(new, known, vocabulary, rules)
    parts = vocabulary.part_of_id
    same_parts = np.isin(parts[known[:, PITCH_INSTRUMENT]], parts[new[:, PITCH_INSTRUMENT]])
    copied = copied_share(new, known[same_parts])
    groove = groove_mark(new, known if len(known) else new, vocabulary.steps_per_bar)
    return Score(likely, in_key, groove, min(1.0, 2 * (1 - copied)), mean, key, copied)


def likelihood_mark(mean: float, means: Sequence[float]) -> float:
    """1 for a mean within the middle half of `means`, falling to 0 at the width of that half outside it."""
    low, high = np.percentile(means, [25, 75])
    outside = max(low - mean, mean - high, 0.0)
    return 1.0 if outside <= 0 else max(0.0, 1.0 - outside / (high - low)) if high > low else 0.0


def key_mark(new: np.ndarray, known: np.ndarray, vocabulary: Vocabulary, rules: RuleConfig,
             ) -> tuple[str, float | None]:
    """The scale asked for, else the one that the known notes fit best (or the new, where these are all drums); and the
    new notes' share in it.

    ("", None) where all new notes are drums.
    """
    ours, theirs = _pitch_classes(new, vocabulary), _pitch_classes(known, vocabulary)
    if not len(ours):
        return "", None
    if rules.key:
        name, classes = f"{rules.key} {rules.scale}", scale_pitch_classes(rules.key, rules.scale)
    else:
        name, classes = best_scale(np.bincount(theirs if len(theirs) else ours, minlength=OCTAVE))
    return name, float(np.isin(ours, list(classes)).mean())


def _pitch_classes(rows: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """(N,) pitch classes of the notes (M, F) that are no drums."""
    drums = np.array([part.is_drum for part in vocabulary.parts])
    melodic = rows[~drums[vocabulary.part_of_id[rows[:, PITCH_INSTRUMENT]]], PITCH_INSTRUMENT]
    return vocabulary.pitch_of_id[melodic] % OCTAVE


def groove_mark(new: np.ndarray, known: np.ndarray, steps_per_bar: int) -> float:
    """How alike onsets are spread over the bar, from 0 to 1: in each bar of `new` (N, F), N > 0, and in all `known`."""
    def shares(rows: np.ndarray) -> np.ndarray:
        return np.bincount(rows[:, START_POS] - FIRST_ID, minlength=steps_per_bar) / len(rows)

    target = shares(known)
    bars = np.split(new, np.flatnonzero(np.diff(new[:, BAR])) + 1)
    return float(np.mean([1 - np.abs(shares(bar) - target).sum() / 2 for bar in bars]))


def copied_share(new: np.ndarray, known: np.ndarray) -> float:
    """Share of the bars in `new` (N, F), N > 0, that are struck exactly as a known bar or as an earlier one of them."""
    heard = set(_bars(known).values())
    bars = _bars(new)
    copied = 0
    for _, bar in sorted(bars.items()):
        copied += bar in heard
        heard.add(bar)
    return copied / len(bars)


def _bars(rows: np.ndarray) -> dict[int, frozenset[tuple[int, int]]]:
    """What is struck when in each bar of (N, F) rows that has a note."""
    found: dict[int, set[tuple[int, int]]] = {}
    for row in rows.tolist():
        found.setdefault(row[BAR], set()).add((row[START_POS], row[PITCH_INSTRUMENT]))
    return {bar: frozenset(struck) for bar, struck in found.items()}
