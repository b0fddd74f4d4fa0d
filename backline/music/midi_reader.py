"""Read MIDI into a `Song`: files as sequencers, converters and archives really leave them.

symusic parses what is in order, which is nearly everything, fast. Tracks that it would refuse or
misread are mended first (`midi_events.py`). What is odd and read all the same stands in
`Song.notices`; what cannot be read is a UserError of one line. Times stay in ticks.
"""

from __future__ import annotations

import struct
from pathlib import Path

import miditoolkit
import numpy as np
import symusic

from backline.common.errors import UserError
from backline.common.files import read_input
from backline.music.midi_events import (
    END_OF_TRACK,
    LATE,
    N_CHANNELS,
    N_PITCHES,
    NOTE_OFF,
    NOTE_ON,
    in_order,
    mend,
    track_chunk,
)
from backline.music.midi_writer import PartsMidiFile
from backline.music.song import NO_NOTES, Song, TimeSignature, Track, rounded_tempo

MIDI_SUFFIXES = (".mid", ".midi", ".kar", ".rmi")
LARGEST_FILE = 64 << 20  # bytes: larger than any song
# Longest song that is read, in quarters: a day of music. Past it the times are garbage.
MAX_QUARTERS = 24 * 60 * 240
TRACK_FOLLOWERS = b"MTrk", b""  # what comes after a track: another, or the end of the file
MAX_TRACKS = 0xFFFF  # 16 bits of a MIDI header
SHOWS_0D = 4096  # bytes: nearly every whole MIDI file of this length holds the byte 0x0D
OFFS_PER_PITCH = 2  # more notes of one pitch left sounding are rare; their tracks are walked
OFFS = [bytes([NOTE_OFF | channel]) + b"\0".join(bytes([pitch, 0]) for pitch in range(N_PITCHES)
                                                 for _ in range(OFFS_PER_PITCH)) for channel in range(N_CHANNELS)]
NOTE_ONS = [bytes([NOTE_ON | channel]) for channel in range(N_CHANNELS)]
MAX_FAST_TRACKS = 500  # each gets OFFS, of which a hostile file could fill memory; more tracks are walked


