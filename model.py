"""The decoder-only Transformer over pooled tokens, and nothing of the stages.

Shapes: B batch, T notes, F families, D residual width, V_f ids in family f, H heads, C width of a head.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from attention import Attention, KeyValueCache
from errors import UserError
from vocab import BAR, BOS, CHOICE_ORDER, FIELDS, FIRST_ID, PAD, START_POS, load_vocabulary

POOLINGS = ("concat", "sum")
POSITIONS = ("sinusoidal", "rotary", "music_time")
HEADS = ("parallel", "chain", "gru")
BARS = ("absolute", "relative")
FF_FACTOR = 4  # width of the feed-forward layer over d_model (Vaswani et al. 2017, section 3.3)
CHAIN_FACTOR = 2  # the same between two heads of a chain


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Everything that shapes the model; the defaults are the published reference.

    heads: "parallel" predicts the families of a note independently, as published. The others choose one family
        after another in `order`, each knowing those before it, so that the four agree: "chain" passes the state and
        the id chosen through a feed-forward block, "gru" through a recurrent cell (the sub-decoders of Nested Music
        Transformer, Ryu et al. 2024, section 3).
    positions: "sinusoidal" adds the published absolute encoding. "rotary" turns queries and keys by their index
        (Su et al. 2021). "music_time" turns every second pair by the note's time in the song instead, in steps.
    bars: "absolute" reads and predicts bar numbers as they stand. "relative" counts them from the first bar of the
        notes in the context, unless the song begins there, so that no bar of a long song is a stranger.
    """

    emb_sizes: tuple[int, ...] = (512, 128, 256, 512)
    emb_pooling: str = "concat"
    n_layers: int = 12
    n_heads: int = 8
    d_model: int = 512
    dropout: float = 0.1
    block_size: int = 512  # context T, in notes
    heads: str = "parallel"
    order: tuple[str, ...] = tuple(FIELDS[family] for family in CHOICE_ORDER)
    positions: str = "sinusoidal"
    bars: str = "absolute"
    n_tokens: tuple[int, ...] = ()  # V_f; () means the default vocabulary's
    steps_per_bar: int = 0  # what a bar counts in music time; 0 means the default vocabulary's

    def __post_init__(self) -> None:
        if not self.n_tokens:
            object.__setattr__(self, "n_tokens", load_vocabulary().sizes)
        if not self.steps_per_bar:
            object.__setattr__(self, "steps_per_bar", load_vocabulary().steps_per_bar)
        for name in ("n_layers", "n_heads", "d_model", "block_size", "steps_per_bar"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} must be at least 1")
        if self.d_model % self.n_heads:
            raise UserError(f"d_model={self.d_model} must be a multiple of n_heads={self.n_heads}")
        for name in ("emb_sizes", "n_tokens"):
            if len(getattr(self, name)) != len(FIELDS) or min(getattr(self, name)) < 1:
                raise UserError(f"{name}={list(getattr(self, name))} must be {len(FIELDS)} numbers of at least 1, "
                                f"one per family: {', '.join(FIELDS)}")
        for name, options in (("emb_pooling", POOLINGS), ("positions", POSITIONS), ("heads", HEADS), ("bars", BARS)):
            if getattr(self, name) not in options:
                raise UserError(f"{name}={getattr(self, name)!r} must be one of {', '.join(options)}")
        if sorted(self.order) != sorted(FIELDS):
            raise UserError(f"order={list(self.order)} must name each of {', '.join(FIELDS)} once")
        if self.emb_pooling == "sum" and len(set(self.emb_sizes)) > 1:
            raise UserError(f"emb_pooling 'sum' needs equal emb_sizes, not {list(self.emb_sizes)}")
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout={self.dropout} must be at least 0 and below 1")
        if self.positions == "sinusoidal" and self.d_model % 2:
            raise UserError(f"d_model={self.d_model} must be even for sinusoidal positions")
        if self.positions != "sinusoidal" and self.d_model // self.n_heads % 4:
            raise UserError(f"d_model/n_heads={self.d_model // self.n_heads} must be a multiple of 4 "
                            f"for {self.positions} positions")


