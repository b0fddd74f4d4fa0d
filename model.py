"""The decoder-only Transformer over pooled tokens. Imports no stage script.

A note is one token of F numbers, one of each family. The trunk reads notes: their embeddings are
pooled and pass through decoder blocks. The heads then choose the next note's families. Between the
choice of its onset and the choice of its pitch, late blocks look back from that onset at the notes
read.

Shapes: B batch, T notes, F families, D residual width, V_f ids in family f, H attention heads,
C width of a head, K controls.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from backline.layers.attention import Dropout, KeysValues, normed_key, normed_query, rotate
from backline.layers.cache import KeyValueCache
from backline.layers.config import CHAIN_FACTOR, CONTROL_GAIN, TIME_FIELDS, ModelConfig
from backline.layers.positions import note_rotation, sinusoids, time_rotation
from backline.layers.recurrent import recur
from backline.music.chords import UNKNOWN
from backline.music.vocab import BAR, FIELDS, START_POS

INITIAL_STD = 0.02  # of weights

# ---------------------------------------------------------------- attention


class Attention(nn.Module):
    """Causal self-attention without biases, optionally with rotated queries and keys."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.d_model
        self.n_heads = config.n_heads
        self.qk_norm = config.qk_norm
        self.dropout = Dropout(config.dropout)
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)

    def forward(
        self,
        x: Tensor,
        rotation: Tensor | None,
        cache: KeyValueCache | None,
        layer: int,
    ) -> Tensor:
        """(B, T, D) from (B, T, D).

        Args:
            x: (B, T, D).
            rotation: as for `rotate`; None: none.
            cache: holds the notes before these, and takes these in; None: there are none before.
            layer: which layer of the cache this is.
        """
        qkv = self.to_qkv(x)                                 # (B, T, 3·D)
        qkv = qkv.view(*x.shape[:2], 3, self.n_heads, -1)    # (B, T, 3, H, C)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)       # each (B, H, T, C)
        if self.qk_norm:
            query = normed_query(query)
            key = normed_key(key)
        if rotation is not None:
            query = rotate(query, rotation)
            key = rotate(key, rotation)
        memory = KeysValues(key, value)
        if cache is not None:
            memory = cache.extend(layer, key, value)
        return self.to_out(memory.attend(query, self.dropout))


