"""Copied bars: counted as a slow version counts them, and what `variety` does about them."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import HOT, tiny_model

from backline.engine.torch_player import TorchPlayer
from backline.generation.config import GenConfig, RuleConfig
from backline.generation.repetition import BARS_BACK, repeats_in_a_row
from backline.generation.rules import Passage, Rules
from backline.generation.sampler import Request, sample_songs
from backline.music.vocab import BAR, FIRST_ID, PITCH_INSTRUMENT, START_POS, load_vocabulary

VOCABULARY = load_vocabulary()

KINDS = {".": [], "a": [(0, 10)], "b": [(0, 10), (8, 20)], "c": [(8, 20)]}

NOTHING = np.zeros((0, 4), np.int64)


def song(bars: str) -> np.ndarray:
    """(N, F) ids, a kind of bar for each letter; how long notes last is another in each bar."""
    return np.array([[FIRST_ID + bar, FIRST_ID + step, FIRST_ID + bar % 7, pitch] for bar, kind in enumerate(bars)
                     for step, pitch in KINDS[kind]], np.int64).reshape(-1, 4)


@given(bars=st.text(".abc", max_size=30))
def test_copies_are_counted_as_a_slow_version_counts_them(bars):
    bars = bars.rstrip(".")  # nobody knows of empty bars at the end
    expected, in_a_row = [], 0
    for i, bar in enumerate(bars):
        in_a_row = in_a_row + 1 if bar != "." and bar in bars[max(i - BARS_BACK, 0):i] else 0
        expected.append(in_a_row)
    assert repeats_in_a_row(song(bars)).tolist() == expected


def test_bars_further_back_are_not_copied():
    assert repeats_in_a_row(song("a" + "." * (BARS_BACK - 1) + "a"))[-1] == 1
    assert repeats_in_a_row(song("a" + "." * BARS_BACK + "a"))[-1] == 0


def test_variety_leads_out_of_a_loop():
    model = tiny_model(VOCABULARY, heads="parallel")
    for family, head in enumerate(model.heads):  # one note in each bar, nearly always the same
        head.weight.data.zero_()
        head.bias.data = torch.arange(len(head.bias)) * 4.0 if family == BAR else torch.zeros(len(head.bias))
        if family in (START_POS, PITCH_INSTRUMENT):
            head.bias.data[FIRST_ID + 3] = 9.0

    def longest(variety: float, loop_guard: float = 0.0, prompt: np.ndarray = NOTHING) -> list[int]:
        config = GenConfig(**HOT | {"temperature": (1.0,) * 4, "variety": variety, "loop_guard": loop_guard})
        rules = [Rules(VOCABULARY, RuleConfig(no_empty_bars=True), Passage(60)) for _ in range(4)]
        made = sample_songs(TorchPlayer(model), [Request(of_song, seed, prompt) for seed, of_song in enumerate(rules)],
                            config)
        return [int(repeats_in_a_row(song.notes).max()) for song in made]

    assert min(longest(0.0)) > 2 * max(longest(0.5))
    assert longest(0.0, loop_guard=0.5) == longest(0.5), "from scratch the guard is the variety"
    prompt = np.array([[FIRST_ID] * 4])
    assert longest(0.0, loop_guard=0.5, prompt=prompt) == longest(0.0, prompt=prompt), "a prompt may be a loop"
