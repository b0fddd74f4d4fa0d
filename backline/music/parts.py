"""From a song's tracks to the parts of the vocabulary: who plays what, in which range and bars.

Every decision a person may want to take back is a field of `Choices`. Nothing here changes its
input.
"""

from __future__ import annotations

import fnmatch
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from backline.common.errors import UserError
from backline.music.bars import (
    Stretch,
    check_meters,
    check_notes,
    cut,
    four_quarter_stretches,
    is_four_quarters,
    meters,
)
from backline.music.choices import ALL, BY_OCTAVE, MOST_NOTES, NO_TRACK, PROGRAMS, SKIP, Choices
from backline.music.song import NO_NOTES, Song, Track
from backline.music.theory import OCTAVE
from backline.music.vocab import QUARTERS_PER_BAR, Part, Vocabulary

# Where notes of a song went, as reports count them.
NO_PART = "in tracks that play no part"
OUT_OF_RANGE = "outside their part's range"
OTHER_METERS = "in bars that are not four quarters long, or too few of these"
STRUCK_TWICE = "struck twice at once"

WHOLE_SONG = Stretch(0, None)


class Assignment(NamedTuple):
    """Who plays what."""

    notes: list[np.ndarray]  # per part (N, 3) onsets, ends and pitches
    tracks: dict[str, list[int]]  # by the part's name: indices into `song.tracks`
    why: dict[str, str]  # by the part's name, if tracks play it

    def left_out(self, song: Song) -> list[int]:
        """Indices of the tracks with notes that play no part."""
        used: set[int] = set().union(*self.tracks.values())
        return [i for i in _with_notes(song) if i not in used]


def nobody(vocabulary: Vocabulary) -> Assignment:
    """That of a song without notes."""
    notes = [NO_NOTES for _ in vocabulary.parts]
    return Assignment(notes, {name: [] for name in vocabulary.part_names}, {})


class Piece(NamedTuple):
    """A stretch of a song that fits into the vocabulary's bars."""

    first_bar: int
    parts: list[np.ndarray]  # per part (N, 3) notes, in ticks from the first bar on

    @property
    def n_notes(self) -> int:
        """Notes of all parts."""
        return sum(map(len, self.parts))


def _with_notes(song: Song) -> list[int]:
    return [i for i, track in enumerate(song.tracks) if len(track.notes)]


# ---------------------------------------------------------------- which track is which part


def assign_parts(song: Song,
                 vocabulary: Vocabulary,
                 wanted: Mapping[str, str] | None = None) -> Assignment:
    """Find which tracks play each part of the vocabulary.

    A part that is `wanted` from certain tracks takes those. Tracks that bear exactly a part's name
    fill it. A part without such a track: the first drum part takes every other drum track; any
    other part takes, of the tracks whose program it accepts, the one with the most notes.
    A track plays one part: of two that want it, the first gets it.
    """
    wanted = wanted or {}
    casting = _Casting(song)
    for name in vocabulary.part_names:
        which = wanted.get(name, "")
        if which and which not in (ALL, MOST_NOTES):
            asked = _asked_for(which, song)
            casting.give(name, asked, f"asked for: {which}")
    for name in vocabulary.part_names:
        named = [i for i in casting.free if song.tracks[i].name == name]
        if named and name not in casting.tracks and name not in wanted:
            casting.give(name, named, "named so")
    for part in vocabulary.parts:
        if part.name not in casting.tracks:
            default = ALL if part.is_drum else MOST_NOTES
            takes_all = wanted.get(part.name, default) == ALL
            others = set(vocabulary.part_names) - {part.name}
            found = [i
                     for i in casting.free
                     if _may_play(song.tracks[i], part, others)]
            why = "on the drum channel" if part.is_drum else "by program"
            if len(found) > 1 and not takes_all:
                why = f"{why}, most notes of {len(found)} tracks"
                found = [_most_notes(found, song)]
            casting.give(part.name, found, why)
    return casting.assignment(vocabulary)


