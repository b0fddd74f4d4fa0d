"""From a song's tracks to the parts of the vocabulary: who plays what, in which range, in which bars.

Every decision a person may want to take back is a field of `Choices` and an option of the commands that use it.
Nothing here changes its input.
"""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from backline.common.errors import UserError
from backline.music.song import NO_NOTES, Song, TimeSignature
from backline.music.vocab import QUARTERS_PER_BAR, Part, Vocabulary

SKIP, DROP, OCTAVE, CUT = "skip", "drop", "octave", "cut"
RANGES = (DROP, OCTAVE, SKIP)
SEMITONES = 12
PROGRAMS = r"(\d+)(?:-(\d+))?"
MAX_PROGRAM = 127
ALL, MOST_NOTES, NONE = "all", "most-notes", "none"

# Where notes of a song went, as reports count them.
NO_PART, OUT_OF_RANGE, OTHER_METERS = "in tracks that play no part", "outside their part's range", \
    "in bars that are not four quarters long, or too few of these"
STRUCK_TWICE = "struck twice at once"

OPTIONS = """Which tracks play a part (--part NAME=TRACKS, once per part), in place of the rule in DATA.md:
  all, most-notes   all candidates by name and program joined, or the one with the most notes
  '*strings*'       tracks whose name fits this pattern, in any letter case, joined
  24-31 or 33       of the tracks with these programs (counted from 0), the one with the most notes
  '#3'              the third track with notes, as the report counts them
  none              no track
Notes outside a part's pitch range (--ranges):
  drop              leave them out, and the song if a part would lose more than --max-lost of its notes
  octave            move them into the range by octaves; drums as with drop
  skip              leave the song out, as the published system did"""


@dataclasses.dataclass(frozen=True)
class Choices:
    """How a song becomes the vocabulary's parts. The defaults are those of the published system."""

    tracks: tuple[tuple[str, str], ...] = ()  # (part, which tracks), see OPTIONS
    ranges: str = SKIP
    max_lost: float = 0.2  # largest share of a part's notes that may lie outside its range
    long_songs: str = SKIP  # or CUT: into several, at a bar line
    meters: str = SKIP  # or CUT: keep the stretches in bars of four quarters
    min_stretch_bars: int = 8  # shortest such stretch

    def __post_init__(self) -> None:
        if any(len(pair) != 2 for pair in self.tracks):
            raise UserError("tracks must be a list of [part, which tracks] pairs")
        for name, value, known in (("ranges", self.ranges, RANGES), ("long_songs", self.long_songs, (SKIP, CUT)),
                                   ("meters", self.meters, (SKIP, CUT))):
            if value not in known:
                raise UserError(f"{name} must be one of {', '.join(known)}, not {value!r}")
        if not 0 <= self.max_lost <= 1:
            raise UserError(f"max_lost {self.max_lost} must be a share from 0 to 1")
        if self.min_stretch_bars < 1:
            raise UserError(f"min_stretch_bars {self.min_stretch_bars}: at least 1")

    @property
    def cuts(self) -> bool:
        """Whether one file may become several songs."""
        return CUT in (self.long_songs, self.meters)


class Assignment(NamedTuple):
    """Who plays what. `notes`: per part (N, 3) onsets, ends and pitches; `tracks` and `why` by the part's name."""

    notes: list[np.ndarray]
    tracks: dict[str, list[int]]  # indices into `song.tracks`
    why: dict[str, str]

    def left_out(self, song: Song) -> list[int]:
        """Indices of the tracks with notes that play no part."""
        used = {i for indices in self.tracks.values() for i in indices}
        return [i for i, track in enumerate(song.tracks) if len(track.notes) and i not in used]


class Piece(NamedTuple):
    """A stretch of a song that fits into the vocabulary's bars: per part (N, 3) notes, ticks from its first bar on."""

    first_bar: int
    parts: list[np.ndarray]

    @property
    def n_notes(self) -> int:
        return sum(map(len, self.parts))


C = TypeVar("C", bound=Choices)


