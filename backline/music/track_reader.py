"""Read one track chunk with symusic, and find the channel and program of each of its tracks.

symusic makes one track for each channel and program of a chunk, sorted by them. It does not tell
the channel, nor whether the file names the program. The first events of a chunk tell both.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import symusic

from backline.music.channels import (
    DRUM_CHANNEL,
    FEWEST_SPREAD,
    SetUp,
    Survey,
    is_spread,
    program_from,
    survey,
)
from backline.music.midi_events import (
    END_OF_TRACK,
    META,
    N_CHANNELS,
    N_PITCHES,
    NAME,
    NOTE_OFF,
    NOTE_ON,
    PITCH_BEND,
    PROGRAM_CHANGE,
    bytes_after,
    mend,
    number_at,
    track_chunk,
)
from backline.music.names import decoded_name, printable
from backline.music.song import Track

OFFS_PER_PITCH = 2  # more notes of one pitch left sounding are rare; their tracks are walked
NOTE_ONS = [bytes([NOTE_ON | channel]) for channel in range(N_CHANNELS)]
BENDS = {channel: bytes([PITCH_BEND | channel]) for channel in range(N_CHANNELS)}
NAME_EVENT = bytes([META, NAME])
UNREADABLE = "\ufffd"  # symusic's letter for what is no UTF-8
PROGRAM_CHANGES = [bytes([PROGRAM_CHANGE | channel]) for channel in range(N_CHANNELS)]


def _offs(channel: int) -> bytes:
    """Note-offs for every pitch of a channel, OFFS_PER_PITCH of each, in running status."""
    pitches = np.repeat(np.arange(N_PITCHES), OFFS_PER_PITCH).tolist()
    events = [bytes([pitch, 0]) for pitch in pitches]
    return bytes([NOTE_OFF | channel]) + b"\0".join(events)


OFFS = [_offs(channel) for channel in range(N_CHANNELS)]


class ChannelProgram(NamedTuple):
    """The channel and program of one of symusic's tracks.

    channel: −1 where it is not known.
    program: None where the chunk names none.
    bank: of the program that the channel begins with.
    first_onset: of the channel, in ticks.
    """

    channel: int
    program: int | None
    bank: int = 0
    first_onset: int = 0


class TrackChunk(NamedTuple):
    """What symusic reads in a track chunk, and the player of each of its tracks with notes."""

    body: bytes
    score: Any
    playing: list[Any]
    voices: list[ChannelProgram]
    n_clipped: int  # data bytes over 127
    n_after: int  # bytes after the end of track


class ParserError(Exception):
    """What symusic threw: its own error classes differ by version."""


def read_track(body: bytes,
               as_it_stands: bool,
               ticks_per_quarter: int,
               where: str) -> TrackChunk:
    """Read the body of a track chunk, mended unless it is to be read as it stands.

    Raises UserError if it cannot be mended, ParserError if symusic does not read it.
    """
    n_clipped = n_after = 0
    if as_it_stands:
        channels = [c for c in range(N_CHANNELS) if NOTE_ONS[c] in body]
        offs = [OFFS[c] for c in channels]
        chunk = track_chunk(body[:-len(END_OF_TRACK)], offs)
    else:
        chunk, end, n_clipped = mend(body, 0, where)
        n_after = bytes_after(body[end:])
    score, playing = _parse(chunk, ticks_per_quarter)
    found = _survey(body, playing)
    if found.has_late_change and as_it_stands:
        return read_track(body, False, ticks_per_quarter, where)
    voices = [ChannelProgram(channel, program, found.banks[channel], found.first_onsets[channel])
              for channel, program in found.voices]
    if [voice.program or 0 for voice in voices] != [track.program for track in playing]:
        voices = [ChannelProgram(DRUM_CHANNEL if track.is_drum else -1, track.program or None)
                  for track in playing]
    return TrackChunk(body, score, playing, voices, n_clipped, n_after)


def _parse(chunk: bytes, ticks_per_quarter: int) -> tuple[Any, list[Any]]:
    """The score of a chunk, and its tracks with notes."""
    header = struct.pack(">4sIHHH", b"MThd", 6, 1, 1, ticks_per_quarter)
    try:
        score = symusic.Score.from_midi(header + chunk)
    except Exception as err:
        raise ParserError(str(err)) from None
    return score, [track for track in score.tracks if len(track.notes)]


def _survey(body: bytes, playing: list[Any]) -> Survey:
    """The survey of a chunk, read as far as needed; an empty one if it is damaged."""
    if not playing:
        return Survey()
    has_several_programs = sum(each in body for each in NOTE_ONS) < len(playing)
    try:
        if has_several_programs:
            return survey(body)
        found = survey(body, len(playing))
        programs = [program or 0 for _, program in found.voices]
        is_plain = programs == [track.program for track in playing]
        for channel, program in found.played:
            may_follow = program is None and PROGRAM_CHANGES[channel] in body
            if may_follow and channel != DRUM_CHANNEL:
                is_plain = False
        return found if is_plain else survey(body)
    except (IndexError, ValueError):
        return Survey()


# ---------------------------------------------------------------- as tracks of a song


def song_tracks(chunks: Sequence[TrackChunk], notes: np.ndarray) -> tuple[Track, ...]:
    """The tracks of a song. (N, 3) `notes` are those of its playing tracks, one after another."""
    set_up = SetUp()
    for chunk in chunks:
        set_up.read(chunk.body)
    tracks = []
    start = 0
    for index, chunk in enumerate(chunks):
        is_one = _is_spread(chunk)
        shares_name = len({voice.channel for voice in chunk.voices}) > 1 and not is_one
        for track, voice in zip(chunk.playing, chunk.voices, strict=True):
            end = start + len(track.notes)
            is_drum = track.is_drum
            program = voice.program
            if voice.channel >= 0:
                is_drum = set_up.plays_drums(voice.channel, voice.bank) and not is_one
            if program is None and voice.channel >= 0 and not is_drum:
                others = [*chunks[:index], *chunks[index + 1:]]
                program = _program_elsewhere(voice, others)
            tracks.append(Track(
                _name(track.name, chunk.body),
                program or 0,
                is_drum,
                notes[start:end],
                has_program=program is not None,
                shares_name=shares_name,
                channel=voice.channel,
                spread=index if is_one else -1,
            ))
            start = end
    return tuple(tracks)


def _name(name: str, body: bytes) -> str:
    """A track's name. symusic reads UTF-8 alone; other encodings are read from the track's body."""
    if UNREADABLE not in name:
        return printable(name)
    start = body.find(NAME_EVENT)
    if start < 0:
        return printable(name)
    try:
        size, place = number_at(body, start + len(NAME_EVENT))
    except (IndexError, ValueError):
        return printable(name)
    return decoded_name(body[place:place + size])


def _is_spread(chunk: TrackChunk) -> bool:
    """Whether all channels of a chunk play one instrument."""
    channels = {voice.channel for voice in chunk.voices}
    if len(channels) < FEWEST_SPREAD or not channels <= BENDS.keys():
        return False
    if not all(BENDS[channel] in chunk.body for channel in channels):
        return False
    try:
        bends = survey(chunk.body).bends
    except (IndexError, ValueError):
        return False
    return is_spread([(voice.channel, voice.program, len(track.notes), bends.get(voice.channel, 0))
                      for track, voice in zip(chunk.playing, chunk.voices, strict=True)])


def _program_elsewhere(voice: ChannelProgram, others: Sequence[TrackChunk]) -> int | None:
    """The program that other chunks set a channel to, if they do not play on it themselves."""
    changes = []
    for chunk in others:
        if PROGRAM_CHANGES[voice.channel] in chunk.body:
            try:
                found = survey(chunk.body)
            except (IndexError, ValueError):
                continue
            if voice.channel not in found.first_onsets:
                changes += found.changes
    return program_from(changes, voice.channel, voice.first_onset)
