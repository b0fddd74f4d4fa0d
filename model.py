"""The decoder-only Transformer over pooled tokens, and nothing of the stages.

Shapes: B batch, T notes, F families, D residual width, V_f ids in family f, H heads, C width of a head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from backline.layers.attention import Dropout, causal_attention, normed_key, normed_query, rotate
from backline.layers.cache import KeyValueCache
from backline.layers.config import ModelConfig
from backline.layers.positions import frequencies, metre_rates, music_time, sinusoids, turns
from backline.music.chords import CHORD_FIELDS, UNKNOWN
from backline.music.vocab import (
    BAR,
    FIELDS,
    START_POS,
)

# Of control vectors: at the rate of all other weights they were too short to be heard after 10 M notes.
CONTROL_GAIN = 8.0
CHAIN_FACTOR = 2  # width of the feed-forward block between two heads of a chain, over d_model


class Attention(nn.Module):
    """Causal self-attention without biases, optionally with rotated queries and keys."""

    def __init__(self, width: int, n_heads: int, dropout: float, qk_norm: bool = False) -> None:
        super().__init__()
        self.n_heads, self.dropout = n_heads, Dropout(dropout)
        self.qk_norm = qk_norm
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, rotation: Tensor | None, cache: KeyValueCache | None, layer: int) -> Tensor:
        """(B, T, D) from (B, T, D); `cache` holds the notes before these and takes them in as its `layer`."""
        batch, length, width = x.shape
        query, key, value = (self.to_qkv(x).view(batch, length, 3, self.n_heads, width // self.n_heads)
                             .permute(2, 0, 3, 1, 4))  # each (B, H, T, C)
        if self.qk_norm:
            query, key = normed_query(query), normed_key(key)
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)
        visible = None
        if cache is not None:
            key, value = cache.extend(layer, key, value)
            visible = cache.visible
        out = causal_attention(query, key, value, self.dropout, visible)
        return self.to_out(out.transpose(1, 2).reshape(batch, length, width))


class LateAttention(nn.Module):
    """From notes under way, of which the time is known, to the notes read, by how far apart in time they sound."""

    def __init__(self, width: int, n_heads: int, dropout: float, qk_norm: bool = False) -> None:
        super().__init__()
        self.n_heads, self.dropout = n_heads, Dropout(dropout)
        self.qk_norm = qk_norm
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_kv = nn.Linear(2 * width, 2 * width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)

    def keys_values(self, read: Tensor, rotation: Tensor) -> tuple[Tensor, Tensor]:
        """(B, H, T, C) keys and values of notes read, of which (B, T, 2·D) is known."""
        key, value = self.to_kv(read).unflatten(-1, (2, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        key = normed_key(key) if self.qk_norm else key
        return rotate(key, rotation), value

    def queries(self, x: Tensor, rotation: Tensor) -> Tensor:
        """(B, H, T, C) of notes under way (B, T, D)."""
        query = self.to_q(x).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
        query = normed_query(query) if self.qk_norm else query
        return rotate(query, rotation)

    def forward(self, x: Tensor, rotation: Tensor, key: Tensor, value: Tensor, visible: Tensor | None) -> Tensor:
        """(B, T, D) from (B, T, D): each note under way sees all that was read before it, L ≥ T notes in the end."""
        out = causal_attention(self.queries(x, rotation), key, value, self.dropout, visible)
        return self.to_out(out.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """One pre-norm decoder block: attention, then a feed-forward layer with GELU."""

    def __init__(self, config: ModelConfig, attention: type[nn.Module] = Attention) -> None:
        super().__init__()
        width = config.d_model
        self.attention_norm = nn.LayerNorm(width)
        self.attention = attention(width, config.n_heads, config.dropout, config.qk_norm)
        self.ff_norm = nn.LayerNorm(width)
        self.ff = nn.Sequential(nn.Linear(width, config.ff_width), nn.GELU(), Dropout(config.dropout),
                                nn.Linear(config.ff_width, width))
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, *seen: Any) -> Tensor:
        """(B, T, D) from (B, T, D); `seen` is what the kind of attention takes besides."""
        x = x + self.dropout(self.attention(self.attention_norm(x), *seen))
        return x + self.dropout(self.ff(self.ff_norm(x)))


class ControlVectors(nn.Module):
    """The sum of a learned vector for each control of a note; all are zero before training."""

    def __init__(self, sizes: Sequence[int], width: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.zeros(sum(sizes), width))
        firsts = torch.tensor([sum(sizes[:i]) for i in range(len(sizes))])
        self.register_buffer("firsts", firsts, persistent=False)  # row of each control's id 0

    def forward(self, ids: Tensor) -> Tensor:
        """(B, T, D) from (B, T, K) ids of K controls."""
        rows = (ids + self.firsts).flatten(0, 1)
        sums = nn.functional.embedding_bag(rows, self.vectors, mode="sum")
        return CONTROL_GAIN * sums.unflatten(0, ids.shape[:2])


class Reading(NamedTuple):
    """What a model made of the notes it read."""

    states: Tensor  # (B, T, D) of the trunk
    memory: list[tuple[Tensor, Tensor]]  # for each late block, (B, H, L, C) keys and values of L ≥ T notes
    visible: Tensor | None = None  # (B, 1, T, L) which of them each note sees, None where it is all before it


class PooledTransformer(nn.Module):
    """From notes to a distribution over the next note's families.

    `forward` gives all logits at once, for training; `read`, `head` and `advance` give them step by step.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config, self.cache_dtype = config, None  # that of the weights, unless set
        self.cache_type = KeyValueCache
        width = config.d_model
        self.embeddings = nn.ModuleList(nn.Embedding(n, size)
                                        for n, size in zip(config.n_tokens, config.emb_sizes, strict=True))
        pooled = sum(config.emb_sizes) if config.emb_pooling == "concat" else config.emb_sizes[0]
        self.in_linear = nn.Linear(pooled, width)
        self.in_norm = nn.LayerNorm(width)
        if config.given:
            self.given = nn.Parameter(torch.zeros(width))
        if config.controls:
            self.sheet_vectors = ControlVectors(config.sheet_sizes, width)
            self.chord_vectors = ControlVectors(config.chord_sizes, width)
        self.in_dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers - config.late_layers))
        self.out_norm = nn.LayerNorm(width)
        self.heads = nn.ModuleList(nn.Linear(width, n) for n in config.n_tokens)
        self.order = tuple(FIELDS.index(name) for name in config.order)
        if config.heads != "parallel":
            self.chosen = nn.ModuleList(nn.Embedding(config.n_tokens[f], width) for f in self.order[:-1])
        if config.heads == "gru":
            self.gru = nn.GRUCell(width, width)
        elif config.heads == "chain":
            self.links = nn.ModuleList(_link(width) for _ in self.order[:-1])
        self.late_blocks = nn.ModuleList(Block(config, LateAttention) for _ in range(config.late_layers))
        self.apply(_initialize)
        # Residual branches start small (GPT-2, Radford et al. 2019, section 2.3).
        for block in (*self.blocks, *self.late_blocks):
            for layer in (block.attention.to_out, block.ff[-1]):
                nn.init.normal_(layer.weight, std=0.02 / math.sqrt(2 * config.n_layers))

    # ------------------------------------------------------------ trunk

    def read(self, ids: Tensor, cache: KeyValueCache | None = None, counts: Sequence[int] | None = None,
             given: Tensor | None = None, sheet: Tensor | None = None) -> Reading:
        """Take in the notes `ids` (B, T, F), after those in `cache`, to which they are added.

        Args:
            counts: how many of them are each song's own, the rest being there to fill the batch; None: all.
            given: (B, T) bool, which of them are given; None: none.
            sheet: (B, T, S) ids of the controls that come with notes read; None: all unknown.
        """
        embedded = [table(ids[..., f]) for f, table in enumerate(self.embeddings)]
        pooled = torch.cat(embedded, dim=-1) if self.config.emb_pooling == "concat" else torch.stack(embedded).sum(0)
        x = self.in_norm(self.in_linear(pooled))
        if self.config.given and given is not None:
            x = x + given[..., None].to(x.dtype) * self.given
        if self.config.controls:
            sheet = ids.new_full((*ids.shape[:2], len(self.config.sheet_sizes)), UNKNOWN) if sheet is None else sheet
            x = x + self.sheet_vectors(sheet).to(x.dtype)
        n_rows = ids.shape[1]
        index = cache.begin(n_rows) if cache is not None else torch.arange(n_rows, device=ids.device)[None]
        rotation = None
        if self.config.positions == "sinusoidal":
            x = x + sinusoids(index, self.config.d_model).to(x.dtype)
        else:
            rotation = self._rotation(ids, index).to(x.dtype)
        entered = x = self.in_dropout(x)
        for layer, block in enumerate(self.blocks):
            x = block(x, rotation, cache, layer)
        states = self.out_norm(x)
        memory = self._memory(ids, torch.cat([states, entered], -1), cache) if self.late_blocks else []
        if cache is None:
            return Reading(states, memory)
        cache.end(counts or [n_rows] * len(ids))
        return Reading(states, memory, cache.visible)

    def _rotation(self, ids: Tensor, index: Tensor) -> Tensor:
        """Cosine and sine for every note and pair of a head's width: (2, B or 1, 1, T, C/2)."""
        n_pairs = self.config.d_model // self.config.n_heads // 2
        if self.config.positions == "metre":
            return self._time_rotation(ids)
        if self.config.positions == "rotary":
            return turns(index[..., None] * frequencies(n_pairs, ids.device))
        rates = frequencies(n_pairs // 2, ids.device)  # even pairs turn with the index, odd ones with musical time
        time = music_time(ids, self.config.steps_per_bar)
        angles = torch.stack([(index[..., None] * rates).expand(len(ids), -1, -1), time[..., None] * rates], -1)
        return turns(angles.flatten(-2))

    def _time_rotation(self, ids: Tensor) -> Tensor:
        """The same, all pairs by time: (2, B, 1, T, C/2)."""
        time = music_time(ids, self.config.steps_per_bar)
        n_pairs = self.config.d_model // self.config.n_heads // 2
        return turns(time[..., None] * metre_rates(n_pairs, self.config.steps_per_bar, ids.device))

    def _memory(self, ids: Tensor, read: Tensor, cache: KeyValueCache | None) -> list[tuple[Tensor, Tensor]]:
        rotation = self._time_rotation(ids).to(read.dtype)
        memory = [block.attention.keys_values(read, rotation) for block in self.late_blocks]
        if cache is None:
            return memory
        return [cache.extend(layer, *pair) for layer, pair in enumerate(memory, len(self.blocks))]

    # ------------------------------------------------------------ heads

    def forward(self, ids: Tensor, next_ids: Tensor | None = None, given: Tensor | None = None,
                sheet: Tensor | None = None, chords: Tensor | None = None) -> list[Tensor]:
        """Logits of every family, F tensors (B, T, V_f) in `FIELDS` order.

        Args:
            ids: (B, T, F) notes read.
            next_ids: (B, T, F) notes to be predicted, needed by all heads but parallel ones: each knows of them the
                families before its own in `order`.
            given: (B, T) bool, which of the notes read are given.
            sheet: (B, T, S) ids of the controls that come with notes read; None: all unknown.
            chords: (B, T, 3) ids of the chord that each note to be predicted sounds in; None: unknown.
        """
        if next_ids is None and self.config.heads != "parallel":
            raise ValueError(f"heads={self.config.heads!r} need next_ids")
        return self.logits(self.read(ids, given=given, sheet=sheet), next_ids, chords)

    def logits(self, reading: Reading, next_ids: Tensor | None, chords: Tensor | None = None) -> list[Tensor]:
        """The same from what was made of the notes read."""
        logits: list[Tensor] = [reading.states] * len(self.order)
        hidden = reading.states
        for k, family in enumerate(self.order):
            logits[family] = self.head(k, reading.states, hidden)
            if k + 1 < len(self.order) and self.config.heads != "parallel":
                hidden = self.advance(k, next_ids.unbind(-1), reading, hidden, chords)
        return logits

    def last_read(self, states: Tensor, cache: KeyValueCache) -> Reading:
        """What `cache` holds as the reading of each song's last note, of which `states` (B, 1, D) are the trunk's."""
        memory = [cache.held(layer) for layer in range(len(self.blocks), self.config.n_layers)]
        if not memory or len(set(cache.lengths)) == 1:
            return Reading(states, memory)
        lengths = torch.tensor(cache.lengths, device=states.device)[:, None, None, None]
        return Reading(states, memory, torch.arange(max(cache.lengths), device=states.device) < lengths)

    def head(self, k: int, states: Tensor, hidden: Tensor) -> Tensor:
        """Logits (B, T, V_f) of the k-th family of `order`, given the trunk's states and what `advance` made of them.

        For k = 0 `hidden` is `states`.
        """
        return self.heads[self.order[k]](self._seen(k, states, hidden))

    def _seen(self, k: int, states: Tensor, hidden: Tensor) -> Tensor:
        return states + hidden if self.config.heads == "gru" and k else hidden

    def advance(self, k: int, chosen: Sequence[Tensor] | dict[int, Tensor], reading: Reading, hidden: Tensor,
                chords: Tensor | None = None) -> Tensor:
        """(B, T, D) hidden state after the k-th family of `order` was chosen.

        Args:
            chosen: (B, T) ids by family.
            chords: (B, T, 3) ids of the chord at the time chosen, which counts once that is known; None: unknown.
        """
        if self.config.heads == "parallel":
            return hidden
        embedded = self.chosen[k](chosen[self.order[k]])
        if self.config.heads == "chain":
            hidden = hidden + self.links[k](hidden + embedded)
        else:
            hidden = self.gru(embedded.flatten(0, 1), hidden.flatten(0, 1)).view_as(hidden)
        if k == 1 and self.late_blocks:
            seen = x = self._seen(2, reading.states, hidden)
            ids = torch.stack([chosen[BAR], chosen[START_POS]], -1)
            rotation = self._time_rotation(ids).to(x.dtype)
            if self.config.controls:
                chords = ids.new_full((*ids.shape[:2], len(CHORD_FIELDS)), UNKNOWN) if chords is None else chords
                x = x + self.chord_vectors(chords).to(x.dtype)
            for block, pair in zip(self.late_blocks, reading.memory, strict=True):
                x = block(x, rotation, *pair, reading.visible)
            hidden = hidden + (x - seen)
        return hidden

    def new_cache(self, batch: int) -> KeyValueCache:
        """An empty cache for `batch` contexts of `block_size` notes, and one more place that fills the batch."""
        config, like = self.config, self.in_norm.weight
        shape = (batch, config.n_heads, config.block_size + 1, config.d_model // config.n_heads)
        return self.cache_type(config.n_layers, shape, like.device, self.cache_dtype or like.dtype)

    def grown(self, config: ModelConfig) -> PooledTransformer:
        """This model with what `config` lets it do besides. It plays as before: the vectors added are zero.

        `config` is one without `ModelConfig.differences`.
        """
        model = PooledTransformer(config)
        model.load_state_dict(self.state_dict(), strict=False)
        return model

    def n_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


def _link(width: int) -> nn.Module:
    """The feed-forward block between two heads of a chain."""
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, CHAIN_FACTOR * width), nn.GELU(),
                         nn.Linear(CHAIN_FACTOR * width, width))


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
