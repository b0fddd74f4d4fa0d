"""How well new notes fit those that people gave: what anybody hears at once, as marks with a reason.

plays      whether the new parts play where others do: a part that rests in a bar in four loses nothing
chords     whether new bass notes and keys lie in the chord of what else sounds when they begin
together   whether bass and kick, one of them new, begin together as often as in real songs
crowd      whether new parts are about as busy as they were before or, if they are not there, as the
           others are

What is usual was measured on real songs (benchmarks/README.md, "Playing to given notes").
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from typing import NamedTuple

import numpy as np

from backline.evaluation.measures import NoteColumns, in_chord, note_columns
from backline.music.theory import pitch_set
from backline.music.vocab import BAR, FIRST_ID, Vocabulary

USUAL_PLAYING = 0.75  # share of the bars with other notes in which a part plays
USUAL_IN_CHORD = 0.6  # of bass and keys
USUAL_TOGETHER = 0.58  # share of the bass notes that begin with a kick
CROWD = 2.5  # times as busy, or as sparse, costs nothing; twice that costs all
KICK = "kick"


class Fit(NamedTuple):
    """A mark from 0 to 1, and its reason in words."""

    mark: float
    reason: str


def fits_of(new: np.ndarray,
            known: np.ndarray,
            vocabulary: Vocabulary,
            bars: Collection[int]) -> list[Fit]:
    """How (N, F) new rows, N > 0, fit (M, F) known ones; nothing where none are known.

    `bars`: those that were to be made, from 0.
    """
    if not len(known):
        return []
    return list(_fits(_Pair(new, known, vocabulary, bars)))


class _Pair:
    """New and known notes together, times in steps."""

    def __init__(self,
                 new: np.ndarray,
                 known: np.ndarray,
                 vocabulary: Vocabulary,
                 bars: Collection[int]) -> None:
        self.vocabulary = vocabulary
        self.bars = list(bars)
        rows = np.concatenate([new, known])
        self.is_new = np.arange(len(rows)) < len(new)
        self.bar = rows[:, BAR].astype(np.int64) - FIRST_ID
        self.notes = note_columns(rows, vocabulary)
        self.part = vocabulary.part_of_id[self.notes.ids]

    @property
    def made(self) -> list[int]:
        """The parts that have new notes."""
        return np.unique(self.part[self.is_new]).tolist()

    def name(self, part: int) -> str:
        return self.vocabulary.part_names[part]

    def others(self, part: int) -> NoteColumns:
        """The melodic notes of all other parts."""
        is_melodic = ~self.vocabulary.is_drum[self.part]
        return self.notes.only(is_melodic & (self.part != part))


def _fits(pair: _Pair) -> Iterator[Fit]:
    for part in pair.made:
        own = (pair.part == part) & pair.is_new
        name = pair.name(part)
        yield from _plays(pair, part, own, name)
        if not pair.vocabulary.is_drum[part]:
            share = in_chord(pair.notes.only(own), pair.others(part), pair.vocabulary)
            if not math.isnan(share):
                yield Fit(min(1.0, share / USUAL_IN_CHORD), f"{name} {share:.0%} in the chord")
        yield _crowd(pair, part, own, name)
    yield from _together(pair)


def _plays(pair: _Pair, part: int, own: np.ndarray, name: str) -> Iterator[Fit]:
    with_others = np.intersect1d(pair.bar[pair.part != part], pair.bars)
    if not len(with_others):
        return
    n_played = int(np.isin(with_others, pair.bar[own]).sum())
    share = n_played / len(with_others)
    yield Fit(min(1.0, share / USUAL_PLAYING), f"{name} plays in {n_played} of {len(with_others)} bars")


def _crowd(pair: _Pair, part: int, own: np.ndarray, name: str) -> Fit:
    per_bar = own.sum() / len(np.unique(pair.bar[own]))
    known = ~pair.is_new
    same = known & (pair.part == part)
    n_parts = 1 if same.any() else len(np.unique(pair.part[known]))
    beside = same if same.any() else known
    before = beside.sum() / len(np.unique(pair.bar[beside])) / n_parts
    ratio = max(per_bar / before, before / per_bar)
    mark = 1.0 if ratio <= CROWD else max(0.0, 1 - math.log2(ratio / CROWD))
    return Fit(mark, f"{name} {per_bar:.0f} notes a bar beside {before:.0f}")


def _together(pair: _Pair) -> Iterator[Fit]:
    vocabulary = pair.vocabulary
    bass = vocabulary.part_names.index("bass") if "bass" in vocabulary.part_names else -1
    is_kick = vocabulary.is_drum[pair.part] & np.isin(pair.notes.pitch, list(pitch_set(KICK)))
    is_bass = pair.part == bass
    is_one_new = pair.is_new[is_kick].any() or pair.is_new[is_bass].any()
    is_bass &= np.isin(pair.bar, pair.bar[pair.is_new])
    if not is_kick.any() or not is_bass.any() or not is_one_new:
        return
    share = float(np.isin(pair.notes.onset[is_bass], pair.notes.onset[is_kick]).mean())
    yield Fit(min(1.0, share / USUAL_TOGETHER), f"bass with the kick {share:.0%}")
