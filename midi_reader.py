"""Read MIDI into a `Song`: files as sequencers, converters and archives really leave them.

symusic parses what is in order, which is nearly everything, fast. What it would refuse or silently misread is
walked event by event first (`_mend`), so that symusic always gets a file in order. What is odd and read all the same
stands in `Song.notices`; what cannot be read is a UserError of one line. Times stay in ticks.
"""

from __future__ import annotations

import struct
from pathlib import Path

import miditoolkit
import numpy as np
import symusic

from errors import UserError
from files import read_input
from songs import NO_NOTES, PartsMidiFile, Song, TimeSignature, Track

LARGEST_FILE = 64 << 20  # bytes: larger than any song
# Longest song that is read, in quarters: a day of music. Past it the times are garbage.
MAX_QUARTERS = 24 * 60 * 240
TRACK_FOLLOWERS = b"MTrk", b""  # what comes after a track: another, or the end of the file
MAX_TRACKS = 0xFFFF  # 16 bits of a MIDI header
SHOWS_0D = 4096  # bytes: nearly every whole MIDI file of this length holds the byte 0x0D
N_CHANNELS, N_PITCHES = 16, 128
NOTE_OFF, NOTE_ON, CONTROL, PROGRAM, CHANNEL_PRESSURE = 0x80, 0x90, 0xA0, 0xC0, 0xD0  # the first above notes: 0xA0
SYSEX, SYSEX_GOES_ON, META = 0xF0, 0xF7, 0xFF
NAME, END, TEMPO, SIGNATURE, KEY = 0x03, 0x2F, 0x51, 0x58, 0x59  # kinds of meta event
SYSTEM_BYTES = {0xF1: 1, 0xF2: 2, 0xF3: 1}  # data bytes of the other system messages; those left out have none
META_SIZES = np.zeros(256, np.uint8)  # of those whose values symusic reads; 0: any
META_SIZES[[TEMPO, SIGNATURE, KEY]] = 3, 4, 2
END_OF_TRACK = bytes([META, END, 0])
NOTHING = bytes([META, 1, 0])  # an empty text: keeps the place of a message that no song needs
LONGEST_GAP = 0xFFFFFFF  # ticks: 28 bits of a delta time
# Note-offs for whatever still sounds are added this many ticks after the end of a track: no real event is as late,
# so that the notes they end are told apart. symusic counts ticks in 32 bits, of which real ones may use half.
LATE = 4 * LONGEST_GAP
LATER = b"\xff\xff\xff\x7f".join([NOTHING] * 4) + b"\xff\xff\xff\x7f"
OFFS_PER_PITCH = 2  # more notes of one pitch left sounding are rare; their tracks are walked
OFFS = [bytes([NOTE_OFF | channel]) + b"\0".join(bytes([pitch, 0]) for pitch in range(N_PITCHES)
                                                 for _ in range(OFFS_PER_PITCH)) for channel in range(N_CHANNELS)]
NOTE_ONS = [bytes([NOTE_ON | channel]) for channel in range(N_CHANNELS)]
MAX_OFFS = 1000  # channels of tracks that are given OFFS, so that a hostile file fills no memory


def read_song(path: str | Path, data: bytes | None = None) -> Song:
    """Read a MIDI file. With its bytes in `data` no file is read, and `path` only names it in messages.

    Bytes before the `MThd` header and after the last track are skipped; a note that is never switched off lasts to
    the end of its track.

    Raises:
        UserError: missing, empty, cut off, damaged or not MIDI; time that is not ticks per quarter; several songs.
    """
    if data is None:
        data = read_input(Path(path), LARGEST_FILE)
    if not data:
        raise UserError(f"{path}: an empty file, not MIDI; export it again")
    if len(data) > LARGEST_FILE:
        raise UserError(f"{path}: {len(data) >> 20} MB, larger than any song; give a Standard MIDI File")
    start = data.find(b"MThd")
    if start < 0:
        raise UserError(f"{path}: not a MIDI file (no MThd header in it); give a Standard MIDI File")
    data = data[start:]
    if len(data) < 14:
        raise UserError(f"{path}: truncated MIDI file (its header is cut off); export it again")
    midi_format, n_tracks, division = struct.unpack(">HHH", data[8:14])
    _check_header(data, midi_format, division, str(path))
    bodies, notices = _track_bodies(data, n_tracks, str(path))
    if midi_format == 2 and len(bodies) > 1:
        raise UserError(f"{path}: holds {len(bodies)} independent patterns (format 2), not one song; export each of "
                        f"them, or the arrangement, as format 1")
    header = struct.pack(">4sIHHH", b"MThd", 6, 1, len(bodies), division)
    return (_song_in_order(header, bodies, notices, str(path))
            or _song_mended(header, bodies, notices, str(path)))


