"""The model of `model.py` as graphs for ONNX Runtime: the trunk, and a step for each choice.

The trunk reads notes and predicts the family chosen first. Each step takes in the id chosen of one
family and predicts the next. Where a layer's input is one of a few vectors, its output is looked up
in a table: the embeddings' share of the first layer, and the choices' share of the recurrent cell.

Shapes: B songs, T new notes, D residual width, V_f ids in family f, C width of a head,
L places in the cache.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np

from backline.engine.onnx_writer import CONTRIBUTED, Graph
from backline.engine.positions import index_table, time_table
from backline.layers.config import QK_GAIN, TIME_FIELDS, ModelConfig
from backline.music.vocab import FIELDS

Weights = Mapping[str, np.ndarray]  # float32, by the names that they have in checkpoints

EPSILON = 1e-5  # of layer norms
RMS_EPSILON = float(np.finfo(np.float32).eps)  # of normed queries and keys, as torch's default
HEAD_MULTIPLE = 8  # of the width of a head, for GroupQueryAttention
BITS = 8  # of rounded weights
BLOCK = 32  # inputs that share a scale
MOST_INT8 = 127
MIDDLE = 128  # stands for 0
SMALLEST = 1e-12  # scale, or a block of zeros would have none
ROUNDED_SUMS = 4  # accuracy level of MatMulNBits: inputs are rounded to 8 bits too


def can_play(config: ModelConfig) -> bool:
    """Whether ONNX Runtime's attention takes heads of this width."""
    return config.head_width % HEAD_MULTIPLE == 0


class Layers:
    """Layers of one graph, with the weights they have in the model."""

    def __init__(self, graph: Graph, config: ModelConfig, weights: Weights, dtype: str) -> None:
        self.graph = graph
        self.config = config
        self.weights = weights
        self.is_rounded = dtype == "int8"

    @functools.cached_property
    def time_table(self) -> tuple[str, str]:
        """Cosines and sines by musical time."""
        cosines, sines = time_table(self.config)
        return self.graph.constant(cosines), self.graph.constant(sines)

    # ------------------------------------------------------------ parts of layers

    def constant(self, name: str) -> str:
        """Weights as they are."""
        return self.graph.constant(self.weights[name])

    def product(self, x: str, weight: np.ndarray) -> str:
        """(…, n_out) of `x` (…, n_in) and a weight (n_out, n_in)."""
        n_out, n_in = weight.shape
        if not self.is_rounded:
            transposed = np.ascontiguousarray(weight.T)
            return self.graph.node("MatMul", x, self.graph.constant(transposed))
        rounded, scales = rounded_weights(weight)
        return self.graph.node(
            "MatMulNBits", x, self.graph.constant(rounded), self.graph.constant(scales),
            domain=CONTRIBUTED, K=n_in, N=n_out, bits=BITS, block_size=BLOCK,
            accuracy_level=ROUNDED_SUMS)

    def linear(self, x: str, name: str) -> str:
        """A linear layer with a bias."""
        product = self.product(x, self.weights[f"{name}.weight"])
        return self.graph.node("Add", product, self.constant(f"{name}.bias"))

    def norm(self, x: str, name: str) -> str:
        """A layer norm."""
        return self.graph.node("LayerNormalization", x, self.constant(f"{name}.weight"),
                               self.constant(f"{name}.bias"), epsilon=EPSILON)

    def normed_sum(self, x: str, y: str, bias: str, norm: str) -> tuple[str, str]:
        """A layer norm of `x + y + bias`, and that sum."""
        scale_and_shift = (self.constant(f"{norm}.weight"), self.constant(f"{norm}.bias"))
        return self.graph.normed_sum(x, y, bias, scale_and_shift, EPSILON)

    def rotated(self, x: str, places: str, table: tuple[str, str]) -> str:
        """(B, T, D) queries or keys, normed if the model norms them, and rotated.

        Args:
            places: (B, T) rows of `table`.
            table: cosines and sines, (places, C/2) each.
        """
        x = self.normed_heads(x)
        return self.graph.node("RotaryEmbedding", x, places, *table, domain=CONTRIBUTED)

    def normed_heads(self, x: str) -> str:
        """(B, T, D) whose heads have equal length, if the model norms them."""
        if not self.config.qk_norm:
            return x
        shape = np.array([0, 0, self.config.n_heads, self.config.head_width], np.int64)
        heads = self.graph.node("Reshape", x, self.graph.constant(shape))
        ones = np.ones(self.config.head_width, np.float32)
        normed = self.graph.node("SimplifiedLayerNormalization", heads, self.graph.constant(ones),
                                 axis=-1, epsilon=RMS_EPSILON)
        flat = np.array([0, 0, self.config.d_model], np.int64)
        return self.graph.node("Reshape", normed, self.graph.constant(flat))

    def query(self, x: str) -> str:
        """A query, longer by the gain that a model with normed queries gives them."""
        if not self.config.qk_norm:
            return x
        return self.graph.node("Mul", x, self.graph.constant(np.array(QK_GAIN, np.float32)))

    def feed_forward(self, x: str, name: str) -> str:
        """The two layers of `Block.ff`, without the last bias."""
        wide = self.product(x, self.weights[f"{name}.0.weight"])
        bias = self.constant(f"{name}.0.bias")
        active = self.graph.node("BiasGelu", wide, bias, domain=CONTRIBUTED)
        return self.product(active, self.weights[f"{name}.3.weight"])


