"""The Transformer: its size, what each setting does, what it may see, and that caching changes nothing."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from random_songs import VOCABULARY, random_song
from tiny_models import KINDS, LATE, SMALL, notes, small_model
from torch import Tensor, nn

from backline.common.errors import UserError
from backline.common.settings import config_from_dict, config_to_dict
from backline.layers.attention import CHUNK, Dropout, causal_attention, rotate
from backline.layers.config import BARS, HEADS, POOLINGS, POSITIONS, ModelConfig
from backline.layers.positions import music_time, with_relative_bars
from backline.layers.recurrent import written_out
from backline.music.reading_order import GivenNotes
from backline.music.vocab import BAR, BOS, CHOICE_ORDER, EOS, FIELDS, FIRST_ID, PAD, PITCH_INSTRUMENT, START_POS
from backline.training.losses import note_losses, window_losses
from model import PooledTransformer

CONFIGS = Path(__file__).parents[1] / "configs"
PUBLISHED = Path(__file__).parents[2] / "shared" / "compat" / "published_state_dict.json"
PUBLISHED_PARAMETERS = 39_151_247
REFERENCE = ModelConfig.for_vocabulary(VOCABULARY)


def read_config(path: Path) -> ModelConfig:
    return ModelConfig.from_dict(json.loads(path.read_text()), VOCABULARY, path.name)




# ---------------------------------------------------------------- the published reference


def test_reference_has_the_published_size():
    config = read_config(CONFIGS / "model_reference.json")
    assert config == REFERENCE
    assert PooledTransformer(config).n_parameters() == PUBLISHED_PARAMETERS


@pytest.mark.skipif(not PUBLISHED.is_file(), reason="the published list of tensor shapes is not at hand")
def test_reference_has_the_published_tensors():
    shapes = {name: tuple(shape) for name, shape in json.loads(PUBLISHED.read_text()).items()
              if not name.endswith("pos_encoding.pe")}
    assert sum(math.prod(shape) for shape in shapes.values()) == PUBLISHED_PARAMETERS
    wanted = Counter(shape for name, shape in shapes.items() if not name.endswith(("to_q.weight", "to_k.weight")))
    for name, shape in shapes.items():
        if name.endswith("to_v.weight"):  # queries, keys and values are one matrix here
            wanted[shape] -= 1
            wanted[3 * shape[0], shape[1]] += 1
    own = Counter(tuple(parameter.shape) for parameter in PooledTransformer(REFERENCE).parameters())
    assert own == +wanted


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("model*.json")), ids=lambda path: path.name)
def test_every_config_loads(path):
    config = read_config(path)
    assert config_from_dict(ModelConfig, config_to_dict(config), "again") == config
    assert config.n_tokens == VOCABULARY.sizes


# ---------------------------------------------------------------- settings

# For each field a change, and what must show it.
EFFECTS = {
    "emb_sizes": ({"emb_sizes": (8, 8, 12, 8)}, "weights"),
    "emb_pooling": ({"emb_pooling": "sum"}, "weights"),
    "n_layers": ({"n_layers": 3}, "weights"),
    "n_heads": ({"n_heads": 4}, "output"),
    "d_model": ({"d_model": 24}, "weights"),
    "d_ff": ({"d_ff": 24}, "weights"),
    "dropout": ({"dropout": 0.5}, "training"),
    "block_size": ({"block_size": 48}, "cache"),
    "heads": ({"heads": "parallel"}, "weights"),
    "positions": ({"positions": "rotary"}, "output"),
    "late_layers": ({"late_layers": 1}, "weights"),
    "qk_norm": ({"qk_norm": True}, "output"),
    "bars": ({"bars": "relative"}, "losses"),
    "given": ({"given": True}, "weights"),
    "lookahead_bars": ({"lookahead_bars": 1}, "reading"),
    "order": ({"order": ("pitch_instrument", "bar", "start_pos", "note_dur")}, "output"),
    "n_tokens": ({"n_tokens": (300, 40, 140, 230)}, "weights"),
    "steps_per_bar": ({"steps_per_bar": 16}, "output"),
    "controls": ({"controls": True}, "weights"),
    "control_sizes": ({"control_sizes": (3, 10, 14, 10, 14)}, "weights"),
}
BESIDE = {"controls": {"late_layers": 1}, "control_sizes": {"late_layers": 1, "controls": True}}  # needed to matter


def behaviour(**changes) -> dict[str, list]:
    """What a config can change: the weights' shapes, the output, the output while training, the cache's shapes."""
    model = small_model(**{"heads": "gru", "positions": "music_time"} | changes)
    ids = notes(0, 1)
    found = {"weights": [parameter.shape for parameter in model.parameters()]}
    cache = model.new_cache(1)
    found["cache"] = [tensor.shape for layer in cache.layers for tensor in layer]
    found["output"] = torch.cat(model(ids, ids), -1).tolist()
    found["reading"] = GivenNotes(ids[0, 1:-1].numpy(), model.config.lookahead_bars).due(0)
    found["losses"] = window_losses(model, model.config, ids[:, 7:]).tolist()
    model.train()
    torch.manual_seed(0)
    found["training"] = torch.cat(model(ids, ids), -1).tolist()
    return found


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(ModelConfig)])
def test_every_setting_has_its_effect(field):
    changes, shown_by = EFFECTS[field]
    beside = BESIDE.get(field, {})
    before, after = behaviour(**beside), behaviour(**beside | changes)
    assert after[shown_by] != before[shown_by]
    if shown_by in ("cache", "training", "losses"):
        assert after["output"] == before["output"]


# ---------------------------------------------------------------- controls


def told_model(**changes) -> PooledTransformer:
    return small_model(**LATE | {"controls": True} | changes)


def random_controls(model: PooledTransformer, length: int) -> Tensor:
    """(1, T, K) ids."""
    generator = torch.Generator().manual_seed(5)
    return torch.stack([torch.randint(size, (1, length), generator=generator) for size in model.config.control_sizes],
                       dim=-1)


def test_controls_begin_at_zero_so_a_model_grows_them_and_plays_as_before():
    model = small_model(torch.float32, **LATE)
    more = {"controls": True, "given": True, "block_size": 64}
    config = ModelConfig.for_vocabulary(VOCABULARY, **vars(model.config) | more)
    assert model.config.differences(config) == []
    grown = model.grown(config).eval()
    ids = notes(0, 1)
    told = random_controls(grown, ids.shape[1]).expand(2, -1, -1)
    before, after = model(ids, ids), grown(ids, ids, sheet=told[..., :-3], chords=told[..., -3:])
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert grown.config.differences(model.config) == ["block_size", "control_sizes", "controls", "given"]
    assert model.config.differences(dataclasses.replace(grown.config, d_model=32)) == ["d_model"]
    as_before = dataclasses.replace(model.config, d_ff=4 * model.config.d_model)
    assert model.config.differences(as_before) == []


def test_a_control_that_is_not_told_is_unknown():
    model, ids = told_model(), notes(0)
    unknown = torch.zeros((1, ids.shape[1], len(model.config.control_sizes)), dtype=torch.long)
    assert all(torch.equal(a, b) for a, b in zip(model(ids, ids), model(
        ids, ids, sheet=unknown[..., :-3], chords=unknown[..., -3:]), strict=True))


def test_the_chord_reaches_what_comes_after_the_time_and_its_own_note_alone():
    model, ids = told_model(), notes(0)
    told = random_controls(model, ids.shape[1])
    other = told.clone()
    other[:, 4, -3:] = (told[:, 4, -3:] + 1) % torch.tensor(model.config.control_sizes[-3:])
    one, two = (model(ids, ids, sheet=told[..., :-3], chords=controls[..., -3:]) for controls in (told, other))
    for family, (a, b) in enumerate(zip(one, two, strict=True)):
        changed = (a != b).any(-1)[0].nonzero().flatten().tolist()
        assert changed == ([] if family in (BAR, START_POS) else [4])


def test_the_sheet_reaches_the_notes_after_it():
    model, ids = told_model(), notes(0)
    told = random_controls(model, ids.shape[1])
    other = told.clone()
    other[:, 4, 0] = (told[:, 4, 0] + 1) % model.config.control_sizes[0]
    for a, b in zip(*(model(ids, ids, sheet=controls[..., :-3]) for controls in (told, other)), strict=True):
        assert (a != b).any(-1)[0].nonzero().flatten().tolist() == list(range(4, ids.shape[1]))


def test_losses_take_the_sheet_of_the_note_read_and_the_chord_of_the_note_predicted():
    model, ids = told_model(), notes(0)
    told = random_controls(model, ids.shape[1])
    rows = torch.cat([ids, torch.zeros_like(ids[..., :1]), told], -1)
    expected = note_losses(model(ids[:, :-1], ids[:, 1:], sheet=told[:, :-1, :-3], chords=told[:, 1:, -3:]), ids[:, 1:])
    assert torch.equal(window_losses(model, model.config, rows), expected)


def test_dropout_reaches_every_layer_and_is_off_outside_training():
    model = small_model(dropout=0.25)
    rates = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    assert rates == [0.25] * (1 + 3 * SMALL.n_layers)
    assert torch.equal(model.read(notes(0)).states, small_model(dropout=0.0).read(notes(0)).states)
    block = model.blocks[0].attention.train()
    x = torch.ones(1, 5, 16, dtype=torch.float64)
    assert not torch.equal(block(x, None, None, 0), block(x, None, None, 0))


@pytest.mark.parametrize(("bad", "text"), [
    ({"d_model": 30, "n_heads": 4}, "d_model=30 must be a multiple of n_heads=4"),
    ({"emb_pooling": "mean"}, "emb_pooling='mean' must be one of concat, sum"),
    ({"heads": "lstm"}, "heads='lstm' must be one of parallel, chain, gru"),
    ({"positions": "learned"}, "positions='learned' must be one of sinusoidal, rotary, music_time, metre"),
    ({"order": ["bar", "bar", "note_dur"]}, "order=['bar', 'bar', 'note_dur'] must name each of bar, start_pos"),
    ({"n_layers": 2, "late_layers": 2, "heads": "gru"}, "late_layers=2 must be from 0 to n_layers − 1 = 1"),
    ({"late_layers": 1, "heads": "parallel"}, "late_layers=1 needs heads other than parallel"),
    ({"late_layers": 1, "heads": "gru", "order": ["pitch_instrument", "bar", "start_pos", "note_dur"]},
     "an order that begins with bar and start_pos"),
    ({"controls": True}, "chords are told before the first late layer; set late_layers to at least 1"),
    ({"bars": "both"}, "bars='both' must be one of absolute, relative"),
    ({"emb_pooling": "sum", "emb_sizes": [8, 8, 8, 9]}, "emb_pooling 'sum' needs equal emb_sizes, not [8, 8, 8, 9]"),
    ({"emb_sizes": [8, 8, 8]}, "emb_sizes=[8, 8, 8] must be 4 numbers of at least 1"),
    ({"emb_sizes": [8, 8, 8, 0]}, "emb_sizes=[8, 8, 8, 0] must be 4 numbers of at least 1"),
    ({"emb_sizes": 8}, "emb_sizes must be a list, not 8"),
    ({"emb_sizes": [8, 8, 8, "8"]}, "emb_sizes must be a whole number, not '8'"),
    ({"n_tokens": [1, 2]}, "n_tokens=[1, 2] must be 4 numbers"),
    ({"n_layers": 0}, "n_layers=0 must be at least 1"),
    ({"n_heads": -1}, "n_heads=-1 must be at least 1"),
    ({"d_model": 0}, "d_model=0 must be at least 1"),
    ({"d_ff": -1}, "d_ff=-1 must be at least 0"),
    ({"block_size": 0}, "block_size=0 must be at least 1"),
    ({"steps_per_bar": -4}, "steps_per_bar=-4 must be at least 1"),
    ({"dropout": 1.0}, "dropout=1.0 must be at least 0 and below 1"),
    ({"dropout": -0.1}, "dropout=-0.1 must be at least 0 and below 1"),
    ({"dropout": "0.1"}, "dropout must be a number, not '0.1'"),
    ({"n_layers": 2.5}, "n_layers must be a whole number, not 2.5"),
    ({"n_layers": True}, "n_layers must be a whole number, not True"),
    ({"d_model": 15, "n_heads": 3}, "d_model=15 must be even for sinusoidal positions"),
    ({"d_model": 12, "n_heads": 2, "positions": "rotary"}, "d_model/n_heads=6 must be a multiple of 4 for rotary"),
    ({"d_model": 12, "n_heads": 2, "late_layers": 1, "heads": "gru"}, "d_model/n_heads=6 must be a multiple of 4"),
    ({"n_layer": 2}, "unknown key 'n_layer'; did you mean 'n_layers'?"),
])
def test_bad_settings_are_clear_errors(bad, text):
    with pytest.raises(UserError) as caught:
        ModelConfig.from_dict(bad, VOCABULARY, "mine.json")
    assert str(caught.value).startswith("mine.json: ")
    assert text in str(caught.value)


# ---------------------------------------------------------------- agreement with a slow version


def slow_states(model: PooledTransformer, ids: Tensor) -> Tensor:
    """Trunk states (T, D) of one song (T, F), a note, a head and a pair of notes at a time."""
    config = model.config
    width = config.d_model // config.n_heads  # C
    positions = []  # for each note, the angle of each pair
    for i, (bar, start_pos, *_) in enumerate(ids.tolist()):
        time = (bar - FIRST_ID) * config.steps_per_bar + start_pos - FIRST_ID if bar >= FIRST_ID else 0
        if config.positions == "rotary":
            positions.append([i / 10000 ** (k / (width // 2)) for k in range(width // 2)])
        elif config.positions == "metre":  # four pairs: once in a bar, once in a quarter, and two of the usual rates
            quarter = config.steps_per_bar / 4
            positions.append([2 * math.pi * time / config.steps_per_bar, 2 * math.pi * time / quarter, time,
                              time / 10000 ** (1 / 2)])
        else:
            positions.append([(time if k % 2 else i) / 10000 ** (k // 2 / (width // 4)) for k in range(width // 2)])

    def turned(vector: Tensor, i: int) -> Tensor:
        if config.positions == "sinusoidal":
            return vector
        angles = torch.tensor(positions[i], dtype=vector.dtype)
        turned = torch.complex(*vector.chunk(2)) * torch.polar(torch.ones_like(angles), angles)
        return torch.cat([turned.real, turned.imag])

    stream = []
    for i, note in enumerate(ids.tolist()):
        vectors = [table.weight[family_id] for table, family_id in zip(model.embeddings, note, strict=True)]
        x = model.in_norm(model.in_linear(torch.cat(vectors) if config.emb_pooling == "concat" else sum(vectors)))
        if config.positions == "sinusoidal":
            x = x + torch.tensor([(math.cos if d % 2 else math.sin)(i / 10000 ** (d // 2 * 2 / config.d_model))
                                  for d in range(config.d_model)])
        stream.append(x)
    for block in model.blocks:
        queries, keys, values = ([weight @ block.attention_norm(x) for x in stream]
                                 for weight in block.attention.to_qkv.weight.chunk(3))
        attended = []
        for i in range(len(stream)):
            heads = []
            for h in range(config.n_heads):
                part = slice(h * width, (h + 1) * width)
                scores = [turned(queries[i][part], i) @ turned(keys[j][part], j) / math.sqrt(width)
                          for j in range(i + 1)]
                shares = torch.stack(scores).softmax(0)
                heads.append(sum(share * values[j][part] for j, share in enumerate(shares)))
            attended.append(block.attention.to_out(torch.cat(heads)))
        stream = [x + change for x, change in zip(stream, attended, strict=True)]
        first, _, _, second = block.ff
        stream = [x + second(nn.functional.gelu(first(block.ff_norm(x)))) for x in stream]
    return torch.stack([model.out_norm(x) for x in stream])


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("pooling", POOLINGS)
@torch.no_grad()
def test_states_agree_with_a_slow_version(positions, pooling):
    model = small_model(positions=positions, emb_pooling=pooling)
    ids = notes(3, 4)
    for song, states in zip(ids, model.read(ids).states, strict=True):
        torch.testing.assert_close(states, slow_states(model, song), rtol=0, atol=1e-4)  # angles are in float32


@torch.no_grad()
def test_chained_heads_agree_with_a_slow_version():
    model = small_model(heads="gru")
    ids = notes(5)
    states, logits = model.read(ids[:, :-1]).states, model(ids[:, :-1], ids[:, 1:])
    for t, state in enumerate(states[0]):
        hidden = state
        for k, family in enumerate(CHOICE_ORDER):
            shown = state + hidden if k else state
            torch.testing.assert_close(logits[family][0, t], model.heads[family](shown), rtol=0, atol=1e-12)
            if k + 1 < len(CHOICE_ORDER):
                hidden = model.gru(model.chosen[k].weight[ids[0, t + 1, family]][None], hidden[None])[0]


@torch.no_grad()
def test_late_layers_agree_with_a_slow_version():
    """The state after each note, once the next one's time is chosen, looks back at all notes read, pair by pair."""
    model = small_model(**LATE)
    ids = notes(5)
    entered = []
    model.blocks[0].register_forward_pre_hook(lambda _block, given: entered.append(given[0][0]))
    states, logits = model.read(ids[:, :-1]).states[0], model(ids[:, :-1], ids[:, 1:])
    times, block = music_time(ids, SMALL.steps_per_bar)[0].tolist(), model.late_blocks[0]
    quarter, width = SMALL.steps_per_bar / 4, SMALL.d_model // SMALL.n_heads

    def turned(vector: Tensor, time: int) -> Tensor:
        """Each head's part turned by the four rates of the metre."""
        rates = [2 * math.pi / SMALL.steps_per_bar, 2 * math.pi / quarter, 1, 1 / 100]
        angles = time * torch.tensor(rates, dtype=torch.float64)
        real, imaginary = vector.view(SMALL.n_heads, 2, width // 2).unbind(1)
        pairs = torch.complex(real, imaginary) * torch.polar(torch.ones_like(angles), angles)
        return torch.cat([pairs.real, pairs.imag], -1)

    known = block.attention.to_kv(torch.cat([states, entered[0]], -1))
    keys = [turned(key, time) for key, time in zip(known[:, :SMALL.d_model], times, strict=False)]
    values = known[:, SMALL.d_model:].view(-1, SMALL.n_heads, width)
    for t, state in enumerate(states):
        hidden = state
        for k in (0, 1):
            hidden = model.gru(model.chosen[k].weight[ids[0, t + 1, CHOICE_ORDER[k]]][None], hidden[None])[0]
        seen = state + hidden
        query = turned(block.attention.to_q(block.attention_norm(seen)), times[t + 1])
        shares = torch.stack([(query * keys[j]).sum(-1) / math.sqrt(width) for j in range(t + 1)]).softmax(0)  # (j, H)
        x = seen + block.attention.to_out((shares[..., None] * values[:t + 1]).sum(0).flatten())
        x = x + block.ff(block.ff_norm(x))
        torch.testing.assert_close(logits[CHOICE_ORDER[2]][0, t], model.heads[CHOICE_ORDER[2]](x), rtol=0, atol=1e-4)
        hidden = model.gru(model.chosen[2].weight[ids[0, t + 1, CHOICE_ORDER[2]]][None], (hidden + x - seen)[None])[0]
        torch.testing.assert_close(logits[CHOICE_ORDER[3]][0, t], model.heads[CHOICE_ORDER[3]](state + hidden), rtol=0,
                                   atol=1e-4)


# ---------------------------------------------------------------- what it may see


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
@torch.no_grad()
def test_a_later_note_changes_no_earlier_output(kind):
    model = small_model(**kind)
    ids = notes(1)
    changed = ids.clone()
    changed[:, 6] = notes(2)[:, 3]
    before, after = (torch.cat(model(x[:, :-1], x[:, 1:]), -1) for x in (ids, changed))
    # Output 5 predicts note 6: heads in a chain may see its families; the trunk may not.
    torch.testing.assert_close(after[:, :5], before[:, :5], rtol=0, atol=1e-12)
    torch.testing.assert_close(model.read(changed).states[:, :6], model.read(ids).states[:, :6], rtol=0, atol=1e-12)
    assert ((after - before)[:, 6:].abs().amax(-1) > 1e-6).all()


@pytest.mark.parametrize("k", range(len(FIELDS)))
@torch.no_grad()
def test_a_family_sees_only_the_families_chosen_before_it(k):
    model = small_model(heads="gru")
    ids = notes(1)
    told = ids[:, 1:].clone()
    told[:, 4, CHOICE_ORDER[k]] = FIRST_ID if told[0, 4, CHOICE_ORDER[k]] != FIRST_ID else FIRST_ID + 1
    before, after = model(ids[:, :-1], ids[:, 1:]), model(ids[:, :-1], told)
    for place, family in enumerate(CHOICE_ORDER):
        moved = (after[family] - before[family]).abs().amax(-1)[0]
        assert (moved[4] > 1e-6) == (place > k)
        assert moved[:4].max() == moved[5:].max() == 0


@torch.no_grad()
def test_parallel_heads_need_no_next_note_and_ignore_it():
    model = small_model(heads="parallel")
    ids = notes(1)
    for alone, told in zip(model(ids), model(ids, ids.flip(1)), strict=True):
        assert torch.equal(alone, told)
    with pytest.raises(ValueError, match="next_ids"):
        small_model(heads="gru")(ids)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
@pytest.mark.parametrize("chunks", [[1] * 12, [12], [5, 7], [1, 4, 1, 6], [11, 1]])
@torch.no_grad()
def test_cached_states_equal_uncached_ones(kind, chunks):
    model = small_model(**kind)
    ids = notes(1, 2)
    cache = model.new_cache(len(ids))
    states = torch.cat([model.read(chunk, cache).states for chunk in ids.split(chunks, dim=1)], dim=1)
    torch.testing.assert_close(states, model.read(ids).states, rtol=0, atol=1e-10)
    assert cache.lengths == [ids.shape[1]] * len(ids)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
@torch.no_grad()
def test_families_step_by_step_equal_all_at_once(kind):
    model = small_model(**kind)
    ids, next_ids = notes(1, 2)[:, :-1], notes(1, 2)[:, 1:]
    at_once = model(ids, next_ids)
    reading, cache = model.read(ids), model.new_cache(len(ids))
    for note in ids.split(1, dim=1):  # one at a time, as generation reads
        last = model.read(note, cache)
    one = {family: ids[:, -1:] for family, ids in enumerate(next_ids.unbind(-1))}
    hidden, hidden_of_last = reading.states, last.states
    for k, family in enumerate(model.order):
        torch.testing.assert_close(model.head(k, reading.states, hidden), at_once[family], rtol=0, atol=1e-10)
        of_last = model.head(k, last.states, hidden_of_last)
        torch.testing.assert_close(of_last, at_once[family][:, -1:], rtol=0, atol=1e-10)
        if k + 1 < len(model.order):
            hidden = model.advance(k, next_ids.unbind(-1), reading, hidden)
            hidden_of_last = model.advance(k, one, last, hidden_of_last)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
@torch.no_grad()
def test_songs_of_different_lengths_in_one_batch_are_read_as_alone(kind):
    """Rows of each song come in lots of different sizes; one song leaves, another's notes are replaced."""
    model, songs = small_model(**kind), notes(1, 2, 3)
    cache, done = model.new_cache(3), [0, 0, 0]
    for counts in ([3, 1, 2], [1, 1, 1], [0, 4, 1], [2, 1, 1]):
        longest = max(counts)
        ids = torch.stack([nn.functional.pad(song[first:first + count], (0, 0, 0, longest - count), value=BOS)
                           for song, first, count in zip(songs, done, counts, strict=True)])
        states = model.read(ids, cache, counts).states
        done = [first + count for first, count in zip(done, counts, strict=True)]
        for song, states_of_song, end, count in zip(songs, states, done, counts, strict=True):
            alone = model.read(song[None, :end]).states[0]
            torch.testing.assert_close(states_of_song[:count], alone[end - count:], rtol=0, atol=1e-10)
    fresh = model.new_cache(1)
    model.read(songs[:1, :4], fresh)
    cache.replace([1], fresh, [0])
    cache.keep([2, 1])
    wanted, firsts = [songs[2], songs[0]], [done[2], 4]
    ids = torch.stack([song[first:first + 1] for song, first in zip(wanted, firsts, strict=True)])
    reading = model.last_read(model.read(ids, cache).states, cache)
    following = {family: torch.full((2, 1), 7) for family in range(len(FIELDS))}
    for b, (song, first) in enumerate(zip(wanted, firsts, strict=True)):
        alone, hidden = model.read(song[None, :first + 1]), reading.states
        alone = alone._replace(states=alone.states[:, -1:])  # of the last note, which sees all those before it
        hidden_alone = alone.states
        for k in range(len(model.order)):
            in_batch, by_itself = model.head(k, reading.states, hidden)[b], model.head(k, alone.states, hidden_alone)[0]
            torch.testing.assert_close(in_batch, by_itself, rtol=0, atol=1e-10)
            if k + 1 < len(model.order):
                hidden = model.advance(k, following, reading, hidden)
                hidden_alone = model.advance(k, {f: ids[:1] for f, ids in following.items()}, alone, hidden_alone)


@torch.no_grad()
def test_late_layers_know_the_time_of_the_note_under_way():
    """Its pitch depends on when notes sounded before it, by how long ago: moving all of them changes nothing."""
    model = small_model(**LATE)
    model.embeddings[BAR].weight.zero_()
    model.chosen[0].weight.zero_()
    model.chosen[1].weight.zero_()  # the time is told by the late layers alone
    ids = notes(1)[:, 1:-1]
    told = ids[:, 1:].clone()
    told[..., START_POS] = FIRST_ID + (told[..., START_POS] - FIRST_ID + 5) % VOCABULARY.steps_per_bar
    plain, other = model(ids[:, :-1], ids[:, 1:]), model(ids[:, :-1], told)
    moved = model(shifted(ids, 8)[:, :-1], shifted(ids, 8)[:, 1:])
    assert torch.equal(other[BAR], plain[BAR]) and torch.equal(other[START_POS], plain[START_POS])
    assert (other[PITCH_INSTRUMENT] - plain[PITCH_INSTRUMENT]).abs().max() > 1e-2
    torch.testing.assert_close(moved[PITCH_INSTRUMENT], plain[PITCH_INSTRUMENT], rtol=0, atol=1e-3)


# ---------------------------------------------------------------- positions


def shifted(ids: Tensor, bars: int, from_note: int = 0) -> Tensor:
    """`ids` with the notes from `from_note` on that many bars later."""
    ids = ids.clone()
    ids[:, from_note:, BAR] += bars
    return ids


@pytest.mark.parametrize(("positions", "sees_gaps"), [("sinusoidal", False), ("rotary", False), ("music_time", True),
                                                     ("metre", True)])
@torch.no_grad()
def test_only_the_bar_embedding_tells_where_in_the_song_a_passage_stands(positions, sees_gaps):
    model = small_model(positions=positions)
    ids = notes(1)[:, 1:-1]  # special rows stay where they are when bars move
    assert not torch.allclose(model.read(shifted(ids, 8)).states, model.read(ids).states, atol=1e-3)
    model.embeddings[BAR].weight.zero_()
    torch.testing.assert_close(model.read(shifted(ids, 8)).states, model.read(ids).states, rtol=0, atol=1e-3)
    gap = model.read(shifted(ids, 2, from_note=5)).states - model.read(ids).states
    assert (gap[:, 5:].abs().max() > 1e-2) == sees_gaps


def test_music_time_counts_steps_from_the_songs_start():
    bars, steps = [0, 0, 3, 255], [0, 31, 5, 31]
    ids = torch.full((1, 6, len(FIELDS)), FIRST_ID)
    ids[0, 1:5, BAR] += torch.tensor(bars)
    ids[0, 1:5, START_POS] += torch.tensor(steps)
    ids[0, 0], ids[0, 5] = 1, 2
    expected = [0, *(bar * 32 + step for bar, step in zip(bars, steps, strict=True)), 0]
    assert music_time(ids, 32).tolist() == [expected]


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 300), st.integers(0, 1000))
def test_rotated_vectors_know_only_their_distance(first, second, shift, seed):
    generator = torch.Generator().manual_seed(seed)
    query, key = torch.randn(2, 1, 1, 1, 8, generator=generator, dtype=torch.float64)

    def turned(x: Tensor, position: int) -> Tensor:
        angles = position * torch.tensor([1.0, 0.1, 0.01, 0.001], dtype=torch.float64)
        return rotate(x, torch.stack([angles.cos(), angles.sin()]))

    def score(first: int, second: int) -> float:
        return (turned(query, first) * turned(key, second)).sum().item()

    assert score(first + shift, second + shift) == pytest.approx(score(first, second), abs=1e-9)
    assert turned(query, first).norm().item() == pytest.approx(query.norm().item())
    assert torch.equal(turned(query, 0), query)


