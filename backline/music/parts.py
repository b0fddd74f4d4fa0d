"""From a song's tracks to the parts of the vocabulary, in their ranges and bars.

Every decision a person may want to take back is a field of `Choices`. Nothing here changes its
input.
"""

from __future__ import annotations

from collections import Counter
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
from backline.music.casting import Assignment, assign_parts, check_clear, track_texts
from backline.music.choices import BY_OCTAVE, SKIP, Choices
from backline.music.percussion import split_song
from backline.music.song import Song
from backline.music.theory import OCTAVE
from backline.music.vocab import QUARTERS_PER_BAR, Part, Vocabulary

# Where notes of a song went, as reports count them.
NO_PART = "in tracks that play no part"
OUT_OF_RANGE = "outside their part's range"
OTHER_METERS = "in bars that are not four quarters long, or too few of these"
STRUCK_TWICE = "struck twice at once"

WHOLE_SONG = Stretch(0, None)


class Piece(NamedTuple):
    """A stretch of a song that fits into the vocabulary's bars."""

    first_bar: int
    parts: list[np.ndarray]  # per part (N, 3) notes, in ticks from the first bar on

    @property
    def n_notes(self) -> int:
        """Notes of all parts."""
        return sum(map(len, self.parts))


# ---------------------------------------------------------------- pitch ranges


LOWEST_NOTE = 16  # E0, an octave below a bass's lowest string


def without_switches(notes: np.ndarray, part: Part) -> np.ndarray:
    """(N, 3) notes of a part without key switches, the low notes that choose how a sampler plays.

    If all notes are that low, they are notes. Drums have no key switches.
    """
    is_note = notes[:, 2] >= LOWEST_NOTE
    return notes[is_note] if is_note.any() and not part.is_drum else notes


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

    Raises UserError if the song is to be left out. With `long_songs` skip, a piece may be too long.
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
    """What became of a song: its pieces, and what the report says about it."""

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
    song = split_song(song, vocabulary)
    assignment = assign_parts(song, vocabulary, dict(choices.tracks), choices.join, where)
    check_clear(song, assignment, vocabulary.part_names, where)
    names = ", ".join(vocabulary.part_names)
    if not any(assignment.tracks.values()):
        raise UserError(f"{where}: no track fills any of {names}; name the tracks so, set their "
                        f"programs, or choose with --part")
    lost: Counter[str] = Counter()
    parts = []
    for part, notes in zip(vocabulary.parts, assignment.notes, strict=True):
        played = notes if choices.ranges == SKIP else without_switches(notes, part)
        fitted, _ = fit_range(played, part, choices, where)
        parts.append(fitted)
        lost[OUT_OF_RANGE] += len(notes) - len(fitted)
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
    """What the report says of a song: its time line, who plays each part and why, who is left out.

    Tracks are numbered as --part does.
    """
    texts = track_texts(song)
    players = {}
    for part_name, indices in assignment.tracks.items():
        players[part_name] = [texts[i] for i in indices if i in texts]
    about_song = {
        "ticks_per_quarter": song.ticks_per_quarter,
        "tempo": song.main_tempo(),
        "tempo_changes": max(len(song.tempos) - 1, 0),
        "parts": players,
        "why": assignment.why,
        "left_out": [texts[i] for i in assignment.left_out(song) if i in texts],
    }
    if song.notices:
        about_song["notices"] = list(song.notices)
    return about_song
