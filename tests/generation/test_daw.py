"""Songs and stems as others read them: mido, pretty_midi, symusic and music21 agree on what is in them.

None of them shares its reading with another, and what a DAW imports is what they find. How long a track is, only mido
says; the others count until the last note.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import mido
import music21
import numpy as np
import pretty_midi
import pytest
import symusic
from playing import PLAIN_RECIPE, prompt_file
from random_songs import random_song

from backline.generation.output_files import song_bytes
from backline.music.song import TICKS_PER_QUARTER
from backline.music.vocab import BAR, NOTE_DUR, PITCH_INSTRUMENT, QUARTERS_PER_BAR
from tokenizer import MidiTokenizerPooled

TOKENIZER = MidiTokenizerPooled()
V = TOKENIZER.vocabulary
DRUM_CHANNEL = 9  # counted from 0: people call it 10
TEMPO_TOLERANCE = 1e-3  # MIDI rounds to whole microseconds per quarter
Note = tuple[Fraction, Fraction, int]  # onset and end in quarters, pitch


def songs() -> dict[str, np.ndarray]:
    random = random_song(1, 60, 4)
    drums, *others = (V.part_of_id[random[:, PITCH_INSTRUMENT]] == p for p in range(len(V.parts)))
    short = random.copy()
    short[:, NOTE_DUR] = 4 + short[:, NOTE_DUR] % 4
    late = random[-1:].copy()
    late[:, BAR] += 40
    return {"random": random, "short": short, "without drums": random[~drums],
            "short without drums": short[~drums], "drums alone": random[drums],
            "one part and a gap": np.concatenate([random[others[-1]], late]), "a note": random[:1]}


# ---------------------------------------------------------------- readers: what each says of a song, in one form


def in_mido(data: bytes) -> dict:
    file = mido.MidiFile(file=io.BytesIO(data))
    assert file.type == 1
    parts = {}
    for track in file.tracks:
        notes, sounding, tick = [], {}, 0
        for message in track:
            tick += message.time
            if message.type == "note_on" and message.velocity:
                assert message.note not in sounding
                sounding[message.note] = tick
            elif message.type in ("note_on", "note_off"):
                onset = sounding.pop(message.note)
                notes.append((Fraction(onset, file.ticks_per_beat), Fraction(tick, file.ticks_per_beat), message.note))
        assert not sounding
        channels = {message.channel for message in track if hasattr(message, "channel")}
        programs = {message.program for message in track if message.type == "program_change"}
        parts[track.name] = {"drums": channels == {DRUM_CHANNEL}, "program": max(programs, default=0),
                             "notes": sorted(notes), "channels": channels}
    tempos = [message.tempo for track in file.tracks for message in track if message.type == "set_tempo"]
    return {"tempos": [60e6 / tempo for tempo in tempos], "parts": {k: v for k, v in parts.items() if v["notes"]},
            "tracks": list(parts)}


def in_pretty_midi(data: bytes) -> dict:
    song = pretty_midi.PrettyMIDI(io.BytesIO(data))

    def quarters(seconds: float) -> Fraction:
        return Fraction(song.time_to_tick(seconds), song.resolution)

    assert [(meter.numerator, meter.denominator, meter.time) for meter in song.time_signature_changes] == [(4, 4, 0)]
    parts = {part.name: {"drums": part.is_drum, "program": part.program, "notes": sorted(
        (quarters(note.start), quarters(note.end), note.pitch) for note in part.notes)}
             for part in song.instruments if part.notes}
    return {"tempos": song.get_tempo_changes()[1].tolist(), "parts": parts}


def in_symusic(data: bytes) -> dict:
    song = symusic.Score.from_midi(data)
    parts = {track.name: {"drums": track.is_drum, "program": track.program, "notes": sorted(
        (Fraction(note.start, song.tpq), Fraction(note.end, song.tpq), note.pitch) for note in track.notes)}
             for track in song.tracks if len(track.notes)}
    return {"tempos": [tempo.qpm for tempo in song.tempos], "parts": parts}


def in_music21(data: bytes) -> dict:
    """Its score has no pitches of drums, which it writes as percussion, and ties what crosses a bar line, which puts
    some notes elsewhere where long ones overlap; of a stem without notes nothing is left."""
    score = music21.converter.parseData(data, format="midi", quantizePost=False)
    parts = {}
    for part in score.parts:
        notes = []
        for element in part.flatten().notes:
            for note in element.notes if isinstance(element, music21.chord.ChordBase) else [element]:
                pitch = note.pitch.midi if isinstance(note, music21.note.Note) else None
                if note.tie is None or note.tie.type == "start":
                    notes.append((Fraction(element.offset), pitch))
        played_by = list(part.getInstruments())
        assert {meter.ratioString for meter in part.recurse().getElementsByClass("TimeSignature")} <= {"4/4"}
        if notes:
            parts[part.partName] = {"drums": played_by[-1].midiChannel == DRUM_CHANNEL, "notes": notes,
                                    "program": played_by[-1].midiProgram, "bars": len(part["Measure"])}
    marks = score.recurse().getElementsByClass("MetronomeMark")
    return {"tempos": {round(mark.number, 3) for mark in marks}, "parts": parts}


def expected(rows: np.ndarray) -> dict[str, dict]:
    """What any reader is to find, from the tokens alone: a note ends no later than its pitch is struck again."""
    parts: dict[str, dict] = {}
    for p, part in enumerate(V.parts):
        own = [(Fraction(int(onset), TICKS_PER_QUARTER), Fraction(int(end), TICKS_PER_QUARTER), int(pitch))
               for onset, end, pitch in TOKENIZER.rows_to_parts(rows, TICKS_PER_QUARTER)[p]]
        notes = [(onset, min([end, *(other for other, _, again in own if again == pitch and other > onset)]), pitch)
                 for onset, end, pitch in own]
        if notes:
            parts[part.name] = {"drums": part.is_drum, "program": part.program, "notes": sorted(notes)}
    return parts


def n_bars(notes: list[Note]) -> int:
    return -int(-max(end for _, end, _ in notes) // QUARTERS_PER_BAR)


# ---------------------------------------------------------------- agreement


@pytest.mark.parametrize("tempo", [120.0, 97.3, 61.803])
@pytest.mark.parametrize("name", songs())
@pytest.mark.parametrize("reader", [in_mido, in_pretty_midi, in_symusic])
def test_tempo_names_channels_programs_and_notes(reader: Callable[[bytes], dict], name: str, tempo: float):
    rows = songs()[name]
    wanted = expected(rows)
    for ending, data in song_bytes(rows, TOKENIZER, tempo, PLAIN_RECIPE).items():
        found = reader(data)
        assert found["tempos"] == pytest.approx([tempo], abs=TEMPO_TOLERANCE)
        parts = {part: facts for part, facts in wanted.items() if ending in ("", f"-{part}")}
        assert {part: {key: facts[key] for key in ("drums", "program", "notes")}
                for part, facts in found["parts"].items()} == parts


@pytest.mark.parametrize("name", ["short", "short without drums", "drums alone", "a note"])
def test_music21_agrees_on_the_score(name: str):
    rows = songs()[name]
    wanted = expected(rows)
    for ending, data in song_bytes(rows, TOKENIZER, 97.3, PLAIN_RECIPE).items():
        found = in_music21(data)
        assert set(found["parts"]) == {part for part in wanted if ending in ("", f"-{part}")}
        assert found["tempos"] == ({97.3} if found["parts"] else set())
        for part, facts in found["parts"].items():
            notes = wanted[part]["notes"]
            assert (facts["drums"], facts["program"]) == (wanted[part]["drums"], wanted[part]["program"])
            pitches = [(onset, None if facts["drums"] else pitch) for onset, _, pitch in notes]
            assert sorted(facts["notes"], key=str) == sorted(pitches, key=str)
        most = max((facts["bars"] for facts in found["parts"].values()), default=0)
        assert most == max((n_bars(wanted[part]["notes"]) for part in found["parts"]), default=0)


@pytest.mark.parametrize("at_least", [0, 3, 50])
@pytest.mark.parametrize("name", songs())
def test_all_tracks_of_a_song_and_its_stems_last_the_same_whole_bars(name: str, at_least: int):
    rows = songs()[name]
    bars = max(at_least, *(n_bars(part["notes"]) for part in expected(rows).values()))
    files = song_bytes(rows, TOKENIZER, 97.3, PLAIN_RECIPE, at_least)
    assert set(files) == {"", *(f"-{part.name}" for part in V.parts)}
    for ending, data in files.items():
        file = mido.MidiFile(file=io.BytesIO(data))
        assert in_mido(data)["tracks"] == [part.name for part in V.parts if ending in ("", f"-{part.name}")]
        ticks = {sum(message.time for message in track) for track in file.tracks}
        assert ticks == {bars * QUARTERS_PER_BAR * file.ticks_per_beat}
        assert file.length == pytest.approx(bars * QUARTERS_PER_BAR * 60 / 97.3, rel=1e-5)


def test_a_song_without_notes_lasts_the_bars_that_it_is_told():
    for n, ticks in ((0, 0), (2, 2 * QUARTERS_PER_BAR * TICKS_PER_QUARTER)):
        data = song_bytes(songs()["random"][:0], TOKENIZER, 120.0, PLAIN_RECIPE, n)[""]
        assert {sum(message.time for message in track) for track in mido.MidiFile(file=io.BytesIO(data)).tracks} == {
            ticks}


def test_each_part_has_a_channel_of_its_own_and_drums_the_tenth():
    channels = {name: part["channels"] for name, part in
                in_mido(song_bytes(songs()["random"], TOKENIZER, 120.0, PLAIN_RECIPE)[""])["parts"].items()}
    assert all(len(own) == 1 for own in channels.values()) and len(set().union(*channels.values())) == len(V.parts)
    assert [name for name, own in channels.items() if own == {DRUM_CHANNEL}] == [p.name for p in V.parts if p.is_drum]


# ---------------------------------------------------------------- through the command


@pytest.mark.parametrize("arguments", [[], ["--bars", "3"]])
def test_what_generate_writes_lands_in_time(run, tmp_path, arguments):
    """The song after a prompt at an odd tempo, and its stems."""
    assert run("-p", prompt_file(tmp_path, 97.3), "-o", "out", "--seed", 1, *arguments) == 0
    paths = [tmp_path / "out/0.mid", *(tmp_path / f"out/0-{part.name}.mid" for part in V.parts)]
    whole = in_mido(paths[0].read_bytes())
    ticks = {sum(message.time for message in track) for path in paths for track in mido.MidiFile(path).tracks}
    (length,) = ticks
    assert length % (QUARTERS_PER_BAR * TICKS_PER_QUARTER) == 0 and length > 0
    for path in paths:
        data = Path(path).read_bytes()
        for reader in (in_mido, in_pretty_midi, in_symusic):
            found = reader(data)
            assert found["tempos"] == pytest.approx([97.3], abs=TEMPO_TOLERANCE)
            for name, part in found["parts"].items():
                assert part["notes"] == whole["parts"][name]["notes"]
                assert part["drums"] == V.parts[V.part_names.index(name.removesuffix(" (new)"))].is_drum