class _Casting:
    """Tracks are given to one part after another."""

    def __init__(self, song: Song) -> None:
        self.song = song
        self.free = _with_notes(song)
        self.tracks: dict[str, list[int]] = {}
        self.why: dict[str, str] = {}

    def give(self, name: str, indices: list[int], why: str) -> None:
        """Let those of the tracks that are free play a part."""
        given = [i for i in indices if i in self.free]
        self.tracks[name] = given
        self.why[name] = why
        self.free = [i for i in self.free if i not in given]

    def assignment(self, vocabulary: Vocabulary) -> Assignment:
        """What was given, in the order of the vocabulary's parts."""
        tracks = {name: self.tracks[name] for name in vocabulary.part_names}
        why = {name: self.why[name]
               for name in vocabulary.part_names
               if tracks[name]}
        notes = [self._notes(indices) for indices in tracks.values()]
        return Assignment(notes, tracks, why)

    def _notes(self, indices: list[int]) -> np.ndarray:
        """(N, 3) notes of these tracks together."""
        notes = [self.song.tracks[i].notes for i in indices]
        if len(notes) == 1:
            return notes[0]
        return np.concatenate([NO_NOTES, *notes])


def _may_play(track: Track, part: Part, others: set[str]) -> bool:
    """Whether a track fits a part: by its name, or by kind and program if no other has its name."""
    if track.name == part.name:
        return True
    if track.name in others or track.is_drum != part.is_drum:
        return False
    return part.accepts_program(track.program)


def _asked_for(which: str, song: Song) -> list[int]:
    """Indices of the tracks that a person asked for; see `choices.OPTIONS`."""
    playing = _with_notes(song)
    if which == NO_TRACK:
        return []
    if which.startswith("#"):
        number = int(which[1:])
        return playing[number - 1:number]
    if programs := re.fullmatch(PROGRAMS, which):
        first = int(programs[1])
        last = int(programs[2] or first)
        melodic = [i for i in playing if not song.tracks[i].is_drum]
        found = [i for i in melodic if first <= song.tracks[i].program <= last]
        return [_most_notes(found, song)] if found else []
    pattern = which.casefold()
    names = {i: song.tracks[i].name.casefold() for i in playing}
    return [i
            for i, name in names.items()
            if fnmatch.fnmatchcase(name, pattern)]


def _most_notes(indices: Sequence[int], song: Song) -> int:
    """Of tracks with equally many notes always the same, whatever their order in the file."""
    def key(i: int) -> tuple:
        """The most notes first; then by what the track holds."""
        track = song.tracks[i]
        return -len(track.notes), track.program, track.name, track.notes.tobytes()

    return min(indices, key=key)


# ---------------------------------------------------------------- pitch ranges


