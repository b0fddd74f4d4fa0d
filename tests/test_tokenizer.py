"""MIDI to tokens and back: the grid, the round trip, the published files, the command."""

from __future__ import annotations

import copy
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import hypothesis
import miditoolkit
import numpy as np
import orjson
import pytest
from commands import help_without
from hypothesis import strategies as st
from midi_bytes import (
    BAD_FILES,
    DRUM_CHANNEL,
    midi_file,
    name,
    note,
    on,
    program,
    tempo,
    three_parts,
    time_signature,
)
from strategies import shortened, song_ids, whole

from backline.common.errors import UserError
from backline.common.files import json_bytes
from backline.music.bars import quantize_durations, quantize_onsets
from backline.music.midi_chunks import MIDI_SUFFIXES
from backline.music.midi_writer import parts_to_bytes, parts_to_midi
from backline.music.parts import NO_PART
from backline.music.song import Song
from backline.music.vocab import BAR, FIELDS, NOTE_DUR, PITCH_INSTRUMENT, START_POS, load_vocabulary
from tokenizer import MidiTokenizerPooled, canonical, main, read_tokens, rows_in_order

ROOT = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / "golden" / "three_parts.json"
TOKENIZER = MidiTokenizerPooled()
VOCABULARY = TOKENIZER.vocabulary
NO_ROWS = np.zeros((0, 3), np.int64)
EXAMPLE = whole([(4, 4, 7, 11), (4, 8, 5, 70), (260 - 1, 35, 131, 226)])


def events_of(ids: list) -> list[list[str]]:
    """The event names of a song's notes."""
    return TOKENIZER.tokens_to_events(ids[1:-1])


def piano(*rows: tuple[int, int, int], tpq: int = 96) -> list:
    """The ids of onset, end and pitch of piano notes."""
    return TOKENIZER(parts_to_midi([NO_ROWS, NO_ROWS, np.array(rows)], VOCABULARY, tpq))["ids"]


# ---------------------------------------------------------------- quantization


@pytest.mark.parametrize(("ticks", "steps"), [(0, 0), (6, 0), (7, 1), (12, 1), (18, 1), (19, 2), (30, 2), (31, 3)])
def test_onsets_at_96_ticks_per_quarter(ticks, steps):
    assert quantize_onsets(np.array([ticks]), 96, 8).tolist() == [steps]


@pytest.mark.parametrize(("ticks", "steps"), [
    (0, 1), (1, 1), (6, 1), (18, 1), (19, 2), (30, 2), (31, 3), (128 * 12, 128), (129 * 12, 128), (10**6, 128)])
def test_durations_at_96_ticks_per_quarter(ticks, steps):
    assert quantize_durations(np.array([ticks]), 96, 8, 128).tolist() == [steps]


@hypothesis.given(ticks=st.lists(st.integers(0, 10**7), min_size=1), tpq=st.integers(1, 32767),
                  steps_per_quarter=st.sampled_from([1, 8, 12, 24]))
def test_quantization_agrees_with_fractions(ticks, tpq, steps_per_quarter):
    given = np.array(ticks)
    expected = []
    for tick in ticks:
        steps = Fraction(tick * steps_per_quarter, tpq)
        whole_steps = steps.numerator // steps.denominator
        expected.append(whole_steps + (steps - whole_steps > Fraction(1, 2)))
    assert quantize_onsets(given, tpq, steps_per_quarter).tolist() == expected
    assert quantize_durations(given, tpq, steps_per_quarter, 128).tolist() == [
        min(max(steps, 1), 128) for steps in expected]
    assert given.tolist() == ticks


@pytest.mark.parametrize("tpq", [1, 5, 24, 50, 96, 100, 480, 1023, 32767])
def test_every_ticks_per_quarter_is_taken(tmp_path, tpq):
    path = tmp_path / "song.mid"
    path.write_bytes(midi_file([name("piano"), *note(4 * tpq, 6 * tpq, 60)], division=tpq))
    assert events_of(TOKENIZER(path)["ids"]) == [["bar1", "start_pos0", "note_dur16", "pitch60_piano"]]


# ---------------------------------------------------------------- order and repeats


