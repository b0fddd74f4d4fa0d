"""The vocabulary: the published ids, both JSON forms, and a vocabulary of seven parts from JSON alone."""

from __future__ import annotations

import copy

import hypothesis
import miditoolkit
import numpy as np
import orjson
import pytest
from hypothesis import strategies as st
from midi_bytes import DRUM_CHANNEL, midi_file, name, note, program
from strategies import shortened, song_ids

from backline.common.errors import UserError
from backline.common.paths import DEFAULT_VOCABULARY, ROOT
from backline.music.midi_reader import read_song
from backline.music.parts import assign_parts
from backline.music.roles import names_other_instrument, parts_named
from backline.music.vocab import (
    BAR,
    FIELDS,
    NOTE_DUR,
    PITCH_INSTRUMENT,
    SPECIALS,
    START_POS,
    Part,
    Vocabulary,
    load_vocabulary,
)
from tokenizer import MidiTokenizerPooled, main

SEVEN_PARTS = {
    "format": "pooled-vocabulary", "version": 1, "bars": 64, "steps_per_bar": 48, "max_duration_steps": 96,
    "parts": [
        {"name": "drums", "is_drum": True, "program": 0, "accepts": [[0, 127]], "lowest_pitch": 35,
         "highest_pitch": 59},
        {"name": "percussion", "is_drum": True, "program": 0, "accepts": [], "lowest_pitch": 60,
         "highest_pitch": 81},
        {"name": "bass", "is_drum": False, "program": 33, "accepts": [[32, 39]], "lowest_pitch": 12,
         "highest_pitch": 72},
        {"name": "piano", "is_drum": False, "program": 0, "accepts": [[0, 7]], "lowest_pitch": 21,
         "highest_pitch": 108},
        {"name": "guitar", "is_drum": False, "program": 25, "accepts": [[24, 31]], "lowest_pitch": 28,
         "highest_pitch": 100},
        {"name": "synth_lead", "is_drum": False, "program": 81, "accepts": [[80, 87]], "lowest_pitch": 21,
         "highest_pitch": 108},
        {"name": "synth_pad", "is_drum": False, "program": 89, "accepts": [[88, 95]], "lowest_pitch": 21,
         "highest_pitch": 108},
    ],
}


@pytest.fixture(scope="module")
def seven(scratch) -> MidiTokenizerPooled:
    """A tokenizer of seven parts, from a JSON file and nothing else."""
    path = scratch / "seven_parts.json"
    path.write_bytes(orjson.dumps(SEVEN_PARTS))
    return MidiTokenizerPooled(path)


# ---------------------------------------------------------------- the default vocabulary


@pytest.mark.parametrize(("family", "first", "first_id", "last", "last_id"), [
    (BAR, "bar0", 4, "bar255", 259),
    (START_POS, "start_pos0", 4, "start_pos31", 35),
    (NOTE_DUR, "note_dur1", 4, "note_dur128", 131),
    (PITCH_INSTRUMENT, "pitch35_drums", 4, "pitch81_drums", 50),
    (PITCH_INSTRUMENT, "pitch21_bass", 51, "pitch108_bass", 138),
    (PITCH_INSTRUMENT, "pitch21_piano", 139, "pitch108_piano", 226),
])
def test_default_ids_are_the_published_ones(family, first, first_id, last, last_id):
    table = MidiTokenizerPooled().vocab[FIELDS[family]]
    assert (table[first], table[last]) == (first_id, last_id)
    names = [event for event, i in sorted(table.items(), key=lambda item: item[1]) if first_id <= i <= last_id]
    assert (names[0], names[-1], len(names)) == (first, last, last_id - first_id + 1)


def test_default_sizes_and_special_ids_are_the_published_ones():
    published = MidiTokenizerPooled().vocab
    assert published["n_tokens"] == [260, 36, 132, 227]
    assert list(published) == ["n_tokens", "bar", "start_pos", "note_dur", "pitch_instrument"]
    for field, size in zip(FIELDS, published["n_tokens"], strict=True):
        assert list(published[field])[:4] == list(SPECIALS) == ["PAD_None", "BOS_None", "EOS_None", "Mask_None"]
        assert list(published[field].values()) == list(range(size))