def fit_range(notes: np.ndarray,
              part: Part,
              choices: Choices,
              where: str) -> tuple[np.ndarray, int]:
    """Bring (N, 3) notes of one part into its pitch range.

    Returns the notes and how many were left out. Raises UserError if the song is to be left out.
    """
    if choices.ranges == SKIP:  # parts_to_rows refuses notes out of range, and says where they are
        return notes, 0
    pitch = notes[:, 2]
    too_low = pitch < part.lowest_pitch
    too_high = pitch > part.highest_pitch
    is_outside = too_low | too_high
    n_outside = int(is_outside.sum())
    if not n_outside:
        return notes, 0
    if choices.ranges == BY_OCTAVE and not part.is_drum and part.n_pitches >= OCTAVE:
        octaves_up = -((pitch - part.lowest_pitch) // OCTAVE) * too_low
        octaves_down = -((part.highest_pitch - pitch) // OCTAVE) * too_high
        moved = notes.copy()
        moved[:, 2] += OCTAVE * (octaves_up - octaves_down)
        return moved, 0
    if n_outside > choices.max_lost * len(notes):
        raise UserError(f"{where}: {part.name} has too many notes outside pitches "
                        f"{part.lowest_pitch} to {part.highest_pitch} ({n_outside} of "
                        f"{len(notes)}); raise --max-lost to keep the song")
    return notes[~is_outside], n_outside


# ---------------------------------------------------------------- bars


def fit_bars(parts: list[np.ndarray],
             song: Song,
             vocabulary: Vocabulary,
             choices: Choices,
             where: str) -> list[Piece]:
    """Cut a song's parts into pieces that the vocabulary's bars hold; usually one, the song itself.

    Raises UserError if the song is to be left out. With `long_songs` skip a piece may be too long.
    """
    bar_ticks = QUARTERS_PER_BAR * song.ticks_per_quarter
    longest = vocabulary.bars * bar_ticks
    # A note this much before a bar line is rounded to it.
    early = (song.ticks_per_quarter - 1) // (2 * vocabulary.steps_per_quarter)
    if choices.cuts:
        parts = [_by_onset(notes) for notes in parts]
    pieces = []
    for stretch in _playable_stretches(song, choices, where):
        inside = parts if stretch == WHOLE_SONG else cut(parts, stretch, early)
        onsets = (int(notes[:, 0].max()) for notes in inside if len(notes))
        last_onset = max(onsets, default=0) + early
        if choices.long_songs == SKIP or last_onset < longest:
            pieces.append(Piece(stretch.start // bar_ticks, inside))
            continue
        for first in range(0, last_onset + 1, longest):
            first_bar = (stretch.start + first) // bar_ticks
            held = Stretch(first, first + longest)
            pieces.append(Piece(first_bar, cut(inside, held, early)))
    return [piece for piece in pieces if piece.n_notes]


def _by_onset(notes: np.ndarray) -> np.ndarray:
    order = np.argsort(notes[:, 0], kind="stable")
    return notes[order]


def _playable_stretches(song: Song, choices: Choices, where: str) -> list[Stretch]:
    """The stretches of a song in bars of four quarters.

    Raises UserError if the song is to be left out.
    """
    if choices.meters == SKIP:
        check_meters(song, where)
        return [WHOLE_SONG]
    if all(is_four_quarters(signature) for _, signature in meters(song)):
        return [WHOLE_SONG]
    stretches = four_quarter_stretches(song, choices.min_stretch_bars)
    if not stretches:
        raise UserError(f"{where}: no stretch of {choices.min_stretch_bars} bars of four quarters; "
                        f"lower --min-stretch-bars")
    return stretches


# ---------------------------------------------------------------- all of it


class Arranged(NamedTuple):
    """What became of a song: its pieces, and what a report says of the way."""

    pieces: list[Piece]
    lost: Counter[str]  # notes left out, by reason
    about_song: dict[str, Any]


def arrange(song: Song,
            vocabulary: Vocabulary,
            choices: Choices,
            where: str) -> Arranged:
    """Give the song's notes to the parts, within their ranges, and cut it where it must be.

    Raises UserError if the song is to be left out.
    """
    check_notes(song, where)
    assignment = assign_parts(song, vocabulary, dict(choices.tracks))
    names = ", ".join(vocabulary.part_names)
    if not any(assignment.tracks.values()):
        raise UserError(f"{where}: no track fills any of {names}; name the tracks so, set their "
                        f"programs, or choose with --part")
    lost: Counter[str] = Counter()
    parts = []
    for part, notes in zip(vocabulary.parts, assignment.notes, strict=True):
        fitted, n_outside = fit_range(notes, part, choices, where)
        parts.append(fitted)
        lost[OUT_OF_RANGE] += n_outside
    pieces = fit_bars(parts, song, vocabulary, choices, where)
    if not pieces:
        raise UserError(f"{where}: none of the notes of {names} is in range and in bars of four "
                        f"quarters; see --ranges, --max-lost and --meters")
    n_fitted = sum(len(notes) for notes in parts)
    n_in_pieces = sum(piece.n_notes for piece in pieces)
    lost[OTHER_METERS] = n_fitted - n_in_pieces
    left_out = assignment.left_out(song)
    tracks_left_out = [song.tracks[i] for i in left_out]
    lost[NO_PART] = sum(len(track.notes) for track in tracks_left_out)
    return Arranged(pieces, lost, describe_song(song, assignment))


def describe_song(song: Song, assignment: Assignment) -> dict[str, Any]:
    """What a report says of a song: its time line, who plays each part and why, who is left out.

    Tracks are numbered as --part does.
    """
    texts = {}
    for number, i in enumerate(_with_notes(song), 1):
        track = song.tracks[i]
        kind = "drums" if track.is_drum else f"program {track.program}"
        name = track.name or "unnamed"
        texts[i] = f"#{number} {name} ({kind}, {len(track.notes)} notes)"
    players = {}
    for part_name, indices in assignment.tracks.items():
        players[part_name] = [texts[i] for i in indices]
    about_song = {
        "ticks_per_quarter": song.ticks_per_quarter,
        "tempo": song.main_tempo(),
        "tempo_changes": max(len(song.tempos) - 1, 0),
        "parts": players,
        "why": assignment.why,
        "left_out": [texts[i] for i in assignment.left_out(song)],
    }
    if song.notices:
        about_song["notices"] = list(song.notices)
    return about_song