@hypothesis.given(st.lists(st.tuples(*[st.integers(4, 6)] * 4), max_size=30))
def test_in_order_sorts_and_keeps_the_longest_of_exact_repeats(rows):
    array = np.array(rows, np.int64).reshape(-1, 4)
    longest: dict[tuple, int] = {}
    for bar, start, duration, pitch in rows:
        longest[bar, start, pitch] = max(duration, longest.get((bar, start, pitch), 0))
    expected = [(bar, start, duration, pitch) for (bar, start, pitch), duration in sorted(longest.items())]
    assert list(map(tuple, canonical(array).tolist())) == expected
    assert array.tolist() == [list(row) for row in rows]


@hypothesis.given(st.lists(st.tuples(*[st.integers(4, 6)] * 4), max_size=30))
def test_sorting_while_tokenizing_agrees_with_in_order(rows):
    bar, start, duration, pitch = np.array(rows, np.int64).reshape(-1, 4).T
    onset = (bar - 4) * VOCABULARY.steps_per_bar + start - 4
    assert rows_in_order(onset, duration - 3, pitch, VOCABULARY).tolist() == canonical(
        np.array(rows, np.int64).reshape(-1, 4)).tolist()


TRACKS = st.lists(st.builds(
    lambda label, number, channel, notes: [name(label), program(number, channel),
                                           *(message for n in notes for message in note(*n, channel))],
    st.sampled_from(["", "bass", "drums", "x"]), st.sampled_from([0, 16, 33, 34]),
    st.sampled_from([0, 1, DRUM_CHANNEL]),
    st.lists(st.integers(0, 200).flatmap(lambda onset: st.tuples(
        st.just(onset), st.integers(onset + 1, 300), st.integers(40, 42))), min_size=1, max_size=5)),
    min_size=1, max_size=5)


@hypothesis.given(data=st.data())
def test_order_of_tracks_does_not_matter(scratch, data):
    tracks = data.draw(TRACKS)
    paths = scratch / "tracks.mid", scratch / "shuffled.mid"
    paths[0].write_bytes(midi_file(*tracks))
    paths[1].write_bytes(midi_file(*data.draw(st.permutations(tracks))))
    assert _ids_or_error(paths[0]) == _ids_or_error(paths[1])
    assert _ids_or_error(miditoolkit.MidiFile(paths[0])) == _ids_or_error(miditoolkit.MidiFile(paths[1]))


def _ids_or_error(midi: Path | miditoolkit.MidiFile) -> object:
    try:
        return TOKENIZER(midi)["ids"]
    except UserError as err:
        return str(err).split(": ", 1)[1]


# ---------------------------------------------------------------- round trip


@hypothesis.given(ids=song_ids(VOCABULARY), tpb=st.sampled_from([8, 96, 120, 480]))
def test_round_trip_in_memory_is_exact(ids, tpb):
    before = copy.deepcopy(ids)
    assert TOKENIZER(TOKENIZER.create_midi_from_tokens(ids, tpb))["ids"] == ids == before


@hypothesis.given(ids=song_ids(VOCABULARY), tpb=st.sampled_from([8, 96, 120, 480]))
def test_round_trip_through_a_file_gives_the_shortened_notes(scratch, ids, tpb):
    midi = TOKENIZER.create_midi_from_tokens(ids, tpb)
    path = scratch / "round_trip.mid"
    midi.dump(path)
    expected = shortened(ids, VOCABULARY.steps_per_bar)
    assert TOKENIZER(path)["ids"] == expected
    assert TOKENIZER(miditoolkit.MidiFile(path))["ids"] == expected
    path.write_bytes(parts_to_bytes([np.array([(n.start, n.end, n.pitch) for n in track.notes]).reshape(-1, 3)
                                     for track in midi.instruments], VOCABULARY, tpb))
    assert TOKENIZER(path)["ids"] == expected


def test_a_gap_of_empty_bars_and_the_last_legal_bar_survive(tmp_path):
    ids = whole([(4, 4, 4, 4), (9, 4, 4, 4), (259, 35, 131, 226)])
    TOKENIZER.create_midi_from_tokens(ids).dump(tmp_path / "song.mid")
    assert TOKENIZER(tmp_path / "song.mid")["ids"] == ids
    assert [row[0] for row in events_of(ids)] == ["bar0", "bar5", "bar255"]


@pytest.mark.parametrize(("onset", "accepted"), [
    (256 * 384 - 12, True), (256 * 384 - 6, True), (256 * 384 - 5, False), (256 * 384, False)])
