"""Taking things out of a MIDI file, event by event, so that all the rest stays as it was.

Ticks are those of the file. Nothing here changes its input.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from backline.music.channels import DRUM_CHANNEL
from backline.music.midi_events import (
    CHANNEL_PRESSURE,
    CONTROL_CHANGE,
    KEY,
    N_CHANNELS,
    N_PITCHES,
    NAME,
    NOTE_OFF,
    PITCH_BEND,
    PROGRAM_CHANGE,
    SIGNATURE,
    SYSEX,
    TEMPO,
)
from backline.music.midi_tracks import (
    Event,
    MidiTracks,
    meta_message,
    meta_value,
    note_pairs,
    text_of,
)
from backline.music.players import Voice
from backline.music.song import MICROSECONDS_PER_MINUTE

ALL_OFF = (120, 123)  # all sound off, all notes off
SUSTAIN, SOSTENUTO, SOFT = 64, 66, 67
PEDALS = (SUSTAIN, SOSTENUTO, SOFT)
CENTRE = bytes([0, 64])  # values of a pitch bend that bends nothing
BANK, VOLUME, PAN, EXPRESSION, FINE_BANK, REVERB, CHORUS = 0, 7, 10, 11, 32, 91, 93
SOUND_CONTROLLERS = (BANK, FINE_BANK, VOLUME, PAN, EXPRESSION, REVERB, CHORUS)
# Meta messages that say something about their track alone: number, name, instrument, channel, port.
PORT = 0x21
ABOUT_TRACK = (0x00, NAME, 0x04, 0x20, PORT)
STATES = (TEMPO, SIGNATURE, KEY)  # meta messages that hold until the next of their kind
Track = Sequence[Event]
KeepNote = Callable[[int, Event], bool]  # of a track's index and a note-on


# ---------------------------------------------------------------- voices


def without_voices(midi: MidiTracks, voices: Collection[Voice]) -> MidiTracks:
    """The file without what these voices play; tracks that then say nothing go as well.

    What a track says of the whole song (tempo, meter, key, markers, lyrics) stays.
    """
    left = tracks_without(midi, voices)
    ends = [midi.ends[index] for index in left]
    return dataclasses.replace(midi, tracks=tuple(left.values()), ends=tuple(ends))


def tracks_without(midi: MidiTracks, voices: Collection[Voice]) -> dict[int, tuple[Event, ...]]:
    """The tracks of `without_voices`, by the numbers that they have in `midi`."""
    left = {}
    for index, events in enumerate(midi.tracks):
        channels = {voice.channel for voice in voices if voice.track == index}
        kept = [event for event in events if event.channel not in channels]
        if channels and not any(event.channel >= 0 for event in kept):
            kept = [event for event in kept if event.meta not in ABOUT_TRACK]
        if kept or not channels:
            left[index] = tuple(kept)
    return left


def all_voices(midi: MidiTracks) -> list[Voice]:
    """Each channel of each track that any message is for."""
    voices = []
    for index, events in enumerate(midi.tracks):
        channels = {event.channel for event in events if event.channel >= 0}
        voices += [Voice(index, channel) for channel in sorted(channels)]
    return voices


class Place(NamedTuple):
    """Where the notes of a track go: a channel of a port, both counted from 0."""

    port: int
    channel: int


def ports(midi: MidiTracks) -> list[int]:
    """The port of each track: programs with more than 16 instruments number several."""
    found = []
    for events in midi.tracks:
        values = [meta_value(event.message) for event in events if event.meta == PORT]
        found.append(values[0][0] if values and values[0] else 0)
    return found


def used_places(midi: MidiTracks) -> set[Place]:
    """Places that any message of the file is for."""
    return {Place(port, event.channel)
            for port, events in zip(ports(midi), midi.tracks, strict=True)
            for event in events
            if event.channel >= 0}


def free_places(midi: MidiTracks) -> list[Place]:
    """Places of the file's ports that it leaves free, channels of drums left out."""
    used = used_places(midi)
    every = (Place(port, channel)
             for port in sorted(set(ports(midi)))
             for channel in range(N_CHANNELS))
    return [place
            for place in every
            if place not in used and place.channel != DRUM_CHANNEL]


def sound_of(midi: MidiTracks, voice: Voice, tick: int) -> list[bytes]:
    """What makes a voice sound as it does at `tick`: bank, program, volume, pan, effects.

    Of what is said only later, the first counts. Messages are for channel 0.
    """
    said: dict[tuple[int, int], Event] = {}
    for event in midi.tracks[voice.track]:
        if event.channel != voice.channel:
            continue
        name = _state_name(event)
        is_sound = event.kind == PROGRAM_CHANGE or (event.kind == CONTROL_CHANGE
                                                    and event.message[1] in SOUND_CONTROLLERS)
        if is_sound and (event.tick <= tick or name not in said):
            said[name] = event
    in_order = sorted(said.values(), key=_by_bank_first)
    return [bytes([event.kind]) + event.message[1:] for event in in_order]


