"""Do generated songs lie among real ones? The statistics of evaluate.py, on tables of measures.

A table is (songs, measures) float64, with nan where a song has nothing for a measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

DRAWS = 1000
CENTRAL = 0.95
FOLDS, ROUNDS, TREES = 5, 5, 300
ENOUGH_SONGS = 2 * FOLDS  # of each kind, to tell them apart by


class Verdict(NamedTuple):
    """One measure: means over the songs, and the band in which the mean of as many real songs lies 95 times in 100."""

    name: str
    real: float
    low: float
    high: float
    generated: float
    inside: bool

    @property
    def half_widths(self) -> float:
        """How far generated songs lie from the middle of the band, in halves of its width: −1 and 1 are its ends."""
        half, distance = (self.high - self.low) / 2, self.generated - (self.high + self.low) / 2
        return distance / half if half else 0.0 if self.inside else float(np.copysign(np.inf, distance))


class Difference(NamedTuple):
    """How well a classifier tells generated songs from real ones.

    auc: area under the ROC curve, of songs that it was not fitted to: 0.5 where it is blind, 1 where it is never wrong.
    low, high: the central 95 % of it over bootstrap draws of songs.
    control: the same classifier's, between two random halves of the real songs.
    by_measure: the area that each measure reaches alone, the farthest from 0.5 first; above 0.5: generated songs have
    more of it.
    """

    auc: float
    low: float
    high: float
    control: float
    by_measure: list[tuple[str, float]]


def interval(values: np.ndarray) -> tuple[float, float]:
    """Between which the central 95 % of values lie, along the first axis."""
    low, high = np.nanpercentile(values, [50 * (1 - CENTRAL), 50 * (1 + CENTRAL)], axis=0)
    return low, high


def bootstrap(n: int, size: int, seed: int = 0) -> np.ndarray:
    """(DRAWS, size) indices of songs drawn from `n` with replacement."""
    return np.random.default_rng(seed).integers(n, size=(DRAWS, size))


def cut_alike(songs: Sequence[np.ndarray], others: Sequence[np.ndarray], seed: int = 0) -> list[np.ndarray]:
    """The beginnings of `songs`, as long in notes as `others` are: their lengths are dealt out in a random order."""
    lengths = np.random.default_rng(seed).permutation([len(rows) for rows in others])
    return [rows[:lengths[i % len(lengths)]] for i, rows in enumerate(songs)]


def judge(names: Sequence[str], real: np.ndarray, generated: np.ndarray) -> list[Verdict]:
    """Whether the mean of each measure of the generated songs lies where that of as many real ones would.

    A measure that none of the generated songs, or none of the real ones, has anything for is left out.
    """
    found = []
    for name, ours, theirs in zip(names, generated.T, real.T, strict=True):
        if np.isnan(ours).all() or np.isnan(theirs).all():
            continue
        draws = theirs[bootstrap(len(theirs), len(ours))]
        low, high = interval(np.nanmean(draws[~np.isnan(draws).all(1)], axis=1))
        mean = float(np.nanmean(ours))
        found.append(Verdict(name, float(np.nanmean(theirs)), float(low), float(high), mean, bool(low <= mean <= high)))
    return found


def tell_apart(names: Sequence[str], real: np.ndarray, generated: np.ndarray) -> Difference | None:
    """Cross-validate a random forest on the measures; None where there are too few songs of a kind."""
    if min(len(generated), len(real) // 2) < ENOUGH_SONGS:
        return None
    from sklearn.metrics import roc_auc_score

    tables, labels = np.concatenate([real, generated]), np.repeat([0, 1], [len(real), len(generated)])
    scores = _held_out_scores(tables, labels)
    random = np.random.default_rng(0)
    areas = [roc_auc_score(labels[draw], scores[draw]) for draw in
             (np.concatenate([random.integers(len(real), size=len(real)),
                              len(real) + random.integers(len(generated), size=len(generated))]) for _ in range(DRAWS))]
    low, high = interval(np.array(areas))
    half = random.permutation(len(real)) < len(real) // 2
    control = roc_auc_score(half, _held_out_scores(real, half.astype(int)))
    alone = [(name, _area_alone(column, labels)) for name, column in zip(names, tables.T, strict=True)]
    return Difference(float(roc_auc_score(labels, scores)), float(low), float(high), float(control),
                      sorted(alone, key=lambda each: -abs(each[1] - 0.5)))


def _held_out_scores(table: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(songs,) how likely each is of label 1, by forests that were fitted to others; the mean of several rounds."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    rounds = []
    for seed in range(ROUNDS):
        forest = RandomForestClassifier(TREES, min_samples_leaf=3, class_weight="balanced", random_state=seed)
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
        rounds.append(cross_val_predict(forest, table, labels, cv=folds, method="predict_proba")[:, 1])
    return np.mean(rounds, axis=0)


def _area_alone(column: np.ndarray, labels: np.ndarray) -> float:
    """Of one measure; songs that have nothing for it do not count."""
    from sklearn.metrics import roc_auc_score

    known = ~np.isnan(column)
    if len(np.unique(labels[known])) < 2:
        return 0.5
    return float(roc_auc_score(labels[known], column[known]))
