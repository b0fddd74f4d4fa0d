"""The cleaning stage: what is kept, what is left out and why, and that tokens do not change by it."""

from __future__ import annotations

import dataclasses
import tarfile
from pathlib import Path

import mido
import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from midi_bytes import BAD_FILES, DRUM_CHANNEL, midi_file, name, note, on, program, tempo, three_parts, time_signature

from backline.common.files import file_hash
from backline.music.midi_reader import read_song
from backline.music.midi_writer import end_at_next_onset
from backline.music.parts import NO_PART, OUT_OF_RANGE
from backline.music.vocab import load_vocabulary
from clean_midi import Cleaning, main
from tokenizer import MidiTokenizerPooled

TOKENIZER = MidiTokenizerPooled()
DRUMS, BASS, PIANO = range(3)


def no_limits(folder: Path) -> list[str]:
    """Flags that switch off every limit of quality, for songs of a few notes; tests/test_quality.py is about these."""
    path = folder / "no_limits.json"
    path.write_bytes(orjson.dumps({field.name: None for field in dataclasses.fields(Cleaning)
                                   if "None" in str(field.type)}))
    return ["--config", str(path)]


def cleaned(inputs: list[Path], out: Path, *flags: str) -> int:
    """Run the command without limits of quality; its exit code."""
    return main([*map(str, inputs), "-o", str(out), *no_limits(out.parent), *flags])


def clean(path: Path, out: Path, *flags: str) -> dict:
    """Clean one file; returns its row of the report."""
    cleaned([path], out, *flags)
    row, = rows_of_report(out)
    return row


def song_of(row: dict, out: Path) -> Path:
    """The one song that a row of the report says was written."""
    name, = row["outputs"]
    return out / name


def rows_of_report(folder: Path) -> list[dict]:
    return [orjson.loads(line) for line in (folder / "report.jsonl").read_bytes().splitlines()]


def written(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def pitches(path: str | Path) -> dict[str, list[int]]:
    return {track.name: sorted(track.notes[:, 2].tolist()) for track in read_song(path).tracks}


def raw_song(drums: list[int], bass: list[int], keys: list[int], **settings: int) -> bytes:
    """Unnamed tracks with a note every quarter, one per pitch given."""
    def notes(row: list[int], channel: int = 0) -> list:
        return [message for i, pitch in enumerate(row) for message in note(96 * i, 96 * i + 48, pitch, channel)]
    return midi_file([tempo(0, 500_000), time_signature(0, 2, 1)], notes(drums, DRUM_CHANNEL),
                     [program(34), *notes(bass)], [program(20), *notes(keys)], **settings)


# ---------------------------------------------------------------- what is written


def test_a_song_becomes_its_parts_and_nothing_else(tmp_path):
    path = tmp_path / "song.mid"
    path.write_bytes(midi_file(
        [tempo(0, 600_000), tempo(40, 300_000)], [name("Strings"), program(48), *note(0, 96, 60)],
        [name("Kit"), *note(0, 24, 36, DRUM_CHANNEL)], [name("Perc"), *note(24, 48, 42, DRUM_CHANNEL)],
        [program(33), on(0, 40), *note(10, 30, 40), *note(60, 72, 45)], [program(0), *note(0, 48, 60)]))
    row = clean(path, tmp_path / "out")
    song = read_song(tmp_path / "out" / "song.mid")
    assert [(track.name, track.program, track.is_drum, track.notes.tolist()) for track in song.tracks] == [
        ("drums", 0, True, [[0, 24, 36], [24, 48, 42]]), ("bass", 38, False, [[0, 10, 40], [10, 30, 40], [60, 72, 45]]),
        ("piano", 0, False, [[0, 48, 60]])]
    assert song.tempos == ((0, 200.0),) and song.ticks_per_quarter == 96
    assert [tuple(each) for each in song.time_signatures] == [(0, 4, 4)]
    facts = {"source": str(path), "verdict": "kept", "outputs": ["song.mid"], "notes": 6, "first_bars": [0],
             "bytes": path.stat().st_size, "sha256": file_hash(path), "ticks_per_quarter": 96,
             "tempo": 200.0, "tempo_changes": 1,
             "parts": {"drums": ["#2 Kit (drums, 1 notes)", "#3 Perc (drums, 1 notes)"],
                       "bass": ["#4 unnamed (program 33, 3 notes)"], "piano": ["#5 unnamed (program 0, 1 notes)"]},
             "why": {"drums": "on the drum channel", "bass": "by program", "piano": "by program"},
             "left_out": ["#1 Strings (program 48, 1 notes)"]}
    assert {key: row[key] for key in facts} == facts
    assert row["lost"][NO_PART] == sum(row["lost"].values()) == 1
    assert set(row) - set(facts) == {"settings", "quality", "lost"}


PART = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 400), st.sampled_from([40, 41, 80])),
                min_size=1, max_size=8).map(
    lambda rows: end_at_next_onset(np.array([(onset, onset + length, pitch) for onset, length, pitch in rows])))


