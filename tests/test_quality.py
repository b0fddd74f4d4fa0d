"""The measures of a song and the limits that cleaning holds it to."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import orjson
import pytest
from commands import fails
from hypothesis import given
from hypothesis import strategies as st
from midi_bytes import DRUM_CHANNEL, midi_file, name, note

import clean_midi
from backline.common.errors import UserError
from backline.common.settings import config_from_file, config_to_dict
from backline.music.choices import DROP, Choices
from backline.music.song import NO_NOTES
from backline.music.vocab import load_vocabulary
from clean_midi import Cleaning, check_quality, measure_quality

CONFIGS = Path(__file__).parents[1] / "configs"
VOCABULARY = load_vocabulary()
TPQ, BAR = 480, 4 * 480


def notes(*onsets: int, pitch: int = 40) -> np.ndarray:
    return np.array([(onset, onset + 10, pitch) for onset in onsets], np.int64).reshape(-1, 3)


def measured(drums: np.ndarray = NO_NOTES, bass: np.ndarray = NO_NOTES, piano: np.ndarray = NO_NOTES,
             ticks_per_quarter: int = TPQ) -> dict[str, float | int]:
    parts = [drums, bass, piano]
    before = [part.copy() for part in parts]
    result = measure_quality(parts, ticks_per_quarter, VOCABULARY)
    assert all((part == old).all() for part, old in zip(parts, before, strict=True))
    assert {type(value) for value in result.values()} <= {int, float}  # plain, so that the report takes them
    return result


# ---------------------------------------------------------------- measures


@pytest.mark.parametrize(("onsets", "bars"), [
    ([0], 1), ([BAR - 1], 1), ([0, BAR - 1], 1), ([0, BAR], 2), ([3 * BAR, 5 * BAR], 3), ([BAR - 1, BAR], 2)])
def test_bars_are_from_the_first_note_to_the_last(onsets, bars):
    assert measured(bass=notes(*onsets))["bars"] == bars
    assert measured(drums=notes(onsets[0]), piano=notes(onsets[-1]))["bars"] == bars


def test_notes_per_part_are_of_the_part_that_has_fewest():
    assert measured(notes(0, 1, 2), notes(0, 1), notes(0, 1, 2, 3))["notes_per_part"] == 2
    assert measured(drums=notes(0, 1, 2), piano=notes(0, 1, 2, 3))["notes_per_part"] == 3  # no bass at all: not 0


def test_empty_bars_are_those_in_which_nothing_begins():
    assert measured(bass=notes(0, BAR, 3 * BAR))["empty_bars"] == 0.25
    assert measured(bass=notes(7 * BAR), piano=notes(8 * BAR + 5))["empty_bars"] == 0
    assert measured(bass=notes(0), piano=notes(9 * BAR))["empty_bars"] == 0.8
    long = np.array([(0, 4 * BAR, 40), (3 * BAR, 3 * BAR + 9, 40)])
    assert measured(bass=long)["empty_bars"] == 0.5  # a note that sounds on begins nothing


def test_same_drum_is_the_share_of_the_most_frequent_hit():
    kit = np.concatenate([notes(0, 1, 2, pitch=36), notes(4, pitch=42)])
    assert measured(drums=kit, bass=notes(*range(9)))["same_drum"] == 0.75
    assert measured(drums=notes(0, pitch=36))["same_drum"] == 1
    assert measured(bass=notes(0, 1))["same_drum"] == 0  # no drums: nothing is repeated


def test_sounding_bars_are_of_the_melodic_part_that_plays_least():
    every = [bar * BAR for bar in range(10)]
    assert measured(notes(0), notes(*every), notes(0, 5, BAR))["sounding_bars"] == 0.2
    assert measured(notes(0), notes(*every))["sounding_bars"] == 1
    assert measured(notes(*every))["sounding_bars"] == 1  # drums alone


@pytest.mark.parametrize("ticks_per_quarter", [24, 96, 120, 384, 480, 960, 1024])
def test_all_that_sheet_music_uses_is_on_the_grid(ticks_per_quarter):
    """Every step of the vocabulary's grid and every triplet of sixteenths, at the nearest tick."""
    bar = 4 * ticks_per_quarter
    for steps in (VOCABULARY.steps_per_bar, 48):
        onsets = notes(*(round(i * bar / steps) for i in range(3 * steps)))
        assert measured(bass=onsets, ticks_per_quarter=ticks_per_quarter)["onsets_on_grid"] == 1