class LateAttention(nn.Module):
    """Cross-attention from notes whose onset is chosen to the notes read, rotated by musical time.

    What is known of a note read is the trunk's state and what entered its blocks, side by side.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.d_model
        self.n_heads = config.n_heads
        self.qk_norm = config.qk_norm
        self.dropout = Dropout(config.dropout)
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_kv = nn.Linear(2 * width, 2 * width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)

    def keys_values(self, known: Tensor, rotation: Tensor) -> KeysValues:
        """Keys and values of the notes read, from (B, T, 2·D)."""
        kv = self.to_kv(known)                               # (B, T, 2·D)
        kv = kv.unflatten(-1, (2, self.n_heads, -1))         # (B, T, 2, H, C)
        key, value = kv.permute(2, 0, 3, 1, 4)               # each (B, H, T, C)
        if self.qk_norm:
            key = normed_key(key)
        key = rotate(key, rotation)
        return KeysValues(key, value)

    def forward(self, x: Tensor, rotation: Tensor, memory: KeysValues) -> Tensor:
        """(B, T, D) from (B, T, D).

        Args:
            x: (B, T, D) states of the notes whose onset is chosen.
            rotation: by that onset, as for `rotate`.
            memory: keys and values of the notes read; x at place t sees those up to place t.
        """
        query = self.to_q(x)                                 # (B, T, D)
        query = query.unflatten(-1, (self.n_heads, -1))      # (B, T, H, C)
        query = query.transpose(1, 2)                        # (B, H, T, C)
        if self.qk_norm:
            query = normed_query(query)
        return self.to_out(memory.attend(rotate(query, rotation), self.dropout))


class Block(nn.Module):
    """One pre-norm decoder block: attention, then a feed-forward layer with GELU."""

    def __init__(
        self,
        config: ModelConfig,
        attention: type[Attention | LateAttention] = Attention,
    ) -> None:
        super().__init__()
        width = config.d_model
        self.attention_norm = nn.LayerNorm(width)
        self.attention = attention(config)
        self.ff_norm = nn.LayerNorm(width)
        self.ff = nn.Sequential(
            nn.Linear(width, config.ff_width),
            nn.GELU(),
            Dropout(config.dropout),
            nn.Linear(config.ff_width, width),
        )
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, *context: Any) -> Tensor:
        """(B, T, D) from (B, T, D); `context`: further arguments of the attention layer."""
        attended = self.attention(self.attention_norm(x), *context)
        x = x + self.dropout(attended)
        fed_forward = self.ff(self.ff_norm(x))
        return x + self.dropout(fed_forward)


# ---------------------------------------------------------------- what a model is told


class ControlVectors(nn.Module):
    """The sum of a learned vector for each control of a note; all are zero before training."""

    firsts: Tensor  # (K,) row of each control's id 0

    def __init__(self, sizes: Sequence[int], width: int) -> None:
        super().__init__()
        self.n_controls = len(sizes)
        no_vectors = torch.zeros(sum(sizes), width)
        self.vectors = nn.Parameter(no_vectors)
        firsts = [0, *itertools.accumulate(sizes[:-1])]
        self.register_buffer("firsts", torch.tensor(firsts), persistent=False)

    def forward(self, ids: Tensor | None, like: Tensor) -> Tensor:
        """(B, T, D), in the dtype of `like` (B, T, D).

        Args:
            ids: (B, T, K) ids of K controls; None: all unknown.
        """
        if ids is None:
            shape = (*like.shape[:2], self.n_controls)
            ids = self.firsts.new_full(shape, UNKNOWN)
        rows = (ids + self.firsts).flatten(0, 1)             # (B·T, K)
        sums = nn.functional.embedding_bag(rows, self.vectors, mode="sum")
        sums = sums.unflatten(0, ids.shape[:2])              # (B, T, D)
        vectors = CONTROL_GAIN * sums
        return vectors.to(like.dtype)


# ---------------------------------------------------------------- heads


class Heads:
    """How the next note's families are predicted, one after another in `order`.

    k is a place in `order`. A hidden state stands for what is known once some families are chosen;
    before the first choice it is the trunk's state.

    This is no module. The layers belong to the model, under the names they have in checkpoints.
    """

    needs_choices = True  # whether a family's logits depend on the families before it

    def __init__(self, config: ModelConfig) -> None:
        width = config.d_model
        self.order = tuple(FIELDS.index(name) for name in config.order)
        self.heads = nn.ModuleList(nn.Linear(width, n) for n in config.n_tokens)

    def layers(self) -> dict[str, nn.Module]:
        """The layers by their names in checkpoints, in the order of their parameters there."""
        return {"heads": self.heads}

    def logits(self, k: int, states: Tensor, hidden: Tensor) -> Tensor:
        """(B, T, V_f) of the k-th family, from states and hidden states (B, T, D)."""
        head = self.heads[self.order[k]]
        seen = self.seen(k, states, hidden)
        return head(seen)

    def seen(self, k: int, states: Tensor, hidden: Tensor) -> Tensor:
        """(B, T, D) that the k-th family is predicted from."""
        return hidden

    def after(self, k: int, ids: Tensor, hidden: Tensor) -> Tensor:
        """(B, T, D) hidden states once the k-th family is chosen: `ids` (B, T)."""
        raise NotImplementedError


class ParallelHeads(Heads):
    """Each family is predicted from the trunk's state alone, as published."""

    needs_choices = False

    def after(self, k: int, ids: Tensor, hidden: Tensor) -> Tensor:
        """The same states: no family knows of another."""
        return hidden