def read_song(path: str | Path, data: bytes | None = None) -> Song:
    """Read a MIDI file. With its bytes in `data` no file is read, and `path` only names it in messages.

    Bytes before the `MThd` header and after the last track are skipped; a note that is never
    switched off lasts to the end of its track.

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
        what = "recorded sound" if data[8:12] == b"WAVE" or data[:3] == b"ID3" else "no MThd header in it"
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
    header = struct.pack(">4sIHHH", b"MThd", 6, 1, len(bodies), division)
    song = (_song_of_tracks(header, bodies, _in_order(bodies), notices, str(path))
            or _song_of_tracks(header, bodies, [False] * len(bodies), notices, str(path)))
    assert song is not None  # mended tracks are read, or an error
    return song


def _check_header(data: bytes, midi_format: int, division: int, where: str) -> None:
    """Raise UserError if what follows the header cannot be read, whatever the tracks hold."""
    if b"MTrk" in data[9:17]:
        raise UserError(f"{where}: damaged MIDI file (bytes of its header are "
                        f"missing{_as_text(data)}); export it again")
    if not 0 < division < 0x8000:
        raise UserError(f"{where}: its time is not counted in ticks per quarter note (division "
                        f"0x{division:04x}); export it with a musical time base")
    if midi_format > 2:
        raise UserError(f"{where}: MIDI of an unknown format ({midi_format}); export it as format 1")


def _as_text(data: bytes) -> str:
    """The usual cause of bytes that are missing, where the file shows it."""
    return ": it was sent as text, which removes 0x0D" if len(data) > SHOWS_0D and b"\r" not in data else ""


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"


# ---------------------------------------------------------------- chunks


def _track_bodies(data: bytes, n_tracks: int, where: str) -> tuple[list[bytes], list[str]]:
    """What the track chunks hold, and notices. Chunks of other kinds are skipped, as are bytes after the last track.

    The header's count of tracks is often wrong. A file with fewer is taken as whole if it ends with
    the end of a track: one that was cut off ends there only by a rare chance.

    Raises UserError if a track is cut off, or missing: what is left is no whole song.
    """
    bodies: list[bytes] = []
    n_wrong, walk = 0, not _as_text(data)
    place = 8 + struct.unpack(">I", data[4:8])[0]
    if data[place:place + 4] != b"MTrk" and _chunk_end(data, place) > len(data):
        place = max(data.find(b"MTrk"), 14)  # the header is not as long as it says
    while place + 8 <= len(data) and (data[place:place + 4] == b"MTrk" or len(bodies) < n_tracks):
        end = _chunk_end(data, place)
        is_track = data[place:place + 4] == b"MTrk"
        fits = end <= len(data) and (data[end:end + 4] in TRACK_FOLLOWERS or data[end - 3:end] == END_OF_TRACK)
        if is_track and walk and not fits:
            real_end = _end_by_events(data, place + 8)
            walk = real_end is not None and (data[real_end:real_end + 4] in TRACK_FOLLOWERS
                                             or len(bodies) + 1 >= n_tracks)
            if walk:  # otherwise once is enough: walks that lead nowhere would take time quadratic in the file
                end, n_wrong = real_end, n_wrong + 1
        if end > len(data):
            break
        if is_track:
            bodies.append(data[place + 8:end])
        place = end
    ends_well = bodies and bodies[-1].endswith(END_OF_TRACK) and not data[place:].strip(b"\0")
    if data[place:place + 4] == b"MTrk" or (len(bodies) < n_tracks and not ends_well):
        raise UserError(f"{where}: truncated MIDI file ({_count(len(bodies), 'whole track')}, "
                        f"where its header promises {n_tracks}{_as_text(data)}); export it again")
    if len(bodies) > MAX_TRACKS:
        raise UserError(f"{where}: more than {MAX_TRACKS} tracks, more than any song; export it "
                        f"again")
    notices = []
    if len(bodies) != n_tracks:
        notices.append(f"header promised {_count(n_tracks, 'track')}, file holds {len(bodies)}")
    if n_wrong:
        notices.append(f"{_count(n_wrong, 'track')} of another length than given")
    return bodies, notices


def _chunk_end(data: bytes, place: int) -> int:
    return place + 8 + int.from_bytes(data[place + 4:place + 8], "big")


def _end_by_events(data: bytes, place: int) -> int | None:
    """Where the track whose events begin at `place` ends by its own end of track; None if it does not."""
    try:
        _, end, n_clipped = mend(data, place, "")
    except UserError:
        return None
    return end if data[end - 3:end] == END_OF_TRACK and not n_clipped else None


# ---------------------------------------------------------------- tracks


def _song_of_tracks(header: bytes, bodies: list[bytes], in_order: list[bool], notices: list[str], where: str,
                    ) -> Song | None:
    """The song of these tracks; those not `in_order` are mended. None if symusic does not read the others right."""
    chunks, n_clipped = [], 0
    for body, fine in zip(bodies, in_order, strict=True):
        if fine:
            chunk = track_chunk(body[:-len(END_OF_TRACK)], [OFFS[c] for c in range(N_CHANNELS) if NOTE_ONS[c] in body])
        else:
            chunk, _, clipped = mend(body, 0, where)
            n_clipped += clipped
        chunks.append(chunk)
    if n_clipped:
        notices = [*notices, f"{_count(n_clipped, 'data byte')} over 127 clipped"]
    try:
        score = symusic.Score.from_midi(header + b"".join(chunks))
    except Exception as err:  # whatever the parser throws: it is C++, and its error classes differ by version
        if any(in_order):
            return None
        raise UserError(f"{where}: not a readable MIDI file ({err}); export it again") from None
    return _song_from_score(score, notices, where, OFFS_PER_PITCH if any(in_order) else None)


def _in_order(bodies: list[bytes]) -> list[bool]:
    """Which tracks symusic may read as they stand."""
    if len(bodies) > MAX_FAST_TRACKS:
        return [False] * len(bodies)
    all_fine = in_order(b"".join(bodies))  # one look for all of them is quicker
    return [body.find(END_OF_TRACK) == len(body) - len(END_OF_TRACK) and (all_fine or in_order(body))
            for body in bodies]


# ---------------------------------------------------------------- notes


def _song_from_score(score: symusic.Score, notices: list[str], where: str, offs_per_pitch: int | None = None,
                     ) -> Song | None:
    """The song of a score whose notes left sounding end `LATE` ticks after the end of their track.

    None if all of `offs_per_pitch` late note-offs of a pitch are used: there may have been more
    such notes, and symusic drops what nothing switches off.
    """
    columns = [track.notes.numpy() for track in score.tracks]
    n_notes = [len(each["time"]) for each in columns]
    onset, duration, pitch = (np.concatenate([np.zeros(0, np.int64), *(each[name] for each in columns)])
                              for name in ("time", "duration", "pitch"))
    end = onset + duration
    line = np.repeat(np.arange(len(columns)) * N_PITCHES, n_notes) + pitch
    late = line[end >= LATE]
    if len(late) and offs_per_pitch and np.unique(late, return_counts=True)[1].max() >= offs_per_pitch:
        return None
    line, onset, end = _first_releases(line, onset, end)
    late = end >= LATE
    n_late = int(late.sum())
    if n_late:
        end[late] -= LATE
        notices = [*notices, f"{_count(n_late, 'note')} never switched off"]
    latest = int(end.max(initial=0)) / score.ticks_per_quarter
    if latest > MAX_QUARTERS:
        raise UserError(f"{where}: has a note at quarter {latest:.0f}, beyond any song; its times "
                        f"are damaged")
    notes = np.stack([onset, end, line & (N_PITCHES - 1)], axis=1)
    tracks, start = [], 0
    for track, n in zip(score.tracks, n_notes, strict=True):
        name = track.name.replace("\0", " ").strip()  # old sequencers fill up names with zeros
        if n:
            tracks.append(Track(name, track.program, track.is_drum, notes[start:start + n]))
        start += n
    tempos = [(tempo.time, rounded_tempo(tempo.qpm)) for tempo in score.tempos if tempo.mspq > 0]
    signatures = [TimeSignature(s.time, s.numerator, s.denominator) for s in score.time_signatures]
    return Song(score.ticks_per_quarter, tuple(tracks), _by_tick(tempos), _by_tick(signatures), tuple(notices))


def _by_tick(changes: list) -> tuple:
    """Sorted by tick alone: of several at one tick the last in the file is in force."""
    return tuple(sorted(changes, key=lambda change: change[0]))


def _first_releases(line: np.ndarray, onset: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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
    order = np.argsort(line.astype(np.uint16) if len(line) and line[-1] <= 0xFFFF else line, kind="stable")
    line, onset, end = line[order], onset[order], end[order]
    base = line << int(end.max(initial=0)).bit_length()  # one time axis for all lines
    begins = base + onset
    releases = np.sort(base + end, kind="stable")
    # A line has as many releases as onsets, and mostly the release of a note has the same place in line.
    first = releases.copy()
    astray = releases <= begins
    astray[1:] |= releases[:-1] > begins[1:]
    places = np.flatnonzero(astray)
    if len(places):
        found = np.searchsorted(releases, begins[places], side="right")
        first[places] = releases[np.minimum(found, len(releases) - 1)]
    return line, onset, np.where(end > onset, first - base, onset)


def first_release(notes: np.ndarray) -> np.ndarray:
    """`_first_releases` for (N, 3) onset, end, pitch of one track in any order; left unchanged. Returns (N, 3)."""
    if not len(notes):
        return NO_NOTES
    onset, end, pitch = notes[np.lexsort((notes[:, 0], notes[:, 2]))].T
    start = min(int(onset.min()), int(end.min()))  # objects in memory may begin before 0
    pitch, onset, end = _first_releases(pitch, onset - start, end - start)
    return np.stack([onset + start, end + start, pitch], axis=1)


def song_from_miditoolkit(midi: miditoolkit.MidiFile) -> Song:
    """The song of an object in memory, which stays unchanged.

    Its notes end as they would after being written and read. Only a `PartsMidiFile`, whose notes
    come from tokens and may overlap, is taken as it stands, so that the round trip in memory is
    exact.
    """
    exact = isinstance(midi, PartsMidiFile)
    tracks = []
    for instrument in midi.instruments:
        rows = [(note.start, note.end, note.pitch) for note in instrument.notes]
        notes = np.array(rows, np.int64).reshape(-1, 3)
        name = (instrument.name or "").strip()
        tracks.append(Track(name, int(instrument.program), bool(instrument.is_drum),
                            notes if exact else first_release(notes)))
    tempos = [(int(change.time), rounded_tempo(float(change.tempo))) for change in midi.tempo_changes]
    signatures = [TimeSignature(int(s.time), s.numerator, s.denominator) for s in midi.time_signature_changes]
    return Song(midi.ticks_per_beat, tuple(tracks), _by_tick(tempos), _by_tick(signatures))
