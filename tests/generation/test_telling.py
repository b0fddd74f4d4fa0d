"""What a model is told to play, from what people say, what a prompt shows and what is drawn."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from playing import PLAIN_RECIPE
from random_songs import VOCABULARY, random_song
from written_songs import song_sheets

from backline.common.errors import UserError
from backline.common.paths import ROOT
from backline.engine.torch_player import TorchPlayer
from backline.generation import telling
from backline.generation.config import ControlConfig, GenConfig, RuleConfig
from backline.generation.recipes import recipe_from_dict, recipe_to_dict
from backline.generation.sampler import Request, sample_songs
from backline.generation.task import make_task
from backline.generation.telling import check_controls, describe_told, nothing_told, tell, told_to_play
from backline.generation.wish import Wish
from backline.layers.config import ModelConfig
from backline.music.chords import FIRST_VALUE, HALVES_PER_BAR, UNKNOWN, chord_name, parse_chords
from backline.music.controls import bars_left
from backline.music.sheet import (
    DENSITY,
    N_PART_FIELDS,
    PLAYS,
    RESTS,
    RETURNS_4,
    RETURNS_8,
    key_column,
    measure_levels,
)
from backline.music.sheet_table import SheetTable
from backline.music.vocab import BAR, FIRST_ID, PITCH_INSTRUMENT, load_vocabulary
from model import PooledTransformer

BAND = load_vocabulary(ROOT / "configs" / "vocab_band.json")
NONE = np.zeros((0, 4), np.int64)
SONGS = [random_song(seed, 300 + 100 * seed, n_bars=20) for seed in range(6)]
LEVELS = measure_levels(SONGS, VOCABULARY)
TABLE = SheetTable(LEVELS, np.stack([song_sheets(song, VOCABULARY, LEVELS)[0] for song in SONGS]))
SILENCE, SCRATCH = ControlConfig(), Wish()  # nothing said, nothing given
PROMPT = random_song(9, 60, n_bars=4)


def task_of(controls: ControlConfig = SILENCE, wish: Wish = SCRATCH, prompt: np.ndarray = NONE, **rules):
    config = GenConfig(controls=controls, rules=RuleConfig(**rules))
    return make_task(wish, prompt, VOCABULARY, config), config


def told(controls: ControlConfig = SILENCE, wish: Wish = SCRATCH, prompt: np.ndarray = NONE, seed: int = 0,
         **rules):
    return tell(*task_of(controls, wish, prompt, **rules), TABLE, seed)


def sheet_columns(part: str) -> slice:
    p = VOCABULARY.part_names.index(part)
    return slice(p * N_PART_FIELDS, (p + 1) * N_PART_FIELDS)


def test_a_song_from_scratch_is_told_the_sheet_of_a_training_song():
    sheets = {told(seed=seed).by_bar[0, :-1].tobytes() for seed in range(40)}
    assert sheets <= {sheet.tobytes() for sheet in TABLE.sheets} and len(sheets) > 3
    assert np.array_equal(told(seed=3).by_bar, told(seed=3).by_bar)
    assert (told().by_half_bar == UNKNOWN).all()


def band_table() -> SheetTable:
    """Songs in which one to all seven parts play, each twice; the second rests most of the time."""
    width = len(BAND.parts) * N_PART_FIELDS + 1
    sheets = np.full((14, width), 1, np.uint8)
    for n in range(1, 8):
        for row, rests in ((n - 1, 2), (n + 6, 5)):
            sheets[row, :n * N_PART_FIELDS] = 2
            sheets[row, RESTS:n * N_PART_FIELDS:N_PART_FIELDS] = rests
            sheets[row, DENSITY:n * N_PART_FIELDS:N_PART_FIELDS] = 9
    return SheetTable(measure_levels([random_song(0, vocabulary=BAND)], BAND), sheets)


def band_told(wish: Wish, seed: int, **changes) -> tuple[int, tuple[str, ...]]:
    """How many parts a song of the band is told to have, and which of them must play."""
    config = dataclasses.replace(GenConfig(), **changes)
    task = make_task(wish, NONE, BAND, config)
    sheet = tell(task, config, band_table(), seed)
    plays = sheet.by_bar[0, PLAYS:key_column(BAND):N_PART_FIELDS] == 2
    return int(plays.sum()), told_to_play(sheet, task)


def test_many_parts_are_told_to_play_as_in_real_songs_of_four_or_more_unless_they_are_named():
    drawn = [band_told(Wish(), seed) for seed in range(60)]
    assert {n for n, _ in drawn} == {4, 5, 6, 7}
    assert {playing for _, playing in drawn} == {(), *(BAND.part_names[:n] for n in range(4, 8))}
    assert {band_told(Wish(make=BAND.part_names), seed)[0] for seed in range(20)} == {7}
    assert {band_told(Wish(), seed, all_parts=False)[0] for seed in range(60)} == {*range(1, 8)}
    assert {band_told(Wish(), seed, fewest_parts=6)[0] for seed in range(20)} == {6, 7}
    assert {band_told(Wish(), seed, fewest_parts=0)[0] for seed in range(20)} == {7}
    lead = ControlConfig(density={"lead": "1"})  # nearer to songs without it
    assert {band_told(Wish(), seed, controls=lead)[0] for seed in range(20)} == {6, 7}


def test_parts_that_are_not_in_the_line_up_are_hardly_ever_made():
    config = GenConfig(key_pull=1.0)
    drawn = [tell(make_task(Wish(), NONE, BAND, config), config, band_table(), seed) for seed in range(40)]
    with_four = next(told for told in drawn
                     if (told.by_bar[0, PLAYS:key_column(BAND):N_PART_FIELDS] == 2).sum() == 4)
    pull = with_four.pull(BAND)
    is_out = np.isin(BAND.part_of_id, [4, 5, 6])
    assert (pull[is_out] < -20).all() and (pull[~is_out] == 0).all()
    assert all(told.pull(BAND) is None or np.isfinite(told.pull(BAND)).all() for told in drawn)


@pytest.mark.parametrize(("wish", "changes"), [
    (Wish(make=("drums", "bass")), {}), (Wish(), {"fewest_parts": 0}), (Wish(), {"all_parts": False}),
    (Wish(), {"controls": ControlConfig(draw=False, density={"bass": "busy"})})])
def test_where_no_line_up_is_drawn_no_part_is_ruled_out(wish, changes):
    config = dataclasses.replace(GenConfig(key_pull=1.0), **changes)
    assert all(tell(make_task(wish, NONE, BAND, config), config, band_table(), seed).pull(BAND) is None
               for seed in range(20))


def test_nothing_is_drawn_where_that_is_switched_off():
    free = told(ControlConfig(draw=False))
    assert np.array_equal(free.by_bar, nothing_told(VOCABULARY).by_bar)
    said = told(ControlConfig(draw=False, density={"bass": "busy"}))
    assert (said.by_bar[0, sheet_columns("drums")] == UNKNOWN).all()
    assert said.by_bar[0, sheet_columns("bass")][DENSITY] == 2 + 7 - 1


def test_a_density_is_told_with_the_sheet_of_a_song_that_is_nearly_so():
    busy = told(ControlConfig(density={"drums": "8", "piano": "sparse"}), seed=1)
    assert busy.by_bar[0, sheet_columns("drums")][DENSITY] == 9
    assert busy.by_bar[0, sheet_columns("piano")][DENSITY] == 3
    column = sheet_columns("drums").start + DENSITY
    other = np.delete(busy.by_bar[0, :-1], [column, sheet_columns("piano").start + DENSITY])
    nearest = min(TABLE.sheets, key=lambda sheet: abs(int(sheet[column]) - 9)
                  + abs(int(sheet[sheet_columns("piano").start + DENSITY]) - 3))
    assert np.array_equal(other, np.delete(nearest, [column, sheet_columns("piano").start + DENSITY]))


def test_parts_that_are_not_made_are_silent():
    alone = told(wish=Wish(make=("bass",)))
    for part in ("drums", "piano"):
        assert (alone.by_bar[0, sheet_columns(part)] == 1).all()
    assert alone.by_bar[0, sheet_columns("bass")][PLAYS] == 2


@pytest.mark.parametrize(("wish", "ending", "ends"), [
    (Wish(), "", True), (Wish(bars=4), "", True), (Wish(bars=4, loop=True), "", False), (Wish(), "no", False),
    (Wish(bars=4, loop=True), "yes", True)])
def test_an_ending_is_told_from_scratch_and_not_in_a_loop(wish, ending, ends):
    left = told(ControlConfig(ending=ending), wish).by_bar[:, -1]
    n_bars = wish.bars or 16
    assert left[n_bars - 1] == (bars_left(np.array([0])) if ends else bars_left(np.array([99])))[0]
    assert left[0] == (bars_left(np.array([n_bars - 1])) if ends else bars_left(np.array([99])))[0]


def test_a_prompt_is_estimated_and_what_it_lacks_is_unknown():
    drums = PROMPT[VOCABULARY.part_of_id[PROMPT[:, PITCH_INSTRUMENT]] == 0]
    after = told(prompt=drums)
    assert after.by_bar[5, sheet_columns("drums")][PLAYS] == 2
    assert (after.by_bar[5, sheet_columns("bass")] == UNKNOWN).all()


DRUMS_TO_BASS = Wish(given=("bass",), make=("drums",))


def test_a_part_made_beside_given_ones_is_told_to_play_as_one_of_a_song_like_them():
    songs = {told(prompt=PROMPT, wish=DRUMS_TO_BASS, seed=seed).by_bar.tobytes() for seed in range(20)}
    assert len(songs) > 2
    given = told(prompt=PROMPT, wish=DRUMS_TO_BASS)
    assert given.by_bar[0, sheet_columns("bass")][PLAYS] == 2
    drums = given.by_bar[0, sheet_columns("drums")]
    assert drums.tolist() in TABLE.sheets[:, sheet_columns("drums")].tolist()
    assert (given.by_bar[0, sheet_columns("piano")] == 1).all()  # neither given nor made
    said = told(ControlConfig(density={"drums": "8"}), prompt=PROMPT, wish=DRUMS_TO_BASS)
    assert said.by_bar[0, sheet_columns("drums")][DENSITY] == 9


def test_of_the_songs_those_are_told_whose_other_parts_play_most_like_the_given_ones(monkeypatch):
    monkeypatch.setattr(telling, "N_ALIKE", 1)
    task, config = task_of(wish=DRUMS_TO_BASS, prompt=PROMPT)
    bass = told(prompt=PROMPT, wish=DRUMS_TO_BASS).by_bar[0, sheet_columns("bass")]
    for like in range(len(SONGS)):
        sheets = TABLE.sheets.copy()
        sheets[:, sheet_columns("drums").start + DENSITY] = 2 + np.arange(len(SONGS))
        sheets[like, sheet_columns("bass")] = bass
        sheets[np.arange(len(SONGS)) != like, sheet_columns("bass").start + RETURNS_8] = bass[RETURNS_8] + 1
        beside = tell(task, config, SheetTable(LEVELS, sheets), 0)
        assert beside.by_bar[0, sheet_columns("drums")][DENSITY] == 2 + like


def test_what_rests_in_most_bars_is_told_only_if_no_song_has_it_otherwise():
    sheets = TABLE.sheets.copy()
    sheets[:, sheet_columns("drums").start + RESTS] = [5, 5, 4, 3, 2, 5]
    task, config = task_of(wish=DRUMS_TO_BASS, prompt=PROMPT)
    for table, rests in ((sheets, {2, 3}), (sheets[:3], {4, 5})):
        found = {int(tell(task, config, SheetTable(LEVELS, table), seed).by_bar[0, sheet_columns("drums")][RESTS])
                 for seed in range(20)}
        assert found == rests


def test_a_part_that_plays_in_no_song_stays_unknown():
    sheets = TABLE.sheets.copy()
    sheets[:, sheet_columns("drums")] = 1
    beside = tell(*task_of(wish=DRUMS_TO_BASS, prompt=PROMPT), SheetTable(LEVELS, sheets), 0)
    assert (beside.by_bar[0, sheet_columns("drums")] == UNKNOWN).all()


def test_a_part_made_beside_given_ones_is_unknown_where_nothing_is_to_be_drawn():
    task, config = task_of(wish=DRUMS_TO_BASS, prompt=PROMPT)
    for off in (dataclasses.replace(config, tell_made=False),
                dataclasses.replace(config, controls=ControlConfig(draw=False))):
        assert (tell(task, off, TABLE, 0).by_bar[0, sheet_columns("drums")] == UNKNOWN).all()


def test_each_of_several_parts_made_beside_given_ones_is_told_to_play():
    random = np.random.default_rng(0)
    sheets = random.integers(2, 7, (60, key_column(BAND) + 1)).astype(np.uint8)
    for p in range(len(BAND.parts)):
        columns = slice(p * N_PART_FIELDS, (p + 1) * N_PART_FIELDS)
        sheets[:, columns.start + PLAYS] = 2
        sheets[p::len(BAND.parts), columns] = 1  # in no song all parts play
    table = SheetTable(measure_levels([random_song(0, vocabulary=BAND)], BAND), sheets)
    prompt = random_song(1, 80, n_bars=4, vocabulary=BAND)
    task = make_task(Wish(given=("drums",)), prompt, BAND, GenConfig())
    found = {tell(task, GenConfig(), table, seed).by_bar[0, :-1].tobytes() for seed in range(30)}
    assert len(found) == 30
    for sheet in found:
        plays = np.frombuffer(sheet, np.uint8)[PLAYS:key_column(BAND):N_PART_FIELDS]
        assert (plays == 2).all()


@pytest.mark.parametrize("make", [(), ("drums",)])
def test_bars_in_the_middle_are_told_nothing_of_other_songs_even_if_they_are_the_first(make):
    filled = told(prompt=PROMPT, wish=Wish(fill=(1, 2), make=make)).by_bar[0]
    made = make or VOCABULARY.part_names
    assert all((filled[sheet_columns(part)] == UNKNOWN).all() for part in made)


def test_a_fill_counts_the_bars_to_its_end():
    filled = told(prompt=PROMPT, wish=Wish(fill=(2, 3)))
    assert filled.by_bar[:3, -1].tolist() == bars_left(np.array([2, 1, 0])).tolist()


def test_chords_repeat_from_the_first_new_bar_on():
    after = told(ControlConfig(chords="Am F:.5 C:.5"), prompt=PROMPT, wish=Wish(bars=5))
    n_before = int(PROMPT[-1, BAR]) - FIRST_ID + 1
    names = [chord_name(row) for row in after.by_half_bar[:HALVES_PER_BAR * (n_before + 5)]]
    assert names == ["?"] * (2 * n_before) + ["Am", "Am", "F", "C"] * 2 + ["Am", "Am"]
    chord = parse_chords("F").chords[0]
    assert np.array_equal(after.chord_at(FIRST_ID + n_before + 1, FIRST_ID, VOCABULARY), chord)
    assert not np.array_equal(after.chord_at(FIRST_ID + n_before + 1, FIRST_ID + 16, VOCABULARY), chord)
    assert (after.chord_at(2, 2, VOCABULARY) == UNKNOWN).all()


def test_the_key_is_told_and_chords_speak_for_a_key_of_their_own():
    assert told(key="A", scale="minor").by_bar[0, key_column(VOCABULARY)] == 2 + 9 * 2 + 1
    assert told(key="A", scale="mixolydian").by_bar[0, key_column(VOCABULARY)] == 2 + 9 * 2
    assert told(ControlConfig(chords="Am F")).by_bar[0, key_column(VOCABULARY)] == UNKNOWN


def test_under_a_key_the_notes_of_a_chord_are_allowed_in_its_half_bars_alone():
    task, _ = task_of(ControlConfig(chords="C E7"), key="C")
    gis = [i for i in range(VOCABULARY.sizes[PITCH_INSTRUMENT])
           if VOCABULARY.part_of_id[i] > 0 and VOCABULARY.pitch_of_id[i] % 12 == 8]
    drums = [i for i in range(VOCABULARY.sizes[PITCH_INSTRUMENT]) if VOCABULARY.part_of_id[i] == 0]
    spans = task.rules.time_spans(dataclasses.replace(_nothing(), time=0))
    for begin, end, pitches, _ in spans:
        is_e7 = begin // 32 % 2 == 1
        assert begin // 16 == (end - 1) // 16
        assert pitches[gis].all() == is_e7 and pitches[gis].any() == is_e7
        assert begin == 0 or pitches[drums].all()


def _nothing():
    from backline.generation.rules import History

    return History.nothing(VOCABULARY)


@pytest.mark.parametrize(("controls", "wish", "prompt", "text"), [
    (ControlConfig(density={"bass": "3"}), Wish(make=("drums",)), NONE, "a density for bass, which is not made"),
    (ControlConfig(rests={"bass": "3"}), Wish(make=("drums",)), NONE, "^rests for bass, which is not made"),
    (ControlConfig(density={"harp": "3"}), Wish(), NONE, "no part 'harp'; give one of drums, bass, piano"),
    (ControlConfig(chords="Am"), Wish(make=("drums",)), NONE, "--chords: are for all parts but drums"),
    (ControlConfig(ending="yes"), Wish(), PROMPT, "--ending yes: say with --bars how many new bars there are"),
    (ControlConfig(ending="yes"), Wish(fill=(1, 2)), PROMPT, "--ending yes: bars in the middle lead to what comes"),
])
def test_controls_that_cannot_be(controls, wish, prompt, text):
    with pytest.raises(UserError, match=text):
        task, config = task_of(controls, wish, prompt)
        check_controls(config, task)


def test_a_chord_outside_the_key_and_one_that_is_read_as_another_have_a_line():
    task, config = task_of(ControlConfig(chords="C E7 G13"), key="C")
    lines = check_controls(config, task)
    assert any("E7" in line and "C major" in line for line in lines)
    assert any("G13" in line for line in lines)


def test_many_chords_outside_the_key_have_one_line():
    task, config = task_of(ControlConfig(chords="Cm Db Eb Fm Gb Ab Bbm B"), key="C")
    assert check_controls(config, task) == [
        "Cm, Db, Eb, Fm, F#, Ab and 2 more have notes outside C major; they are allowed while each sounds"]
    task, config = task_of(ControlConfig(chords="C Cm F Fm C"), key="C")
    assert check_controls(config, task) == ["Cm and Fm have notes outside C major; they are allowed while each sounds"]


def test_a_model_without_controls_is_not_led_to_an_end_anyway():
    assert ControlConfig(ending="yes").told == ["--ending"]
    assert ControlConfig(ending="no").told == []


def test_an_unknown_ending_is_an_error():
    with pytest.raises(UserError, match="ending='maybe' must be yes or no"):
        ControlConfig(ending="maybe")


def test_what_was_told_is_said_of_the_parts_that_are_made():
    task, config = task_of(wish=Wish(make=("bass",)))
    said = describe_told(tell(task, config, TABLE, 0), task)
    assert "bass" in said and "drums" not in said
    assert describe_told(nothing_told(VOCABULARY), task) == ""


def test_rests_and_repeats_are_told_and_the_nearest_song_is_drawn():
    asked = ControlConfig(rests={"bass": "often"}, repeats={"drums": "exactly", "bass": "1"})
    sheet = told(asked).by_bar[0]
    assert sheet[sheet_columns("bass")][RESTS] == FIRST_VALUE + 2
    for part, level in (("drums", 3), ("bass", 0)):
        returns = sheet[sheet_columns(part)][[RETURNS_4, RETURNS_8]]
        assert (returns == FIRST_VALUE + level).all()
    only = told(dataclasses.replace(asked, draw=False)).by_bar[0]
    assert only[sheet_columns("drums")].tolist() == [FIRST_VALUE, 0, 0, FIRST_VALUE + 3, FIRST_VALUE + 3]
    assert (only[sheet_columns("piano")] == UNKNOWN).all()
    rests = TABLE.sheets[:, sheet_columns("piano").start + RESTS].astype(int)
    for seed, level in enumerate(set((rests - FIRST_VALUE).tolist())):
        drawn = told(ControlConfig(rests={"piano": str(level + 1)}), seed=seed).by_bar[0, :-1]
        assert drawn.tolist() in TABLE.sheets[rests == FIRST_VALUE + level].tolist()


def test_recipes_leave_out_controls_that_earlier_versions_did_not_know():
    said = dataclasses.replace(PLAIN_RECIPE, genconfig=GenConfig(controls=ControlConfig(rests={"bass": "often"})))
    data = recipe_to_dict(said)
    assert data["genconfig"]["controls"]["rests"] == {"bass": "often"}
    assert "repeats" not in data["genconfig"]["controls"]
    assert recipe_from_dict(data, "x") == said


def test_recipes_leave_out_controls_of_which_nothing_is_said():
    assert "controls" not in recipe_to_dict(PLAIN_RECIPE)["genconfig"]
    said = dataclasses.replace(PLAIN_RECIPE, genconfig=GenConfig(controls=ControlConfig(chords="Am")))
    assert recipe_to_dict(said)["genconfig"]["controls"]["chords"] == "Am"


@pytest.mark.parametrize("cached", [True, False])
def test_songs_follow_what_they_are_told_each_its_own(cached):
    torch.manual_seed(0)
    model = PooledTransformer(ModelConfig.for_vocabulary(
        VOCABULARY, emb_sizes=(8,) * 4, n_layers=2, n_heads=2, d_model=16, block_size=16, dropout=0.0, heads="gru",
        positions="metre", late_layers=1, given=True, bars="relative", controls=True)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    task, config = task_of(ControlConfig(draw=False), Wish(bars=4))
    config = dataclasses.replace(config, max_steps=40)
    asked = [nothing_told(VOCABULARY), told(seed=1), told(ControlConfig(draw=False, chords="C F"), Wish(bars=4))]
    requests = [Request(task.rules, 5, told=each) for each in asked]
    together = sample_songs(TorchPlayer(model), requests, config, cached)
    alone = [sample_songs(TorchPlayer(model), [request], config, cached=True)[0] for request in requests]
    for one, other in zip(together, alone, strict=True):
        assert np.array_equal(one.notes, other.notes)
    assert len({song.notes.tobytes() for song in together}) == 3


# ---------------------------------------------------------------- the pull of the key


def test_pitches_outside_the_key_told_are_less_likely_from_scratch():
    task, config = task_of()
    config = dataclasses.replace(config, key_pull=3.0)
    song = tell(task, config, TABLE, 3)
    song.by_bar[:, key_column(VOCABULARY)] = FIRST_VALUE  # C major
    pull = song.pull(VOCABULARY)
    drums = VOCABULARY.part_names.index("drums")
    for id_ in range(FIRST_ID, VOCABULARY.sizes[PITCH_INSTRUMENT]):
        outside = VOCABULARY.pitch_of_id[id_] % 12 in (1, 3, 6, 8, 10) and VOCABULARY.part_of_id[id_] != drums
        assert pull[id_] == pytest.approx(-np.log(3) if outside else 0)
    assert not pull[:FIRST_ID].any(), "an end is as likely as before"


def test_no_key_and_no_pull_change_nothing():
    task, config = task_of()
    plain = tell(task, dataclasses.replace(config, key_pull=1.0), TABLE, 3)
    assert plain.pull(VOCABULARY) is None, "a pull of 1"
    song = tell(task, dataclasses.replace(config, key_pull=3.0), TABLE, 3)
    song.by_bar[:, key_column(VOCABULARY)] = UNKNOWN
    assert song.pull(VOCABULARY) is None
    assert nothing_told(VOCABULARY).pull(VOCABULARY) is None
    after = tell(*_pulled(PROMPT), TABLE, 3)
    assert after.pull(VOCABULARY) is None, "a prompt says by itself what it wants"


def _pulled(prompt):
    task, config = task_of(wish=Wish(bars=2), prompt=prompt)
    return task, dataclasses.replace(config, key_pull=3.0)


@pytest.mark.parametrize("value", [0, 0.5, float("inf"), float("nan")])
def test_a_pull_is_at_least_1(value):
    with pytest.raises(UserError, match="key_pull"):
        GenConfig(key_pull=value)