class Block(nn.Module):
    """One pre-norm decoder block: attention, then a feed-forward layer with GELU."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.d_model
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, config.n_heads, config.dropout)
        self.ff_norm = nn.LayerNorm(width)
        self.ff = nn.Sequential(nn.Linear(width, FF_FACTOR * width), nn.GELU(), nn.Dropout(config.dropout),
                                nn.Linear(FF_FACTOR * width, width))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, rotation: Tensor | None, cache: KeyValueCache | None, layer: int) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), rotation, cache, layer))
        return x + self.dropout(self.ff(self.ff_norm(x)))


class PooledTransformer(nn.Module):
    """From notes to a distribution over the next note's families.

    `forward` gives all logits at once, for training; `states` and `family_logits` give them step by step.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width = config.d_model
        self.embeddings = nn.ModuleList(nn.Embedding(n, size)
                                        for n, size in zip(config.n_tokens, config.emb_sizes, strict=True))
        pooled = sum(config.emb_sizes) if config.emb_pooling == "concat" else config.emb_sizes[0]
        self.in_linear = nn.Linear(pooled, width)
        self.in_norm = nn.LayerNorm(width)
        self.in_dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.out_norm = nn.LayerNorm(width)
        self.heads = nn.ModuleList(nn.Linear(width, n) for n in config.n_tokens)
        self.order = tuple(FIELDS.index(name) for name in config.order)
        if config.heads != "parallel":
            self.chosen = nn.ModuleList(nn.Embedding(config.n_tokens[f], width) for f in self.order[:-1])
        if config.heads == "gru":
            self.gru = nn.GRUCell(width, width)
        elif config.heads == "chain":
            self.links = nn.ModuleList(_link(width) for _ in self.order[:-1])
        self.apply(_initialize)
        for block in self.blocks:  # residual branches start small (GPT-2, Radford et al. 2019, section 2.3)
            for layer in (block.attention.to_out, block.ff[-1]):
                nn.init.normal_(layer.weight, std=0.02 / math.sqrt(2 * config.n_layers))

    # ------------------------------------------------------------ trunk

    def states(self, ids: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        """Trunk states (B, T, D) of the notes `ids` (B, T, F), given those in `cache`, which takes them in."""
        embedded = [table(ids[..., f]) for f, table in enumerate(self.embeddings)]
        pooled = torch.cat(embedded, dim=-1) if self.config.emb_pooling == "concat" else torch.stack(embedded).sum(0)
        x = self.in_norm(self.in_linear(pooled))
        offset = cache.length if cache is not None else 0
        index = torch.arange(offset, offset + ids.shape[1], device=ids.device)
        rotation = None
        if self.config.positions == "sinusoidal":
            x = x + sinusoids(index, self.config.d_model).to(x.dtype)
        else:
            rotation = self._rotation(ids, index).to(x.dtype)
        x = self.in_dropout(x)
        for layer, block in enumerate(self.blocks):
            x = block(x, rotation, cache, layer)
        if cache is not None:
            cache.length += ids.shape[1]
        return self.out_norm(x)

    def _rotation(self, ids: Tensor, index: Tensor) -> Tensor:
        """Cosine and sine for every note and pair of a head's width: (2, B or 1, 1, T, C/2)."""
        n_pairs = self.config.d_model // self.config.n_heads // 2
        if self.config.positions == "rotary":
            angles = index[None, :, None] * frequencies(n_pairs, ids.device)
        else:  # even pairs turn with the index, odd ones with musical time
            rates = frequencies(n_pairs // 2, ids.device)
            time = music_time(ids, self.config.steps_per_bar)
            angles = torch.stack([(index[None, :, None] * rates).expand(len(ids), -1, -1), time[..., None] * rates], -1)
            angles = angles.flatten(-2)  # (B, T, C/2)
        return torch.stack([angles.cos(), angles.sin()]).unsqueeze(2)

    # ------------------------------------------------------------ heads

    def forward(self, ids: Tensor, next_ids: Tensor | None = None) -> list[Tensor]:
        """Logits of every family, F tensors (B, T, V_f) in `FIELDS` order.

        Args:
            ids: (B, T, F) notes read.
            next_ids: (B, T, F) notes to be predicted, needed by all heads but parallel ones: each knows of them the
                families before its own in `order`.
        """
        if next_ids is None and self.config.heads != "parallel":
            raise ValueError(f"heads={self.config.heads!r} need next_ids")
        states = self.states(ids)
        logits: list[Tensor] = [states] * len(self.order)
        hidden = states
        for k, family in enumerate(self.order):
            logits[family] = self._head(k, states, hidden)
            if k + 1 < len(self.order) and self.config.heads != "parallel":
                hidden = self._advance(k, next_ids[..., family], hidden)
        return logits

    def family_logits(self, states: Tensor, chosen: dict[int, Tensor]) -> Tensor:
        """Logits (…, V_f) of the next family in `order`, given those of the note chosen already.

        Args:
            states: (…, D) trunk states.
            chosen: family → (…) ids, for the first len(chosen) families of `order`.
        """
        hidden = states
        for k, family in enumerate(self.order[:len(chosen)]):
            hidden = self._advance(k, chosen[family], hidden)
        return self._head(len(chosen), states, hidden)

    def _head(self, k: int, states: Tensor, hidden: Tensor) -> Tensor:
        """Logits (…, V_f) of the k-th family of `order`."""
        seen = states + hidden if self.config.heads == "gru" and k else hidden
        return self.heads[self.order[k]](seen)

    def _advance(self, k: int, ids: Tensor, hidden: Tensor) -> Tensor:
        """(…, D) hidden state after the k-th family of `order` was chosen as `ids` (…)."""
        if self.config.heads == "parallel":
            return hidden
        chosen = self.chosen[k](ids)
        if self.config.heads == "chain":
            return hidden + self.links[k](hidden + chosen)
        return self.gru(chosen.flatten(0, -2), hidden.flatten(0, -2)).view_as(hidden)

    def new_cache(self, batch: int) -> KeyValueCache:
        """An empty cache for `batch` contexts of `block_size` notes."""
        config, like = self.config, self.in_linear.weight
        shape = (batch, config.n_heads, config.block_size, config.d_model // config.n_heads)
        return KeyValueCache(config.n_layers, shape, like.device, like.dtype)

    def n_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


def note_losses(logits: list[Tensor], targets: Tensor) -> Tensor:
    """Cross-entropy of each family of each note, in nats.

    Args:
        logits: F tensors (B, T, V_f), in `vocab.FIELDS` order.
        targets: (B, T, F) int64; where they are PAD the loss is 0.
    Returns:
        (B, T, F) float tensor. Report the families apart: a mean over them hides the weak one. Their sum is a note's.
    """
    losses = [nn.functional.cross_entropy(of_family.flatten(0, 1).float(), targets[..., f].flatten(),
                                          ignore_index=PAD, reduction="none")
              for f, of_family in enumerate(logits)]
    return torch.stack(losses, dim=-1).view(targets.shape)


def window_losses(model: Callable[[Tensor, Tensor], list[Tensor]], config: ModelConfig, rows: Tensor) -> Tensor:
    """Loss of each family of each note but the first, (B, T − 1, F) nats, of windows (B, T, F) of songs.

    `model`: a PooledTransformer, or what wraps one, with `config`.
    """
    rows = with_relative_bars(rows) if config.bars == "relative" else rows
    return note_losses(model(rows[:, :-1], rows[:, 1:]), rows[:, 1:])


def bar_offsets(ids: Tensor) -> Tensor:
    """(B,) what "relative" bars are less than absolute ones: the bars before the first note of (B, T, F) `ids`.

    0 where a song begins with the first row.
    """
    return torch.where(ids[:, 0, BAR] < FIRST_ID, 0, ids[:, 0, BAR] - FIRST_ID)


def with_relative_bars(ids: Tensor) -> Tensor:
    """`ids` (B, T, F) whose first notes, up to the first BOS, have bars counted from the first of them."""
    in_first_song = (ids[..., BAR] == BOS).cumsum(1) == 0
    moved = in_first_song & (ids[..., BAR] >= FIRST_ID)
    result = ids.clone()
    result[..., BAR] -= torch.where(moved, bar_offsets(ids)[:, None], 0)
    return result


def music_time(ids: Tensor, steps_per_bar: int) -> Tensor:
    """(B, T) time of each note of `ids` (B, T, F) in steps from the song's start; 0 for special rows."""
    time = (ids[..., BAR] - FIRST_ID) * steps_per_bar + ids[..., START_POS] - FIRST_ID
    return torch.where(ids[..., BAR] < FIRST_ID, 0, time)


def frequencies(n: int, device: torch.device) -> Tensor:
    """(n,) angular rates 10000^(−i/n) (Vaswani et al. 2017, section 3.5)."""
    return 10000.0 ** (-torch.arange(n, device=device) / n)


def sinusoids(index: Tensor, width: int) -> Tensor:
    """(T, D) sines and cosines, interleaved, of the positions `index` (Vaswani et al. 2017, section 3.5)."""
    angles = index[:, None] * frequencies(width // 2, index.device)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def _link(width: int) -> nn.Module:
    """The feed-forward block between two heads of a chain."""
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, CHAIN_FACTOR * width), nn.GELU(),
                         nn.Linear(CHAIN_FACTOR * width, width))


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
