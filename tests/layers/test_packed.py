"""Models made ready to play: each layer and the whole against the plain ones, cached or not, alone or in a batch."""

from __future__ import annotations

import copy
import dataclasses
import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import KINDS, notes, small_model
from torch import Tensor, nn

from backline.common.errors import UserError
from backline.generation.config import DTYPES
from backline.layers import packed as inference
from backline.layers.attention import Dropout
from backline.layers.cache import KeyValueCache
from backline.layers.config import BARS, HEADS, POOLINGS, POSITIONS
from backline.layers.packed import ByteLinear, PackedLinear, PlayingCache, can_pack, for_inference, pick_engine
from model import PooledTransformer

ROUNDING = {"fp32": 1e-5, "bf16": 0.05, "int8": 0.15}  # what it may cost, in standard deviations of the logits
PLAYED = [*KINDS, {"given": True, "bars": "relative"}, {"emb_pooling": "sum"}]
packs = pytest.mark.skipif(not can_pack(torch.float32), reason="no oneDNN or FBGEMM here")


def kind_name(kind: dict) -> str:
    return "-".join(map(str, kind.values()))


def played(model: PooledTransformer, ids: Tensor, lots: list[int], given: Tensor | None = None) -> list[Tensor]:
    """What `model(ids[:, :-1], ids[:, 1:])` gives, of notes read in lots with a cache."""
    cache, found, start = model.new_cache(len(ids)), [], 0
    for lot in lots:
        new = ids[:, start:start + lot]
        reading = model.read(new, cache, given=None if given is None else given[:, start:start + lot])
        found.append(model.logits(reading, ids[:, start + 1:start + lot + 1]))
        start += lot
    return [torch.cat(of_family, 1) for of_family in zip(*found, strict=True)]


def lots_of(length: int, first: int) -> list[int]:
    """A prompt, and then note by note."""
    return [first] + [1] * (length - first)


def closeness(found: list[Tensor], expected: list[Tensor]) -> float:
    """The usual difference, in standard deviations of what is expected."""
    return max(float((one.float() - other.float()).square().mean().sqrt() / other.float().std())
               for one, other in zip(found, expected, strict=True))


# ---------------------------------------------------------------- layers


@packs
@settings(max_examples=30)
@given(n_in=st.integers(1, 70), n_out=st.integers(1, 300), n_rows=st.integers(1, 20), bias=st.booleans(),
       seed=st.integers(0, 99))