@pytest.mark.parametrize("length", [1, 5, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7])
def test_attention_in_chunks_is_attention(length):
    torch.manual_seed(0)
    one, other = (torch.randn(3, 2, 2, length, 8, dtype=torch.float64).requires_grad_() for _ in range(2))
    other.data.copy_(one.data)
    found = causal_attention(*one, Dropout(0))
    expected = nn.functional.scaled_dot_product_attention(*other, is_causal=True)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    for result in (found, expected):
        (result * torch.linspace(-1, 1, result.numel(), dtype=torch.float64).view_as(result)).sum().backward()
    torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=1e-12)


def test_dropout_drops_weights_of_attention_and_keeps_their_mean():
    torch.manual_seed(0)
    query, key = torch.randn(2, 1, 1, 400, 4)
    value = torch.ones(1, 1, 400, 4)
    dropped = causal_attention(query, key, value, Dropout(0.5))
    assert set(dropped[0, 0, 0].tolist()) <= {0.0, 2.0}  # the first note sees itself or nothing
    assert dropped.mean().item() == pytest.approx(1, abs=0.1)
    assert dropped.std() > 0.05
    assert torch.allclose(causal_attention(query, key, value, Dropout(0.5).eval()), value, atol=1e-6)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_dropout_sets_its_share_to_0_and_scales_the_rest(share):
    torch.manual_seed(0)
    x = torch.full((1000, 1003), 3.0, requires_grad=True)
    dropped = Dropout(share)(x)
    nearest = round(share * 256) / 256
    assert dropped.unique().tolist() == [0, pytest.approx(3 / (1 - nearest))]
    is_0 = dropped == 0
    assert is_0.double().mean().item() == pytest.approx(share, abs=0.004)
    assert (is_0[:, 1:] & is_0[:, :-1]).double().mean().item() == pytest.approx(share ** 2, abs=0.006)  # one by one
    dropped.sum().backward()
    assert torch.equal(x.grad * 3, dropped.detach())  # what was dropped gets no gradient
    assert torch.equal(Dropout(share).eval()(x), x)


