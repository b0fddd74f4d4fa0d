"""The engine beside plain torch: the same logits, whatever a model is made of and however it is read."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_songs import VOCABULARY
from tiny_models import HOT, KINDS, LATE, never_end, notes, small_model, tiny_model

from backline.engine.calls import FEW_PLACES
from backline.engine.onnx_player import ENGINE_DTYPES, OnnxContexts, OnnxPlayer
from backline.engine.player import Contexts, NewNotes
from backline.engine.torch_player import TorchPlayer
from backline.generation.config import GenConfig, RuleConfig
from backline.generation.loading import player_of, weights_of
from backline.generation.rules import Passage, Rules
from backline.generation.sampler import Request, sample_songs
from backline.layers.config import BARS, HEADS, POOLINGS, POSITIONS
from backline.music.vocab import BAR, FIELDS, FIRST_ID, load_vocabulary
from model import PooledTransformer

CLOSE = 1e-4  # of logits in fp32; those of these models are some units apart
ROUNDED = 0.2  # standard deviations of the logits that 8-bit weights may cost
PLAYED = [*KINDS, {"given": True, "bars": "relative"}, {"emb_pooling": "sum"}, LATE | {"controls": True, "given": True}]


def kind_name(kind: dict) -> str:
    return "-".join(map(str, kind.values()))


def new_notes(model: PooledTransformer, songs: np.ndarray, lengths: list[int], counts: list[int]) -> NewNotes:
    """The next `counts` notes of (B, N, F) songs of which `lengths` are read, marked and told at random."""
    longest = max(counts)
    ids = np.zeros((len(songs), longest, len(FIELDS)), np.int64)
    for song, length, count, its in zip(songs, lengths, counts, ids, strict=True):
        its[:count] = song[length:length + count]
    random = np.random.default_rng(sum(lengths))
    sizes = model.config.sheet_sizes or (1,)
    sheet = random.integers(0, sizes, (len(songs), longest, len(sizes)))
    return NewNotes(ids, counts, (random.random(ids.shape[:2]) < 0.4) & model.config.given, sheet)


def logits(contexts: Contexts, model: PooledTransformer, chosen: np.ndarray) -> list[np.ndarray]:
    """Those of all families; `chosen`: (B, F) ids of the note that is chosen."""
    chords = np.random.default_rng(1).integers(0, model.config.chord_sizes or (1,) * 3, (len(chosen), 3))
    found = [contexts.first_logits().copy()]
    for k in range(len(FIELDS) - 1):
        found.append(contexts.next_logits(k, chosen, chords).copy())
    return found


def story(player: OnnxPlayer | TorchPlayer, model: PooledTransformer, songs: np.ndarray,
          lots: list[list[int]], leaves: int) -> list[np.ndarray]:
    """All logits while songs are read in lots, one window is read anew, and one song leaves."""
    contexts = player.contexts(len(songs))
    first, *others = lots
    contexts.replace(range(len(songs)), new_notes(model, songs, [0] * len(songs), first), range(len(songs)))
    found = logits(contexts, model, songs[:, 20])
    for counts in others:
        contexts.read(new_notes(model, songs, contexts.lengths, counts))
        found += logits(contexts, model, songs[:, 21])
    window = new_notes(model, songs[1:2, 3:], [0], [5])
    contexts.read(new_notes(model, songs, contexts.lengths, [1, 0, 1]))
    contexts.replace([1, 2], window, [0, 0])  # two songs that know the same
    found += logits(contexts, model, songs[:, 22])
    rest = [song for song in (2, 0, 1) if song != leaves]
    contexts.keep(rest)
    found += logits(contexts, model, songs[rest, 22])
    contexts.read(new_notes(model, songs[rest], contexts.lengths, [2, 1]))
    return found + logits(contexts, model, songs[rest, 23])


def assert_close(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=CLOSE)


@pytest.mark.parametrize("kind", PLAYED, ids=kind_name)
def test_the_engine_gives_torch_s_logits(kind):
    model = small_model(torch.float32, **kind)
    songs = notes(0, 1, 2, n_notes=28).numpy()
    lots = [[5, 3, 4], [1, 1, 1], [1, 4, 2], [1, 1, 1]]
    found, expected = (story(player, model, songs, lots, leaves=1) for player in (player_of(model), TorchPlayer(model)))
    assert_close(found, expected)


@st.composite
def kinds(draw) -> dict:
    """Any settings of a small model that go together."""
    heads = draw(st.sampled_from(HEADS))
    late_layers = 0 if heads == "parallel" else draw(st.integers(0, 1))
    return {"heads": heads, "positions": draw(st.sampled_from(POSITIONS)), "bars": draw(st.sampled_from(BARS)),
            "emb_pooling": draw(st.sampled_from(POOLINGS)), "given": draw(st.booleans()),
            "qk_norm": draw(st.booleans()), "n_heads": draw(st.sampled_from([1, 2])), "late_layers": late_layers,
            "controls": bool(late_layers) and draw(st.booleans())}


@settings(max_examples=30, deadline=None)
@given(kind=kinds(), data=st.data())
def test_any_model_read_in_any_lots_gives_torch_s_logits(kind, data):
    model = small_model(torch.float32, **kind)
    songs = notes(*data.draw(st.lists(st.integers(0, 99), min_size=3, max_size=3)), n_notes=28).numpy()
    counts = st.lists(st.integers(1, 4), min_size=3, max_size=3)
    lots = data.draw(st.lists(counts, min_size=1, max_size=4))
    leaves = data.draw(st.integers(0, 2))
    found, expected = (story(player, model, songs, lots, leaves) for player in (player_of(model), TorchPlayer(model)))
    assert_close(found, expected)


@pytest.mark.parametrize("kind", PLAYED, ids=kind_name)
def test_8_bit_weights_cost_little(kind):
    model = small_model(torch.float32, **kind)
    songs = notes(0, 1, 2, n_notes=28).numpy()
    lots = [[5, 3, 4], [1, 4, 2]]
    rounded = OnnxPlayer(model.config, weights_of(model), "int8")
    found, exact = (story(player, model, songs, lots, leaves=1) for player in (rounded, player_of(model)))
    distances = [np.sqrt(np.square(one - other).mean()) / other.std() for one, other in zip(found, exact, strict=True)]
    assert 0 < max(distances) < ROUNDED


def test_heads_that_attention_does_not_take_are_played_by_torch():
    """ONNX Runtime's attention wants a head's width to be a multiple of 8."""
    assert isinstance(player_of(small_model(torch.float32, n_heads=4)), TorchPlayer)
    assert isinstance(player_of(small_model(torch.float32, n_heads=2)), OnnxPlayer)


def test_a_cache_grows_as_songs_do():
    model = small_model(torch.float32, block_size=3 * FEW_PLACES, **LATE)
    songs = notes(3, 4, n_notes=2 * FEW_PLACES + 20).numpy()
    results = []
    for player in (player_of(model), TorchPlayer(model)):
        found = []
        contexts = player.contexts(2)
        contexts.replace([0, 1], new_notes(model, songs, [0, 0], [FEW_PLACES - 2, 7]), [0, 1])
        for counts in ([1, 1], [1, 1], [1, 1], [FEW_PLACES, 1], [1, 1]):
            contexts.read(new_notes(model, songs, contexts.lengths, counts))
            found += logits(contexts, model, songs[:, -2])
        results.append(found)
        if isinstance(contexts, OnnxContexts):
            assert FEW_PLACES < contexts.caches.capacity <= 4 * FEW_PLACES
    assert_close(*results)


@pytest.mark.parametrize("dtype", ENGINE_DTYPES)
def test_the_same_seeds_give_the_same_songs_again(dtype):
    model = tiny_model(load_vocabulary(), block_size=24, sharpness=4, **LATE | {"given": True})
    runs = []
    for _ in range(2):
        player = OnnxPlayer(model.config, weights_of(model), dtype)
        rules = Rules(load_vocabulary(), RuleConfig(), Passage(16))
        songs = sample_songs(player, [Request(rules, seed) for seed in range(4)], GenConfig(**HOT, max_steps=40))
        runs.append([song.notes.tolist() for song in songs])
    assert runs[0] == runs[1]
    assert len(set(map(str, runs[0]))) == 4


@pytest.mark.parametrize("kind", [{}, {"positions": "sinusoidal", "heads": "parallel"}, {"heads": "chain"},
                                  LATE | {"bars": "relative"}], ids=kind_name)
def test_engine_and_torch_make_the_same_songs_past_the_window(kind):
    """With prompts, songs that end at different times, and windows that move; rounding parts few of them."""
    model = never_end(tiny_model(load_vocabulary(), block_size=16, sharpness=2, **kind))
    model.heads[BAR].bias.data[FIRST_ID:] = -0.3 * torch.arange(256)
    prompt = notes(7, n_notes=9)[0, 1:-1].numpy()
    rules = Rules(VOCABULARY, RuleConfig(), Passage(32))
    requests = [Request(rules, seed, prompt[:seed]) for seed in range(8)]
    config = GenConfig(**HOT, max_steps=60)
    both = (sample_songs(player, requests, config) for player in (player_of(model), TorchPlayer(model)))
    same = [np.array_equal(one.notes, other.notes) for one, other in zip(*both, strict=True)]
    assert sum(same) >= 7
