"""The sheet of a bar: how each part plays in the sixteen bars around it, and in which key.

A sheet is a row of small ids: five for each part, and the key. Ids are those of all controls, see
`controls.py`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from backline.common.errors import UserError, suggestion
from backline.music.chords import FIRST_VALUE, NONE, best_path, unit
from backline.music.theory import OCTAVE, PITCH_CLASSES
from backline.music.vocab import BAR, FIRST_ID, NOTE_DUR, PITCH_INSTRUMENT, START_POS, Vocabulary

N_DENSITIES = 8
REST_EDGES = (0, 1 / 4, 1 / 2)  # shares of bars; each the highest of its level
RETURN_EDGES = (1 / 4, 1 / 2, 9 / 10)  # shares of a bar; each the lowest of the next level
PART_SIZES = {  # values of each column of a part
    "plays": 1,
    "density": N_DENSITIES,
    "rests": len(REST_EDGES) + 1,
    "returns_4": len(RETURN_EDGES) + 1,
    "returns_8": len(RETURN_EDGES) + 1,
}
N_PART_FIELDS = len(PART_SIZES)
PLAYS, DENSITY, RESTS, RETURNS_4, RETURNS_8 = range(N_PART_FIELDS)
RETURN_GAPS = {RETURNS_4: 4, RETURNS_8: 8}  # bars: phrases of four and of eight
WINDOW_BARS = 16  # bars that a sheet describes

MODES = ("major", "minor")
# How well each pitch class above the tonic fits a key, major or minor (Krumhansl, Kessler 1982).
# 276 songs had a key signature other than C. These profiles find it for 79 % of them,
# Temperley's (1999) for 73 %, Albrecht and Shanahan's (2013) for 67 %.
KEY_PROFILES = ((6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
                (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17))
N_KEYS = OCTAVE * len(MODES)
LEAST_CORRELATION = 0.5  # of what is played with a key's profile; with less there is no key
KEY_CHANGE_COST = 4.0  # correlation, summed over bars, by which a new key must be better



class PartControl(NamedTuple):
    """Something that people say of a part, as a level from 1 on, or in a word."""

    columns: tuple[int, ...]  # of the part, that hold the level
    n_levels: int
    words: dict[str, int]
    least: str  # what the first and the last level mean
    most: str


DENSITY_WORDS = {"sparse": 2, "medium": 4, "busy": 7}
PART_CONTROLS = {
    "density": PartControl(
        (DENSITY,), N_DENSITIES, DENSITY_WORDS, "fewest notes", "most"),
    "rests": PartControl(
        (RESTS,), PART_SIZES["rests"],
        {"never": 1, "sometimes": 2, "often": 3, "mostly": 4},
        "plays in every bar", "rests in more than half of them"),
    "repeats": PartControl(
        (RETURNS_4, RETURNS_8), PART_SIZES["returns_4"],
        {"hardly": 1, "partly": 2, "mostly": 3, "exactly": 4},
        "hardly a note comes back four or eight bars later", "nine in ten do"),
}
REST_WORDS = ("", "rests now and then", "rests up to half the time", "rests most of the time")


def key_column(vocabulary: Vocabulary) -> int:
    """The column of the key, which is the sheet's last."""
    return N_PART_FIELDS * len(vocabulary.parts)


def sheet_width(vocabulary: Vocabulary) -> int:
    """Columns of a sheet, which are the first of the controls."""
    return key_column(vocabulary) + 1


@dataclasses.dataclass(frozen=True)
class Levels:
    """What counts as dense, part by part.

    density_edges: (n_parts, 7) edges between the levels, in notes a bar; bars in which a part rests
    do not count.
    """

    density_edges: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        for edges in self.density_edges:
            is_rising = list(edges) == sorted(edges)
            if len(edges) != N_DENSITIES - 1 or not is_rising:
                raise UserError(f"density_edges {list(edges)}: must be {N_DENSITIES - 1} numbers "
                                f"that go up")


