"""The settings of a model. Light: no torch, and no file is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from backline.common.errors import UserError
from backline.common.settings import config_from_dict
from backline.music.chords import CHORD_FIELDS
from backline.music.controls import fields
from backline.music.vocab import BAR, CHOICE_ORDER, FIELDS, START_POS, Vocabulary

POOLINGS = ("concat", "sum")
POSITIONS = ("sinusoidal", "rotary", "music_time", "metre")
HEADS = ("parallel", "chain", "gru")
BARS = ("absolute", "relative")
CHOICES = {"emb_pooling": POOLINGS,
           "positions": POSITIONS,
           "heads": HEADS,
           "bars": BARS}
AT_LEAST_1 = ("n_layers", "n_heads", "d_model", "block_size", "steps_per_bar")
FF_FACTOR = 4  # width of the feed-forward layer over d_model (Vaswani et al. 2017, section 3.3)
CHAIN_FACTOR = 2  # width of the feed-forward block between two heads of a chain, over d_model
TIME_FIELDS = (FIELDS[BAR], FIELDS[START_POS])
# Rotation periods in bars, most informative first: the bar, its subdivisions, its multiples.
METRE = (1, 1 / 4, 1 / 2, 1 / 8, 2, 4, 1 / 16, 8,
         16, 1 / 3, 1 / 6, 1 / 12, 32, 3, 64, 128)
QK_GAIN = 1.2  # of normed queries, or attention could hardly be sharp
# Of control vectors. At the rate of all other weights they were too short to be heard after
# 10 M notes.
CONTROL_GAIN = 8.0
# A trained model takes larger values of these: it can then do more, and plays as before.
GROWS = ("block_size", "given", "controls", "control_sizes")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Everything that shapes the model; the defaults are the published reference.

    emb_sizes: width of the embedding of each family.
    emb_pooling: "concat" joins a note's embeddings end to end, "sum" adds them up.
    n_layers: decoder layers, late ones among them.
    d_ff: width of the feed-forward layers; 0: four times `d_model`.
    block_size: context T, in notes.
    heads: "parallel" predicts the families of a note independently, as published. The others choose
        one family after another in `order`; each knows those before it, so that the four agree.
        "chain" passes the state and the id chosen through a feed-forward block, "gru" through a
        recurrent cell (the sub-decoders of Nested Music Transformer, Ryu et al. 2024, section 3).
    positions: "sinusoidal" adds the published absolute encoding. "rotary" rotates queries and keys
        by their index (Su et al. 2021). "music_time" rotates every second pair by musical time
        instead, in steps from the song's start. "metre" rotates every pair by musical time, half
        of them at the periods in METRE.
    bars: "absolute" reads and predicts bar numbers as they stand. "relative" counts them from the
        first bar in the context, unless the song begins there. Bar numbers late in a song then
        stay in the range seen in training.
    late_layers: how many of the `n_layers` run after the next note's onset is chosen and before its
        pitch. They attend from that onset to the notes read: what sounds a beat, a bar or four
        bars earlier is found by its distance. They need heads that choose the onset first.
    qk_norm: whether queries and keys are normed to equal length before they meet.
    given: whether notes may be marked as given, by a learned vector that is added to them.
        Given notes are read `lookahead_bars` ahead of the notes that are made
        (`training.given_tasks`).
    controls: whether the model can be told what to play (`music.controls`). A learned vector for
        each control is added to the notes read, and for the chord once the next note's onset is
        chosen. Needs late layers.
    control_sizes: ids of each control; () without controls.
    n_tokens: ids V_f of each family.
    steps_per_bar: steps of musical time in a bar.

    The last three follow from the vocabulary: see `for_vocabulary`.
    """

    emb_sizes: tuple[int, ...] = (512, 128, 256, 512)
    emb_pooling: str = "concat"
    n_layers: int = 12
    n_heads: int = 8
    d_model: int = 512
    d_ff: int = 0
    dropout: float = 0.1
    block_size: int = 512
    heads: str = "parallel"
    order: tuple[str, ...] = tuple(FIELDS[family] for family in CHOICE_ORDER)
    positions: str = "sinusoidal"
    bars: str = "absolute"
    late_layers: int = 0
    qk_norm: bool = False
    given: bool = False
    lookahead_bars: int = 4
    controls: bool = False
    control_sizes: tuple[int, ...] = ()
    n_tokens: tuple[int, ...] = dataclasses.field(kw_only=True)
    steps_per_bar: int = dataclasses.field(kw_only=True)

    @classmethod
    def for_vocabulary(cls, vocabulary: Vocabulary, **settings: Any) -> ModelConfig:
        """`settings` with the sizes of `vocabulary`, unless they give sizes of their own."""
        return cls(**with_sizes(settings, vocabulary))

    @classmethod
    def from_dict(cls,
                  settings: dict[str, Any],
                  vocabulary: Vocabulary,
                  where: str) -> ModelConfig:
        """The same from JSON data. Raises UserError as `config_from_dict` does."""
        return config_from_dict(cls, with_sizes(settings, vocabulary), where)

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_choices()
        self._check_late_layers()
        self._check_widths()

    @property
    def head_width(self) -> int:
        """Width C of one attention head."""
        return self.d_model // self.n_heads

    @property
    def pooled_width(self) -> int:
        """Width of a note's embeddings once they are pooled."""
        if self.emb_pooling == "concat":
            return sum(self.emb_sizes)
        return self.emb_sizes[0]

    @property
    def ff_width(self) -> int:
        """Width of the feed-forward layers."""
        return self.d_ff or FF_FACTOR * self.d_model

    @property
    def sheet_sizes(self) -> tuple[int, ...]:
        """Ids of each control that comes with the notes read."""
        return self.control_sizes[:-len(CHORD_FIELDS)]

    @property
    def chord_sizes(self) -> tuple[int, ...]:
        """Ids of each control that comes with the next note's onset."""
        return self.control_sizes[-len(CHORD_FIELDS):]

    def differences(self, other: ModelConfig) -> list[str]:
        """Names of the settings that make `other` another model, and not this one grown or narrowed."""
        ours = dataclasses.asdict(self)
        theirs = dataclasses.asdict(other)
        changed = {name for name in ours if ours[name] != theirs[name]}
        same = {name for name in GROWS if theirs[name] >= ours[name]} | {"dropout"}
        if other.ff_width <= self.ff_width:
            same.add("d_ff")
        return sorted(changed - same)

    # ------------------------------------------------------------ checks

    def _check_numbers(self) -> None:
        for name in AT_LEAST_1:
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} must be at least 1")
        if self.d_ff < 0:
            raise UserError(f"d_ff={self.d_ff} must be at least 0")
        if self.d_model % self.n_heads:
            raise UserError(f"d_model={self.d_model} must be a multiple of n_heads={self.n_heads}")
        for name in ("emb_sizes", "n_tokens"):
            sizes = getattr(self, name)
            if len(sizes) != len(FIELDS) or min(sizes) < 1:
                raise UserError(f"{name}={list(sizes)} must be {len(FIELDS)} numbers "
                                f"of at least 1, one per family: {_listed(FIELDS)}")
        if self.lookahead_bars < 0:
            raise UserError(f"lookahead_bars={self.lookahead_bars} must be at least 0")
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout={self.dropout} must be at least 0 and below 1")

    def _check_choices(self) -> None:
        for name, options in CHOICES.items():
            if getattr(self, name) not in options:
                value = getattr(self, name)
                raise UserError(f"{name}={value!r} must be one of {_listed(options)}")
        if sorted(self.order) != sorted(FIELDS):
            raise UserError(f"order={list(self.order)} must name each of {_listed(FIELDS)} once")

    def _check_late_layers(self) -> None:
        if not 0 <= self.late_layers < self.n_layers:
            raise UserError(f"late_layers={self.late_layers} must be from 0 to n_layers − 1 = "
                            f"{self.n_layers - 1}")
        first = self.order[:len(TIME_FIELDS)]
        onset_first = set(first) == set(TIME_FIELDS)
        if self.late_layers and (self.heads == "parallel" or not onset_first):
            raise UserError(f"late_layers={self.late_layers} needs heads other than parallel, and "
                            f"an order that begins with {' and '.join(TIME_FIELDS)}")
        if self.controls and not self.late_layers:
            raise UserError("controls: chords are told before the first late layer; "
                            "set late_layers to at least 1")
        if self.controls and len(self.control_sizes) <= len(CHORD_FIELDS):
            raise UserError(f"control_sizes={list(self.control_sizes)} must be the sizes of all "
                            f"controls; leave them out, and the vocabulary gives them")

    def _check_widths(self) -> None:
        if self.emb_pooling == "sum" and len(set(self.emb_sizes)) > 1:
            raise UserError(f"emb_pooling 'sum' needs equal emb_sizes, not {list(self.emb_sizes)}")
        if self.positions == "sinusoidal":
            rotates = "late_layers" if self.late_layers else ""
            if self.d_model % 2:
                raise UserError(f"d_model={self.d_model} must be even for sinusoidal positions")
        else:
            rotates = f"{self.positions} positions"
        if rotates and self.head_width % 4:
            raise UserError(f"d_model/n_heads={self.head_width} must be a multiple of 4 "
                            f"for {rotates}")


def with_sizes(settings: Mapping[str, Any], vocabulary: Vocabulary) -> dict[str, Any]:
    """`settings` of a model, with the sizes that `vocabulary` gives where they say none."""
    sizes = {"n_tokens": vocabulary.sizes, "steps_per_bar": vocabulary.steps_per_bar}
    if settings.get("controls"):
        sizes["control_sizes"] = tuple(field.size for field in fields(vocabulary))
    missing = {name: size
               for name, size in sizes.items()
               if not settings.get(name)}
    return {**settings, **missing}


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
