"""A model made ready to play: layers that read their weights faster, and weights that are fewer bytes to read.

One song at a time, a note costs one reading of all weights: what counts is how many bytes they are, how fast they come
in, and how little happens between two products.

A matrix times one vector is a sum of the matrix's rows, each weighted by a number of the vector, which is what torch's
`embedding_bag` does; laid out for it, weights come in at the speed of memory. oneDNN and MKL reach half of that with
one row (AMD EPYC). So it is with attention: a query's scores are weighted sums of rows of the keys, and what it gets
is one of rows of the values.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from backline.layers.attention import Dropout, causal_attention, normed_key, normed_query, rotate
from backline.layers.cache import KeyValueCache

if TYPE_CHECKING:
    from model import Block, PooledTransformer

FEW_ROWS = 16  # what the packed weights are laid out for: a note of each song of a batch
BAG = 128  # outputs of a layer that are summed together
STREAMS = 4  # places from which a core reads at a time, in turns: it then asks for more ahead than from one
CHUNK = 64  # notes whose scores are summed together
NO_DROPOUT = Dropout(0.0).eval()
ENGINES = tuple(torch.backends.quantized.supported_engines)  # "fbgemm" brings the fast sums


def weighted_sums(rows: Tensor, index: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    """(n, W) sums of `rows` (N, W): those in `index` (M,), times `weights` (M,), from each of `offsets` (n,) on."""
    return torch.embedding_bag(rows, index, offsets, False, 0, False, weights, False)[0]  # not by frequency, mode sum


# ---------------------------------------------------------------- linear layers


@functools.cache
def stream_index(n_bags: int, n_in: int) -> tuple[Tensor, Tensor]:
    """For each bag, where the rows of inputs 0, 1, 2, ... lie, (n_bags·n_in,); and where bags begin, (n_bags,)."""
    places = (torch.arange(n_in) % STREAMS).argsort(stable=True).argsort().int()
    begins = torch.arange(n_bags, dtype=torch.int32) * n_in
    return (begins[:, None] + places).flatten(), begins


class PackedLinear(nn.Module):
    """A linear layer with its weights laid out for one row, and by oneDNN for a few, each when it is first needed.

    torch's own layout reaches a third of their speed with one row and less than half with sixteen (fp32, AMD EPYC).
    """

    def __init__(self, linear: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = linear.weight.detach().to(dtype)
        self.bias = None if linear.bias is None else linear.bias.detach().to(dtype)
        self.n_out, self.n_in = self.weight.shape
        self.n_bags = -(-self.n_out // BAG)
        self.index, self.begins = stream_index(self.n_bags, self.n_in)

    @functools.cached_property
    def packed(self) -> Tensor:
        return torch.ops.mkldnn._reorder_linear_weight(self.weight, FEW_ROWS)

    @functools.cached_property
    def rows(self) -> Tensor:
        """(n_bags·n_in, BAG): in each bag the inputs of one stream after those of another."""
        missing = self.n_bags * BAG - self.n_out
        weight = nn.functional.pad(self.weight, (0, 0, 0, missing)) if missing else self.weight
        bags = weight.view(self.n_bags, BAG, self.n_in).transpose(1, 2)
        return torch.cat([bags[:, start::STREAMS] for start in range(STREAMS)], 1).view(-1, BAG)

    def forward(self, x: Tensor, activation: str = "none") -> Tensor:
        if x.numel() > self.n_in:
            return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, activation, [], "none")
        sums = weighted_sums(self.rows, self.index, self.begins, torch.cat([x.reshape(-1)] * self.n_bags))
        out = sums.view(*x.shape[:-1], -1)
        out = out if out.shape[-1] == self.n_out else out[..., :self.n_out]  # a view costs as much as a norm
        out = out if self.bias is None else out.add_(self.bias)
        return nn.functional.gelu(out) if activation == "gelu" else out

    def added_to(self, residual: Tensor, x: Tensor) -> Tensor:
        if x.numel() > self.n_in:
            return torch.ops.mkldnn._linear_pointwise.binary(x, residual, self.packed, self.bias, "add")
        return residual + self(x)


class ByteLinear(nn.Module):
    """A linear layer with weights of 8 bits, a scale for each output; what comes in is rounded as it comes."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scales = (weight.abs().amax(1).clamp(min=1e-12) / 127).double()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch announces a successor; requirements.txt pins the version
            zeros = torch.zeros(len(scales), dtype=torch.long)
            rounded = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
        bias = None if linear.bias is None else linear.bias.detach().float()
        self.packed = torch.ops.quantized.linear_prepack(rounded, bias)

    def forward(self, x: Tensor, activation: str = "none") -> Tensor:
        out = torch.ops.quantized.linear_dynamic(x, self.packed, True)
        return nn.functional.gelu(out) if activation == "gelu" else out

    def added_to(self, residual: Tensor, x: Tensor) -> Tensor:
        return residual + self(x)