@pytest.mark.parametrize(("off", "on_grid"), [(0, 1), (50, 1), (-50, 1), (51, 0), (-51, 0), (100, 0), (300, 0)])
def test_an_onset_may_be_a_twelfth_of_a_step_off(off, on_grid):
    """A step is 600 ticks at 4800 per quarter, and the triplets are 400 apart: none is near the first step."""
    assert measured(bass=notes(600 + off), ticks_per_quarter=4800)["onsets_on_grid"] == on_grid


def test_onsets_on_the_grid_are_a_share_of_all_parts():
    assert measured(notes(0, 61), notes(30), notes(120))["onsets_on_grid"] == 0.75


def test_a_performance_is_far_from_the_grid_and_a_score_is_not():
    random = np.random.default_rng(0)
    performed = measured(piano=notes(*random.integers(0, 100 * BAR, 5000).tolist()))["onsets_on_grid"]
    assert 0.2 < performed < 0.45 < Cleaning().min_onsets_on_grid
    assert measured(piano=notes(*(random.integers(0, 3200, 5000) * 60).tolist()))["onsets_on_grid"] == 1


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9 * BAR), st.integers(35, 60)), min_size=1, max_size=20),
       st.integers(0, 5))
def test_measures_are_shares_and_do_not_change_with_the_bars_before_the_song(rows, bars_before):
    parts = [np.array([(onset, onset + 9, pitch) for part, onset, pitch in rows if part == p], np.int64).reshape(-1, 3)
             for p in range(3)]
    result = measured(*parts)
    assert all(0 <= value <= 1 for key, value in result.items() if key not in ("bars", "notes_per_part"))
    assert result["bars"] == max(onset // BAR for _, onset, _ in rows) - min(onset // BAR for _, onset, _ in rows) + 1
    assert 1 <= result["notes_per_part"] <= len(rows)
    assert measured(*(part + np.array([bars_before * BAR] * 2 + [0]) for part in parts)) == result


# ---------------------------------------------------------------- limits

GOOD = {"bars": 8, "onsets_on_grid": 0.9, "notes_per_part": 20, "empty_bars": 0.1, "same_drum": 0.5,
        "sounding_bars": 0.5}
LIMITS = [field.name for field in dataclasses.fields(Cleaning) if field.name[4:] in GOOD]
OFF = dict.fromkeys(LIMITS)


def test_there_is_a_limit_for_each_measure():
    assert sorted(limit[4:] for limit in LIMITS) == sorted(GOOD) == sorted(measured(bass=notes(0)))


@pytest.mark.parametrize("limit", LIMITS)
def test_a_song_at_its_limit_is_kept_and_beyond_it_is_not(limit):
    value = GOOD[limit[4:]]
    step = 1 if isinstance(value, int) else 0.01
    worse = step if limit.startswith("min_") else -step  # a limit that the song does not keep
    for offset in (-worse, 0):
        check_quality(GOOD, Cleaning(**OFF | {limit: value + offset}), "x")
    remedy = rf"{limit} is {value + worse:g}\); set {limit} in --config to keep it"
    with pytest.raises(UserError, match=rf"^x: .*{remedy}$") as error:
        check_quality(GOOD, Cleaning(**OFF | {limit: value + worse}), "x")
    assert f"({value:g}, " in str(error.value)


@pytest.mark.parametrize("limit", LIMITS)
def test_null_turns_a_limit_off(limit):
    worst = GOOD | {limit[4:]: 0 if limit.startswith("min_") else 1}
    check_quality(worst, Cleaning(**{limit: None}), "x")
    with pytest.raises(UserError):
        check_quality(worst, Cleaning(), "x")


def test_every_combination_of_the_defaults_can_be_met():
    check_quality(GOOD, Cleaning(), "x")


@pytest.mark.parametrize("changes", [
    {name: value} for name in LIMITS for value in ([-1] if name in ("min_bars", "min_notes_per_part") else [-0.1, 1.1])
] + [{"max_lost": 2}, {"ranges": "all"}, {"min_stretch_bars": 0}, {"meters": "yes"}, {"long_songs": ""}], ids=str)
def test_values_that_make_no_sense_are_an_error(changes):
    with pytest.raises(UserError, match=next(iter(changes))):
        Cleaning(**changes)


# ---------------------------------------------------------------- the file


def test_the_file_of_defaults_holds_the_defaults():
    path = CONFIGS / "cleaning.json"
    assert config_from_file(Cleaning, path) == Cleaning()
    assert orjson.loads(path.read_bytes()) == config_to_dict(Cleaning())
    assert Choices(ranges=DROP) == Choices(**{field.name: getattr(Cleaning(), field.name)
                                              for field in dataclasses.fields(Choices)})


def song(n_bars: int = 4, division: int = 96) -> bytes:
    """Sixteen notes in each part and bar, as every limit wants them."""
    def every(pitches: list[int], channel: int = 0) -> list:
        return [message for i in range(4 * n_bars)
                for message in note(division * i, division * i + 48, pitches[i % len(pitches)], channel)]
    return midi_file([name("drums"), *every([36, 42], DRUM_CHANNEL)], [name("bass"), *every([40])],
                     [name("piano"), *every([60])], division=division)


def cleaned(tmp_path: Path, data: bytes, *flags: str, **config: object) -> dict:
    (tmp_path / "song.mid").write_bytes(data)
    (tmp_path / "config.json").write_bytes(orjson.dumps(config))
    if config:
        flags = (*flags, "--config", str(tmp_path / "config.json"))
    clean_midi.main([str(tmp_path / "song.mid"), "-o", str(tmp_path / "out"), "--force", *flags])
    row, = map(orjson.loads, (tmp_path / "out" / "report.jsonl").read_bytes().splitlines())
    return row


def test_the_command_keeps_a_song_within_its_limits_and_reports_its_measures(tmp_path):
    row = cleaned(tmp_path, song())
    assert row["verdict"] == "kept"
    assert row["quality"] == [{"bars": 4, "onsets_on_grid": 1.0, "notes_per_part": 16, "empty_bars": 0.0,
                               "same_drum": 0.5, "sounding_bars": 1.0}]


def test_the_command_drops_a_song_that_is_not_and_says_why(tmp_path, capsys):
    row = cleaned(tmp_path, song(n_bars=3))
    assert row["verdict"] == "dropped"
    assert row["reason"] == "too few bars (3, min_bars is 4); set min_bars in --config to keep it"
    assert row["lost"] == {"in files left out": 36}
    assert cleaned(tmp_path, song(n_bars=3), min_bars=3)["verdict"] == "kept"
    assert cleaned(tmp_path, song(n_bars=3), min_bars=None)["verdict"] == "kept"
    assert cleaned(tmp_path, song(), min_bars=5)["verdict"] == "dropped"
    assert not (tmp_path / "out" / "song.mid").exists()


def test_an_option_goes_before_the_file(tmp_path):
    data = song().replace(b"\x03\x04bass", b"\x03\x04else").replace(b"\x03\x05piano", b"\x03\x05other")
    reason = cleaned(tmp_path, data, meters="cut")["reason"]
    assert reason.startswith("which track plays the bass is not clear: #2 else")
    row = cleaned(tmp_path, data, "--part", "bass=else", "--part", "piano=other", tracks=[["bass", "none"]])
    assert row["parts"]["bass"] == ["#2 else (no program, 16 notes)"]  # and of the file's choices nothing stays
    row = cleaned(tmp_path, data, tracks=[["bass", "else"], ["piano", "other"]])
    assert (row["verdict"], row["parts"]["piano"]) == ("kept", ["#3 other (no program, 16 notes)"])


@pytest.mark.parametrize(("content", "message"), [
    ("{", "not valid JSON"), ("[]", "holds a JSON list"), ('{"min_bar": 3}', "unknown key 'min_bar'; did you mean"),
    ('{"min_bars": "many"}', "min_bars must be a whole number, not 'many'"),
    ('{"min_bars": 2.5}', "min_bars must be a whole number"),
    ('{"max_same_drum": 1.5}', "max_same_drum must be a share from 0 to 1, or null, not 1.5"),
    ('{"max_lost": null}', "max_lost must be a number"),
    ('{"allow_missing": 1}', "allow_missing must be true or false"),
    ('{"ranges": "all"}', "ranges must be one of drop, octave, skip, not 'all'"),
    ('{"tracks": [["lead", "none"]]}', "--part lead=none: must be NAME=TRACKS, NAME one of drums, bass, piano"),
    ('{"tracks": "bass=none"}', "tracks must be a list"),
    ('{"tracks": ["bass=none"]}', "tracks"),
    ('{"tracks": [["bass"]]}', "tracks"),
    ('{"tracks": [["bass", "none", "all"]]}', "tracks"),
])
def test_a_mistake_in_the_file_is_one_line(tmp_path, capsys, content, message):
    (tmp_path / "config.json").write_text(content)
    (tmp_path / "song.mid").write_bytes(song())
    assert message in fails(clean_midi.main, [tmp_path / "song.mid", "-o", tmp_path / "out", "--config",
                                              tmp_path / "config.json"], capsys)
    assert not (tmp_path / "out").exists()


def test_a_missing_config_is_named(tmp_path, capsys):
    (tmp_path / "song.mid").write_bytes(song())
    assert "none.json: no such file" in fails(
        clean_midi.main, [tmp_path / "song.mid", "-o", tmp_path / "out", "--config", tmp_path / "none.json"], capsys)
