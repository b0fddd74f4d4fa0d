"""From a song's tracks to the parts of the vocabulary: who plays what, in which range, in which bars.

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
from backline.music.bars import check_meters, check_notes, cut, four_quarter_stretches, is_four_quarters, meters
from backline.music.choices import ALL, BY_OCTAVE, MOST_NOTES, NONE, PROGRAMS, SKIP, Choices
from backline.music.song import NO_NOTES, Song
from backline.music.theory import OCTAVE
from backline.music.vocab import QUARTERS_PER_BAR, Part, Vocabulary

# Where notes of a song went, as reports count them.
NO_PART, OUT_OF_RANGE, OTHER_METERS = "in tracks that play no part", "outside their part's range", \
    "in bars that are not four quarters long, or too few of these"
STRUCK_TWICE = "struck twice at once"


class Assignment(NamedTuple):
    """Who plays what.

    `notes`: per part (N, 3) onsets, ends and pitches; `tracks` and `why` by the part's name.
    """

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


# ---------------------------------------------------------------- which track is which part


def assign_parts(song: Song, vocabulary: Vocabulary, wanted: Mapping[str, str] | None = None) -> Assignment:
    """Find which tracks play each part of the vocabulary.

    A part that is `wanted` from certain tracks takes those. Tracks that bear exactly a part's name
    fill it. A part without such a track: the first drum part takes every other drum track; any
    other part takes, of the tracks whose program it accepts, the one with the most notes. Tracks in
    no list are left out.
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

    Returns the notes and how many were left out. Raises UserError if the song is to be left out
    instead.
    """
    pitch = notes[:, 2]
    if choices.ranges == SKIP or not len(notes):  # parts_to_rows refuses such notes, and says where they are
        return notes, 0
    if part.lowest_pitch <= pitch.min() and pitch.max() <= part.highest_pitch:
        return notes, 0
    outside = (pitch < part.lowest_pitch) | (pitch > part.highest_pitch)
    if choices.ranges == BY_OCTAVE and not part.is_drum and part.n_pitches >= OCTAVE:
        up = -((pitch - part.lowest_pitch) // OCTAVE) * (pitch < part.lowest_pitch)
        down = -((part.highest_pitch - pitch) // OCTAVE) * (pitch > part.highest_pitch)
        moved = notes.copy()
        moved[:, 2] += OCTAVE * (up - down)
        return moved, 0
    lost = int(outside.sum())
    if lost > choices.max_lost * len(notes):
        raise UserError(f"{where}: {part.name} has too many notes outside pitches "
                        f"{part.lowest_pitch} to {part.highest_pitch} ({lost} of {len(notes)}); "
                        f"raise --max-lost to keep the song")
    return notes[~outside], lost


# ---------------------------------------------------------------- bars


def fit_bars(parts: list[np.ndarray], song: Song, vocabulary: Vocabulary, choices: Choices, where: str) -> list[Piece]:
    """Cut a song's parts into pieces that the vocabulary's bars hold; usually there is one, the song itself.

    Raises UserError if the song is to be left out instead. With `long_songs` skip a piece may be
    too long.
    """
    stretches: list[tuple[int, int | None]] = [(0, None)]
    if choices.meters == SKIP:
        check_meters(song, where)
    elif any(not is_four_quarters(signature) for _, _, signature in meters(song)):
        stretches = four_quarter_stretches(song, choices.min_stretch_bars)
        if not stretches:
            raise UserError(f"{where}: no stretch of {choices.min_stretch_bars} bars of four "
                            f"quarters; lower --min-stretch-bars")
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
    about_song: dict[str, Any]


def arrange(song: Song, vocabulary: Vocabulary, choices: Choices, where: str) -> Arranged:
    """Give the song's notes to the parts, within their ranges, and cut it where it must be.

    Raises UserError if the song is to be left out.
    """
    check_notes(song, where)
    assignment = assign_parts(song, vocabulary, dict(choices.tracks))
    if not any(assignment.tracks.values()):
        raise UserError(f"{where}: no track fills any of {', '.join(vocabulary.part_names)}; name "
                        f"the tracks so, set their programs, or choose with --part")
    lost: Counter[str] = Counter()
    parts = []
    for part, notes in zip(vocabulary.parts, assignment.notes, strict=True):
        fitted, outside = fit_range(notes, part, choices, where)
        parts.append(fitted)
        lost[OUT_OF_RANGE] += outside
    pieces = fit_bars(parts, song, vocabulary, choices, where)
    if not pieces:
        raise UserError(f"{where}: none of the notes of {', '.join(vocabulary.part_names)} is in "
                        f"range and in bars of four quarters; see --ranges, --max-lost and "
                        f"--meters")
    lost[OTHER_METERS] = sum(map(len, parts)) - sum(piece.n_notes for piece in pieces)
    lost[NO_PART] = sum(len(song.tracks[i].notes) for i in assignment.left_out(song))
    about_song = {"ticks_per_quarter": song.ticks_per_quarter, "tempo": song.main_tempo(),
             "tempo_changes": max(len(song.tempos) - 1, 0), **describe_tracks(song, assignment),
             **({"notices": list(song.notices)} if song.notices else {})}
    return Arranged(pieces, lost, about_song)


def describe_tracks(song: Song, assignment: Assignment) -> dict[str, Any]:
    """The tracks that play each part and why, and the tracks left out, numbered as --part does."""
    texts = {}
    for number, i in enumerate((i for i, track in enumerate(song.tracks) if len(track.notes)), 1):
        track = song.tracks[i]
        kind = "drums" if track.is_drum else f"program {track.program}"
        texts[i] = f"#{number} {track.name or 'unnamed'} ({kind}, {len(track.notes)} notes)"
    return {"parts": {name: [texts[i] for i in indices] for name, indices in assignment.tracks.items()},
            "why": assignment.why, "left_out": [texts[i] for i in assignment.left_out(song)]}
