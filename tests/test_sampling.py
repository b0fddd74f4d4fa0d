"""Sampling: valid notes only, filters as documented, one song per seed, cached or not."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from errors import UserError
from generation_args import SAMPLING_FNS, GenConfig
from model import BARS, HEADS, POSITIONS, ModelConfig, PooledTransformer, with_relative_bars
from sampling import TIME, Context, Rules, filtered, sample_song, window_start
from vocab import BAR, BOS, EOS, FIELDS, FIRST_ID, PITCH_INSTRUMENT, START_POS, load_vocabulary

SMALL_VOCABULARY = load_vocabulary({
    "format": "pooled-vocabulary", "version": 1, "bars": 3, "steps_per_bar": 4, "max_duration_steps": 4,
    "parts": [{"name": name, "is_drum": False, "program": 0, "accepts": [], "lowest_pitch": 60, "highest_pitch": 61}
              for name in ("left", "right")]})
ORDERS = list(itertools.permutations(FIELDS))
HOT = {"temperature": (5.0,) * 4, "sampling_fn": "none"}


def tiny_model(vocabulary=SMALL_VOCABULARY, block_size=16, sharpness=8, **changes) -> PooledTransformer:
    torch.manual_seed(0)
    settings = {"emb_sizes": (4,) * 4, "n_layers": 2, "n_heads": 2, "d_model": 16, "heads": "gru",
                "positions": "music_time", "dropout": 0.0} | changes
    model = PooledTransformer(ModelConfig(n_tokens=vocabulary.sizes, steps_per_bar=vocabulary.steps_per_bar,
                                          block_size=block_size, **settings))
    for parameter in model.parameters():  # far from uniform, so that a wrong state shows
        parameter.data.mul_(sharpness)
    return model.eval()


def song(model, prompt=(), vocabulary=SMALL_VOCABULARY, seed=0, cached=True, **changes) -> np.ndarray:
    prompt = np.array(prompt, np.int64).reshape(-1, 4)
    return sample_song(model, vocabulary, prompt, GenConfig(**(HOT | changes)), seed, cached)


def keys(rows) -> list[tuple[int, int, int]]:
    return [(row[BAR], row[START_POS], row[PITCH_INSTRUMENT]) for row in rows.tolist()]


def never_end(model) -> PooledTransformer:
    """The model, but so unwilling to end that it does so only where nothing else is left."""
    model.heads[BAR].bias.data[EOS] = -1e9
    return model


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


def slow_mask(rules: Rules, family: int, chosen: dict[int, int], previous) -> set[int]:
    """The ids of `family` after which some whole valid note remains, by trying all notes."""
    v = rules.vocabulary
    notes = [(bar, pos, pitch) for bar in range(FIRST_ID, rules.last_bar + 1)
             for pos in range(FIRST_ID, v.sizes[START_POS]) for pitch in range(FIRST_ID, v.sizes[PITCH_INSTRUMENT])
             if previous is None
             or (bar, pos, pitch) > (previous[BAR], previous[START_POS], previous[PITCH_INSTRUMENT])]
    fitting = [note for note in notes if all(note[TIME.index(f)] == id_ for f, id_ in chosen.items() if f in TIME)]
    if family not in TIME:
        return set(range(FIRST_ID, v.sizes[family])) if fitting else set()
    return {note[TIME.index(family)] for note in fitting}


@given(data=st.data(), last=st.integers(FIRST_ID, SMALL_VOCABULARY.sizes[BAR] - 1), order=st.permutations(range(4)))
def test_masks_allow_exactly_what_leaves_a_valid_note(data, last, order):
    v = SMALL_VOCABULARY
    rules = Rules(v, last)
    ids = [st.integers(FIRST_ID, size - 1) | st.just(size - 1) for size in v.sizes]  # often the last
    previous = data.draw(st.none() | st.tuples(st.integers(FIRST_ID, last), *ids[1:]))
    chosen: dict[int, int] = {}
    for family in order:
        expected = slow_mask(rules, family, chosen, previous)
        mask = rules.mask(family, chosen, previous, may_end=False)
        allowed = set(torch.nonzero(mask).flatten().tolist())
        if not chosen and not expected:
            assert allowed == {EOS}
            return
        assert allowed == expected
        assert rules.mask(family, chosen, previous, may_end=True)[EOS] == (not chosen)
        chosen[family] = data.draw(st.sampled_from(sorted(expected)))


# ---------------------------------------------------------------- filters


@given(logits=st.lists(st.integers(-60, 60), min_size=2, max_size=40, unique=True), threshold=st.floats(0.01, 1))
def test_filters_agree_with_slow_versions(logits, threshold):
    tensor = torch.tensor(logits, dtype=torch.float64) / 7
    probabilities = tensor.softmax(-1).tolist()
    by_likelihood = sorted(range(len(logits)), key=lambda i: -probabilities[i])

    def kept(fn: str) -> set[int]:
        return set(torch.nonzero(filtered(tensor, fn, threshold).isfinite()).flatten().tolist())

    assert len(kept("top_k")) == max(1, math.ceil(round((1 - threshold) * len(logits), 6)))
    assert kept("top_k") == set(by_likelihood[:len(kept("top_k"))])
    nucleus, mass = set(), 0.0
    for i in by_likelihood:
        if mass < threshold - 1e-9 or not nucleus:
            nucleus.add(i)
        mass += probabilities[i]
    assert kept("top_p") == nucleus or abs(sum(probabilities[i] for i in kept("top_p")) - threshold) < 1e-6
    assert kept("min_p") == {i for i, p in enumerate(probabilities) if p >= threshold * max(probabilities)}
    assert kept("none") == set(range(len(logits)))


@pytest.mark.parametrize(("size", "threshold", "kept"), [(260, 0.9, 26), (36, 0.9, 4), (132, 0.9, 14), (227, 0.9, 23),
                                                         (10, 1.0, 1), (10, 0.0, 10)])
def test_top_k_removes_the_published_share_rounded_up(size, threshold, kept):
    assert filtered(torch.randn(size), "top_k", threshold).isfinite().sum() == kept


def test_masked_ids_stay_masked():
    logits = torch.tensor([-torch.inf, 1.0, -torch.inf, 0.5])
    for fn in SAMPLING_FNS:
        assert not filtered(logits, fn, 0.1).isfinite()[[0, 2]].any()


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
    after_last = Rules(load_vocabulary(), FIRST_ID + 3)
    logits = model.heads[BAR].bias.data
    assert after_last.end_beyond(logits, tuple(prompt[0]))[EOS] == 1e3  # in the last bar: the end is wanted
    assert after_last.end_beyond(logits, (FIRST_ID + 2, 4, 4, 10))[EOS] == -1e6  # before it: masked, not ended
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


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("bars", BARS)
def test_context_reads_in_one_piece_or_several(cached, bars):
    model = tiny_model(block_size=8, bars=bars).double()
    rows = torch.randint(FIRST_ID, min(SMALL_VOCABULARY.sizes), (21, 4)).sort(0).values
    rows[0] = BOS
    whole = Context(model, cached).read(rows)
    pieces = Context(model, cached)
    for piece in rows.split(3):
        reading = pieces.read(piece)
    with torch.no_grad():
        window = rows[window_start(len(rows), 8):]
        window = with_relative_bars(window[None]) if bars == "relative" else window[None]
        expected = model.read(window).states[:, -1:]
    for found in (whole, reading):
        assert torch.allclose(found.states, expected, atol=1e-10)


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(("changes", "text"), [
    ({"temperature": (0.0, 1, 1, 1)}, "above 0"), ({"temperature": (-1, 1, 1, 1)}, "above 0"),
    ({"temperature": (1, 1, 1)}, "4 numbers"), ({"threshold": (0.9,)}, "4 numbers"),
    ({"threshold": (1.5, 1, 1, 1)}, "between 0 and 1"), ({"sampling_fn": "topk"}, "top_k, top_p"),
    ({"sampling_fn": "top_p", "threshold": (0, 1, 1, 1)}, "between 0 and 1"),
    ({"num_bars": 0}, "num_bars"), ({"max_steps": 0}, "max_steps"),
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
