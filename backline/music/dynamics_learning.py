"""How real songs are played, as a table of `dynamics.py`, from notes and their velocities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from backline.common.errors import UserError
from backline.music.dynamics import (
    ANY,
    CROWDS,
    FACTORS,
    N_COMPANIES,
    RANKS,
    DynamicsTable,
    KindDynamics,
    Notes,
    PartDynamics,
    describe_notes,
    kind_names,
    pattern_periods,
)
from backline.music.vocab import Vocabulary

ENOUGH_NOTES = 8  # of a kind, for a song to say something of it
ENOUGH_SONGS = 3  # for a kind to be in the table
ENOUGH_PAIRS = 20  # songs with two kinds, to say how alike these are played
PRIOR = 5.0  # songs without any effect, as which a place begins
SWEEPS = 6  # of fitting one factor's effects after another


class Played(NamedTuple):
    """The notes of a song and the velocities (N,) they are struck with."""

    notes: Notes
    velocity: np.ndarray


def played(rows: np.ndarray, velocities: np.ndarray, vocabulary: Vocabulary) -> Played | None:
    """A song to learn from; None if all of it is struck alike, which says nothing of dynamics.

    Args:
        rows: (N, F) ids.
        velocities: (N,) 1 to 127; 0 where unknown.
    """
    known = velocities > 0
    if len(np.unique(velocities[known])) < 2:
        return None
    notes = describe_notes(rows, vocabulary).only(known)
    compact = Notes(*(column.astype(np.int16) for column in notes))
    return Played(compact, velocities[known].astype(np.int16))


def learn(songs: Sequence[Played], vocabulary: Vocabulary) -> DynamicsTable:
    """The table of how `songs` are played; every song counts alike.

    Raises UserError if they are too few for any part.
    """
    notes, velocity, song = _joined(songs)
    names = kind_names(vocabulary)
    parts = {}
    ranks = []
    for name in vocabulary.part_names:
        of_part = [i for i, (part, _) in enumerate(names) if part == name]
        inside = np.isin(notes.kind, of_part)
        learning = _Learning(notes.only(inside), velocity[inside], song[inside],
                             vocabulary.steps_per_bar)
        if learning.n_songs < ENOUGH_SONGS:
            continue
        whole = learning.kind()
        kinds = {ANY: whole}
        for i in of_part:
            only = learning.only(i)
            if only.n_songs >= ENOUGH_SONGS:
                kinds[names[i][1]] = only.kind(learning)
                ranks.append(only.ranks(len(songs)))
        parts[name] = PartDynamics(kinds, learning.follow)
    if not parts:
        raise UserError(f"{len(songs)} songs are too few to learn dynamics from; give at least "
                        f"{ENOUGH_SONGS} whose parts play {ENOUGH_NOTES} notes of a kind")
    return DynamicsTable(parts, vocabulary.steps_per_bar, _agreement(ranks), len(songs))


def _joined(songs: Sequence[Played]) -> tuple[Notes, np.ndarray, np.ndarray]:
    """The notes of all songs, the (N,) velocities of these, and (N,) indices of their songs."""
    by_column = zip(*(song.notes for song in songs), strict=True)
    notes = Notes(*map(np.concatenate, by_column))
    velocity = np.concatenate([song.velocity for song in songs])
    lengths = [len(song.velocity) for song in songs]
    song = np.repeat(np.arange(len(songs)), lengths)
    return notes, velocity.astype(float), song


def _agreement(ranks: list[np.ndarray]) -> float:
    """The mean correlation of kinds, from the (n_songs,) ranks of each, nan where it is not played."""
    found = []
    for i, one in enumerate(ranks):
        for other in ranks[:i]:
            both = ~np.isnan(one + other)
            if both.sum() >= ENOUGH_PAIRS:
                found.append(np.corrcoef(one[both], other[both])[0, 1])
    mean = float(np.mean(found)) if found else 0.0
    return round(float(np.clip(np.nan_to_num(mean), 0, 1)), 3)


class _Learning:
    """Notes of one part or kind of many songs, without songs that have too few."""

    def __init__(self,
                 notes: Notes,
                 velocity: np.ndarray,
                 song: np.ndarray,
                 steps_per_bar: int) -> None:
        """`velocity` and `song`, an index, are (N,) beside the notes."""
        self.steps_per_bar = steps_per_bar
        n_notes = np.bincount(song, minlength=1)
        enough = n_notes[song] >= ENOUGH_NOTES
        self.notes = notes.only(enough)
        self.velocity = velocity[enough]
        self.songs, self.song = np.unique(song[enough], return_inverse=True)
        self.n_songs = len(self.songs)
        n_left = np.bincount(self.song)
        self.weight = 1 / n_left[self.song]                  # (N,): every song counts alike
        self.level = self._mean_of_songs(self.velocity)      # (n_songs,)
        self.deviation = _without_means(self.velocity, self.song, self.notes.kind)
        self.spread = np.sqrt(self._mean_of_songs(self.deviation ** 2))

    def only(self, kind: int) -> _Learning:
        """The notes of one kind."""
        own = self.notes.kind == kind
        song = self.songs[self.song[own]]
        return _Learning(self.notes.only(own), self.velocity[own], song, self.steps_per_bar)

    def ranks(self, n_songs: int) -> np.ndarray:
        """(n_songs,) 0 to 1: how lively each song is played; nan for one that is not here."""
        ranks = np.full(n_songs, np.nan)
        order = np.argsort(self.spread, kind="stable")
        place = np.argsort(order, kind="stable")             # of each song in that order
        ranks[self.songs] = (place + 0.5) / self.n_songs
        return ranks

    def kind(self, part: _Learning | None = None) -> KindDynamics:
        """What the table holds of these notes, which may be a kind of a `part`."""
        effects, total = self._effects()
        level_spread = 0.0
        if part is not None:
            place_in_part = np.searchsorted(part.songs, self.songs)
            beside = self.level - part.level[place_in_part]
            level_spread = float(beside.std())
        return KindDynamics(
            level=round(float(self.level.mean()), 1),
            level_spread=round(level_spread, 1),
            spreads=_rounded(np.quantile(self.spread, RANKS)),
            shares=self._shares(self.deviation - total),
            **effects,
        )

    @property
    def follow(self) -> float:
        """The correlation of a bar's mean deviation with the next bar's, of one song."""
        _, total = self._effects()
        rest = self._without_pattern(self.deviation - total)
        mean, (song, bar) = _means(rest, self.song, self.notes.bar)
        is_next = (song[1:] == song[:-1]) & (bar[1:] == bar[:-1] + 1)
        variance = (mean ** 2).mean()
        if not is_next.any() or not variance:
            return 0.0
        covariance = (mean[1:] * mean[:-1])[is_next].mean()
        return round(float(np.clip(covariance / variance, 0, 0.95)), 3)

    def _mean_of_songs(self, values: np.ndarray) -> np.ndarray:
        return np.bincount(self.song, values * self.weight, minlength=self.n_songs)

    def _effects(self) -> tuple[dict[str, tuple[float, ...]], np.ndarray]:
        """The effects of each factor, and (N,) their sum for each note."""
        sizes = {"place": self.steps_per_bar,
                 "crowd": len(CROWDS) + 1,
                 "company": N_COMPANIES}
        found = {factor: np.zeros(size) for factor, size in sizes.items()}
        total = np.zeros(len(self.velocity))
        for _ in range(SWEEPS):
            for factor in FACTORS:
                column = getattr(self.notes, factor)
                rest = self.deviation - total + found[factor][column]
                sums = np.bincount(column, rest * self.weight, minlength=sizes[factor])
                weights = np.bincount(column, self.weight, minlength=sizes[factor])
                total -= found[factor][column]
                found[factor] = sums / (weights + PRIOR)
                total += found[factor][column]
        rounded = {factor: _rounded(values) for factor, values in found.items()}
        return rounded, total

    def _without_pattern(self, rest: np.ndarray) -> np.ndarray:
        """(N,) deviations without their song's mean at their place in the bar."""
        return _without_means(rest, self.song, self.notes.kind, self.notes.place)

    def _shares(self, rest: np.ndarray) -> tuple[float, ...]:
        """Shares of the variance, as in `dynamics.SHARES`.

        `rest`: (N,) what the effects leave. What two notes have in common is their covariance.
        """
        notes = self.notes
        patterns = self._pattern_variances(rest)
        rest = self._without_pattern(rest)
        by_strike, (song, bar, _) = _means(rest, self.song, notes.bar, notes.onset)
        bars = _covariance(by_strike, song, bar)
        strikes = max(_covariance(rest, self.song, notes.onset) - bars, 0.0)
        single = max(float((rest ** 2).mean()) - bars - strikes, 0.0)
        variances = np.array([*patterns, bars, strikes, single])
        total = max(float((self.deviation ** 2).mean()), variances.sum())
        shares = variances / total if total else variances
        return _rounded(shares, 3)

    def _pattern_variances(self, rest: np.ndarray) -> tuple[float, float, float]:
        """Variances of patterns that return in each quarter, half bar and bar; of (N,) deviations."""
        notes = self.notes
        quarter, half, _ = pattern_periods(self.steps_per_bar)
        by_bar, (song, kind, place, _) = _means(rest, self.song, notes.kind, notes.place, notes.bar)
        in_each_bar = _covariance(by_bar, song, kind, place)
        by_place, (song, kind, place) = _means(by_bar, song, kind, place)
        in_each_half = min(_covariance(by_place, song, kind, place % half), in_each_bar)
        in_each_quarter = min(_covariance(by_place, song, kind, place % quarter), in_each_half)
        return in_each_quarter, in_each_half - in_each_quarter, in_each_bar - in_each_half


