"""Sampling: valid notes only, filters as documented, one song per seed, cached or not."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_songs import random_song, whole
from tiny_models import HOT, SMALL_VOCABULARY, never_end, tiny_model

from backline.common.errors import UserError
from backline.engine.torch_player import TorchPlayer
from backline.generation.config import SAMPLING_FNS, GenConfig, RuleConfig
from backline.generation.filters import draw, end_beyond, kept_by, softmax
from backline.generation.rules import Passage, Rules
from backline.generation.sampler import Reader, Request, Sampled, SongInProgress, sample_songs, window_start
from backline.layers.config import BARS, HEADS, POSITIONS
from backline.layers.positions import with_relative_bars
from backline.music.vocab import BAR, EOS, FIELDS, FIRST_ID, PITCH_INSTRUMENT, START_POS, load_vocabulary
from backline.training.given_tasks import Anticipation

ORDERS = list(itertools.permutations(FIELDS))


def request(prompt=(), vocabulary=SMALL_VOCABULARY, seed=0, num_bars=32, given=(), **rules) -> Request:
    """A song from scratch, or the rest of the prompt's last bar and `num_bars` more."""
    prompt, given = (np.array(rows, np.int64).reshape(-1, 4) for rows in (prompt, given))
    begun = int(prompt[-1, BAR]) - FIRST_ID + 1 if len(prompt) else 0
    end_bar = min(begun + num_bars, vocabulary.bars)
    return Request(Rules(vocabulary, RuleConfig(), Passage(end_bar, given=given, **rules)), seed, prompt, given)


def song(model, prompt=(), vocabulary=SMALL_VOCABULARY, seed=0, cached=True, **changes) -> np.ndarray:
    config = GenConfig(**(HOT | changes))
    wanted = request(prompt, vocabulary, seed, config.num_bars)
    return sample_songs(TorchPlayer(model), [wanted], config, cached)[0].notes


def keys(rows) -> list[tuple[int, int, int]]:
    return [(row[BAR], row[START_POS], row[PITCH_INSTRUMENT]) for row in rows.tolist()]


# ---------------------------------------------------------------- validity


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), heads=st.sampled_from(HEADS), fn=st.sampled_from(SAMPLING_FNS),
       order=st.sampled_from(ORDERS), bars=st.sampled_from(BARS))
def test_every_note_is_valid_and_time_never_runs_backwards(seed, heads, fn, order, bars):
    model = tiny_model(heads=heads, order=order, bars=bars)
    rows = song(model, seed=seed, sampling_fn=fn, threshold=(0.5,) * 4, max_steps=60)
    assert len(rows)
    assert (rows >= FIRST_ID).all()
    assert (rows < SMALL_VOCABULARY.sizes).all()
    assert all(a < b for a, b in zip(keys(rows), keys(rows)[1:], strict=False))


def test_a_model_that_never_ends_fills_every_place_and_then_stops():
    model = never_end(tiny_model())
    model.heads[BAR].weight.data.zero_()
    for family in (BAR, START_POS, PITCH_INSTRUMENT):  # the lowest id that is valid is by far the likeliest
        head = model.heads[family]
        head.weight.data.zero_()
        head.bias.data = -1e3 * torch.arange(len(head.bias), dtype=torch.float)
    model.heads[BAR].bias.data[EOS] = -1e9
    rows = song(model, max_steps=1000, temperature=(0.1,) * 4)
    v = SMALL_VOCABULARY
    assert keys(rows) == [(bar, pos, pitch) for bar in range(FIRST_ID, v.sizes[BAR])
                          for pos in range(FIRST_ID, v.sizes[START_POS])
                          for pitch in range(FIRST_ID, v.sizes[PITCH_INSTRUMENT])]


# ---------------------------------------------------------------- filters


def kept(logits: np.ndarray, fn: str, threshold: float) -> np.ndarray:
    return kept_by(fn, threshold, logits, softmax(logits))


