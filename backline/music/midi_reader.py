"""Read MIDI into a `Song`: files as sequencers, converters and archives really leave them.

symusic parses what is in order, which is nearly everything, fast. Tracks that it would refuse or
misread are mended first (`midi_events.py`). What is odd and read all the same stands in
`Song.notices`; what cannot be read is a UserError of one line. Times stay in ticks.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import miditoolkit
import numpy as np

from backline.common.errors import UserError
from backline.common.files import read_input
from backline.music.midi_events import END_OF_TRACK, LATE_TICKS, N_PITCHES, is_readable, mend
from backline.music.midi_writer import PartsMidiFile
from backline.music.players import PLAYERS_BEGINNING
from backline.music.song import (
    NO_NOTES,
    Song,
    TimeSignature,
    Track,
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

MIDI_SUFFIXES = (".mid", ".midi", ".kar", ".rmi")
LARGEST_FILE = 64 << 20  # bytes: larger than any song
# Longest song that is read, in quarters: a day of music. Past it the times are garbage.
MAX_QUARTERS = 24 * 60 * 240
MAX_TRACKS = 0xFFFF  # 16 bits of a MIDI header
SHOWS_0D = 4096  # bytes: nearly every whole MIDI file of this length holds the byte 0x0D
SIGNATURES = re.compile(rb"\xff\x58[\x02-\x7f](.)(.)", re.DOTALL)
SILENCING = re.compile(rb"[\xb0-\xbf][\x78\x7b]")  # controllers that switch off all notes of a channel
LEFT_ON = "never switched off"  # said of notes
MAX_FAST_TRACKS = 500  # each gets OFFS: a hostile file could fill memory with them; more are walked


class Chunks(NamedTuple):
    """The track chunks of a MIDI file that can be read, and what was odd about the others."""

    ticks_per_quarter: int
    bodies: list[bytes]
    notices: list[str]


def open_chunks(path: str | Path, data: bytes | None = None) -> Chunks:
    """The track chunks of a MIDI file. With its bytes in `data` no file is read.

    Bytes before the `MThd` header and after the last track are skipped.

    Raises:
        UserError: missing, empty, cut off, damaged or not MIDI; time that is not ticks per quarter;
            several songs.
    """
    if data is None:
        data = read_input(Path(path), LARGEST_FILE)
    if not data:
        raise UserError(f"{path}: an empty file, not MIDI; export it again")
    if len(data) > LARGEST_FILE:
        raise UserError(f"{path}: {len(data) >> 20} MB, larger than any song; give a Standard MIDI "
                        f"File")
    start = data.find(b"MThd")
    if start < 0:
        is_wave = data[8:12] == b"WAVE"
        is_mp3 = data[:3] == b"ID3"
        is_sound = is_wave or is_mp3
        what = "recorded sound" if is_sound else "no MThd header in it"
        raise UserError(f"{path}: not a MIDI file ({what}); give a Standard MIDI File")
    data = data[start:]
    if len(data) < 14:
        raise UserError(f"{path}: truncated MIDI file (its header is cut off); export it again")
    midi_format, n_tracks, division = struct.unpack(">HHH", data[8:14])
    _check_header(data, midi_format, division, str(path))
    bodies, notices = _track_bodies(data, n_tracks, str(path))
    if midi_format == 2 and len(bodies) > 1:
        raise UserError(f"{path}: holds {len(bodies)} independent patterns (format 2), not one "
                        f"song; export each of them, or the arrangement, as format 1")
    return Chunks(division, bodies, notices)


def read_song(path: str | Path, data: bytes | None = None) -> Song:
    """Read the notes of a MIDI file. With its bytes in `data` no file is read, `path` only names it.

    A note that is never switched off lasts to the end of its track.

    Raises UserError, as `open_chunks` does.
    """
    chunks = open_chunks(path, data)
    if any(PLAYERS_BEGINNING in body for body in chunks.bodies):
        from backline.music.midi_tracks import read_tracks, song_of_tracks  # which import this one

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
    """The chunks of a file with the note-offs that it lacks: where a controller ends notes."""
    from backline.music.midi_edits import with_releases  # which imports this one
    from backline.music.midi_tracks import read_tracks, tracks_to_bytes

    midi, n_by_controller, n_by_track = with_releases(read_tracks(path, data))
    notices = list(midi.notices)
    if n_by_controller:
        notices.append(f"{_count(n_by_controller, 'note')} switched off by a controller alone")
    if n_by_track:
        notices.append(f"{_count(n_by_track, 'note')} {LEFT_ON}")
    return open_chunks(path, tracks_to_bytes(midi))._replace(notices=notices)


def _check_header(data: bytes,
                  midi_format: int,
                  division: int,
                  where: str) -> None:
    """Raise UserError if what follows the header cannot be read, whatever the tracks hold."""
    if b"MTrk" in data[9:17]:
        raise UserError(f"{where}: damaged MIDI file (bytes of its header are "
                        f"missing{_as_text(data)}); export it again")
    if not 0 < division < 0x8000:
        raise UserError(f"{where}: its time is not counted in ticks per quarter note (division "
                        f"0x{division:04x}); export it with a musical time base")
    if midi_format > 2:
        raise UserError(f"{where}: MIDI of an unknown format ({midi_format}); export it as "
                        f"format 1")


def _as_text(data: bytes) -> str:
    """The usual cause of bytes that are missing, where the file shows it."""
    if len(data) <= SHOWS_0D or b"\r" in data:
        return ""
    return ": it was sent as text, which removes 0x0D"


def behind_end(n: int) -> str:
    """A line about bytes that a track holds behind its end."""
    return f"{_count(n, 'byte')} left out that a track holds behind its end"


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"


# ---------------------------------------------------------------- chunks


def tracks_held(data: bytes) -> tuple[int, int]:
    """How many whole tracks the bytes of a MIDI file hold, and how many its header promises.

    While a file is being written there are fewer; of nothing, or half a header, one is expected.
    (0, 0) for what is no MIDI file.
    """
    data = data[max(data.find(b"MThd"), 0):]
    if len(data) < 14:
        is_beginning = data[:4] == b"MThd"[:len(data)]
        return 0, int(is_beginning)
    if not data.startswith(b"MThd"):
        return 0, 0
    n_tracks, = struct.unpack(">H", data[10:12])
    bodies, _, _, _ = _walk(data, n_tracks)
    return len(bodies), n_tracks


def _track_bodies(data: bytes,
                  n_tracks: int,
                  where: str) -> tuple[list[bytes], list[str]]:
    """What the track chunks hold, and notices.

    The header's count of tracks is often wrong. A file with fewer is taken as whole if it ends with
    the end of a track: one that was cut off ends there only by a rare chance.

    Raises UserError if a track is cut off, or missing: what is left is no whole song.
    """
    bodies, place, n_wrong, others = _walk(data, n_tracks)
    _check_whole(data, place, bodies, n_tracks, where)
    notices = []
    if len(bodies) != n_tracks:
        notices.append(f"header promised {_count(n_tracks, 'track')}, file holds {len(bodies)}")
    if n_wrong:
        notices.append(f"{_count(n_wrong, 'track')} of another length than given")
    if others:  # as Yamaha's XF and RIFF have them
        notices.append(f"left out, as it is no track: {', '.join(others)}")
    return bodies, notices


def _walk(data: bytes, n_tracks: int) -> tuple[list[bytes], int, int, list[str]]:
    """What whole track chunks hold, where the last chunk ends, how many lengths were wrong, and the
    names of other chunks.

    Chunks of other kinds are skipped, as are bytes after the last track.
    """
    bodies: list[bytes] = []
    others: list[str] = []
    n_wrong = 0
    may_walk = not _as_text(data)
    place = _first_chunk(data)
    while place + 8 <= len(data):
        is_track = _is_track(data, place)
        if not is_track and len(bodies) >= n_tracks:
            break
        end = _chunk_end(data, place)
        if is_track and may_walk and not _fits(data, end):
            real_end = _end_by_events(data, place + 8)
            is_last = len(bodies) + 1 >= n_tracks
            if real_end is not None and (_starts_track_or_ends(data, real_end) or is_last):
                end = real_end
                n_wrong += 1
            else:  # once is enough: walks that lead nowhere would take time quadratic in the file
                may_walk = False
        if end > len(data):
            break
        if is_track:
            bodies.append(data[place + 8:end])
        else:
            others += _chunk_name(data, place)
        place = end
    others += _chunk_name(data, place)
    return bodies, place, n_wrong, others


def _chunk_name(data: bytes, place: int) -> list[str]:
    """The name of the chunk at `place`; none if its first bytes are no name."""
    name = data[place:].lstrip(b"\0")[:4]  # in RIFF, chunks are filled up to an even length
    return [name.decode()] if len(name) == 4 and name.isalnum() else []


def _first_chunk(data: bytes) -> int:
    """Where the first chunk behind the header begins."""
    header_size, = struct.unpack(">I", data[4:8])
    place = 8 + header_size
    if _is_track(data, place) or _chunk_end(data, place) <= len(data):
        return place
    return max(data.find(b"MTrk"), 14)  # the header is not as long as it says


def _check_whole(data: bytes,
                 place: int,
                 bodies: list[bytes],
                 n_tracks: int,
                 where: str) -> None:
    """Raise UserError if the chunks read, up to `place`, are not a whole file's."""
    rest = data[place:].strip(b"\0")
    ends_well = (bool(bodies)
                 and bodies[-1].endswith(END_OF_TRACK)
                 and not rest)
    is_missing = len(bodies) < n_tracks and not ends_well
    if _is_track(data, place) or is_missing:
        raise UserError(f"{where}: truncated MIDI file ({_count(len(bodies), 'whole track')}, "
                        f"where its header promises {n_tracks}{_as_text(data)}); export it again")
    if len(bodies) > MAX_TRACKS:
        raise UserError(f"{where}: more than {MAX_TRACKS} tracks, more than any song; export it "
                        f"again")