class ChainHeads(Heads):
    """Each choice adds to the hidden state, through a feed-forward block."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.choice_embeddings = _choice_embeddings(config, self.order)
        self.links = nn.ModuleList(_link(config.d_model) for _ in self.order[:-1])

    def layers(self) -> dict[str, nn.Module]:
        """See `Heads.layers`."""
        return {"heads": self.heads,
                "chosen": self.choice_embeddings,
                "links": self.links}

    def after(self, k: int, ids: Tensor, hidden: Tensor) -> Tensor:
        """See `Heads.after`."""
        embedded = self.choice_embeddings[k](ids)
        return hidden + self.links[k](hidden + embedded)


class GruHeads(Heads):
    """Each choice is a step of a recurrent cell; heads see its state and the trunk's."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.choice_embeddings = _choice_embeddings(config, self.order)
        self.gru = nn.GRUCell(config.d_model, config.d_model)

    def layers(self) -> dict[str, nn.Module]:
        """See `Heads.layers`."""
        return {"heads": self.heads,
                "chosen": self.choice_embeddings,
                "gru": self.gru}

    def seen(self, k: int, states: Tensor, hidden: Tensor) -> Tensor:
        """See `Heads.seen`."""
        return states + hidden if k else states

    def after(self, k: int, ids: Tensor, hidden: Tensor) -> Tensor:
        """See `Heads.after`."""
        embedded = self.choice_embeddings[k](ids)
        choices = embedded.flatten(0, 1)                     # (B·T, D)
        before = hidden.flatten(0, 1)
        after = recur(self.gru, choices, before)             # (B·T, D)
        return after.view_as(hidden)


def _choice_embeddings(config: ModelConfig, order: Sequence[int]) -> nn.ModuleList:
    """An embedding of each family but the last: what the families after it know of its choice."""
    sizes = [config.n_tokens[family] for family in order[:-1]]
    return nn.ModuleList(nn.Embedding(size, config.d_model) for size in sizes)


def _link(width: int) -> nn.Module:
    """The feed-forward block between two heads of a chain."""
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, CHAIN_FACTOR * width),
        nn.GELU(),
        nn.Linear(CHAIN_FACTOR * width, width),
    )


KINDS_OF_HEADS: dict[str, type[Heads]] = {
    "parallel": ParallelHeads,
    "chain": ChainHeads,
    "gru": GruHeads,
}

# ---------------------------------------------------------------- the model


class TrunkOutput(NamedTuple):
    """The trunk's output for the notes read so far."""

    states: Tensor  # (B, T, D)
    memory: list[KeysValues]  # for each late block, keys and values of the notes read