# ---------------------------------------------------------------- attention


class PlayingCache(KeyValueCache):
    """Keys and values that a query of each song reads in weighted sums.

    Keys (B, H, n_chunks, C, CHUNK) are rows of one number of each of CHUNK notes, values (B, H, capacity, C) rows of
    one note. A layer is not shown but named, by `extend` and `held`, for `attend`.
    """

    def __init__(self, n_layers: int, shape: tuple[int, int, int, int], device: torch.device,
                 dtype: torch.dtype) -> None:
        batch, n_heads, capacity, width = shape
        n_chunks = -(-capacity // CHUNK)
        super().__init__(0, shape, device, dtype)
        self.layers = [(torch.zeros((batch, n_heads, n_chunks, width, CHUNK), device=device, dtype=dtype),
                        torch.zeros(shape, device=device, dtype=dtype)) for _ in range(n_layers)]
        self.n_seen, self.index_for, self.index = 0, (0, 0), ()

    def begin(self, n_rows: int) -> Tensor:
        self.n_seen = min(max(self.lengths) + n_rows, self.capacity)
        return super().begin(n_rows)

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[PlayingCache, int]:
        keys, values = self.layers[layer]
        if self.places is not None:
            songs = torch.arange(len(keys), device=self.device)[:, None]
            keys[songs, :, self.places // CHUNK, :, self.places % CHUNK] = key.transpose(1, 2).to(keys.dtype)
            values[songs, :, self.places] = value.transpose(1, 2).to(values.dtype)
            return self, layer
        start = self.lengths[0]
        values[:, :, start:start + key.shape[2]] = value
        if key.shape[2] == 1:
            keys[:, :, start // CHUNK, :, start % CHUNK] = key[:, :, 0]
        else:
            places = torch.arange(start, start + key.shape[2], device=self.device)
            keys[:, :, places // CHUNK, :, places % CHUNK] = key.permute(2, 0, 1, 3).to(keys.dtype)
        return self, layer

    def held(self, layer: int) -> tuple[PlayingCache, int]:
        self.n_seen = max(self.lengths)
        return self, layer

    def attend(self, layer: int, query: Tensor, visible: Tensor | None) -> Tensor:
        """(B, T, D) that queries (B, H, T, C) get of what a layer holds; `visible` as for `causal_attention`."""
        batch, n_heads, n_queries, width = query.shape
        keys, values = self.layers[layer]
        if n_queries > 1:
            plain = keys.transpose(3, 4).flatten(2, 3)
            out = causal_attention(query, plain[:, :, :self.n_seen], values[:, :, :self.n_seen], NO_DROPOUT, visible)
            return out.transpose(1, 2).flatten(2)
        key_index, key_begins, value_index, value_begins = self._index(batch, n_heads, width)
        asked_in, query = query.dtype, (query * width ** -0.5).to(keys.dtype).reshape(batch * n_heads, 1, width)
        each_chunk = query.expand(-1, len(key_begins) // len(query), -1).reshape(-1)
        scores = weighted_sums(keys.view(-1, CHUNK), key_index, key_begins, each_chunk)
        scores = scores.view(batch, n_heads, -1)[..., :self.n_seen]
        scores = scores if visible is None else scores.masked_fill(~visible[:, 0], -torch.inf)
        out = weighted_sums(values.view(-1, width), value_index, value_begins, scores.softmax(-1).view(-1))
        return out.view(batch, 1, n_heads * width).to(asked_in)

    def _index(self, batch: int, n_heads: int, width: int) -> tuple[Tensor, ...]:
        """The rows of keys and of values that the heads' queries sum, and where each sum begins; once for all layers.
        """
        if self.index_for != (batch, self.n_seen):
            heads = torch.arange(batch * n_heads, device=self.device, dtype=torch.int32)
            n_rows = -(-self.n_seen // CHUNK) * width
            rows, notes = (torch.arange(n, device=self.device, dtype=torch.int32) for n in (n_rows, self.n_seen))
            per_head = -(-self.capacity // CHUNK) * width
            self.index = ((heads[:, None] * per_head + rows).flatten(),
                          torch.arange(0, len(heads) * n_rows, width, device=self.device, dtype=torch.int32),
                          (heads[:, None] * self.capacity + notes).flatten(), heads * self.n_seen)
            self.index_for = batch, self.n_seen
        return self.index


# ---------------------------------------------------------------- blocks


class PlayingBlock(nn.Module):
    """`model.Block` without dropout, in as few operations as there are."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.attention_norm, self.attention, self.ff_norm = block.attention_norm, block.attention, block.ff_norm
        self.widen, self.narrow = block.ff[0], block.ff[-1]

    def forward(self, x: Tensor, rotation: Tensor | None, cache: PlayingCache, layer: int) -> Tensor:
        qkv = self.attention.to_qkv(self.attention_norm(x))
        query, key, value = qkv.view(*x.shape[:2], 3, self.attention.n_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        if self.attention.qk_norm:
            query, key = normed_query(query), normed_key(key)
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)
        cache.extend(layer, key, value)
        return self.fed(x, cache.attend(layer, query, cache.visible))

    def fed(self, x: Tensor, attended: Tensor) -> Tensor:
        """(B, T, D) of what came in and what attention made of it."""
        x = self.attention.to_out.added_to(x, attended)
        return self.narrow.added_to(x, self.widen(self.ff_norm(x), "gelu"))


class PlayingLateBlock(PlayingBlock):
    """The same of a late block."""

    def forward(self, x: Tensor, rotation: Tensor, cache: PlayingCache, layer: int, visible: Tensor | None) -> Tensor:
        query = self.attention.queries(self.attention_norm(x), rotation)
        return self.fed(x, cache.attend(layer, query, visible))


# ---------------------------------------------------------------- models


def can_pack(dtype: torch.dtype) -> bool:
    """Whether this machine and this torch have `PackedLinear`, and sums fast enough for it."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return False
    if "fbgemm" not in ENGINES:
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def play_with(model: PooledTransformer, make: Callable[[nn.Linear], nn.Module]) -> PooledTransformer:
    """`model`, changed in place, with the layers that `make` makes of its linear ones, and all else that plays."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Linear:
                setattr(module, name, make(child))
    model.cache_type = PlayingCache
    model.blocks = nn.ModuleList(PlayingBlock(block) for block in model.blocks)
    model.late_blocks = nn.ModuleList(PlayingLateBlock(block) for block in model.late_blocks)
    return model


def prepared(model: PooledTransformer, dtype: str) -> PooledTransformer:
    """`model`, changed in place, to play with weights of `dtype`, one of `generation_args.DTYPES`.

    "bf16" computes in bfloat16. "int8" rounds the weights of linear layers to 8 bits and keeps keys and values in
    bfloat16; on a CPU only.
    """
    model.eval().requires_grad_(False)
    on_cpu = model.in_norm.weight.device.type == "cpu"
    kind = torch.bfloat16 if dtype == "bf16" else torch.float32
    model.to(kind)
    if dtype == "int8":
        model.cache_dtype = torch.bfloat16
        return play_with(model, ByteLinear)
    if on_cpu and can_pack(kind):
        return play_with(model, lambda linear: PackedLinear(linear, kind))
    return model
