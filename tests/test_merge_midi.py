"""Stems in, one song out: notes, parts, ticks, tempo, and every refusal."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import mido
import pytest
from hypothesis import given
from hypothesis import strategies as st

import merge_midi
from backline.common.errors import EXIT_USER_ERROR, UserError
from backline.music.joining import common_ticks_per_quarter, rescale_tick
from backline.music.midi_reader import read_song
from backline.music.song import MAX_TICKS_PER_QUARTER
from backline.music.stems import find_part
from backline.music.vocab import load_vocabulary

ROOT = Path(merge_midi.__file__).parent
PARTS = load_vocabulary().part_names
LEADS = {"format": "pooled-vocabulary", "version": 1, "bars": 8, "steps_per_bar": 32, "max_duration_steps": 32,
         "parts": [{"name": name, "is_drum": name == "kit", "program": program, "accepts": [],
                    "lowest_pitch": 0, "highest_pitch": 127}
                   for program, name in enumerate(["lead", "synth_lead", "kit"])]}

Notes = list[tuple[int, int, int]]  # onset, end, pitch


def write_stem(path: Path, *tracks: Notes, tpq: int = 480, tempo: float | None = None, channel: int = 0,
               signature: tuple[int, int] | None = None, names: Sequence[str] = ()) -> Path:
    """A MIDI file written by mido, nothing of this project in between."""
    midi = mido.MidiFile(ticks_per_beat=tpq)
    head = midi.add_track()
    if tempo:
        head.append(mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(tempo)))
    if signature:
        head.append(mido.MetaMessage("time_signature", numerator=signature[0], denominator=signature[1]))
    for i, notes in enumerate(tracks):
        track = midi.add_track(names[i] if names else None)
        events = sorted([(end, 0, pitch) for _, end, pitch in notes] + [(onset, 1, pitch) for onset, _, pitch in notes])
        now = 0
        for tick, on, pitch in events:
            track.append(mido.Message("note_on", channel=channel, note=pitch, velocity=70 * on, time=tick - now))
            now = tick
    midi.save(path)
    return path


def mido_notes(path: Path) -> dict[str, Notes]:
    """Track name → its notes, paired by a reader that shares nothing with the project's."""
    found = {}
    for track in mido.MidiFile(path).tracks:
        now, sounding, notes = 0, {}, []
        for message in track:
            now += message.time
            if message.type not in ("note_on", "note_off"):
                continue
            if message.type == "note_on" and message.velocity:
                assert message.note not in sounding, "a note begins while its pitch still sounds"
                sounding[message.note] = now
            else:
                notes.append((sounding.pop(message.note), now, message.note))
        assert not sounding
        if notes:
            found[track.name] = sorted(found.get(track.name, []) + notes)
    return found


def song_notes(path: Path) -> dict[str, Notes]:
    """The same by the project's reader, tracks of one name together."""
    found: dict[str, Notes] = {}
    for track in read_song(path).tracks:
        found.setdefault(track.name, []).extend(map(tuple, track.notes.tolist()))
    return {name: sorted(notes) for name, notes in found.items()}


def merged(tmp_path: Path, *stems: Path, options: Sequence[str] = ()) -> Path:
    out = tmp_path / "out"
    assert merge_midi.main([str(out), *map(str, stems), *options]) == 0
    return out / "merged.mid"


