"""Tasks: what of the prompt the model is told, what it makes, and that all that is kept comes back exactly."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from masks import mask
from random_songs import random_song

from backline.common.errors import UserError
from backline.generation.config import ControlConfig, GenConfig, RuleConfig
from backline.generation.rules import History
from backline.generation.task import NOTES_PER_BAR, Task, ends_soon, lacking_parts, make_task, told_chords
from backline.generation.wish import Wish, bars_text, fill_text, parse_bars
from backline.music.chords import UNKNOWN, parse_chords
from backline.music.rows import parts_of
from backline.music.vocab import BAR, EOS, FIRST_ID, NOTE_DUR, PITCH_INSTRUMENT, START_POS, load_vocabulary

VOCABULARY = load_vocabulary()
PARTS = VOCABULARY.part_names
STEPS = VOCABULARY.steps_per_bar
CONFIG = GenConfig(num_bars=6)
SONG = random_song(0, 60, 5)  # five bars, all parts in each
NOTHING = SONG[:0]


def part_names(rows: np.ndarray) -> list[str]:
    return [PARTS[part] for part in VOCABULARY.part_of_id[rows[:, PITCH_INSTRUMENT]]]


def only(rows: np.ndarray, *parts: str) -> np.ndarray:
    return rows[[name in parts for name in part_names(rows)]]


def in_bars(rows: np.ndarray, first: int, last: int) -> np.ndarray:
    """(N,) bool: the notes in bars from 1, as people count them."""
    return (rows[:, BAR] >= FIRST_ID + first - 1) & (rows[:, BAR] <= FIRST_ID + last - 1)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.tolist() == b.tolist()


def task_of(prompt: np.ndarray = SONG, config: GenConfig = CONFIG, **wish) -> Task:
    return make_task(Wish(**wish), prompt, VOCABULARY, config)


def bars_made(task: Task) -> tuple[int, int]:
    """The first and the last bar, from 1, in which notes are made."""
    return task.rules.first // STEPS + 1, task.rules.end // STEPS


def parts_made(task: Task) -> tuple[str, ...]:
    ids = np.flatnonzero(task.rules.pitches)
    assert task.made == tuple(name for p, name in enumerate(PARTS) if p in VOCABULARY.part_of_id[ids])
    return task.made


def longest_at_the_end(task: Task) -> int:
    """How many steps a note may last that begins with the last step of the last bar."""
    at = {BAR: task.rules.last_bar_id, START_POS: FIRST_ID + STEPS - 1}
    spans = task.rules.time_spans(History.nothing(VOCABULARY).after([FIRST_ID] * 4, VOCABULARY))
    return int(np.flatnonzero(mask(task.rules, NOTE_DUR, at, spans, may_end=False))[-1]) - FIRST_ID + 1


def error_of(**wish) -> str:
    prompt = wish.pop("prompt", SONG)
    with pytest.raises(UserError) as error:
        task_of(prompt, **wish)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---------------------------------------------------------------- what people type


@pytest.mark.parametrize(("text", "bars"), [("5-8", (5, 8)), ("5", (5, 5)), (" 2-2 ", (2, 2)), ("1-256", (1, 256)),
                                            ("2,5-8", (2, 2, 5, 8)), ("1, 2,4", (1, 2, 4, 4)), ("3-4,5", (3, 5))])
def test_bars(text, bars):
    assert parse_bars(text) == bars


@pytest.mark.parametrize("text", ["", "x", "-", "0", "0-3", "4-3", "-2", "2-", "1-2-3", "1,", "2,1", "3,3", "1-4,2",
                                  "1.5", "+1", "9" * 5000])
def test_bars_that_are_none(text):
    with pytest.raises(UserError, match=r"^--fill .*from 1"):
        parse_bars(text)


@pytest.mark.parametrize(("wish", "message"), [
    ({"given": ("bass", "piano"), "make": ("piano", "drums")}, "^piano is both"),
    ({"given": ("bass",), "fill": (1, 2)}, "^--fill keeps all"),
    ({"bars": 2, "given": ("bass",)}, "^--bars is for new bars"), ({"bars": 2, "fill": (1, 2)}, "^--bars is for new"),
    ({"bars": -1}, "at least 1"), ({"loop": True}, "^--loop: .* --bars"), ({"loop": True, "make": ("bass",)}, "--bars"),
    ({"fill": (3,)}, "first and the last"), ({"fill": (3, 2)}, "first and the last"),
    ({"fill": ("a", "b")}, "first and the last"), ({"fill": (1.5, 2)}, "first and the last"),
    ({"fill": (0, 2)}, "from 1"), ({"fill": (1, 2, 3)}, "first and the last")])
def test_wishes_that_contradict_themselves(wish, message):
    with pytest.raises(UserError, match=message) as error:
        Wish(**wish)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("wish", [{"bars": 2, "loop": True}, {"given": ("bass",), "loop": True},
                                  {"fill": (1, 2), "loop": True}, {"fill": (2, 2), "make": ("bass",)}])
def test_wishes_that_make_sense(wish):
    assert Wish(**wish).needs_given == ("bars" not in wish)


# ---------------------------------------------------------------- from scratch and after a prompt


def test_from_scratch():
    task = task_of(NOTHING)
    assert not len(task.prompt) and not len(task.given) and not len(task.kept) and task.dropped == ()
    assert bars_made(task) == (1, CONFIG.num_bars) and parts_made(task) == PARTS
    assert task.rules.exact and task.rules.at_once and task.n_bars == CONFIG.num_bars
    assert task.max_steps >= CONFIG.num_bars * NOTES_PER_BAR
    free = task_of(NOTHING, dataclasses.replace(CONFIG, all_bars=False, start_at_once=False))
    assert not free.rules.exact and not free.rules.at_once and free.n_bars == 0


def test_after_a_prompt():
    task = task_of()
    assert same(task.prompt, SONG) and same(task.kept, SONG) and not len(task.given) and task.dropped == ()
    assert bars_made(task)[1] == 5 + CONFIG.num_bars and parts_made(task) == PARTS
    assert task.n_bars == 0 and not task.rules.exact and not task.rules.at_once


@pytest.mark.parametrize("prompt", [NOTHING, SONG], ids=["scratch", "prompt"])
@pytest.mark.parametrize("loop", [False, True])
def test_exactly_so_many_bars(prompt, loop):
    task = task_of(prompt, bars=9, loop=loop)
    begun = 5 if len(prompt) else 0
    assert task.rules.exact and bars_made(task)[1] == task.n_bars == begun + 9
    assert longest_at_the_end(task) == (1 if loop else VOCABULARY.max_duration_steps)
    assert task.max_steps == 9 * NOTES_PER_BAR
    assert task.rules.at_once == (not len(prompt))


@pytest.mark.parametrize(("wish", "n_bars"), [({"bars": 9}, 9), ({"given": ("bass",)}, 5), ({"fill": (2, 3)}, 2)])
def test_most_notes(wish, n_bars):
    """`max_steps` counts everywhere, or, as in songs of before, only where it is not said how many bars there are."""
    for most in (7, 5000):
        assert task_of(config=GenConfig(max_steps=most), **wish).max_steps == most
        before = GenConfig(max_steps=most, whole_bars=False)
        assert task_of(config=before, **wish).max_steps == max(most, n_bars * NOTES_PER_BAR)
        assert task_of(config=before).max_steps == task_of(NOTHING, before).max_steps == most


def test_bars_left_of_a_song_that_is_cut():
    bar_6 = FIRST_ID + 5
    assert task_of(NOTHING).n_new_bars(bar_6) == 5
    assert task_of().n_new_bars(bar_6) == 0 and task_of().n_new_bars(bar_6 + 2) == 2  # after a prompt of five
    assert task_of().n_new_bars(bar_6 - 1) == 0  # within its last bar
    assert task_of(given=("bass",)).n_new_bars(bar_6 - 1) == 4
    assert task_of(fill=(3, 5)).n_new_bars(bar_6 - 1) == 2


# ---------------------------------------------------------------- songs that are rejected


def bars_of(**parts: int) -> np.ndarray:
    """(N, F) rows: a note of each part in so many first bars."""
    first_ids = dict(zip(PARTS, VOCABULARY.first_pitch_ids, strict=True))
    rows = [[FIRST_ID + bar, FIRST_ID, FIRST_ID, first_ids[name]] for name, n in parts.items() for bar in range(n)]
    return np.array(sorted(rows))


def lacking(new: np.ndarray, prompt: np.ndarray = NOTHING, config: GenConfig = CONFIG, **wish) -> tuple[str, ...]:
    return lacking_parts(Wish(**wish), task_of(prompt, config, **wish), config, new)


def test_from_scratch_each_part_plays_in_a_quarter_of_the_bars():
    assert lacking(bars_of(drums=16, bass=4, piano=5)) == ()
    assert lacking(bars_of(drums=16, bass=3, piano=4)) == ("bass",)
    assert lacking(bars_of(drums=17, bass=4)) == ("bass", "piano")
    assert lacking(bars_of(drums=16, bass=3), make=("drums", "bass")) == ("bass",)
    assert lacking(bars_of(drums=16, bass=4), bars=16, make=("drums", "bass")) == ()


def test_without_all_parts_only_what_is_named_must_play_and_a_note_is_enough():
    config = dataclasses.replace(CONFIG, all_parts=False)
    assert lacking(bars_of(drums=16), config=config) == ()
    assert lacking(bars_of(drums=16, bass=1), config=config, make=PARTS) == ("piano",)


def test_after_a_prompt_parts_may_rest_unless_they_are_named():
    assert lacking(bars_of(drums=1), SONG) == lacking(bars_of(drums=1), SONG, fill=(2, 3)) == ()
    drums = only(SONG, "drums")
    assert lacking(bars_of(bass=1), drums, make=("bass", "piano")) == ("piano",)
    assert lacking(bars_of(bass=1), drums, given=("drums",)) == ("piano",)


def test_of_a_vocabulary_of_many_parts_those_must_play_that_the_song_is_told_to_have():
    parts = [{"name": name, "is_drum": False, "program": 0, "accepts": [], "lowest_pitch": 60, "highest_pitch": 61}
             for name in "abcde"]
    for n, expected in ((4, ("b", "c", "d")), (5, ())):
        vocabulary = load_vocabulary({"format": "pooled-vocabulary", "version": 1, "bars": 8, "steps_per_bar": 4,
                                      "max_duration_steps": 4, "parts": parts[:n]})
        task = make_task(Wish(), NOTHING, vocabulary, CONFIG)
        first = np.full((1, 4), FIRST_ID)
        assert lacking_parts(Wish(), task, CONFIG, first) == expected
        assert lacking_parts(Wish(), task, CONFIG, first, playing=("a", "d")) == (expected or ("d",))
        wish = Wish(make=("a", "b"))
        named = make_task(wish, NOTHING, vocabulary, CONFIG)
        assert lacking_parts(wish, named, CONFIG, first, playing=("a", "d")) == ("b",)


@pytest.mark.parametrize(("n_bars", "config", "wish", "soon"), [
    (0, CONFIG, {}, True), (2, CONFIG, {}, True), (3, CONFIG, {}, False),
    (2, dataclasses.replace(CONFIG, go_on=False), {}, False), (2, GenConfig(num_bars=2), {}, False),
    (2, CONFIG, {"bars": 2}, False), (0, CONFIG, {"fill": (1, 5)}, False), (0, CONFIG, {"given": ("bass",)}, False)])
def test_a_song_that_soon_ends(n_bars, config, wish, soon):
    new = SONG[-1:] + np.array([[n_bars, 0, 0, 0]])
    assert ends_soon(Wish(**wish), task_of(config=config, **wish), config, new) == soon


def test_a_song_that_must_end_soon_may():
    late = SONG + np.array([VOCABULARY.bars - 7, 0, 0, 0])  # two bars are left
    assert not ends_soon(Wish(), task_of(late), CONFIG, late[-1:])


def test_no_more_bars_than_the_vocabulary_has():
    late = SONG + np.array([VOCABULARY.bars - 8, 0, 0, 0])  # its last bar is the third from the end
    assert bars_made(task_of(late))[1] == VOCABULARY.bars
    assert bars_made(task_of(late, bars=3))[1] == VOCABULARY.bars
    assert "3 bars are left" in error_of(prompt=late, bars=4)
    assert task_of(NOTHING, bars=VOCABULARY.bars).n_bars == VOCABULARY.bars
    assert "--bars 257" in error_of(prompt=NOTHING, bars=VOCABULARY.bars + 1)


@pytest.mark.parametrize("prompt", [NOTHING, SONG], ids=["scratch", "prompt"])
def test_only_some_parts(prompt):
    task = task_of(prompt, make=("drums", "piano"))
    assert parts_made(task) == ("drums", "piano") and same(task.kept, prompt)


# ---------------------------------------------------------------- parts for given ones


@pytest.mark.parametrize(("given_parts", "make", "made", "dropped"), [
    (("bass", "piano"), ("drums",), ("drums",), ("drums",)), (("bass", "piano"), (), ("drums",), ("drums",)),
    (("drums",), (), ("bass", "piano"), ("bass", "piano")), (("drums",), ("bass",), ("bass",), ("bass", "piano")),
    (("piano",), ("drums",), ("drums",), ("drums", "bass"))])
def test_parts_for_given_ones(given_parts, make, made, dropped):
    task = task_of(given=given_parts, make=make)
    assert not len(task.prompt)
    assert same(task.given, only(SONG, *given_parts)) and same(task.kept, task.given)
    assert parts_made(task) == made and task.dropped == dropped
    assert bars_made(task) == (1, 5) and task.rules.sounding_bars == frozenset(range(5))


def test_the_song_is_as_long_as_what_is_given():
    short = SONG[(SONG[:, BAR] < FIRST_ID + 2) | (np.array(part_names(SONG)) == "drums")]
    task = task_of(short, given=("bass",))
    assert bars_made(task) == (1, 2) and task.n_bars == 0
    assert task.max_steps == 2 * NOTES_PER_BAR
    looped = task_of(short, given=("bass",), loop=True)
    assert looped.n_bars == 2 and longest_at_the_end(looped) == 1


def test_parts_that_are_not_in_the_prompt_or_leave_none():
    no_bass = only(SONG, "drums", "piano")
    assert "the prompt has no bass; it has drums, piano" in error_of(prompt=no_bass, given=("bass",))
    assert "names all parts" in error_of(given=PARTS)
    assert task_of(no_bass, given=("drums",)).dropped == ("piano",)
    assert "--given needs a song" in error_of(prompt=NOTHING, given=("bass",))


# ---------------------------------------------------------------- bars in the middle


@pytest.mark.parametrize(("first", "last"), [(1, 1), (1, 5), (2, 3), (4, 5), (5, 5)])
@pytest.mark.parametrize("make", [(), ("bass",), ("drums", "piano")])
def test_bars_filled(first, last, make):
    task = task_of(fill=(first, last), make=make)
    removed = in_bars(SONG, first, last) & np.isin(part_names(SONG), make or PARTS)
    assert same(task.kept, SONG[~removed])
    assert same(task.prompt, SONG[in_bars(SONG, 0, first - 1)])
    assert same(task.given, SONG[~removed & ~in_bars(SONG, 0, first - 1)])
    assert bars_made(task) == (first, last) and parts_made(task) == (make or PARTS)
    assert same(task.song(SONG[removed]), SONG)
    assert task.max_steps == (last - first + 1) * NOTES_PER_BAR and task.dropped == () and task.n_bars == 0


@pytest.mark.parametrize("make", [(), ("bass",)])
def test_stretches_filled(make):
    task = task_of(fill=(1, 1, 3, 3, 5, 5), make=make)
    anew = in_bars(SONG, 1, 1) | in_bars(SONG, 3, 3) | in_bars(SONG, 5, 5)
    removed = anew & np.isin(part_names(SONG), make or PARTS)
    assert same(task.kept, SONG[~removed]) and same(task.song(SONG[removed]), SONG)
    assert bars_made(task) == (1, 5) and task.max_steps == 3 * NOTES_PER_BAR
    spans = task.rules.time_spans(History.nothing(VOCABULARY))
    assert {time // STEPS for span in spans for time in range(span.begin, span.end)} == {0, 2, 4}
    allowed = np.flatnonzero(mask(task.rules, BAR, {}, spans, may_end=True)).tolist()
    assert allowed == [EOS, FIRST_ID, FIRST_ID + 2, FIRST_ID + 4]


def test_chords_go_to_the_bars_that_are_made_and_skip_those_between():
    config = GenConfig(controls=ControlConfig(chords="Am F C"))
    task = make_task(Wish(fill=(2, 2, 4, 5)), SONG, VOCABULARY, config)
    told = told_chords(config, task.first_bar, 5, task.rules.kept_bars)
    am, f, c = parse_chords("Am F C").chords[::2]
    assert told[::2].tolist() == told[1::2].tolist() \
        == [[UNKNOWN] * 3, am.tolist(), [UNKNOWN] * 3, f.tolist(), c.tolist()]


@pytest.mark.parametrize(("fill", "text"), [((3, 3), "bar 3"), ((5, 8), "bars 5-8"), ((2, 2, 5, 8), "bars 2, 5-8")])
def test_bars_as_people_write_them(fill, text):
    assert bars_text(fill) == text and parse_bars(fill_text(fill)) == fill


def test_a_fill_makes_the_parts_that_the_song_has_or_others_that_are_named():
    no_bass = only(SONG, "drums", "piano")
    assert parts_made(task_of(no_bass, fill=(2, 3))) == ("drums", "piano")
    task = task_of(no_bass, fill=(2, 3), make=("bass",))
    assert parts_made(task) == ("bass",) and same(task.kept, no_bass)


def test_a_fill_that_does_not_ring_on():
    task = task_of(fill=(2, 3), loop=True)
    assert longest_at_the_end(task) == 1 and task.n_bars == 5
    assert longest_at_the_end(task_of(fill=(2, 3))) == VOCABULARY.max_duration_steps


@pytest.mark.parametrize("fill", [(5, 6), (6, 6), (300, 400)])
def test_bars_outside_the_song(fill):
    message = error_of(fill=fill)
    assert f"--fill {fill_text(fill)}: the song has 5 bars" in message
    assert "--fill needs a song" in error_of(prompt=NOTHING, fill=fill)


# ---------------------------------------------------------------- all tasks


def test_rules_reach_every_task():
    config = dataclasses.replace(CONFIG, rules=RuleConfig(key="C", monophonic=("bass",)))
    for wish in ({}, {"bars": 2}, {"given": ("drums",)}, {"fill": (2, 3)}):
        rules = task_of(config=config, **wish).rules
        pitches = VOCABULARY.pitch_of_id[only(np.array([[0, 0, 0, i] for i in np.flatnonzero(rules.pitches)]),
                                              "bass", "piano")[:, PITCH_INSTRUMENT]]
        assert set(pitches % 12) == {0, 2, 4, 5, 7, 9, 11}
        assert [PARTS[p] for p in rules.monophonic] == ["bass"]


some_songs = st.builds(random_song, st.integers(0, 10**6), n_notes=st.integers(1, 40), n_bars=st.integers(1, 8))
some_parts = st.lists(st.sampled_from(PARTS), unique=True).map(lambda names: tuple(p for p in PARTS if p in names))


@given(song=some_songs, data=st.data())
def test_every_kept_note_comes_back_exactly_and_in_order_among_new_ones(song, data):
    """The part of a song that a task makes anew is put back: nothing else has changed."""
    kind = data.draw(st.sampled_from(("continue", "given", "fill")))
    n_bars = int(song[-1, BAR]) - FIRST_ID + 1
    if kind == "continue":
        known = np.arange(len(song)) < data.draw(st.integers(0, len(song)))
        task, kept, left_out = task_of(song[known]), known, []
    elif kind == "given":
        given_parts, make = data.draw(some_parts), data.draw(some_parts)
        assume(given_parts and set(given_parts) <= set(parts_of(song, VOCABULARY)) and set(given_parts) != set(PARTS))
        make = tuple(name for name in make if name not in given_parts)
        task = task_of(song, given=given_parts, make=make)
        kept = np.isin(part_names(song), given_parts)
        left_out = set(PARTS) - set(given_parts) - set(make) if make else []
        assert set(task.dropped) == set(parts_of(song, VOCABULARY)) - set(given_parts)
    else:
        first = data.draw(st.integers(1, n_bars))
        fill, make = (first, data.draw(st.integers(first, n_bars))), data.draw(some_parts)
        task, left_out = task_of(song, fill=fill, make=make), []
        kept = ~(in_bars(song, *fill) & np.isin(part_names(song), make or PARTS))
    new = ~kept & ~np.isin(part_names(song), list(left_out))
    assert same(task.kept, song[kept])
    assert sorted([*task.prompt.tolist(), *task.given.tolist()]) == sorted(task.kept.tolist())
    assert same(task.song(song[new]), song[kept | new])
    assert same(task.song(NOTHING), song[kept])
    begin, end = bars_made(task)
    if kind != "given":  # there the song is as long as what is given
        assert in_bars(song[new], begin, end).all()
