"""One time line from several files: one tempo map, one meter, one key.

Each comes from the first file that has one. Where another file differs, its map is left out, and a
line says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from backline.music.midi_events import KEY, SIGNATURE, TEMPO
from backline.music.midi_tracks import Event, MidiTracks, meta_value
from backline.music.song import (
    DEFAULT_TEMPO,
    MICROSECONDS_PER_MINUTE,
    rounded_tempo,
    time_signature,
)

START = 0x54  # kind of meta event: hours, minutes, seconds, frames at which the song starts
MAPS = {TEMPO: "tempo", SIGNATURE: "meter", KEY: "key", START: "start time"}
UNSAID = {TEMPO: f"{DEFAULT_TEMPO:g}", SIGNATURE: "4/4", KEY: "C major", START: "00:00:00:00:00"}
FIFTHS = ("Cb", "Gb", "Db", "Ab", "Eb", "Bb", "F", "C", "G", "D", "A", "E", "B", "F#", "C#", "G#",
          "D#", "A#")
MOST_SHARPS = 7
SHORTEST = {TEMPO: 3, SIGNATURE: 2, KEY: 2, START: 1}  # bytes of a value that means something


class Source(NamedTuple):
    """A file and its name in messages."""

    name: str
    midi: MidiTracks


def join_maps(sources: Sequence[Source]) -> tuple[list[Event], list[str]]:
    """The events of the joint time line, and a line for each map of a file that is left out.

    All files have the same ticks per quarter.
    """
    joint: list[Event] = []
    lines = []
    for kind, what in MAPS.items():
        said = [(source.name, events)
                for source in sources
                if (events := _events_of(source.midi, kind))]
        if not said:
            continue
        first_events = said[0][1]
        joint += first_events
        chosen = _as_map(first_events, kind)
        for name, events in said[1:]:
            own = _as_map(events, kind)
            if own != chosen:
                lines.append(f"{name}: its {what} {_text(own)} is left out, the song's is "
                             f"{_text(chosen).rstrip(',')}")
    return joint, lines


def _events_of(midi: MidiTracks, kind: int) -> list[Event]:
    """Meta events of a kind, in order of time."""
    found = [event
             for events in midi.tracks
             for event in events
             if event.meta == kind]
    return sorted(found, key=lambda event: event.tick)


def _as_map(events: Sequence[Event], kind: int) -> list[tuple[int, str]]:
    """(tick, value) of each change; of several at one tick, the last counts."""
    at_ticks = {0: UNSAID[kind]}
    for event in events:
        value = meta_value(event.message)
        if len(value) >= SHORTEST[kind] and (kind != TEMPO or any(value[:3])):
            at_ticks[event.tick] = _meaning(kind, value)
    changes: list[tuple[int, str]] = []
    for tick, meaning in sorted(at_ticks.items()):
        if not changes or changes[-1][1] != meaning:
            changes.append((tick, meaning))
    return changes


def _meaning(kind: int, value: bytes) -> str:
    """The value of an event in words."""
    if kind == TEMPO:
        tempo = MICROSECONDS_PER_MINUTE / int.from_bytes(value[:3], "big")
        return f"{rounded_tempo(tempo):g}"
    if kind == SIGNATURE:
        signature = time_signature(0, value[0], value[1])
        return f"{signature.numerator}/{signature.denominator}"
    if kind == START:
        return ":".join(f"{number:02}" for number in value)
    sharps = int.from_bytes(value[:1], "big", signed=True)
    if abs(sharps) > MOST_SHARPS:
        return f"of {sharps} sharps"
    if value[1]:
        return f"{FIFTHS[sharps + MOST_SHARPS + 3]} minor"
    return f"{FIFTHS[sharps + MOST_SHARPS]} major"


def _text(changes: Sequence[tuple[int, str]]) -> str:
    """A map on one line: its first value, and the next one or how many more there are."""
    _, first = changes[0]
    if len(changes) == 1:
        return first
    if len(changes) == 2:
        return f"{first}, then {changes[1][1]},"
    return f"{first} with {len(changes) - 1} changes"