@given(logits=st.lists(st.integers(-60, 60), min_size=2, max_size=40, unique=True), threshold=st.floats(0.01, 1))
def test_filters_agree_with_slow_versions(logits, threshold):
    array = np.array([logits, logits[::-1]]) / 7  # a batch, whose rows know nothing of each other
    probabilities = torch.tensor(array[0]).softmax(-1).tolist()
    by_likelihood = sorted(range(len(logits)), key=lambda i: -probabilities[i])

    def kept_ids(fn: str) -> set[int]:
        left = kept(array, fn, threshold)
        assert left.sum(1)[0] == left.sum(1)[1]
        return set(np.flatnonzero(left[0]).tolist())

    assert len(kept_ids("top_k")) == max(1, math.ceil(round((1 - threshold) * len(logits), 6)))
    assert kept_ids("top_k") == set(by_likelihood[:len(kept_ids("top_k"))])
    nucleus, mass = set(), 0.0
    for i in by_likelihood:
        if mass < threshold - 1e-9 or not nucleus:
            nucleus.add(i)
        mass += probabilities[i]
    assert kept_ids("top_p") == nucleus or abs(sum(probabilities[i] for i in kept_ids("top_p")) - threshold) < 1e-6
    assert kept_ids("min_p") == {i for i, p in enumerate(probabilities) if p >= threshold * max(probabilities)}
    assert kept_ids("none") == set(range(len(logits)))


@pytest.mark.parametrize(("size", "threshold", "n_kept"), [(260, 0.9, 26), (36, 0.9, 4), (132, 0.9, 14), (227, 0.9, 23),
                                                         (10, 1.0, 1), (10, 0.0, 10)])
def test_top_k_removes_the_published_share_rounded_up(size, threshold, n_kept):
    assert kept(np.random.default_rng(0).normal(size=(1, size)), "top_k", threshold).sum() == n_kept


def test_masked_ids_stay_masked():
    logits = np.array([[-np.inf, 1.0, -np.inf, 0.5]])
    for fn in SAMPLING_FNS:
        assert not kept(logits, fn, 0.1)[0, [0, 2]].any()


def test_draws_follow_the_temperature_and_the_filters():
    n_draws = 20_000
    uniform = (np.arange(n_draws) + 0.5) / n_draws  # spread evenly: shares come out exact
    logits = np.log(np.tile([0.5, 0.3, 0.15, 0.05], (n_draws, 1)))

    def shares(**changes) -> np.ndarray:
        config = GenConfig(**{"sampling_fn": "none", "temperature": (1.0,) * 4} | changes)
        return np.bincount(draw(logits, BAR, config, uniform, np.ones(n_draws))[0], minlength=4) / n_draws

    assert np.allclose(shares(), [0.5, 0.3, 0.15, 0.05], atol=1e-3)
    squared = np.array([0.25, 0.09, 0.0225, 0.0025])
    assert np.allclose(shares(temperature=(0.5,) * 4), squared / squared.sum(), atol=1e-3)
    assert np.allclose(shares(sampling_fn="top_p", threshold=(0.6,) * 4), [5 / 8, 3 / 8, 0, 0], atol=1e-3)
    assert np.allclose(shares(min_p=(0.2,) * 4), [0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0], atol=1e-3)
    both = shares(sampling_fn="top_k", threshold=(0.25,) * 4, top_p=(0.5,) * 4)
    assert both.tolist() == [1, 0, 0, 0]
    hot = shares(sampling_fn="top_p", threshold=(0.6,) * 4, temperature=(1e9,) * 4)
    assert np.allclose(hot, [0.5, 0.5, 0, 0], atol=1e-3)  # the filter comes before the temperature


@given(uniform=st.sampled_from([0.0, 1 - 2**-53]))
def test_the_ends_of_the_draw_never_fall_on_what_is_masked(uniform):
    logits = np.array([[-np.inf, 0.0, -np.inf, 1.0, -np.inf]])
    drawn, surprisals = draw(logits, BAR, GenConfig(sampling_fn="none"), np.array([uniform]), np.ones(1))
    assert drawn[0] == (1 if uniform == 0 else 3)
    assert surprisals[0] == pytest.approx(math.log(1 + math.e) - logits[0, drawn[0]])


