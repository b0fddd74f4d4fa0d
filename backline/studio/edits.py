"""Edits of a song without the model: moved notes, another tempo, fewer bars, a part of another song.

Each makes a new song from the events of its parents, with stems as generate.py writes them. In the
place of a recipe it holds what was done, and the hashes of the songs it was done to.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from backline.common.errors import UserError
from backline.generation.config import Reading
from backline.generation.given_song import GivenSong, Made, files_beside
from backline.generation.reading import Asked, hear
from backline.generation.recipes import EDIT_FORMAT
from backline.music.channels import DRUM_CHANNEL
from backline.music.joining import Stem, common_ticks_per_quarter, rescale
from backline.music.midi_edits import (
    all_voices,
    cut_file,
    ending_at,
    free_places,
    sound_of,
    tracks_without,
    with_tempo,
    without_voices,
)
from backline.music.midi_events import N_CHANNELS, NAME
from backline.music.midi_tracks import Event, MidiTracks, meta_message, read_tracks, tracks_to_bytes
from backline.music.players import Voice
from backline.music.song import NO_NOTES, check_tempo
from backline.music.vocab import Vocabulary

EDIT_VERSION = 1
HIGHEST_PITCH = 127
MOST_SEMITONES = 48


class Heard(NamedTuple):
    """A song to be edited, and how many bars it lasts."""

    song: GivenSong
    n_bars: int


class Selection(NamedTuple):
    """Bars, counted from 1, and names of parts."""

    first: int
    last: int
    parts: tuple[str, ...]


def hear_song(path: Path, vocabulary: Vocabulary) -> Heard:
    """Read a song to be edited. Raises UserError, as `reading.hear` does."""
    heard = hear(read_tracks(path), path, Asked(Reading()), vocabulary)
    first_bar = heard.clip.first_bar
    song = heard.given
    origin = song.origin - first_bar * song.bar_ticks
    return Heard(dataclasses.replace(song, origin=origin), first_bar + heard.clip.n_bars)


def edited_files(heard: Heard, edit: dict[str, Any]) -> dict[str, bytes]:
    """The edited song and its stems as MIDI, by name ending, as `output_files.write_song` takes them."""
    n_parts = len(heard.song.vocabulary.parts)
    nothing = Made([NO_NOTES] * n_parts, [np.zeros(0, np.int64)] * n_parts, (), n_bars=heard.n_bars)
    return files_beside(heard.song, nothing, edit_text(edit))


def edit_text(edit: dict[str, Any]) -> bytes:
    """What was done, as the text event that the song holds."""
    data = {"format": EDIT_FORMAT, "version": EDIT_VERSION, **edit}
    return json.dumps(data, separators=(",", ":")).encode()


def check_selection(selection: Selection, heard: Heard) -> None:
    """Raise UserError about bars and parts that the song does not have."""
    first, last, parts = selection
    if not 1 <= first <= last <= heard.n_bars:
        raise UserError(f"bars {first}-{last}: the song has {heard.n_bars} bars; "
                        f"name bars from 1 to {heard.n_bars}")
    for name in parts:
        if not heard.song.voices.get(name):
            there = ", ".join(part for part, voices in heard.song.voices.items() if voices)
            raise UserError(f"the song has no {name:.40}; it has {there}")


# ---------------------------------------------------------------- edits


def with_pitches_moved(heard: Heard, selection: Selection, semitones: int) -> Heard:
    """The song with the selected notes moved up or down. Drums stay.

    Raises UserError if a note would leave MIDI's range, or if only drums are selected.
    """
    check_selection(selection, heard)
    if not 1 <= abs(semitones) <= MOST_SEMITONES:
        raise UserError(f"{semitones} semitones: must be from 1 to {MOST_SEMITONES}, up or down")
    song = heard.song
    drums = {part.name for part in song.vocabulary.parts if part.is_drum}
    voices = {voice
              for name in selection.parts if name not in drums
              for voice in song.voices[name]}
    if not voices:
        raise UserError("drums have no octaves; select another part to move")
    start, end = ticks_of(selection, song)
    tracks = []
    for index, events in enumerate(song.midi.tracks):
        moved = list(events)
        own = [channel for track, channel in voices if track == index]
        for channel in own:
            _move_notes(moved, channel, start, end, semitones)
        tracks.append(tuple(moved))
    midi = dataclasses.replace(song.midi, tracks=tuple(tracks))
    return heard._replace(song=dataclasses.replace(song, midi=midi))


def _move_notes(events: list[Event], channel: int, start: int, end: int, semitones: int) -> None:
    """Move notes of a channel that begin from `start` to before `end`, with their ends, in place."""
    moved: dict[int, list[bool]] = {}  # by pitch, of the notes that sound: whether they were moved
    for i, event in enumerate(events):
        if event.channel != channel or not (event.is_onset or event.is_release):
            continue
        pitch = event.message[1]
        sounding = moved.setdefault(pitch, [])
        if event.is_onset:
            goes = start <= event.tick < end
            sounding.append(goes)
        else:
            goes = sounding.pop(0) if sounding else False
        if goes:
            if not 0 <= pitch + semitones <= HIGHEST_PITCH:
                raise UserError(f"a note at pitch {pitch} cannot move by {semitones} semitones; "
                                "move it less far")
            message = event.message
            events[i] = Event(event.tick, message[:1] + bytes([pitch + semitones]) + message[2:])


def at_tempo(heard: Heard, tempo: float) -> Heard:
    """The song at one tempo, in beats per minute. Raises UserError about what is no tempo."""
    checked = check_tempo(tempo, "tempo")
    midi = with_tempo(heard.song.midi, checked)
    return heard._replace(song=dataclasses.replace(heard.song, midi=midi))


def trimmed(heard: Heard, selection: Selection) -> Heard:
    """The selected bars and parts alone, from bar 1 on; all tracks where all parts are selected."""
    check_selection(selection, heard)
    song = heard.song
    start, end = ticks_of(selection, song)
    early = song.early if start > 0 else 0
    midi = cut_file(song.midi, max(start, 0), end,
                    lambda _, onset: start - early <= onset.tick < end - song.early)
    playing = {name: voices for name, voices in song.voices.items() if voices}
    voices = dict(song.voices)
    if set(playing) - set(selection.parts):
        kept = {voice for name in selection.parts for voice in song.voices[name]}
        gone = [voice for voice in all_voices(midi) if voice not in kept]
        midi, voices = _without(midi, voices, gone)
    origin = min(start, 0)
    trimmed_song = dataclasses.replace(song, midi=midi, voices=voices, origin=origin)
    return Heard(trimmed_song, selection.last - selection.first + 1)


def selection_bytes(heard: Heard, selection: Selection) -> bytes:
    """A file of exactly the selected bars and parts."""
    cut = trimmed(heard, selection)
    end = cut.song.origin + cut.n_bars * cut.song.bar_ticks
    return tracks_to_bytes(ending_at(cut.song.midi, end))


def with_part_of(heard: Heard, other: Heard, part: str) -> Heard:
    """The song with a part of another one in place of its own, bar by bar; it keeps its length.

    Raises UserError if the other song does not have the part.
    """
    check_selection(Selection(1, other.n_bars, (part,)), other)
    per_quarter = common_ticks_per_quarter([heard.song.midi.ticks_per_quarter,
                                            other.song.midi.ticks_per_quarter])
    song = _rescaled(heard.song, per_quarter)
    source = _rescaled(other.song, per_quarter)
    midi, voices = _without(song.midi, dict(song.voices), song.voices[part])
    end = source.origin + heard.n_bars * source.bar_ticks
    shift = song.origin - source.origin
    start = max(-shift, 0)
    cut = cut_file(source.midi, start, end, lambda _, onset: start <= onset.tick < end)
    is_drum = next(one.is_drum for one in song.vocabulary.parts if one.name == part)
    tracks = list(midi.tracks)
    taken: list[Voice] = []
    free = [place for place in free_places(midi) if place.port == 0]
    for voice in source.voices[part]:
        channel = DRUM_CHANNEL
        if not is_drum:
            channel = free.pop(0).channel if free else N_CHANNELS - 1
        sound = [] if is_drum else sound_of(source.midi, voice, max(start, 0))
        taken.append(Voice(len(tracks), channel))
        tracks.append(_as_track(part, cut.tracks[voice.track], voice.channel, sound, channel,
                                max(shift, 0)))
    ends = (*midi.ends, *[0] * len(taken))
    midi = dataclasses.replace(midi, tracks=tuple(tracks), ends=ends)
    voices[part] = tuple(taken)
    return heard._replace(song=dataclasses.replace(song, midi=midi, voices=voices))


def _as_track(name: str,
              events: Sequence[Event],
              old_channel: int,
              sound: Sequence[bytes],
              channel: int,
              shift: int) -> tuple[Event, ...]:
    """The events of one channel as a track on another one, so many ticks later."""
    own = [Event(event.tick + shift, _on_channel(event.message, channel))
           for event in events
           if event.channel == old_channel]
    return (
        Event(0, meta_message(NAME, name.encode())),
        *(Event(0, _on_channel(message, channel)) for message in sound),
        *own,
    )


def _on_channel(message: bytes, channel: int) -> bytes:
    return bytes([message[0] & 0xF0 | channel]) + message[1:]


def _rescaled(song: GivenSong, per_quarter: int) -> GivenSong:
    """The song in other ticks per quarter."""
    old = song.midi.ticks_per_quarter
    midi = rescale(Stem("the song", song.midi, 0), per_quarter)
    return dataclasses.replace(song, midi=midi, origin=song.origin * per_quarter // old)


def _without(midi: MidiTracks,
             voices: dict[str, tuple[Voice, ...]],
             gone: Sequence[Voice]) -> tuple[MidiTracks, dict[str, tuple[Voice, ...]]]:
    """The file without some voices, and who plays what in it, as tracks may have new numbers."""
    numbers = {before: number for number, before in enumerate(tracks_without(midi, gone))}
    left = {name: tuple(Voice(numbers[voice.track], voice.channel)
                        for voice in own if voice not in gone)
            for name, own in voices.items()}
    return without_voices(midi, gone), left


def ticks_of(selection: Selection, song: GivenSong) -> tuple[int, int]:
    """The ticks at which the selected bars begin and end."""
    start = song.origin + (selection.first - 1) * song.bar_ticks
    end = song.origin + selection.last * song.bar_ticks
    return start, end
