"""Inputs that `make fuzz` found, and known nasty ones: each is read, or refused by one line that helps, and soon."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import fuzz
import pytest
from midi_bytes import (
    END_OF_TRACK,
    chunk,
    header,
    meta,
    midi_file,
    note,
    on,
    program,
    three_parts,
    track,
    variable_length,
)
from mutations import inputs

from backline.music.choices import CUT, DROP, Choices
from backline.music.midi_reader import read_song
from tokenizer import MidiTokenizerPooled, SongTokens

GAP = variable_length(0xFFFFFFF)
ROW = b"[3,3,3,3]"
SOON = 8  # seconds: many times what any of these takes

MIDI = {
    # 2^28 − 1 ticks before a note, and as many within it
    "long gap": midi_file([on(0xFFFFFFF, 60)]),
    "long note": midi_file(note(0, 0xFFFFFFF, 60)),
    # delta times that overflow a clock of 32 bits, and one of five bytes, which MIDI does not have
    "endless gaps": header(1) + chunk((GAP + meta(1, b"")) * 40 + b"\0\x90\x3c\x40\0" + END_OF_TRACK),
    "five-byte delta": header(1) + chunk(b"\xff\xff\xff\xff\x7f\x90\x3c\x40\0" + END_OF_TRACK),
    # a header that promises what is not there; many that are
    "65535 tracks promised": header(65535) + track(note(0, 24, 60)),
    "many tracks": header(800) + track(note(0, 9, 60)) * 800,
    # nothing, in every place
    "header of length zero": b"MThd" + bytes(10) + track(note(0, 24, 60)),
    "tracks of length zero": header(3) + chunk(b"") * 3,
    "notes of length zero": midi_file([event for tick in range(9) for event in note(tick, tick, 60)]),
    "only zeros": b"MThd" + bytes(4000),
    # chunks that claim to reach past every end
    "longest length": three_parts().replace(b"MTrk\0\0\0", b"MTrk\xff\xff\xff"),
    # events: the longest text, running status after nothing and for 10,000 notes, data over 127
    "text of 256 MB": header(1) + chunk(b"\0\xff\x01" + GAP + b"words" + b"\0" + END_OF_TRACK),
    "running status alone": header(1) + chunk(b"\0\x3c\x40\0" + END_OF_TRACK),
    "deep running status": header(1) + chunk(b"\0\x90\x3c\x40" + b"\1\x3c\0\1\x3c\x40" * 10_000 + b"\0" + END_OF_TRACK),
    "program 200": midi_file([program(200), *note(0, 24, 60)]),
    # a time signature of 4/2^255, and a tempo of no time at all
    "endless denominator": midi_file([(0, meta(0x58, b"\x04\xff\x18\x08")), *note(0, 24, 60)]),
    "tempo of zero": midi_file([(0, meta(0x51, b"\0\0\0")), *note(0, 24, 60)]),
}
TOKENS = {
    # found: a line of the file in the message
    "format of two lines": b'{"ids": [], "format": "two\\nlines"}',
    "version of any length": b'{"ids": [], "version": "' + b"v" * 5000 + b'"}',
    "vocabulary of two lines": b'{"ids": [], "vocabulary": "two\\nlines"}',
    "tempo of any length": b'{"ids": [], "tempo": [' + b"1," * 5000 + b"1]}",
    # found: no word on what to do
    "no JSON": b"{",
    "no object": b"[]",
    "no notes": b'{"ids": []}',
    "ragged rows": b'{"ids": [[3, 3, 3, 3], [3, 3, 3]]}',
    "id outside": b'{"ids": [[3, 3, 3, 3000]]}',
    "tempo of zero": b'{"ids": [], "tempo": 0}',
    # found by looking for it: numpy gave each of 20,000 ids the 200,000 bytes of one text
    "long text among ids": b'{"ids": [["' + b"x" * 50_000 + b'",3,3,3]' + (b"," + ROW) * 5000 + b"]}",
    "long text among rows": b'{"ids": ["' + b"x" * 50_000 + b'"' + b',""' * 20_000 + b"]}",
    # numbers that no integer type holds, and what JSON does not have
    "integer of 400 digits": b'{"ids": [[3,3,3,1' + b"0" * 400 + b"]]}",
    "2^64 - 1": b'{"ids": [[3,3,3,18446744073709551615]]}',
    "2^63, and below zero": b'{"ids": [[3,3,-1,9223372036854775808]]}',
    "tempo of 400 digits": b'{"ids": [], "tempo": 1' + b"0" * 400 + b"}",
    "NaN": b'{"ids": [[3,3,3,NaN]]}',
    # nesting as deep as no parser's stack
    "ids nested": b'{"ids": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "ids nested less": b'{"ids": ' + b"[" * 500 + b"]" * 500 + b"}",
    "invalid UTF-8": b'{"ids": "\xff\xed\xa0\x80"}',
    "ids that are none": b'{"ids": {"a": 1}}',
    "a number for ids": b'{"ids": 3}',
    "texts for ids": b'{"ids": "three"}',
}


def tried(path: Path, data: bytes, numbers: Sequence[int] = (0, 7, 23)) -> fuzz.Tried:
    """What `make fuzz` makes of an input, over several of its numbers, so that the choices differ."""
    result = fuzz.Tried()
    path.write_bytes(data)
    (path.parent / "bass.mid").write_bytes(three_parts())
    for number in numbers:
        (fuzz.try_midi if path.suffix == ".mid" else fuzz.try_tokens)(result, path, number)
    assert result.seconds < SOON
    return result


@pytest.mark.parametrize("numbers", [(0,), pytest.param((7, 23), marks=pytest.mark.slow)], ids=str)
def test_signatures_after_the_last_note_take_time_linear_in_the_file(numbers, tmp_path):
    # found: each of 40,000 signatures that are not 4/4 looked at every note for the last one
    signatures = [(9999 + i, meta(0x58, bytes([3, 2, 24, 8]))) for i in range(40_000)]
    song = midi_file(signatures, *[note(0, 9, 60)] * 18)
    assert tried(tmp_path / "piano.mid", song, numbers).findings == []


@pytest.mark.parametrize("data", MIDI.values(), ids=MIDI)
def test_midi(data, tmp_path):
    assert tried(tmp_path / "piano.mid", data).findings == []


@pytest.mark.parametrize("data", TOKENS.values(), ids=TOKENS)
def test_tokens(data, tmp_path):
    result = tried(tmp_path / "piano.json", data)
    assert result.findings == []
    assert result.outcomes[fuzz.REFUSED]


def test_many_stretches_take_time_linear_in_the_file(tmp_path):
    # found by looking for it: each of 10,000 stretches of four quarters looked at every note
    signatures = [(384 * i, meta(0x58, bytes([4 - i % 2, 2, 24, 8]))) for i in range(20_000)]
    notes = [event for i in range(40_000) for event in note(190 * i, 190 * i + 90, 60)]
    result = fuzz.Tried()
    song = read_song("song.mid", midi_file(signatures, [(0, meta(3, b"piano")), *notes]))
    job = SongTokens(MidiTokenizerPooled(), Choices(meters=CUT, ranges=DROP, min_stretch_bars=1), False)
    converted = result.attempt("tokenizer", "song.mid", job, song, "song.mid")
    assert len(converted.files) > 9000
    assert result.seconds < SOON


@pytest.mark.parametrize(("text", "fault"), [
    ("song.mid: has no notes; export it again", ""),
    ("has no notes; export it again", "does not name"),
    ("song.mid: has no notes", "without a remedy"),
    ("song.mid: is a\nb; export it again", "several lines"),
    (f"song.mid: {'x' * 1000}; export it again", "too long")])
def test_form_of_messages(text, fault):
    assert fault in fuzz.wrong_form(text, "song.mid")
    assert bool(fault) == bool(fuzz.wrong_form(text, "song.mid"))


def _inputs(n: int, seed: int) -> list[tuple[str, bytes]]:
    return [each for each, _ in zip(inputs(seed), range(n), strict=False)]


def test_the_same_seed_gives_the_same_inputs():
    assert _inputs(9, seed=5) == _inputs(9, seed=5) != _inputs(9, seed=6)


def test_a_small_run_finds_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(fuzz, "real_files", lambda work: [])
    argv = ["--inputs", "60", "--folder-inputs", "5", "-o", str(tmp_path / "findings"), "-j", "1"]
    assert fuzz.main(argv) == 0, capsys.readouterr().out
    assert "60 inputs" in capsys.readouterr().out
    assert not (tmp_path / "findings").exists()


def test_what_is_found_is_reported(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(fuzz, "real_files", lambda work: [])
    monkeypatch.setattr(fuzz, "try_midi", lambda tried, path, _: tried.attempt("reader", str(path), lambda: 1 // 0))
    monkeypatch.setattr(fuzz, "try_folder", lambda folder, files: ["tokenizer.py lost a file"])
    assert fuzz.main(["--inputs", "3", "-o", str(tmp_path / "findings"), "-j", "0"]) == 1
    printed = capsys.readouterr().out
    assert "ZeroDivisionError" in printed and "lost a file" in printed
    assert len(list((tmp_path / "findings").iterdir())) == 3