# ---------------------------------------------------------------- length


def test_num_bars_and_max_steps_are_exact():
    model = never_end(tiny_model(load_vocabulary()))
    rows = song(model, vocabulary=load_vocabulary(), num_bars=5, max_steps=40)
    assert rows[:, BAR].max() <= FIRST_ID + 4
    endless = song(model, vocabulary=load_vocabulary(), num_bars=256, max_steps=7, temperature=(0.01, 1, 1, 1))
    assert len(endless) <= 7
    prompt = [[FIRST_ID + 9, 4, 4, 10]]
    after = song(model, prompt, load_vocabulary(), num_bars=2, max_steps=300)
    assert after[:, BAR].min() >= FIRST_ID + 9
    assert after[:, BAR].max() <= FIRST_ID + 9 + 2
    assert {FIRST_ID + 9, FIRST_ID + 11} & set(after[:, BAR].tolist())


def test_a_model_that_wants_the_next_bar_after_the_last_ends_the_song():
    model = tiny_model(load_vocabulary())
    model.heads[BAR].weight.data.zero_()
    model.heads[BAR].bias.data = torch.full((260,), -1e6)
    model.heads[BAR].bias.data[FIRST_ID + 4] = 1e3  # bar 4 and no other
    prompt = [[FIRST_ID + 3, 4, 4, 10]]
    settings = {"vocabulary": load_vocabulary(), "max_steps": 50, "temperature": (1.0,) * 4}
    assert len(song(model, prompt, num_bars=9, **settings)) > 1
    logits = model.heads[BAR].bias.data.double().numpy().copy()
    end_beyond(logits, FIRST_ID + 3)
    assert logits[EOS] == 1e3 and logits[FIRST_ID + 4] == 1e3  # in the last bar: the end is wanted
    model.heads[BAR].bias.data[FIRST_ID + 6] = 2e3
    model.heads[BAR].bias.data[FIRST_ID + 4] = 1e3
    rows = song(model, [[FIRST_ID + 3, 4, 4, 10]], num_bars=1, **settings)
    assert len(rows) == 1  # one note in bar 4, and then the end instead of a crowded last bar


@pytest.mark.parametrize("temperature", [1e-45, 1e-38, 1e40, 1e300])
def test_any_temperature_above_0_samples(temperature):
    assert len(song(tiny_model(), temperature=(temperature,) * 4, max_steps=9))


def test_max_steps_counts_new_notes():
    model = never_end(tiny_model(load_vocabulary()))
    model.heads[BAR].weight.data.zero_()
    model.heads[BAR].bias.data = -10.0 * torch.arange(260)
    never_end(model)
    prompt = [[4, 4, 4, 5], [4, 5, 4, 5]]
    assert len(song(model, prompt, load_vocabulary(), max_steps=7, temperature=(0.1, 5, 5, 5))) == 7


def test_without_max_steps_a_song_ends_with_its_last_bar():
    model = never_end(tiny_model(load_vocabulary()))
    free, limited = (song(model, vocabulary=load_vocabulary(), num_bars=3, max_steps=n) for n in (0, 5000))
    assert np.array_equal(free, limited) and free[-1, BAR] == FIRST_ID + 2


@pytest.mark.parametrize(("most", "kept", "cut"), [
    (0, 0, 5), (1, 1, 5), (2, 2, 5), (3, 3, 8), (4, 3, 8), (5, 5, 9), (6, 6, 0), (9, 6, 0)])
