"""Fast inference on a CPU, note by note: weights laid out for streaming, or stored in fewer bytes.

With one song, every note reads all weights once. Speed is set by their size, by memory bandwidth, and by
the overhead between products.

A matrix times one vector is a sum of the matrix's rows, each weighted by one element of the vector. That
is what torch's `embedding_bag` computes. With weights laid out for it, they come in at the speed of memory;
oneDNN and MKL reach half of that with one row (AMD EPYC). Attention is the same: a query's scores are
weighted sums of rows of the keys, and its output is a weighted sum of rows of the values.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from backline.common.errors import UserError
from backline.layers.attention import Dropout, KeysValues
from backline.layers.cache import KeyValueCache

if TYPE_CHECKING:
    from model import Block, PooledTransformer

FEW_ROWS = 16  # rows that the packed weights are laid out for: one note of each song of a batch
BAG = 128  # outputs of a layer that are summed together
STREAMS = 4  # interleaved read streams per core: more prefetches in flight
CHUNK = 64  # notes whose scores are summed together
ENGINES = tuple(torch.backends.quantized.supported_engines)  # "fbgemm" brings the fast sums
MODE_SUM = 0  # of `embedding_bag`
MOST_INT8 = 127
SMALLEST_WEIGHT = 1e-12  # or a row of zeros would have no scale


def weighted_sums(rows: Tensor, index: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    """(n, W) weighted sums of rows.

    Args:
        rows: (N, W).
        index: (M,) which rows are summed, sum after sum.
        offsets: (n,) where in `index` each sum begins.
        weights: (M,) of the rows in `index`.
    """
    sums, *_ = torch.embedding_bag(rows, index, offsets, mode=MODE_SUM, per_sample_weights=weights)
    return sums


# ---------------------------------------------------------------- linear layers


@functools.cache
def stream_index(n_bags: int, n_in: int) -> tuple[Tensor, Tensor]:
    """Where the rows of a packed layer lie.

    Returns:
        (n_bags·n_in,) for each bag the rows of inputs 0, 1, 2, …, and (n_bags,) where each bag begins.
    """
    by_stream = (torch.arange(n_in) % STREAMS).argsort(stable=True)
    places = by_stream.argsort().int()                       # (n_in,) row of each input in a bag
    begins = torch.arange(n_bags, dtype=torch.int32) * n_in
    return (begins[:, None] + places).flatten(), begins


class PackedLinear(nn.Module):
    """A linear layer with its weights laid out for one row, and by oneDNN for a few.

    torch's own layout reaches a third of their speed with one row and less than half with sixteen (fp32,
    AMD EPYC). Each layout is made when it is first needed. So weights may be held three times: as they
    came, in `packed` and in `rows`.
    """

    def __init__(self, linear: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = linear.weight.detach().to(dtype)
        self.bias = None if linear.bias is None else linear.bias.detach().to(dtype)
        self.n_out, self.n_in = self.weight.shape
        self.n_bags = math.ceil(self.n_out / BAG)
        self.index, self.begins = stream_index(self.n_bags, self.n_in)

    @functools.cached_property
    def packed(self) -> Tensor:
        """The weights in oneDNN's layout, for a few rows."""
        return torch.ops.mkldnn._reorder_linear_weight(self.weight, FEW_ROWS)

    @functools.cached_property
    def rows(self) -> Tensor:
        """(n_bags·n_in, BAG) weights for one row: in each bag the inputs of one stream after another."""
        missing = self.n_bags * BAG - self.n_out
        weight = self.weight
        if missing:
            weight = nn.functional.pad(weight, (0, 0, 0, missing))
        bags = weight.view(self.n_bags, BAG, self.n_in).transpose(1, 2)  # (n_bags, n_in, BAG)
        streams = [bags[:, start::STREAMS] for start in range(STREAMS)]
        return torch.cat(streams, 1).view(-1, BAG)

    def forward(self, x: Tensor, activation: str = "none") -> Tensor:
        """(…, n_out) from (…, n_in); `activation` is "none" or "gelu"."""
        if x.numel() > self.n_in:
            return torch.ops.mkldnn._linear_pointwise(
                x, self.packed, self.bias, activation, [], "none")
        weights = torch.cat([x.reshape(-1)] * self.n_bags)
        sums = weighted_sums(self.rows, self.index, self.begins, weights)  # (n_bags, BAG)
        out = sums.view(*x.shape[:-1], -1)
        if out.shape[-1] != self.n_out:  # a view costs as much as a norm
            out = out[..., :self.n_out]
        if self.bias is not None:
            out = out.add_(self.bias)
        return nn.functional.gelu(out) if activation == "gelu" else out

    def added_to(self, residual: Tensor, x: Tensor) -> Tensor:
        """`residual` (…, n_out) plus the layer's output."""
        if x.numel() > self.n_in:
            return torch.ops.mkldnn._linear_pointwise.binary(
                x, residual, self.packed, self.bias, "add")
        return residual + self(x)


