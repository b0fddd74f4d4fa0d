"""Names that musicians use: every key's scales, and the grammar of pitch sets."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backline.common.errors import UserError
from backline.music.theory import (
    DRUM_KIT,
    OCTAVE,
    PITCH_CLASSES,
    SCALES,
    parse_key,
    pitch_class,
    pitch_set,
    scale_in_key,
    scale_name,
    scale_pitch_classes,
)

KEYS = [letter + accidental for letter in "CDEFGAB" for accidental in ("", "#", "b")]
PIANO = {"C": 0, "C#": 1, "Db": 1, "D": 2, "D#": 3, "Eb": 3, "E": 4, "Fb": 4, "E#": 5, "F": 5, "F#": 6, "Gb": 6,
         "G": 7, "G#": 8, "Ab": 8, "A": 9, "A#": 10, "Bb": 10, "B": 11, "Cb": 11, "B#": 0}


def names(text: str) -> set[int]:
    return {PIANO[name] for name in text.split()}


# ---------------------------------------------------------------- notes and scales


def test_every_name_of_a_note_has_its_key_on_the_piano():
    assert {name: pitch_class(name) for name in KEYS} == PIANO


@pytest.mark.parametrize(("name", "same"), [("c", "C"), ("f#", "F#"), ("bb", "Bb"), ("b", "B"), (" Eb ", "Eb")])
def test_small_letters_and_spaces_around_are_fine(name, same):
    assert pitch_class(name) == pitch_class(same)


@pytest.mark.parametrize("name", ["", "H", "C##", "Cbb", "C major", "#", "B♭", "60", "Am", "F #"])
def test_what_is_no_note_is_an_error(name):
    with pytest.raises(UserError, match="give a letter from A to G") as error:
        pitch_class(name)
    assert repr(name) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("key", KEYS)
def test_a_scale_is_the_same_in_every_key(key, scale):
    moved = {(pitch + pitch_class(key)) % OCTAVE for pitch in scale_pitch_classes("C", scale)}
    assert scale_pitch_classes(key, scale) == moved
    assert pitch_class(key) in moved and len(moved) == len(SCALES[scale])


@pytest.mark.parametrize(("key", "scale", "notes"), [
    ("C", "major", "C D E F G A B"), ("Eb", "major", "Eb F G Ab Bb C D"), ("A", "minor", "A B C D E F G"),
    ("A", "harmonic_minor", "A B C D E F G#"), ("A", "melodic_minor", "A B C D E F# G#"),
    ("D", "dorian", "C D E F G A B"), ("E", "phrygian", "C D E F G A B"), ("F", "lydian", "C D E F G A B"),
    ("G", "mixolydian", "C D E F G A B"), ("B", "locrian", "C D E F G A B"),
    ("F#", "major_pentatonic", "F# G# A# C# D#"), ("A", "minor_pentatonic", "A C D E G"),
    ("E", "blues", "E G A Bb B D"), ("C", "chromatic", "C C# D Eb E F F# G Ab A Bb B"),
])
def test_scales_hold_the_notes_of_the_textbook(key, scale, notes):
    assert scale_pitch_classes(key, scale) == names(notes)


def test_every_scale_goes_up_from_its_tonic_within_an_octave():
    for intervals in SCALES.values():
        assert intervals[0] == 0 and intervals[-1] < OCTAVE
        assert list(intervals) == sorted(set(intervals))


@pytest.mark.parametrize(("text", "scale"), [
    ("min", "minor"), ("maj", "major"), ("m", "minor"), ("M", "major"), ("Minor", "minor"), ("aeolian", "minor"),
    ("Ionian", "major"), ("dor", "dorian"), ("mix", "mixolydian"), ("harm min", "harmonic_minor"),
    ("melodic-minor", "melodic_minor"), ("maj_pent", "major_pentatonic"), ("pentatonic minor", "minor_pentatonic"),
    ("natural minor", "minor"), ("jazz minor", "melodic_minor"), ("chrom", "chromatic"),
    *zip(SCALES, SCALES, strict=True)])
def test_a_scale_may_be_abbreviated_where_only_one_begins_so(text, scale):
    assert scale_name(text) == scale
    assert scale_pitch_classes("C", text) == scale_pitch_classes("C", scale)


@pytest.mark.parametrize(("text", "message"), [
    ("l", "must be one of lydian, locrian$"), ("mi", "must be one of minor, mixolydian$"),
    ("minr", "did you mean 'minor'"), ("pentatonic", "did you mean '.*pentatonic"), ("-", "must be one of major")])
def test_a_scale_that_is_several_or_none_is_an_error(text, message):
    with pytest.raises(UserError, match=message):
        scale_name(text)


@pytest.mark.parametrize(("text", "tonic", "scale"), [
    ("A", "A", ""), ("Am", "A", "minor"), ("am", "A", "minor"), ("a minor", "A", "minor"), ("AM", "A", "major"),
    ("F#m", "F#", "minor"), ("F♯ min", "F#", "minor"), ("bb", "Bb", ""), ("b", "B", ""), ("Bbm", "Bb", "minor"),
    ("b flat maj", "Bb", "major"), ("C sharp", "C#", ""), ("D dorian", "D", "dorian"), ("A-minor", "A", "minor"),
    ("E blues", "E", "blues"), ("bm", "B", "minor")])
def test_a_key_may_name_its_scale(text, tonic, scale):
    assert parse_key(text) == (tonic, scale)


@given(tonic=st.sampled_from(PITCH_CLASSES), scale=st.sampled_from(sorted(SCALES)))
def test_every_key_reads_back(tonic, scale):
    assert parse_key(f"{tonic} {scale}") == (tonic, scale)


@pytest.mark.parametrize("text", ["", "H", "H minor", "Cm7", "A mnor", "7", "keep", "C##"])
def test_what_is_no_key_is_an_error(text):
    with pytest.raises(UserError, match=f"^key {re.escape(repr(text))}: ") as error:
        parse_key(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("key", "scale", "found"), [
    ("Am", "dorian", ("A", "dorian")), ("A", "dorian", ("A", "dorian")), ("Am", "", ("A", "minor")),
    ("Am", "min", ("A", "minor")), ("C", "", ("C", "major")), ("C major", "lyd", ("C", "lydian")),
    ("D dorian", "dorian", ("D", "dorian")), ("Em", "chromatic", ("E", "chromatic"))])
def test_a_key_and_a_scale_that_agree(key, scale, found):
    assert scale_in_key(key, scale) == found


@pytest.mark.parametrize(("key", "scale"), [
    ("Am", "major"), ("AM", "min"), ("D dorian", "minor"), ("Am", "mixolydian")])
def test_a_key_and_a_scale_that_contradict_each_other(key, scale):
    with pytest.raises(UserError, match="name one of them"):
        scale_in_key(key, scale)


@pytest.mark.parametrize("scale", ["", "mayor", "majorr", "minor sixth"])
def test_an_unknown_scale_is_an_error_that_lists_the_known_ones(scale):
    with pytest.raises(UserError, match="must be one of major, minor, harmonic_minor") as error:
        scale_pitch_classes("C", scale)
    assert repr(scale) in str(error.value) and "\n" not in str(error.value)


# ---------------------------------------------------------------- pitch sets

ITEMS = (st.integers(0, 127).map(lambda pitch: (str(pitch), {pitch}))
         | st.tuples(st.integers(0, 127), st.integers(0, 127)).map(sorted).map(
             lambda ends: (f"{ends[0]}-{ends[1]}", set(range(ends[0], ends[1] + 1))))
         | st.sampled_from(sorted(DRUM_KIT)).map(lambda name: (name, set(DRUM_KIT[name]))))


@given(items=st.lists(ITEMS, min_size=1, max_size=5), between=st.sampled_from([",", ", ", " ", " , ", "\n", ",,\t"]),
       around=st.sampled_from(["", " ", ","]))
def test_a_pitch_set_holds_what_its_items_name(items, between, around):
    text = around + between.join(text for text, _ in items) + around
    assert pitch_set(text) == set().union(*(pitches for _, pitches in items))


def test_a_pitch_set_by_example():
    assert pitch_set("28-30") == {28, 29, 30}
    assert pitch_set("kick, snare, 42-44") == {35, 36, 38, 40, 42, 43, 44}
    assert pitch_set("0-127") == set(range(128))
    assert pitch_set("5-5 007") == {5, 7}
    assert pitch_set("Kick CLOSED_HAT") == {35, 36, 42}


def test_a_pitch_may_be_a_note_whose_octave_has_middle_c_at_4():
    assert pitch_set("C4") == {60} and pitch_set("C-1 G9") == {0, 127}
    assert pitch_set("E1-G3") == set(range(28, 56)) == pitch_set("28-G3")
    assert pitch_set("C-1-c0") == set(range(13))
    assert pitch_set("Bb2,A#2 B♭2") == {46} and pitch_set("Cb4") == {59} and pitch_set("b3") == {59}


@given(letter=st.sampled_from("CDEFGAB"), sign=st.sampled_from(["", "#", "b"]), octave=st.integers(-1, 9))
def test_every_note_is_where_the_piano_has_it(letter, sign, octave):
    name = f"{letter}{sign}{octave}"
    at = 12 * (octave + 1) + PIANO[letter] + {"": 0, "#": 1, "b": -1}[sign]
    if 0 <= at <= 127:
        assert pitch_set(name) == {at}
    else:
        with pytest.raises(UserError, match="C4 is 60"):
            pitch_set(name)


@pytest.mark.parametrize(("text", "item", "message"), [
    ("", "", "names none"), (" , ", " , ", "names none"),
    ("52-28", "52-28", "a range goes up"), ("36, 128", "128", "from 0 to 127"), ("120-128", "120-128", "from 0 to 127"),
    ("0-999", "0-999", "from 0 to 127"),
    ("kick, kik", "kik", "drum kit: kick, rim, snare"), ("hat", "hat", "mean 'hats'"), ("-5", "-5", "give a pitch"),
    ("36-", "36-", "give a pitch"), ("1-2-3", "1-2-3", "give a pitch"), ("36.5", "36.5", "give a pitch"),
    ("28 - 52", "-", "give a pitch"), ("C10", "C10", "give a pitch"),
    ("H4", "H4", "give a pitch"), ("C-2", "C-2", "C4 is 60"), ("G#9", "G#9", "from 0 to 127"),
    ("C4-B3", "C4-B3", "goes up"),
    ("kick-snare", "kick-snare", "give a pitch"),
])
def test_what_is_no_pitch_set_is_an_error(text, item, message):
    with pytest.raises(UserError, match=message) as error:
        pitch_set(text)
    assert str(error.value).startswith(f"pitches {item!r}: ") and "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["0-999999999999", "9" * 5000, f"0-{'9' * 5000}"], ids=["far", "long", "long range"])
def test_numbers_of_any_length_are_refused_at_once(text):
    with pytest.raises(UserError, match="a range"):
        pitch_set(text)


def test_the_drum_kit_lies_in_the_general_midi_percussion_map():
    for name, pitches in DRUM_KIT.items():
        assert re.fullmatch("[a-z_]+", name)  # or the grammar would not read it
        assert pitches and set(pitches) <= set(range(35, 82)) and list(pitches) == sorted(set(pitches))
    assert pitch_set("closed_hat pedal_hat open_hat") == pitch_set("hats")
    assert pitch_set("crash ride china splash") == {49, 51, 52, 53, 55, 57, 59}  # all cymbals of the map
