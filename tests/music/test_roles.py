"""Which part a name, a file name or a person's word means."""

from __future__ import annotations

import json

import pytest

from backline.common.errors import UserError
from backline.common.paths import DEFAULT_VOCABULARY
from backline.music.roles import (
    names_click,
    names_other_instrument,
    parse_parts,
    part_asked_for,
    part_name,
    parts_named,
)
from backline.music.vocab import load_vocabulary

VOCABULARY = load_vocabulary()
BARE = load_vocabulary(VOCABULARY.to_dict())
PUBLISHED = load_vocabulary(VOCABULARY.to_published())

DRUMS = ["Drums", "DRUM", "EZdrummer", "EZ Drummer 3", "Kit", "Drumset", "DrumKit_01", "Bass Drum", "bassdrum 2",
         "Drum Rack", "Superior Drummer 3", "Addictive Drums", "Perc.", "Hi-Hat", "HiHats", "TR-808", "808 kit",
         "TR909", "Schlagzeug", "Batería", "batterie", "ударные", "ドラム", "Kick", "Snare (D3)", "Percussion",
         "std drums", "Drums / Wire Brush"]
BASSES = ["Bass", "BASS", "Bass Gtr", "E-Bass", "eBass", "Synth Bass 2", "SynthBass1", "Kontrabaß", "Contrabass",
          "bajo", "basse", "808 Bass", "Keyboard bass", "MyBass_2", "Sub", "Fretless", "Bass    (BB)", "бас-гитара",
          "ベース", "basses"]
PIANOS = ["Piano", "PIANOS", "Keys", "KEYBOARD 2", "Rhodes", "Rhodes Piano", "Wurli", "Church Organ", "Hammond B3",
          "Clavinet", "E-Piano", "Klavier", "clavier", "Teclado", "Flügel", "Piano LH", "пианино", "pno"]
OTHERS = ["Bassoon", "Bass Clarinet", "Steel Drums", "Lead Guitar", "Strings 1", "Vocal", "Alto Sax",
          "Taiko Drum",
          "Melody", "Contra Bassoon", "Bass Trombone"]
NOTHING = ["", "Track 1", "Inst 3", "MIDI Region", "Audio 2", "Untitled", "Drumstick", "Organic", "Bassment", "1",
           "---", "\0\ufffd"]
CLICKS = ["Click", "CLICK", "click track", "ClickTrack", "Metronome", "metronome 2", "Count in", "Count-In",
          "Pre-count", "Klopfgeist", "Klick", "Métronome", "Clicks", "メトロノーム"]
NO_CLICKS = ["Kick click", "Click bass", "Clicky", "Count Basie", "Counting", "In", "Drums", ""]
SEVERAL = {"808": {"drums", "bass"}, "Drum & Bass": {"drums", "bass"}, "Bass and Piano": {"bass", "piano"}}


@pytest.mark.parametrize("vocabulary", [VOCABULARY, BARE, PUBLISHED], ids=["default", "without synonyms", "published"])
def test_a_name_names_a_part_in_any_case_and_language(vocabulary):
    for part, names in (("drums", DRUMS), ("bass", BASSES), ("piano", PIANOS)):
        found = {name: set(parts_named(name, vocabulary)) for name in names}
        assert found == {name: {part} for name in names}


@pytest.mark.parametrize("name", OTHERS)
def test_other_instruments_name_no_part(name):
    assert not parts_named(name, VOCABULARY)
    assert names_other_instrument(name, VOCABULARY)


@pytest.mark.parametrize("vocabulary", [VOCABULARY, BARE, PUBLISHED], ids=["default", "without words", "published"])
def test_a_metronome_is_told_by_its_name(vocabulary):
    assert [name for name in CLICKS if not names_click(name, vocabulary)] == []
    assert [name for name in NO_CLICKS if names_click(name, vocabulary)] == []
    assert not any(parts_named(name, vocabulary) for name in CLICKS)


@pytest.mark.parametrize("name", NOTHING)
def test_words_of_little_meaning_name_nothing(name):
    assert not parts_named(name, VOCABULARY)
    assert not names_other_instrument(name, VOCABULARY)


@pytest.mark.parametrize("name", SEVERAL)
def test_two_meanings_are_both_told(name):
    assert parts_named(name, VOCABULARY) == SEVERAL[name]


def test_part_that_a_person_types():
    typed = {"Bass": "bass", "keys": "piano", "KIT": "drums",
             "Bass Guitar": "bass", "rhodes": "piano"}
    assert {text: part_asked_for(text, VOCABULARY) for text in typed} == typed
    for text in ("", "808", "guitar", "my bass", "drums,bass"):
        assert part_asked_for(text, VOCABULARY) is None


def test_a_name_of_a_part_is_that_parts_alone():
    data = VOCABULARY.to_dict()
    organ = {**data["parts"][2], "name": "organ", "synonyms": ["hammond"]}
    strings = {**data["parts"][2], "name": "strings", "synonyms": []}
    vocabulary = load_vocabulary({**data, "parts": [*data["parts"], organ, strings]})
    assert parts_named("Church Organ", vocabulary) == {"organ"}
    assert parts_named("Strings", vocabulary) == {"strings"}
    assert parts_named("Piano", vocabulary) == {"piano"}
    assert parts_named("Hammond", vocabulary) == {"organ", "piano"}


def test_synonyms_change_no_id():
    assert BARE == VOCABULARY and not BARE.parts[0].synonyms and VOCABULARY.parts[0].synonyms
    assert BARE.digest == VOCABULARY.digest
    assert "synonyms" not in json.dumps(VOCABULARY.to_published())
    assert json.loads(DEFAULT_VOCABULARY.read_text(encoding="utf-8"))["parts"][0]["synonyms"]


@pytest.mark.parametrize(("text", "names"), [
    ("piano,bass", ("bass", "piano")), ("bass, piano", ("bass", "piano")), ("bass piano,", ("bass", "piano")),
    ("drums,drums", ("drums",)), (" piano", ("piano",)), ("Keys, BASS", ("bass", "piano")),
    ("bass guitar,kit", ("drums", "bass")), ("Rhodes bass,", ("bass", "piano")), ("keys,piano", ("piano",))])
def test_parts_come_in_the_order_of_the_vocabulary(text, names):
    assert parse_parts(text, VOCABULARY) == names


@pytest.mark.parametrize(("text", "message"), [
    ("banjo,bass", "unknown part 'banjo'"), ("808", "unknown part '808'"), ("", "names no part"),
    (" , ", "names no part")])
def test_parts_that_are_none(text, message):
    with pytest.raises(UserError, match=f"{message}.* the model plays drums, bass, piano"):
        parse_parts(text, VOCABULARY)


def test_a_misspelt_part_has_a_suggestion():
    assert part_name("e-bass", VOCABULARY) == "bass"
    with pytest.raises(UserError, match=r"unknown part 'pianno'; .*did you mean 'piano'"):
        part_name("pianno", VOCABULARY)
