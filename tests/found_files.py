"""Files as people's programs leave them, after public threads: each function builds one, as bytes.

All hold four bars of drums, bass and keys, or what one program makes of them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from midi_bytes import (
    DRUM_CHANNEL,
    END_OF_TRACK,
    Event,
    chunk,
    header,
    meta,
    midi_file,
    name,
    program,
    riff,
    tempo,
    time_signature,
    track,
    variable_length,
)

QUARTER = 480
BAR = 4 * QUARTER
N_BARS = 4
BASS, KEYS = 33, 4  # programs
TEMPO = tempo(0, 500_000)


def _note(onset: int, end: int, pitch: int, channel: int, velocity: int = 90) -> list[Event]:
    return [(onset, bytes([0x90 | channel, pitch, velocity])), (end, bytes([0x80 | channel, pitch, 64]))]


def drums(quarter: int = QUARTER, channel: int = DRUM_CHANNEL, length: int | None = None) -> list[Event]:
    """Kick, snare and hi-hat."""
    events: list[Event] = []
    for beat in range(4 * N_BARS):
        onset = beat * quarter
        end = onset + (quarter // 2 if length is None else length)
        events += _note(onset, end, (36, 38)[beat % 2], channel, 80 + beat) + _note(onset, end, 42, channel, 60 + beat)
    return events


def bass(quarter: int = QUARTER, channel: int = 0) -> list[Event]:
    events: list[Event] = []
    for beat in range(4 * N_BARS):
        events += _note(beat * quarter, (beat + 1) * quarter, (40, 40, 43, 45)[beat // 4], channel, 70 + beat)
    return events


def keys(quarter: int = QUARTER, channel: int = 1) -> list[Event]:
    events: list[Event] = []
    for bar in range(N_BARS):
        for i, pitch in enumerate((60, 64, 67)):
            events += _note(4 * bar * quarter, (4 * bar + 3) * quarter, pitch + (0, 0, 3, 5)[bar], channel, 60 + i)
    return events


def _three(*extra: list[Event], quarter: int = QUARTER, kit: list[Event] | None = None) -> list[list[Event]]:
    """The events of a tempo track, drums, bass and keys."""
    return [[TEMPO, time_signature(0, 4, 2), *(event for each in extra for event in each)],
            [name("Drums"), *(drums(quarter) if kit is None else kit)],
            [name("Bass"), program(BASS, 0), *bass(quarter)],
            [name("Keys"), program(KEYS, 1), *keys(quarter)]]


# ---------------------------------------------------------------- one program's habit each


def running_status_over_meta() -> bytes:
    """EZdrummer's: a text event amid running status."""
    body = (b"\x00\xff\x03\x05Drums\x00\x99\x24\x60" + b"\x00\xff\x06\x01A" + b"\x60\x24\x00")
    for _ in range(15):
        body += b"\x83\x00\x26\x60" + b"\x00\xff\x01\x02%+" + b"\x60\x26\x00"
    bodies = [track(events) for events in (_three()[0], *_three()[2:])]
    return header(4, QUARTER) + bodies[0] + chunk(body + b"\x00" + END_OF_TRACK) + b"".join(bodies[1:])


def zero_length_drums() -> bytes:
    """Drum machines': each note ends at its own tick."""
    return midi_file(*_three(kit=drums(length=0)), division=QUARTER)


def two_ports() -> bytes:
    """MuseScore's, with more than 16 instruments: all channels of port 0 are taken, some of port 1."""
    port = [(0, meta(0x21, b"\0"))]
    others = [[*port, name(f"Violin {c}"), program(40, c), *_note(0, BAR * N_BARS, 70 + c, c)]
              for c in range(16) if c != DRUM_CHANNEL]
    second = [(0, meta(0x21, b"\1"))]
    return midi_file([TEMPO, time_signature(0, 4, 2)], *others,
                     [*second, name("Drums"), *drums()],
                     [*second, name("Bass"), program(BASS, 0), *bass()],
                     [*second, name("Keys"), program(KEYS, 1), *keys()], division=QUARTER)


def riff_wrapped() -> bytes:
    """Windows' .rmi, with a title outside the MIDI."""
    return riff(midi_file(*_three(), division=QUARTER), b"INFOINAM" + struct.pack("<I", 8) + b"My song\0")


def yamaha_xf() -> bytes:
    """Yamaha's XF: lyrics in a chunk of another kind behind the tracks."""
    body = b"\x00\xff\x07\x04$LY:" + b"\x83\x60\xff\x05\x02la" + b"\x00" + END_OF_TRACK
    return midi_file(*_three(), division=QUARTER) + chunk(body, b"XFKM")