def pick_engine() -> None:
    """Have torch compute with 8-bit weights by its own choice of engine, or else by any that is there.

    On some machines, as on Apple Silicon, torch has chosen none. Raises UserError if it has none.
    """
    chosen = torch.backends.quantized
    there = [engine for engine in chosen.supported_engines if engine != "none"]
    if not there:
        raise UserError("--dtype int8: this build of torch has no engine for 8-bit weights; take "
                        "bf16 or fp32")
    if chosen.engine not in there:
        chosen.engine = there[0]


class ByteLinear(nn.Module):
    """A linear layer with 8-bit weights and a scale for each output; inputs are rounded as they come.

    `pick_engine` comes before the first.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        # Else sums may saturate on a CPU without VNNI; qnnpack ignores it, with a warning.
        self.reduce_range = torch.backends.quantized.engine != "qnnpack"
        weight = linear.weight.detach().float()
        largest = weight.abs().amax(1).clamp(min=SMALLEST_WEIGHT)
        scales = (largest / MOST_INT8).double()
        zeros = torch.zeros(len(scales), dtype=torch.long)
        with warnings.catch_warnings():
            # torch announces a successor; requirements.txt pins the version.
            warnings.simplefilter("ignore")
            rounded = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
        bias = None if linear.bias is None else linear.bias.detach().float()
        self.packed = torch.ops.quantized.linear_prepack(rounded, bias)

    def forward(self, x: Tensor, activation: str = "none") -> Tensor:
        """(…, n_out) from (…, n_in); `activation` is "none" or "gelu"."""
        out = torch.ops.quantized.linear_dynamic(x, self.packed, self.reduce_range)
        return nn.functional.gelu(out) if activation == "gelu" else out

    def added_to(self, residual: Tensor, x: Tensor) -> Tensor:
        """`residual` (…, n_out) plus the layer's output."""
        return residual + self(x)


# ---------------------------------------------------------------- attention


class PlayingMemory(NamedTuple):
    """One layer of a `PlayingCache`, and how much of it is seen."""

    cache: PlayingCache
    layer: int
    n_seen: int
    visible: Tensor | None  # as for `causal_attention`

    def attend(self, query: Tensor, dropout: Dropout) -> Tensor:
        """(B, T, D) from (B, H, T, C) queries, without dropout."""
        assert not dropout.training, "a model that plays is not trained"
        if query.shape[2] > 1:
            return self.cache.plain(self).attend(query, dropout)
        return self.cache.attend(self, query)


