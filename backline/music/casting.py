"""Who plays what: which tracks of a song play each part of the vocabulary.

The first of these that tells decides: a person's word, a name, the drum channel, the program, how a
track is played. A wrong guess is worse than a question.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import NamedTuple

import numpy as np

from backline.common.errors import UserError
from backline.music.choices import ALL, CHANNEL, MOST_NOTES, NO_TRACK, PROGRAMS
from backline.music.playing import BASS, DRUMS, LONGEST_DRUM, play_like, plays_like
from backline.music.roles import names_click, names_other_instrument, parts_named
from backline.music.song import NO_NOTES, Song, Track
from backline.music.vocab import Part, Vocabulary

# What tells that a track plays a part, for reports.
NAMED_SO, BY_NAME, BY_PROGRAM, AS_PLAYED = "named so", "by name", "by program", "as played"
ON_DRUM_CHANNEL = "on the drum channel"
FAMILY = 8  # programs of General MIDI: pianos, organs, guitars and so on
MOST_LISTED = 6  # tracks that a question names
LONGEST_NAME = 40  # of a track in a message
MOST_CHANNELS = 2  # with one name that may name a part; a title stands on more of them
BASS_HIGHEST = 60  # median pitch: a track above it is never taken for a bass


class Assignment(NamedTuple):
    """Who plays what.

    questions: by the part's name, the tracks that may play it where none clearly does.
    """

    notes: list[np.ndarray]  # per part (N, 3) onsets, ends and pitches
    tracks: dict[str, list[int]]  # by the part's name: indices into `song.tracks`
    why: dict[str, str]  # by the part's name, if tracks play it
    questions: dict[str, list[int]]

    def left_out(self, song: Song) -> list[int]:
        """Indices of the tracks with notes that play no part."""
        used: set[int] = set().union(*self.tracks.values())
        return [i for i in with_notes(song) if i not in used]


def nobody(vocabulary: Vocabulary) -> Assignment:
    """The assignment of a song without notes."""
    notes = [NO_NOTES for _ in vocabulary.parts]
    return Assignment(notes, {name: [] for name in vocabulary.part_names}, {}, {})


def assign_parts(song: Song,
                 vocabulary: Vocabulary,
                 wanted: Mapping[str, str] | None = None,
                 join: bool = False,
                 file_name: str = "") -> Assignment:
    """Find which tracks play each part of the vocabulary.

    A part that is `wanted` from certain tracks takes those; else those that the file itself names
    (see `players.py`). Any other part takes the first of these that exists: tracks with exactly its
    name; tracks with a word for it in their names; tracks with a program that it accepts; the track
    that is played like it. The first drum part takes all of them together, and every track on the
    drum channel. Any other part takes, of several tracks, the one with the most notes; with `join`,
    all that bear its name or share the leading track's family of programs.

    Where a single track plays and its name says nothing, the file's name counts as its name. A
    track plays one part: of two parts that want it, the first gets it.
    """
    wanted = wanted or {}
    casting = _Casting(song, vocabulary, file_name)
    for part in vocabulary.parts:
        which = wanted.get(part.name, "")
        if which and which not in (ALL, MOST_NOTES):
            asked = _asked_for(which, song)
            casting.give(part, asked, f"asked for: {which}")
        elif part.name in song.players and not which:
            casting.give(part, list(song.players[part.name]), "the file says so")
    for part in vocabulary.parts:
        if part.name in casting.tracks:
            continue
        how = wanted.get(part.name, "")
        found, why = casting.candidates(part, how, join)
        if how == MOST_NOTES:
            found, why = casting.with_most_notes(found, why)
        casting.give(part, found, why)
    return casting.assignment(wanted)


class _Casting:
    """Gives tracks to one part after another."""

    def __init__(self, song: Song, vocabulary: Vocabulary, file_name: str) -> None:
        self.song = song
        self.vocabulary = vocabulary
        self.free = with_notes(song)
        self.tracks: dict[str, list[int]] = {}
        self.why: dict[str, str] = {}
        self.drum_parts = [part.name for part in vocabulary.parts if part.is_drum]
        self.drum_part = self.drum_parts[0] if self.drum_parts else ""
        self.clicks = {i for i in self.free if self._is_click(i)}
        self.meanings = {i: self._meanings(i) for i in self.free}
        if len(self.free) == 1 and not self.meanings[self.free[0]]:
            named = parts_named(PurePath(file_name).stem, vocabulary)
            self.meanings[self.free[0]] = self._without_contradiction(self.free[0], named)
        unknown = {i: self._notes(one_instrument(i, song))
                   for i in self.free
                   if self._says_nothing(i) and i == one_instrument(i, song)[0]}
        self.likes = play_like(unknown, song.ticks_per_quarter)

    def _is_click(self, i: int) -> bool:
        """Whether a track is a metronome's by its name, and is not played like a kit."""
        track = self.song.tracks[i]
        if not names_click(track.name, self.vocabulary) or self._names_several(i):
            return False
        return plays_like(track.notes, self.song.ticks_per_quarter) != DRUMS

    def _names_several(self, i: int) -> bool:
        """Whether several channels share a track's name, as they do if it is the song's title."""
        track = self.song.tracks[i]
        sharing = [other
                   for other in self.song.tracks
                   if other.name == track.name and not (track.spread == other.spread >= 0)]
        channels = {other.channel for other in sharing}
        kinds = {other.is_drum for other in sharing}
        return track.shares_name or len(channels) > MOST_CHANNELS or len(kinds) > 1

    def _meanings(self, i: int) -> frozenset[str]:
        """The parts that a track's name may mean; none if several channels share the name."""
        track = self.song.tracks[i]
        if track.name in self.vocabulary.part_names and not track.shares_name:
            return frozenset([track.name])
        if self._names_several(i):
            return frozenset()
        return self._without_contradiction(i, parts_named(track.name, self.vocabulary))

    def _without_contradiction(self, i: int, named: frozenset[str]) -> frozenset[str]:
        """What a name may mean, given the track's channel and how it is played.

        On the drum channel, "Bass" mostly means the bass drum.
        """
        track = self.song.tracks[i]
        if not named or (len(named) == 1 and not track.is_drum):
            return named
        notes = self._notes(one_instrument(i, self.song))
        like = plays_like(notes, self.song.ticks_per_quarter)
        as_played = self._part_played_like(like)
        if as_played in named:
            return frozenset([as_played])
        if track.is_drum:
            drums = named.intersection(self.drum_parts)
            return drums if len(drums) == 1 else frozenset()
        by_program = [part.name
                      for part in self.vocabulary.parts
                      if part.name in named and self._accepts(part, track)]
        return frozenset(by_program) if len(by_program) == 1 else named

    def _part_played_like(self, like: str | None) -> str:
        """The part that is played like this; "" if the vocabulary has none."""
        if like is None:
            return ""
        if like == DRUMS:
            return self.drum_part
        named = parts_named(like, self.vocabulary)
        return next(iter(named)) if len(named) == 1 else ""

    def _says_nothing(self, i: int) -> bool:
        """Whether neither name, channel nor program tells what a track plays."""
        track = self.song.tracks[i]
        has_meaning = len(self.meanings[i]) == 1 or track.is_drum or track.has_program
        is_other = not track.shares_name and names_other_instrument(track.name, self.vocabulary)
        return not has_meaning and not is_other and i not in self.clicks

    @staticmethod
    def _accepts(part: Part, track: Track) -> bool:
        """Whether a part accepts a track by its kind and the program that it names."""
        is_known = track.is_drum or track.has_program
        return is_known and track.is_drum == part.is_drum and part.accepts_program(track.program)

    def candidates(self, part: Part, how: str, join: bool) -> tuple[list[int], str]:
        """The tracks that play a part, and why. `how`: `ALL`, `MOST_NOTES`, or "" for the rule."""
        ways = self._ways(part)
        if not ways:
            return [], ""
        if part.is_drum or how == ALL:
            return self._all_of(part, ways)
        if join:
            return self._joined(ways)
        why, found = next(iter(ways.items()))
        if why == BY_NAME:
            agreeing = [i for i in found if self._accepts(part, self.song.tracks[i])]
            found = agreeing or found
        if why != NAMED_SO and how != MOST_NOTES:
            found, why = self.with_most_notes(found, why)
        return found, why

    def _ways(self, part: Part) -> dict[str, list[int]]:
        """Tracks that may play a part, by what tells so; the first way counts most."""
        named = self._named(part)
        exactly = [i for i in named if self.song.tracks[i].name == part.name]
        accepted = [i
                    for i in self.free
                    if not self.meanings[i] and i not in self.clicks
                    and self._accepts(part, self.song.tracks[i])]
        played = [i
                  for i in self.free
                  if self._part_played_like(self._like(i)) == part.name]
        ways = {
            NAMED_SO: exactly,
            BY_NAME: named,
            ON_DRUM_CHANNEL if part.is_drum else BY_PROGRAM: accepted,
            AS_PLAYED: played,
        }
        return {why: found for why, found in ways.items() if found}

    def _all_of(self, part: Part, ways: dict[str, list[int]]) -> tuple[list[int], str]:
        """All tracks that may play a part, and why."""
        together = sorted(set().union(*ways.values()))
        why = next(iter(ways))
        on_channel = all(self.song.tracks[i].is_drum for i in together)
        if part.is_drum and on_channel and why != NAMED_SO:
            why = ON_DRUM_CHANNEL
        return together, why

    def _joined(self, ways: dict[str, list[int]]) -> tuple[list[int], str]:
        """All tracks that bear a part's name; without one, those of one family of programs."""
        why = BY_NAME if BY_NAME in ways else next(iter(ways))
        found = ways[why]
        if why == BY_PROGRAM:
            found = self._one_family(found)
        return found, why

    def with_most_notes(self, found: list[int], why: str) -> tuple[list[int], str]:
        """The tracks of the instrument with the most notes, of several, and why."""
        n_instruments = len({one_instrument(i, self.song)[0] for i in found})
        if n_instruments < 2:
            return found, why
        leading = most_notes(found, self.song)
        return one_instrument(leading, self.song), f"{why}, most notes of {n_instruments} tracks"

    def _like(self, i: int) -> str | None:
        """How a track is played, if nothing else tells what it plays."""
        return self.likes.get(one_instrument(i, self.song)[0])

    def _named(self, part: Part) -> list[int]:
        """The tracks that bear a part's name, or a word for it.

        If some tracks are on the drum channel, another one that names a program is drums only if it
        is played like drums: "Perc Line" may be a marimba.
        """
        named = [i for i in self.free if self.meanings[i] == {part.name}]
        tracks = self.song.tracks
        if not part.is_drum or not any(tracks[i].is_drum for i in self.free):
            return named
        return [i
                for i in named
                if tracks[i].is_drum
                or not tracks[i].has_program
                or tracks[i].name == part.name
                or plays_like(tracks[i].notes, self.song.ticks_per_quarter) == DRUMS]

    def _one_family(self, indices: list[int]) -> list[int]:
        """The track with the most notes of these, and all others of its family of programs."""
        leading = self.song.tracks[most_notes(indices, self.song)]
        return [i
                for i in indices
                if self.song.tracks[i].program // FAMILY == leading.program // FAMILY]

    def give(self, part: Part, indices: list[int], why: str) -> None:
        """Give a part those of the tracks that are free."""
        given = [i for i in indices if i in self.free]
        self.tracks[part.name] = given
        self.why[part.name] = why
        self.free = [i for i in self.free if i not in given]

    def assignment(self, wanted: Mapping[str, str]) -> Assignment:
        """Who plays what, in the order of the vocabulary's parts."""
        names = self.vocabulary.part_names
        tracks = {name: self.tracks[name] for name in names}
        why = {name: self.why[name]
               for name in names
               if tracks[name]}
        notes = [self._notes(indices) for indices in tracks.values()]
        return Assignment(notes, tracks, why, self._questions(wanted))

    def _questions(self, wanted: Mapping[str, str]) -> dict[str, list[int]]:
        questions = {}
        for part in self.vocabulary.parts:
            is_said = part.name in wanted or part.name in self.song.players
            if self.tracks[part.name] or is_said:
                continue
            found = [i
                     for i in self.free
                     if i == one_instrument(i, self.song)[0] and self._may_play(i, part)]
            if found:
                questions[part.name] = found
        return questions

    def _may_play(self, i: int, part: Part) -> bool:
        """Whether a track that nothing clearly assigns may play a part."""
        if self.meanings[i] or not self._says_nothing(i):
            return part.name in self.meanings[i]
        onset, end, pitch = self._notes(one_instrument(i, self.song)).T
        if part.is_drum:
            if part.name != self.drum_part or self.song.tracks[i].spread >= 0:
                return False
            longest = LONGEST_DRUM * self.song.ticks_per_quarter
            is_short = np.median(end - onset) <= longest
            return bool(is_short) and part.lowest_pitch <= np.median(pitch) <= part.highest_pitch
        is_bass = part.name == self._part_played_like(BASS)
        return not is_bass or bool(np.median(pitch) <= BASS_HIGHEST)

    def _notes(self, indices: list[int]) -> np.ndarray:
        """(N, 3) notes of these tracks together."""
        notes = [self.song.tracks[i].notes for i in indices]
        if len(notes) == 1:
            return notes[0]
        return np.concatenate([NO_NOTES, *notes])


def check_clear(song: Song,
                assignment: Assignment,
                needed: Iterable[str],
                where: str) -> None:
    """Raise UserError if some tracks may play a part that is needed, but none clearly does.

    The message lists them, and the option that settles it.
    """
    texts = track_texts(song, LONGEST_NAME)
    numbers = list(texts)
    for name in needed:
        indices = assignment.questions.get(name)
        if indices:
            tracks = ", ".join(texts[i] for i in indices[:MOST_LISTED])
            if len(indices) > MOST_LISTED:
                tracks += f" and {len(indices) - MOST_LISTED} more"
            number = numbers.index(indices[0]) + 1
            raise UserError(f"{where}: which track plays the {name} is not clear: {tracks}; say so "
                            f"with --part '{name}=#{number}', or --part {name}={NO_TRACK}")


def with_notes(song: Song) -> list[int]:
    """Indices of the tracks that play."""
    return [i for i, track in enumerate(song.tracks) if len(track.notes)]


def one_instrument(i: int, song: Song) -> list[int]:
    """Indices of the tracks that play the instrument of track `i`: itself, unless it is spread."""
    spread = song.tracks[i].spread
    if spread < 0:
        return [i]
    return [j for j, track in enumerate(song.tracks) if track.spread == spread]


def instruments(song: Song) -> list[int]:
    """Indices of the tracks that play; of an instrument that is spread over several, the first."""
    return [i for i in with_notes(song) if i == one_instrument(i, song)[0]]


def track_texts(song: Song, longest: int = 0) -> dict[int, str]:
    """A text for each instrument, by the index of its first track, numbered as --part does.

    `longest`: characters of a name; longer ones are cut. 0: whole names.
    """
    texts = {}
    for number, i in enumerate(instruments(song), 1):
        together = one_instrument(i, song)
        n_notes = sum(len(song.tracks[j].notes) for j in together)
        track = song.tracks[i]
        kind = "drums" if track.is_drum else f"program {track.program}"
        if not track.is_drum and not track.has_program:
            kind = "no program"
        name = track.name or "unnamed"
        if longest and len(name) > longest:
            name = name[:longest - 1] + "…"
        if len(together) > 1:
            kind = f"{len(together)} channels, {kind}"
        texts[i] = f"#{number} {name} ({kind}, {n_notes} notes)"
    return texts


def most_notes(indices: Sequence[int], song: Song) -> int:
    """The track with the most notes; ties are broken by content, not by order in the file."""
    def key(i: int) -> tuple:
        """The most notes first; then by what the track holds."""
        track = song.tracks[i]
        n_notes = sum(len(song.tracks[j].notes) for j in one_instrument(i, song))
        return -n_notes, track.program, track.name, track.notes.tobytes()

    return min(indices, key=key)


def _asked_for(which: str, song: Song) -> list[int]:
    """Indices of the tracks that a person asked for, whole instruments; see `choices.OPTIONS`."""
    found = _tracks_meant(which, song)
    whole = {j for i in found for j in one_instrument(i, song)}
    return sorted(whole)


def _tracks_meant(which: str, song: Song) -> list[int]:
    """Indices of the tracks that a person's words fit."""
    playing = with_notes(song)
    if which == NO_TRACK:
        return []
    pattern = which.casefold()
    names = {i: song.tracks[i].name.casefold() for i in playing}
    if named := [i for i, name in names.items() if name == pattern]:
        return named
    if which.startswith("#"):
        number = int(which[1:])
        return instruments(song)[number - 1:number]
    if channel := re.fullmatch(CHANNEL, pattern):
        return [i for i in playing if song.tracks[i].channel == int(channel[1]) - 1]
    if programs := re.fullmatch(PROGRAMS, which):
        first = int(programs[1])
        last = int(programs[2] or first)
        melodic = [i for i in playing if not song.tracks[i].is_drum]
        found = [i for i in melodic if first <= song.tracks[i].program <= last]
        return [most_notes(found, song)] if found else []
    return [i
            for i, name in names.items()
            if fnmatch.fnmatchcase(name, pattern)]