def test_the_quantized_onset_decides_about_the_last_bar(onset, accepted):
    if accepted:
        assert piano((onset, onset + 12, 60))[1][:2] == (259, 35)
    else:
        with pytest.raises(UserError, match=r"MIDI object: bar 257 is past the last bar .*\(256\); shorten"):
            piano((0, 12, 60), (onset, onset + 12, 60), (onset + 800, onset + 900, 60))


@pytest.mark.parametrize("part", range(3))
def test_all_pitches_of_a_part_are_taken_and_the_next_ones_named(part):
    limits = VOCABULARY.parts[part]
    pitches = range(limits.lowest_pitch, limits.highest_pitch + 1)
    notes = [NO_ROWS] * 3
    notes[part] = np.array([(0, 12, pitch) for pitch in pitches])
    ids = TOKENIZER(parts_to_midi(notes, VOCABULARY, 96))["ids"]
    assert [row[3] for row in events_of(ids)] == [f"pitch{pitch}_{limits.name}" for pitch in pitches]
    for pitch in (limits.lowest_pitch - 1, limits.highest_pitch + 1):
        notes[part] = np.array([(1000, 1012, pitch), (384, 396, pitch), (0, 12, limits.lowest_pitch)])
        with pytest.raises(UserError, match=f"bar 2: {limits.name} pitch {pitch} is outside {limits.lowest_pitch} to "
                                            rf"{limits.highest_pitch} \(2 of 3 notes\); .*--ranges drop"):
            TOKENIZER(parts_to_midi(notes, VOCABULARY, 96))


@pytest.mark.parametrize(("length", "event"), [
    (0, "note_dur1"), (1, "note_dur1"), (12, "note_dur1"), (128 * 12, "note_dur128"), (128 * 12 + 7, "note_dur128"),
    (200 * 12, "note_dur128")])
def test_shortest_and_longest_durations(length, event):
    assert events_of(piano((0, length, 60)))[0][NOTE_DUR] == event


def test_overlapping_notes_of_one_pitch_stay_apart_in_memory():
    rows = [(0, 960, 60), (96, 192, 60), (96, 480, 64)]
    assert [row[NOTE_DUR] for row in events_of(piano(*rows))] == ["note_dur80", "note_dur8", "note_dur32"]


def test_a_note_on_two_tracks_of_a_part_is_merged(tmp_path):
    path = tmp_path / "song.mid"
    path.write_bytes(midi_file(note(0, 24, 42, DRUM_CHANNEL), note(0, 48, 42, DRUM_CHANNEL)))
    assert events_of(TOKENIZER(path)["ids"]) == [["bar0", "start_pos0", "note_dur4", "pitch42_drums"]]


# ---------------------------------------------------------------- objects


def test_a_midi_object_stays_unchanged(tmp_path):
    path = tmp_path / "song.mid"
    path.write_bytes(midi_file([tempo(0, 400_000), time_signature(0, 4, 2)], [name("bass"), program(33), on(0, 40),
                               *note(7, 31, 40), *note(50, 90, 45)], note(3, 5, 38, DRUM_CHANNEL)))
    midi = miditoolkit.MidiFile(path)
    before = copy.deepcopy(midi)
    TOKENIZER(midi)
    assert _plain(midi) == _plain(before)