class Caches:
    """Names of what a graph is told of the caches of some layers."""

    def __init__(self, graph: Graph, config: ModelConfig, layers: range) -> None:
        shape = ("B", config.n_heads, "L", config.head_width)
        self.of_layer = {layer: (graph.cache(f"keys{layer}", shape),
                                 graph.cache(f"values{layer}", shape))
                         for layer in layers}
        self.lengths = (graph.input("last_places", ("B",), "int32"),
                        graph.input("n_places", (), "int32"))


# ---------------------------------------------------------------- the trunk


def trunk_graph(config: ModelConfig, weights: Weights, dtype: str) -> bytes:
    """From new notes to the trunk's state at each song's last, and the first family's logits.

    Late layers' keys and values of the new notes come out besides, (B, T, D) each.
    """
    graph = Graph("trunk")
    layers = Layers(graph, config, weights, dtype)
    n_early = config.n_layers - config.late_layers
    ids = [graph.input(name, ("B", "T"), "int64") for name in FIELDS]
    caches = Caches(graph, config, range(n_early))

    entered = _entered(layers, ids)                          # (B, T, D)
    states = _blocks(layers, entered, caches)                # (B, T, D)
    last = graph.input("last", ("B", 1), "int64")
    last_states = graph.node("GatherND", states, last, batch_dims=1)  # (B, D)
    graph.output("states", last_states, ("B", config.d_model))
    _predict_first(layers, last_states)
    if config.late_layers:
        _remember(layers, states, entered)
    return graph.to_bytes()


def _entered(layers: Layers, ids: list[str]) -> str:
    """What enters the blocks."""
    graph = layers.graph
    config = layers.config
    tables = embedding_tables(config, layers.weights)
    shares = [graph.node("Gather", graph.constant(table), family_ids)
              for table, family_ids in zip(tables, ids, strict=True)]  # each (B, T, D)
    x = graph.node("Sum", *shares)
    x = layers.norm(x, "in_norm")
    if adds_vectors(config):
        added = graph.input("added", ("B", "T", config.d_model))
        x = graph.node("Add", x, added)
    return x


def adds_vectors(config: ModelConfig) -> bool:
    """Whether something is added to embedded notes: marks, sheets, sinusoids."""
    return config.given or config.controls or config.positions == "sinusoidal"


def embedding_tables(config: ModelConfig, weights: Weights) -> list[np.ndarray]:
    """(V_f, D) for each family: its embeddings' share of the first layer, the bias in the first."""
    weight = weights["in_linear.weight"]                     # (D, pooled_width)
    tables = []
    start = 0
    for family, size in enumerate(config.emb_sizes):
        columns = slice(start, start + size)
        if config.emb_pooling == "concat":
            start += size
        embeddings = weights[f"embeddings.{family}.weight"]  # (V_f, size)
        tables.append(embeddings @ weight[:, columns].T)
    tables[0] = tables[0] + weights["in_linear.bias"]
    return tables


def _blocks(layers: Layers, x: str, caches: Caches) -> str:
    """(B, T, D) the trunk's states."""
    graph = layers.graph
    config = layers.config
    table = rotation_table(layers)
    places = graph.input("places", ("B", "T"), "int64") if table else ""
    normed = layers.norm(x, "blocks.0.attention_norm")
    for layer, cache in caches.of_layer.items():
        name = f"blocks.{layer}"
        qkv = layers.product(normed, layers.weights[f"{name}.attention.to_qkv.weight"])
        query, key, value = graph.nodes(3, "Split", qkv, axis=-1, num_outputs=3)
        if table:
            query = layers.rotated(query, places, table)
            key = layers.rotated(key, places, table)
        else:
            query = layers.normed_heads(query)
            key = layers.normed_heads(key)
        query = layers.query(query)
        attended = graph.attention((query, key, value), cache, caches.lengths, config.n_heads)
        is_last = layer == max(caches.of_layer)
        next_norm = "out_norm" if is_last else f"blocks.{layer + 1}.attention_norm"
        normed, x = _rest_of_block(layers, x, attended, name, next_norm)
    return normed


