"""Rules: masks agree with trying all notes, songs keep every rule and never meet a dead end, and clear errors."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import math
import random
from collections import Counter
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from masks import mask

from backline.common.errors import UserError
from backline.common.settings import config_from_dict, config_to_dict
from backline.generation.config import GenConfig, RuleConfig
from backline.generation.rules import BEFORE_ALL, History, Passage, Rules, allowed_pitches, onset
from backline.music.vocab import BAR, EOS, FIRST_ID, NOTE_DUR, PITCH_INSTRUMENT, START_POS, Vocabulary, load_vocabulary

Row = tuple[int, ...]

STEPS, LONGEST = 4, 6  # per bar, and of a note: it can ring on through all of the next bar
RANGES = {"drums": (36, 37), "bass": (47, 48), "piano": (60, 62)}
PLAYED = [(part, pitch) for part, (low, high) in RANGES.items() for pitch in range(low, high + 1)]  # in order of ids
ORDERS = list(itertools.permutations((BAR, START_POS, NOTE_DUR, PITCH_INSTRUMENT)))
# Written out, so that they do not come from theory.py.
PITCH_TEXTS = {"0-127": set(range(128)), "36": {36}, "kick": {35, 36}, "rim, 48-60": {37, *range(48, 61)},
               "47 61-62": {47, 61, 62}}
KEYS = {("", "major"): set(range(12)), ("C", "major"): {0, 2, 4, 5, 7, 9, 11},
        ("Db", "major"): {1, 3, 5, 6, 8, 10, 0}, ("E", "major_pentatonic"): {4, 6, 8, 11, 1},
        ("F#", "chromatic"): set(range(12)), ("G#", "major_pentatonic"): {8, 10, 0, 3, 5}}


@functools.cache
def small_vocabulary(bars: int = 3) -> Vocabulary:
    return load_vocabulary({
        "format": "pooled-vocabulary", "version": 1, "bars": bars, "steps_per_bar": STEPS,
        "max_duration_steps": LONGEST,
        "parts": [{"name": name, "is_drum": name == "drums", "program": 0, "accepts": [], "lowest_pitch": low,
                   "highest_pitch": high} for name, (low, high) in RANGES.items()]})


def row(bar: int, step: int, steps: int, part: str, pitch: int) -> Row:
    return FIRST_ID + bar, FIRST_ID + step, FIRST_ID + steps - 1, FIRST_ID + PLAYED.index((part, pitch))


# ---------------------------------------------------------------- the rules, told again


class Heard(NamedTuple):
    """A row of ids as it sounds; `begin` and `end` in steps from the beginning of bar 0."""

    key: tuple[int, int, int]  # the order of notes
    bar: int
    begin: int
    end: int
    part: str
    pitch: int


@functools.cache
def heard(note: Row) -> Heard:
    bar, step, steps, played = (id_ - FIRST_ID for id_ in note)
    begin = bar * STEPS + step
    return Heard((bar, step, played), bar, begin, begin + steps + 1, *PLAYED[played])


@dataclasses.dataclass(frozen=True)
class Case:
    """What `Rules` is made of."""

    config: RuleConfig
    bars: int = 3
    first_bar: int = 0
    end_bar: int = 3
    parts: tuple[str, ...] = ()
    exact: bool = False
    loop: bool = False
    at_once: bool = False
    given: tuple[Row, ...] = ()
    kept_bars: tuple[int, ...] = ()

    @property
    def made(self) -> set[str]:
        return set(self.parts or RANGES)

    @property
    def one_voice_each(self) -> bool:
        return self.made <= set(self.config.monophonic)

    @property
    def sounding_bars(self) -> set[int]:
        """Bars that have notes already, or get none."""
        return {heard(note).bar for note in self.given} | set(self.kept_bars)

    @functools.cached_property
    def playable(self) -> set[tuple[str, int]]:
        """The parts made and the pitches that each may play at all."""
        scale = KEYS[self.config.key, self.config.scale]
        return {(part, pitch) for part, pitch in PLAYED if part in self.made
                and (part not in self.config.pitches or pitch in PITCH_TEXTS[self.config.pitches[part]])
                and (part == "drums" or pitch % 12 in scale)}

    def rules(self) -> Rules:
        return Rules(small_vocabulary(self.bars), self.config, Passage(
            self.end_bar, first_bar=self.first_bar, parts=self.parts, exact=self.exact, loop=self.loop,
            at_once=self.at_once, kept_bars=self.kept_bars, given=np.array(self.given, np.int64).reshape(-1, 4)))


def may_follow(before: list[Row], new: Row, case: Case) -> bool:
    """Whether `new` is a valid next note; those before it may have broken rules, as a prompt may."""
    note, earlier, config = heard(new), [heard(old) for old in before], case.config
    own = [old for old in earlier if old.part == note.part]
    last_bar = max([case.first_bar, *(old.bar for old in earlier)])
    in_own_time = all(old.key < note.key for old in earlier) and case.first_bar <= note.bar < case.end_bar
    chord = sum(old.begin == note.begin for old in own)
    bar = sum(old.bar == note.bar for old in own)
    keeps = [
        in_own_time and note.bar not in case.kept_bars,
        (note.part, note.pitch) in case.playable,
        chord < config.max_chord.get(note.part, math.inf),
        bar < config.max_per_bar.get(note.part, math.inf),
        not case.loop or note.end <= case.end_bar * STEPS,
        not case.at_once or earlier or note.begin == case.first_bar * STEPS,
    ]
    if config.no_empty_bars:
        noted = {old.bar for old in earlier} | case.sounding_bars
        keeps.append(all(bar in noted for bar in range(last_bar, note.bar)))
    if note.part in config.monophonic:
        following = [heard(other).begin for other in case.given if heard(other).part == note.part]
        keeps.append(all(old.end <= note.begin for old in own))
        keeps.append(not any(note.begin < begin < note.end for begin in following))
    if case.one_voice_each and note.bar + 1 < case.end_bar:  # it leaves a step to the bars that must have notes
        if config.no_empty_bars:
            keeps.append(note.end < (note.bar + 2) * STEPS)
        if case.exact:
            keeps.append(note.end < case.end_bar * STEPS)
    return all(keeps)


def broken_rules(notes: list[Row], case: Case) -> list[str]:
    """The rules that a whole song breaks."""
    song, given, config = [heard(note) for note in notes], [heard(note) for note in case.given], case.config
    chords = Counter((note.part, note.begin) for note in song)
    bars = Counter((note.part, note.bar) for note in song)
    noted = {note.bar for note in song} | case.sounding_bars
    voices = [[note for note in song if note.part == part] for part in config.monophonic]
    last_bar = max((note.bar for note in song), default=case.first_bar)
    broken = {
        "order": any(a.key >= b.key for a, b in itertools.pairwise(song)),
        "bars": not all(case.first_bar <= note.bar < case.end_bar and note.bar not in case.kept_bars for note in song),
        "pitches": not all((note.part, note.pitch) in case.playable for note in song),
        "chords": any(n > config.max_chord.get(part, n) for (part, _), n in chords.items()),
        "per bar": any(n > config.max_per_bar.get(part, n) for (part, _), n in bars.items()),
        "monophonic": any(a.end > b.begin for voice in voices for a, b in itertools.pairwise(voice)),
        "given": any(note.begin < other.begin < note.end for voice in voices for note in voice
                     for other in given if other.part == note.part),
        "empty bar": config.no_empty_bars and not noted.issuperset(range(case.first_bar, last_bar)),
        "exact": case.exact and case.end_bar - 1 not in noted,
        "loop": case.loop and any(note.end > case.end_bar * STEPS for note in song),
        "at once": case.at_once and song and song[0].begin != case.first_bar * STEPS,
    }
    return [name for name, is_broken in broken.items() if is_broken]


# ---------------------------------------------------------------- cases


def songs(bars: int) -> st.SearchStrategy[list[Row]]:
    """Notes in order at few times, so that they make chords, crowd bars and ring into each other."""
    durations = st.sampled_from((1, LONGEST)) | st.integers(1, LONGEST)
    chords = st.dictionaries(st.sampled_from(PLAYED), durations, min_size=1, max_size=4)
    times = st.tuples(st.integers(0, bars - 1), st.integers(0, STEPS - 1))
    return st.dictionaries(times, chords, max_size=4).map(lambda song: sorted(
        (row(*time, steps, *played) for time, chord in song.items() for played, steps in chord.items()),
        key=lambda note: heard(note).key))


def of_some_parts(values: st.SearchStrategy) -> st.SearchStrategy[dict]:
    return st.just({}) | st.dictionaries(st.sampled_from(tuple(RANGES)), values)


some_parts = st.sampled_from([parts for n in range(len(RANGES) + 1) for parts in itertools.combinations(RANGES, n)])


@st.composite
def cases(draw, bars: int = 3, **fixed) -> Case:
    key, scale = draw(st.sampled_from(tuple(KEYS)))
    config = RuleConfig(key, scale, draw(of_some_parts(st.sampled_from(tuple(PITCH_TEXTS)))), draw(some_parts),
                        draw(of_some_parts(st.integers(1, 3))), draw(of_some_parts(st.integers(1, 4))),
                        draw(st.booleans()))
    end_bar = draw(st.just(bars) | st.integers(1, bars))
    options = {"first_bar": draw(st.just(0) | st.integers(0, end_bar - 1)), "parts": draw(some_parts),
               "exact": draw(st.booleans()), "loop": draw(st.booleans()), "at_once": draw(st.booleans()),
               "given": tuple(draw(st.just([]) | songs(bars)))}
    if options["given"] and not fixed and draw(st.booleans()):  # bars in the middle
        options["kept_bars"] = tuple(draw(st.sets(st.integers(options["first_bar"], end_bar - 1))))
        options["exact"] = options["at_once"] = False
    case = Case(config, bars, end_bar=end_bar, **(options | fixed))
    assume(case.made == {part for part, _ in case.playable})
    return case


def state_after(notes: list[Row], vocabulary: Vocabulary) -> History:
    return functools.reduce(lambda history, note: history.after(note, vocabulary), notes, History.nothing(vocabulary))


def ids(allowed: np.ndarray) -> set[int]:
    return set(np.flatnonzero(allowed).tolist())


# ---------------------------------------------------------------- masks


@settings(max_examples=150)
@given(case=cases(), before=songs(3), seed=st.integers(0, 2**31))
def test_masks_allow_exactly_what_leaves_a_valid_note_in_every_order(case, before, seed):
    rules, chance = case.rules(), random.Random(seed)
    history = state_after(before, rules.vocabulary)
    spans = rules.time_spans(history)
    all_notes = itertools.product(*(range(FIRST_ID, size) for size in rules.vocabulary.sizes))
    valid = [note for note in all_notes if may_follow(before, note, case)]
    for order in ORDERS:
        if not valid:
            for may_end in (True, False):
                assert ids(mask(rules, order[0], {}, spans, may_end)) == {EOS}
            continue
        note, fitting, chosen = chance.choice(valid), valid, {}
        for family in order:
            expected = {other[family] for other in fitting}
            assert ids(mask(rules, family, chosen, spans, may_end=False)) == expected
            assert ids(mask(rules, family, chosen, spans, may_end=True)) == expected | (set() if chosen else {EOS})
            chosen[family] = note[family]
            fitting = [other for other in fitting if other[family] == note[family]]


@given(case=cases(), before=songs(3))
def test_an_exact_song_may_end_when_its_last_bar_has_a_note(case, before):
    rules = case.rules()
    before = [note for note in before if heard(note).bar < case.end_bar]
    reached = case.end_bar - 1 in case.sounding_bars | {heard(note).bar for note in before}
    last = max([case.first_bar - 1, *(heard(note).bar for note in before)])
    gap_before_given = case.config.no_empty_bars and case.given and not case.sounding_bars.issuperset(
        range(last + 1, case.end_bar))
    may_end = (reached or not case.exact) and not gap_before_given
    assert rules.may_end(state_after(before, rules.vocabulary)) == may_end


@given(notes=songs(3))
def test_the_state_after_each_note_is_what_the_whole_list_says(notes):
    vocabulary = small_vocabulary()
    assert History.nothing(vocabulary) == History(BEFORE_ALL, FIRST_ID - 1, *[(0,) * len(RANGES)] * 3)
    for n in range(1, len(notes) + 1):
        history, song = state_after(notes[:n], vocabulary), [heard(note) for note in notes[:n]]
        voices = [[note for note in song if note.part == part] for part in RANGES]
        assert history.time == song[-1].begin == onset(notes[n - 1], vocabulary)
        assert history.pitch == notes[n - 1][PITCH_INSTRUMENT]
        assert history.onsets == tuple(sum(note.begin == song[-1].begin for note in voice) for voice in voices)
        assert history.in_bar == tuple(sum(note.bar == song[-1].bar for note in voice) for voice in voices)
        assert history.rings_until == tuple(max((note.end for note in voice), default=0) for voice in voices)


# ---------------------------------------------------------------- whole songs


def walk(case: Case, seed: int, willing: bool) -> list[Row]:
    """A song of ids drawn from those allowed, families in another order for each note.

    willing: to end where it may; otherwise it ends where nothing else is left.
    """
    rules, chance, notes = case.rules(), random.Random(seed), []
    history = History.nothing(rules.vocabulary)
    while True:
        spans, chosen = rules.time_spans(history), {}
        for family in chance.choice(ORDERS):
            allowed = ids(mask(rules, family, chosen, spans, rules.may_end(history)))
            assert allowed  # within a note there is always something left
            chosen[family] = chance.choice(sorted(allowed if willing else allowed - {EOS} or allowed))
            if chosen[family] == EOS:
                return notes
        notes.append(tuple(chosen[family] for family in range(len(chosen))))
        history = history.after(notes[-1], rules.vocabulary)


@settings(max_examples=150)
@given(case=cases(bars=6), seed=st.integers(0, 2**31), willing=st.booleans())
def test_songs_keep_every_rule(case, seed, willing):
    song = walk(case, seed, willing)
    event(f"{min(len(song), 9)} notes")
    assert not broken_rules(song, case)


@settings(max_examples=150)
@given(data=st.data(), one_voice_each=st.booleans(), seed=st.integers(0, 2**31), willing=st.booleans())
def test_an_exact_song_ends_in_its_last_bar_and_no_bar_stays_empty(data, one_voice_each, seed, willing):
    case = data.draw(cases(bars=6, exact=True, given=()))
    voices = tuple(RANGES) if one_voice_each else case.config.monophonic
    case = dataclasses.replace(case, config=dataclasses.replace(case.config, monophonic=voices))
    song = walk(case, seed, willing)
    bars = {heard(note).bar for note in song}
    assert case.end_bar - 1 in bars
    if case.config.no_empty_bars:
        assert bars == set(range(case.first_bar, case.end_bar))
    assert not broken_rules(song, case)


@given(case=cases(bars=6, kept_bars=()), seed=st.integers(0, 2**31))
def test_a_song_that_is_unwilling_to_end_gets_to_its_last_bar(case, seed):
    assume(case.exact or case.config.no_empty_bars or not case.one_voice_each)  # otherwise the last note may ring on
    assert heard(walk(case, seed, willing=False)[-1]).bar == case.end_bar - 1


@pytest.mark.parametrize(("changes", "longest"), [({}, LONGEST), ({"no_empty_bars": True}, 4), ({"exact": True}, 4)])
def test_a_note_of_the_only_voice_leaves_one_step_of_a_bar_that_needs_a_note(changes, longest):
    exact, end_bar = changes.pop("exact", False), 2
    case = Case(RuleConfig(monophonic=("bass",), **changes), end_bar=end_bar, parts=("bass",), exact=exact)
    rules = case.rules()
    at = {BAR: FIRST_ID, START_POS: FIRST_ID + 3}
    assert max(ids(mask(rules, NOTE_DUR, at, rules.time_spans(History.nothing(rules.vocabulary)), False))) == (
        FIRST_ID + longest - 1)
    left = rules.time_spans(state_after([row(0, 3, longest, "bass", 47)], rules.vocabulary))
    assert ids(mask(rules, START_POS, {}, left, False)) == ({EOS} if longest > 4 else {FIRST_ID + 3})


def test_a_prompt_that_rings_through_all_that_is_left_ends_the_song():
    rules = Case(RuleConfig(monophonic=("bass",)), end_bar=2, parts=("bass",), exact=True).rules()
    spans = rules.time_spans(state_after([row(0, 3, 5, "bass", 47)], rules.vocabulary))
    for family in range(4):
        assert ids(mask(rules, family, {}, spans, may_end=False)) == {EOS}


def test_a_song_of_which_all_is_made_and_without_rules_can_be_any():
    rules = Case(RuleConfig()).rules()
    spans = rules.time_spans(History.nothing(rules.vocabulary))
    for family, size in enumerate(rules.vocabulary.sizes):
        assert ids(mask(rules, family, {}, spans, may_end=False)) == set(range(FIRST_ID, size))
    assert rules.last_bar_id == rules.vocabulary.sizes[BAR] - 1


# ---------------------------------------------------------------- errors


def error_of(config: RuleConfig, **options) -> str:
    with pytest.raises(UserError) as error:
        Rules(small_vocabulary(), config, Passage(3, **options))
    return one_line(error)


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    message = str(error.value)
    assert "\n" not in message and 20 < len(message) < 400
    return message


@pytest.mark.parametrize("rule", [{"pitches": {"banjo": "60"}}, {"monophonic": ("bass", "banjo")},
                                  {"max_chord": {"banjo": 2}}, {"max_per_bar": {"banjo": 2}}])
def test_a_rule_for_an_unknown_part_names_it_and_the_known_ones(rule):
    assert error_of(RuleConfig(**rule)) == "unknown part 'banjo'; the model plays drums, bass, piano"


def test_an_unknown_part_to_make_is_an_error():
    assert "unknown part 'Bass'" in error_of(RuleConfig(), parts=("drums", "Bass"))


@given(key=st.sampled_from(tuple(KEYS)), pitches=of_some_parts(st.sampled_from(tuple(PITCH_TEXTS))), parts=some_parts)
def test_a_part_that_is_left_nothing_to_play_is_an_error(key, pitches, parts):
    case = Case(RuleConfig(*key, pitches), parts=parts)
    silent = case.made - {part for part, _ in case.playable}
    if not silent:
        allowed = allowed_pitches(small_vocabulary(), case.config, parts or tuple(RANGES))
        assert {PLAYED[id_ - FIRST_ID] for id_ in ids(allowed)} == case.playable
        case.rules()
        return
    part = min(silent, key=tuple(RANGES).index)
    message = error_of(case.config, parts=parts)
    assert f"leave {part} no pitch of its range, {RANGES[part][0]} to {RANGES[part][1]}" in message
    assert (f"pitches {pitches[part]}" in message) == (part in pitches)
    assert (f"the key {key[0]} {key[1]}" in message) == (bool(key[0]) and part != "drums")


def test_a_part_that_is_not_made_may_be_left_nothing_to_play():
    Case(RuleConfig(pitches={"piano": "36"}), parts=("bass", "drums")).rules()


def test_parts_may_come_in_any_order():
    orders = [("bass", "piano"), ["piano", "bass"]]
    one, other = (Rules(small_vocabulary(), RuleConfig(), Passage(3, parts=parts)) for parts in orders)
    assert np.array_equal(one.pitches, other.pitches) and not one.pitches[FIRST_ID:].all()


@pytest.mark.parametrize(("rules", "message"), [
    ({"key": "H"}, "key 'H': give a letter from A to G"),
    ({"key": "C", "scale": "mayor"}, "scale 'mayor' must be one of major, minor"),
    ({"scale": "mayor"}, "scale 'mayor' must be one of"),
    ({"key": 3}, "rules: key must be a string, not 3"),
    ({"pitches": {"bass": "52-28"}}, "'52-28': a range goes up"),
    ({"pitches": {"drums": "kick, kik"}}, "'kik': give a pitch"),
    ({"pitches": {"drums": ""}}, "'': names none"),
    ({"pitches": {"bass": 36}}, "rules: pitches: bass must be a string, not 36"),
    ({"pitches": "kick"}, r"rules: pitches must be an object \{\.\.\.\}, not 'kick'"),
    ({"monophonic": "bass"}, "rules: monophonic must be a list, not 'bass'"),
    ({"monophonic": [1]}, "rules: monophonic must be a string, not 1"),
    ({"max_chord": {"piano": 0}}, "max_chord: piano 0 must be at least 1"),
    ({"max_per_bar": {"piano": -1}}, "max_per_bar: piano -1 must be at least 1"),
    ({"max_chord": {"piano": 1.5}}, "rules: max_chord: piano must be a whole number, not 1.5"),
    ({"max_chord": {"piano": True}}, "rules: max_chord: piano must be a whole number, not True"),
    ({"max_per_bar": {"piano": None}}, "rules: max_per_bar: piano must be a whole number, not None"),
    ({"max_per_bar": [4]}, r"rules: max_per_bar must be an object \{\.\.\.\}"),
    ({"no_empty_bars": 1}, "rules: no_empty_bars must be true or false, not 1"),
    ({"monophonc": []}, "rules: unknown key 'monophonc'; did you mean 'monophonic'"),
    ([], r"rules must be an object \{\.\.\.\}, not \[\]"),
])
def test_a_wrong_rule_in_a_settings_file_is_named(rules, message):
    with pytest.raises(UserError, match=message) as error:
        config_from_dict(GenConfig, json.loads(json.dumps({"rules": rules})), "genconfig.json")
    assert one_line(error).startswith("genconfig.json: rules")


@given(case=cases())
def test_rules_are_read_back_from_json(case):
    config = GenConfig(rules=case.config)
    assert config_from_dict(GenConfig, json.loads(json.dumps(config_to_dict(config))), "x") == config
    assert config_from_dict(GenConfig, {"rules": {}}, "x") == GenConfig()