def test_a_packed_layer_gives_what_the_plain_one_gives(n_in, n_out, n_rows, bias, seed):
    torch.manual_seed(seed)
    linear, x, residual = nn.Linear(n_in, n_out, bias), torch.randn(n_rows, 1, n_in), torch.randn(n_rows, 1, n_out)
    with torch.no_grad():
        for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 0.05)):
            if not can_pack(dtype):
                continue
            packed, plain = PackedLinear(linear, dtype), linear(x)
            for found, expected in ((packed(x.to(dtype)), plain),
                                    (packed(x.to(dtype), "gelu"), nn.functional.gelu(plain)),
                                    (packed.added_to(residual.to(dtype), x.to(dtype)), residual + plain)):
                assert found.dtype == dtype
                torch.testing.assert_close(found.float(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("n_rows", [1, 16])
@torch.no_grad()
def test_a_layer_of_bytes_is_close_to_the_plain_one(n_rows):
    torch.manual_seed(0)
    linear, x, residual = nn.Linear(64, 96), torch.randn(n_rows, 1, 64), torch.randn(n_rows, 1, 96)
    rounded, plain = ByteLinear(linear), linear(x)
    for found, expected in ((rounded(x), plain), (rounded(x, "gelu"), nn.functional.gelu(plain)),
                            (rounded.added_to(residual, x), residual + plain)):
        torch.testing.assert_close(found, expected, rtol=0, atol=0.05)
    assert not torch.equal(rounded(x), plain)


@packs
@torch.no_grad()
def test_one_row_alone_is_what_it_is_among_others():
    torch.manual_seed(0)
    packed, x = PackedLinear(nn.Linear(48, 200), torch.float32), torch.randn(5, 1, 48)
    for row, among_others in zip(x, packed(x), strict=True):
        torch.testing.assert_close(packed(row[None]), among_others[None], rtol=0, atol=1e-5)


def test_can_pack_says_no_without_onednn_or_fbgemm_and_for_other_numbers(monkeypatch):
    assert not can_pack(torch.float64)
    with monkeypatch.context() as without:
        without.setattr(torch.backends.mkldnn, "is_available", lambda: False)
        assert not can_pack(torch.float32) and not can_pack(torch.bfloat16)
    with monkeypatch.context() as without:
        without.setattr(inference, "ENGINES", ("qnnpack",))
        assert not can_pack(torch.float32)


@torch.no_grad()
def test_a_machine_that_cannot_pack_plays_the_plain_model(monkeypatch):
    monkeypatch.setattr(inference, "can_pack", lambda _dtype: False)
    plain = small_model(torch.float32)
    play, ids = for_inference(copy.deepcopy(plain), "fp32"), notes(0)
    assert type(play.new_cache(1)) is KeyValueCache
    assert closeness(played(play, ids, lots_of(9, 4)), plain(ids[:, :9], ids[:, 1:10])) < 1e-4


# ---------------------------------------------------------------- caches


@torch.no_grad()
def test_both_caches_hand_out_memories_that_attend_alike():
    torch.manual_seed(0)
    shape, off = (2, 2, 150, 8), Dropout(0.5).eval()
    plain, playing = (kind(1, shape, torch.device("cpu"), torch.float64) for kind in (KeyValueCache, PlayingCache))
    for n_rows, counts in ((70, [70, 3]), (1, [1, 1]), (4, [0, 4]), (1, [1, 0])):
        key, value, query = torch.randn(3, 2, 2, n_rows, 8, dtype=torch.float64)
        found = []
        for cache in (plain, playing):
            cache.begin(n_rows)
            found.append(cache.extend(0, key, value).attend(query, off))
            cache.end(counts)
        torch.testing.assert_close(*found, rtol=0, atol=1e-12)
        held = [cache.held(0, cache.last_seen()).attend(query[:, :, :1], off) for cache in (plain, playing)]
        torch.testing.assert_close(*held, rtol=0, atol=1e-12)


# ---------------------------------------------------------------- whole models


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", PLAYED, ids=kind_name)
@torch.no_grad()
def test_a_prepared_model_gives_the_plain_one_s_logits(kind, dtype):
    plain = small_model(torch.float32, **kind)
    play = for_inference(copy.deepcopy(plain), dtype)
    ids = notes(0, 1)
    given_notes = torch.rand(ids.shape[:2]) < 0.5 if kind.get("given") else None
    expected = plain(ids[:, :-1], ids[:, 1:], None if given_notes is None else given_notes[:, :-1])
    for n_songs in (1, 2):
        mine = None if given_notes is None else given_notes[:n_songs]
        found = played(play, ids[:n_songs], lots_of(ids.shape[1] - 1, 5), mine)
        assert closeness(found, [of_family[:n_songs] for of_family in expected]) < ROUNDING[dtype]


def in_weighted_sums(model: PooledTransformer) -> PooledTransformer:
    """`model` with the cache and the blocks that play, in its own dtype: its layers are the plain ones."""
    prepare = functools.partial(inference.replace_layers, make=PlainLinear)
    return prepare(copy.deepcopy(model))


class PlainLinear(nn.Module):
    """A plain layer that can be asked as those that play are."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x: Tensor, activation: str = "none") -> Tensor:
        out = self.linear(x)
        return nn.functional.gelu(out) if activation == "gelu" else out

    def added_to(self, residual: Tensor, x: Tensor) -> Tensor:
        return residual + self(x)


@st.composite
def kinds(draw) -> dict:
    """Any settings of a small model that go together."""
    heads = draw(st.sampled_from(HEADS))
    return {"heads": heads, "positions": draw(st.sampled_from(POSITIONS)), "bars": draw(st.sampled_from(BARS)),
            "emb_pooling": draw(st.sampled_from(POOLINGS)), "given": draw(st.booleans()),
            "n_heads": draw(st.sampled_from([1, 2, 4])), "block_size": draw(st.sampled_from([14, 64, 130])),
            "late_layers": 0 if heads == "parallel" else draw(st.integers(0, 1))}


@settings(max_examples=40)
@given(kind=kinds(), n_songs=st.integers(1, 3), seed=st.integers(0, 99), first=st.integers(1, 12))
@torch.no_grad()
def test_cached_is_uncached_in_exact_numbers(kind, n_songs, seed, first):
    model = small_model(**kind)
    ids = notes(*range(seed, seed + n_songs), n_notes=13)[:, :15]
    given_notes = torch.rand(ids.shape[:2]) < 0.5 if kind["given"] else None
    expected = model(ids[:, :-1], ids[:, 1:], None if given_notes is None else given_notes[:, :-1])
    for play in (model, in_weighted_sums(model)):
        found = played(play, ids, lots_of(14, first), given_notes)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


# ---------------------------------------------------------------- batches


@pytest.mark.parametrize("kind", [{}, {"heads": "gru", "positions": "metre", "late_layers": 1}], ids=["plain", "late"])
@pytest.mark.parametrize("weighted", [False, True])
@torch.no_grad()
def test_songs_of_unequal_lengths_are_read_as_alone_also_after_some_have_left(kind, weighted):
    model = small_model(block_size=140, **kind)
    model = in_weighted_sums(model) if weighted else model
    songs = notes(3, 4, 5, n_notes=120)
    lengths = [70, 1, 64]  # on both sides of a chunk's end
    cache = model.new_cache(3)
    model.read(songs[:, :70], cache, lengths)
    active = [0, 1, 2]
    for step in range(12):
        if step == 4:
            cache.keep([2, 1])  # the first leaves, the others change places
            active = [2, 1]
        rows = torch.stack([songs[song, lengths[song]:lengths[song] + 2] for song in active])
        counts = [1 + (step + song) % 2 for song in active]  # one note or two
        states = model.read(rows, cache, counts).states
        last = model.last_read(states[torch.arange(len(active)), torch.tensor(counts) - 1][:, None], cache)
        batched = model.logits(last, songs[:len(active), 50:51])  # whatever comes next
        for place, (song, count) in enumerate(zip(active, counts, strict=True)):
            lengths[song] += count
            own = model.new_cache(1)
            read = model.read(songs[song:song + 1, :lengths[song]], own)
            alone = model.logits(model.last_read(read.states[:, -1:], own), songs[place:place + 1, 50:51])
            for one, other in zip(batched, alone, strict=True):
                torch.testing.assert_close(one[place], other[0], rtol=0, atol=1e-4)  # angles are in float32


@torch.no_grad()
def test_a_window_read_anew_replaces_the_notes_of_one_song():
    model = in_weighted_sums(small_model(block_size=140))
    songs = notes(3, 4, n_notes=120)
    cache, other = model.new_cache(2), model.new_cache(1)
    model.read(songs[:, :100], cache)
    model.read(songs[1:, 60:100], other)
    cache.replace([1], other, [0])
    assert cache.lengths == [100, 40]
    states = model.read(songs[:, 100:101], cache).states
    for song, start in ((0, 0), (1, 60)):
        alone = model.read(songs[song:song + 1, start:101], model.new_cache(1)).states
        torch.testing.assert_close(states[song, 0], alone[0, -1], rtol=0, atol=1e-5)


def test_the_cache_that_plays_holds_as_much():
    model = for_inference(small_model(torch.float32), "fp32")
    assert type(model.new_cache(1)) is (PlayingCache if can_pack(torch.float32) else KeyValueCache)
    assert model.new_cache(3).capacity == model.config.block_size + 1
    assert dataclasses.asdict(model.config) == dataclasses.asdict(small_model().config)


class Engines:
    """In place of `torch.backends.quantized`."""

    def __init__(self, supported_engines: list[str], engine: str) -> None:
        self.supported_engines = supported_engines
        self.engine = engine


@pytest.mark.parametrize(("supported", "engine", "picked"), [
    (["none", "qnnpack"], "none", "qnnpack"), (["qnnpack", "x86"], "x86", "x86"), (["fbgemm"], "none", "fbgemm")])
def test_int8_takes_the_engine_that_is_there(monkeypatch, supported, engine, picked):
    engines = Engines(supported, engine)
    monkeypatch.setattr(torch.backends, "quantized", engines)
    pick_engine()
    assert engines.engine == picked


@pytest.mark.parametrize("supported", [[], ["none"]])
def test_int8_without_an_engine_is_one_line(monkeypatch, supported):
    monkeypatch.setattr(torch.backends, "quantized", Engines(supported, "none"))
    with pytest.raises(UserError, match=r"--dtype int8: this build of torch has no engine .* take bf16 or fp32"):
        for_inference(small_model(), "int8")


@pytest.mark.skipif("qnnpack" not in inference.ENGINES, reason="no QNNPACK here")
def test_int8_rounds_alike_with_the_engine_of_apple_silicon():
    before = torch.backends.quantized.engine
    torch.manual_seed(0)
    linear, x = nn.Linear(48, 32).requires_grad_(False), torch.randn(3, 48)
    try:
        torch.backends.quantized.engine = "qnnpack"
        assert closeness([ByteLinear(linear)(x)], [linear(x)]) < ROUNDING["int8"]
    finally:
        torch.backends.quantized.engine = before