def _check_header(data: bytes, midi_format: int, division: int, where: str) -> None:
    """Raise UserError if what follows the header cannot be read, whatever the tracks hold."""
    if b"MTrk" in data[9:17]:
        raise UserError(f"{where}: damaged MIDI file (bytes of its header are missing{_as_text(data)}); export it "
                        f"again")
    if not 0 < division < 0x8000:
        raise UserError(f"{where}: its time is not counted in ticks per quarter note (division 0x{division:04x}); "
                        f"export it with a musical time base")
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

    The header's count of tracks is often wrong. A file with fewer is taken as whole if it ends with the end of a
    track: one that was cut off ends there only by a rare chance.

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
        raise UserError(f"{where}: truncated MIDI file ({_count(len(bodies), 'whole track')}, where its header "
                        f"promises {n_tracks}{_as_text(data)}); export it again")
    if len(bodies) > MAX_TRACKS:
        raise UserError(f"{where}: more than {MAX_TRACKS} tracks, more than any song; export it again")
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
        _, end, n_clipped = _mend(data, place, "")
    except UserError:
        return None
    return end if data[end - 3:end] == END_OF_TRACK and not n_clipped else None


# ---------------------------------------------------------------- tracks in order, and others


def _song_in_order(header: bytes, bodies: list[bytes], notices: list[str], where: str) -> Song | None:
    """The song if symusic reads it as it stands and nothing is lost, otherwise None."""
    channels = [[c for c in range(N_CHANNELS) if NOTE_ONS[c] in body] for body in bodies]
    if (sum(map(len, channels)) > MAX_OFFS or any(body.find(END_OF_TRACK) != len(body) - 3 for body in bodies)
            or not _in_order(b"".join(bodies))):
        return None
    tracks = [_chunk(body[:-3], [OFFS[c] for c in found]) for body, found in zip(bodies, channels, strict=True)]
    try:
        score = symusic.Score.from_midi(header + b"".join(tracks))
    except Exception:  # whatever the parser throws: it is C++, and its error classes differ by version
        return None
    return _song_from_score(score, notices, where, OFFS_PER_PITCH)


def _in_order(events: bytes) -> bool:
    """Whether no event is of a kind that symusic misreads in silence. Doubt is a no: mending is slow but harmless."""
    octets = np.frombuffer(events, np.uint8)
    metas = np.flatnonzero(octets[:-5] == META)
    kinds = octets[metas + 1]
    sizes = META_SIZES[kinds]
    if ((sizes > 0) & (sizes != octets[metas + 2])).any():
        return False  # it would read beyond them
    high = octets >= 0x80
    tempos, keys = metas[kinds == TEMPO], metas[kinds == KEY]
    for values in (tempos + 3, tempos + 4, tempos + 5, keys + 3):
        high[values] = False  # no delta times
    # Its clock has 32 bits. No delta time adds more than the bytes ≥ 0x80 that stand together allow.
    pairs = high[1:] & high[:-1]
    longest = (127 * len(octets) + (np.count_nonzero(high) << 14) + (np.count_nonzero(pairs) << 21)
               + (np.count_nonzero(pairs[1:] & pairs[:-1]) << 28))
    if longest >= LATE:
        return False
    system = high & ((octets == SYSEX) | (octets == SYSEX_GOES_ON))
    system[1:] &= ~high[:-1]  # a status byte follows the last byte of a delta time
    return not _sysex_misread(events, np.flatnonzero(system).tolist())


