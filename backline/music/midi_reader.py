"""Read MIDI into a `Song`: files as sequencers, converters and archives really leave them.

symusic parses what is in order, which is nearly everything, fast. Tracks that it would refuse or
misread are mended first (`midi_events.py`). What is odd and read all the same stands in
`Song.notices`; what cannot be read is a UserError of one line. Times stay in ticks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import miditoolkit
import numpy as np

from backline.common.errors import UserError, counted
from backline.music.midi_chunks import Chunks, left_after_end, open_chunks
from backline.music.midi_edits import with_releases
from backline.music.midi_events import END_OF_TRACK, LATE_TICKS, N_PITCHES, is_readable
from backline.music.midi_tracks import read_tracks, song_of_tracks, tracks_to_bytes
from backline.music.midi_writer import PartsMidiFile
from backline.music.players import PLAYERS_BEGINNING
from backline.music.releases import LEFT_ON, first_release, first_releases
from backline.music.song import (
    Song,
    TimeSignature,
    Track,
    check_times,
    meter_notices,
    rounded_tempo,
)
from backline.music.track_reader import (
    OFFS_PER_PITCH,
    ParserError,
    TrackChunk,
    read_track,
    song_tracks,
)

SIGNATURES = re.compile(rb"\xff\x58[\x02-\x7f](.)(.)", re.DOTALL)
SILENCING = re.compile(rb"[\xb0-\xbf][\x78\x7b]")  # controllers that switch off all notes of a channel
MAX_FAST_TRACKS = 500  # each gets OFFS: a hostile file could fill memory with them; more are walked


def read_song(path: str | Path, data: bytes | None = None) -> Song:
    """Read the notes of a MIDI file. With its bytes in `data` no file is read, `path` only names it.

    A note that is never switched off lasts to the end of its track.

    Raises UserError, as `open_chunks` does.
    """
    chunks = open_chunks(path, data)
    if any(PLAYERS_BEGINNING in body for body in chunks.bodies):
        return song_of_tracks(read_tracks(path, data), str(path))[0]
    song = _song_of_chunks(chunks, str(path))
    may_be_silenced = any(SILENCING.search(body) for body in chunks.bodies)
    if may_be_silenced and any(LEFT_ON in notice for notice in song.notices):
        return _song_of_chunks(_with_releases(path, data), str(path))
    return song


def _song_of_chunks(chunks: Chunks, where: str) -> Song:
    bodies = chunks.bodies
    readable = _are_readable(bodies)
    song = _song_of_tracks(chunks.ticks_per_quarter, bodies, readable, chunks.notices, where)
    if song is None:
        none_readable = [False] * len(bodies)
        song = _song_of_tracks(chunks.ticks_per_quarter, bodies, none_readable, chunks.notices, where)
    assert song is not None  # mended tracks are read, or an error
    return song


def _with_releases(path: str | Path, data: bytes | None) -> Chunks:
    """The chunks of a file with note-offs for the notes that only a controller ends."""
    midi, n_by_controller, n_by_track = with_releases(read_tracks(path, data))
    notices = list(midi.notices)
    if n_by_controller:
        notices.append(f"{counted(n_by_controller, 'note')} switched off by a controller alone")
    if n_by_track:
        notices.append(f"{counted(n_by_track, 'note')} {LEFT_ON}")
    return open_chunks(path, tracks_to_bytes(midi))._replace(notices=notices)


# ---------------------------------------------------------------- tracks


def _song_of_tracks(ticks_per_quarter: int,
                    bodies: list[bytes],
                    are_readable: list[bool],
                    notices: list[str],
                    where: str) -> Song | None:
    """The song of these tracks; those not readable are mended.

    None if symusic does not read the others right.
    """
    try:
        chunks = [read_track(body, as_it_stands, ticks_per_quarter, where)
                  for body, as_it_stands in zip(bodies, are_readable, strict=True)]
    except ParserError as err:
        if any(are_readable):
            return None
        raise UserError(f"{where}: not a readable MIDI file ({err}); export it again") from None
    n_clipped = sum(chunk.n_clipped for chunk in chunks)
    if n_clipped:
        notices = [*notices, f"{counted(n_clipped, 'data byte')} over 127 clipped"]
    n_after = sum(chunk.n_after for chunk in chunks)
    if n_after:
        notices = [*notices, left_after_end(n_after)]
    signatures = [value for body in bodies for value in _signatures(body)]
    notices = [*notices, *meter_notices(signatures)]
    offs_per_pitch = OFFS_PER_PITCH if any(are_readable) else None
    return _song_from_chunks(ticks_per_quarter, chunks, notices, where, offs_per_pitch)


def _signatures(body: bytes) -> list[tuple[int, int]]:
    """Numerators and powers of two of a track's time signatures."""
    return [(numerator[0], power[0]) for numerator, power in SIGNATURES.findall(body)]


