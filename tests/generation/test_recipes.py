"""Recipes: they come back as they were, disturb nobody who reads the song, and bad files are named on one line."""

from __future__ import annotations

import dataclasses
import io
import json
import platform
import random

import mido
import numpy as np
import pretty_midi
import pytest
import symusic
from hypothesis import given, settings
from hypothesis import strategies as st
from midi_bytes import header, meta, midi_file, note, track
from playing import PLAIN_RECIPE
from random_songs import random_song

from backline.common.errors import UserError
from backline.common.surroundings import differences, song_surroundings
from backline.generation.config import DTYPES, DYNAMICS, GenConfig, RuleConfig
from backline.generation.output_files import song_bytes
from backline.generation.recipes import (
    BEFORE,
    RECIPE_FORMAT,
    RECIPE_VERSION,
    SWITCHES,
    Recipe,
    read_recipe,
    recipe_from_dict,
    recipe_to_dict,
    with_recipe,
)
from backline.generation.wish import Wish
from backline.music.midi_reader import read_song
from backline.music.midi_writer import parts_to_bytes
from backline.music.song import TICKS_PER_QUARTER
from backline.music.vocab import QUARTERS_PER_BAR
from tokenizer import MidiTokenizerPooled

TOKENIZER = MidiTokenizerPooled()
V = TOKENIZER.vocabulary
TEMPO = 97.0
TICKS_PER_BAR = QUARTERS_PER_BAR * TICKS_PER_QUARTER
RICH = Recipe(0, (0,), Wish(("bass",), ("drums", "piano"), loop=True),
              GenConfig(temperature=(0.1, 1, 2, 3), top_p=(0.9,) * 4,
                        rules=RuleConfig("F#", "dorian", {"drums": "kick, 42"}, ("bass",), {"piano": 3}, {}, True)),
              "modèle.pth", "b2", "int8", "Prélude \"n° 1\"\n\udcff.mid", "c3", 17,
              {"machine": "x86 ™", "threads": "2"})
ROWS = random_song(0, 30, 3)


def plain_bytes(rows: np.ndarray = ROWS, tempo: float = TEMPO) -> bytes:
    return parts_to_bytes(TOKENIZER.rows_to_parts(rows, TICKS_PER_QUARTER), V, TICKS_PER_QUARTER, tempo)


def written(folder, data: bytes):
    path = folder / "song.mid"
    path.write_bytes(data)
    return path


def with_text(text: str) -> bytes:
    return midi_file([(0, meta(0x01, text.encode())), *note(0, 24, 60)])


def error_of(path) -> str:
    with pytest.raises(UserError) as error:
        read_recipe(path)
    message = str(error.value)
    assert "\n" not in message and message.startswith(f"{path}: ") and len(message) < 400
    return message


# ---------------------------------------------------------------- round trip


@pytest.mark.parametrize("recipe", [PLAIN_RECIPE, RICH], ids=["plain", "rich"])
def test_a_recipe_comes_back_as_it_was(recipe, tmp_path):
    assert read_recipe(written(tmp_path, with_recipe(plain_bytes(), recipe))) == recipe


def test_a_recipe_of_before_there_were_switches_means_what_it_did_and_keeps_its_bytes():
    old = recipe_to_dict(dataclasses.replace(PLAIN_RECIPE, genconfig=GenConfig(num_bars=32, max_steps=512)))
    for name in BEFORE:
        old["genconfig"].pop(name, None)
    recipe = recipe_from_dict(old, "song.mid")
    assert (recipe.genconfig.num_bars, recipe.genconfig.max_steps) == (32, 512)
    assert {name: getattr(recipe.genconfig, name) for name in BEFORE} == BEFORE
    assert not any(BEFORE[name] for name in SWITCHES) and BEFORE["dynamics"] == "flat"
    assert json.dumps(recipe_to_dict(recipe)) == json.dumps(old)


def test_settings_that_generate_refuses_by_now_are_read_in_a_recipe():
    old = recipe_to_dict(PLAIN_RECIPE)
    old["genconfig"] |= {"top_p": [0.9, 0.0, 0.9, 0.9], "rules": old["genconfig"]["rules"] | {"scale": "minor"}}
    config = recipe_from_dict(old, "song.mid").genconfig
    assert config.top_p[1] == 0 and (config.rules.key, config.rules.scale) == ("", "minor")