def test_a_song_is_cut_at_the_bar_line_before_its_first_note_too_many(most, kept, cut):
    """Of three notes in bar 5, two in bar 8 and one in bar 9; where no bar is whole, it ends within the first."""
    notes = np.array([[bar, 4 + i, 4, 5] for i, bar in enumerate([5, 5, 5, 8, 8, 9])])
    whole = Sampled(notes, np.arange(6.0)).at_bar_line(most)
    assert np.array_equal(whole.notes, notes[:kept]) and whole.cut == cut
    assert whole.surprisals.tolist() == list(range(kept))


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_end_of_song_ends_it(order):
    model = tiny_model(order=order)
    model.heads[model.order[0]].bias.data[EOS] = 1e6
    assert len(song(model, max_steps=50)) == 1  # a song has at least one note


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_nothing_left_after_the_prompt(order):
    v = SMALL_VOCABULARY
    last = [size - 1 for size in v.sizes]
    assert len(song(tiny_model(order=order), [last])) == 0


# ---------------------------------------------------------------- seeds, cache, window


@pytest.mark.parametrize("kind", [*({"positions": p, "heads": h} for p in POSITIONS for h in HEADS), {"late_layers": 1},
                                  {"bars": "relative"}, {"late_layers": 1, "positions": "metre", "bars": "relative"},
                                  {"order": ("start_pos", "bar", "note_dur", "pitch_instrument"), "late_layers": 1}],
                         ids=lambda kind: "-".join(map(str, kind.values())))
def test_cached_and_uncached_sampling_give_the_same_song_past_the_window(kind):
    model = never_end(tiny_model(load_vocabulary(), block_size=12, **kind)).double()
    model.heads[BAR].bias.data[FIRST_ID:] = -0.5 * torch.arange(256)  # early bars are likelier: a song of many notes
    prompt = [[4, 4 + i, 5, 20] for i in range(9)]
    fast, slow = (song(model, prompt, load_vocabulary(), cached=cached, max_steps=40, num_bars=256)
                  for cached in (True, False))
    assert 1 + len(prompt) + len(fast) > 12 + 6  # the window has moved
    assert np.array_equal(fast, slow)


