"""Drum tracks split by pitch, for vocabularies with more than one drum part.

General MIDI has the kit and all hand percussion on one channel. A part that `takes` pitches gets
those hits of every drum track whose name says no drum part, or the first one; they become a track
of their own, so that everything else reads them like any other track.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator

import numpy as np

from backline.music.midi_edits import ABOUT_TRACK
from backline.music.midi_events import KEY_PRESSURE, NAME
from backline.music.midi_tracks import TEXT, Event, MidiTracks, meta_message, song_of_tracks, text_of
from backline.music.players import PLAYERS_BEGINNING, Voice, players_text
from backline.music.roles import parts_named
from backline.music.song import Song, Track
from backline.music.vocab import Part, Vocabulary

DATA = b"{"  # texts that begin so are programs' own, about the whole song


def split_song(song: Song, vocabulary: Vocabulary) -> Song:
    """The song with the hits that parts take on tracks of their own, after all others.

    Parts that the song itself says who plays take nothing.
    """
    takers = _takers(song, vocabulary)
    rest = []
    split = []
    for track in song.tracks:
        is_left = np.ones(len(track.notes), bool)
        for part, pitches in _taken(track, takers, vocabulary):
            is_taken = np.isin(track.notes[:, 2], list(pitches))
            is_left &= ~is_taken
            split.append(dataclasses.replace(track, name=part.name, notes=track.notes[is_taken],
                                             shares_name=False))
        rest.append(track if is_left.all() else dataclasses.replace(track, notes=track.notes[is_left]))
    return dataclasses.replace(song, tracks=(*rest, *split)) if split else song


def split_tracks(midi: MidiTracks, vocabulary: Vocabulary, where: str) -> MidiTracks:
    """The same of a file: each event stays, and the new tracks set their channels up alike."""
    if not any(part.takes for part in vocabulary.parts):
        return midi
    song, voices = song_of_tracks(midi, where)
    takers = _takers(song, vocabulary)
    tracks = list(midi.tracks)
    ends = list(midi.ends)
    players = {name: [voices[i] for i in indices] for name, indices in song.players.items()}
    for track, voice in zip(song.tracks, voices, strict=True):
        for part, pitches in _taken(track, takers, vocabulary):
            events = tracks[voice.track]
            own = tuple(_only(events, voice, pitches, part))
            rest = tuple(event for event in events if not _is_hit(event, voice, pitches))
            end = ends[voice.track]
            if any(event.is_release and event.tick == end for event in events):
                # The last note ends the track, which says nothing of how long a clip is.
                ends[voice.track] = _last_tick(rest)
                end = _last_tick(own)
            players.setdefault(part.name, []).append(Voice(len(tracks), voice.channel))
            tracks[voice.track] = rest
            tracks.append(own)
            ends.append(end)
    if len(tracks) == len(midi.tracks):
        return midi
    if song.players:
        text = Event(0, meta_message(TEXT, players_text(players, len(tracks))))
        tracks = [tuple(text if text_of(event).startswith(PLAYERS_BEGINNING) else event for event in events)
                  for events in tracks]
    return dataclasses.replace(midi, tracks=tuple(tracks), ends=tuple(ends))


def _takers(song: Song, vocabulary: Vocabulary) -> list[Part]:
    """The parts that take hits out of a song's drum tracks."""
    return [part for part in vocabulary.parts if part.takes and part.name not in song.players]


def _taken(track: Track,
           takers: Iterable[Part],
           vocabulary: Vocabulary) -> Iterator[tuple[Part, frozenset[int]]]:
    """The pitches of a track that each of some parts takes, if it takes any; none is taken twice."""
    drums = [part.name for part in vocabulary.parts if part.is_drum]
    named = frozenset() if track.shares_name else parts_named(track.name, vocabulary)
    named_drums = named.intersection(drums)
    if not track.is_drum or (named_drums and drums[0] not in named_drums):
        return
    left = set(track.notes[:, 2].tolist())
    for part in takers:
        pitches = frozenset(pitch for pitch in left if part.takes_pitch(pitch))
        left -= pitches
        if pitches:
            yield part, pitches


def _is_of_note(event: Event) -> bool:
    return event.is_onset or event.is_release or event.kind == KEY_PRESSURE


def _is_hit(event: Event, voice: Voice, pitches: Collection[int]) -> bool:
    """Whether an event belongs to a note of these pitches."""
    return _is_of_note(event) and event.channel == voice.channel and event.message[1] in pitches


def _only(events: Iterable[Event],
          voice: Voice,
          pitches: Collection[int],
          part: Part) -> Iterator[Event]:
    """A track of a part's hits, with everything else that the track or its channel is told."""
    yield Event(0, meta_message(NAME, part.name.encode()))
    for event in events:
        is_about = event.meta in (*ABOUT_TRACK, TEXT) and event.meta != NAME
        is_set_up = event.channel == voice.channel and not _is_of_note(event)
        if is_set_up or _is_hit(event, voice, pitches) or (is_about and not text_of(event).startswith(DATA)):
            yield event


def _last_tick(events: Iterable[Event]) -> int:
    return max((event.tick for event in events), default=0)
