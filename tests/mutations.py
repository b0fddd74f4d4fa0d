"""MIDI and token files, and what can go wrong with their bytes: the inputs of `fuzz.py`.

hypothesis draws recipes: a base file, another one, and a few mutations, each with a place (as a 16-bit share of the
file) and a value. Mutations that know the format get further into the readers than flipped bits, which mostly end at
the first check. hypothesis also tries numbers that stand in this project's code, so that the inputs of a seed change
with the code.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import strategies as st
from midi_bytes import (
    DRUM_CHANNEL,
    END_OF_TRACK,
    chunk,
    meta,
    midi_file,
    name,
    note,
    on,
    program,
    riff,
    tempo,
    three_parts,
    time_signature,
    track,
    variable_length,
)

from backline.common.errors import UserError
from backline.music.midi_reader import read_song
from backline.music.vocab import FIELDS
from tokenizer import MidiTokenizerPooled

EXAMPLES = Path(__file__).parents[1] / "examples"
MIDI, TOKENS = "midi", "tokens"
TOKEN_BATCHES = 4  # one batch of so many is of token files: they have fewer readers
BATCH = 250  # recipes per run of hypothesis, which slows down as it remembers what it has tried
LARGEST = 900_000  # bytes of an input: the limit of memory is for inputs under a megabyte
ODD_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
Mutation = Callable[[bytes, int, int, bytes], bytes]  # (file, place, value, another file) → file


# ---------------------------------------------------------------- base files


def midi_bases() -> list[bytes]:
    """Songs of every shape the readers treat differently, small ones, and the repository's examples."""
    bar = 4 * 96
    parts = [[name("drums"), *(event for i in range(32) for event in note(48 * i, 48 * i + 24, 36 + i % 3, 9))],
             [name("bass"), program(38), *(event for i in range(16) for event in note(96 * i, 96 * i + 90, 40))],
             [program(4, 2), *(event for i in range(24) for event in note(64 * i, 64 * i + 99, 60 + i % 5, 2))]]
    mixed = sorted((event for each in parts for event in each), key=lambda event: event[0])
    first_bars = [time_signature(0, 4, 2), tempo(0, 500_000), time_signature(bar, 3, 2), time_signature(2 * bar, 4, 2)]
    return [three_parts(), riff(three_parts(), b"INFOISFT"), midi_file(*parts), midi_file(mixed, midi_format=0),
            midi_file(*parts, division=1), midi_file(*parts, division=0x7FFF), midi_file(first_bars, *parts),
            midi_file(*(parts * 12)), midi_file(parts[0], parts[1], [*note(0, 9, 60), *note(300 * bar, 301 * bar, 60)]),
            midi_file(*parts, [on(0, 60, 5), on(4, 60, 5), on(9, 60, 5), *note(96, 97, 20, DRUM_CHANNEL)]),
            *(path.read_bytes() for path in sorted(EXAMPLES.glob("*.mid")))]


def token_bases(midi_files: Sequence[bytes]) -> list[bytes]:
    """Token files of those MIDI files that can be tokenized, in this project's form and the predecessor's."""
    tokenizer, found = MidiTokenizerPooled(), []
    for data in midi_files:
        try:
            song = read_song("base", data)
            rows = tokenizer.song_rows(song, "base")
        except UserError:
            continue
        found.append(tokenizer.token_bytes(rows, song, "base", events=len(found) % 2 == 0))
    return [*found, json.dumps({"ids": json.loads(found[0])["ids"]}).encode()]


# ---------------------------------------------------------------- any file


def _at(data: bytes, place: int) -> int:
    return place * (len(data) + 1) >> 16


def _bit(data: bytes, place: int, value: int, _: bytes) -> bytes:
    at = _at(data, place)
    return data[:at] + bytes([octet ^ 1 << value % 8 for octet in data[at:at + 1]]) + data[at + 1:]


def _octet(data: bytes, place: int, value: int, _: bytes) -> bytes:
    at = _at(data, place)
    return data[:at] + bytes([value & 0xFF]) + data[at + 1:]


def _cut_off(data: bytes, place: int, _: int, __: bytes) -> bytes:
    return data[:_at(data, place)]


def _leave_out(data: bytes, place: int, value: int, _: bytes) -> bytes:
    at = _at(data, place)
    return data[:at] + data[at + value % 64:]


def _twice(data: bytes, place: int, value: int, _: bytes) -> bytes:
    at = _at(data, place)
    return data[:at] + data[at:at + value % 4096] * 2 + data[at:]


