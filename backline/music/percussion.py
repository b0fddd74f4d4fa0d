"""Drum tracks split by pitch, for vocabularies with more than one drum part.

General MIDI has the kit and all hand percussion on one channel. A part that `takes` pitches gets
those hits of every drum track whose name says no part of its own; they become a track of their own,
so that everything else reads them like any other track.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

import numpy as np

from backline.music.midi_events import KEY_PRESSURE, NAME
from backline.music.midi_tracks import Event, MidiTracks, meta_message, song_of_tracks
from backline.music.players import Voice
from backline.music.roles import parts_named
from backline.music.song import Song, Track
from backline.music.vocab import Part, Vocabulary


def split_song(song: Song, vocabulary: Vocabulary) -> Song:
    """The song with the hits that parts take on tracks of their own, after all others.

    A song that says itself who plays what stays as it is.
    """
    takers = _takers(song, vocabulary)
    if not takers:
        return song
    rest = []
    split = []
    for track in song.tracks:
        is_left = np.ones(len(track.notes), bool)
        for part in takers:
            is_taken = _taken(track, part, vocabulary)
            is_left &= ~is_taken
            if is_taken.any():
                split.append(dataclasses.replace(track, name=part.name, notes=track.notes[is_taken],
                                                 shares_name=False))
        rest.append(track if is_left.all() else dataclasses.replace(track, notes=track.notes[is_left]))
    return dataclasses.replace(song, tracks=(*rest, *split))


def split_tracks(midi: MidiTracks, vocabulary: Vocabulary, where: str) -> MidiTracks:
    """The same of a file: each event stays, and the new tracks set their channels up alike."""
    if not any(part.takes for part in vocabulary.parts):
        return midi
    song, voices = song_of_tracks(midi, where)
    tracks = list(midi.tracks)
    ends = list(midi.ends)
    for part in _takers(song, vocabulary):
        for track, voice in zip(song.tracks, voices, strict=True):
            is_taken = _taken(track, part, vocabulary)
            if is_taken.any():
                pitches = set(track.notes[is_taken, 2].tolist())
                tracks.append(_only(midi.tracks[voice.track], voice, pitches, part))
                ends.append(midi.ends[voice.track])
                tracks[voice.track] = tuple(event
                                            for event in tracks[voice.track]
                                            if not _is_hit(event, voice, pitches))
    return dataclasses.replace(midi, tracks=tuple(tracks), ends=tuple(ends))


def _takers(song: Song, vocabulary: Vocabulary) -> list[Part]:
    """The parts that take hits out of a song's drum tracks."""
    return [] if song.players else [part for part in vocabulary.parts if part.takes]


def _taken(track: Track, part: Part, vocabulary: Vocabulary) -> np.ndarray:
    """(N,) bool: which notes of a track a part takes."""
    pitch = track.notes[:, 2]
    first_drums = next(one.name for one in vocabulary.parts if one.is_drum)
    named = frozenset() if track.shares_name else parts_named(track.name, vocabulary)
    if not track.is_drum or named - {first_drums}:
        return np.zeros(len(pitch), bool)
    return np.array([part.takes_pitch(each) for each in pitch.tolist()], bool)


def _is_hit(event: Event, voice: Voice, pitches: Collection[int]) -> bool:
    """Whether an event belongs to a note of these pitches."""
    is_of_note = event.is_onset or event.is_release or event.kind == KEY_PRESSURE
    return is_of_note and event.channel == voice.channel and event.message[1] in pitches


def _only(events: Collection[Event],
          voice: Voice,
          pitches: Collection[int],
          part: Part) -> tuple[Event, ...]:
    """A track of a part's hits, with everything else that its channel is told."""
    name = Event(0, meta_message(NAME, part.name.encode()))
    own = [event for event in events if event.channel == voice.channel]
    kept = [event
            for event in own
            if _is_hit(event, voice, pitches)
            or not (event.is_onset or event.is_release or event.kind == KEY_PRESSURE)]
    return (name, *kept)