def refused(argv: Sequence[str | Path], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a user error."""
    assert merge_midi.main([str(arg) for arg in argv]) == EXIT_USER_ERROR
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(r"error: [^\n]+\n", captured.err)
    return captured.err


@pytest.fixture
def stems(tmp_path: Path) -> list[Path]:
    drums = write_stem(tmp_path / "drums.mid", [(0, 60, 36), (480, 540, 38)], tempo=100)
    bass = write_stem(tmp_path / "bass.mid", [(0, 400, 40), (960, 1200, 43)], tempo=100)
    piano = write_stem(tmp_path / "piano.mid", [(0, 400, 60), (0, 400, 64), (7680, 7700, 67)], tempo=100)
    return [drums, bass, piano]


# ---------------------------------------------------------------- what is written


def test_merged_song_holds_the_notes_of_its_stems(tmp_path, stems, capsys):
    path = merged(tmp_path, *stems)
    captured = capsys.readouterr()
    assert captured.out == f"{path}: drums 2, bass 2, piano 3 notes\n"
    assert captured.err == "".join(f"notice: {stem}: {what}\n" for stem, what in
                                   zip(stems, ["drums, 2 notes", "bass, 2 notes", "piano, 3 notes"], strict=True))
    expected = {name: song_notes(stem)[""] for name, stem in zip(PARTS, stems, strict=True)}
    assert song_notes(path) == expected
    assert mido_notes(path) == expected


def test_tracks_have_names_channels_and_programs_of_the_vocabulary(tmp_path, stems):
    midi = mido.MidiFile(merged(tmp_path, *stems))
    assert midi.type == 1
    assert midi.ticks_per_beat == 480
    assert midi.tracks[0].name == ""  # what is said of the whole song
    for part, track in zip(load_vocabulary().parts, midi.tracks[1:], strict=True):
        assert track.name == part.name
        assert {m.program for m in track if m.type == "program_change"} == {part.program}
        assert all((m.channel == 9) == part.is_drum for m in track if not m.is_meta)


def test_order_of_stems_changes_nothing(tmp_path, stems):
    forwards = merged(tmp_path, *stems).read_bytes()
    assert merged(tmp_path, *reversed(stems), options=["--force"]).read_bytes() == forwards


def test_stems_need_not_be_all_parts(tmp_path, stems, capsys):
    path = merged(tmp_path, stems[1])
    assert capsys.readouterr().out == f"{path}: drums 0, bass 2, piano 0 notes\n"
    assert {track.name for track in read_song(path).tracks if len(track.notes)} == {"bass"}


def test_stem_gives_all_its_tracks_whatever_their_names(tmp_path):
    first, second = [(0, 480, 60), (960, 1440, 62)], [(480, 960, 60), (480, 960, 72)]
    stem = write_stem(tmp_path / "piano.mid", first, second, names=["bass", "Grand"], channel=3)
    path = merged(tmp_path, stem)
    assert mido_notes(path) == {"piano": sorted(first + second)}
    instruments = [m.name for track in mido.MidiFile(path).tracks for m in track if m.type == "instrument_name"]
    assert instruments == ["bass", "Grand"]  # what the tracks were called


def test_drums_of_any_channel_become_drums(tmp_path):
    path = merged(tmp_path, write_stem(tmp_path / "drums.mid", [(0, 60, 36)], channel=0))
    assert [track.is_drum for track in read_song(path).tracks if len(track.notes)] == [True]


def test_stems_of_one_part_are_joined_with_a_notice(tmp_path, stems, capsys):
    more = write_stem(tmp_path / "bass two.mid", [(0, 200, 40), (480, 960, 45), (960, 1000, 43)])
    path = merged(tmp_path, *stems, more)
    captured = capsys.readouterr()
    assert f"notice: {stems[1]} and {more} are joined into one part, bass\n" in captured.err
    assert mido_notes(path)["bass"] == sorted(mido_notes(stems[1])[""] + mido_notes(more)[""])  # repeats too
    assert "bass 5," in captured.out


def test_overlapping_notes_of_one_pitch_stay(tmp_path):
    stem = write_stem(tmp_path / "piano.mid", [(0, 960, 60)], [(480, 1440, 60)])
    assert mido_notes(merged(tmp_path, stem))["piano"] == [(0, 960, 60), (480, 1440, 60)]


def test_inputs_stay_unchanged(tmp_path, stems):
    before = [stem.read_bytes() for stem in stems]
    merged(tmp_path, *stems)
    assert [stem.read_bytes() for stem in stems] == before


# ---------------------------------------------------------------- ticks per quarter


def test_different_ticks_per_quarter_are_exact_in_the_common_multiple(tmp_path):
    drums = write_stem(tmp_path / "drums.mid", [(0, 24, 36), (95, 96, 38)], tpq=96)
    bass = write_stem(tmp_path / "bass.mid", [(1, 120, 40)], tpq=120)
    path = merged(tmp_path, drums, bass)
    assert mido.MidiFile(path).ticks_per_beat == 480
    assert mido_notes(path)["drums"] == [(0, 120, 36), (475, 480, 38)]
    assert mido_notes(path)["bass"] == [(4, 480, 40)]


def test_highest_resolution_where_the_common_multiple_is_too_large(tmp_path):
    drums = write_stem(tmp_path / "drums.mid", [(0, 1, 36), (241, 482, 38)], tpq=241)
    bass = write_stem(tmp_path / "bass.mid", [(1, 961, 40)], tpq=960)
    path = merged(tmp_path, drums, bass)
    assert math.lcm(241, 960) > MAX_TICKS_PER_QUARTER
    assert mido.MidiFile(path).ticks_per_beat == 960
    assert mido_notes(path)["drums"] == [(0, 4, 36), (960, 1920, 38)]  # 1/241 quarter is 3.98 ticks
    assert mido_notes(path)["bass"] == [(1, 961, 40)]


@pytest.mark.parametrize(("resolutions", "expected"), [
    ([480], 480), ([96, 96], 96), ([96, 480, 120], 480), ([220, 96], 5280),
    ([1, 32767], 32767), ([32767, 2], 32767), ([32766, 16383], 32766), ([960, 961], 961)])
def test_common_ticks_per_quarter(resolutions, expected):
    assert common_ticks_per_quarter(resolutions) == expected


@given(st.integers(0, 2**31), st.integers(1, 32767), st.integers(1, 32767))
def test_rescaling_is_the_nearest_tick(tick, old, new):
    assert rescale_tick(tick, old, new) == math.ceil(Fraction(tick * new, old) - Fraction(1, 2))
    if new >= old:
        assert rescale_tick(tick, old, new) < rescale_tick(tick + 1, old, new)


@given(st.integers(0, 2**31), st.integers(1, 1000), st.integers(1, 32))
def test_rescaling_to_a_multiple_loses_nothing(tick, old, factor):
    scaled = rescale_tick(tick, old, old * factor)
    assert scaled == tick * factor
    assert rescale_tick(scaled, old * factor, old) == tick


@st.composite
def playable_tracks(draw) -> Notes:
    """Notes of one track of which no two of one pitch overlap."""
    notes = []
    for pitch in draw(st.sets(st.integers(35, 81), min_size=1, max_size=4)):
        edges = sorted(draw(st.sets(st.integers(0, 20_000), min_size=2, max_size=12)))
        notes += [(onset, end, pitch) for onset, end in zip(edges[::2], edges[1::2], strict=False)]
    return sorted(notes)


@given(st.fixed_dictionaries({name: st.tuples(playable_tracks(), st.sampled_from([96, 120, 192, 220, 480]))
                              for name in PARTS}))
def test_merging_keeps_every_note(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("stems")
    stems = [write_stem(folder / f"{name}.mid", notes, tpq=tpq) for name, (notes, tpq) in content.items()]
    path = merged(folder, *stems)
    common = math.lcm(*(tpq for _, tpq in content.values()))
    expected = {name: sorted((onset * common // tpq, end * common // tpq, pitch) for onset, end, pitch in notes)
                for name, (notes, tpq) in content.items()}
    assert mido.MidiFile(path).ticks_per_beat == common
    assert mido_notes(path) == expected
    assert song_notes(path) == expected


# ---------------------------------------------------------------- tempo


def test_tempo_is_that_of_the_first_stem_that_has_one(tmp_path, capsys):
    silent = write_stem(tmp_path / "drums.mid", [(0, 60, 36)])
    slow = write_stem(tmp_path / "bass.mid", [(0, 60, 40)], tempo=80)
    fast = write_stem(tmp_path / "piano.mid", [(0, 60, 60)], tempo=150)
    assert read_song(merged(tmp_path, silent, slow, fast)).main_tempo() == 80
    assert f"notice: {fast}: its tempo 150 is left out, the song's is 80\n" in capsys.readouterr().err
    assert read_song(merged(tmp_path, fast, slow, silent, options=["--force"])).main_tempo() == 150


def test_tempo_is_120_where_no_stem_has_one(tmp_path):
    path = merged(tmp_path, write_stem(tmp_path / "bass.mid", [(0, 60, 40)]))
    assert read_song(path).tempos == ((0, 120.0),)


# ---------------------------------------------------------------- whose part a stem is


@pytest.mark.parametrize("name", ["bass", "BASS", "my Bass line 2", "01-bass.final", "contrabass"])
def test_part_is_found_in_the_file_name(name):
    assert PARTS[find_part(Path("drums and piano") / f"{name}.mid", load_vocabulary())] == "bass"


@pytest.mark.parametrize(("name", "part"), [
    ("Bass Drum", "drums"), ("808 bass", "bass"), ("Rhodes keys", "piano"), ("EZdrummer 2", "drums"),
    ("mybass2", "bass")])
def test_words_for_a_part_name_it(name, part):
    assert PARTS[find_part(Path(f"{name}.mid"), load_vocabulary())] == part


@pytest.mark.parametrize("name", ["Bassoon", "Steel Drums", "Drum & Bass", "808", "Track 1"])
def test_what_names_no_part_or_two_is_refused(name):
    with pytest.raises(UserError, match=r"drums, bass, piano$"):
        find_part(Path(f"{name}.mid"), load_vocabulary())


@pytest.mark.parametrize(("name", "part"), [
    ("lead", "lead"), ("synth_lead", "synth_lead"), ("Synth Lead", "synth_lead"), ("SYNTH-LEAD 2", "synth_lead"),
    ("my_lead_synth", "lead"), ("synthlead", "lead"), ("kit", "kit")])
def test_longest_name_that_covers_the_other_wins(name, part):
    vocabulary = load_vocabulary(LEADS)
    assert vocabulary.part_names[find_part(Path(f"{name}.mid"), vocabulary)] == part


@pytest.mark.parametrize("name", ["lead over synth_lead", "kit and synth_lead", "leadkit"])
def test_two_names_side_by_side_are_an_error(name):
    with pytest.raises(UserError, match=r"lead, synth_lead, kit$"):
        find_part(Path(f"{name}.mid"), load_vocabulary(LEADS))


def test_another_vocabulary_needs_a_json_only(tmp_path, capsys):
    vocab = tmp_path / "vocab.json"
    vocab.write_text(json.dumps(LEADS))
    lead = write_stem(tmp_path / "lead.mid", [(0, 60, 1)])
    synth = write_stem(tmp_path / "synth_lead.mid", [(0, 60, 2)])
    path = merged(tmp_path, lead, synth, options=["--vocab", str(vocab)])
    assert capsys.readouterr().out == f"{path}: lead 1, synth_lead 1, kit 0 notes\n"
    assert mido_notes(path) == {"lead": [(0, 60, 1)], "synth_lead": [(0, 60, 2)]}


# ---------------------------------------------------------------- refusals


def test_unknown_stem_name_lists_the_parts(tmp_path, stems, capsys):
    odd = write_stem(tmp_path / "violin.mid", [(0, 60, 60)])
    text = refused([tmp_path / "out", *stems, odd], capsys)
    assert f"{odd}: its file name holds no part's name" in text
    assert "drums, bass, piano" in text


def test_stem_name_of_two_parts_lists_the_parts(tmp_path, capsys):
    odd = write_stem(tmp_path / "Bass_and_Piano.mid", [(0, 60, 60)])
    text = refused([tmp_path / "out", odd], capsys)
    assert "holds bass and piano" in text
    assert "drums, bass, piano" in text


@pytest.mark.parametrize(("make", "message"), [
    (lambda path: None, "no such file"),
    (lambda path: path.mkdir(), "a folder, where a file is needed"),
    (lambda path: path.write_bytes(b""), "an empty file"),
    (lambda path: path.write_bytes(b"RIFF" * 20), "not a MIDI file"),
    (lambda path: path.write_bytes(b"MThd\0\0"), "truncated"),
    (lambda path: write_stem(path, []), "has no notes"),
    (lambda path: write_stem(path, [(0, 60, 60)], signature=(3, 4)), "in 3/4"),
], ids=["missing", "folder", "empty", "not MIDI", "truncated", "no notes", "3/4"])
def test_bad_stem_is_one_line_and_nothing_is_written(tmp_path, stems, capsys, make, message):
    bad = tmp_path / "bad bass.mid"
    make(bad)
    text = refused([tmp_path / "out", *stems, bad], capsys)
    assert text.startswith(f"error: {bad}: ")
    assert message in text
    assert not (tmp_path / "out").exists()


def test_time_signatures_of_four_quarters_are_taken(tmp_path):
    merged(tmp_path, write_stem(tmp_path / "bass.mid", [(0, 60, 40)], signature=(2, 2)))


def test_note_too_late_for_the_common_ticks_is_refused(tmp_path, capsys):
    late = 20_000  # quarters: fits a file with 10848 ticks to each, not one with 31776
    drums = write_stem(tmp_path / "drums.mid", [(late * 96, late * 96 + 60, 36)], tpq=96)
    fine = write_stem(tmp_path / "bass.mid", [(0, 60, 40)], tpq=339)
    assert mido_notes(merged(tmp_path, drums, fine))["drums"][0][0] == late * math.lcm(96, 339)
    fine = write_stem(tmp_path / "bass.mid", [(0, 60, 40)], tpq=331)
    text = refused([tmp_path / "late", drums, fine], drained(capsys))
    assert f"{drums}: its last event is at quarter {late}" in text


def drained(capsys: pytest.CaptureFixture[str]) -> pytest.CaptureFixture[str]:
    capsys.readouterr()
    return capsys


def test_existing_song_is_refused_without_force(tmp_path, stems, capsys):
    path = merged(tmp_path, *stems)
    path.write_bytes(b"mine")
    text = refused([tmp_path / "out", *stems], drained(capsys))
    assert f"{path} exists already" in text
    assert "--force" in text
    assert path.read_bytes() == b"mine"
    assert len(mido_notes(merged(tmp_path, *stems, options=["--force"]))["piano"]) == 3


def test_failed_run_leaves_an_existing_song(tmp_path, stems, capsys):
    path = merged(tmp_path, *stems)
    before = path.read_bytes()
    refused([tmp_path / "out", *stems, tmp_path / "missing bass.mid", "--force"], drained(capsys))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_folder_that_is_a_file_is_refused(tmp_path, stems, capsys):
    text = refused(stems, capsys)  # OUT_DIR forgotten: the first stem stands in its place
    assert f"{stems[0]}: a file stands where a folder is needed" in text


@pytest.mark.parametrize("name", ["", "..", "sub/song.mid", "../song.mid", "/song.mid"])
def test_name_with_a_folder_is_refused(tmp_path, stems, capsys, name):
    assert "must be a file name alone" in refused([tmp_path / "out", *stems, "-n", name], capsys)


@pytest.mark.parametrize(("name", "file"), [("song.mid", "song.mid"), ("Song.MIDI", "Song.MIDI"),
                                            ("song", "song.mid"), ("song.v2", "song.v2.mid")])
def test_name_of_the_song(tmp_path, stems, name, file):
    out = tmp_path / "deep" / "er"
    assert merge_midi.main([str(out), *map(str, stems), "--name", name]) == 0
    assert [path.name for path in out.iterdir()] == [file]


def test_unknown_vocabulary_is_refused(tmp_path, stems, capsys):
    text = refused([tmp_path / "out", *stems, "--vocab", tmp_path / "none.json"], capsys)
    assert "none.json: no such file" in text


def test_help_and_import_are_quick_and_quiet():
    code = "import sys, merge_midi; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True,
                          check=True)
    assert done.stdout == done.stderr == ""
    with pytest.raises(SystemExit, match="0"):
        merge_midi.main(["--help"])
