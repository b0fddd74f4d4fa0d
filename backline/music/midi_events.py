"""The events of a MIDI track: one walk over them, and tracks mended so that symusic reads them.

symusic refuses some tracks that every sequencer plays, and misreads others in silence. Those are
mended event by event, which is a hundred times slower and needed by few files.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from backline.common.errors import UserError

N_CHANNELS, N_PITCHES = 16, 128
# Status bytes, to which the channel is added.
NOTE_OFF = 0x80
NOTE_ON = 0x90
KEY_PRESSURE = 0xA0
CONTROL_CHANGE = 0xB0
PROGRAM_CHANGE = 0xC0
CHANNEL_PRESSURE = 0xD0
PITCH_BEND = 0xE0
SYSEX, SYSEX_GOES_ON, META = 0xF0, 0xF7, 0xFF
# Kinds of meta event.
NAME = 0x03
END = 0x2F
TEMPO = 0x51
SIGNATURE = 0x58
KEY = 0x59
SYSTEM_BYTES = {0xF1: 1, 0xF2: 2, 0xF3: 1}  # data bytes of other system messages; the rest: none
META_SIZES = np.zeros(256, np.uint8)  # bytes of those whose values symusic reads; 0: any
META_SIZES[[TEMPO, SIGNATURE, KEY]] = 3, 4, 2
END_OF_TRACK = bytes([META, END, 0])
NOTHING = bytes([META, 1, 0])  # an empty text: keeps the place of a message that no song needs
LONGEST_GAP = 0xFFFFFFF  # ticks: 28 bits of a delta time
# Note-offs for whatever still sounds are added this many ticks after the end of a track. No real
# event is as late, so that the notes they end are told apart. symusic counts ticks in 32 bits, of
# which real ones may use half.
LATE_TICKS = 4 * LONGEST_GAP
LATER = b"\xff\xff\xff\x7f".join([NOTHING] * 4) + b"\xff\xff\xff\x7f"


def bytes_after(rest: bytes) -> int:
    """How many bytes stand after a track's end; 0 if they say nothing: zeros, or the end again."""
    return len(rest) if any(rest.replace(END_OF_TRACK, b"")) else 0


def is_readable(events: bytes) -> bool:
    """Whether no event is of a kind that symusic misreads in silence.

    Doubt is a no: mending is slow but harmless.
    """
    octets = np.frombuffer(events, np.uint8)
    metas = np.flatnonzero(octets[:-5] == META)
    kinds = octets[metas + 1]
    sizes = META_SIZES[kinds]
    differs = sizes != octets[metas + 2]
    if ((sizes > 0) & differs).any():
        return False  # it would read beyond them
    high = octets >= 0x80
    tempos = metas[kinds == TEMPO]
    keys = metas[kinds == KEY]
    for values in (tempos + 3, tempos + 4, tempos + 5, keys + 3):
        high[values] = False  # values of a meta event are no delta times
    if _longest_time(high) >= LATE_TICKS:
        return False
    system = high & ((octets == SYSEX) | (octets == SYSEX_GOES_ON))
    system[1:] &= ~high[:-1]  # a status byte follows the last byte of a delta time
    return not _sysex_misread(events, np.flatnonzero(system).tolist())


def _longest_time(high: np.ndarray) -> int:
    """Ticks that the delta times of a track can come to at most.

    symusic's clock has 32 bits. A delta time has seven bits in each byte, and one more byte after
    each byte ≥ 0x80: those that are `high` (N,).
    """
    pairs = high[1:] & high[:-1]
    triples = pairs[1:] & pairs[:-1]
    longest = 127 * len(high)
    longest += int(np.count_nonzero(high)) << 14
    longest += int(np.count_nonzero(pairs)) << 21
    longest += int(np.count_nonzero(triples)) << 28
    return longest