@given(parts=st.tuples(PART, PART, PART), division=st.sampled_from([24, 50, 96, 480]),
       mspq=st.integers(200_000, 2_000_000))
def test_cleaned_then_tokenized_equals_raw_tokenized(scratch, parts, division, mspq):
    channels = DRUM_CHANNEL, 0, 1
    tracks = [[program(33 if p == BASS else 0, channels[p]),
               *(message for row in rows.tolist() for message in note(*row, channels[p]))]
              for p, rows in enumerate(parts)]
    raw = scratch / "raw.mid"
    raw.write_bytes(midi_file([tempo(0, mspq)], *tracks, division=division))
    row = clean(raw, scratch / "cleaned", "--force")
    tokens, again = TOKENIZER(raw), TOKENIZER(scratch / "cleaned" / "raw.mid")
    assert tokens["ids"] == again["ids"] and row["notes"] == len(tokens["ids"]) - 2
    assert tokens["tempo"] == again["tempo"] == row["tempo"]
    assert again["ticks_per_quarter"] == division


def test_cleaning_twice_changes_nothing(tmp_path):
    path = tmp_path / "song.mid"
    path.write_bytes(raw_song([36, 42], [40, 40], [60, 64]))
    clean(path, tmp_path / "once")
    clean(tmp_path / "once" / "song.mid", tmp_path / "twice")
    assert (tmp_path / "once" / "song.mid").read_bytes() == (tmp_path / "twice" / "song.mid").read_bytes()


def test_what_was_odd_about_a_file_stands_in_its_report(tmp_path):
    path = tmp_path / "song.mid"
    path.write_bytes(raw_song([36], [40], [60]))
    assert "notices" not in clean(path, tmp_path / "plain")
    data = bytearray(raw_song([36], [40], [60]))
    data[11] += 1  # the header's count of tracks
    path.write_bytes(data)
    assert clean(path, tmp_path / "odd")["notices"] == [f"header promised {data[11]} tracks, file holds {data[11] - 1}"]


# ---------------------------------------------------------------- what is left out


@pytest.mark.parametrize(("parts", "missing"), [
    ((), "no track fills any of drums, bass, piano"), (("bass", "piano"), "no drums"), (("drums", "piano"), "no bass"),
    (("drums",), "no bass and no piano")])
def test_a_song_without_a_part_is_dropped_unless_allowed(tmp_path, capsys, parts, missing):
    path, out = tmp_path / "song.mid", tmp_path / "out"
    path.write_bytes(midi_file([name("else"), program(120), *note(0, 9, 60)],
                               *([name(part), *note(0, 9, 60)] for part in parts)))
    assert cleaned([path], out) == 2
    assert capsys.readouterr().err.startswith(f"error: {path}: {missing}; ")
    assert written(out) == ["logs.txt", "report.jsonl"]
    assert cleaned([path], out, "--allow-missing") == (0 if parts else 2)
    if parts:
        assert pitches(out / "song.mid") == {part: [60] for part in parts}
        assert [each.name for each in mido.MidiFile(out / "song.mid").tracks] == ["drums", "bass", "piano"]


