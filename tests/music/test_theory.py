"""Names that musicians use: every key's scales, and the grammar of pitch sets."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backline.common.errors import UserError
from backline.music.theory import DRUM_KIT, OCTAVE, SCALES, pitch_class, pitch_set, scale_pitch_classes

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


@pytest.mark.parametrize("scale", ["", "Major", "mayor", "minor pentatonic"])
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


@pytest.mark.parametrize(("text", "item", "message"), [
    ("", "", "names none"), (" , ", " , ", "names none"),
    ("52-28", "52-28", "a range goes up"), ("36, 128", "128", "from 0 to 127"), ("120-128", "120-128", "from 0 to 127"),
    ("0-999", "0-999", "from 0 to 127"),
    ("kick, kik", "kik", "drum kit: kick, rim, snare"), ("Kick", "Kick", "drum kit"), ("-5", "-5", "give a pitch"),
    ("36-", "36-", "give a pitch"), ("1-2-3", "1-2-3", "give a pitch"), ("36.5", "36.5", "give a pitch"),
    ("28 - 52", "-", "give a pitch"), ("C4", "C4", "give a pitch"), ("kick-snare", "kick-snare", "give a pitch"),
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