def _sysex_misread(events: bytes, places: list[int]) -> bool:
    """Whether a system exclusive goes on in a second packet, or a message without a status byte follows one.

    symusic takes such a packet for a single byte, and such a message for another system exclusive. One may begin at
    each of `places`; that its values have seven bits tells it from a delta time.
    """
    read = 0
    for place in places:
        if place < read:
            continue  # the 0xF7 that ends the one before
        try:
            size, start = _number(events, place + 1)
            _, after = _number(events, start + size)
            if size and events[start:start + size - 1].isascii():
                if events[after] < 0x80 or events[place] == SYSEX_GOES_ON:
                    return True
                read = start + size
        except (IndexError, ValueError):
            continue
    return False


def _song_mended(header: bytes, bodies: list[bytes], notices: list[str], where: str) -> Song:
    mended = [_mend(body, 0, where) for body in bodies]
    clipped = sum(n for _, _, n in mended)
    if clipped:
        notices = [*notices, f"{_count(clipped, 'data byte')} over 127 clipped"]
    try:
        score = symusic.Score.from_midi(header + b"".join(track for track, _, _ in mended))
    except Exception as err:  # as above
        raise UserError(f"{where}: not a readable MIDI file ({err}); export it again") from None
    song = _song_from_score(score, notices, where)
    assert song is not None
    return song