def _by_bank_first(event: Event) -> tuple[int, int]:
    """A bank counts from the program change behind it on."""
    if event.kind == PROGRAM_CHANGE:
        return 1, 0
    number = event.message[1]
    is_bank = number in (BANK, FINE_BANK)
    return 0 if is_bank else 2, number


def _state_name(event: Event) -> tuple[int, int]:
    """What an event sets: its kind, and the number of a controller."""
    number = event.message[1] if event.kind == CONTROL_CHANGE else 0
    return event.kind, number


# ---------------------------------------------------------------- notes never switched off


class Released(NamedTuple):
    """A file in which each note has its note-off; how many it lacked, and where they are now.

    n_by_controller: those that a controller ended; the other `n_by_track` last as long as their track.
    """

    midi: MidiTracks
    n_by_controller: int
    n_by_track: int


def with_releases(midi: MidiTracks) -> Released:
    """The file with a note-off for each note that lacks one.

    Left on, such a note would sound through all that is made behind it. One of the controllers that
    silence a channel ends a note, unless a note-off of its own follows; else the end of its track.
    """
    n_by_controller = n_by_track = 0
    tracks = []
    for events, end in zip(midi.tracks, midi.ends, strict=True):
        places: dict[int, list[Event]] = {}  # where each new event goes: before which one
        for channel in {event.channel for event in events if event.is_onset}:
            for place, off in _missing_offs(events, channel, end):
                places.setdefault(place, []).append(off)
        n_at_end = len(places.get(len(events), []))
        n_by_track += n_at_end
        n_by_controller += sum(map(len, places.values())) - n_at_end
        whole = list(events)
        for place in sorted(places, reverse=True):
            whole[place:place] = places[place]
        tracks.append(tuple(whole))
    return Released(dataclasses.replace(midi, tracks=tuple(tracks)), n_by_controller, n_by_track)


def _missing_offs(events: Track, channel: int, end: int) -> list[tuple[int, Event]]:
    """Note-offs that a channel lacks, each with the index of the event that it goes before."""
    own = [i for i, event in enumerate(events) if event.channel == channel]
    has_own: dict[int, bool] = {}  # by pitch: whether a note-off is the next that is said of it
    silenced: dict[int, set[int]] = {}  # by index of a controller: pitches with no note-off behind
    for i in reversed(own):
        event = events[i]
        if event.is_onset or event.is_release:
            has_own[event.message[1]] = event.is_release
        elif _silences(event):
            silenced[i] = {pitch for pitch in range(N_PITCHES) if not has_own.get(pitch, False)}
    sounding: dict[int, int] = {}  # by pitch: how many notes
    offs = []
    for i in own:
        event = events[i]
        if _silences(event):
            for pitch in sorted(sounding.keys() & silenced[i]):
                n_notes = sounding.pop(pitch)
                offs += [(i, _off(event.tick, channel, pitch))] * n_notes
            continue
        if event.is_onset:
            pitch = event.message[1]
            sounding[pitch] = sounding.get(pitch, 0) + 1
        elif event.is_release and sounding.get(event.message[1]):
            pitch = event.message[1]
            sounding[pitch] -= 1
    for pitch, n_notes in sorted(sounding.items()):
        offs += [(len(events), _off(end, channel, pitch))] * n_notes
    return offs


def _silences(event: Event) -> bool:
    """Whether it switches off all notes of its channel."""
    return event.kind == CONTROL_CHANGE and event.message[1] in ALL_OFF


def _off(tick: int, channel: int, pitch: int) -> Event:
    return Event(tick, bytes([NOTE_OFF | channel, pitch, 0]))


# ---------------------------------------------------------------- bars made anew


def with_hole(midi: MidiTracks,
              voices: Collection[Voice],
              start: int,
              end: int,
              goes: KeepNote) -> MidiTracks:
    """The file without the notes of `voices` that `goes` says, and their pedals and bends within.

    Pedals are up and bends centred while the hole, from tick `start` to before `end`, lasts; behind
    it they are as they would have been. All other events stay.
    """
    tracks = []
    for index, events in enumerate(midi.tracks):
        left = events
        for voice in voices:
            if voice.track == index:
                left = _voice_with_hole(left, voice, start, end, goes)
        tracks.append(left)
    return dataclasses.replace(midi, tracks=tuple(tracks))


def _voice_with_hole(events: Track,
                     voice: Voice,
                     start: int,
                     end: int,
                     goes: KeepNote) -> tuple[Event, ...]:
    own = [i for i, event in enumerate(events) if event.channel == voice.channel]
    gone: set[int] = set()
    for on, off in note_pairs([events[i] for i in own]):
        if goes(voice.track, events[own[on]]):
            gone.add(own[on])
            if off is not None:
                gone.add(own[off])
    before: dict[tuple[int, int], bytes] = {}  # in force where the hole begins
    behind: dict[tuple[int, int], bytes] = {}  # and where it ends
    for i in own:
        event = events[i]
        if not _moves(event) or event.tick >= end:
            continue
        name = _state_name(event)
        behind[name] = event.message
        if event.tick < start:
            before[name] = event.message
        else:
            gone.add(i)
    at_rest = [Event(start, _at_rest(message))
               for message in before.values()
               if message != _at_rest(message)]
    restored = [Event(end, message)
                for name, message in behind.items()
                if message != _at_rest(message)]
    kept = [event for i, event in enumerate(events) if i not in gone]
    return tuple(_inserted(kept, [*at_rest, *restored]))


