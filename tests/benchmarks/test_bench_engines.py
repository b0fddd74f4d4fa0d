"""The comparison of engines runs, and its sketch does what the engine does."""

from __future__ import annotations

import json

import numpy as np

from backline.layers.config import ModelConfig
from backline.layers.shapes import weight_shapes
from benchmarks import bench_engines
from benchmarks.bench_train import read_config

SETTINGS = {"emb_sizes": [4, 4, 4, 4], "n_layers": 2, "late_layers": 1, "n_heads": 2, "d_model": 16, "heads": "gru",
            "positions": "metre", "block_size": 64}


def test_a_line_for_each_number_of_songs_and_notes(tmp_path, capsys):
    path = tmp_path / "small.json"
    path.write_text(json.dumps(SETTINGS))
    assert bench_engines.main(["--model_config", str(path), "--songs", "1", "2", "--read", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1:3] for line in lines[2:]] == [[" 1 ", " 4 "], [" 2 ", " 4 "]]
    assert all(float(cell) > 0 for line in lines[2:] for cell in line.split("|")[3:6])


def test_the_sketch_uses_every_product_of_the_model(tmp_path):
    path = tmp_path / "small.json"
    path.write_text(json.dumps(SETTINGS))
    config: ModelConfig = read_config(path)
    used = set()

    class Watched(dict):
        def __getitem__(self, name):
            used.add(name)
            return super().__getitem__(name)

    sketch = bench_engines.NumpySketch(config, bench_engines.random_weights(config), 2, 4)
    sketch.weights = Watched(sketch.weights)
    sketch.step()
    products = {name for name, shape in weight_shapes(config).items() if len(shape) == 2}
    assert products - used == {name for name in products if name.startswith(("embeddings", "chosen"))}
    assert np.isfinite(sketch.x).all()