class PooledTransformer(nn.Module):
    """From notes to a distribution over the next note's families.

    `forward` gives all logits at once, for training. `read`, `head` and `advance` give them step by
    step, for sampling.
    """

    heads: nn.ModuleList  # registered by name, with the other layers of `choice`

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width = config.d_model
        tables = zip(config.n_tokens, config.emb_sizes, strict=True)
        self.embeddings = nn.ModuleList(nn.Embedding(n, size) for n, size in tables)
        self.in_linear = nn.Linear(config.pooled_width, width)
        self.in_norm = nn.LayerNorm(width)
        if config.given:
            self.given = nn.Parameter(torch.zeros(width))
        if config.controls:
            self.sheet_vectors = ControlVectors(config.sheet_sizes, width)
            self.chord_vectors = ControlVectors(config.chord_sizes, width)
        self.in_dropout = Dropout(config.dropout)
        n_early = config.n_layers - config.late_layers
        self.blocks = nn.ModuleList(Block(config) for _ in range(n_early))
        self.out_norm = nn.LayerNorm(width)
        self.choice = KINDS_OF_HEADS[config.heads](config)
        self.order = self.choice.order
        for name, layer in self.choice.layers().items():
            self.add_module(name, layer)
        late_blocks = (Block(config, LateAttention)
                       for _ in range(config.late_layers))
        self.late_blocks = nn.ModuleList(late_blocks)
        self._initialize()

    def _initialize(self) -> None:
        self.apply(_initialize_layer)
        # Residual branches start small (GPT-2, Radford et al. 2019, section 2.3).
        std = INITIAL_STD / math.sqrt(2 * self.config.n_layers)
        for block in (*self.blocks, *self.late_blocks):
            nn.init.normal_(block.attention.to_out.weight, std=std)
            nn.init.normal_(block.ff[-1].weight, std=std)

    def forward(
        self,
        ids: Tensor,
        next_ids: Tensor | None = None,
        given: Tensor | None = None,
        sheet: Tensor | None = None,
        chords: Tensor | None = None,
    ) -> list[Tensor]:
        """Logits of every family, F tensors (B, T, V_f) in `FIELDS` order.

        Args:
            ids: (B, T, F) notes read.
            next_ids: (B, T, F) notes to be predicted. All heads but parallel ones need them: each
                family depends on those before it in `order`.
            given: (B, T) bool, which of the notes read are given.
            sheet: (B, T, S) ids of the controls that come with notes read; None: all unknown.
            chords: (B, T, 3) ids of the chord at each note to be predicted; None: unknown.
        """
        if next_ids is None and self.choice.needs_choices:
            raise ValueError(f"heads={self.config.heads!r} need next_ids")
        trunk = self.read(ids, given=given, sheet=sheet)
        return self.logits(trunk, next_ids, chords)

    # ------------------------------------------------------------ trunk

    def read(
        self,
        ids: Tensor,
        cache: KeyValueCache | None = None,
        counts: Sequence[int] | None = None,
        given: Tensor | None = None,
        sheet: Tensor | None = None,
    ) -> TrunkOutput:
        """Run the trunk over `ids` (B, T, F), which are appended to `cache`.

        Args:
            counts: real notes of each song; the rest is padding. None: all are real.
            given: (B, T) bool, which notes are given; None: none.
            sheet: (B, T, S) ids of the controls that come with notes read; None: all unknown.
        """
        n_rows = ids.shape[1]
        index = torch.arange(n_rows, device=ids.device)[None]  # (1, T)
        if cache is not None:
            index = cache.begin(n_rows).index                # (B or 1, T)
        x = self.embed(ids, given, sheet)                    # (B, T, D)
        if self.config.positions == "sinusoidal":
            places = sinusoids(index, self.config.d_model)   # (B or 1, T, D)
            x = x + places.to(x.dtype)
        rotation = note_rotation(ids, index, self.config)
        if rotation is not None:
            rotation = rotation.to(x.dtype)
        entered = self.in_dropout(x)
        x = entered
        for layer, block in enumerate(self.blocks):
            x = block(x, rotation, cache, layer)
        states = self.out_norm(x)
        memory: list[KeysValues] = []
        if self.late_blocks:
            known = torch.cat([states, entered], -1)         # (B, T, 2·D)
            memory = self._remember(ids, known, cache)
        if cache is not None:
            cache.end(counts or [n_rows] * len(ids))
        return TrunkOutput(states, memory)

    def embed(
        self,
        ids: Tensor,
        given: Tensor | None = None,
        sheet: Tensor | None = None,
    ) -> Tensor:
        """(B, T, D) of notes (B, T, F), before positions; arguments as for `read`."""
        by_family = zip(self.embeddings, ids.unbind(-1), strict=True)
        embedded = [table(family_ids) for table, family_ids in by_family]  # each (B, T, emb_size)
        if self.config.emb_pooling == "sum":
            embedded = [torch.stack(embedded).sum(0)]
        pooled = torch.cat(embedded, dim=-1)                 # (B, T, pooled_width)
        x = self.in_linear(pooled)                           # (B, T, D)
        x = self.in_norm(x)
        if self.config.given and given is not None:
            is_given = given[..., None].to(x.dtype)          # (B, T, 1)
            x = x + is_given * self.given
        if self.config.controls:
            x = x + self.sheet_vectors(sheet, like=x)
        return x

    def _remember(self,
                  ids: Tensor,
                  known: Tensor,
                  cache: KeyValueCache | None) -> list[KeysValues]:
        """What each late block sees of the notes read, those in `cache` among them.

        Args:
            ids: (B, T, F) the last T of them.
            known: (B, T, 2·D) what is known of these.
        """
        rotation = time_rotation(ids, self.config)
        rotation = rotation.to(known.dtype)
        memory: list[KeysValues] = []
        for layer, block in enumerate(self.late_blocks, len(self.blocks)):
            attention = block.attention
            assert isinstance(attention, LateAttention)
            new = attention.keys_values(known, rotation)
            if cache is None:
                memory.append(new)
            else:
                memory.append(cache.extend(layer, new.keys, new.values))
        return memory

    def last_read(self, states: Tensor, cache: KeyValueCache) -> TrunkOutput:
        """The output at each song's last note.

        Args:
            states: (B, 1, D) from the trunk.
            cache: what late blocks see.
        """
        if not self.late_blocks:
            return TrunkOutput(states, [])
        visible = cache.last_seen()
        late_layers = range(len(self.blocks), self.config.n_layers)
        memory = [cache.held(layer, visible) for layer in late_layers]
        return TrunkOutput(states, memory)

    def new_cache(self, batch: int) -> KeyValueCache:
        """An empty cache for `batch` contexts of `block_size` notes."""
        config = self.config
        like = self.in_norm.weight
        capacity = config.block_size + 1  # with a spare slot for padding
        shape = (batch, config.n_heads, capacity, config.head_width)
        return KeyValueCache(config.n_layers, shape, like.device, like.dtype)

    # ------------------------------------------------------------ choosing a note

    def logits(
        self,
        trunk: TrunkOutput,
        next_ids: Tensor | None,
        chords: Tensor | None = None,
    ) -> list[Tensor]:
        """As `forward`, from the trunk's output."""
        by_family: dict[int, Tensor] = {}
        hidden = trunk.states
        for k, family in enumerate(self.order):
            by_family[family] = self.head(k, trunk.states, hidden)
            if self.choice.needs_choices and k + 1 < len(self.order):
                assert next_ids is not None
                hidden = self.advance(k, next_ids.unbind(-1), trunk, hidden, chords)
        return [by_family[family] for family in range(len(self.order))]

    def head(self, k: int, states: Tensor, hidden: Tensor) -> Tensor:
        """Logits (B, T, V_f) of the k-th family of `order`.

        Args:
            states: (B, T, D) from the trunk.
            hidden: (B, T, D) from `advance`; for k = 0 `states`.
        """
        return self.choice.logits(k, states, hidden)

    def advance(
        self,
        k: int,
        chosen: Sequence[Tensor] | Mapping[int, Tensor],
        trunk: TrunkOutput,
        hidden: Tensor,
        chords: Tensor | None = None,
    ) -> Tensor:
        """(B, T, D) hidden states once the k-th family of `order` is chosen.

        Args:
            chosen: (B, T) ids by family.
            chords: (B, T, 3) ids of the chord at the onset chosen; None: unknown.
        """
        family = self.order[k]
        hidden = self.choice.after(k, chosen[family], hidden)
        n_chosen = k + 1
        if self.late_blocks and n_chosen == len(TIME_FIELDS):
            onset = torch.stack([chosen[BAR], chosen[START_POS]], -1)  # (B, T, 2)
            seen = self.choice.seen(n_chosen, trunk.states, hidden)
            looked_back = self.look_back(seen, onset, trunk.memory, chords)
            hidden = hidden + (looked_back - seen)
        return hidden

    def look_back(
        self,
        x: Tensor,
        onset: Tensor,
        memory: Sequence[KeysValues],
        chords: Tensor | None,
    ) -> Tensor:
        """The late layers: look from the next note's onset at the notes read.

        Args:
            x: (B, T, D) what is known once the onset is chosen.
            onset: (B, T, 2) ids of its bar and start_pos.
            memory: keys and values of the notes read, for each late layer.
            chords: as for `advance`.
        Returns:
            (B, T, D).
        """
        rotation = time_rotation(onset, self.config)
        rotation = rotation.to(x.dtype)
        if self.config.controls:
            x = x + self.chord_vectors(chords, like=x)
        for block, seen in zip(self.late_blocks, memory, strict=True):
            x = block(x, rotation, seen)
        return x

    # ------------------------------------------------------------ the whole of it

    def grown(self, config: ModelConfig) -> PooledTransformer:
        """A copy that can do more, as `config` says.

        It plays as before: the vectors added are zero.

        Args:
            config: one without `ModelConfig.differences`.
        """
        model = PooledTransformer(config)
        model.load_state_dict(self.state_dict(), strict=False)
        return model

    def n_parameters(self) -> int:
        """How many numbers are trained."""
        return sum(parameter.numel() for parameter in self.parameters())


def _initialize_layer(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=INITIAL_STD)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