def _moves(event: Event) -> bool:
    """Whether it is of a pedal or a bend."""
    is_pedal = event.kind == CONTROL_CHANGE and event.message[1] in PEDALS
    return is_pedal or event.kind == PITCH_BEND


def _at_rest(message: bytes) -> bytes:
    """The message that takes back a pedal or a bend."""
    if message[0] & 0xF0 == PITCH_BEND:
        return message[:1] + CENTRE
    return message[:2] + b"\0"


def _inserted(events: Track, new: Sequence[Event]) -> list[Event]:
    """Events with `new` ones, each before those of its tick."""
    ranked = [(event.tick, 0, event) for event in new]
    ranked += [(event.tick, 1, event) for event in events]
    ranked.sort(key=lambda row: row[:2])
    return [event for _, _, event in ranked]


# ---------------------------------------------------------------- cutting


def cut_file(midi: MidiTracks,
             start: int,
             end: int,
             keep: KeepNote) -> MidiTracks:
    """What happens from tick `start` to before `end`, counted from `start`, with the notes to `keep`.

    Programs, controllers, tempo, meter and key that hold at the start are said at tick 0; notes end
    by the end.
    """
    tracks = [tuple(_cut_track(index, events, start, end, keep))
              for index, events in enumerate(midi.tracks)]
    ends = [min(max(last - start, 0), end - start) for last in midi.ends]
    return dataclasses.replace(midi, tracks=tuple(tracks), ends=tuple(ends))


def _cut_track(index: int,
               events: Track,
               start: int,
               end: int,
               keep: KeepNote) -> list[Event]:
    kept_notes: set[int] = set()
    of_notes: set[int] = set()
    for channel in range(N_CHANNELS):
        own = [i for i, event in enumerate(events) if event.channel == channel]
        for on, off in note_pairs([events[i] for i in own]):
            places = [own[on]] if off is None else [own[on], own[off]]
            of_notes.update(places)
            if keep(index, events[own[on]]):
                kept_notes.update(places)
    states: dict[tuple, Event] = {}
    inside = []
    for i, event in enumerate(events):
        if i in of_notes:
            if i in kept_notes:
                inside.append(_moved(event, start, end))
        elif event.tick < start:
            name = _lasting_name(event)
            if name is not None:
                states.pop(name, None)  # in the order in which they were last said
                states[name] = event
        elif event.tick < end:
            inside.append(_moved(event, start, end))
    chased = [Event(0, event.message) for event in states.values()]
    return _inserted(inside, chased)


def _moved(event: Event, start: int, end: int) -> Event:
    tick = min(max(event.tick, start), end)
    return Event(tick - start, event.message)


def _lasting_name(event: Event) -> tuple | None:
    """What an event sets for all that follows; None for what is over at once."""
    if event.meta >= 0:
        is_lasting = event.meta in STATES or event.meta in ABOUT_TRACK
        return (event.meta,) if is_lasting else None
    if event.kind >= SYSEX:
        return (event.message,)
    if event.kind in (CONTROL_CHANGE, PROGRAM_CHANGE, CHANNEL_PRESSURE, PITCH_BEND):
        return event.channel, *_state_name(event)
    return None


# ---------------------------------------------------------------- tempo and ends


def with_tempo(midi: MidiTracks, tempo: float) -> MidiTracks:
    """The file at one tempo, in beats per minute; its ticks are unchanged."""
    microseconds = round(MICROSECONDS_PER_MINUTE / tempo)
    message = meta_message(TEMPO, microseconds.to_bytes(3, "big"))
    tracks = [[event for event in events if event.meta != TEMPO]
              for events in midi.tracks]
    tracks[0] = _inserted(tracks[0], [Event(0, message)])
    return dataclasses.replace(midi, tracks=tuple(map(tuple, tracks)))


def with_finer_ticks(midi: MidiTracks, factor: int) -> MidiTracks:
    """The file with so many times the ticks per quarter, and everything where it was."""
    tracks = [tuple(Event(event.tick * factor, event.message) for event in events)
              for events in midi.tracks]
    return dataclasses.replace(
        midi,
        ticks_per_quarter=midi.ticks_per_quarter * factor,
        tracks=tuple(tracks),
        ends=tuple(end * factor for end in midi.ends),
    )


def ending_at(midi: MidiTracks, tick: int) -> MidiTracks:
    """The file with all tracks ending at `tick`, or with their last event."""
    ends = [max([tick, *(event.tick for event in events)])
            for events in midi.tracks]
    return dataclasses.replace(midi, ends=tuple(ends))


def without_texts(midi: MidiTracks, beginnings: tuple[bytes, ...]) -> MidiTracks:
    """The file without text events that have one of these beginnings."""
    tracks = [tuple(event for event in events if not text_of(event).startswith(beginnings))
              for events in midi.tracks]
    return dataclasses.replace(midi, tracks=tuple(tracks))
