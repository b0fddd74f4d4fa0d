"""The decoder-only Transformer over pooled tokens, and nothing of the stages.

Shapes: B batch, T notes, F families, D residual width, V_f ids in family f, H heads, C width of a head.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor, nn

from errors import UserError
from vocab import BAR, CHOICE_ORDER, FIELDS, FIRST_ID, PAD, START_POS, load_vocabulary

POOLINGS = ("concat", "sum")
POSITIONS = ("sinusoidal", "rotary", "music_time")
HEADS = ("parallel", "gru")
FF_FACTOR = 4  # width of the feed-forward layer over d_model (Vaswani et al. 2017, section 3.3)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Everything that shapes the model; the defaults are the published reference.

    heads: "parallel" predicts the families of a note independently, as published. "gru" chooses one family after
        another (`vocab.CHOICE_ORDER`), each knowing those before it, so that the four agree (the recurrent
        sub-decoder of Nested Music Transformer, Ryu et al. 2024, section 3).
    positions: "sinusoidal" adds the published absolute encoding. "rotary" turns queries and keys by their index
        (Su et al. 2021). "music_time" turns every second pair by the note's time in the song instead, in steps.
    """

    emb_sizes: tuple[int, ...] = (512, 128, 256, 512)
    emb_pooling: str = "concat"
    n_layers: int = 12
    n_heads: int = 8
    d_model: int = 512
    dropout: float = 0.1
    block_size: int = 512  # context T, in notes
    heads: str = "parallel"
    positions: str = "sinusoidal"
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
        for name, options in (("emb_pooling", POOLINGS), ("positions", POSITIONS), ("heads", HEADS)):
            if getattr(self, name) not in options:
                raise UserError(f"{name}={getattr(self, name)!r} must be one of {', '.join(options)}")
        if self.emb_pooling == "sum" and len(set(self.emb_sizes)) > 1:
            raise UserError(f"emb_pooling 'sum' needs equal emb_sizes, not {list(self.emb_sizes)}")
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout={self.dropout} must be at least 0 and below 1")
        if self.positions == "sinusoidal" and self.d_model % 2:
            raise UserError(f"d_model={self.d_model} must be even for sinusoidal positions")
        if self.positions != "sinusoidal" and self.d_model // self.n_heads % 4:
            raise UserError(f"d_model/n_heads={self.d_model // self.n_heads} must be a multiple of 4 "
                            f"for {self.positions} positions")


class KeyValueCache:
    """Keys and values of the notes read so far, one (B, H, block_size, C) pair per layer, written in place."""

    def __init__(self, config: ModelConfig, batch: int, device: torch.device, dtype: torch.dtype) -> None:
        shape = (batch, config.n_heads, config.block_size, config.d_model // config.n_heads)
        self.layers = [(torch.zeros(shape, device=device, dtype=dtype), torch.zeros(shape, device=device, dtype=dtype))
                       for _ in range(config.n_layers)]
        self.length = 0

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Append (B, H, T, C) keys and values of one layer; returns all of that layer's, (B, H, length + T, C)."""
        keys, values = self.layers[layer]
        end = self.length + key.shape[2]
        keys[:, :, self.length:end] = key
        values[:, :, self.length:end] = value
        return keys[:, :, :end], values[:, :, :end]


class Attention(nn.Module):
    """Causal self-attention without biases, optionally with rotated queries and keys."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_heads, self.dropout = config.n_heads, config.dropout
        self.to_qkv = nn.Linear(config.d_model, 3 * config.d_model, bias=False)
        self.to_out = nn.Linear(config.d_model, config.d_model, bias=False)

    def forward(self, x: Tensor, rotation: Tensor | None, cache: KeyValueCache | None, layer: int) -> Tensor:
        batch, length, width = x.shape
        query, key, value = (self.to_qkv(x).view(batch, length, 3, self.n_heads, width // self.n_heads)
                             .permute(2, 0, 3, 1, 4))  # each (B, H, T, C)
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)
        mask = None
        if cache is not None:
            key, value = cache.extend(layer, key, value)
            # New notes see all earlier ones and, among themselves, the past.
            mask = torch.ones(length, key.shape[2], dtype=torch.bool, device=x.device).tril(key.shape[2] - length)
        out = nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None,
            dropout_p=self.dropout if self.training else 0.0)
        return self.to_out(out.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    """One pre-norm decoder block: attention, then a feed-forward layer with GELU."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.d_model
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(config)
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
        if config.heads == "gru":
            self.chosen = nn.ModuleList(nn.Embedding(config.n_tokens[f], width) for f in CHOICE_ORDER[:-1])
            self.gru = nn.GRUCell(width, width)
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

    def family_logits(self, states: Tensor, chosen: dict[int, Tensor]) -> Tensor:
        """Logits (…, V_f) of the next family in `CHOICE_ORDER`, given those of the note chosen already.

        Args:
            states: (…, D) trunk states.
            chosen: family → (…) ids, for the first len(chosen) families of `CHOICE_ORDER`.
        """
        family = CHOICE_ORDER[len(chosen)]
        if self.config.heads == "parallel" or not chosen:
            return self.heads[family](states)
        hidden = flat = states.flatten(0, -2)
        for k in range(len(chosen)):
            hidden = self._advance(k, chosen[CHOICE_ORDER[k]].flatten(), hidden)
        return self.heads[family](flat + hidden).view(*states.shape[:-1], -1)

    def forward(self, ids: Tensor, next_ids: Tensor | None = None) -> list[Tensor]:
        """Logits of every family, F tensors (B, T, V_f) in `FIELDS` order.

        Args:
            ids: (B, T, F) notes read.
            next_ids: (B, T, F) notes to be predicted. Heads that choose one family after another need it; family
                k never sees its own id or a later one.
        """
        states = self.states(ids)
        logits: list[Tensor] = [states] * len(FIELDS)
        if self.config.heads == "parallel":
            return [head(states) for head in self.heads]
        if next_ids is None:
            raise ValueError(f"heads={self.config.heads!r} need next_ids")
        hidden = flat = states.flatten(0, 1)
        for k, family in enumerate(CHOICE_ORDER):
            logits[family] = self.heads[family](flat + hidden if k else flat).view(*states.shape[:-1], -1)
            if k + 1 < len(CHOICE_ORDER):
                hidden = self._advance(k, next_ids[..., family].flatten(), hidden)
        return logits

    def _advance(self, k: int, ids: Tensor, hidden: Tensor) -> Tensor:
        """(N, D) hidden state after the k-th family was chosen as `ids` (N,)."""
        return self.gru(self.chosen[k](ids), hidden)

    def n_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


def field_losses(logits: list[Tensor], targets: Tensor) -> Tensor:
    """Mean cross-entropy of each family, in nats.

    Args:
        logits: F tensors (B, T, V_f), in `vocab.FIELDS` order.
        targets: (B, T, F) int64; ids equal to PAD do not count (nan if none does).
    Returns:
        (F,) float tensor. Report the families apart: a mean over them hides the weak one. Their sum is nats per note.
    """
    return torch.stack([nn.functional.cross_entropy(field_logits.flatten(0, 1).float(),  # (B·T, V_f)
                                                    targets[..., f].flatten(), ignore_index=PAD)
                        for f, field_logits in enumerate(logits)])


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


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn the pairs (x_i, x_{i + C/2}) of (B, H, T, C) by `rotation`, a (2, B or 1, 1, T, C/2) cosine and sine."""
    cosine, sine = rotation
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
