"""What each binary file holds, against a golden description: a change of format must be meant.

To renew after a change that is meant (and with it the format's version): delete the golden file and run this test.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import torch
from random_songs import to_songs
from tiny_models import SMALL_VOCABULARY, tiny_model

import train_pool
from backline.evaluation.copy_index import build_index, split_digest, write_index
from backline.layers.torch_io import load_plain
from backline.preparation.dataset import write_dataset
from backline.training.checkpoints import save_release

GOLDEN = Path(__file__).parent / "golden" / "formats.json"


def described(value: Any) -> Any:
    """Keys, types and shapes; the values of what is plain and short enough to tell formats apart."""
    if isinstance(value, torch.Tensor):
        return f"{value.dtype} {list(value.shape)}".removeprefix("torch.")
    if isinstance(value, dict):
        return {str(key): described(item) for key, item in value.items()}
    if isinstance(value, list):
        return [described(value[0]), "..."] if value else []
    return value if isinstance(value, str) and value.startswith("pooled-") else type(value).__name__


def described_safetensors(path: Path) -> dict[str, Any]:
    with safetensors.safe_open(path, framework="pt") as file:
        header = {key: described(json.loads(text)) if text.startswith("{") else text
                  for key, text in sorted(file.metadata().items())}
        return {"header": header, "tensors": {name: described(file.get_tensor(name)) for name in sorted(file.keys())}}


def test_files_hold_what_the_golden_description_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    songs = [np.stack([random.integers(4, size, 40) for size in SMALL_VOCABULARY.sizes], axis=1) for _ in range(3)]
    write_dataset(Path("data.pt"), to_songs(songs, SMALL_VOCABULARY), 16, SMALL_VOCABULARY, {"shuffle_seed": 0})
    Path("model.json").write_text(json.dumps({"n_layers": 1, "n_heads": 1, "d_model": 4, "emb_sizes": [1, 1, 1, 1]}))
    Path("training.json").write_text(json.dumps({"num_epochs": 1, "filename": "run"}))
    assert train_pool.main(["--dataset_path", "data.pt", "--model_config", "model.json", "--training_args",
                            "training.json", "-d", "cpu", "--train_split", "0.5"]) == 0
    save_release(Path("model.safetensors"), tiny_model(n_layers=1), SMALL_VOCABULARY, {})
    index = build_index(songs[:1], songs[1:], SMALL_VOCABULARY, split_digest(["song1"]))
    write_index(Path("copies.safetensors"), index)
    found = {"dataset .pt": described(load_plain(Path("data.pt"))),
             "checkpoint .pth": described(load_plain(Path("run/last.pth"))),
             "release .safetensors": described_safetensors(Path("model.safetensors")),
             "copies .safetensors": described_safetensors(Path("copies.safetensors")),
             "train_losses.csv": Path("run/train_losses.csv").read_text().splitlines()[0],
             "hyperparameters.json": sorted(json.loads(Path("run/hyperparameters.json").read_text()))}
    if not GOLDEN.exists():
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
        pytest.fail(f"{GOLDEN.name} was missing and is written; look it through, and run again")
    assert found == json.loads(GOLDEN.read_text())