def add_options(parser: argparse.ArgumentParser, base: Choices) -> None:
    """An option for each field of `Choices`; `base` holds the command's defaults."""
    parser.add_argument("--part", action="append", metavar="NAME=TRACKS", dest="tracks",
                        help="which tracks play a part, see above; once for each part")
    parser.add_argument("--ranges", choices=RANGES,
                        help=f"what to do with notes outside a part's range, see above (default: {base.ranges})")
    parser.add_argument("--max-lost", type=float, metavar="SHARE",
                        help=f"largest share of a part's notes that --ranges drop or octave may leave out "
                             f"(default: {base.max_lost})")
    parser.add_argument("--long-songs", choices=(SKIP, CUT),
                        help=f"songs with more bars than the vocabulary: leave out, or cut into several at a bar line, "
                             f"NAME, NAME.part2, ... (default: {base.long_songs})")
    parser.add_argument("--meters", choices=(SKIP, CUT),
                        help=f"songs with bars that are not four quarters long: leave out, or keep their stretches of "
                             f"four quarters as songs (default: {base.meters})")
    parser.add_argument("--min-stretch-bars", type=int, metavar="BARS",
                        help=f"shortest stretch that --meters cut keeps (default: {base.min_stretch_bars})")


def choices_of(args: argparse.Namespace, base: C, vocabulary: Vocabulary) -> C:
    """`base` with the parsed options in place of its fields.

    Raises UserError for a value out of range, a part that the vocabulary lacks, tracks that mean nothing, or an
    option that another one leaves without effect.
    """
    given = {field.name: value for field in dataclasses.fields(Choices)
             if (value := getattr(args, field.name)) is not None}
    if "tracks" in given:
        asked = [tuple(text.partition("=")[::2]) for text in given["tracks"]]
        if len(dict(asked)) < len(asked):
            raise UserError("--part: the same part twice; give each once")
        given["tracks"] = tuple((dict(base.tracks) | dict(asked)).items())
    choices = dataclasses.replace(base, **given)
    if "max_lost" in given and choices.ranges == SKIP:
        raise UserError(f"--max-lost: has no effect with --ranges {SKIP}; give --ranges {DROP} or {OCTAVE}")
    if "min_stretch_bars" in given and choices.meters == SKIP:
        raise UserError(f"--min-stretch-bars: has no effect with --meters {SKIP}; give --meters {CUT}")
    for name, which in choices.tracks:
        if name not in vocabulary.part_names or not which:
            names = ", ".join(vocabulary.part_names)
            raise UserError(f"--part {name}={which}: must be NAME=TRACKS, NAME one of {names}")
        if which.startswith("#") and not (which[1:].isdecimal() and int(which[1:])):
            raise UserError(f"--part {name}={which}: must be a track's number, such as #3")
        if programs := re.fullmatch(PROGRAMS, which):
            first, last = int(programs[1]), int(programs[2] or programs[1])
            if not first <= last <= MAX_PROGRAM:
                raise UserError(f"--part {name}={which}: programs go from 0 to {MAX_PROGRAM}, the lower one first")
    return choices


# ---------------------------------------------------------------- which track is which part


