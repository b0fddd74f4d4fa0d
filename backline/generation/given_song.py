"""A given song with made notes beside it: all its events stay, made notes get their own tracks.

Made notes keep to the song's own ticks and to channels that it leaves free. They sound like the
part of the song that they belong to.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from backline.music.bars import quantize_onsets
from backline.music.channels import DRUM_CHANNEL
from backline.music.midi_edits import (
    PORT,
    Place,
    all_voices,
    ending_at,
    free_places,
    ports,
    sound_of,
    tracks_without,
    used_places,
    with_hole,
    without_voices,
)
from backline.music.midi_events import N_CHANNELS, N_PITCHES, NAME, NOTE_OFF, NOTE_ON, PROGRAM_CHANGE
from backline.music.midi_tracks import (
    TEXT,
    Event,
    MidiTracks,
    meta_message,
    tracks_to_bytes,
)
from backline.music.midi_writer import end_at_next_onset
from backline.music.players import Voice, players_text
from backline.music.song import NO_NOTES
from backline.music.vocab import QUARTERS_PER_BAR, Part, Vocabulary

MADE_MARK = b"made by Backline"  # a text event at the beginning of each made track


@dataclasses.dataclass(frozen=True)
class GivenSong:
    """A song as it was given, and where the model's bars lie in it.

    voices: by the part's name, the voices that play it, perhaps none.
    notes: for each part (N, 3) onsets and ends in ticks, as they were given, and pitches.
    origin: the tick at which the first bar that the model hears begins; below 0 for a pickup.
    """

    midi: MidiTracks
    voices: Mapping[str, tuple[Voice, ...]]
    notes: tuple[np.ndarray, ...]
    origin: int
    vocabulary: Vocabulary

    @property
    def bar_ticks(self) -> int:
        """Ticks in a bar."""
        return QUARTERS_PER_BAR * self.midi.ticks_per_quarter

    @property
    def early(self) -> int:
        """A note this many ticks before a bar line is heard at it."""
        return (self.midi.ticks_per_quarter - 1) // (2 * self.vocabulary.steps_per_quarter)

    def tick(self, step: int) -> int:
        """The tick nearest to a step of the model's grid."""
        return self.origin + int(self.ticks(np.array(step)))

    def ticks(self, steps: np.ndarray) -> np.ndarray:
        """How many ticks as many steps last, rounded."""
        per_quarter = self.vocabulary.steps_per_quarter
        return (2 * steps * self.midi.ticks_per_quarter + per_quarter) // (2 * per_quarter)

    def step(self, tick: int) -> int:
        """The step that a note at `tick` is heard at."""
        return int(quantize_onsets(np.array(tick - self.origin),
                                   self.midi.ticks_per_quarter,
                                   self.vocabulary.steps_per_quarter))

    def sounding(self) -> np.ndarray:
        """(N, 3) int64: for each note in its part's range its onset and end in steps, and its id."""
        v = self.vocabulary
        found = [NO_NOTES]
        for part, first_id, notes in zip(v.parts, v.first_pitch_ids, self.notes, strict=True):
            pitch = notes[:, 2]
            own = notes[(pitch >= part.lowest_pitch) & (pitch <= part.highest_pitch)]
            per_quarter = self.midi.ticks_per_quarter
            onset = quantize_onsets(own[:, 0] - self.origin, per_quarter, v.steps_per_quarter)
            end = -((self.origin - own[:, 1]) * v.steps_per_quarter // per_quarter)
            ids = first_id + own[:, 2] - part.lowest_pitch
            found.append(np.stack([onset, end, ids], axis=1))
        return np.concatenate(found)


class Made(NamedTuple):
    """What is made beside a given song.

    notes: for each part of the vocabulary (N, 3) onsets and ends in steps, and pitches.
    velocities: for each part (N,) of them.
    parts: names of the parts that are made.
    first_step: where the first bar that is made begins.
    holes: where each stretch of bars that are made anew begins and ends, in steps.
    dropped: names of parts of the song that are left out.
    n_bars: how many bars, counted from the first that the model hears, the song lasts at least.
    """

    notes: Sequence[np.ndarray]
    velocities: Sequence[np.ndarray]
    parts: tuple[str, ...]
    first_step: int = 0
    holes: tuple[tuple[int, int], ...] = ()
    dropped: tuple[str, ...] = ()
    n_bars: int = 0


# ---------------------------------------------------------------- files


def files_beside(given: GivenSong, made: Made, recipe: bytes) -> dict[str, bytes]:
    """The song and its stems as MIDI, by name ending: "" for the whole, "-drums" for a stem.

    All tracks end at the same bar line, or with the last note if that rings on. The stem of a part
    holds its given and its made notes. Each file holds `recipe` as a text event.
    """
    made = _within_song(made, given.vocabulary)
    kept = with_made_hole(given, made)
    end_tick = end_of_song(given, made)
    tracks = made_tracks(given, made)
    left = {name: () if name in made.dropped else voices
            for name, voices in given.voices.items()}
    dropped = [voice for name in made.dropped for voice in given.voices[name]]
    files = {"": _file(kept, dropped, left, tracks, recipe)}
    for name, voices in left.items():
        own = {name: tracks[name]} if name in tracks else {}
        if not voices and not own:
            own = {name: (_name_event(name),)}
        others = [voice for voice in all_voices(kept) if voice not in voices]
        files[f"-{name}"] = _file(kept, others, {name: voices}, own, recipe)
    return {ending: _finished(midi, end_tick) for ending, midi in files.items()}


def _within_song(made: Made, vocabulary: Vocabulary) -> Made:
    """What is made; of bars made anew, no note rings on past the song's end and makes it longer."""
    if not made.holes:
        return made
    last_step = made.n_bars * vocabulary.steps_per_bar
    notes = [np.minimum(own, [last_step, last_step, N_PITCHES]) for own in made.notes]
    return made._replace(notes=notes)


def _file(kept: MidiTracks,
          gone: Collection[Voice],
          voices: Mapping[str, Sequence[Voice]],
          made: Mapping[str, tuple[Event, ...]],
          recipe: bytes) -> MidiTracks:
    """What is kept but the voices `gone`, with made tracks, the recipe, and who plays what."""
    numbers = {before: number for number, before in enumerate(tracks_without(kept, gone))}
    players = {name: [Voice(numbers[voice.track], voice.channel) for voice in own]
               for name, own in voices.items()}
    for number, (name, events) in enumerate(made.items(), len(numbers)):
        channels = {event.channel for event in events if event.is_onset}
        players[name] += [Voice(number, channel) for channel in channels]
    midi = _with_tracks(without_voices(kept, gone), list(made.values()))
    return _with_texts(midi, [recipe, players_text(players, len(midi.tracks))])


def prompt_file(given: GivenSong, n_bars: int) -> bytes:
    """The song as it was given, in whole bars."""
    return _finished(given.midi, given.origin + n_bars * given.bar_ticks)


def _finished(midi: MidiTracks, end_tick: int) -> bytes:
    return tracks_to_bytes(ending_at(midi, end_tick))


def _with_tracks(midi: MidiTracks, tracks: Sequence[tuple[Event, ...]]) -> MidiTracks:
    """The file with more tracks."""
    return dataclasses.replace(
        midi,
        tracks=(*midi.tracks, *tracks),
        ends=(*midi.ends, *(0 for _ in tracks)),
    )


def _with_texts(midi: MidiTracks, texts: Sequence[bytes]) -> MidiTracks:
    """The file with texts at the beginning of its first track."""
    first, *others = midi.tracks
    events = [Event(0, meta_message(TEXT, text)) for text in texts]
    return dataclasses.replace(midi, tracks=((*events, *first), *others))


def with_made_hole(given: GivenSong, made: Made) -> MidiTracks:
    """What stays of the song: all but the notes of bars that are made anew."""
    midi = given.midi
    voices = [voice for name in made.parts for voice in given.voices[name]]
    for begin, end in made.holes:

        def goes(_track: int, onset: Event, hole: tuple[int, int] = (begin, end)) -> bool:
            """Whether a note is heard in the hole."""
            return hole[0] <= given.step(onset.tick) < hole[1]

        midi = with_hole(midi, voices, given.tick(begin), given.tick(end), goes)
    return midi


def end_of_song(given: GivenSong, made: Made) -> int:
    """The tick of the bar line at which the song ends: not before the last made note has."""
    ends = (int(given.ticks(notes[:, 1]).max(initial=0)) for notes in made.notes)
    n_bars = math.ceil(max(ends, default=0) / given.bar_ticks)
    return given.origin + given.bar_ticks * max(n_bars, made.n_bars)


# ---------------------------------------------------------------- made tracks


def made_tracks(given: GivenSong, made: Made) -> dict[str, tuple[Event, ...]]:
    """The track of each part that is made, by its name."""
    places = made_places(given, made.parts)
    tracks = {}
    first_tick = given.tick(made.first_step)
    for index, part in enumerate(given.vocabulary.parts):
        if part.name in made.parts:
            place = places[part.name]
            channel = place.channel
            sound = _sound(given, part, place, first_tick)
            notes = _in_ticks(given, made, index)
            has_own = bool(given.voices[part.name]) and part.name not in made.dropped
            name = f"{part.name} (new)" if has_own else part.name
            tracks[part.name] = (
                _name_event(name),
                Event(0, meta_message(TEXT, MADE_MARK)),
                *_port_event(place),
                *(Event(0, bytes([message[0] | channel]) + message[1:]) for message in sound),
                *_note_events(notes, made.velocities[index], channel),
            )
    return tracks


def _name_event(name: str) -> Event:
    return Event(0, meta_message(NAME, name.encode()))


def _port_event(place: Place) -> list[Event]:
    """The event that sets a track's port; none for the first port, the default."""
    return [Event(0, meta_message(PORT, bytes([place.port])))] if place.port else []


def made_places(given: GivenSong, parts: Sequence[str]) -> dict[str, Place]:
    """The place of each part that is made: a free one, or the part's own if none is free.

    Drums go on the drum channel. A part stays on its own port if that has a free place.
    """
    free = free_places(given.midi)
    port_of_track = ports(given.midi)
    places = {}
    for part in given.vocabulary.parts:
        if part.name not in parts:
            continue
        own = given.voices[part.name]
        port = port_of_track[own[0].track] if own else min(port_of_track, default=0)
        if part.is_drum:
            places[part.name] = Place(port, DRUM_CHANNEL)
        elif free:
            place = min(free, key=lambda place: (place.port != port, place))
            free.remove(place)
            places[part.name] = place
        else:
            places[part.name] = Place(port, own[0].channel if own else N_CHANNELS - 1)
    return places


def parts_on_used_channels(given: GivenSong, parts: Sequence[str]) -> list[str]:
    """Made parts other than drums that share a channel with another track, since none is free."""
    used = used_places(given.midi)
    return [name
            for name, place in made_places(given, parts).items()
            if place in used and place.channel != DRUM_CHANNEL]


def _sound(given: GivenSong,
           part: Part,
           place: Place,
           tick: int) -> list[bytes]:
    """Messages for channel 0 that make a part sound as it does in the song at `tick`.

    A shared channel keeps its sound. A part that the song lacks has the vocabulary's program.
    """
    if place in used_places(given.midi):
        return []
    voices = given.voices[part.name]
    if voices:
        return sound_of(given.midi, voices[0], tick)
    return [bytes([PROGRAM_CHANGE, part.program])]


def _in_ticks(given: GivenSong, made: Made, index: int) -> np.ndarray:
    """(N, 3) made notes of a part in ticks of the song.

    Each ends no later than the next kept note of its pitch begins.
    """
    notes = made.notes[index]
    times = given.origin + given.ticks(notes[:, :2])
    in_ticks = np.column_stack([times, notes[:, 2]])
    kept = given.notes[index]
    for begin, end in made.holes:
        onset = kept[:, 0] + given.early
        kept = kept[(onset < given.tick(begin)) | (onset >= given.tick(end))]
    for row in in_ticks:
        is_later = (kept[:, 2] == row[2]) & (kept[:, 0] > row[0])
        row[1] = kept[is_later, 0].min(initial=row[1])
    return in_ticks


def _note_events(notes: np.ndarray, velocities: np.ndarray, channel: int) -> list[Event]:
    """The events of (N, 3) made notes and their (N,) velocities; in one tick, offs come first."""
    rows = zip(notes.tolist(), velocities.tolist(), strict=True)
    velocity_of = {(onset, pitch): velocity for (onset, _, pitch), velocity in rows}
    ranked = []
    for onset, end, pitch in end_at_next_onset(notes).tolist():
        on = bytes([NOTE_ON | channel, pitch, velocity_of[onset, pitch]])
        off = bytes([NOTE_OFF | channel, pitch, 0])
        ranked += [(onset, 1, on), (max(end, onset + 1), 0, off)]
    ranked.sort()
    return [Event(tick, message) for tick, _, message in ranked]