def japanese_names() -> bytes:
    """Shift-JIS names, as LMMS cannot read them."""
    tracks = _three()
    for events, text in zip(tracks[1:], ("ドラム", "ベース", "ピアノ"), strict=True):
        events[0] = (0, meta(3, text.encode("shift-jis")))
    return midi_file(*tracks, division=QUARTER)


def mpe(text: str = "Seaboard Piano") -> bytes:
    """An MPE keyboard's take: each note on the next channel from 2 to 16, with its bend and pressure."""
    events: list[Event] = [name(text)]
    for i in range(48):
        channel = 1 + i % 15
        onset = i * QUARTER // 3
        events += [(onset, bytes([0xE0 | channel, 0, 64 + i % 8])),
                   *_note(onset, onset + QUARTER, 60 + i % 12, channel),
                   (onset + 40, bytes([0xD0 | channel, 30 + i]))]
    return midi_file(*_three()[:1], events, division=QUARTER)


def channel_per_string() -> bytes:
    """Guitar trainers' and Guitar Pro's: one channel for each string."""
    events: list[Event] = [name("E-Bass"), *(program(BASS, 10 + string) for string in range(4))]
    for beat in range(16):
        events += _note(beat * QUARTER, (beat + 1) * QUARTER, 28 + 5 * (beat % 4), 10 + beat % 4)
    return midi_file(*_three()[:2], events, division=QUARTER)


def tempo_in_a_later_track() -> bytes:
    """Tempo changes beside the notes of the last track."""
    tracks = _three()
    tracks[0] = [time_signature(0, 4, 2)]
    tracks[3] += [tempo(0, 600_000), tempo(BAR, 400_000)]
    return midi_file(*tracks, division=QUARTER)


def tempo_long_after_the_end() -> bytes:
    """A minute of music with half an hour of tempo changes."""
    return midi_file(*_three([tempo(bar * BAR, 500_000 + bar) for bar in range(1, 900)]), division=QUARTER)


def first_tempo_late() -> bytes:
    """120 BPM up to bar 3, as the first tempo is named there."""
    tracks = _three()
    tracks[0] = [time_signature(0, 4, 2), tempo(2 * BAR, 400_000)]
    return midi_file(*tracks, division=QUARTER)


def tempo_zero() -> bytes:
    return midi_file(*_three([tempo(BAR, 0)]), division=QUARTER)


def impossible_key() -> bytes:
    """Keys of 8 sharps and of 18 flats, as mido and pretty_midi refuse them."""
    return midi_file(*_three([(0, meta(0x59, b"\x08\x00")), (BAR, meta(0x59, b"\xee\x01"))]), division=QUARTER)


def never_released() -> bytes:
    """A recorder's, stopped with keys down: the last notes have no note-off."""
    tracks = _three()
    last = 4 * N_BARS * QUARTER - QUARTER
    tracks[3] = [event for event in tracks[3] if event[0] < last] + [(last - 10, bytes([0x91, 72, 80]))]
    return midi_file(*tracks, division=QUARTER)


def all_notes_off() -> bytes:
    """A keyboard's recorder: keys end with controller 123, not with note-offs."""
    tracks = _three()
    tracks[3] = [event for event in tracks[3] if event[1][0] & 0xF0 != 0x80]
    tracks[3] += [((4 * bar + 3) * QUARTER, b"\xb1\x7b\x00") for bar in range(N_BARS)]
    return midi_file(*tracks, division=QUARTER)


def end_of_track_twice() -> bytes:
    """Two takes joined byte by byte: notes behind the first end of track."""
    first = track([name("Keys"), program(KEYS, 1), *keys()])[8:]
    second = track(_note(0, QUARTER, 84, 1))[8:]
    tracks = _three()
    return (header(4, QUARTER) + b"".join(track(events) for events in tracks[:3])
            + chunk(first + second))


def one_tick_a_quarter() -> bytes:
    """A converter's: the shortest time is a quarter."""
    return midi_file(*_three(quarter=1, kit=drums(1, length=1)), division=1)


def odd_resolution() -> bytes:
    """70 ticks a quarter, as one library refuses them."""
    return midi_file(*_three(quarter=70), division=70)


def fine_resolution() -> bytes:
    return midi_file(*_three(quarter=15360), division=15360)


def click_track() -> bytes:
    """Bass, keys and the metronome on the channel of drums."""
    click: list[Event] = [name("Click")]
    for beat in range(16):
        click += _note(beat * QUARTER, beat * QUARTER + 60, 76 if beat % 4 == 0 else 77, DRUM_CHANNEL)
    tracks = _three()
    return midi_file(tracks[0], click, *tracks[2:], division=QUARTER)