def test_default_parts_write_the_published_programs():
    parts = load_vocabulary().parts
    assert [(part.name, part.is_drum, part.program) for part in parts] == [
        ("drums", True, 0), ("bass", False, 38), ("piano", False, 0)]


def test_tables_by_id_agree_with_the_event_names(seven):
    for vocabulary in (load_vocabulary(), seven.vocabulary):
        names = vocabulary.event_names[PITCH_INSTRUMENT]
        assert vocabulary.sizes == tuple(map(len, vocabulary.event_names))
        for i, (part, pitch) in enumerate(zip(vocabulary.part_of_id, vocabulary.pitch_of_id, strict=True)):
            if i < len(SPECIALS):
                assert (part, pitch, names[i]) == (-1, -1, SPECIALS[i])
            else:
                assert names[i] == f"pitch{pitch}_{vocabulary.part_names[part]}"
        assert [names[i] for i in vocabulary.first_pitch_ids] == [
            f"pitch{part.lowest_pitch}_{part.name}" for part in vocabulary.parts]


def test_id_type_is_the_smallest_that_holds_every_id():
    vocabulary = load_vocabulary()
    assert vocabulary.id_type == np.int16
    tiny = Vocabulary(8, 8, 8, (Part("bass", False, 38, (), 40, 50),))
    assert tiny.id_type == np.int8


# ---------------------------------------------------------------- JSON forms


def test_own_form_round_trip(seven):
    for vocabulary in (load_vocabulary(), seven.vocabulary):
        assert load_vocabulary(orjson.loads(orjson.dumps(vocabulary.to_dict()))) == vocabulary


def test_published_form_round_trip(tmp_path):
    path = tmp_path / "vocab.json"
    path.write_bytes(orjson.dumps(MidiTokenizerPooled().vocab))
    assert load_vocabulary(path) == load_vocabulary()


def test_published_form_keeps_the_ids_of_parts_it_does_not_know(seven):
    published = seven.vocab
    again = load_vocabulary(orjson.loads(orjson.dumps(published)))
    assert again.to_published() == published
    assert again.digest == seven.vocabulary.digest


def test_a_vocabulary_is_taken_as_it_is():
    vocabulary = load_vocabulary()
    assert load_vocabulary(vocabulary) is vocabulary
    assert MidiTokenizerPooled(orjson.loads(DEFAULT_VOCABULARY.read_bytes())).vocabulary == vocabulary


def test_digest_follows_the_ids_and_not_the_programs():
    data = load_vocabulary().to_dict()
    other_program, other_range, other_bars = copy.deepcopy(data), copy.deepcopy(data), copy.deepcopy(data)
    other_program["parts"][1]["program"] = 32
    other_range["parts"][1]["lowest_pitch"] = 22
    other_bars["bars"] = 128
    digest = load_vocabulary().digest
    assert load_vocabulary(other_program).digest == digest
    assert len({digest, load_vocabulary(other_range).digest, load_vocabulary(other_bars).digest}) == 3


def test_difference_names_the_sizes_and_parts():
    vocabulary, data = load_vocabulary(), load_vocabulary().to_dict()
    parts = data["parts"]
    assert vocabulary.difference(vocabulary) == ""
    for changes, text in [
            ({"bars": 64}, "bars 64, not 256"),
            ({"steps_per_bar": 16, "max_duration_steps": 64},
             "steps_per_bar 16, not 32; max_duration_steps 64, not 128"),
            ({"parts": parts[:2]}, "parts drums, bass, not drums, bass, piano"),
            ({"parts": parts[::-1]}, "parts piano, bass, drums, not drums, bass, piano"),
            ({"parts": [*parts[:2], parts[2] | {"lowest_pitch": 30}]}, "piano pitches 30-108, not 21-108")]:
        other = load_vocabulary(data | changes)
        assert other.digest != vocabulary.digest
        assert vocabulary.difference(other) == text


