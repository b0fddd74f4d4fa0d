"""Velocities for made notes: a table of how real songs are played, and draws from it.

A velocity is the sum of effects from the table and of draws with the song's seed. For each part and
each kind of its notes (a piece of the drum kit, an octave) the table holds how loud the kind is,
and how much louder or softer a note is by its place in the bar, by how crowded its bar is and by
what is struck with it. Drawn are how strong these effects are in the song, a pattern that returns
in each bar, and deviations of bars, strikes and single notes, as large as in the songs learned
from. So a hi-hat sounds alike from bar to bar, and does not jitter.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from backline.common.errors import UserError
from backline.common.settings import config_from_dict, config_to_dict
from backline.music.song import VELOCITY
from backline.music.theory import DRUM_KIT, OCTAVE
from backline.music.vocab import (
    BAR,
    FIRST_ID,
    PITCH_INSTRUMENT,
    QUARTERS_PER_BAR,
    START_POS,
    Vocabulary,
)

SOFTEST, LOUDEST = 1, 127
PIECES = ("kick", "snare", "rim", "clap", "toms", "closed_hat", "pedal_hat", "open_hat", "crash",
          "ride")  # of `theory.DRUM_KIT`, as kinds of drum notes
ANY = "any"  # the kind of notes whose own kind is not in the table
CROWDS = (2, 3, 5, 9, 17)  # notes of a kind in a bar: 1, 2, 3 to 4, 5 to 8, 9 to 16, more
ALONE, HIGHEST, BELOW = range(3)  # company: of what the part strikes at once
N_COMPANIES = 3
RANKS = (0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95)  # of songs, by their spread
FACTORS = ("place", "crowd", "company")  # columns of `Notes` that have effects
# Of the variance: of patterns that return in each quarter, half bar and bar; of what bars add to
# them, of what is struck at once, and of single notes.
SHARES = ("quarter", "half", "bar", "bars", "strikes", "notes")

FARTHEST = 2.5  # standard deviations that a draw goes
FEW = 8.0  # given notes that count as much as what is expected of them
FACT = "dynamics"  # the table's name in what a model's file says of its training
STREAM = 0x7E10  # sets the draws apart from others of the same seed


# ---------------------------------------------------------------- the table


@dataclasses.dataclass(frozen=True)
class KindDynamics:
    """How one kind of a part's notes is played. All but `shares` in steps of velocity.

    level: the mean.
    level_spread: standard deviation, over songs, of the kind's level beside the part's level.
    spreads: standard deviations within a song: the quantiles over songs at `RANKS`.
    place, crowd, company: the effect of each place in the bar, of how many notes of the kind are in
        the bar (`CROWDS`) and of what is struck with the note, in a song of `usual_spread`.
    shares: shares of the variance within a song, as in `SHARES`; the effects have the rest.
    """

    level: float
    level_spread: float
    spreads: tuple[float, ...]
    place: tuple[float, ...]
    crowd: tuple[float, ...]
    company: tuple[float, ...]
    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        sizes = (len(self.spreads), len(self.crowd), len(self.company), len(self.shares))
        if sizes != (len(RANKS), len(CROWDS) + 1, N_COMPANIES, len(SHARES)):
            raise UserError("a list is too short or too long")
        if not SOFTEST <= self.level <= LOUDEST:
            raise UserError(f"level {self.level} must be from {SOFTEST} to {LOUDEST}")
        if min(self.level_spread, *self.spreads, *self.shares) < 0:
            raise UserError("spreads and shares must be at least 0")

    @property
    def usual_spread(self) -> float:
        """The root of the mean variance within a song."""
        return float(np.sqrt(np.mean(np.square(self.spreads))))

    def effects(self, notes: Notes) -> np.ndarray:
        """(N,) the sum of effects on each note, in steps of velocity."""
        tables = [np.array(getattr(self, factor)) for factor in FACTORS]
        columns = [getattr(notes, factor) for factor in FACTORS]
        return sum((table[column] for table, column in zip(tables, columns, strict=True)),
                   np.zeros(len(notes.bar)))


@dataclasses.dataclass(frozen=True)
class PartDynamics:
    """How a part is played: its kinds of notes by name, and how much a bar follows the last one."""

    kinds: dict[str, KindDynamics]
    follow: float

    def __post_init__(self) -> None:
        if ANY not in self.kinds:
            raise UserError(f"kind {ANY!r} is missing")
        if not 0 <= self.follow < 1:
            raise UserError(f"follow {self.follow} must be from 0 to below 1")

    def kind(self, name: str) -> KindDynamics:
        """The kind `name`; that of any note where the table lacks it."""
        return self.kinds.get(name, self.kinds[ANY])


@dataclasses.dataclass(frozen=True)
class DynamicsTable:
    """How the parts of a vocabulary are played, by name.

    agreement: correlation, over songs, of how lively the kinds of one song are played.
    n_songs: how many songs it was learned from.
    """

    parts: dict[str, PartDynamics]
    steps_per_bar: int
    agreement: float
    n_songs: int

    def __post_init__(self) -> None:
        for part in self.parts.values():
            for kind in part.kinds.values():
                if len(kind.place) != self.steps_per_bar:
                    raise UserError(f"place must be a list of {self.steps_per_bar}")
        if not 0 <= self.agreement <= 1:
            raise UserError(f"agreement {self.agreement} must be from 0 to 1")

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return config_to_dict(self)

    @classmethod
    def from_dict(cls, data: Any, vocabulary: Vocabulary, where: Path) -> DynamicsTable:
        """The table in JSON data. Raises UserError if it is damaged or has another grid."""
        try:
            table = config_from_dict(cls, data, "dynamics")
            if table.steps_per_bar != vocabulary.steps_per_bar:
                raise UserError(f"{table.steps_per_bar} steps a bar, not "
                                f"{vocabulary.steps_per_bar}")
        except UserError as err:
            raise UserError(f"{where}: its table of dynamics is damaged ({err}); make it again "
                            f"with dynamics.py --force") from None
        return table


def dynamics_fact(metadata: dict[str, Any]) -> Any:
    """The table as JSON data, from the metadata of a model's file; None if it has none."""
    of_training = metadata.get("facts", {})
    return metadata.get(FACT) or of_training.get(FACT)