def _random_bytes(data: bytes, place: int, value: int, _: bytes) -> bytes:
    at = _at(data, place)
    return data[:at] + random.Random(value).randbytes(value % 40) + data[at + value // 40 % 40:]


def _splice(data: bytes, place: int, value: int, other: bytes) -> bytes:
    return data[:_at(data, place)] + other[_at(other, value & 0xFFFF):]


ANY_FILE = (_bit, _octet, _cut_off, _leave_out, _twice, _random_bytes, _splice)


# ---------------------------------------------------------------- MIDI


def _tracks(data: bytes) -> list[bytes]:
    """The file cut before every MTrk: what comes before the first (header), then the chunks."""
    head, *bodies = data.split(b"MTrk")
    return [head, *(b"MTrk" + body for body in bodies)]


def _header(data: bytes, place: int, value: int, _: bytes) -> bytes:
    """Another format, count of tracks or division."""
    at = data.find(b"MThd") + 8 + 2 * (place % 3)
    return data[:at] + struct.pack(">H", (ODD_NUMBERS[place % 8] if value % 2 else value >> 1) & 0xFFFF) + data[at + 2:]


def _length(data: bytes, place: int, value: int, _: bytes) -> bytes:
    """Another length of a chunk, the header's too."""
    pieces = _tracks(data)
    k = place % len(pieces)
    at = 4 + max(pieces[k].find(b"MThd"), 0)
    near = len(pieces[k]) - 8 + value % 9 - 4
    length = (near if value % 3 else random.Random(value).choice(ODD_NUMBERS)) & 0xFFFFFFFF
    pieces[k] = pieces[k][:at] + struct.pack(">I", length) + pieces[k][at + 4:]
    return b"".join(pieces)


def _chunks(data: bytes, place: int, value: int, other: bytes) -> bytes:
    """Chunks swapped, doubled, left out, renamed, or another file's among them."""
    pieces = _tracks(data)
    k, j = place % len(pieces), value // 8 % len(pieces)
    match value % 6:
        case 0:
            pieces[k], pieces[j] = pieces[j], pieces[k]
        case 1:
            pieces[k] *= 2 + place // 16 % 3
        case 2:
            del pieces[k]
        case 3:
            pieces[k] = random.Random(value).choice((b"XFIH", b"MThd", b"MTrj")) + pieces[k][4:]
        case 4:
            pieces[k:k] = _tracks(other)[1:]
        case _:  # thousands of tracks
            pieces[k:k] = [track([])] * (value // 8 % 3000)
    return b"".join(pieces)


def _high_data(data: bytes, place: int, value: int, _: bytes) -> bytes:
    """Some note-ons' pitch or velocity over 127."""
    changed = bytearray(data)
    at = _at(data, place)
    for _ in range(1 + value % 5):
        at = changed.find(0x90 | value // 8 % 16, at) + 1
        if not 0 < at < len(changed) - 1:
            break
        changed[at + value // 128 % 2] |= 0x80
    return bytes(changed)


def _events(data: bytes, place: int, value: int, _: bytes) -> bytes:
    """Events that are odd, or many, at the beginning or the end of a track whose length is right."""
    chance = random.Random(value)
    pieces = _tracks(data)
    k = place % len(pieces)
    body = pieces[k][8:]
    split = max(len(body) - 4, 0) if place % 2 else 0
    pieces[k] = (pieces[0] if not k else b"") + chunk(body[:split] + chance.choice(EVENTS)(chance) + body[split:])
    return b"".join(pieces)


def _gaps(chance: random.Random) -> bytes:
    gap = variable_length(chance.choice((0xFFFFFFF, 0x8000000, 0x7FFFFFF, 0xFFFFF, 0x1FFFFF, 383)))
    return chance.choice((gap, b"\xff\xff\xff\xff\x7f", b"\x80" + gap)).join([meta(1, b"")] * chance.randint(2, 9))[3:]


def _running(chance: random.Random) -> bytes:
    status = bytes([0, chance.choice((0x80, 0x90, 0x99, 0xA0, 0xC0, 0xE3, 0xF0, 0xF7)), 60, 64])
    return status + bytes([chance.randint(0, 127), chance.randint(0, 255), chance.choice((0, 64))]) * chance.choice(
        (3, 300, 20_000))


def _sounding(chance: random.Random) -> bytes:
    return b"".join(bytes([0, 0x90 | chance.randint(0, 15), chance.randint(0, 127), 1]) for _ in range(900))


def _odd_meta(chance: random.Random) -> bytes:
    kind = chance.choice((0x00, 0x01, 0x03, 0x20, 0x2F, 0x51, 0x54, 0x58, 0x59, 0x7F, chance.randint(0, 255)))
    data = chance.choice((bytes(chance.randint(0, 9)), chance.randbytes(chance.randint(0, 9)), b"drums", b"bass", b"*",
                          chance.randbytes(3000)))
    size = chance.choice((len(data), len(data), len(data) + 1, 0xFFFFFFF))
    return bytes([0, 0xFF, kind]) + variable_length(size) + data


def _odd_sysex(chance: random.Random) -> bytes:
    data = chance.randbytes(chance.randint(0, 20))
    return bytes([0, chance.choice((0xF0, 0xF7))]) + variable_length(len(data)) + data + chance.choice((b"", b"\xf7"))


def _odd_signature(chance: random.Random) -> bytes:
    return b"\0" + meta(0x58, bytes([chance.randint(0, 8), chance.choice((0, 1, 2, 3, 31, 32, 64, 255)), 24, 8]))


def _many_signatures(chance: random.Random) -> bytes:
    bar = variable_length(chance.choice((0, 1, 96, 384)))
    signatures = [bar + meta(0x58, bytes([numerator, 2, 24, 8])) for numerator in (4, 3)]
    return b"".join(signatures) * chance.choice((2, 200, 20_000))


def _system(chance: random.Random) -> bytes:
    return bytes([chance.randint(0, 127), chance.randint(0xF0, 0xFF), *chance.randbytes(chance.randint(0, 3))])


EVENTS = (_gaps, _running, _sounding, _odd_meta, _odd_sysex, _odd_signature, _many_signatures, _system,
          lambda chance: b"\0" + END_OF_TRACK, lambda chance: bytes([0, 0xC0, chance.randint(0, 255)]))
MIDI_MUTATIONS: tuple[Mutation, ...] = (*ANY_FILE, _header, _length, _chunks, _high_data, *[_events] * 4)


# ---------------------------------------------------------------- token files

DEEP, NOT_UTF8 = "(deep)", "(not utf-8)"
PUT_IN = {DEEP: b"[" * 100_000 + b"]" * 100_000, NOT_UTF8: b'"\xff\xed\xa0\x80"'}
LONG = "x" * 50_000
ODD_VALUES = (DEEP, NOT_UTF8, LONG, "two\nlines", "", 10 ** 400, -10 ** 30, 2 ** 64 - 1, 2 ** 63, -2 ** 63, -1, 0, 3,
              500, 1.5, 1e308, float("nan"), float("inf"), True, None, [], {}, [[]], [[1, 1, 1, 1]] * 3, [3, 3, 3],
              {"a": [1]})


def _json(data: bytes, place: int, value: int, _: bytes) -> bytes:
    """An odd value for a key, a row or an id; or a key, a row or an id left out or doubled."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):  # not after other mutations
        return data
    if not isinstance(content, dict):
        return data
    odd = ODD_VALUES[value % len(ODD_VALUES)]
    rows = content.get("ids")
    if place % 3 == 0 or not isinstance(rows, list) or not rows:
        key = random.Random(place).choice(["ids", "tempo", "format", "version", "vocabulary", "events", "more"])
        content[key] = odd
        if value // 64 % 4 == 0:
            del content[key]
    else:
        _odd_row(rows, place * len(rows) >> 16, value // 64, odd)
    text = json.dumps(content, ensure_ascii=value % 2 == 0).encode("utf-8", "surrogatepass")
    for mark, replacement in PUT_IN.items():
        text = text.replace(f'"{mark}"'.encode(), replacement)
    return text


def _odd_row(rows: list[Any], k: int, value: int, odd: Any) -> None:
    row = rows[k]
    match value % 6:
        case 0:
            rows[k] = odd
        case 1:
            del rows[k]
        case 2 if isinstance(row, list):
            rows[k] = row * 2 if value // 8 % 2 else row[1:]
        case 3:
            rows[k:k] = [row] * (value // 8 % 20_000)
        case _ if isinstance(row, list) and row:
            row[value // 8 % len(row)] = odd
        case _:
            rows[:] = [[odd] * len(FIELDS)] * len(rows)


TOKEN_MUTATIONS: tuple[Mutation, ...] = (*ANY_FILE, *[_json] * 30)


# ---------------------------------------------------------------- recipes


def inputs(seed: int, real: Sequence[bytes] = ()) -> Iterator[tuple[str, bytes]]:
    """Endlessly (kind, contents) of mutated files, none twice; the same for the same `seed` and `real` MIDI files."""
    midi_files = [*midi_bases(), *real]
    kinds = {MIDI: (midi_files, MIDI_MUTATIONS), TOKENS: (token_bases(midi_files), TOKEN_MUTATIONS)}
    seen: set[bytes] = set()
    for number in itertools.count():
        kind = TOKENS if number % TOKEN_BATCHES == 1 else MIDI
        bases, mutations = kinds[kind]
        for base, other, steps in _drawn(_recipes(len(bases), len(mutations)), seed << 32 | number):
            data = bases[base]
            for which, place, value in steps:
                data = mutations[which](data, place, value, bases[other])[:LARGEST]
            mark = hashlib.blake2b(data, digest_size=16).digest()
            if mark not in seen:
                seen.add(mark)
                yield kind, data


def _recipes(n_bases: int, n_mutations: int) -> st.SearchStrategy:
    base = st.integers(0, n_bases - 1)
    step = st.tuples(st.integers(0, n_mutations - 1), st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF))
    return st.tuples(base, base, st.lists(step, min_size=1, max_size=5))


def _drawn(strategy: st.SearchStrategy, seed: int) -> list[Any]:
    found = []

    @hypothesis.seed(seed)
    @hypothesis.settings(max_examples=BATCH, database=None, deadline=None, derandomize=False,
                         phases=[hypothesis.Phase.generate], suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(strategy)
    def collect(recipe: Any) -> None:
        found.append(recipe)

    collect()
    return found