def measure_levels(songs: Iterable[np.ndarray], vocabulary: Vocabulary) -> Levels:
    """Levels that are equally frequent in the windows of songs, (N, 4) rows each."""
    of_songs = [_densities(rows, vocabulary) for rows in songs]
    nothing = np.zeros((0, len(vocabulary.parts)))
    densities = np.concatenate([nothing, *of_songs])         # (W, n_parts)
    shares = np.arange(1, N_DENSITIES) / N_DENSITIES
    edges = []
    for of_part in densities.T:
        played = of_part[of_part > 0]
        if not len(played):
            played = np.zeros(1)  # a part that never plays: all edges are 0
        quantiles = np.quantile(played, shares).round(3)
        edges.append(tuple(quantiles.tolist()))
    return Levels(tuple(edges))


def _densities(rows: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """(W, n_parts) densities in windows of one song that overlap by half; 0 where a part rests."""
    song = song_bars(rows, vocabulary)
    around_bars = Windows.around_bars(song.n_bars)
    every = WINDOW_BARS // 2
    overlapping = Windows(around_bars.begin[::every], around_bars.end[::every])
    return overlapping.densities(song.counts())


# ---------------------------------------------------------------- from notes


def sheets_of_bars(song: SongBars,
                   vocabulary: Vocabulary,
                   levels: Levels) -> np.ndarray:
    """(n_bars, K_sheet) uint8: the sheet of each bar of a song.

    A sheet describes the window of 16 bars around its bar. Near an end of the song the window is
    moved inside.
    """
    return _sheets(song, vocabulary, levels, Windows.around_bars(song.n_bars))


def sheet_of(rows: np.ndarray,
             vocabulary: Vocabulary,
             levels: Levels,
             first_bar: int,
             last_bar: int) -> np.ndarray:
    """(K_sheet,) uint8: one sheet of a whole stretch of bars, which count from 0.

    The stretch is taken as a song of its own: what sounds before and after it does not count.
    """
    song = song_bars(rows, vocabulary, (first_bar, last_bar))
    begin = np.array([0])
    end = np.array([song.n_bars])
    whole_song = Windows(begin, end)
    sheet, = _sheets(song, vocabulary, levels, whole_song)
    return sheet


class SongBars(NamedTuple):
    """The notes of one song, and its bars, which count from its first."""

    first_bar: int
    n_bars: int
    notes: np.ndarray  # (N, 4) ids, no special rows
    bar: np.ndarray  # (N,)
    part: np.ndarray  # (N,)
    n_parts: int

    def counts(self, chosen: np.ndarray | slice = slice(None)) -> np.ndarray:
        """(n_bars, n_parts): how many notes begin; only the `chosen` ones count."""
        cells = self.bar[chosen] * self.n_parts + self.part[chosen]
        counts = np.bincount(cells, minlength=self.n_bars * self.n_parts)
        return counts.reshape(self.n_bars, self.n_parts)


def song_bars(rows: np.ndarray,
              vocabulary: Vocabulary,
              stretch: tuple[int, int] | None = None) -> SongBars:
    """The notes of (N, 4) rows; only those of a `stretch`, first and last bar, if one is given.

    Without one, the bars run from the first to the last with a note; a song without notes is one
    empty bar.
    """
    is_note = rows[:, BAR] >= FIRST_ID
    notes = rows[is_note].astype(np.int64)
    bar = notes[:, BAR] - FIRST_ID
    if stretch is not None:
        first_bar, last_bar = stretch
    elif len(bar):
        first_bar = int(bar.min())
        last_bar = int(bar.max())
    else:
        first_bar = 0
        last_bar = 0
    is_inside = (bar >= first_bar) & (bar <= last_bar)
    notes = notes[is_inside]
    bar = bar[is_inside] - first_bar
    part = vocabulary.part_of_id[notes[:, PITCH_INSTRUMENT]]
    n_bars = last_bar - first_bar + 1
    return SongBars(first_bar, n_bars, notes, bar, part, len(vocabulary.parts))


class Windows(NamedTuple):
    """W windows of bars: from `begin` to before `end`."""

    begin: np.ndarray  # (W,)
    end: np.ndarray  # (W,)

    @classmethod
    def around_bars(cls, n_bars: int) -> Windows:
        """The window around each bar of a song, moved inside near its ends."""
        centred = np.arange(n_bars) - WINDOW_BARS // 2
        last_begin = max(n_bars - WINDOW_BARS, 0)
        begin = np.clip(centred, 0, last_begin)
        end = np.minimum(begin + WINDOW_BARS, n_bars)
        return cls(begin, end)

    def sums(self, of_bars: np.ndarray) -> np.ndarray:
        """(W, C) sums of (n_bars, C) over each window."""
        nothing = np.zeros((1, of_bars.shape[1]), of_bars.dtype)
        before = np.concatenate([nothing, of_bars])
        before = before.cumsum(axis=0)                       # (n_bars + 1, C), before each bar
        return before[self.end] - before[self.begin]

    def densities(self, counts: np.ndarray) -> np.ndarray:
        """(W, n_parts) notes a bar of (n_bars, n_parts) notes; bars without any do not count."""
        n_played = self.sums(counts > 0)                     # bars
        return _ratio(self.sums(counts), n_played)


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b, and 0 where b is 0."""
    return a / np.maximum(b, 1)


def _sheets(song: SongBars,
            vocabulary: Vocabulary,
            levels: Levels,
            windows: Windows) -> np.ndarray:
    """(W, K_sheet) uint8: the sheets of W windows of bars."""
    counts = song.counts()
    n_windows = len(windows.begin)
    length = (windows.end - windows.begin)[:, None]          # (W, 1), bars
    n_rests = length - windows.sums(counts > 0)              # (W, n_parts), bars
    density = windows.densities(counts)                      # (W, n_parts)

    shape = (n_windows, song.n_parts, N_PART_FIELDS)
    sheets = np.full(shape, NONE, np.uint8)
    sheets[..., PLAYS] = FIRST_VALUE
    for part, edges in enumerate(levels.density_edges):
        level = np.searchsorted(edges, density[:, part], side="right")
        sheets[:, part, DENSITY] = FIRST_VALUE + level
    level = np.searchsorted(REST_EDGES, n_rests / length)
    sheets[..., RESTS] = FIRST_VALUE + level
    for column, gap in RETURN_GAPS.items():
        returns, is_pair = _returns(song, vocabulary, gap)
        n_pairs = windows.sums(is_pair)
        mean = _ratio(windows.sums(returns), n_pairs)
        mean = mean.round(6)  # a sum of floats may miss an edge
        level = np.searchsorted(RETURN_EDGES, mean, side="right")
        sheets[..., column] = np.where(n_pairs > 0, FIRST_VALUE + level, NONE)
    is_silent = windows.sums(counts) == 0
    sheets[is_silent] = NONE

    of_parts = sheets.reshape(n_windows, -1)                 # (W, n_parts * 5)
    keys = _keys(song, vocabulary, windows)                  # (W,)
    return np.concatenate([of_parts, keys[:, None]], axis=1)


def _returns(song: SongBars,
             vocabulary: Vocabulary,
             gap: int) -> tuple[np.ndarray, np.ndarray]:
    """How much of each part's bar comes back `gap` bars later, and where that can be said.

    Two bars are compared by their onsets: those that both have, of all that they have (Jaccard
    1912). Nothing is said where the first bar rests, or where the second lies after the song.

    Returns:
        (n_bars, n_parts) shares, 0 where nothing is said; (n_bars, n_parts) bool.
    """
    start_pos = song.notes[:, START_POS] - FIRST_ID
    step = song.bar * vocabulary.steps_per_bar + start_pos   # (N,)
    n_ids = vocabulary.sizes[PITCH_INSTRUMENT]
    onset = step * n_ids + song.notes[:, PITCH_INSTRUMENT]   # (N,), one number for step and pitch
    onset, chosen = np.unique(onset, return_index=True)
    later = onset + gap * vocabulary.steps_per_bar * n_ids
    comes_back = np.isin(later, onset, assume_unique=True)

    struck = song.counts(chosen)                             # (n_bars, n_parts)
    struck_twice = song.counts(chosen[comes_back])
    struck_later = np.zeros_like(struck)
    struck_later[:-gap] = struck[gap:]
    is_pair = struck > 0
    is_pair[-gap:] = False
    struck_in_either = struck + struck_later - struck_twice
    share = _ratio(struck_twice, struck_in_either)
    return np.where(is_pair, share, 0), is_pair


def key_of(rows: np.ndarray,
           vocabulary: Vocabulary,
           first_bar: int,
           last_bar: int) -> tuple[str, str]:
    """Tonic and mode, ("A", "minor"), of a stretch of bars, from 0; ("", "") where no key is heard."""
    song = song_bars(rows, vocabulary, (first_bar, last_bar))
    begin = np.array([0])
    end = np.array([song.n_bars])
    key, = _keys(song, vocabulary, Windows(begin, end))
    return key_name(int(key))


def key_name(key: int) -> tuple[str, str]:
    """Tonic and mode of a key's id; ("", "") for none and unknown."""
    if key < FIRST_VALUE:
        return "", ""
    tonic, mode = divmod(key - FIRST_VALUE, len(MODES))
    return PITCH_CLASSES[tonic], MODES[mode]


def _keys(song: SongBars, vocabulary: Vocabulary, windows: Windows) -> np.ndarray:
    """(W,) uint8: the id of each window's key, the one whose profile the durations fit best.

    All parts but drums count. The fit is the correlation, as in Krumhansl (1990).
    A change of key costs something, as in Temperley (1999). Window by window, a song is now in its
    key, now in a relative or a neighbour, 2.6 keys a song; with the cost 1.2 are left, and they
    agree more often with key signatures. One key for the whole song would miss last choruses that
    move up.
    """
    n_windows = len(windows.begin)
    is_melodic = ~vocabulary.is_drum[song.part]              # (N,)
    if not is_melodic.any():
        return np.full(n_windows, NONE, np.uint8)
    notes = song.notes[is_melodic]
    pitch = vocabulary.pitch_of_id[notes[:, PITCH_INSTRUMENT]]
    # Pitch classes count from the lowest note, so that ties are resolved alike in every key.
    origin = pitch.min()
    pitch_class = (pitch - origin) % OCTAVE
    cells = song.bar[is_melodic] * OCTAVE + pitch_class
    duration = notes[:, NOTE_DUR] - FIRST_ID + 1
    sound = np.bincount(cells, duration, minlength=song.n_bars * OCTAVE)
    sound = sound.reshape(song.n_bars, OCTAVE)
    sound = windows.sums(sound)                              # (W, 12)

    scores = np.full((n_windows, N_KEYS + 1), LEAST_CORRELATION)  # the last: no key
    scores[:, :N_KEYS] = _standardized(sound) @ KEY_TEMPLATES.T
    scores[~sound.any(axis=1)] = 0  # silence speaks for no key, and against none
    costs = np.full(n_windows, KEY_CHANGE_COST)
    found = best_path(scores, costs)                         # (W,)
    tonic, mode = np.divmod(found, len(MODES))
    tonic = (tonic + origin) % OCTAVE
    ids = FIRST_VALUE + tonic * len(MODES) + mode
    ids = np.where(found < N_KEYS, ids, NONE)
    return ids.astype(np.uint8)


def _standardized(vectors: np.ndarray) -> np.ndarray:
    """The vectors (..., D) with mean 0 and length 1: their products are correlations."""
    means = vectors.mean(axis=-1, keepdims=True)
    return unit(vectors - means)


def _key_templates() -> np.ndarray:
    """(24, 12): the profile of each key, tonic by tonic."""
    keys = itertools.product(range(OCTAVE), KEY_PROFILES)
    rolled = [np.roll(profile, tonic) for tonic, profile in keys]
    return _standardized(np.array(rolled))


KEY_TEMPLATES = _key_templates()


# ---------------------------------------------------------------- words


def describe_sheet(sheet: np.ndarray, vocabulary: Vocabulary) -> str:
    """One line for musicians: "drums busy, bass 3 of 8 (rests now and then), A minor".

    `sheet` is (K_sheet,), or all (K,) controls of a note. What is unknown is left out.
    """
    values = sheet.astype(np.int64) - FIRST_VALUE
    column = key_column(vocabulary)
    of_parts = values[:column].reshape(-1, N_PART_FIELDS)
    words = [_describe_part(part.name, of_part)
             for part, of_part in zip(vocabulary.parts, of_parts, strict=True)]
    key = int(sheet[column])
    words.append("no key" if key == NONE else " ".join(key_name(key)).strip())
    return ", ".join(filter(None, words)) or "nothing said"


def _describe_part(name: str, values: np.ndarray) -> str:
    """What is known of a part, "" if nothing. `values` (5,) are ids less FIRST_VALUE."""
    if values[PLAYS] == NONE - FIRST_VALUE:
        return f"no {name}"
    how_dense = ""
    if values[DENSITY] >= 0:
        level = int(values[DENSITY]) + 1
        words = {named: word for word, named in DENSITY_WORDS.items()}
        how_dense = words.get(level, f"{level} of {N_DENSITIES}")
    elif values[PLAYS] >= 0:
        how_dense = "plays"
    more = []
    if values[RESTS] > 0:
        more.append(REST_WORDS[values[RESTS]])
    highest = len(RETURN_EDGES)
    gaps = [gap
            for column, gap in RETURN_GAPS.items()
            if values[column] == highest]
    if gaps:
        more.append(f"comes back every {gaps[0]} bars")
    if how_dense and more:
        return f"{name} {how_dense} ({', '.join(more)})"
    known = how_dense or " and ".join(more)
    return f"{name} {known}" if known else ""


def parse_levels(control: str, text: str) -> dict[str, str]:
    """The level of each part in a text such as "drums=busy,piano=3", as it was typed.

    `control` is a key of PART_CONTROLS. Raises UserError.
    """
    example = f"drums={next(iter(PART_CONTROLS[control].words))}"
    found: dict[str, str] = {}
    items = [item.strip() for item in text.split(",")]
    for item in filter(None, items):
        name, equals, level = (word.strip() for word in item.partition("="))
        where = f"{control} {item!r:.40}"
        if not equals or not name:
            raise UserError(f"{where}: give a part and its level, such as {example}")
        if name in found:
            raise UserError(f"{where}: {name} comes twice; name it once")
        found[name] = level
    if not found:
        raise UserError(f"{control} {text!r:.40}: names no part; give one, such as {example}")
    return found


def part_levels(control: str,
                typed: Mapping[str, str],
                vocabulary: Vocabulary) -> dict[str, int]:
    """Levels, from 1, of the parts in what `parse_levels` read.

    Raises UserError. The id of a level is FIRST_VALUE + level − 1.
    """
    _, n_levels, words, least, most = PART_CONTROLS[control]
    numbers = {str(level): level for level in range(1, n_levels + 1)}
    levels = words | numbers
    found: dict[str, int] = {}
    for name, text in typed.items():
        where = f"{control} '{name}={text}'"
        if name not in vocabulary.part_names:
            names = ", ".join(vocabulary.part_names)
            raise UserError(f"{where:.80}: no part {name!r:.40}; give one of {names}"
                            f"{suggestion(name, vocabulary.part_names)}")
        if control == "density" and text in ("0", "none"):
            raise UserError(f"{where}: a part that shall not play is left out of --make")
        level = text.casefold()
        if level not in levels:
            raise UserError(f"{where:.80}: the level must be {', '.join(words)}, or from 1 ({least}) to "
                            f"{n_levels} ({most}){suggestion(text, words)}")
        found[name] = levels[level]
    return found