def dynamics_table(metadata: dict[str, Any],
                   vocabulary: Vocabulary,
                   where: Path) -> DynamicsTable | None:
    """The table in the metadata of a model's file; None if it has none."""
    data = dynamics_fact(metadata)
    return DynamicsTable.from_dict(data, vocabulary, where) if data else None


# ---------------------------------------------------------------- notes as the table sees them


class Notes(NamedTuple):
    """What the table knows of notes: columns (N,)."""

    kind: np.ndarray  # index into `kind_names`
    place: np.ndarray  # step in the bar
    crowd: np.ndarray
    company: np.ndarray
    bar: np.ndarray
    onset: np.ndarray  # steps from the first bar on

    def only(self, which: np.ndarray) -> Notes:
        """The notes that `which`, (N,) bool or indices, selects."""
        return Notes(*(column[which] for column in self))


def pattern_periods(steps_per_bar: int) -> tuple[int, int, int]:
    """Periods of patterns in steps: a quarter, half a bar, a bar."""
    return steps_per_bar // QUARTERS_PER_BAR, steps_per_bar // 2, steps_per_bar


def kind_names(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """(part, kind) of every kind of note that a vocabulary holds, in a fixed order."""
    return list(dict.fromkeys(_kinds_of_ids(vocabulary)))


def _kinds_of_ids(vocabulary: Vocabulary) -> Iterator[tuple[str, str]]:
    """(part, kind) of each pitch_instrument id that is not special."""
    pieces = {pitch: piece for piece in PIECES for pitch in DRUM_KIT[piece]}
    parts = vocabulary.part_of_id[FIRST_ID:]
    pitches = vocabulary.pitch_of_id[FIRST_ID:]
    for p, pitch in zip(parts.tolist(), pitches.tolist(), strict=True):
        part = vocabulary.parts[p]
        octave = pitch // OCTAVE - 1
        yield part.name, pieces.get(pitch, "other") if part.is_drum else f"octave {octave}"


def describe_notes(rows: np.ndarray, vocabulary: Vocabulary) -> Notes:
    """What the table knows of (N, F) rows, in any order."""
    names = {name: i for i, name in enumerate(kind_names(vocabulary))}
    kind_of_id = np.array([names[name] for name in _kinds_of_ids(vocabulary)])
    ids = rows[:, PITCH_INSTRUMENT]
    kind = kind_of_id[ids - FIRST_ID]
    bar = rows[:, BAR].astype(np.int64) - FIRST_ID
    place = rows[:, START_POS].astype(np.int64) - FIRST_ID
    onset = bar * vocabulary.steps_per_bar + place
    _, crowd_of, n_in_bar = np.unique(bar * len(names) + kind,
                                      return_inverse=True, return_counts=True)
    crowd = np.searchsorted(CROWDS, n_in_bar[crowd_of], side="right")
    return Notes(kind, place, crowd, _company(onset, ids, vocabulary), bar, onset)


def _company(onset: np.ndarray, ids: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """(N,) the company of each note: ALONE, or struck with others as the HIGHEST or BELOW."""
    part = vocabulary.part_of_id[ids]
    strike = onset * len(vocabulary.parts) + part
    _, strike_of, n_at_once = np.unique(strike, return_inverse=True, return_counts=True)
    highest = np.zeros(len(n_at_once), np.int64)
    np.maximum.at(highest, strike_of, ids)
    company = np.where(ids == highest[strike_of], HIGHEST, BELOW)
    return np.where(n_at_once[strike_of] == 1, ALONE, company)


# ---------------------------------------------------------------- what is given


@dataclasses.dataclass(frozen=True)
class Level:
    """How given notes are played, compared with what the table expects of them.

    loud: ratio of the velocities.
    lively: ratio of their standard deviations.
    known: 0 to 1, how much of both comes from given notes of the same kind.
    """

    loud: float = 1.0
    lively: float = 1.0
    known: float = 0.0


@dataclasses.dataclass(frozen=True)
class GivenDynamics:
    """How given notes are played: in the whole song, by part, and by (part, kind).

    flat: the one velocity that all of them have; 0 where they differ.
    """

    flat: int = 0
    song: Level = Level()
    parts: dict[str, Level] = dataclasses.field(default_factory=dict)
    kinds: dict[tuple[str, str], Level] = dataclasses.field(default_factory=dict)

    def of(self, part: str, kind: str) -> Level:
        """The level of a kind; of its part where no such note is given; else of the song."""
        above = self.parts.get(part, self.song)
        return self.kinds.get((part, kind), dataclasses.replace(above, known=0.0))


def given_dynamics(rows: np.ndarray,
                   velocities: np.ndarray,
                   vocabulary: Vocabulary,
                   table: DynamicsTable) -> GivenDynamics | None:
    """How given notes are played; None if no velocity is known.

    Args:
        rows: (N, F) ids.
        velocities: (N,) 1 to 127; 0 where unknown.
    """
    known = velocities > 0
    different = np.unique(velocities[known])
    if len(different) < 2:
        return GivenDynamics(flat=int(different[0])) if len(different) else None
    notes = describe_notes(rows, vocabulary).only(known)
    velocity = velocities[known].astype(float)
    names = kind_names(vocabulary)
    evidence = {}
    for i in np.unique(notes.kind).tolist():
        part, kind = names[i]
        if part in table.parts:
            own = notes.kind == i
            dynamics = table.parts[part].kind(kind)
            evidence[part, kind] = _Evidence.of(velocity[own], notes.only(own), dynamics)
    song = sum(evidence.values(), _Evidence()).beside(Level())
    parts = {}
    for name in table.parts:
        of_part = [each for (part, _), each in evidence.items() if part == name]
        parts[name] = sum(of_part, _Evidence()).beside(song)
    kinds = {(part, kind): each.beside(parts[part])
             for (part, kind), each in evidence.items()}
    return GivenDynamics(0, song, parts, kinds)


@dataclasses.dataclass(frozen=True)
class _Evidence:
    """Sums over given notes: their number, their velocities, the velocities expected."""

    n: int = 0
    velocity: float = 0.0
    expected: float = 0.0
    n_free: int = 0  # degrees of freedom
    squares: float = 0.0  # of deviations from the mean of their kind, in its usual spreads

    @classmethod
    def of(cls, velocity: np.ndarray, notes: Notes, kind: KindDynamics) -> _Evidence:
        """The sums over (N,) notes of one kind."""
        n = len(velocity)
        expected = kind.level + kind.effects(notes)
        if not kind.usual_spread:
            return cls(n, float(velocity.sum()), float(expected.sum()))
        deviation = (velocity - velocity.mean()) / kind.usual_spread
        squares = float((deviation ** 2).sum())
        return cls(n, float(velocity.sum()), float(expected.sum()), n - 1, squares)

    def __add__(self, other: _Evidence) -> _Evidence:
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return _Evidence(*(one + another for one, another in pairs))

    def beside(self, above: Level) -> Level:
        """The level of these notes, drawn towards the level `above` where they are few."""
        if not self.n:
            return above
        few = FEW * self.expected / self.n
        loud = (self.velocity + above.loud * few) / (self.expected + few)
        squares = self.squares + FEW * above.lively ** 2
        lively = math.sqrt(squares / (self.n_free + FEW))
        return Level(loud, lively, self.n / (self.n + FEW))


# ---------------------------------------------------------------- draws


def made_velocities(rows: np.ndarray,
                    vocabulary: Vocabulary,
                    table: DynamicsTable | None,
                    seed: int,
                    given: GivenDynamics | None = None) -> np.ndarray:
    """(N,) velocities, 1 to 127, of (N, F) made rows. The same seed draws the same.

    Without a table, and in parts that it lacks, all velocities are the same. If all given notes
    have one velocity, made notes have it too; else they are as loud and as lively as the given
    ones.
    """
    if table is None:
        return np.full(len(rows), VELOCITY)
    if given and given.flat:
        return np.full(len(rows), given.flat)
    notes = describe_notes(rows, vocabulary)
    velocity = np.full(len(rows), VELOCITY * (given.song.loud if given else 1.0))
    names = kind_names(vocabulary)
    for i in np.unique(notes.kind).tolist():
        part, kind = names[i]
        if part in table.parts:
            own = notes.kind == i
            player = _Player(table, part, kind, seed, vocabulary)
            level = given.of(part, kind) if given else None
            velocity[own] = player.velocities(notes.only(own), level)
    return np.clip(velocity.round(), SOFTEST, LOUDEST).astype(np.int64)


class _Player:
    """What is drawn for one kind of a part in one song.

    Parts and kinds draw from streams of their own, so that none depends on the others' notes.
    """

    def __init__(self,
                 table: DynamicsTable,
                 part: str,
                 kind: str,
                 seed: int,
                 vocabulary: Vocabulary) -> None:
        dynamics = table.parts[part]
        self.kind = dynamics.kind(kind)
        p = vocabulary.part_names.index(part)
        k = kind_names(vocabulary).index((part, kind))
        of_song, of_part, of_kind = (np.random.default_rng((STREAM, seed, *which))
                                     for which in ((0,), (1, p), (2, k)))
        mood = math.sqrt(table.agreement) * float(_normal(of_song, 1)[0])
        self.bars = _in_a_row(_normal(of_part, vocabulary.bars), dynamics.follow)
        self.strikes = _normal(of_part, vocabulary.bars * vocabulary.steps_per_bar)
        own_mood, self.shift = _normal(of_kind, 2).tolist()
        self.mood = mood + math.sqrt(1 - table.agreement) * own_mood
        self.periods = pattern_periods(vocabulary.steps_per_bar)
        self.patterns = [_normal(of_kind, period) for period in self.periods]
        self.random = of_kind

    def velocities(self, notes: Notes, level: Level | None) -> np.ndarray:
        """(N,) float velocities of notes of this kind; `level` is that of what is given."""
        kind = self.kind
        if level is None:
            rank = (1 + math.erf(self.mood / math.sqrt(2))) / 2
            spread = float(np.interp(rank, RANKS, kind.spreads))
            level = Level()
        else:
            spread = level.lively * kind.usual_spread
        shift = self.shift * kind.level_spread * (1 - level.known)
        pairs = zip(self.patterns, self.periods, strict=True)
        draws = np.stack([
            *(pattern[notes.place % period] for pattern, period in pairs),
            self.bars[notes.bar],
            self.strikes[notes.onset],
            _normal(self.random, len(notes.bar)),
        ])                                                   # (6, N)
        deviation = spread * (np.sqrt(kind.shares) @ draws)
        if kind.usual_spread:
            deviation += spread / kind.usual_spread * kind.effects(notes)
        return level.loud * kind.level + shift + deviation


def _normal(random: np.random.Generator, n: int) -> np.ndarray:
    """(n,) standard normal draws, clipped at FARTHEST."""
    return np.clip(random.standard_normal(n), -FARTHEST, FARTHEST)


def _in_a_row(draws: np.ndarray, follow: float) -> np.ndarray:
    """Draws of which each keeps a share of the last one (AR(1)); the variance stays."""
    result = draws.copy()
    fresh = math.sqrt(1 - follow ** 2)
    for i in range(1, len(draws)):
        result[i] = follow * result[i - 1] + fresh * draws[i]
    return result
