"""Do generated songs lie among real ones? Statistics of tables of measures.

A table is (songs, measures) float64, nan where a song has nothing to measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

DRAWS = 1000  # of a bootstrap
CENTRAL = 0.95  # share of the draws that an interval holds
FOLDS = 5  # of a cross-validation
ROUNDS = 5  # cross-validations, averaged
TREES = 300  # of a forest
ENOUGH_SONGS = 2 * FOLDS  # of each kind, to tell them apart by


class Verdict(NamedTuple):
    """One measure: its mean over both kinds of songs, and the band for the generated ones.

    low, high: between these lies the mean of as many real songs, 95 times in 100.
    """

    name: str
    real: float
    low: float
    high: float
    generated: float
    inside: bool

    @property
    def half_widths(self) -> float:
        """How far generated songs lie from the middle of the band, in halves of its width.

        −1 and 1 are the ends of the band.
        """
        half_width = (self.high - self.low) / 2
        distance = self.generated - (self.high + self.low) / 2
        if half_width:
            return distance / half_width
        return 0.0 if self.inside else float(np.copysign(np.inf, distance))


class Difference(NamedTuple):
    """How well a classifier tells generated songs from real ones.

    auc: area under the ROC curve for songs it was not fitted to: 0.5 blind, 1 always right.
    low, high: the central 95 % of it over bootstrap draws of songs.
    control: the area for two random halves of the real songs.
    by_measure: the area that each measure reaches alone, the farthest from 0.5 first. Above 0.5,
        generated songs have more of it.
    """

    auc: float
    low: float
    high: float
    control: float
    by_measure: list[tuple[str, float]]


# ---------------------------------------------------------------- draws


def interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ends of the central 95 % of values along the first axis."""
    lower = 50 * (1 - CENTRAL)
    upper = 50 * (1 + CENTRAL)
    low, high = np.nanpercentile(values, [lower, upper], axis=0)
    return low, high


def bootstrap(n: int, size: int, seed: int = 0) -> np.ndarray:
    """(DRAWS, size) indices of songs drawn from `n` with replacement."""
    random = np.random.default_rng(seed)
    return random.integers(n, size=(DRAWS, size))


def cut_alike(songs: Sequence[np.ndarray],
              others: Sequence[np.ndarray],
              seed: int = 0,
              ) -> list[np.ndarray]:
    """The beginnings of `songs`, as long in notes as `others`.

    The lengths of `others` are dealt out in a random order, over and over.
    """
    random = np.random.default_rng(seed)
    lengths = random.permutation([len(rows) for rows in others])
    n = len(lengths)
    return [rows[:lengths[i % n]] for i, rows in enumerate(songs)]


# ---------------------------------------------------------------- measure by measure


def judge(names: Sequence[str],
          real: np.ndarray,
          generated: np.ndarray) -> list[Verdict]:
    """Whether each measure's mean over generated songs lies where that of as many real ones would.

    A measure that all generated or all real songs lack is left out.

    Args:
        names: of the measures.
        real, generated: tables with a column for each name.
    """
    verdicts = []
    for name, ours, theirs in zip(names, generated.T, real.T, strict=True):
        if np.isnan(ours).all() or np.isnan(theirs).all():
            continue
        songs_drawn = bootstrap(len(theirs), len(ours))
        draws = theirs[songs_drawn]                          # (DRAWS, n_generated)
        draws = draws[~np.isnan(draws).all(1)]
        low, high = interval(np.nanmean(draws, axis=1))
        mean = np.nanmean(ours)
        verdicts.append(Verdict(
            name,
            real=float(np.nanmean(theirs)),
            low=float(low),
            high=float(high),
            generated=float(mean),
            inside=bool(low <= mean <= high),
        ))
    return verdicts


# ---------------------------------------------------------------- all measures together


def tell_apart(names: Sequence[str],
               real: np.ndarray,
               generated: np.ndarray) -> Difference | None:
    """Cross-validate a random forest on the measures; None if there are too few songs of a kind.

    Args:
        names: of the measures.
        real, generated: tables with a column for each name.
    """
    if min(len(generated), len(real) // 2) < ENOUGH_SONGS:
        return None
    table = np.concatenate([real, generated])
    labels = np.repeat([0, 1], [len(real), len(generated)])
    scores = _scores_unseen(table, labels)
    random = np.random.default_rng(0)
    low, high = interval(_drawn_areas(labels, scores, random))
    n_real = len(real)
    is_first_half = random.permutation(n_real) < n_real // 2
    areas = [_area_alone(column, labels) for column in table.T]
    by_measure = zip(names, areas, strict=True)
    return Difference(
        auc=_area(labels, scores),
        low=float(low),
        high=float(high),
        control=_area(is_first_half, _scores_unseen(real, is_first_half.astype(int))),
        by_measure=sorted(by_measure, key=lambda name_and_area: -abs(name_and_area[1] - 0.5)),
    )


def _scores_unseen(table: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(songs,) how likely each song is of label 1, by forests fitted to other songs.

    The mean over ROUNDS cross-validations.
    """
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    rounds = []
    for seed in range(ROUNDS):
        forest = RandomForestClassifier(TREES,
                                        min_samples_leaf=3,
                                        class_weight="balanced",
                                        random_state=seed)
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
        likelihoods = cross_val_predict(forest,
                                        table,
                                        labels,
                                        cv=folds,
                                        method="predict_proba")
        rounds.append(likelihoods[:, 1])
    return np.mean(rounds, axis=0)


def _drawn_areas(labels: np.ndarray,
                 scores: np.ndarray,
                 random: np.random.Generator) -> np.ndarray:
    """(DRAWS,) areas over songs drawn with replacement, as many of each kind as there are.

    `labels`: all zeros stand before all ones.
    """
    n_ones = int(labels.sum())
    n_zeros = len(labels) - n_ones
    areas = []
    for _ in range(DRAWS):
        zeros = random.integers(n_zeros, size=n_zeros)
        ones = n_zeros + random.integers(n_ones, size=n_ones)
        draw = np.concatenate([zeros, ones])
        areas.append(_area(labels[draw], scores[draw]))
    return np.array(areas)


def _area_alone(column: np.ndarray, labels: np.ndarray) -> float:
    """The area that one measure reaches; songs that lack it do not count."""
    known = ~np.isnan(column)
    if len(np.unique(labels[known])) < 2:
        return 0.5
    return _area(labels[known], column[known])


def _area(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores))