def test_a_part_with_no_note_in_its_range_is_missing(tmp_path):
    path = tmp_path / "song.mid"
    path.write_bytes(raw_song([20, 20], [40], [60]))
    row = clean(path, tmp_path / "out", "--max-lost", "1")
    assert (row["verdict"], row["reason"].split(";")[0]) == ("dropped", "no drums")
    assert clean(path, tmp_path / "out", "--max-lost", "1", "--allow-missing")["verdict"] == "kept"
    path.write_bytes(raw_song([20, 20], [], []))
    assert clean(path, tmp_path / "none", "--max-lost", "1", "--allow-missing")["verdict"] == "dropped"


def test_drop_leaves_out_notes_up_to_the_share_that_may_be_lost(tmp_path):
    path = tmp_path / "song.mid"
    path.write_bytes(raw_song([36, 36, 36, 36, 82], [20, 40, 40, 40], [60]))
    row = clean(path, tmp_path / "default")
    assert row["verdict"] == "dropped"
    assert row["reason"].startswith("bass has too many notes outside pitches 21 to 108 (1 of 4)")
    row = clean(path, tmp_path / "quarter", "--max-lost", "0.25")
    assert row["lost"][OUT_OF_RANGE] == 2
    assert pitches(song_of(row, tmp_path / "quarter")) == {"drums": [36] * 4, "bass": [40] * 3, "piano": [60]}
    assert clean(path, tmp_path / "none", "--max-lost", "0.24")["verdict"] == "dropped"


def test_octave_moves_all_but_drums(tmp_path):
    path = tmp_path / "song.mid"
    path.write_bytes(raw_song([36] * 9 + [82], [20, 9, 0, 21, 108, 109], [127, 120, 60]))
    row = clean(path, tmp_path / "out", "--ranges", "octave")
    assert pitches(song_of(row, tmp_path / "out")) == {
        "drums": [36] * 9, "bass": sorted([32, 21, 108, 97]), "piano": sorted([103, 108, 60])}
    assert row["lost"][OUT_OF_RANGE] == 1 + 2  # the cymbal, and two key switches


def test_skip_leaves_the_song_out(tmp_path):
    path = tmp_path / "song.mid"
    path.write_bytes(raw_song([36] * 99 + [82], [40], [60]))
    row = clean(path, tmp_path / "out", "--ranges", "skip")
    assert row["verdict"] == "dropped"
    assert row["reason"].startswith("bar 25: drums pitch 82 is outside 35 to 81 (1 of 100 notes)")
    assert "--ranges drop" in row["reason"]
    assert clean(path, tmp_path / "out", "--ranges", "drop")["verdict"] == "kept"


@pytest.mark.parametrize("share", ["-0.1", "1.1", "nan"])
def test_max_lost_must_be_a_share(tmp_path, capsys, share):
    (tmp_path / "song.mid").write_bytes(three_parts())
    assert main([str(tmp_path), "-o", str(tmp_path / "out"), "--max-lost", share]) == 2
    assert "must be a share from 0 to 1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_another_vocabulary_brings_other_parts(tmp_path):
    data = load_vocabulary().to_dict()
    data["parts"] = [{**data["parts"][2], "name": "keys", "highest_pitch": 60}]
    (tmp_path / "vocab.json").write_bytes(orjson.dumps(data))
    (tmp_path / "song.mid").write_bytes(raw_song([36], [40], [60, 50]))
    row = clean(tmp_path / "song.mid", tmp_path / "out", "--vocab", str(tmp_path / "vocab.json"))
    assert pitches(song_of(row, tmp_path / "out")) == {"keys": [50, 60]}


# ---------------------------------------------------------------- the command


def test_names_and_folders_are_kept_and_every_input_has_a_row(tmp_path, capsys):
    for folder, files in {"one": ["song.mid", "deep/x.KAR"], "two": ["song.mid", "bad.mid", "waltz.midi"]}.items():
        for file in files:
            (tmp_path / folder / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / file).write_bytes(three_parts(piano=60 if folder == "one" else 70))
    (tmp_path / "two" / "bad.mid").write_bytes(b"no MIDI")
    (tmp_path / "two" / "waltz.midi").write_bytes(BAD_FILES["3/4"][0])
    out = tmp_path / "out"
    assert cleaned([tmp_path / "one", tmp_path / "two"], out) == 0
    assert written(out) == ["deep/x.mid", "logs.txt", "report.jsonl", "song-2.mid", "song.mid"]
    assert pitches(out / "song.mid")["piano"] == [60] and pitches(out / "song-2.mid")["piano"] == [70]
    rows = rows_of_report(out)
    assert [(str(Path(row["source"]).relative_to(tmp_path)), row["verdict"]) for row in rows] == [
        ("two/bad.mid", "dropped"), ("one/song.mid", "kept"), ("two/song.mid", "kept"), ("two/waltz.midi", "dropped"),
        ("one/deep/x.KAR", "kept")]
    assert rows[3]["reason"].startswith("bar 1 is in 3/4")
    captured = capsys.readouterr()
    assert captured.out.startswith(f"3 of 5 files cleaned into {out}\n") and captured.err == ""
    assert captured.out in (out / "logs.txt").read_text()


