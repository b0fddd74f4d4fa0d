"""Which engine: a step of the bundled architecture on ONNX Runtime and in plain NumPy, without sampling.

Example  python -m benchmarks.bench_engines

Both have random weights of the same sizes. `onnxruntime` is the engine as it is; `numpy` is a sketch that does the
products, the attention and the recurrent cell of one note in NumPy, with a cheap GELU, for comparison alone. A step is
one note of each song: one, three and sixteen songs that have read 16, 256 and 512 notes. The two run in turns; the
fastest of ten rounds of each counts.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from backline.common.errors import Parser, reports_user_errors
from backline.engine.onnx_player import ENGINE_DTYPES, OnnxPlayer
from backline.engine.player import NewNotes
from backline.layers.config import ModelConfig
from backline.layers.shapes import weight_shapes
from backline.music.vocab import FIELDS
from benchmarks.bench_train import read_config

ROOT = Path(__file__).parents[1]
ROUNDS = 10
STEPS = 20  # of a round
SPREAD = 0.02  # of random weights
Weights = dict[str, np.ndarray]


def random_weights(config: ModelConfig) -> Weights:
    random = np.random.default_rng(0)
    return {name: (SPREAD * random.standard_normal(shape)).astype(np.float32)
            for name, shape in weight_shapes(config).items()}


# ---------------------------------------------------------------- ONNX Runtime


def engine_step(config: ModelConfig, weights: Weights, dtype: str, n_songs: int, n_read: int) -> Callable[[], object]:
    player = OnnxPlayer(config, weights, dtype)
    n_controls = len(config.sheet_sizes)
    contexts = player.contexts(n_songs)
    window = NewNotes(np.full((1, n_read, len(FIELDS)), 8), [n_read], np.zeros((1, n_read), bool),
                      np.zeros((1, n_read, n_controls), np.int64))
    contexts.replace(range(n_songs), window, [0] * n_songs)
    one = NewNotes(np.full((n_songs, 1, len(FIELDS)), 8), [1] * n_songs, np.zeros((n_songs, 1), bool),
                   np.zeros((n_songs, 1, n_controls), np.int64))
    chosen, chords = np.full((n_songs, len(FIELDS)), 8), np.ones((n_songs, 3), np.int64)

    def step() -> None:
        contexts.read(one)
        contexts.first_logits()
        for k in range(len(FIELDS) - 1):
            contexts.next_logits(k, chosen, chords)

    return step


# ---------------------------------------------------------------- NumPy


class NumpySketch:
    """The products of one note of each song, note by note."""

    def __init__(self, config: ModelConfig, weights: Weights, n_songs: int, n_read: int) -> None:
        self.config, self.n_read = config, n_read
        self.weights = {name: np.ascontiguousarray(array.T) for name, array in weights.items()}
        shape = (n_songs, config.n_heads, n_read + 1, config.head_width)
        self.caches = [(np.zeros(shape, np.float32), np.zeros(shape, np.float32)) for _ in range(config.n_layers)]
        self.x = np.zeros((n_songs, config.pooled_width), np.float32)

    def product(self, x: np.ndarray, name: str, bias: bool = True) -> np.ndarray:
        out = x @ self.weights[f"{name}.weight"]
        return out + self.weights[f"{name}.bias"] if bias else out

    def norm(self, x: np.ndarray, name: str) -> np.ndarray:
        x = x - x.mean(-1, keepdims=True)
        scale = 1 / np.sqrt(np.square(x).mean(-1, keepdims=True) + np.float32(1e-5))
        return x * scale * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def attend(self, layer: int, query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
        keys, values = self.caches[layer]
        heads = (len(query), self.config.n_heads, self.config.head_width)
        keys[:, :, -1] = key.reshape(heads)
        values[:, :, -1] = value.reshape(heads)
        scores = np.matmul(keys, query.reshape(*heads, 1))[..., 0]
        raised = np.exp(scores - scores.max(-1, keepdims=True))
        shares = raised / raised.sum(-1, keepdims=True)
        return np.matmul(shares[:, :, None], values)[:, :, 0].reshape(len(query), -1)

    def rest_of_block(self, x: np.ndarray, attended: np.ndarray, name: str) -> np.ndarray:
        x = x + self.product(attended, f"{name}.attention.to_out", bias=False)
        wide = self.product(self.norm(x, f"{name}.ff_norm"), f"{name}.ff.0")
        active = wide / (1 + np.exp(-np.float32(1.702) * wide))
        return x + self.product(active, f"{name}.ff.3")

    def recur(self, x: np.ndarray, hidden: np.ndarray) -> np.ndarray:
        of_x = x @ self.weights["gru.weight_ih"] + self.weights["gru.bias_ih"]
        of_hidden = hidden @ self.weights["gru.weight_hh"] + self.weights["gru.bias_hh"]
        width = self.config.d_model
        gates = 1 / (1 + np.exp(-of_x[:, :2 * width] - of_hidden[:, :2 * width]))
        new = np.tanh(of_x[:, 2 * width:] + gates[:, :width] * of_hidden[:, 2 * width:])
        return new + gates[:, width:] * (hidden - new)

    def step(self) -> None:
        config = self.config
        x = entered = self.norm(self.product(self.x, "in_linear"), "in_norm")
        n_early = config.n_layers - config.late_layers
        for layer in range(n_early):
            name = f"blocks.{layer}"
            qkv = self.product(self.norm(x, f"{name}.attention_norm"), f"{name}.attention.to_qkv", bias=False)
            x = self.rest_of_block(x, self.attend(layer, *np.split(qkv, 3, axis=1)), name)
        states = hidden = self.norm(x, "out_norm")
        known = np.concatenate([states, entered], 1)
        for k in range(len(FIELDS)):
            self.product(states + hidden, f"heads.{k}")
            if k == len(FIELDS) - 1:
                break
            hidden = self.recur(entered, hidden)
            for late in range(config.late_layers if k == 1 else 0):
                name = f"late_blocks.{late}"
                query = self.product(self.norm(hidden, f"{name}.attention_norm"), f"{name}.attention.to_q", bias=False)
                key, value = np.split(self.product(known, f"{name}.attention.to_kv", bias=False), 2, axis=1)
                hidden = self.rest_of_block(hidden, self.attend(n_early + late, query, key, value), name)


# ---------------------------------------------------------------- command


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    parser.add_argument("--model_config", type=Path, default=ROOT / "configs" / "model_bundled.json",
                        help="with gru heads and late layers (default: the bundled one)")
    parser.add_argument("--songs", type=int, nargs="+", default=[1, 3, 16], help="(default: 1 3 16)")
    parser.add_argument("--read", type=int, nargs="+", default=[16, 256, 512], help="notes (default: 16 256 512)")
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    config = read_config(args.model_config)
    weights = random_weights(config)
    print("| songs | notes read | " + " | ".join(f"onnxruntime {dtype}, ms" for dtype in ENGINE_DTYPES)
          + " | numpy, ms |\n|---:|---:|---:|---:|---:|")
    for n_songs in args.songs:
        for n_read in args.read:
            steps = [engine_step(config, weights, dtype, n_songs, n_read) for dtype in ENGINE_DTYPES]
            steps.append(NumpySketch(config, weights, n_songs, n_read).step)
            best = [np.inf] * len(steps)
            for _ in range(ROUNDS):
                for i, step in enumerate(steps):
                    began = time.perf_counter()
                    for _ in range(STEPS):
                        step()
                    best[i] = min(best[i], (time.perf_counter() - began) / STEPS)
            print(f"| {n_songs} | {n_read} | " + " | ".join(f"{1e3 * took:.2f}" for took in best) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