def _sysex_misread(events: bytes, places: list[int]) -> bool:
    """Whether a system exclusive has a second packet, or is followed by running status.

    symusic takes such a packet for a single byte, and such a message for another system exclusive.
    One may begin at each of `places`; that its values have seven bits tells it from a delta time.
    """
    read = 0
    for place in places:
        if place < read:
            continue  # the 0xF7 that ends the one before
        try:
            size, start = number_at(events, place + 1)
            _, after = number_at(events, start + size)
            if size and events[start:start + size - 1].isascii():
                if events[after] < 0x80 or events[place] == SYSEX_GOES_ON:
                    return True
                read = start + size
        except (IndexError, ValueError):
            continue
    return False


def mend(data: bytes, place: int, where: str) -> tuple[bytes, int, int]:
    """Write the events of a track, from `place` on, so that symusic reads them.

    They go to the end of track, or of the data. Every message gets its status byte: running status
    goes on across meta and system messages, as files in the wild have it. Data bytes over 127 are
    clipped. A program change stands before the notes of its tick and channel. What no song needs
    becomes an empty text, and every note left sounding gets its note-off `LATE_TICKS` ticks after
    the end.

    Returns:
        The track chunk, the place after the last event, and how many data bytes were clipped.
    Raises:
        UserError: an event that is cut off or makes no sense, or a time beyond any song.
    """
    out = bytearray()
    sounding = [0] * (N_CHANNELS * N_PITCHES)  # notes of each pitch of each channel
    try:
        place, n_clipped = _walk(data, place, out, sounding)
    except (IndexError, ValueError) as err:
        reason = err if isinstance(err, ValueError) else "that is cut off"
        raise UserError(f"{where}: damaged MIDI file (an event {reason}); export it "
                        f"again") from None
    still_sounding = np.repeat(np.arange(len(sounding)), sounding).tolist()
    offs = [bytes((NOTE_OFF | line // N_PITCHES, line % N_PITCHES, 0))
            for line in still_sounding]
    return track_chunk(bytes(out), offs), place, n_clipped


def _walk(data: bytes,
          place: int,
          out: bytearray,
          sounding: list[int]) -> tuple[int, int]:
    """Write events to `out`, and count in `sounding` the notes left on.

    Returns the place after the last event, and how many data bytes were clipped.
    Raises IndexError and ValueError, as `events_of` does.
    """
    n_clipped = last_tick = 0
    this_tick = _Tick()
    for tick, start, status, first, second, n_over, end in events_of(data, place):
        if tick > last_tick:
            this_tick.forget()
            last_tick = tick
        out += data[place:start]  # the delta time
        place = end
        if status >= SYSEX:
            if status == META and first == END:
                return min(end, len(data)), n_clipped
            out += _readable_system(data, start, end)
            continue
        n_clipped += n_over
        if status < KEY_PRESSURE:
            line = (status & 15) * N_PITCHES + first
            if status >= NOTE_ON and second:
                sounding[line] += 1
                this_tick.first_notes.setdefault(status & 15, len(out))
            elif sounding[line]:
                sounding[line] -= 1
            out += bytes((status, first, second))
        elif PROGRAM_CHANGE <= status < CHANNEL_PRESSURE:
            this_tick.write_change(bytes((status, first)), out)
        else:
            out += NOTHING
    out.append(0)  # ticks until the end of track that is missing
    return place, n_clipped


class _Tick:
    """Where the first note of each channel stands in what is written of one tick."""

    def __init__(self) -> None:
        self.first_notes: dict[int, int] = {}
        self.changed: set[int] = set()  # channels with a program change put before that note

    def forget(self) -> None:
        """Another tick begins."""
        if self.first_notes:
            self.first_notes.clear()
            self.changed.clear()

    def write_change(self, change: bytes, out: bytearray) -> None:
        """Write a program change, before the notes of its channel that stand in this tick.

        Its time stands last in `out`. Of several changes after a note the last counts.
        """
        channel = change[0] & 15
        place = self.first_notes.get(channel)
        if place is None:
            out += change
            return
        before = change + b"\0"
        if channel in self.changed:
            out[place - len(before):place] = before
        else:
            out[place:place] = before
            self.changed.add(channel)
            for other, its_place in self.first_notes.items():
                if its_place >= place:
                    self.first_notes[other] = its_place + len(before)
        out += NOTHING


def _readable_system(data: bytes, start: int, end: int) -> bytes:
    """What to write for the meta or system message in `data[start:end]`."""
    if data[start] != META:
        return NOTHING
    kind = data[start + 1]
    if kind == NAME:
        return data[start:end]
    size, place = number_at(data, start + 2)
    if kind == TEMPO and size >= 3:
        return bytes([META, TEMPO, 3]) + data[place:place + 3]
    if kind == SIGNATURE and size >= 2:
        return bytes([META, SIGNATURE, 4]) + data[place:place + 2] + bytes(2)
    return NOTHING


# ---------------------------------------------------------------- the events of a track


# Tick; place; status byte; two data bytes, 0 where there are fewer; how many of them were clipped;
# the place after it. A plain tuple: named ones take several times as long to make.
RawEvent = tuple[int, int, int, int, int, int, int]


def events_of(data: bytes, place: int = 0) -> Iterator[RawEvent]:
    """The events of a track from `place` on, up to its end of track or the end of the data.

    The end of track is the last of them. Running status goes on across meta and system messages, as
    files in the wild have it. The first data byte of a meta message is its kind. Data bytes over 127
    are clipped, except a note's pitch.

    Raises IndexError for an event that is cut off, ValueError for one that makes no sense, or for a
    time beyond any song.
    """
    tick = status = 0
    has_second = True  # data byte
    size = len(data)
    while place < size:  # one long loop: a function call for each event would double its time
        gap = data[place]
        place += 1
        if gap:
            if gap >= 0x80:
                gap, place = number_at(data, place - 1)
            tick += gap
            if tick >= LATE_TICKS:
                raise ValueError(f"at tick {tick}, beyond any song")
        start = place
        first = data[start]
        if first >= 0x80:
            if first >= SYSEX:
                kind, place = _after_system(data, start)
                yield tick, start, first, kind, 0, 0, place
                if first == META and kind == END:
                    return
                continue
            status = first
            has_second = not PROGRAM_CHANGE <= status < PITCH_BEND
            place += 1
            first = data[place]
        elif not status:
            raise ValueError(f"of data alone (0x{first:02x})")
        place += 1
        second = n_over = 0
        if has_second:
            second = data[place]
            place += 1
        if first | second > 127:
            if status < KEY_PRESSURE and first > 127:
                raise ValueError(f"with a note of pitch {first}")
            n_over = (first > 127) + (second > 127)
            first = min(first, 127)
            second = min(second, 127)
        yield tick, start, status, first, second, n_over, place


def _after_system(data: bytes, start: int) -> tuple[int, int]:
    """The kind of the meta message at `start`, 0 for a system message, and the place after it."""
    head = data[start]
    place = start + 1
    if head not in (META, SYSEX, SYSEX_GOES_ON):
        return 0, place + SYSTEM_BYTES.get(head, 0)
    kind = 0
    if head == META:
        kind = data[place]
        place += 1
    size, place = number_at(data, place)
    end = place + size
    if end > len(data) and not (head == META and kind == END):
        raise IndexError
    return kind, end


def number_at(data: bytes, place: int) -> tuple[int, int]:
    """A number of variable length at `place`, and the place after it.

    Raises IndexError, or ValueError if too long.
    """
    number = 0
    for at in range(place, place + 4):
        number = number << 7 | data[at] & 0x7F
        if data[at] < 0x80:
            return number, at + 1
    raise ValueError("with a number of more than four bytes")


def track_chunk(body: bytes, offs: list[bytes]) -> bytes:
    """A track chunk of a body without its end of track, with the note-offs `offs` long after it."""
    if offs:
        body += LATER + b"\0".join(offs) + b"\0"
    whole = body + END_OF_TRACK
    size = struct.pack(">I", len(whole))
    return b"MTrk" + size + whole