@pytest.mark.parametrize("cached", [True, False])
def test_with_relative_bars_a_prompt_longer_than_the_window_goes_on_the_same_wherever_it_stands(cached):
    v = load_vocabulary()
    model = never_end(tiny_model(v, block_size=12, bars="relative")).double()
    model.heads[BAR].bias.data[FIRST_ID:] = -2.0 * torch.arange(v.bars)
    prompt = np.array([[4 + i // 4, 4 + i, 5, 20] for i in range(14)])
    further = np.array([100, 0, 0, 0])
    early, late = (song(model, start, v, cached=cached, max_steps=30, num_bars=20)
                   for start in (prompt, prompt + further))
    assert len(early) > 6 and early[6, BAR] > prompt[-1, BAR]  # the window has moved on, and begins in another bar
    assert np.array_equal(late, early + further)


def test_seeds():
    model = tiny_model(load_vocabulary())
    first, again, other = (song(model, vocabulary=load_vocabulary(), seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@given(block_size=st.integers(1, 30), n_rows=st.integers(0, 200))
def test_window_start_agrees_with_reading_row_by_row(block_size, n_rows):
    start = 0
    for n in range(1, n_rows + 1):
        while n - start > block_size:
            start += max(block_size // 2, 1)
    assert window_start(n_rows, block_size) == start


def read_until(song: SongInProgress, reader: Reader, n_rows: int, lot: int):
    """The contexts once a song's first `n_rows` rows are read, in lots."""
    rows, flags, bars, song.rows, song.flags = song.rows, song.flags, song.bars, [], []
    while len(song.rows) < n_rows:
        end = min(len(song.rows) + lot, n_rows)
        new, song.rows, song.flags, song.bars = end - len(song.rows), rows[:end], flags[:end], bars[:end]
        reading = reader.read([song], [new])
    return reading


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("bars", BARS)
@torch.no_grad()
def test_a_song_is_read_in_one_piece_or_several(cached, bars):
    model = tiny_model(block_size=8, bars=bars).double()
    prompt = np.sort(np.random.default_rng(0).integers(FIRST_ID, min(SMALL_VOCABULARY.sizes), (20, 4)), axis=0)
    of_prompt = request(prompt)
    rows = torch.tensor(SongInProgress(of_prompt, model.config).rows)
    window = rows[window_start(len(rows), 8):][None]
    expected = model.read(with_relative_bars(window) if bars == "relative" else window).states[:, -1:]
    for lot in (len(rows), 3, 1):
        reader = Reader(TorchPlayer(model), 1, cached)
        found = read_until(SongInProgress(of_prompt, model.config), reader, len(rows), lot)
        assert torch.allclose(found.states, expected, atol=1e-10)


# ---------------------------------------------------------------- batches


@pytest.mark.parametrize("kind", [{}, {"heads": "parallel", "positions": "sinusoidal"}, {"heads": "chain"},
                                  {"late_layers": 1, "positions": "metre", "bars": "relative", "given": True}],
                         ids=["gru", "reference", "chain", "default"])
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_songs_in_a_batch_are_those_made_alone_cached_or_not(kind, data):
    """Prompts of different lengths, songs that end at different times, given notes in some, windows that move."""
    v = load_vocabulary()
    model = tiny_model(v, block_size=12, **kind).double()
    if kind.get("given"):
        model.given.data.normal_(generator=torch.Generator().manual_seed(0))
    model.heads[BAR].bias.data[FIRST_ID:] = -0.5 * torch.arange(256)
    model.heads[BAR].bias.data[EOS] = data.draw(st.sampled_from([-12.0, -6.0, -3.0]))
    requests = []
    for seed in range(data.draw(st.integers(2, 5))):
        prompt = random_song(seed, n_notes, 2)[:n_notes] if (n_notes := data.draw(st.integers(0, 14))) else ()
        given_rows = random_song(100 + seed, 40, 12) if kind.get("given") and data.draw(st.booleans()) else ()
        requests.append(request(prompt, v, seed, 9, given_rows))
    config = GenConfig(**HOT, max_steps=25)
    together = sample_songs(TorchPlayer(model), requests, config)
    for of_batch, one in zip(together, requests, strict=True):
        for cached in (True, False):
            alone = sample_songs(TorchPlayer(model), [one], config, cached)[0]
            assert np.array_equal(of_batch.notes, alone.notes)
            assert np.allclose(of_batch.surprisals, alone.surprisals, rtol=0, atol=1e-9)
    slow = sample_songs(TorchPlayer(model), requests, config, cached=False)
    assert all(np.array_equal(a.notes, b.notes) for a, b in zip(together, slow, strict=True))


def test_given_notes_are_read_when_they_are_due():
    v = load_vocabulary()
    model = tiny_model(v, block_size=200, given=True, lookahead_bars=1, positions="metre")
    given_rows = random_song(1, 60, 8)
    under_way = SongInProgress(request((), v, 0, 8, given_rows), model.config)
    bars = (given_rows[:, BAR] - FIRST_ID).tolist()
    assert sum(under_way.flags) == sum(bar <= 1 for bar in bars)
    under_way.add((FIRST_ID + 3, FIRST_ID + 5, 10, 20))
    assert sum(under_way.flags) == sum(bar <= 4 for bar in bars)
    assert not under_way.flags[-1] or under_way.rows[-1][BAR] == FIRST_ID + 4
    under_way.add((FIRST_ID + 3, FIRST_ID + 6, 10, 20))
    assert not under_way.flags[-1]  # the rest of the bar is predicted from the last made note


@pytest.mark.parametrize(("first", "last"), [(0, 1), (3, 5), (7, 7)])
def test_bars_to_fill_are_read_in_the_order_of_training(first, last):
    v, rows = load_vocabulary(), random_song(first, 120, 8)
    model = tiny_model(v, block_size=200, given=True, lookahead_bars=2, positions="metre")
    bars = rows[:, BAR] - FIRST_ID
    before, after = rows[bars < first], rows[bars > last]
    song = SongInProgress(request(before, v, 0, last + 1 - first, after, first_bar=first), model.config)
    for note in rows[(bars >= first) & (bars <= last)].tolist():
        song.add(tuple(note))
    tasks = Anticipation(v, 2, 1.0)
    flagged = np.concatenate([whole(rows), np.zeros((len(rows) + 2, 1), np.int64)], 1)
    trained = tasks.filled(flagged, first + FIRST_ID, last + FIRST_ID, np.ones(len(v.parts), bool))
    n_read = len(song.rows)
    assert song.rows == [tuple(row) for row in trained[:n_read, :-1].tolist()]
    assert song.flags == trained[:n_read, -1].astype(bool).tolist()
    assert trained[n_read, BAR] == EOS


def test_dense_given_notes_hide_no_bar_that_is_still_to_be_made():
    """A window may hold given notes alone, later than the bars to be made, which relative bars must still reach."""
    v = load_vocabulary()
    model = tiny_model(v, block_size=32, sharpness=1, given=True, lookahead_bars=2, positions="metre", bars="relative")
    given_rows = random_song(1, 240, 8)
    for first_bar in (0, 2):
        wanted = request((), v, 0, 4, given_rows[given_rows[:, BAR] >= FIRST_ID + first_bar + 1], first_bar=first_bar)
        made = sample_songs(TorchPlayer(never_end(model)), [wanted], GenConfig(**HOT | {"max_steps": 20}))[0].notes
        assert made[0, BAR] < FIRST_ID + 4
        assert len(made)


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(("changes", "text"), [
    ({"temperature": (0.0, 1, 1, 1)}, "above 0"), ({"temperature": (-1, 1, 1, 1)}, "above 0"),
    ({"temperature": (1, 1, 1)}, "4 numbers"), ({"threshold": (0.9,)}, "4 numbers"),
    ({"threshold": (1.5, 1, 1, 1)}, "between 0 and 1"), ({"sampling_fn": "topk"}, "top_k, top_p"),
    ({"sampling_fn": "top_p", "threshold": (0, 1, 1, 1)}, "between 0 and 1"),
    ({"num_bars": 0}, "num_bars"), ({"max_steps": -1}, "max_steps"),
])
def test_bad_settings(changes, text):
    with pytest.raises(UserError, match=text):
        GenConfig(**changes)


def test_each_setting_changes_the_song():
    model = never_end(tiny_model(load_vocabulary(), sharpness=1))
    model.heads[BAR].bias.data[FIRST_ID:] = -0.2 * torch.arange(256)
    base = {"temperature": (1.0,) * 4, "sampling_fn": "top_p", "threshold": (0.5,) * 4, "num_bars": 30, "max_steps": 9}
    plain = song(model, vocabulary=load_vocabulary(), **base)
    changes = [{"temperature": (3.0,) * 4}, {"sampling_fn": "none"}, {"threshold": (0.2,) * 4}, {"num_bars": 1},
               {"max_steps": 2}]
    for change in changes:
        assert not np.array_equal(plain, song(model, vocabulary=load_vocabulary(), **(base | change))), change


# ---------------------------------------------------------------- for whoever watches


def test_each_note_is_told_as_it_is_drawn_with_its_song():
    wanted = [request(seed=seed, num_bars=4) for seed in range(3)]
    told = [[], [], []]
    songs = sample_songs(TorchPlayer(tiny_model()), wanted, GenConfig(**HOT, max_steps=40),
                         on_drawn=lambda place, note: told[place].append(note))
    assert len({len(notes) for notes in told}) > 1, "songs that end earlier do not move the places of others"
    for made, notes in zip(songs, told, strict=True):
        assert [tuple(row) for row in made.notes.tolist()] == notes


def test_who_watches_can_stop_it():
    told = []

    def stop_at_two(_place, note):
        told.append(note)
        if len(told) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample_songs(TorchPlayer(never_end(tiny_model())), [request()], GenConfig(**HOT), on_drawn=stop_at_two)
    assert len(told) == 2
