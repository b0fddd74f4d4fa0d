"""Which of several songs, made for the same wish, to keep: a score for each, and why.

The score is the mean of four marks from 0 to 1; a mark that does not apply is left out.

likely   whether the song surprised the model as much as its rivals did: 1 for nats per note within
         their middle half, falling to 0 as far outside as this is wide. Less is a song that drones,
         more is one that lost its way.
in key   the share of new notes, drums left out, in the scale asked for; without one, in the major
         or minor scale that the known notes fit best.
groove   how alike the places in the bar are at which new notes and known ones begin: 1 minus the
         total variation distance of their shares, averaged over the new bars.
real     from scratch, how likely the model's critic takes the song for a real one. Where there is a
         critic, this alone is the score: it was shown to help, by judges of other kinds (RESULTS.md).
fresh    whether bars are new: 1 while at most half of them copy, note for note, a known bar of the
         same parts or an earlier new one; 0 if all do.

fits     how the new notes fit the known ones, by several marks; see `fitting.py`.

Known are the prompt and the given notes; a song from scratch is measured against itself.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Sequence

import numpy as np

from backline.evaluation.critic import Critic
from backline.generation.config import RuleConfig
from backline.generation.fitting import Fit, fits_of
from backline.music.theory import OCTAVE, best_scale, scale_pitch_classes
from backline.music.vocab import BAR, FIRST_ID, PITCH_INSTRUMENT, START_POS, Vocabulary


@dataclasses.dataclass(frozen=True)
class Score:
    """Marks from 0 to 1, None for one that does not apply, and the facts they rest on."""

    real: float | None
    likely: float
    in_key: float | None
    groove: float
    fresh: float
    nats_per_note: float
    key: str  # asked for, or of the known notes: "A minor"
    copied: float  # share of the bars
    fits: tuple[Fit, ...] = ()

    @property
    def total(self) -> float:
        """The critic's mark, or else the mean of the marks that apply."""
        if self.real is not None:
            return self.real
        marks = (self.likely, self.in_key, self.groove, self.fresh, *(fit.mark for fit in self.fits))
        applying = [mark for mark in marks if mark is not None]
        return float(np.mean(applying))

    def describe(self) -> str:
        """The score and why, on one line."""
        in_key = ""
        if self.in_key is not None:
            in_key = f"{self.in_key:.0%} in {self.key}, "
        real = "" if self.real is None else f"real {self.real:.2f}, "
        fits = "".join(f"{fit.reason}, " for fit in self.fits)
        return (f"score {self.total:.3f}: {real}{fits}"
                f"likely {self.likely:.2f} ({self.nats_per_note:.2f} nats/note), {in_key}"
                f"groove {self.groove:.2f}, "
                f"fresh {self.fresh:.2f} ({self.copied:.0%} of the bars copied)")


@dataclasses.dataclass(frozen=True)
class Judge:
    """What songs are scored by.

    rules: what the songs keep to; a key among them is the one that counts.
    bars: those that were to be made, from 0.
    critic: of songs from scratch; where notes are known it is not asked.
    """

    vocabulary: Vocabulary
    rules: RuleConfig
    bars: Collection[int] = ()
    critic: Critic | None = None


def rank(songs: Sequence[np.ndarray],
         surprisals: Sequence[np.ndarray],
         known: np.ndarray,
         judge: Judge) -> list[tuple[int, Score]]:
    """Indices and scores of songs, best first. Songs without notes are left out.

    Args:
        songs: the new notes of each, (N, F) ids in order.
        surprisals: those of the new notes of each, (N,) in nats.
        known: (M, F) ids of notes that were there before.
    """
    vocabulary = judge.vocabulary
    playing = [i for i, rows in enumerate(songs) if len(rows)]
    nats_per_note = [float(surprisals[i].mean()) for i in playing]
    scored = []
    for i, nats in zip(playing, nats_per_note, strict=True):
        new = songs[i]
        key, in_key = key_mark(new, known, vocabulary, judge.rules)
        known_of_parts = _of_same_parts(known, new, vocabulary)
        copied = copied_share(new, known_of_parts)
        grooves_known = known if len(known) else new
        real = None
        if judge.critic and not len(known):
            real = 1 / (1 + math.exp(-judge.critic.realness(new, vocabulary)))
        score = Score(
            real=real,
            likely=likelihood_mark(nats, nats_per_note),
            in_key=in_key,
            groove=groove_mark(new, grooves_known, vocabulary.steps_per_bar),
            fresh=min(1.0, 2 * (1 - copied)),
            nats_per_note=nats,
            key=key,
            copied=copied,
            fits=tuple(fits_of(new, known, vocabulary, judge.bars)),
        )
        scored.append((i, score))
    return sorted(scored, key=lambda pair: -pair[1].total)