def _mend(data: bytes, place: int, where: str) -> tuple[bytes, int, int]:
    """Write the events from `place` to the end of track (or of the data) as symusic reads them without fail.

    Every message gets its status byte: running status goes on across meta and system messages, as files in the wild
    have it. Data bytes over 127 are clipped. What no song needs becomes an empty text, and every note left sounding
    gets its note-off `LATE` ticks after the end.

    Returns:
        The track chunk, the place after the last event, and how many data bytes were clipped.
    Raises:
        UserError: an event that is cut off or makes no sense, or a time beyond any song.
    """
    out, tick, status, n_clipped = bytearray(), 0, 0, 0
    sounding = [0] * (N_CHANNELS * N_PITCHES)
    try:
        while place < len(data):
            start, gap, place = place, data[place], place + 1
            if gap >= 0x80:
                gap, place = _number(data, start)
            tick += gap
            if tick >= LATE:
                raise ValueError(f"at tick {tick}, beyond any song")
            out += data[start:place]
            head = data[place]
            if head >= SYSEX:
                kept, place = _system(data, place)
                if kept == END_OF_TRACK:
                    break
                out += kept
                continue
            if head >= 0x80:
                status = head
                place += 1
            elif not status:
                raise ValueError(f"of data alone (0x{head:02x})")
            first, second = data[place], 0
            place += 1
            if not PROGRAM <= status < CHANNEL_PRESSURE + N_CHANNELS:  # all others have two
                second = data[place]
                place += 1
            if first | second > 127:
                n_clipped += (first > 127) + (second > 127)
                if status < CONTROL and first > 127:
                    raise ValueError(f"with a note of pitch {first}")
                first, second = min(first, 127), min(second, 127)
            if status < CONTROL:
                line = (status & 15) * N_PITCHES + first
                if status >= NOTE_ON and second:
                    sounding[line] += 1
                elif sounding[line]:
                    sounding[line] -= 1
                out += bytes((status, first, second))
            else:
                out += bytes((status, first)) if PROGRAM <= status < CHANNEL_PRESSURE else NOTHING
        else:
            out.append(0)  # ticks until the end of track that is missing
    except (IndexError, ValueError) as err:
        reason = err if isinstance(err, ValueError) else "that is cut off"
        raise UserError(f"{where}: damaged MIDI file (an event {reason}); export it again") from None
    offs = [bytes((NOTE_OFF | line // N_PITCHES, line % N_PITCHES, 0))
            for line in np.repeat(np.arange(len(sounding)), sounding).tolist()]
    return _chunk(bytes(out), offs), place, n_clipped


def _system(data: bytes, start: int) -> tuple[bytes, int]:
    """What to write for the meta or system message whose status byte stands at `start`, and the place after it."""
    head, place = data[start], start + 1
    if head not in (META, SYSEX, SYSEX_GOES_ON):
        return NOTHING, place + SYSTEM_BYTES.get(head, 0)
    kind = data[place] if head == META else None
    size, place = _number(data, place + (head == META))
    end = place + size
    if kind == END:
        return END_OF_TRACK, min(end, len(data))
    if end > len(data):
        raise IndexError
    if kind == NAME:
        return data[start:end], end
    if kind == TEMPO and size >= 3:
        return bytes([META, TEMPO, 3]) + data[place:place + 3], end
    if kind == SIGNATURE and size >= 2:
        return bytes([META, SIGNATURE, 4]) + data[place:place + 2] + bytes(2), end
    return NOTHING, end


def _number(data: bytes, place: int) -> tuple[int, int]:
    """A number of variable length at `place`, and the place after it. Raises IndexError, or ValueError if too long."""
    number = 0
    for at in range(place, place + 4):
        number = number << 7 | data[at] & 0x7F
        if data[at] < 0x80:
            return number, at + 1
    raise ValueError("with a number of more than four bytes")


def _chunk(body: bytes, offs: list[bytes]) -> bytes:
    """A track chunk of a body that wants its end of track, with the note-offs `offs` long after it."""
    if offs:
        body += LATER + b"\0".join(offs) + b"\0"
    return b"MTrk" + struct.pack(">I", len(body) + len(END_OF_TRACK)) + body + END_OF_TRACK


# ---------------------------------------------------------------- notes


def _song_from_score(score: symusic.Score, notices: list[str], where: str, offs_per_pitch: int | None = None,
                     ) -> Song | None:
    """The song of a score whose notes left sounding end `LATE` ticks after the end of their track.

    None if all of `offs_per_pitch` late note-offs of a pitch are used: there may have been more such notes, and
    symusic drops what nothing switches off.
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
        raise UserError(f"{where}: has a note at quarter {latest:.0f}, beyond any song; its times are damaged")
    notes = np.stack([onset, end, line & (N_PITCHES - 1)], axis=1)
    tracks, start = [], 0
    for track, n in zip(score.tracks, n_notes, strict=True):
        name = track.name.replace("\0", " ").strip()  # old sequencers fill up names with zeros
        if n:
            tracks.append(Track(name, track.program, track.is_drum, notes[start:start + n]))
        start += n
    tempos = [(tempo.time, round(tempo.qpm, 3)) for tempo in score.tempos if tempo.mspq > 0]
    signatures = [TimeSignature(s.time, s.numerator, s.denominator) for s in score.time_signatures]
    return Song(score.ticks_per_quarter, tuple(tracks), _by_tick(tempos), _by_tick(signatures), tuple(notices))


def _by_tick(changes: list) -> tuple:
    """Sorted by tick alone: of several at one tick the last in the file is in force."""
    return tuple(sorted(changes, key=lambda change: change[0]))


def _first_releases(line: np.ndarray, onset: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """End each note at the first note-off of its pitch after its onset.

    MIDI readers pair overlapping notes of one pitch first in, first out; what sounds ends at the first note-off.
    The note-offs are exactly the ends that the reader found, whatever it paired them with.

    Args:
        line, onset, end: (N,) int64, of each line sorted by onset; `line` is one number for each pitch of each
            track, the ticks are not negative.
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

    Its notes end as they would after being written and read. Only a `PartsMidiFile`, whose notes come from tokens
    and may overlap, is taken as it stands, so that the round trip in memory is exact.
    """
    exact = isinstance(midi, PartsMidiFile)
    tracks = []
    for instrument in midi.instruments:
        rows = [(note.start, note.end, note.pitch) for note in instrument.notes]
        notes = np.array(rows, np.int64).reshape(-1, 3)
        name = (instrument.name or "").strip()
        tracks.append(Track(name, int(instrument.program), bool(instrument.is_drum),
                            notes if exact else first_release(notes)))
    tempos = [(int(change.time), round(float(change.tempo), 3)) for change in midi.tempo_changes]
    signatures = [TimeSignature(int(s.time), s.numerator, s.denominator) for s in midi.time_signature_changes]
    return Song(midi.ticks_per_beat, tuple(tracks), _by_tick(tempos), _by_tick(signatures))