# ---------------------------------------------------------------- bars


def test_relative_bars_count_from_the_first_note_and_leave_the_next_song():
    bars = [[9, 9, 11, EOS, BOS, 6, 7], [BOS, 6, 6, 8, EOS, BOS, 5], [EOS, BOS, 9, 9, 9, 9, 12]]
    ids = torch.tensor(bars)[..., None].repeat(1, 1, 4)
    expected = torch.tensor([[4, 4, 6, EOS, BOS, 6, 7], bars[1], bars[2]])
    found = with_relative_bars(ids)
    assert torch.equal(found[..., BAR], expected)
    assert torch.equal(found[..., 1:], ids[..., 1:])


def test_with_relative_bars_a_song_sounds_the_same_wherever_its_window_stands():
    early = notes(0)[:, 2:]
    late = torch.where((early >= FIRST_ID) & (torch.arange(4) == BAR), early + 100, early)
    for bars in BARS:
        model = small_model(bars=bars, heads="gru", positions="music_time")
        losses = [window_losses(model, model.config, rows) for rows in (early, late)]
        assert torch.allclose(*losses, atol=1e-3) == (bars == "relative")


# ---------------------------------------------------------------- losses


@given(st.integers(0, 1000), st.lists(st.booleans(), min_size=6, max_size=6))
def test_losses_agree_with_a_slow_version(seed, padded):
    generator = torch.Generator().manual_seed(seed)
    logits = [torch.randn(2, 3, n, generator=generator) for n in (5, 7, 6, 9)]
    targets = torch.randint(1, 5, (2, 3, 4), generator=generator)
    targets[torch.tensor(padded).view(2, 3)] = PAD
    losses = note_losses(logits, targets)
    for b, t, f in itertools.product(range(2), range(3), range(4)):
        probability = logits[f][b, t].double().softmax(-1)[targets[b, t, f]]
        expected = -math.log(probability) if targets[b, t, f] != PAD else 0
        assert losses[b, t, f].item() == pytest.approx(expected, rel=1e-5)