def _rounded(values: np.ndarray, digits: int = 1) -> tuple[float, ...]:
    return tuple(np.round(values, digits).tolist())


def _means(values: np.ndarray, *keys: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """The mean of `values` for each combination of `keys`, and the combinations' keys; in order."""
    table, group = _groups(*keys)
    return np.bincount(group, values) / np.bincount(group), table


def _without_means(values: np.ndarray, *keys: np.ndarray) -> np.ndarray:
    """(N,) `values` without the mean of those that share their `keys`."""
    _, group = _groups(*keys)
    means = np.bincount(group, values) / np.bincount(group)
    return values - means[group]


def _groups(*keys: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """The combinations of (N,) `keys` in order, key by key, and (N,) which one is whose."""
    order = np.lexsort(keys[::-1])
    in_order = [key[order] for key in keys]
    is_first = np.zeros(len(order), bool)
    is_first[:1] = True
    for key in in_order:
        is_first[1:] |= key[1:] != key[:-1]
    group = np.empty(len(order), np.int64)
    group[order] = np.cumsum(is_first) - 1
    return [key[is_first] for key in in_order], group


def _covariance(values: np.ndarray, *keys: np.ndarray) -> float:
    """The mean product of two different values of one combination of `keys`; 0 where that is less."""
    _, group = _groups(*keys)
    n = np.bincount(group)
    several = n > 1
    if not several.any():
        return 0.0
    products = np.bincount(group, values) ** 2 - np.bincount(group, values ** 2)
    per_note = products[several] / (n[several] - 1)
    return max(float(per_note.sum() / n[several].sum()), 0.0)
