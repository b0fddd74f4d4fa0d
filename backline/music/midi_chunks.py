"""The chunks of a MIDI file: where its tracks begin and end, and whether the file is whole.

Headers and lengths are often wrong in files that every sequencer plays. What can be read all the
same is read, with a notice; what was cut off is an error.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

from backline.common.errors import UserError, counted
from backline.common.files import read_input
from backline.music.midi_events import END_OF_TRACK, mend

MIDI_SUFFIXES = (".mid", ".midi", ".kar", ".rmi")
LARGEST_FILE = 64 << 20  # bytes: larger than any song
MAX_TRACKS = 0xFFFF  # 16 bits of a MIDI header
SHOWS_0D = 4096  # bytes: nearly every whole MIDI file of this length holds the byte 0x0D


class Chunks(NamedTuple):
    """The track chunks of a MIDI file that can be read, and what was odd about the file."""

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


def left_after_end(n_bytes: int) -> str:
    """The notice about bytes that a track holds after its end of track."""
    return f"{counted(n_bytes, 'byte')} left out that a track holds after its end"


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
    bodies, _, _, _ = _whole_chunks(data, n_tracks)
    return len(bodies), n_tracks


def _track_bodies(data: bytes,
                  n_tracks: int,
                  where: str) -> tuple[list[bytes], list[str]]:
    """What the track chunks hold, and notices.

    The header's count of tracks is often wrong. A file with fewer is taken as whole if it ends with
    the end of a track: one that was cut off ends there only by a rare chance.

    Raises UserError if a track is cut off, or missing: what is left is no whole song.
    """
    bodies, place, n_wrong, others = _whole_chunks(data, n_tracks)
    _check_whole(data, place, bodies, n_tracks, where)
    notices = []
    if len(bodies) != n_tracks:
        notices.append(f"header promised {counted(n_tracks, 'track')}, file holds {len(bodies)}")
    if n_wrong:
        notices.append(f"{counted(n_wrong, 'track')} of another length than given")
    if others:  # Yamaha's XF and RIFF have some
        notices.append(f"left out, as it is no track: {', '.join(others)}")
    return bodies, notices


def _whole_chunks(data: bytes, n_tracks: int) -> tuple[list[bytes], int, int, list[str]]:
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
    """Where the first chunk after the header begins."""
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
        raise UserError(f"{where}: truncated MIDI file ({counted(len(bodies), 'whole track')}, "
                        f"where its header promises {n_tracks}{_as_text(data)}); export it again")
    if len(bodies) > MAX_TRACKS:
        raise UserError(f"{where}: more than {MAX_TRACKS} tracks, more than any song; export it "
                        f"again")


def _is_track(data: bytes, place: int) -> bool:
    return data[place:place + 4] == b"MTrk"


def _starts_track_or_ends(data: bytes, place: int) -> bool:
    return data[place:place + 4] in (b"MTrk", b"")


def _fits(data: bytes, end: int) -> bool:
    """Whether a track chunk may end at `end`, by what stands before and after it."""
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