def keyswitches() -> bytes:
    """A sampled bass whose lowest keys choose how it is played."""
    tracks = _three()
    for bar in range(N_BARS):
        onset = max(bar * BAR - 60, 0)
        tracks[2] += _note(onset, onset + 30, 12 + bar % 2, 0, 1)
    return midi_file(*tracks, division=QUARTER)


def retriggered() -> bytes:
    """Re-struck at the tick at which the note before ends, its note-off behind the note-on."""
    tracks = _three()
    tracks[2] = sorted(tracks[2], key=lambda event: (event[0], event[1][0] & 0xF0 == 0x80))
    return midi_file(*tracks, division=QUARTER)


def split_sysex() -> bytes:
    """A dump of 60 kB, and one in packets."""
    size = 60_000
    dump = b"\xf0" + variable_length(size) + bytes(i % 128 for i in range(size - 1)) + b"\xf7"
    packets = [(0, dump), (BAR, b"\xf0\x03\x43\x12\x00"), (BAR + 10, b"\xf7\x03\x01\x02\x03"),
               (BAR + 20, b"\xf7\x02\x04\xf7")]
    return midi_file(*_three(packets), division=QUARTER)


def karaoke() -> bytes:
    """A .kar: words as texts in a track of their own."""
    words = [name("Words"), (0, meta(1, b"@LENGL")), (0, meta(1, b"@TMy song"))]
    words += [(beat * QUARTER, meta(1, f"\\la{beat}".encode())) for beat in range(16)]
    return midi_file(*_three(), words, division=QUARTER)


def bar_33() -> bytes:
    """A loop exported from bar 33 of an arrangement."""
    tracks = [[(tick + (32 * BAR if message[0] < 0xF0 else 0), message) for tick, message in events]
              for events in _three()]
    return midi_file(*tracks, division=QUARTER)


def windows_3() -> bytes:
    """CANYON.MID's kind: the same song on channels 1 to 10 and, for simpler sound cards, on 13 to 16."""
    tracks = _three([(0, meta(0x7F, b"\0\0\x41"))])
    return midi_file(*tracks, [*drums(channel=15)], [program(BASS, 12), *bass(channel=12)],
                     [program(KEYS, 13), *keys(channel=13)], division=QUARTER)


def hydrogen_bass() -> bytes:
    """All instruments of a drum machine's song on channel 10, the bass too."""
    return midi_file([TEMPO], [name("Kick"), *drums()], [name("Synth Bass"), *bass(channel=DRUM_CHANNEL)],
                     division=QUARTER)


def crlf_behind() -> bytes:
    return midi_file(*_three(), division=QUARTER) + b"\r\n"


# ---------------------------------------------------------------- bad input


def many_controllers() -> bytes:
    tracks = _three()
    tracks[3] += [(i // 3, bytes([0xB1, (1, 11, 74)[i % 3], i % 128])) for i in range(20_000)]
    return midi_file(*tracks, division=QUARTER)


def many_tempos() -> bytes:
    return midi_file(*_three([tempo(i, 400_000 + i) for i in range(1, 5_001)]), division=QUARTER)


def markers() -> bytes:
    texts = (b"Vers", "Strophe é".encode("latin-1"), "サビ".encode("shift-jis"), "Refrain".encode("utf-16"),
             b"\xff\xfe\x00", b"", "🎹".encode())
    return midi_file(*_three([(i * QUARTER, meta(6, text)) for i, text in enumerate(texts)]), division=QUARTER)


def unsafe_names() -> bytes:
    tracks = _three()
    texts = (b"../../Drums\x1b[31m\x07", b"Bass/\\:*?\r\nerror: all is lost", b"Keys\x00\x9b2J" + b"k" * 300)
    for events, text in zip(tracks[1:], texts, strict=True):
        events[0] = (0, meta(3, text))
    lead = [(0, meta(3, b"\x1b]0;title\x07\x1b[2J")), program(50, 5), *_note(0, BAR, 80, 5)]
    return midi_file(*tracks, lead, division=QUARTER)


FOUND: dict[str, Callable[[], bytes]] = {
    make.__name__: make
    for make in (running_status_over_meta, zero_length_drums, two_ports, riff_wrapped, yamaha_xf, japanese_names, mpe,
                 channel_per_string, tempo_in_a_later_track, tempo_long_after_the_end, first_tempo_late, tempo_zero,
                 impossible_key, never_released, all_notes_off, end_of_track_twice, one_tick_a_quarter, odd_resolution,
                 fine_resolution, click_track, keyswitches, retriggered, split_sysex, karaoke, bar_33, windows_3,
                 hydrogen_bass, crlf_behind, many_controllers, many_tempos, markers, unsafe_names)
}