def _plain(value: object) -> object:
    """Objects as nested plain values, to compare."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return {key: _plain(item) for key, item in vars(value).items()} if hasattr(value, "__dict__") else repr(value)


@pytest.mark.parametrize("tpb", [8, 96, 480])
def test_midi_object_of_tokens(tpb):
    midi = TOKENIZER.create_midi_from_tokens(EXAMPLE, tpb, tempo=93.5)
    assert midi.ticks_per_beat == tpb
    assert [(track.name, track.program, track.is_drum) for track in midi.instruments] == [
        ("drums", 0, True), ("bass", 38, False), ("piano", 0, False)]
    step = tpb // 8
    assert [[(n.start, n.end, n.pitch, n.velocity) for n in track.notes] for track in midi.instruments] == [
        [(0, 4 * step, 42, 100)], [(4 * step, 6 * step, 40, 100)],
        [((255 * 32 + 31) * step, (255 * 32 + 31 + 128) * step, 108, 100)]]
    assert [(change.tempo, change.time) for change in midi.tempo_changes] == [(93.5, 0)]
    assert [(each.numerator, each.denominator, each.time) for each in midi.time_signature_changes] == [(4, 4, 0)]


def test_defaults_of_the_midi_object_are_the_published_ones():
    midi = TOKENIZER.create_midi_from_tokens([])
    assert (midi.ticks_per_beat, midi.tempo_changes[0].tempo, len(midi.instruments)) == (96, 120.0, 3)


def test_tokens_may_be_a_list_an_array_or_a_tensor():
    torch = pytest.importorskip("torch")
    expected = _plain(TOKENIZER.create_midi_from_tokens(EXAMPLE))
    for ids in ([list(row) for row in EXAMPLE], tuple(EXAMPLE), np.array(EXAMPLE), np.array(EXAMPLE, np.int16),
                np.array(EXAMPLE, np.uint16), torch.tensor(EXAMPLE), torch.tensor(EXAMPLE, dtype=torch.int16)):
        assert _plain(TOKENIZER.create_midi_from_tokens(ids)) == expected
        assert TOKENIZER.tokens_to_events(ids) == TOKENIZER.tokens_to_events(EXAMPLE)


@pytest.mark.parametrize("tempo", [np.int64(100), np.uint8(100), np.float32(100), np.float64(100), Fraction(100)])
def test_a_tempo_may_be_any_real_number(tempo):
    expected = TOKENIZER.create_midi_from_tokens(EXAMPLE, tempo=100.0)
    found = TOKENIZER.create_midi_from_tokens(EXAMPLE, tempo=tempo)
    assert _plain(found) == _plain(expected)
    assert type(found.tempo_changes[0].tempo) is float


@pytest.mark.parametrize("tempo", [0, -5, float("nan"), 1e9, "fast", True, np.True_, np.float32("nan")])
def test_a_tempo_midi_cannot_hold_is_an_error(tempo):
    with pytest.raises(UserError, match=r"tempo must be a number from 3\.58"):
        TOKENIZER.create_midi_from_tokens(EXAMPLE, tempo=tempo)


def test_force_removes_what_a_source_that_is_dropped_now_gave_before(tmp_path):
    (tmp_path / "in").mkdir()
    for file_name in ("a.mid", "b.mid"):
        (tmp_path / "in" / file_name).write_bytes(three_parts())
    argv = [str(tmp_path / "in"), "-td", str(tmp_path / "out")]
    assert main(argv) == 0
    (tmp_path / "in/a.mid").write_bytes(b"damaged")
    assert main([*argv, "--force"]) == 0
    assert [path.name for path in sorted((tmp_path / "out").glob("*.json"))] == ["b.json"]


@pytest.mark.parametrize("tpb", [0, -8, 4, 100])
def test_ticks_off_the_grid_are_an_error(tpb):
    with pytest.raises(UserError, match=f"tpb={tpb} must be a positive multiple of 8"):
        TOKENIZER.create_midi_from_tokens(EXAMPLE, tpb)


def test_special_rows_are_left_out_and_eos_ends_the_song():
    first, second, third = EXAMPLE[1:4]
    ids = [(1,) * 4, (0,) * 4, first, (3,) * 4, second, (2,) * 4, third]
    assert TOKENIZER.ids_to_rows(ids).tolist() == [list(first), list(second)]
    assert TOKENIZER.tokens_to_events(ids)[:2] == [["BOS_None"] * 4, ["PAD_None"] * 4]


@pytest.mark.parametrize(("row", "where"), [
    ((260, 4, 4, 4), "row 1 "), ((4, 36, 4, 4), "row 1 "), ((4, 4, 132, 4), "row 1 "), ((4, 4, 4, 227), "row 1 "),
    ((-1, 4, 4, 4), "row 1 "), ((4, 4, 4, 0), "row 1 "), ((1, 1, 1, 2), "row 1 ")])
def test_ids_out_of_the_vocabulary_are_an_error_that_names_the_row(row, where):
    for call in (TOKENIZER.create_midi_from_tokens, TOKENIZER.tokens_to_events, TOKENIZER.ids_to_rows):
        with pytest.raises(UserError, match=rf"ids: {where}\[{', '.join(map(str, row))}\] is outside"):
            call([(1,) * 4, row])


@pytest.mark.parametrize("ids", [[1, 2, 3, 4], [[1, 2, 3]], [[1.5] * 4], [["a"] * 4], [[4, 4, 4, 4], [4]], 3, None,
                                 [[[4, 4, 4, 4]]], [[True] * 4], "ids"])
def test_what_are_no_rows_of_ids_is_an_error(ids):
    with pytest.raises(UserError, match="ids: must be rows of 4 whole numbers"):
        TOKENIZER.create_midi_from_tokens(ids)


def test_a_second_argument_writes_the_token_file(tmp_path):
    (tmp_path / "song.mid").write_bytes(three_parts())
    tokens = TOKENIZER(tmp_path / "song.mid", tmp_path / "new" / "song.json", events=False)
    assert orjson.loads((tmp_path / "new" / "song.json").read_bytes()) == orjson.loads(orjson.dumps(tokens))
    assert "events" not in tokens


def test_tempo_of_most_of_the_song_travels_with_the_tokens(tmp_path):
    path = tmp_path / "song.mid"
    path.write_bytes(midi_file([name("piano"), tempo(0, 600_000), *note(0, 96, 60), tempo(90, 300_000)]))
    assert TOKENIZER(path)["tempo"] == TOKENIZER(miditoolkit.MidiFile(path))["tempo"] == 100.0


# ---------------------------------------------------------------- token files


def test_published_token_files_are_read(tmp_path):
    """File order within an onset, repeats, no metadata, and events that are not to be trusted."""
    published = [(1,) * 4, (4, 4, 7, 200), (4, 4, 5, 11), (4, 4, 6, 11), (5, 4, 4, 70), (2,) * 4]
    path = tmp_path / "published.json"
    path.write_bytes(orjson.dumps({"ids": published, "events": ["<<BOS>>", "nonsense"]}))
    rows, beats = read_tokens(path, TOKENIZER)
    assert rows.tolist() == [[4, 4, 6, 11], [4, 4, 7, 200], [5, 4, 4, 70]]
    assert beats == 120.0


def test_own_token_files_are_read(tmp_path):
    (tmp_path / "song.mid").write_bytes(midi_file([name("piano"), tempo(0, 600_000), *note(0, 96, 60)]))
    tokens = TOKENIZER(tmp_path / "song.mid", tmp_path / "song.json")
    rows, beats = read_tokens(tmp_path / "song.json", TOKENIZER)
    assert list(map(tuple, rows.tolist())) == tokens["ids"][1:-1]
    assert beats == 100.0


@pytest.mark.parametrize(("data", "message"), [
    (b"{", "not valid JSON"),
    ({"tokens": []}, "has no 'ids'"),
    ({"ids": [[1, 1, 1]]}, "must be rows of 4"),
    ({"ids": [[4, 4, 4, 300]]}, "row 0 .* is outside the vocabulary"),
    ({"ids": {}}, "must be rows of 4"),
    ({"ids": None}, "must be rows of 4"),
    ({"ids": [], "format": "song"}, "a file of format 'song' and version None"),
    ({"ids": [], "format": "pooled-tokens", "version": 2}, "version 2, not pooled-tokens version 1"),
    ({"ids": [], "vocabulary": "feed"}, "made with another vocabulary"),
    ({"ids": [], "tempo": "fast"}, "tempo must be a number from 3.58"),
    ({"ids": [], "tempo": 0}, "tempo must be a number from 3.58"),
])
def test_a_bad_token_file_is_named_with_its_fault(tmp_path, data, message):
    path = tmp_path / "tokens.json"
    path.write_bytes(data if isinstance(data, bytes) else orjson.dumps(data))
    with pytest.raises(UserError, match=message) as error:
        read_tokens(path, TOKENIZER)
    assert str(error.value).startswith(f"{path}: ")


def golden_song() -> bytes:
    """What is left out or decided on the way to tokens, in a song short enough to follow by hand."""
    drums = [name("drums"), *note(0, 12, 36, DRUM_CHANNEL), *note(19, 20, 42, DRUM_CHANNEL),
             *note(1152, 1152, 38, DRUM_CHANNEL)]
    bass = [name("Fingered"), program(33), *note(0, 90, 40), *note(90, 186, 43)]
    other_bass = [name("Fewer notes"), program(34), *note(0, 90, 41)]
    keys = [name("Keys"), program(4), on(18, 60), on(96, 60), *note(120, 2000, 64), *note(130, 500, 60)]
    return midi_file([tempo(0, 600_000), time_signature(0, 2, 1)], keys, other_bass, bass, drums)


def test_golden_token_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("three_parts.mid").write_bytes(golden_song())
    assert main(["three_parts.mid", "-td", "tokens"]) == 0
    assert Path("tokens/three_parts.json").read_bytes() == orjson.dumps(orjson.loads(GOLDEN.read_bytes()))  # no spaces
    rows, beats = read_tokens(GOLDEN, TOKENIZER)
    assert (len(rows), beats) == (9, 100.0)


@hypothesis.given(song_ids(VOCABULARY))
def test_bytes_put_together_are_those_of_the_whole_file_as_json(ids):
    song = Song(96, ())
    rows = TOKENIZER.ids_to_rows(ids)
    for events in (True, False):
        assert TOKENIZER.token_bytes(rows, song, "a b.mid", events) == json_bytes(
            TOKENIZER.token_file(rows, song, "a b.mid", events))


# ---------------------------------------------------------------- the published tokenizer's files


def compat_songs() -> list[str]:
    return sorted(path.stem for path in (ROOT.parent / "shared" / "compat").glob("*.mid"))


def test_compat_songs_are_there(shared):
    assert len(compat_songs()) == 24


@pytest.mark.parametrize("as_object", [False, True], ids=["path", "object"])
@pytest.mark.parametrize("song", compat_songs())
def test_same_notes_as_the_published_tokenizer(shared, song, as_object):
    path = shared / "compat" / f"{song}.mid"
    published = orjson.loads(path.with_suffix(".json").read_bytes())["ids"]
    ids = TOKENIZER(miditoolkit.MidiFile(path) if as_object else path)["ids"]
    assert _longest(ids) == _longest(published)
    assert len(ids) == len(_longest(ids)) + 2  # no repeats
    onsets = [(bar, start) for bar, start, *_ in published[1:-1]]
    assert onsets == sorted(onsets)
    assert [(bar, start) for bar, start, *_ in ids[1:-1]] == sorted(row[:2] for row in _longest(ids))
    assert read_tokens(path.with_suffix(".json"), TOKENIZER)[0].tolist() == [list(row) for row in ids[1:-1]]


def _longest(ids: list) -> dict[tuple[int, int, int], int]:
    longest: dict[tuple[int, int, int], int] = {}
    for bar, start, duration, pitch in ids[1:-1]:
        longest[bar, start, pitch] = max(duration, longest.get((bar, start, pitch), 0))
    return longest


# ---------------------------------------------------------------- events


def test_events_name_every_family(tmp_path):
    (tmp_path / "song.mid").write_bytes(three_parts())
    tokens = TOKENIZER(tmp_path / "song.mid")
    assert tokens["ids"] == [(1, 1, 1, 1), (4, 4, 5, 11), (4, 4, 5, 70), (4, 4, 5, 178), (2, 2, 2, 2)]
    assert tokens["events"] == [
        "<<BOS>>", ["bar0", "start_pos0", "note_dur2", "pitch42_drums"],
        ["bar0", "start_pos0", "note_dur2", "pitch40_bass"], ["bar0", "start_pos0", "note_dur2", "pitch60_piano"],
        "<<EOS>>"]


@hypothesis.given(song_ids(VOCABULARY))
def test_events_say_what_the_ids_mean(ids):
    tables = TOKENIZER.vocab
    assert [tuple(tables[field][event] for field, event in zip(FIELDS, row, strict=True))
            for row in TOKENIZER.tokens_to_events(ids)] == ids
    for (bar, start, duration, pitch), row in zip(events_of(ids), ids[1:-1], strict=True):
        part = VOCABULARY.parts[VOCABULARY.part_of_id[row[PITCH_INSTRUMENT]]].name
        assert (bar, start) == (f"bar{row[BAR] - 4}", f"start_pos{row[START_POS] - 4}")
        assert (duration, pitch) == (f"note_dur{row[NOTE_DUR] - 3}",
                                     f"pitch{VOCABULARY.pitch_of_id[row[PITCH_INSTRUMENT]]}_{part}")


# ---------------------------------------------------------------- the command


@pytest.fixture
def corpus(tmp_path) -> Path:
    """Two folders with same-named songs, every suffix, and two files that cannot be read."""
    folder = tmp_path / "corpus"
    for pitch, path in enumerate(["a/song.mid", "b/song.MID", "b/deep/x.kar", "y.midi", "a/song.kar"], 50):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(three_parts(piano=pitch))
    (folder / "bad.mid").write_bytes(b"no MIDI")
    (folder / "a" / "three-four.mid").write_bytes(BAD_FILES["3/4"][0])
    (folder / "notes.txt").write_text("no song")
    return folder


def written(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def rows_of_report(folder: Path) -> list[dict]:
    return [orjson.loads(line) for line in (folder / "report.jsonl").read_bytes().splitlines()]


def test_a_folder_gives_a_token_file_per_song_and_a_reason_for_the_others(corpus, tmp_path, capsys):
    out = tmp_path / "tokens"
    assert main([str(corpus), "-td", str(out)]) == 0
    assert written(out) == ["a/song-2.json", "a/song.json", "b/deep/x.json", "b/song.json", "logs.txt",
                            "report.jsonl", "y.json"]
    rows = {str(Path(row["source"]).relative_to(corpus)): row for row in rows_of_report(out)}
    assert [source for source, row in rows.items() if row["verdict"] == "dropped"] == ["bad.mid", "a/three-four.mid"]
    assert rows["bad.mid"]["reason"].startswith("not a MIDI file")
    assert rows["a/three-four.mid"]["reason"].startswith("bar 1 is in 3/4")
    for source, pitch in {"a/song.mid": 50, "b/song.MID": 51, "a/song.kar": 54}.items():
        row = rows[source]
        tokens = orjson.loads((out / row["outputs"][0]).read_bytes())
        assert tokens["events"][3][3] == f"pitch{pitch}_piano"
        assert tokens["source"] == row["source"]
        assert (row["notes"], row["bars"], row["tempo"]) == (3, [1], 120.0)
        assert row["parts"]["bass"] == ["#2 bass (program 38, 1 notes)"]
        assert row["why"] == dict.fromkeys(["drums", "bass", "piano"], "named so")
    captured = capsys.readouterr()
    assert captured.out.startswith(f"5 of 7 files tokenized into {out}\n")
    assert captured.err == ""
    log = (out / "logs.txt").read_text()
    assert all(f"{corpus / source}: " in log for source in rows) and captured.out in log


def test_equal_reasons_are_counted_together_whatever_the_bar_and_the_pitch(tmp_path, capsys):
    for number, onset in enumerate((0, 3840)):
        (tmp_path / f"{number}.mid").write_bytes(midi_file([name("piano"), *note(onset, onset + 9, 110 + number)]))
    (tmp_path / "2.mid").write_bytes(three_parts())
    assert main([str(tmp_path), "-td", str(tmp_path / "out")]) == 0
    reason, = [line for line in capsys.readouterr().out.splitlines() if "left out:" in line]
    assert reason.split(maxsplit=2) == ["2", "66.7%", "left out: piano pitch N is outside 21 to 108"]


def test_same_named_songs_of_two_folders_given_do_not_overwrite_each_other(corpus, tmp_path):
    out = tmp_path / "tokens"
    assert main([str(corpus / "a" / "song.mid"), str(corpus / "b"), "-td", str(out), "-p"]) == 0
    assert written(out) == ["deep/x.json", "logs.txt", "report.jsonl", "song-2.json", "song.json"]
    assert [path.name for path in out.glob("*.json")] and not list(out.glob("report.json"))


def test_what_fills_no_part_is_named_in_the_report(tmp_path):
    (tmp_path / "song.mid").write_bytes(midi_file([name("piano"), *note(0, 9, 60)],
                                                  [name("Strings"), program(48), *note(0, 9, 60)]))
    assert main([str(tmp_path / "song.mid"), "-td", str(tmp_path / "out")]) == 0
    row, = rows_of_report(tmp_path / "out")
    assert row["left_out"] == ["#2 Strings (program 48, 1 notes)"]
    assert row["parts"] == {"drums": [], "bass": [], "piano": ["#1 piano (no program, 1 notes)"]}
    assert row["why"] == {"piano": "named so"}
    assert row["lost"][NO_PART] == sum(row["lost"].values()) == 1


def test_no_events_leaves_them_out(corpus, tmp_path):
    for flags in ([], ["--no-events"]):
        assert main([str(corpus / "y.midi"), "-td", str(tmp_path / f"out{len(flags)}"), *flags]) == 0
    with_events, without = (orjson.loads((tmp_path / f"out{n}" / "y.json").read_bytes()) for n in (0, 1))
    assert with_events.pop("events")[0] == "<<BOS>>"
    assert without == with_events


def test_nothing_kept_is_an_error(tmp_path, capsys):
    for number in (1, 2):
        (tmp_path / f"{number}.mid").write_bytes(b"no MIDI")
    assert main([str(tmp_path), "-td", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: none of 2 files could be tokenized; ") and error.count("\n") == 1
    assert str(tmp_path / "1.mid") in error
    assert written(tmp_path / "out") == ["logs.txt", "report.jsonl"]


def test_refuses_to_overwrite_unless_forced(corpus, tmp_path, capsys):
    out = tmp_path / "out"
    command = [str(corpus / "y.midi"), "-td", str(out)]
    out.mkdir()
    (out / "y.json").write_bytes(b"mine")
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {out / 'y.json'} exists already") and error.count("\n") == 1 and "--force" in error
    assert (out / "y.json").read_bytes() == b"mine" and written(out) == ["y.json"]
    assert main([*command, "--force"]) == 0
    assert read_tokens(out / "y.json", TOKENIZER)[0].shape == (3, 4)


def test_another_vocabulary_changes_the_ids(corpus, tmp_path):
    data = load_vocabulary().to_dict()
    data["parts"] = data["parts"][2:]
    (tmp_path / "vocab.json").write_bytes(orjson.dumps(data))
    assert main([str(corpus / "y.midi"), "-td", str(tmp_path / "out"), "--vocab", str(tmp_path / "vocab.json")]) == 0
    tokens = orjson.loads((tmp_path / "out" / "y.json").read_bytes())
    assert tokens["ids"] == [[1] * 4, [4, 4, 5, 36], [2] * 4]
    assert tokens["vocabulary"] != VOCABULARY.digest


def test_a_file_name_that_is_no_unicode_does_not_end_the_run(tmp_path):
    folder = tmp_path / "songs"
    folder.mkdir()
    try:
        (folder / "Fl\udcf6te.mid").write_bytes(three_parts())
    except (OSError, UnicodeError):
        pytest.skip("this file system takes no such name")
    assert main([str(folder), "-td", str(tmp_path / "out")]) == 0
    row, = rows_of_report(tmp_path / "out")
    assert row["source"].endswith("Fl?te.mid")
    token_file, = (tmp_path / "out").glob("*.json")
    assert orjson.loads(token_file.read_bytes())["source"].endswith("Fl?te.mid")


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_one_line_on_stderr_and_no_token_file(tmp_path, capsys, case):
    data, message = BAD_FILES[case]
    path, out = tmp_path / "song.mid", tmp_path / "out"
    path.write_bytes(data)
    assert main([str(path), "-td", str(out)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {path}: ") and captured.err.count("\n") == 1
    assert message in captured.err and captured.out == ""
    assert written(out) == ["logs.txt", "report.jsonl"]
    with pytest.raises(UserError) as error:
        TOKENIZER(path, tmp_path / "direct.json")
    assert captured.err == f"error: {error.value}\n"
    assert not (tmp_path / "direct.json").exists()


@pytest.mark.parametrize(("given", "message"), [
    ("absent.mid", "absent.mid: no such file or folder"), ("", "no .mid, .midi, .kar, .rmi file in this folder")])
def test_inputs_that_hold_no_song_are_an_error_before_anything_is_written(tmp_path, capsys, given, message):
    assert main([str(tmp_path / given), "-td", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_is_a_file_is_an_error(corpus, tmp_path, capsys):
    (tmp_path / "out").write_bytes(b"")
    assert main([str(corpus), "-td", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'out'}: a file stands where")


# ---------------------------------------------------------------- as a module


def python(code: str, cwd: Path) -> subprocess.CompletedProcess:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"
    return subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=cwd, capture_output=True, text=True,
                          check=False)


def test_import_is_silent_and_quick_and_finds_its_vocabulary_anywhere(tmp_path):
    result = python("import tokenizer, clean_midi\n"
                    "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules\n"
                    "tokenizer.MidiTokenizerPooled()", tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_help_is_the_contract_and_needs_no_torch():
    text = help_without("tokenizer", "torch")
    assert "python tokenizer.py -td tokens_output dataset" in text
    assert all(suffix in text for suffix in MIDI_SUFFIXES)