def test_knowing_nothing_costs_the_logarithm_of_the_vocabulary():
    logits = [torch.zeros(1, 4, n) for n in VOCABULARY.sizes]
    losses = note_losses(logits, torch.full((1, 4, 4), BOS))
    torch.testing.assert_close(losses[0, 0], torch.tensor(VOCABULARY.sizes).float().log())


# ---------------------------------------------------------------- learning


def fit(model: PooledTransformer, ids: Tensor, next_ids: Tensor, steps: int) -> float:
    """Train on one batch; returns its last loss, in nats per note."""
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(steps):
        loss = note_losses(model(ids, next_ids), next_ids).mean((0, 1)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_a_batch_can_be_learned_by_heart(kind):
    torch.manual_seed(0)
    model = PooledTransformer(dataclasses.replace(SMALL, d_model=32, **kind))
    ids = notes(1, 2)
    before = note_losses(model(ids[:, :-1], ids[:, 1:]), ids[:, 1:]).mean((0, 1)).sum().item()
    assert before > 15
    assert fit(model, ids[:, :-1], ids[:, 1:], 80) < 0.5


def test_only_chained_heads_learn_that_the_parts_of_a_note_agree():
    """A song begins with one of two notes: log 2 nats for whoever knows that the families go together."""
    first, second = random_song(1, 1), random_song(2, 1)
    assert (first != second).all()
    next_ids = torch.stack([torch.from_numpy(first), torch.from_numpy(second)])
    ids = torch.full((2, 1, len(FIELDS)), BOS)
    found = {}
    for heads in HEADS:
        torch.manual_seed(0)
        found[heads] = fit(PooledTransformer(dataclasses.replace(SMALL, heads=heads)), ids, next_ids, 100)
    assert found["gru"] == pytest.approx(math.log(2), rel=0.1)
    assert found["parallel"] == pytest.approx(4 * math.log(2), rel=0.1)


def test_a_recurrent_cell_written_out_is_the_cell():
    cell = torch.nn.GRUCell(16, 16)
    x, hidden = torch.randn(2, 50, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(written_out(cell, x, hidden), cell(x, hidden))