def test_equal_reasons_are_counted_together(tmp_path, capsys):
    for number, bar in enumerate((2, 30)):
        (tmp_path / f"{number}.mid").write_bytes(midi_file(
            [name("piano"), time_signature(384 * bar, 3, 2), *note(384 * bar, 384 * bar + 9, 60)]))
    (tmp_path / "2.mid").write_bytes(three_parts())
    assert cleaned([tmp_path], tmp_path / "out") == 0
    reason, = [line for line in capsys.readouterr().out.splitlines() if "left out:" in line]
    assert reason.split(maxsplit=2) == ["2", "66.7%", "left out: bar N is in 3/4"]


def test_refuses_to_overwrite_unless_forced(tmp_path, capsys):
    path, out = tmp_path / "song.mid", tmp_path / "out"
    path.write_bytes(three_parts())
    out.mkdir()
    (out / "song.mid").write_bytes(b"mine")
    assert cleaned([path], out) == 2
    assert capsys.readouterr().err.startswith(f"error: {out / 'song.mid'} exists already")
    assert (out / "song.mid").read_bytes() == b"mine" and written(out) == ["song.mid"]
    assert cleaned([path], out, "--force") == 0
    assert pitches(out / "song.mid")["piano"] == [60]


@pytest.mark.parametrize("flags", [(), ("--allow-missing",)], ids=["", "allow-missing"])
@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_one_line_on_stderr_and_no_song(tmp_path, capsys, case, flags):
    data, message = BAD_FILES[case]
    path, out = tmp_path / "song.mid", tmp_path / "out"
    path.write_bytes(data)
    assert cleaned([path], out, *flags) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {path}: ") and captured.err.count("\n") == 1 and captured.out == ""
    assert (case == "past the last bar" and not flags) or message in captured.err
    assert written(out) == ["logs.txt", "report.jsonl"]


def test_messy_files_are_kept_or_have_a_reason(shared, tmp_path):
    """A sample of files as found in the wild: none ends the run, and what is kept can be tokenized."""
    with tarfile.open(shared / "data" / "messy_midi.tar.xz") as archive:
        members = [member for member in archive if member.isfile()][::12]
        for member in members:
            (tmp_path / Path(member.name).name).write_bytes(archive.extractfile(member).read())
    assert cleaned([tmp_path], tmp_path / "out", "--allow-missing") == 0
    rows = rows_of_report(tmp_path / "out")
    assert len(rows) == len(members)
    for row in rows:
        if row["verdict"] == "kept":
            assert len(TOKENIZER(song_of(row, tmp_path / "out"))["ids"]) == row["notes"] + 2
        else:
            assert row["reason"]


@pytest.mark.parametrize("flags", [["--ranges", "drop", "--max-lost", "1"], ["--meters", "cut"]])
def test_a_song_of_which_nothing_is_left_is_dropped(tmp_path, flags):
    """Every note of a part out of its range; every note of a part in bars of three quarters."""
    path = tmp_path / "song.mid"
    if "--meters" in flags:
        path.write_bytes(midi_file([time_signature(0, 3, 2), time_signature(288, 4, 2)],
                                   [name("piano"), *note(0, 96, 60)],
                                   [program(48), *note(288 + 384 * 10, 288 + 384 * 10 + 96, 60)]))
    else:
        path.write_bytes(raw_song([], [], [127] * 9))
    row = clean(path, tmp_path / "out", "--allow-missing", *flags)
    assert (row["verdict"], written(tmp_path / "out")) == ("dropped", ["logs.txt", "report.jsonl"])
