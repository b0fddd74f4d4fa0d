"""What a prompt is heard to play, and settings that keep to it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_songs import VOCABULARY, random_song
from written_songs import NOTHING, block_chords, note

from backline.common.errors import UserError
from backline.generation.config import ControlConfig, GenConfig, RuleConfig
from backline.generation.keeping import harmony_of, keep_heard
from backline.generation.wish import Wish
from backline.music.chords import UNKNOWN, parse_chords, progression_text
from backline.music.vocab import BAR, FIRST_ID

PROGRESSION = "C G Am F C G Am F Am F C G Am F:.5 G:.5 Am E7"
SONG = block_chords(parse_chords(PROGRESSION).half_bars(32))
KEEP = GenConfig(controls=ControlConfig(chords="keep"))
DRUMS = np.array([note(8 * step, 2, 36, "drums") for step in range(16)])


def kept(wish: Wish, song: np.ndarray = SONG) -> str:
    return keep_heard(KEEP, wish, song, VOCABULARY).controls.chords


def test_after_a_prompt_its_last_eight_bars_come_again():
    assert kept(Wish(bars=8)) == "Am F C G Am F:.5 G:.5 Am E7"


@pytest.mark.parametrize(("n_bars", "chords"), [
    (3, "C G Am"), (8, "C G Am F C G Am F"), (9, "G Am F C G Am F Am")])
def test_a_short_prompt_repeats_all_its_bars(n_bars, chords):
    song = block_chords(parse_chords(PROGRESSION).half_bars(2 * n_bars))
    assert np.array_equal(parse_chords(kept(Wish(), song)).chords, parse_chords(chords).chords)


def test_chords_are_heard_of_the_bars_that_a_clip_lasts():
    """A hit for the next bar is in none of them; silent bars at the end are."""
    late = np.concatenate([block_chords(parse_chords("C G Am F").half_bars(8)), [note(4 * 32, 2, 36, "drums")]])
    assert harmony_of(late, Wish(), VOCABULARY, n_bars=4).chords == "C G Am F"
    assert harmony_of(late, Wish(), VOCABULARY, n_bars=4).describe().endswith("bars 1-4: C G Am F")
    longer = keep_heard(KEEP, Wish(given=("piano",)), late[:-1], VOCABULARY, n_bars=6).controls.chords
    assert np.array_equal(parse_chords(longer).half_bars(12)[:8], parse_chords("C G Am F").half_bars(8))
    assert len(parse_chords(longer).chords) == 12


def test_the_same_bars_keep_their_chords():
    assert kept(Wish(fill=(9, 11))) == "Am F C"
    assert np.array_equal(parse_chords(kept(Wish(given=("bass",)))).chords, parse_chords(PROGRESSION).chords)


def test_several_stretches_keep_their_own_chords():
    wish = Wish(fill=(2, 3, 9, 9))
    apart = f"{kept(Wish(fill=(2, 3)))} {kept(Wish(fill=(9, 9)))}"
    assert np.array_equal(parse_chords(kept(wish)).chords, parse_chords(apart).chords)
    assert harmony_of(SONG, wish, VOCABULARY).describe() == f"A minor; bars 2-3, 9: {kept(wish)}"


def test_the_key_is_that_of_the_bars_around():
    rules = keep_heard(GenConfig(rules=RuleConfig(key="keep")), Wish(), SONG, VOCABULARY).rules
    assert (rules.key, rules.scale) == ("A", "minor")
    assert harmony_of(SONG, Wish(), VOCABULARY).describe() == "A minor; bars 9-16: Am F C G Am F:.5 G:.5 Am E7"
    assert harmony_of(SONG, Wish(fill=(3, 3)), VOCABULARY).describe() == "A minor; bar 3: Am"


def test_bars_without_a_chord_are_left_open():
    late = SONG.copy()
    late[:, BAR] += 2  # two bars of silence first
    assert kept(Wish(fill=(1, 4)), late) == "?:2 C G"
    assert (parse_chords("?:2 C").chords[:4] == UNKNOWN).all()


@pytest.mark.parametrize(("settings", "song", "message"), [
    (KEEP, NOTHING, "--chords keep: keeps those of a song; give one with -p"),
    (GenConfig(rules=RuleConfig(key="keep")), NOTHING, "--key keep: keeps those of a song"),
    (KEEP, DRUMS, "--chords keep: no chords are heard in the prompt; name some"),
    (GenConfig(rules=RuleConfig(key="keep")), DRUMS, "--key keep: no key is heard in the prompt; name one"),
])
def test_what_cannot_be_kept(settings, song, message):
    with pytest.raises(UserError, match=message):
        keep_heard(settings, Wish(), song, VOCABULARY)


def test_drums_say_nothing_and_other_settings_stay():
    assert harmony_of(DRUMS, Wish(), VOCABULARY).describe() == ""
    plain = GenConfig(controls=ControlConfig(chords="Am F"), rules=RuleConfig(key="A"))
    assert keep_heard(plain, Wish(), NOTHING, VOCABULARY) is plain


@given(seed=st.integers(0, 50), fill=st.tuples(st.integers(1, 20), st.integers(0, 5)))
def test_what_is_kept_of_any_song_can_be_read_as_chords(seed, fill):
    song = random_song(seed, 200, 20)
    n_bars = int(song[-1, BAR]) - FIRST_ID + 1
    first = min(fill[0], n_bars)
    wish = Wish(fill=(first, min(first + fill[1], n_bars)))
    text = harmony_of(song, wish, VOCABULARY).chords
    if text:
        read = parse_chords(text).chords
        assert len(read) == 2 * (wish.fill[1] - first + 1) and progression_text(read) == text


def test_of_a_song_heard_in_part_bars_count_from_its_beginning():
    assert harmony_of(SONG, Wish(fill=(103, 103)), VOCABULARY, 100).describe() == "A minor; bar 103: Am"


def test_bars_behind_the_last_note_have_no_chords():
    n_bars = int(SONG[-1, 0]) - 3
    assert harmony_of(SONG, Wish(fill=(n_bars + 2, n_bars + 3)), VOCABULARY).chords == ""