def _are_readable(bodies: list[bytes]) -> list[bool]:
    """Which tracks symusic may read as they stand."""
    if len(bodies) > MAX_FAST_TRACKS:
        return [False] * len(bodies)
    all_readable = is_readable(b"".join(bodies))  # one look for all of them is quicker
    return [_ends_once(body) and (all_readable or is_readable(body))
            for body in bodies]


def _ends_once(body: bytes) -> bool:
    """Whether the end of track stands at the end, and nowhere else."""
    last_place = len(body) - len(END_OF_TRACK)
    return body.find(END_OF_TRACK) == last_place


# ---------------------------------------------------------------- notes


def _song_from_chunks(ticks_per_quarter: int,
                      chunks: Sequence[TrackChunk],
                      notices: list[str],
                      where: str,
                      offs_per_pitch: int | None = None) -> Song | None:
    """The song of these chunks, whose notes left sounding end `LATE_TICKS` after their track.

    None if all of `offs_per_pitch` late note-offs of a pitch are used: there may have been more
    such notes, and symusic drops what nothing switches off.
    """
    columns = [track.notes.numpy()
               for chunk in chunks
               for track in chunk.playing]
    n_notes = [len(each["time"]) for each in columns]
    onset = _column(columns, "time")                         # (N,) each
    end = onset + _column(columns, "duration")
    pitch = _column(columns, "pitch")
    track = np.repeat(np.arange(len(columns)), n_notes)
    line = track * N_PITCHES + pitch
    late = line[end >= LATE_TICKS]
    if len(late) and offs_per_pitch:
        _, n_late_of_line = np.unique(late, return_counts=True)
        if n_late_of_line.max() >= offs_per_pitch:
            return None
    line, onset, end = first_releases(line, onset, end)
    is_late = end >= LATE_TICKS
    n_late = int(is_late.sum())
    if n_late:
        end[is_late] -= LATE_TICKS
        notices = [*notices, f"{counted(n_late, 'note')} {LEFT_ON}"]
    check_times(int(end.max(initial=0)), ticks_per_quarter, where)
    pitch = line & (N_PITCHES - 1)
    notes = np.stack([onset, end, pitch], axis=1)            # (N, 3), track by track
    tempos = [(tempo.time, rounded_tempo(tempo.qpm))
              for chunk in chunks
              for tempo in chunk.score.tempos
              if tempo.mspq > 0]
    signatures = [TimeSignature(each.time, each.numerator, each.denominator)
                  for chunk in chunks
                  for each in chunk.score.time_signatures]
    return Song(ticks_per_quarter,
                song_tracks(chunks, notes),
                _by_tick(tempos),
                _by_tick(signatures),
                tuple(notices))


def _column(columns: list[dict[str, np.ndarray]], name: str) -> np.ndarray:
    """(N,) int64: one column of the notes of all tracks."""
    of_tracks = [each[name] for each in columns]
    nothing = np.zeros(0, np.int64)
    return np.concatenate([nothing, *of_tracks])


def _by_tick(changes: list) -> tuple:
    """Sorted by tick alone: of several at one tick the last in the file is in force."""
    return tuple(sorted(changes, key=lambda change: change[0]))


def song_from_miditoolkit(midi: miditoolkit.MidiFile) -> Song:
    """The song of an object in memory, which stays unchanged.

    Its notes end as they would after being written and read. Only a `PartsMidiFile`, whose notes
    come from tokens and may overlap, is taken as it stands, so that the round trip in memory is
    exact.
    """
    is_exact = isinstance(midi, PartsMidiFile)
    tracks = []
    for instrument in midi.instruments:
        rows = [(note.start, note.end, note.pitch) for note in instrument.notes]
        notes = np.array(rows, np.int64).reshape(-1, 3)
        if not is_exact:
            notes = first_release(notes)
        name = (instrument.name or "").strip()
        program = int(instrument.program)
        tracks.append(Track(name, program, bool(instrument.is_drum), notes))
    tempos = [(int(each.time), rounded_tempo(float(each.tempo)))
              for each in midi.tempo_changes]
    signatures = [TimeSignature(int(each.time), each.numerator, each.denominator)
                  for each in midi.time_signature_changes]
    return Song(midi.ticks_per_beat, tuple(tracks), _by_tick(tempos), _by_tick(signatures))
