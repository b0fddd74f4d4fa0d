"""Names and shapes of a model's weights, as they stand in its files. Light: no torch."""

from __future__ import annotations

from collections.abc import Iterator

from backline.layers.config import CHAIN_FACTOR, ModelConfig
from backline.music.vocab import FIELDS

Shape = tuple[int, ...]
Named = Iterator[tuple[str, Shape]]


def weight_shapes(config: ModelConfig) -> dict[str, Shape]:
    """The shape of each weight of `model.PooledTransformer`, by its name."""
    return dict(_weights(config))


def _weights(config: ModelConfig) -> Named:
    width = config.d_model
    for family, (n_ids, size) in enumerate(zip(config.n_tokens, config.emb_sizes, strict=True)):
        yield f"embeddings.{family}.weight", (n_ids, size)
    yield from _linear("in_linear", config.pooled_width, width)
    yield from _norm("in_norm", width)
    if config.given:
        yield "given", (width,)
    if config.controls:
        yield "sheet_vectors.vectors", (sum(config.sheet_sizes), width)
        yield "chord_vectors.vectors", (sum(config.chord_sizes), width)
    for layer in range(config.n_layers - config.late_layers):
        yield f"blocks.{layer}.attention.to_qkv.weight", (3 * width, width)
        yield from _rest_of_block(f"blocks.{layer}", config)
    for layer in range(config.late_layers):
        yield f"late_blocks.{layer}.attention.to_q.weight", (width, width)
        yield f"late_blocks.{layer}.attention.to_kv.weight", (2 * width, 2 * width)
        yield from _rest_of_block(f"late_blocks.{layer}", config)
    yield from _norm("out_norm", width)
    yield from _heads(config)


def _rest_of_block(name: str, config: ModelConfig) -> Named:
    width = config.d_model
    yield f"{name}.attention.to_out.weight", (width, width)
    yield from _norm(f"{name}.attention_norm", width)
    yield from _norm(f"{name}.ff_norm", width)
    yield from _linear(f"{name}.ff.0", width, config.ff_width)
    yield from _linear(f"{name}.ff.3", config.ff_width, width)


def _heads(config: ModelConfig) -> Named:
    width = config.d_model
    for family, n_ids in enumerate(config.n_tokens):
        yield from _linear(f"heads.{family}", width, n_ids)
    if config.heads == "parallel":
        return
    for k, name in enumerate(config.order[:-1]):
        yield f"chosen.{k}.weight", (config.n_tokens[FIELDS.index(name)], width)
        if config.heads == "chain":
            yield from _norm(f"links.{k}.0", width)
            yield from _linear(f"links.{k}.1", width, CHAIN_FACTOR * width)
            yield from _linear(f"links.{k}.3", CHAIN_FACTOR * width, width)
    if config.heads == "gru":
        for kind in ("ih", "hh"):
            yield f"gru.weight_{kind}", (3 * width, width)
            yield f"gru.bias_{kind}", (3 * width,)


def _linear(name: str, n_in: int, n_out: int) -> Named:
    yield f"{name}.weight", (n_out, n_in)
    yield f"{name}.bias", (n_out,)


def _norm(name: str, width: int) -> Named:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)