def _is_track(data: bytes, place: int) -> bool:
    return data[place:place + 4] == b"MTrk"


def _starts_track_or_ends(data: bytes, place: int) -> bool:
    return data[place:place + 4] in (b"MTrk", b"")


def _fits(data: bytes, end: int) -> bool:
    """Whether a track chunk may end at `end`, by what stands before and behind it."""
    if end > len(data):
        return False
    return _starts_track_or_ends(data, end) or data[end - 3:end] == END_OF_TRACK


def _chunk_end(data: bytes, place: int) -> int:
    digits = data[place + 4:place + 8]
    size = int.from_bytes(digits, "big")
    return place + 8 + size


def _end_by_events(data: bytes, place: int) -> int | None:
    """Where the track whose events begin at `place` has its end of track; None if it has none."""
    try:
        _, end, n_clipped = mend(data, place, "")
    except UserError:
        return None
    if n_clipped or data[end - 3:end] != END_OF_TRACK:
        return None
    return end


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
        notices = [*notices, f"{_count(n_clipped, 'data byte')} over 127 clipped"]
    n_behind = sum(chunk.n_behind for chunk in chunks)
    if n_behind:
        notices = [*notices, behind_end(n_behind)]
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
    line, onset, end = _first_releases(line, onset, end)
    is_late = end >= LATE_TICKS
    n_late = int(is_late.sum())
    if n_late:
        end[is_late] -= LATE_TICKS
        notices = [*notices, f"{_count(n_late, 'note')} {LEFT_ON}"]
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