def assign_parts(song: Song, vocabulary: Vocabulary, wanted: Mapping[str, str] | None = None) -> Assignment:
    """Find which tracks play each part of the vocabulary.

    A part that is `wanted` from certain tracks takes those. Tracks that bear exactly a part's name fill it. A part
    without such a track: the first drum part takes every other drum track; any other part takes, of the tracks
    whose program it accepts, the one with the most notes. Tracks in no list are left out.
    """
    wanted = wanted or {}
    free = [i for i, track in enumerate(song.tracks) if len(track.notes)]
    playing = list(free)
    chosen: dict[str, list[int]] = {}
    why: dict[str, str] = {}
    for name in vocabulary.part_names:
        which = wanted.get(name, "")
        if which and which not in (ALL, MOST_NOTES):  # of two parts that ask for a track, the first gets it
            chosen[name], why[name] = [i for i in _asked_for(which, song, playing) if i in free], f"asked for: {which}"
            free = [i for i in free if i not in chosen[name]]
    for name in vocabulary.part_names:
        named = [i for i in free if song.tracks[i].name == name]
        if named and name not in chosen and name not in wanted:
            chosen[name], why[name] = named, "named so"
            free = [i for i in free if i not in named]
    for part in vocabulary.parts:
        if part.name in chosen:
            continue
        others = set(vocabulary.part_names) - {part.name}
        found = [i for i in free if song.tracks[i].name == part.name
                 or (song.tracks[i].name not in others and song.tracks[i].is_drum == part.is_drum
                     and part.accepts_program(song.tracks[i].program))]
        joined = wanted.get(part.name, ALL if part.is_drum else MOST_NOTES) == ALL
        chosen[part.name] = found if joined or len(found) < 2 else [_most_notes(found, song)]
        kind = "on the drum channel" if part.is_drum else "by program"
        why[part.name] = kind if joined or len(found) < 2 else f"{kind}, most notes of {len(found)} tracks"
        free = [i for i in free if i not in chosen[part.name]]
    notes = [_joined([song.tracks[i].notes for i in chosen[part.name]]) for part in vocabulary.parts]
    return Assignment(notes, {name: chosen[name] for name in vocabulary.part_names},
                      {name: why[name] for name in vocabulary.part_names if chosen[name]})


def _asked_for(which: str, song: Song, playing: list[int]) -> list[int]:
    if which == NONE:
        return []
    if which.startswith("#"):
        return playing[int(which[1:]) - 1:int(which[1:])]
    if programs := re.fullmatch(PROGRAMS, which):
        first, last = int(programs[1]), int(programs[2] or programs[1])
        found = [i for i in playing if first <= song.tracks[i].program <= last and not song.tracks[i].is_drum]
        return [_most_notes(found, song)] if found else []
    return [i for i in playing if fnmatch.fnmatchcase(song.tracks[i].name.casefold(), which.casefold())]


def _most_notes(indices: Sequence[int], song: Song) -> int:
    """Of tracks with equally many notes always the same, whatever their order in the file."""
    def key(i: int) -> tuple:
        track = song.tracks[i]
        return -len(track.notes), track.program, track.name, track.notes.tobytes()

    return min(indices, key=key)


def _joined(tracks: list[np.ndarray]) -> np.ndarray:
    return tracks[0] if len(tracks) == 1 else np.concatenate([NO_NOTES, *tracks])


# ---------------------------------------------------------------- pitch ranges