def _rest_of_block(layers: Layers, x: str, attended: str, name: str,
                   next_norm: str) -> tuple[str, str]:
    """What follows attention in a block: the next norm's output, and the residual."""
    out = layers.product(attended, layers.weights[f"{name}.attention.to_out.weight"])
    normed, x = layers.normed_sum(x, out, "", f"{name}.ff_norm")
    fed_forward = layers.feed_forward(normed, f"{name}.ff")
    bias = layers.constant(f"{name}.ff.3.bias")
    if not next_norm:
        total = layers.graph.node("Sum", x, fed_forward, bias)
        return "", total
    return layers.normed_sum(x, fed_forward, bias, next_norm)


def rotation_table(layers: Layers) -> tuple[str, str] | None:
    """Cosines and sines by the places of notes in the trunk; None: nothing is rotated.

    Where two things turn a pair, index and time, the table is worked out for the notes of each call.
    """
    graph = layers.graph
    config = layers.config
    if config.positions == "sinusoidal":
        return None
    if config.positions == "metre":
        return layers.time_table
    if config.positions == "rotary":
        cosines, sines = index_table(config)
        return graph.constant(cosines), graph.constant(sines)
    width = config.head_width // 2
    return graph.input("cosines", ("N", width)), graph.input("sines", ("N", width))


def _predict_first(layers: Layers, states: str) -> None:
    """The logits that need no choice."""
    config = layers.config
    order = family_order(config)
    first = order if config.heads == "parallel" else order[:1]
    for k, family in enumerate(first):
        logits = layers.linear(states, f"heads.{family}")
        layers.graph.output(f"logits{k}", logits, ("B", config.n_tokens[family]))


def family_order(config: ModelConfig) -> list[int]:
    """The families in the order in which they are chosen."""
    return [FIELDS.index(name) for name in config.order]


def _remember(layers: Layers, states: str, entered: str) -> None:
    """Keys and values of the new notes, for late layers."""
    graph = layers.graph
    config = layers.config
    width = config.d_model
    times = graph.input("times", ("B", "T"), "int64")
    known = graph.node("Concat", states, entered, axis=-1)   # (B, T, 2·D)
    table = layers.time_table
    n_early = config.n_layers - config.late_layers
    for late in range(config.late_layers):
        weight = layers.weights[f"late_blocks.{late}.attention.to_kv.weight"]
        kv = layers.product(known, weight)                   # (B, T, 2·D)
        key, value = graph.nodes(2, "Split", kv, axis=-1, num_outputs=2)
        key = layers.rotated(key, times, table)
        graph.output(f"new_keys{n_early + late}", key, ("B", "T", width))
        graph.output(f"new_values{n_early + late}", value, ("B", "T", width))


# ---------------------------------------------------------------- choices


def choice_graph(config: ModelConfig, weights: Weights, dtype: str, k: int) -> bytes:
    """From the id chosen of the family at place k of the order to the next family's logits."""
    graph = Graph(f"choice{k}")
    layers = Layers(graph, config, weights, dtype)
    width = config.d_model
    chosen = graph.input("chosen", ("B",), "int64")
    hidden = graph.input("hidden", ("B", width))
    states = ""
    if config.heads == "gru":
        hidden = _recurred(layers, k, chosen, hidden)
        states = graph.input("states", ("B", width))
    else:
        hidden = _linked(layers, k, chosen, hidden)
    seen = graph.node("Add", states, hidden) if states else hidden
    if config.late_layers and k + 1 == len(TIME_FIELDS):
        seen = _looked_back(layers, seen)
        hidden = graph.node("Sub", seen, states) if states else seen
    family = family_order(config)[k + 1]
    graph.output("next_hidden", hidden, ("B", width))
    graph.output("logits", layers.linear(seen, f"heads.{family}"), ("B", config.n_tokens[family]))
    return graph.to_bytes()