def check_times(last_tick: int, ticks_per_quarter: int, where: str) -> None:
    """Raise UserError if the last note ends beyond any song."""
    latest = last_tick / ticks_per_quarter
    if latest > MAX_QUARTERS:
        raise UserError(f"{where}: has a note at quarter {latest:.0f}, beyond any song; its times "
                        f"are damaged")


def _column(columns: list[dict[str, np.ndarray]], name: str) -> np.ndarray:
    """(N,) int64: one column of the notes of all tracks."""
    of_tracks = [each[name] for each in columns]
    nothing = np.zeros(0, np.int64)
    return np.concatenate([nothing, *of_tracks])


def _by_tick(changes: list) -> tuple:
    """Sorted by tick alone: of several at one tick the last in the file is in force."""
    return tuple(sorted(changes, key=lambda change: change[0]))


def _first_releases(line: np.ndarray,
                    onset: np.ndarray,
                    end: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """End each note at the first note-off of its pitch after its onset.

    MIDI readers pair overlapping notes of one pitch first in, first out; what sounds ends at the
    first note-off. The note-offs are exactly the ends that the reader found, whatever it paired
    them with.

    Args:
        line, onset, end: (N,) int64, of each line sorted by onset; `line` is one number for each
            pitch of each track, the ticks are not negative.
    Returns:
        The same three, sorted by line, then onset. A note of length zero stays so.
    """
    # Stable sorts: by digits where the numbers are short, and nearly free where they are in order.
    is_short = len(line) > 0 and line[-1] <= 0xFFFF
    keys = line.astype(np.uint16) if is_short else line
    order = np.argsort(keys, kind="stable")
    line = line[order]
    onset = onset[order]
    end = end[order]
    latest = int(end.max(initial=0))
    base = line << latest.bit_length()  # one time axis for all lines
    begins = base + onset
    releases = np.sort(base + end, kind="stable")
    # A line has as many releases as onsets, and mostly the k-th release is that of the k-th onset.
    first = releases.copy()
    is_astray = releases <= begins
    is_astray[1:] |= releases[:-1] > begins[1:]
    places = np.flatnonzero(is_astray)
    if len(places):
        found = np.searchsorted(releases, begins[places], side="right")
        found = np.minimum(found, len(releases) - 1)
        first[places] = releases[found]
    end = np.where(end > onset, first - base, onset)
    return line, onset, end


def first_release(notes: np.ndarray) -> np.ndarray:
    """(N, 3) onset, end, pitch of one track: each note ended as `_first_releases` does.

    `notes`, (N, 3) in any order, stay unchanged.
    """
    if not len(notes):
        return NO_NOTES
    onset, end, pitch = notes.T
    by_pitch = np.lexsort((onset, pitch))
    onset, end, pitch = notes[by_pitch].T
    start = min(int(onset.min()), int(end.min()))  # objects in memory may begin before 0
    pitch, onset, end = _first_releases(pitch, onset - start, end - start)
    return np.stack([onset + start, end + start, pitch], axis=1)


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
