"""Controls: sheets as a slow version works them out, what moves with a song, what is forgotten, and words."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_songs import BAND, VOCABULARY, random_song, whole
from written_songs import block_chords, middle_song, moved_song, note, song_sheets

from backline.common.errors import UserError
from backline.common.settings import config_from_dict, config_to_dict
from backline.music.chords import CHORD_FIELDS, FIRST_VALUE, NONE, UNKNOWN, estimate_chords, parse_chords
from backline.music.controls import bars_left, fields, forgotten, silenced, song_controls, transposed
from backline.music.sheet import (
    N_PART_FIELDS,
    PART_CONTROLS,
    PART_SIZES,
    REST_WORDS,
    RETURNS_4,
    RETURNS_8,
    Levels,
    describe_sheet,
    key_column,
    key_of,
    measure_levels,
    parse_levels,
    part_levels,
    sheet_of,
)
from backline.music.vocab import BAR, BOS, EOS, FIRST_ID, PITCH_INSTRUMENT, START_POS, Vocabulary

LEVELS = Levels(((1, 2, 3, 4, 5, 6, 7),) * 3)
BAND_LEVELS = Levels(((1, 1.5, 2, 2.5, 3, 3.5, 4),) * 7)
C_MAJOR, A_MINOR = FIRST_VALUE, FIRST_VALUE + 2 * 9 + 1


def columns(vocabulary: Vocabulary = VOCABULARY) -> dict[str, int]:
    return {field.name: column for column, field in enumerate(fields(vocabulary))}


COLUMN = columns()


def kit(bars: str, kinds: dict[str, list[int]] | None = None, part: str = "drums") -> np.ndarray:
    """(N, 4) rows: a letter a bar, which strikes the steps of its kind; a dot rests."""
    kinds = kinds or {"a": [0, 8, 16, 24], "b": [0, 12], "c": [0, 8, 12, 20]}
    return np.array([note(bar * VOCABULARY.steps_per_bar + step, 2, 40, part) for bar, kind in enumerate(bars)
                     for step in kinds.get(kind, [])]).reshape(-1, 4)


def ordered(*rows: np.ndarray) -> np.ndarray:
    joined = np.concatenate(rows)
    return joined[np.lexsort((joined[:, PITCH_INSTRUMENT], joined[:, START_POS], joined[:, BAR]))]


# ---------------------------------------------------------------- fields


@pytest.mark.parametrize("vocabulary", [VOCABULARY, BAND], ids=["three parts", "seven parts"])
def test_fields_in_their_order(vocabulary):
    names = [field.name for field in fields(vocabulary)]
    expected = [f"{part} {name}" for part in vocabulary.part_names
                for name in ("plays", "density", "rests", "returns_4", "returns_8")]
    assert names == [*expected, "key", "bars_left", *CHORD_FIELDS]
    assert [field.n_values for field in fields(vocabulary)[:5]] == [1, 8, 4, 4, 4]
    assert [field.n_values for field in fields(vocabulary)[-5:]] == [24, 9, 12, 8, 12]
    assert all(field.size == FIRST_VALUE + field.n_values for field in fields(vocabulary))
    assert [field.part for field in fields(vocabulary)] == [
        *np.repeat(np.arange(len(vocabulary.parts)), N_PART_FIELDS).tolist(), *[None] * 5]
    assert names[key_column(vocabulary)] == "key"


# ---------------------------------------------------------------- sheets


def slow_part(bars: list[set], begin: int, end: int, counts: list[int], edges: tuple[float, ...]) -> list[int]:
    """The five ids of a part in a window, from the sets of its onsets in each bar of the song."""
    played = [bar for bar in range(begin, end) if bars[bar]]
    if not played:
        return [NONE] * 5
    density = Fraction(sum(counts[begin:end]), len(played))
    rests = Fraction(end - begin - len(played), end - begin)
    ids = [0, sum(edge <= density for edge in edges), sum(Fraction(edge) < rests for edge in (0, 0.25, 0.5))]
    for gap in (4, 8):
        pairs = [Fraction(len(bars[bar] & bars[bar + gap]), len(bars[bar] | bars[bar + gap]))
                 for bar in played if bar + gap < len(bars)]
        mean = sum(pairs) / len(pairs) if pairs else None
        edges_of_returns = (Fraction(1, 4), Fraction(1, 2), Fraction(9, 10))
        ids.append(NONE - FIRST_VALUE if mean is None else sum(edge <= mean for edge in edges_of_returns))
    return [FIRST_VALUE + value for value in ids]


def slow_sheets(rows: np.ndarray, vocabulary: Vocabulary, levels: Levels) -> list[list[int]]:
    """All of the sheets but the key."""
    notes = [row for row in rows.tolist() if row[BAR] >= FIRST_ID]
    first = min(row[BAR] for row in notes)
    n_bars = max(row[BAR] for row in notes) - first + 1
    n_parts = len(vocabulary.parts)
    onsets = [[set() for _ in range(n_bars)] for _ in range(n_parts)]
    counts = [[0] * n_bars for _ in range(n_parts)]
    for bar, start, _, pitch in notes:
        part = int(vocabulary.part_of_id[pitch])
        onsets[part][bar - first].add((start, pitch))
        counts[part][bar - first] += 1
    sheets = []
    for bar in range(n_bars):
        begin = 0 if n_bars < 16 else min(max(bar - 8, 0), n_bars - 16)
        end = min(begin + 16, n_bars)
        sheets.append([value for p in range(n_parts)
                       for value in slow_part(onsets[p], begin, end, counts[p], levels.density_edges[p])])
    return sheets


@given(seed=st.integers(0, 9999), n_bars=st.integers(1, 40), n_notes=st.integers(1, 150), n_kinds=st.integers(1, 4))
def test_sheets_are_as_a_slow_version_works_them_out(seed, n_bars, n_notes, n_kinds):
    rng = np.random.default_rng(seed)
    for vocabulary, levels in ((VOCABULARY, LEVELS), (BAND, BAND_LEVELS)):
        bars = [random_song(seed + kind, n_notes, 1, vocabulary) for kind in range(n_kinds)]
        song = []
        for bar in range(n_bars):  # bars come back, some whole, some in part
            kind = bars[rng.integers(n_kinds)]
            kept = kind[rng.random(len(kind)) < rng.choice([0, 0.05, 0.5, 1])] + [bar, 0, 0, 0]
            song.append(kept)
        rows = np.concatenate([*song, random_song(seed, 1, 1, vocabulary)])
        sheets = song_sheets(whole(rows), vocabulary, levels)
        assert sheets.dtype == np.uint8
        assert sheets[:, :-1].tolist() == slow_sheets(rows, vocabulary, levels)
        assert all((column < field.size).all() for column, field in zip(sheets.T, fields(vocabulary), strict=False))


def test_a_sheet_by_hand():
    drums = kit("aaaa" * 5)
    bass = kit("b..c" * 5, part="bass")
    sheet = song_sheets(ordered(drums, bass), VOCABULARY, LEVELS)[10]
    assert sheet[:5].tolist() == [2, 2 + 4, 2, 2 + 3, 2 + 3]  # 4 notes a bar, never at rest, comes back
    assert sheet[5:10].tolist() == [2, 2 + 3, 2 + 2, 2 + 3, 2 + 3]  # 2 and 4 notes, half of the bars at rest
    assert sheet[10:15].tolist() == [NONE] * 5


def test_what_returns_after_eight_bars_only():
    sheets = song_sheets(kit("aaaabbbb" * 3), VOCABULARY, LEVELS)
    assert set(sheets[:, RETURNS_4].tolist()) == {FIRST_VALUE}  # of a and b, one onset of five is the same
    assert set(sheets[:, RETURNS_8].tolist()) == {FIRST_VALUE + 3}


def test_windows_lie_within_the_song():
    gap = song_sheets(kit("a" * 16 + "." * 16 + "b"), VOCABULARY, LEVELS)
    assert (gap[:, 0] == FIRST_VALUE).tolist() == [True] * 24 + [False] + [True] * 8  # the last windows end with b
    stops = ordered(kit("a" * 16), kit("a" * 33, part="bass"))
    assert (song_sheets(stops, VOCABULARY, LEVELS)[:, 0] == FIRST_VALUE).tolist() == [True] * 24 + [False] * 9


@given(seed=st.integers(0, 99), n_bars=st.integers(1, 16))
def test_the_sheet_of_a_short_song_is_the_same_in_all_its_bars(seed, n_bars):
    rows = random_song(seed, 20, n_bars)
    first, last = (int(rows[i, BAR]) - FIRST_ID for i in (0, -1))
    sheets = song_sheets(rows, VOCABULARY, LEVELS)
    assert len(sheets) == last - first + 1 and (sheets == sheets[0]).all()
    assert sheet_of(rows, VOCABULARY, LEVELS, first, last).tolist() == sheets[0].tolist()


@given(seed=st.integers(0, 99), first=st.integers(0, 19), n=st.integers(1, 30))
def test_a_stretch_is_a_song_of_its_own(seed, first, n):
    rows = random_song(seed, 100, 20)
    bars = rows[:, BAR] - FIRST_ID
    alone = rows[(bars >= first) & (bars < first + n)]
    sheet = sheet_of(rows, VOCABULARY, LEVELS, first, first + n - 1)
    assert sheet.tolist() == sheet_of(alone, VOCABULARY, LEVELS, first, first + n - 1).tolist()


def test_one_bar():
    sheet = song_sheets(whole(kit("a")), VOCABULARY, LEVELS)
    assert sheet.tolist() == [[2, 2 + 4, 2, NONE, NONE, *[NONE] * 11]]


def test_no_note_is_one_empty_bar():
    empty = np.zeros((0, 4), np.int16)
    assert song_sheets(empty, VOCABULARY, LEVELS).tolist() == [[NONE] * 16]
    found = song_controls(whole(empty), VOCABULARY, LEVELS)
    assert found.tolist() == [[*[NONE] * 16, FIRST_VALUE, NONE, NONE, NONE]] * 2


def test_the_last_legal_bar():
    rows = kit("a" + "." * (VOCABULARY.bars - 2) + "a")
    assert len(song_sheets(rows, VOCABULARY, LEVELS)) == VOCABULARY.bars
    rows = rows[4:]  # a song of that bar alone
    assert song_sheets(rows, VOCABULARY, LEVELS).tolist() == song_sheets(kit("a"), VOCABULARY, LEVELS).tolist()


# ---------------------------------------------------------------- the key


@pytest.mark.parametrize("tonic", range(12))
@pytest.mark.parametrize(("chords", "key"), [("C F G C", C_MAJOR), ("C Am F G", C_MAJOR), ("Am Dm Em Am", A_MINOR),
                                             ("Am Dm E Am", A_MINOR)])
def test_keys_of_plain_progressions(chords, key, tonic):
    rows = block_chords(parse_chords(chords).half_bars(2 * 20))
    found = song_sheets(moved_song(rows, tonic), VOCABULARY, LEVELS)[:, key_column(VOCABULARY)]
    assert set(found.tolist()) == {FIRST_VALUE + (key - FIRST_VALUE + 2 * tonic) % 24}


def test_a_last_chorus_that_moves_up():
    rows = block_chords(parse_chords("C Am F G").half_bars(2 * 64))
    up = moved_song(rows, 1)
    bars = rows[:, BAR] - FIRST_ID
    song = np.concatenate([rows[bars < 40], up[bars >= 40]])
    keys = song_sheets(song, VOCABULARY, LEVELS)[:, key_column(VOCABULARY)]
    assert sorted(set(keys.tolist())) == [C_MAJOR, C_MAJOR + 2]
    changes = np.flatnonzero(np.diff(keys.astype(int)))
    assert len(changes) == 1 and abs(changes[0] - 40) <= 2


def test_no_key_without_melody_or_where_all_notes_sound_alike():
    assert song_sheets(kit("aaaa"), VOCABULARY, LEVELS)[0, key_column(VOCABULARY)] == NONE
    chromatic = np.array([note(2 * step, 2, 48 + step) for step in range(12)])
    assert song_sheets(chromatic, VOCABULARY, LEVELS)[0, key_column(VOCABULARY)] == NONE


# ---------------------------------------------------------------- controls of notes


@given(seed=st.integers(0, 99), n_bars=st.integers(1, 40))
def test_each_note_has_the_sheet_of_its_bar_and_the_chord_of_its_half_bar(seed, n_bars):
    for vocabulary, levels in ((VOCABULARY, LEVELS), (BAND, BAND_LEVELS)):
        rows = whole(random_song(seed, 40, n_bars, vocabulary)).astype(vocabulary.id_type)
        found = song_controls(rows, vocabulary, levels)
        assert found.shape == (len(rows), len(fields(vocabulary))) and found.dtype == np.uint8
        first, last = (int(rows[i, BAR]) - FIRST_ID for i in (1, -2))
        sheets = song_sheets(rows, vocabulary, levels)
        chords = estimate_chords(rows, vocabulary, first, last - first + 1)
        for row, values in zip(rows.tolist(), found, strict=True):
            bar = {BOS: 0, EOS: last - first}.get(row[BAR], row[BAR] - FIRST_ID - first)
            second = {BOS: False, EOS: True}.get(row[BAR], 2 * (row[START_POS] - FIRST_ID) >= vocabulary.steps_per_bar)
            assert values[:-4].tolist() == sheets[bar].tolist()
            assert values[-4] == bars_left(np.array(last - first - bar))
            assert values[-3:].tolist() == chords[2 * bar + second].tolist()


def test_buckets_of_bars_left():
    buckets = [[0], [1], [2], [3], [4], range(5, 9), range(9, 17), range(17, 33), range(33, 256)]
    expected = [FIRST_VALUE + number for number, bucket in enumerate(buckets) for _ in bucket]
    assert bars_left(np.arange(256)).tolist() == expected


@given(seed=st.integers(0, 99), semitones=st.integers(-6, 6))
def test_controls_of_a_moved_song_are_the_moved_controls(seed, semitones):
    rows = middle_song(seed)
    before = song_controls(rows, VOCABULARY, LEVELS)
    copy = before.copy()
    after = transposed(before, semitones, VOCABULARY)
    assert after.tolist() == song_controls(moved_song(rows, semitones), VOCABULARY, LEVELS).tolist()
    assert (before == copy).all() and after.dtype == np.uint8


def test_transposing_leaves_what_is_not_there_and_the_parts():
    values = np.full((2, 3, 20), UNKNOWN, np.uint8)
    assert (transposed(values, 5, VOCABULARY) == UNKNOWN).all()
    values[:] = NONE
    assert (transposed(values, 5, VOCABULARY) == NONE).all()
    values[..., COLUMN["key"]] = A_MINOR
    assert (transposed(values, 3, VOCABULARY)[..., COLUMN["key"]] == C_MAJOR + 1).all()


@pytest.mark.parametrize("silent", [[], [0], [2], [0, 1]])
@pytest.mark.parametrize("seed", range(3))
def test_a_part_that_is_silenced_is_as_one_that_never_played(seed, silent):
    rows = random_song(seed, 200, 20)
    first, last = rows[0, BAR], rows[-1, BAR]
    part = VOCABULARY.part_of_id[rows[:, PITCH_INSTRUMENT]]
    kept = ~np.isin(part, silent)
    assert rows[kept][0, BAR] == first and rows[kept][-1, BAR] == last
    found = silenced(song_controls(rows, VOCABULARY, LEVELS), silent, VOCABULARY)[kept]
    n = key_column(VOCABULARY)
    assert found[:, :n].tolist() == song_controls(rows[kept], VOCABULARY, LEVELS)[:, :n].tolist()
    assert (found[:, n:] == song_controls(rows, VOCABULARY, LEVELS)[kept, n:]).all()


# ---------------------------------------------------------------- forgetting


def test_forgetting_by_chance():
    values = np.full((20000, 2, 20), 3, np.uint8)
    found = forgotten(values, np.random.default_rng(1), share=0.2, share_all=0.1)
    assert (values == 3).all() and found.dtype == np.uint8 and set(found.ravel().tolist()) == {UNKNOWN, 3}
    unknown = found == UNKNOWN
    assert (unknown[:, 0] == unknown[:, 1]).all()  # a column is forgotten for all notes of a row
    unknown = unknown[:, 0]
    assert (unknown[:, -1] == unknown[:, -2]).all() and (unknown[:, -1] == unknown[:, -3]).all()
    assert np.abs(unknown.mean(axis=0) - (0.1 + 0.9 * 0.2)).max() < 0.02
    assert abs(unknown.all(axis=1).mean() - 0.1) < 0.01
    some = unknown[~unknown.all(axis=1)]
    both = (some[:, 0] & some[:, 1]).mean()
    assert abs(both - some[:, 0].mean() * some[:, 1].mean()) < 0.02  # each by itself, within a part too


def test_forgetting_nothing_and_everything_and_the_same_again():
    values = np.random.default_rng(0).integers(0, 9, (4, 3, 20)).astype(np.uint8)
    assert (forgotten(values, np.random.default_rng(0), share=0, share_all=0) == values).all()
    assert (forgotten(values, np.random.default_rng(0), share=0, share_all=1) == UNKNOWN).all()
    first, again = (forgotten(values, np.random.default_rng(7)) for _ in range(2))
    assert (first == again).all()


# ---------------------------------------------------------------- levels


def test_levels_occur_equally_often():
    songs = [kit("a" * 16, {"a": range(count)}) for count in range(1, 33)]
    levels = measure_levels(songs, VOCABULARY)
    found = [int(song_sheets(song, VOCABULARY, levels)[0, COLUMN["drums density"]]) for song in songs]
    assert found == sorted(found) and np.bincount(found, minlength=10)[FIRST_VALUE:].tolist() == [4] * 8
    assert levels.density_edges[1:] == ((0.0,) * 7,) * 2  # parts that never play


def test_levels_as_json_and_back():
    levels = measure_levels([random_song(seed, 100, 20, BAND) for seed in range(5)], BAND)
    assert config_from_dict(Levels, config_to_dict(levels), "levels") == levels
    assert measure_levels([], VOCABULARY).density_edges == ((0.0,) * 7,) * 3


@pytest.mark.parametrize("edges", [[1, 2], [1, 2, 3, 4, 5, 7, 6]])
def test_wrong_levels_are_an_error(edges):
    with pytest.raises(UserError, match=r"levels: density_edges .*must be 7 numbers that go up") as error:
        config_from_dict(Levels, {"density_edges": [edges]}, "levels")
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------- words


def sheet(**values: int) -> np.ndarray:
    found = np.full(16, UNKNOWN, np.uint8)
    for name, value in values.items():
        found[COLUMN[name.replace("__", " ")]] = value
    return found


@pytest.mark.parametrize(("values", "words"), [
    ({}, "nothing said"),
    ({"key": A_MINOR}, "A minor"), ({"key": NONE}, "no key"),
    ({"drums__plays": NONE}, "no drums"), ({"drums__plays": 2}, "drums plays"),
    ({"drums__density": 2 + 6, "bass__density": 2 + 2, "piano__rests": 2 + 3, "key": A_MINOR},
     "drums busy, bass 3 of 8, piano rests most of the time, A minor"),
    ({"drums__plays": 2, "drums__density": 2 + 1, "drums__rests": 2}, "drums sparse"),
    ({"bass__density": 2 + 3, "bass__rests": 2 + 1, "bass__returns_4": 2 + 3, "bass__returns_8": 2 + 3},
     "bass medium (rests now and then, comes back every 4 bars)"),
    ({"piano__returns_8": 2 + 3}, "piano comes back every 8 bars"),
])
def test_a_sheet_in_words(values, words):
    assert describe_sheet(sheet(**values), VOCABULARY) == words


@given(seed=st.integers(0, 99))
def test_every_song_is_one_line(seed):
    for row in song_controls(random_song(seed, 60, 20, BAND), BAND, BAND_LEVELS)[::10]:
        words = describe_sheet(row, BAND)
        assert len(words.splitlines()) == 1
        assert all(f"no {name}" in words or f"{name} " in words for name in BAND.part_names)


def levels_of(control: str, text: str, vocabulary=VOCABULARY) -> dict[str, int]:
    return part_levels(control, parse_levels(control, text), vocabulary)


def test_levels_that_people_type():
    assert levels_of("density", "drums=busy,piano=3") == {"drums": 7, "piano": 3}
    assert levels_of("density", " bass = sparse , drums=Medium,") == {"bass": 2, "drums": 4}
    assert levels_of("rests", "drums=never,bass=sometimes,piano=often") == {"drums": 1, "bass": 2, "piano": 3}
    assert levels_of("rests", "piano=mostly") == levels_of("rests", "piano=4") == {"piano": 4}
    assert levels_of("repeats", "drums=exactly,bass=hardly,piano=3") == {"drums": 4, "bass": 1, "piano": 3}


@pytest.mark.parametrize("control", PART_CONTROLS)
def test_every_level_of_a_column_has_its_number(control):
    columns, n_levels, words, _, _ = PART_CONTROLS[control]
    sizes = list(PART_SIZES.values())
    assert {sizes[column] for column in columns} == {n_levels}
    assert set(words.values()) <= set(range(1, n_levels + 1))
    levels = list(range(1, n_levels + 1))
    assert [levels_of(control, f"lead={level}", BAND)["lead"] for level in levels] == levels


@pytest.mark.parametrize(("control", "text", "message"), [
    ("density", "guitar=busy", "density 'guitar=busy': no part 'guitar'; give one of drums, bass, piano"),
    ("density", "pinao=busy", "did you mean 'piano'?"),
    ("density", "busy", "density 'busy': give a part and its level, such as drums=sparse"),
    ("density", "drums=", "'drums=': the level must be sparse, medium, busy, or from 1 (fewest notes) to 8 (most)"),
    ("density", "drums=busy,bass=loud", "density 'bass=loud': the level must be sparse"),
    ("density", "drums=bussy", "did you mean 'busy'?"), ("density", "drums=9", "density 'drums=9': the level must be"),
    ("density", "drums=-1", "must be"), ("density", "drums=3=4", "must be"), ("density", "drums=03", "must be"),
    ("density", "piano=0", "density 'piano=0': a part that shall not play is left out of --make"),
    ("density", "piano=none", "--make"),
    ("density", "drums=1,drums=2", "density 'drums=2': drums comes twice; name it once"),
    ("density", "", "names no part; give one, such as drums=sparse"), ("density", " , ", "names no part"),
    ("rests", "drums=5", "rests 'drums=5': the level must be never, sometimes, often, mostly, or from 1 (plays in"),
    ("rests", "drums=ofen", "did you mean 'often'?"), ("rests", "often", "such as drums=never"),
    ("repeats", "bass=0", "repeats 'bass=0': the level must be hardly, partly, mostly, exactly, or from 1"),
])
def test_what_is_no_level_is_an_error(control, text, message):
    with pytest.raises(UserError) as error:
        levels_of(control, text)
    assert message in str(error.value) and "\n" not in str(error.value)


@given(control=st.sampled_from(list(PART_CONTROLS)), text=st.text("drums=,busy 3", max_size=15) | st.text(max_size=10))
def test_any_text_is_levels_or_one_line(control, text):
    try:
        found = levels_of(control, text)
    except UserError as err:
        assert len(str(err).splitlines()) == 1
    else:
        assert found and set(found.values()) <= set(range(1, 9))


@pytest.mark.parametrize(("chords", "key"), [("C Am F G", ("C", "major")), ("Am Dm E Am", ("A", "minor"))])
def test_a_stretch_of_bars_has_a_key(chords, key):
    rows = block_chords(parse_chords(chords).half_bars(2 * 16))
    assert key_of(rows, VOCABULARY, 0, 15) == key
    assert key_of(rows[:0], VOCABULARY, 0, 15) == ("", "")


def test_importing_the_module_imports_no_torch():
    code = "import sys; import backline.music.controls; sys.exit('torch' in sys.modules or 'pychord' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_level_of_rests_has_its_words():
    assert len(REST_WORDS) == PART_SIZES["rests"]