def fit_range(notes: np.ndarray, part: Part, choices: Choices, where: str) -> tuple[np.ndarray, int]:
    """Bring (N, 3) notes of one part into its pitch range.

    Returns the notes and how many were left out. Raises UserError if the song is to be left out instead.
    """
    pitch = notes[:, 2]
    if choices.ranges == SKIP or not len(notes):  # parts_to_rows refuses such notes, and says where they are
        return notes, 0
    if part.lowest_pitch <= pitch.min() and pitch.max() <= part.highest_pitch:
        return notes, 0
    outside = (pitch < part.lowest_pitch) | (pitch > part.highest_pitch)
    if choices.ranges == OCTAVE and not part.is_drum and part.n_pitches >= SEMITONES:
        up = -((pitch - part.lowest_pitch) // SEMITONES) * (pitch < part.lowest_pitch)
        down = -((part.highest_pitch - pitch) // SEMITONES) * (pitch > part.highest_pitch)
        moved = notes.copy()
        moved[:, 2] += SEMITONES * (up - down)
        return moved, 0
    lost = int(outside.sum())
    if lost > choices.max_lost * len(notes):
        raise UserError(f"{where}: {part.name} has too many notes outside pitches {part.lowest_pitch} to "
                        f"{part.highest_pitch} ({lost} of {len(notes)}); raise --max-lost to keep the song")
    return notes[~outside], lost


# ---------------------------------------------------------------- bars


def quantize_onsets(ticks: np.ndarray, ticks_per_quarter: int, steps_per_quarter: int) -> np.ndarray:
    """Nearest step of each onset, a tie going down: ceil(steps − 1/2), on exact integers."""
    return -((ticks_per_quarter - 2 * steps_per_quarter * ticks) // (2 * ticks_per_quarter))


def quantize_durations(ticks: np.ndarray, ticks_per_quarter: int, steps_per_quarter: int, longest: int) -> np.ndarray:
    """Nearest number of steps, a tie going down, from 1 to `longest`."""
    return np.clip(quantize_onsets(ticks, ticks_per_quarter, steps_per_quarter), 1, longest)


def meters(song: Song) -> list[tuple[int, int | None, TimeSignature]]:
    """(first tick, tick after the last or None, time signature) of each stretch; 4/4 where the file says nothing.

    Of several signatures at one tick the last holds.
    """
    signatures = {0: TimeSignature(0, QUARTERS_PER_BAR, 4), **{each.tick: each for each in song.time_signatures}}
    ticks = sorted(signatures)
    return [(tick, until, signatures[tick]) for tick, until in zip(ticks, [*ticks[1:], None], strict=True)]


def check_meters(song: Song, where: str) -> None:
    """Raise UserError if a bar is not four quarters long, with music in or after it."""
    last_onset = song.last_onset_tick  # looks at every note
    for tick, _, signature in meters(song):
        if not _is_four_quarters(signature) and tick <= last_onset:
            bar = tick // (QUARTERS_PER_BAR * song.ticks_per_quarter)
            raise UserError(f"{where}: bar {bar} is in {signature.numerator}/{signature.denominator} (bars count from "
                            f"0); only bars of four quarters can be represented: cut the song to its 4/4 part, or let "
                            f"tokenizer.py --meters cut do it")


def check_notes(song: Song, where: str) -> None:
    """Raise UserError if there are none."""
    if not any(len(track.notes) for track in song.tracks):
        raise UserError(f"{where}: has no notes; export it again with some")


def check_playable(song: Song, where: str) -> None:
    """Raise UserError if there are no notes, or a bar that is not four quarters long with music in or after it."""
    check_notes(song, where)
    check_meters(song, where)


def _is_four_quarters(signature: TimeSignature) -> bool:
    return signature.numerator * 4 == QUARTERS_PER_BAR * signature.denominator


def four_quarter_stretches(song: Song, min_bars: int) -> list[tuple[int, int | None]]:
    """First tick, and tick after the last (None: the end), of each stretch of at least `min_bars` four-quarter bars."""
    joined: list[list[int | None]] = []
    for tick, until, signature in meters(song):
        if not _is_four_quarters(signature):
            continue
        if joined and joined[-1][1] == tick:
            joined[-1][1] = until
        else:
            joined.append([tick, until])
    end = song.last_onset_tick + 1
    bar = QUARTERS_PER_BAR * song.ticks_per_quarter
    return [(start, until) for start, until in joined
            if -(-(min(end, until or end) - start) // bar) >= min_bars]


def cut(parts: list[np.ndarray], start: int, end: int | None, early: int) -> list[np.ndarray]:
    """The notes of each part that begin from tick `start` to `end`, counted from `start`; none sounds past `end`.

    `parts` are sorted by onset: a look at every note for each of many stretches would take time quadratic in the file.
    A note up to `early` ticks before a bar line belongs to the bar that it is rounded to.
    """
    result = []
    for notes in parts:
        onset = notes[:, 0]
        first = np.searchsorted(onset, start - early)
        last = len(notes) if end is None else np.searchsorted(onset, end - early)
        moved = notes[first:last] - np.array([start, start, 0])
        moved[:, :2] = np.clip(moved[:, :2], 0, None if end is None else end - start)
        result.append(moved)
    return result


def fit_bars(parts: list[np.ndarray], song: Song, vocabulary: Vocabulary, choices: Choices, where: str) -> list[Piece]:
    """Cut a song's parts into pieces that the vocabulary's bars hold; usually there is one, the song itself.

    Raises UserError if the song is to be left out instead. With `long_songs` skip a piece may be too long.
    """
    stretches: list[tuple[int, int | None]] = [(0, None)]
    if choices.meters == SKIP:
        check_meters(song, where)
    elif any(not _is_four_quarters(signature) for _, _, signature in meters(song)):
        stretches = four_quarter_stretches(song, choices.min_stretch_bars)
        if not stretches:
            raise UserError(f"{where}: no stretch of {choices.min_stretch_bars} bars of four quarters; lower "
                            f"--min-stretch-bars")
    bar = QUARTERS_PER_BAR * song.ticks_per_quarter
    longest = vocabulary.bars * bar
    early = (song.ticks_per_quarter - 1) // (2 * vocabulary.steps_per_quarter)
    pieces = []
    if choices.cuts:
        parts = [notes[np.argsort(notes[:, 0], kind="stable")] for notes in parts]
    for start, until in stretches:
        stretch = parts if (start, until) == (0, None) else cut(parts, start, until, early)
        last = max((int(notes[:, 0].max()) for notes in stretch if len(notes)), default=0)
        if choices.long_songs == SKIP or last + early < longest:
            pieces.append(Piece(start // bar, stretch))
        else:
            pieces += [Piece((start + first) // bar, cut(stretch, first, first + longest, early))
                       for first in range(0, last + early + 1, longest)]
    return [piece for piece in pieces if piece.n_notes]


# ---------------------------------------------------------------- all of it


class Arranged(NamedTuple):
    """What became of a song: its pieces, and what a report says of the way."""

    pieces: list[Piece]
    lost: Counter[str]  # notes left out, by reason
    facts: dict[str, Any]


def arrange(song: Song, vocabulary: Vocabulary, choices: Choices, where: str) -> Arranged:
    """Give the song's notes to the parts, within their ranges, and cut it where it must be.

    Raises UserError if the song is to be left out.
    """
    check_notes(song, where)
    assignment = assign_parts(song, vocabulary, dict(choices.tracks))
    if not any(assignment.tracks.values()):
        raise UserError(f"{where}: no track fills any of {', '.join(vocabulary.part_names)}; name the tracks so, set "
                        f"their programs, or choose with --part")
    lost: Counter[str] = Counter()
    parts = []
    for part, notes in zip(vocabulary.parts, assignment.notes, strict=True):
        fitted, outside = fit_range(notes, part, choices, where)
        parts.append(fitted)
        lost[OUT_OF_RANGE] += outside
    pieces = fit_bars(parts, song, vocabulary, choices, where)
    if not pieces:
        raise UserError(f"{where}: none of the notes of {', '.join(vocabulary.part_names)} is in range and in bars of "
                        f"four quarters; see --ranges, --max-lost and --meters")
    lost[OTHER_METERS] = sum(map(len, parts)) - sum(piece.n_notes for piece in pieces)
    lost[NO_PART] = sum(len(song.tracks[i].notes) for i in assignment.left_out(song))
    facts = {"ticks_per_quarter": song.ticks_per_quarter, "tempo": song.main_tempo(),
             "tempo_changes": max(len(song.tempos) - 1, 0), **describe_tracks(song, assignment),
             **({"notices": list(song.notices)} if song.notices else {})}
    return Arranged(pieces, lost, facts)


def describe_tracks(song: Song, assignment: Assignment) -> dict[str, Any]:
    """The tracks that play each part and why, and the tracks left out, numbered as --part does."""
    texts = {}
    for number, i in enumerate((i for i, track in enumerate(song.tracks) if len(track.notes)), 1):
        track = song.tracks[i]
        kind = "drums" if track.is_drum else f"program {track.program}"
        texts[i] = f"#{number} {track.name or 'unnamed'} ({kind}, {len(track.notes)} notes)"
    return {"parts": {name: [texts[i] for i in indices] for name, indices in assignment.tracks.items()},
            "why": assignment.why, "left_out": [texts[i] for i in assignment.left_out(song)]}
