"""The ablation's machinery on a small dataset: every kind of run trains, continues, and stands in the table."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from random_songs import make_dataset, random_song

from attention import KeyValueCache
from benchmarks import bench_models, recurrence
from benchmarks.sequential_model import flat_split
from dataset import load_dataset, split_by_song
from sequential import MidiTokenizerSequential
from vocab import FIRST_ID


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A dataset of ten songs, and a trial small enough for it."""
    monkeypatch.setattr(bench_models, "TRIAL", {"emb_sizes": (8,) * 4, "n_layers": 3, "n_heads": 2, "d_model": 16,
                                                "dropout": 0.0})
    monkeypatch.setattr(bench_models, "TRAINING", bench_models.TRAINING | {
        "batch_size": 2, "lr": 0.01, "warmup_steps": 2, "validate_steps": 2, "precision": "fp32"})
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    yield make_dataset(tmp_path / "songs.pt", [random_song(i, 700, n_bars=30) for i in range(10)])
    torch.set_num_threads(threads)


def test_rows_are_trained_and_stand_in_the_table(small, capsys, monkeypatch):
    rows = ["reference", "late-relative", "late-recurrent", "sequential"]
    assert bench_models.main(["train", str(small), "runs", *rows, "--steps", "3"]) == 0
    assert bench_models.main(["train", str(small), "runs", *rows, "--steps", "3"]) == 0  # nothing is left to do
    capsys.readouterr()
    assert bench_models.main(["table", str(small), "runs", "--steps", "3", "--rounds", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:2 + len(rows)]] == \
        ["reference", "late-relative", "late-recurrent", "sequential"]
    evaluation = json.loads((small.parent / "runs/reference-s0/evaluation.json").read_text())
    assert f"{evaluation['nats_per_note']:.3f} | +0.0% | 1.00 | +0.0% |" in lines[2]
    assert any("1–64" in line for line in lines)


def test_a_run_planned_for_other_steps_is_not_continued(small, capsys):
    assert bench_models.main(["train", str(small), "runs", "reference", "--steps", "2"]) == 0
    assert bench_models.main(["train", str(small), "runs", "reference", "--steps", "3"]) == 2
    assert "planned for other --steps" in capsys.readouterr().err


def test_flat_rows_hold_the_same_songs(small):
    dataset = load_dataset(small)
    split = split_by_song(dataset, 0.9)
    flat, notes_per_token = flat_split(dataset, split, 64)
    tokenizer = MidiTokenizerSequential()
    songs = " ".join(map(str, flat.train.flatten().tolist())).split(" 2 1 ")
    first = np.array([1, *map(int, songs[0].split()[1:])])
    end = dataset.song_starts[1]
    expected = dataset.notes[:end].numpy()
    assert np.array_equal(tokenizer.ids_to_rows(first), expected[expected[:, 0] >= FIRST_ID])
    assert 0.25 < notes_per_token < 0.5


def test_a_recurrent_run_sees_the_row_before_and_keeps_no_gradient(small):
    run = bench_models.start(small.parent / "run", "late-recurrent", 0, 5, small)
    rows = run.split.train[:2]
    alone, memory = run._remembering(rows, None)
    after, kept = run._remembering(rows, memory)
    assert memory.length == rows.shape[1] - 1 and kept.length == 2 * memory.length
    assert not any(tensor.requires_grad for layer in kept.layers for tensor in layer)
    assert (after - alone).abs().max() > 1e-4
    assert isinstance(memory, KeyValueCache) and recurrence.RecurrentRun.memory is None
    steps = iter(run.batches())
    first, second = next(steps), None
    run.progress.step += 1
    second = next(steps)
    assert torch.equal(torch.stack([first[0], second[0]]), run.split.train[:2])