def _linked(layers: Layers, k: int, chosen: str, hidden: str) -> str:
    """(B, D) hidden states of a chain once an id is chosen."""
    graph = layers.graph
    embedded = graph.node("Gather", layers.constant(f"chosen.{k}.weight"), chosen)
    x = graph.node("Add", hidden, embedded)
    normed = layers.norm(x, f"links.{k}.0")
    wide = layers.product(normed, layers.weights[f"links.{k}.1.weight"])
    bias = layers.constant(f"links.{k}.1.bias")
    active = graph.node("BiasGelu", wide, bias, domain=CONTRIBUTED)
    return graph.node("Add", hidden, layers.linear(active, f"links.{k}.3"))


def _recurred(layers: Layers, k: int, chosen: str, hidden: str) -> str:
    """(B, D) next states of the recurrent cell (Cho et al. 2014, reset gate after the product)."""
    graph = layers.graph
    weights = layers.weights
    width = layers.config.d_model
    gates = np.array([2 * width, width], np.int64)
    sizes = graph.constant(gates)                            # reset and update together; new
    table = weights[f"chosen.{k}.weight"] @ weights["gru.weight_ih"].T + weights["gru.bias_ih"]
    table[:, :2 * width] += weights["gru.bias_hh"][:2 * width]
    of_choice = graph.node("Gather", graph.constant(table), chosen)  # (B, 3·D)
    of_hidden = layers.product(hidden, weights["gru.weight_hh"])  # (B, 3·D)
    both_choice, new_choice = graph.nodes(2, "Split", of_choice, sizes, axis=-1)
    both_hidden, new_hidden = graph.nodes(2, "Split", of_hidden, sizes, axis=-1)
    both = graph.node("Sigmoid", graph.node("Add", both_choice, both_hidden))
    reset, update = graph.nodes(2, "Split", both, axis=-1, num_outputs=2)
    bias = graph.constant(weights["gru.bias_hh"][2 * width:].copy())
    new_hidden = graph.node("Add", new_hidden, bias)
    new_hidden = graph.node("Mul", reset, new_hidden)
    new = graph.node("Tanh", graph.node("Add", new_choice, new_hidden))
    kept = graph.node("Mul", update, graph.node("Sub", hidden, new))
    return graph.node("Add", new, kept)


def _looked_back(layers: Layers, seen: str) -> str:
    """(B, D) of `seen` once the late layers have looked back from the onset chosen."""
    graph = layers.graph
    config = layers.config
    width = config.d_model
    n_early = config.n_layers - config.late_layers
    caches = Caches(graph, config, range(n_early, config.n_layers))
    times = graph.input("times", ("B", 1), "int64")
    table = layers.time_table
    x = graph.node("Unsqueeze", seen, graph.constant(np.array([1], np.int64)))  # (B, 1, D)
    if config.controls:
        x = graph.node("Add", x, graph.input("chord", ("B", 1, width)))
    normed = layers.norm(x, "late_blocks.0.attention_norm")
    for late in range(config.late_layers):
        name = f"late_blocks.{late}"
        layer = n_early + late
        query = layers.product(normed, layers.weights[f"{name}.attention.to_q.weight"])
        query = layers.query(layers.rotated(query, times, table))
        # The last note read is in the cache already: it is written there once more.
        key = graph.input(f"last_key{layer}", ("B", 1, width))
        value = graph.input(f"last_value{layer}", ("B", 1, width))
        attended = graph.attention((query, key, value), caches.of_layer[layer], caches.lengths,
                                   config.n_heads)
        is_last = late == config.late_layers - 1
        next_norm = "" if is_last else f"late_blocks.{late + 1}.attention_norm"
        normed, x = _rest_of_block(layers, x, attended, name, next_norm)
    return graph.node("Squeeze", x, graph.constant(np.array([1], np.int64)))  # (B, D)


# ---------------------------------------------------------------- rounded weights


def rounded_weights(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A weight (n_out, n_in) in 8 bits, as MatMulNBits reads it.

    Returns:
        (n_out, n_blocks, BLOCK) uint8, MIDDLE for 0, and (n_out, n_blocks) scales.
    """
    n_out, n_in = weight.shape
    missing = -n_in % BLOCK
    padded = np.pad(weight, ((0, 0), (0, missing)))
    blocks = padded.reshape(n_out, -1, BLOCK)
    largest = np.abs(blocks).max(-1)                         # (n_out, n_blocks)
    scales = np.maximum(largest, SMALLEST) / MOST_INT8
    rounded = np.rint(blocks / scales[..., None]) + MIDDLE
    return rounded.astype(np.uint8), scales.astype(np.float32)