@pytest.mark.parametrize(("switch", "values"), [*((name, (True, False)) for name in SWITCHES), ("dynamics", DYNAMICS)])
def test_each_switch_comes_back_on_and_off(switch, values):
    for on in values:
        recipe = dataclasses.replace(PLAIN_RECIPE, genconfig=dataclasses.replace(GenConfig(), **{switch: on}))
        assert recipe_from_dict(recipe_to_dict(recipe), "song.mid") == recipe


@settings(max_examples=20)
@given(numbers=st.lists(st.integers(0, 2**40), min_size=1, max_size=16), dtype=st.sampled_from(DTYPES),
       texts=st.lists(st.text(), min_size=4, max_size=4), prompt_rows=st.integers(0, 10**6))
def test_any_recipe_comes_back(numbers, dtype, texts, prompt_rows, scratch):
    name, prompt, key, value = texts
    recipe = dataclasses.replace(RICH, seed=numbers[0], batch=tuple(numbers), model=name, dtype=dtype, prompt=prompt,
                                 prompt_rows=prompt_rows, surroundings={key: value})
    assert read_recipe(written(scratch, with_recipe(plain_bytes(ROWS[:1]), recipe))) == recipe


def test_the_song_and_every_stem_carry_it(tmp_path):
    files = song_bytes(ROWS, TOKENIZER, TEMPO, RICH)
    assert set(files) == {"", *(f"-{name}" for name in V.part_names)}
    for data in files.values():
        assert read_recipe(written(tmp_path, data)) == RICH


def test_it_is_a_text_event_at_the_beginning_of_the_first_track():
    tracks = mido.MidiFile(file=io.BytesIO(with_recipe(plain_bytes(), PLAIN_RECIPE))).tracks
    first = tracks[0][0]
    assert first.type == "text" and first.time == 0
    assert json.loads(first.text)["format"] == RECIPE_FORMAT and json.loads(first.text)["version"] == RECIPE_VERSION
    assert sum(message.type == "text" for track in tracks for message in track) == 1


# ---------------------------------------------------------------- the song stays as it was


def in_mido(data: bytes) -> list:
    file = mido.MidiFile(file=io.BytesIO(data))
    return [file.type, file.ticks_per_beat, [[message for message in track if message.type not in
                                              ("text", "end_of_track")] for track in file.tracks]]


def in_pretty_midi(data: bytes) -> list:
    song = pretty_midi.PrettyMIDI(io.BytesIO(data))
    return [[part.tolist() for part in song.get_tempo_changes()], *[
        (part.name, part.program, part.is_drum, [(n.start, n.end, n.pitch, n.velocity) for n in part.notes])
        for part in song.instruments]]


def in_symusic(data: bytes) -> list:
    song = symusic.Score.from_midi(data)
    return [song.ticks_per_quarter, [(tempo.time, tempo.qpm) for tempo in song.tempos], *[
        (track.name, track.program, track.is_drum, [(n.time, n.duration, n.pitch, n.velocity) for n in track.notes])
        for track in song.tracks]]


@pytest.mark.parametrize("reader", [in_mido, in_pretty_midi, in_symusic])
@pytest.mark.parametrize("end_bars", [0, 3, 20])
@pytest.mark.parametrize("rows", [ROWS, ROWS[:1], ROWS[:0]], ids=["song", "note", "empty"])
def test_other_readers_find_the_same_song(reader, end_bars, rows):
    before = plain_bytes(rows)
    assert reader(with_recipe(before, RICH, end_bars * TICKS_PER_BAR)) == reader(before)


def test_our_reader_finds_the_same_song_and_nothing_odd(tmp_path):
    before = read_song(written(tmp_path, plain_bytes()))
    after = read_song(written(tmp_path, with_recipe(plain_bytes(), RICH, 9 * TICKS_PER_BAR)))
    assert [(a.name, a.program, a.is_drum, a.notes.tolist()) for a in after.tracks] == [
        (b.name, b.program, b.is_drum, b.notes.tolist()) for b in before.tracks]
    assert after.main_tempo() == before.main_tempo() == TEMPO and after.notices == ()


@pytest.mark.parametrize("end_bars", [0, 2, 3, 4, 20])
def test_each_track_ends_with_its_last_note_or_where_it_is_told_to(end_bars):
    rows = np.array([[4, 4, 4 + 31, 6], [5, 4, 4 + 63, 60]])  # drums of one bar, bass until the end of the third
    data = with_recipe(plain_bytes(rows), PLAIN_RECIPE, end_bars * TICKS_PER_BAR)
    lengths = [sum(message.time for message in track) for track in mido.MidiFile(file=io.BytesIO(data)).tracks]
    assert lengths == [max(bars, end_bars) * TICKS_PER_BAR for bars in (1, 3, 0)]