class PlayingCache(KeyValueCache):
    """Keys and values that a query of each song reads in weighted sums.

    Keys (B, H, n_chunks, C, CHUNK) are rows of one number of each of CHUNK notes,
    values (B, H, capacity, C) rows of one note.
    """

    def __init__(
        self,
        n_layers: int,
        shape: tuple[int, int, int, int],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        super().__init__(n_layers, shape, device, dtype)
        self.index_for = (0, 0)  # songs and notes that `index` is for
        self.index: tuple[Tensor, ...] = ()

    def _empty_layer(
        self,
        shape: tuple[int, int, int, int],
        device: torch.device,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        batch, n_heads, capacity, width = shape
        n_chunks = math.ceil(capacity / CHUNK)
        keys = torch.zeros((batch, n_heads, n_chunks, width, CHUNK), device=device, dtype=dtype)
        values = torch.zeros(shape, device=device, dtype=dtype)
        return keys, values

    def extend(self, layer: int, key: Tensor, value: Tensor) -> PlayingMemory:
        """Add (B, H, T, C) keys and values to one layer; returns what its new notes see."""
        assert self.step is not None
        keys, values = self.layers[layer]
        start, places = self.step.start, self.step.places
        if places is not None:
            songs = torch.arange(len(keys), device=self.device)[:, None]
            key = key.transpose(1, 2).to(keys.dtype)         # (B, T, H, C)
            keys[songs, :, places // CHUNK, :, places % CHUNK] = key
            values[songs, :, places] = value.transpose(1, 2).to(values.dtype)
        elif key.shape[2] == 1:
            values[:, :, start:start + 1] = value
            keys[:, :, start // CHUNK, :, start % CHUNK] = key[:, :, 0]
        else:
            values[:, :, start:start + key.shape[2]] = value
            places = torch.arange(start, start + key.shape[2], device=self.device)
            key = key.permute(2, 0, 1, 3).to(keys.dtype)     # (T, B, H, C)
            keys[:, :, places // CHUNK, :, places % CHUNK] = key
        return PlayingMemory(self, layer, self.step.end, self.step.visible)

    def held(self, layer: int, visible: Tensor | None) -> PlayingMemory:
        """What one layer holds of all notes read; `visible` as in `KeyValueCache.held`."""
        return PlayingMemory(self, layer, max(self.lengths), visible)

    def plain(self, memory: PlayingMemory) -> KeysValues:
        """The same keys and values in their usual layout."""
        keys, values = self.layers[memory.layer]
        keys = keys.transpose(3, 4).flatten(2, 3)            # (B, H, n_chunks·CHUNK, C)
        n_seen = memory.n_seen
        return KeysValues(keys[:, :, :n_seen], values[:, :, :n_seen], memory.visible)

    def attend(self, memory: PlayingMemory, query: Tensor) -> Tensor:
        """(B, 1, D) from one query (B, H, 1, C) of each song."""
        batch, n_heads, _, width = query.shape
        keys, values = self.layers[memory.layer]
        key_index, key_begins, value_index, value_begins = self._index(query.shape, memory.n_seen)
        out_dtype = query.dtype
        query = (query * width ** -0.5).to(keys.dtype)
        query = query.reshape(batch * n_heads, 1, width)
        n_chunks = len(key_begins) // len(query)
        each_chunk = query.expand(-1, n_chunks, -1).reshape(-1)
        scores = weighted_sums(keys.view(-1, CHUNK), key_index, key_begins, each_chunk)
        scores = scores.view(batch, n_heads, -1)[..., :memory.n_seen]  # (B, H, L)
        if memory.visible is not None:
            scores = scores.masked_fill(~memory.visible[:, 0], -torch.inf)
        weights = scores.softmax(-1).view(-1)
        out = weighted_sums(values.view(-1, width), value_index, value_begins, weights)
        return out.view(batch, 1, n_heads * width).to(out_dtype)

    def _index(self, shape: torch.Size, n_seen: int) -> tuple[Tensor, ...]:
        """The rows of keys and of values that queries of `shape` sum, and where each sum begins.

        Made once for all layers.
        """
        batch, n_heads, _, width = shape
        if self.index_for != (batch, n_seen):
            heads = torch.arange(batch * n_heads, device=self.device, dtype=torch.int32)
            n_rows = math.ceil(n_seen / CHUNK) * width
            rows = torch.arange(n_rows, device=self.device, dtype=torch.int32)
            notes = torch.arange(n_seen, device=self.device, dtype=torch.int32)
            rows_per_head = math.ceil(self.capacity / CHUNK) * width
            key_index = (heads[:, None] * rows_per_head + rows).flatten()
            key_begins = torch.arange(0, len(heads) * n_rows, width, device=self.device,
                                      dtype=torch.int32)
            value_index = (heads[:, None] * self.capacity + notes).flatten()
            value_begins = heads * n_seen
            self.index = key_index, key_begins, value_index, value_begins
            self.index_for = batch, n_seen
        return self.index


# ---------------------------------------------------------------- blocks


class PlayingBlock(nn.Module):
    """`model.Block` without dropout, in as few operations as there are."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.attention_norm = block.attention_norm
        self.attention = block.attention
        self.ff_norm = block.ff_norm
        self.widen: Any = block.ff[0]  # these and `to_out` are replaced by layers with `added_to`
        self.narrow: Any = block.ff[-1]

    def forward(self, x: Tensor, *context: Any) -> Tensor:
        """(B, T, D) from (B, T, D), as `model.Block`."""
        attended = self.attention.attended(self.attention_norm(x), *context)
        to_out: Any = self.attention.to_out
        x = to_out.added_to(x, attended)
        return self.narrow.added_to(x, self.widen(self.ff_norm(x), "gelu"))


# ---------------------------------------------------------------- models


def can_pack(dtype: torch.dtype) -> bool:
    """Whether this machine and this torch have `PackedLinear` for `dtype`, and fast sums for it."""
    has_layout = hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    if not (torch.backends.mkldnn.is_available() and has_layout and "fbgemm" in ENGINES):
        return False
    if dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return dtype == torch.float32


def replace_layers(
    model: PooledTransformer,
    make: Callable[[nn.Linear], nn.Module],
) -> PooledTransformer:
    """`model`, changed in place: every linear layer replaced by `make(layer)`, and blocks and cache
    by their playing kinds.
    """
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Linear:
                setattr(module, name, make(child))
    model.cache_factory = PlayingCache
    model.blocks = _playing(model.blocks)
    model.late_blocks = _playing(model.late_blocks)
    return model


def _playing(blocks: nn.ModuleList) -> nn.ModuleList:
    return nn.ModuleList(PlayingBlock(block) for block in cast("Iterable[Block]", blocks))


def for_inference(model: PooledTransformer, dtype: str) -> PooledTransformer:
    """`model`, changed in place, with weights of `dtype`, one of `generation.config.DTYPES`.

    "bf16" computes in bfloat16. "int8", on a CPU only, rounds the weights of linear layers to 8 bits
    and keeps keys and values in bfloat16. Raises UserError if torch cannot compute with those.
    """
    if dtype == "int8":
        pick_engine()
    model.eval().requires_grad_(False)
    on_cpu = model.in_norm.weight.device.type == "cpu"
    numbers = torch.bfloat16 if dtype == "bf16" else torch.float32
    model.to(numbers)
    if dtype == "int8":
        model = replace_layers(model, ByteLinear)
        model.cache_factory = bfloat16_cache
        return model
    if on_cpu and can_pack(numbers):
        return replace_layers(model, lambda linear: PackedLinear(linear, numbers))
    return model


def bfloat16_cache(
    n_layers: int,
    shape: tuple[int, int, int, int],
    device: torch.device,
    _dtype: torch.dtype,
) -> PlayingCache:
    """A cache of half the size, whatever the weights are."""
    return PlayingCache(n_layers, shape, device, torch.bfloat16)