def _of_same_parts(known: np.ndarray,
                   new: np.ndarray,
                   vocabulary: Vocabulary) -> np.ndarray:
    """Those of `known` (M, F) rows that parts of `new` (N, F) play."""
    parts_of_known = vocabulary.part_of_id[known[:, PITCH_INSTRUMENT]]
    parts_of_new = vocabulary.part_of_id[new[:, PITCH_INSTRUMENT]]
    return known[np.isin(parts_of_known, parts_of_new)]


def likelihood_mark(nats: float, of_rivals: Sequence[float]) -> float:
    """1 for nats per note within the middle half of the rivals', 0 from its width outside it on."""
    low, high = np.percentile(of_rivals, [25, 75])
    outside = max(low - nats, nats - high, 0.0)
    if outside <= 0:
        return 1.0
    if high <= low:
        return 0.0
    return max(0.0, 1.0 - outside / (high - low))


def key_mark(new: np.ndarray,
             known: np.ndarray,
             vocabulary: Vocabulary,
             rules: RuleConfig) -> tuple[str, float | None]:
    """A scale, and the share of new notes in it; ("", None) where all new notes are drums.

    The scale is the one asked for, else the one that the known notes fit best; or the new notes, if
    the known ones are all drums.
    """
    new_classes = _pitch_classes(new, vocabulary)
    known_classes = _pitch_classes(known, vocabulary)
    if not len(new_classes):
        return "", None
    if rules.key:
        name = f"{rules.key} {rules.scale}"
        in_scale = scale_pitch_classes(rules.key, rules.scale)
    else:
        judged = known_classes if len(known_classes) else new_classes
        counts = np.bincount(judged, minlength=OCTAVE)
        name, in_scale = best_scale(counts.tolist())
    is_inside = np.isin(new_classes, list(in_scale))
    return name, float(is_inside.mean())


def _pitch_classes(rows: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """(N,) pitch classes of the notes (M, F) that are no drums."""
    ids = rows[:, PITCH_INSTRUMENT]                               # (M,)
    is_drum_part = vocabulary.is_drum
    is_drum = is_drum_part[vocabulary.part_of_id[ids]]            # (M,)
    return vocabulary.pitch_of_id[ids[~is_drum]] % OCTAVE         # (N,)


def groove_mark(new: np.ndarray, known: np.ndarray, steps_per_bar: int) -> float:
    """How alike onsets are spread over the bar, from 0 to 1.

    Each bar of `new` (N, F), N > 0, is compared with all of `known` (M, F).
    """

    def shares(rows: np.ndarray) -> np.ndarray:
        """(steps_per_bar,) of the notes, by where in the bar they begin."""
        steps = rows[:, START_POS] - FIRST_ID
        counts = np.bincount(steps, minlength=steps_per_bar)
        return counts / len(rows)

    target = shares(known)
    steps_between = np.diff(new[:, BAR])
    bar_lines = np.flatnonzero(steps_between) + 1
    marks = []
    for bar in np.split(new, bar_lines):
        differences = np.abs(shares(bar) - target)
        distance = differences.sum() / 2
        marks.append(1 - distance)
    return float(np.mean(marks))


def copied_share(new: np.ndarray, known: np.ndarray) -> float:
    """Share of the bars in `new` (N, F), N > 0, that equal a known bar or an earlier new one.

    Equal bars have the same pitches at the same onsets, whatever their durations.
    """
    heard = set(_onsets_of_bars(known).values())
    bars = _onsets_of_bars(new)
    n_copied = 0
    for _, onsets in sorted(bars.items()):
        n_copied += onsets in heard
        heard.add(onsets)
    return n_copied / len(bars)


def _onsets_of_bars(rows: np.ndarray) -> dict[int, frozenset[tuple[int, int]]]:
    """For each bar of (N, F) rows that has a note: which pitches begin when."""
    found: dict[int, set[tuple[int, int]]] = {}
    for row in rows.tolist():
        onsets = found.setdefault(row[BAR], set())
        onsets.add((row[START_POS], row[PITCH_INSTRUMENT]))
    return {bar: frozenset(onsets) for bar, onsets in found.items()}