def test_check_digest_names_the_file_and_the_remedy():
    vocabulary = load_vocabulary()
    vocabulary.check_digest(vocabulary.digest, "a.json", "make it again")
    vocabulary.check_digest(None, "a.json", "make it again")
    with pytest.raises(UserError, match=r"a\.json: made with another vocabulary \('feed', not .*make it again"):
        vocabulary.check_digest("feed", "a.json", "make it again")


def changed(**values: object) -> dict:
    return {**load_vocabulary().to_dict(), **values}


def changed_part(**values: object) -> dict:
    data = load_vocabulary().to_dict()
    data["parts"][1].update(values)
    return data


def without(data: dict, key: str) -> dict:
    return {other: value for other, value in data.items() if other != key}


def published(**values: object) -> dict:
    return {**load_vocabulary().to_published(), **values}


def _bar_table(*names: str) -> dict[str, int]:
    return {event: i for i, event in enumerate([*SPECIALS, *names])}


@pytest.mark.parametrize(("data", "message"), [
    ({}, "not a vocabulary"),
    (changed(format="song"), "not a vocabulary"),
    (changed(version=2), "not a vocabulary"),
    (without(load_vocabulary().to_dict(), "bars"), "'bars' is missing"),
    (changed(bar=256), "unknown key 'bar'; did you mean 'bars'"),
    (changed(bars=0), "must be at least 1"),
    (changed(bars="many"), "bars must be a whole number"),
    (changed(steps_per_bar=30), "steps_per_bar=30 must be a multiple of 4"),
    (changed(steps_per_bar=-4), "must be at least 1"),
    (changed(max_duration_steps=0), "must be at least 1"),
    (changed(parts=[]), "must be at least 1"),
    (changed(parts="drums"), "parts must be a list"),
    (changed(parts=["drums"]), "must be an object"),
    (changed_part(name="drums"), "two parts share a name"),
    (changed_part(name="slap bass"), "'slap bass' must be letters"),
    (changed_part(name=""), "must be letters"),
    (changed_part(lowest_pitch=109), "pitches 109 to 108 are no range"),
    (changed_part(highest_pitch=128), "are no range within 0 to 127"),
    (changed_part(lowest_pitch=-1), "are no range within 0 to 127"),
    (changed_part(program=128), "program must be 0 to 127"),
    (changed_part(program=-1), "program must be 0 to 127"),
    (changed_part(accepts=[[1, 2, 3]]), "pairs"),
    (changed_part(accepts=[5]), "accepts must be a list"),
    (changed_part(is_drum="no"), "is_drum must be true or false"),
    (changed_part(lowest=3), "unknown key 'lowest'; did you mean 'lowest_pitch'"),
    (without(published(), "note_dur"), "the published form needs"),
    (published(bar=3), "the published form needs"),
    (published(bar=_bar_table()), "must be at least 1"),
    (published(pitch_instrument=_bar_table()), "must be at least 1"),
    (published(pitch_instrument=_bar_table("bass_40")), "the published form needs"),
    (published(pitch_instrument=_bar_table("pitch200_bass")), "are no range within 0 to 127"),
    (published(pitch_instrument=_bar_table("pitch40_bass", "pitch42_bass")), "not in the published order"),
    (published(n_tokens=[260, 36, 132, 228]), "not in the published order"),
    (published(bar=_bar_table("bar1", "bar0")), "not in the published order"),
    (published(bar={"bar0": 0}), "at least 1"),
])
def test_a_bad_vocabulary_is_named_with_its_fault(tmp_path, capsys, data, message):
    path = tmp_path / "vocab.json"
    path.write_bytes(orjson.dumps(data))
    with pytest.raises(UserError, match=message) as error:
        load_vocabulary(path)
    assert str(error.value).startswith(f"{path}: ")
    with pytest.raises(UserError, match=message):
        load_vocabulary(data)
    assert main([str(tmp_path), "--vocab", str(path), "-td", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == f"error: {error.value}\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", [b"", b"[]", b"{"])
def test_a_vocabulary_file_that_is_no_object_is_named(tmp_path, text):
    path = tmp_path / "vocab.json"
    path.write_bytes(text)
    with pytest.raises(UserError, match=r"vocab\.json: "):
        load_vocabulary(path)


# ---------------------------------------------------------------- seven parts


@hypothesis.given(data=st.data())
def test_seven_parts_round_trip_in_memory_and_through_files(seven, scratch, data):
    ids = data.draw(song_ids(seven.vocabulary))
    midi = seven.create_midi_from_tokens(ids)
    assert [track.name for track in midi.instruments] == [part["name"] for part in SEVEN_PARTS["parts"]]
    assert seven(midi)["ids"] == ids
    path = scratch / "seven.mid"
    midi.dump(path)
    assert seven(path)["ids"] == shortened(ids, SEVEN_PARTS["steps_per_bar"])
    assert seven(miditoolkit.MidiFile(path))["ids"] == shortened(ids, SEVEN_PARTS["steps_per_bar"])


def test_seven_parts_are_found_by_program(seven, tmp_path):
    path = tmp_path / "raw.mid"
    path.write_bytes(midi_file(
        note(0, 24, 36, DRUM_CHANNEL), [name("percussion"), *note(0, 24, 70, DRUM_CHANNEL)],
        *([program(number), *note(0, 24, 50)] for number in (90, 84, 30, 0, 39, 120))))
    chosen = assign_parts(read_song(path), seven.vocabulary).tracks
    assert chosen == {"drums": [0], "percussion": [1], "synth_pad": [2], "synth_lead": [3], "guitar": [4],
                      "piano": [5], "bass": [6]}


def test_seven_parts_hold_a_bass_from_pitch_12(seven, tmp_path):
    path = tmp_path / "low.mid"
    path.write_bytes(midi_file([name("bass"), *note(0, 8, 12)]))
    assert seven.tokens_to_events(seven(path)["ids"])[1] == ["bar0", "start_pos0", "note_dur1", "pitch12_bass"]
    with pytest.raises(UserError, match="bass pitch 12 is outside 21 to 108"):
        MidiTokenizerPooled()(path)


# ---------------------------------------------------------------- the band


def test_the_band_has_seven_parts_on_48_steps():
    band = load_vocabulary(ROOT / "configs" / "vocab_band.json")
    assert band.part_names == ("drums", "percussion", "bass", "piano", "guitar", "lead", "pad")
    assert (band.steps_per_bar, band.max_duration_steps) == (48, 192)
    assert band.parts[2].lowest_pitch == 12
    assert load_vocabulary(orjson.loads(orjson.dumps(band.to_dict()))) == band


def test_every_word_of_the_default_vocabulary_stays_known_to_the_band():
    """What names an instrument there names one here, if another."""
    default, band = load_vocabulary(), load_vocabulary(ROOT / "configs" / "vocab_band.json")
    words = [*default.other_instruments, *(word for part in default.parts for word in part.synonyms)]
    unknown = [word for word in words
               if not parts_named(word, band) and not names_other_instrument(word, band)]
    assert unknown == []


def test_words_that_earlier_versions_do_not_know_are_left_out_of_a_plain_vocabulary():
    assert all("takes" not in part for part in load_vocabulary().to_dict()["parts"])


@pytest.mark.parametrize(("changes", "message"), [
    ({1: {"accepts": [[30, 39]]}, 2: {"accepts": [[0, 30]]}},
     "parts bass and piano both accept program 30; leave it to one of them"),
    ({1: {"takes": [[60, 64]]}}, "part bass: takes is for drums"),
    ({0: {"takes": [[60, 64]]}, 1: {"is_drum": True, "takes": [[64, 64]]}},
     "parts drums and bass both take drum pitch 64; leave it to one of them"),
    ({0: {"takes": [[60]]}}, "part drums: program must be 0 to 127, accepts and takes lists of"),
])
def test_parts_that_overlap_are_refused(changes, message, tmp_path):
    data = load_vocabulary().to_dict()
    for index, values in changes.items():
        data["parts"][index].update(values)
    path = tmp_path / "vocab.json"
    path.write_bytes(orjson.dumps(data))
    with pytest.raises(UserError, match=message):
        load_vocabulary(path)