# ---------------------------------------------------------------- bad files


def changed(**changes) -> str:
    """The text of a recipe with changes; None takes away."""
    text = mido.MidiFile(file=io.BytesIO(with_recipe(plain_bytes(), PLAIN_RECIPE))).tracks[0][0].text
    facts = {**json.loads(text), **changes}
    return json.dumps({name: fact for name, fact in facts.items() if fact is not None}, separators=(",", ":"))


@pytest.mark.parametrize(("data", "message"), [
    (b"", "an empty file"), (b"hello", "not a MIDI file"), (header(1), "truncated MIDI file"),
    (b"MThd\0\0\0\2\0\1", "truncated MIDI file"), (plain_bytes()[:-30], "truncated MIDI file"),
    (midi_file([(0, meta(0x59, b"\x0a\x00"))]), "holds no recipe"),  # a key of ten sharps
    (plain_bytes(), "holds no recipe; give a song of generate.py"), (with_text("made with love"), "holds no recipe"),
    (with_text("[" * 10**5), "holds no recipe"), (with_text('{"format":"other"}'), "holds no recipe"),
    (with_text(changed()[:-40]), "its recipe is damaged"),
    (with_text('{"format":"pooled-recipe","batch":' + "[" * 10**5), "its recipe is damaged"),
    (with_text(changed(version=RECIPE_VERSION + 1)),
     f"of version {RECIPE_VERSION + 1}, this program reads {RECIPE_VERSION}"),
    (with_text(changed(version=None)), "of version None"), (with_text(changed(version="a\nb")), r"of version 'a\\nb'"),
    (with_text(changed(seed=None)), "recipe: 'seed' is missing"), (with_text(changed(seeds=1)), "did you mean 'seed'"),
    (with_text(changed(seed=9)), "numbers make no sense"), (with_text(changed(seed=-1, batch=[-1])), "make no sense"),
    (with_text(changed(batch=[])), "make no sense"), (with_text(changed(prompt_rows=-3)), "make no sense"),
    (with_text(changed(dtype="fp8")), "dtype 'fp8' must be one of"), (with_text(changed(wish=[])), "recipe: wish"),
    (with_text(changed(wish={"fill": [3]})), "recipe: wish: fill"),
    (with_text(changed(genconfig={"max_steps": -1})), "recipe: genconfig: max_steps")])
def test_bad_files(tmp_path, data, message):
    path = written(tmp_path, data)
    with pytest.raises(UserError, match=message):
        read_recipe(path)
    error_of(path)


def test_missing_files_and_folders(tmp_path):
    assert "no such file" in error_of(tmp_path / "missing.mid")
    assert "a folder" in error_of(tmp_path)


def test_the_recipe_is_found_in_a_song_with_other_texts_and_tracks(tmp_path):
    data = b"".join([header(2), track([(0, meta(0x01, b"{}")), *note(0, 24, 60)]),
                     track([(0, meta(0x01, b"[1")), (5, meta(0x01, changed().encode()))])])
    assert read_recipe(written(tmp_path, data)) == PLAIN_RECIPE


def test_damaged_bytes_never_crash_it(tmp_path):
    data, chance = with_recipe(plain_bytes(ROWS[:5]), PLAIN_RECIPE), random.Random(0)
    for _ in range(150):
        damaged = bytearray(data)
        for place in chance.choices(range(len(data)), k=chance.randint(1, 3)):
            damaged[place] = chance.randrange(256)
        try:
            read_recipe(written(tmp_path, bytes(damaged)))
        except UserError as err:
            assert len(str(err).splitlines()) == 1


# ---------------------------------------------------------------- surroundings


def test_differences_are_named_one_by_one():
    now = song_surroundings({"onnxruntime": "1.32.0", "device": "cpu", "threads": "1"})
    assert differences(now, now) == [] and all(now.values())
    assert now["python"] == platform.python_version() and now["device"] == "cpu"
    assert differences(now, {**now, "onnxruntime": "0.1"}) == ["onnxruntime was 1.32.0, is 0.1"]
    assert differences({"a": "1", "b": "2"}, {"b": "3", "c": "4"}) == [
        "a was 1, is not there", "b was 2, is 3", "c was not there, is 4"]
