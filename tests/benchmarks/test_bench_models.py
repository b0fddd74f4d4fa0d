"""The ablation's machinery on a small dataset: every kind of run trains, continues, and stands in the table."""

from __future__ import annotations

import dataclasses
import json
import time

import numpy as np
import pytest
import torch
from random_songs import VOCABULARY, make_dataset, random_song

from backline.evaluation.held_out_losses import measure_losses
from backline.layers.cache import KeyValueCache
from backline.layers.config import ModelConfig
from backline.music.vocab import BAR, FIELDS, FIRST_ID
from backline.preparation.dataset import load_dataset, song_rows, split_by_song
from backline.training.config import LOSSES
from benchmarks import bench_models, recurrence
from benchmarks.sequential_model import flat_split
from benchmarks.sequential_tokenizer import MidiTokenizerSequential
from model import PooledTransformer


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
    held_out = json.loads((small.parent / "runs/sequential-s0/evaluation.json").read_text())["songs"]
    assert held_out == evaluation["songs"] > 0


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
    length = rows.shape[1] - 1
    assert memory.lengths == [length] * 2 and kept.lengths == [2 * length] * 2
    assert not any(tensor.requires_grad for layer in kept.layers for tensor in layer)
    assert (after - alone).abs().max() > 1e-4
    assert isinstance(memory, KeyValueCache) and recurrence.RecurrentRun.memory is None
    steps = iter(run.batches())
    first, second = next(steps), None
    run.progress.step += 1
    second = next(steps)
    assert torch.equal(torch.stack([first[0], second[0]]), run.split.train[:2])


# ---------------------------------------------------------------- losses of other kinds of runs


def of_notes(run, tokens: list[int]) -> list[float]:
    """Nats of each family in a song's flat `tokens`, one context and one token at a time; EOS counts as a bar."""
    tokenizer, size = MidiTokenizerSequential(), run.model.config.block_size
    sums = [0.0] * len(FIELDS)
    for place in range(1, len(tokens)):
        context = tokens[(place - 1) // size * size:place]
        logits = run.model(torch.tensor([context]))[0, -1]
        name = tokenizer.tokens_to_events([tokens[place]])[0]
        family = next((f for f, field in enumerate(FIELDS) if name.startswith(field.split("_i")[0])), BAR)
        sums[family] -= logits.log_softmax(-1)[tokens[place]].item()
    return sums


@pytest.mark.parametrize("length", [16, 64])
@torch.no_grad()
def test_flat_losses_are_a_songs_tokens_by_its_notes(tmp_path, small, monkeypatch, length):
    songs = [random_song(i, n_notes, n_bars=4) for i, n_notes in enumerate((30, 14, 9, 25))]
    path = make_dataset(tmp_path / "few.pt", [*songs, random_song(9, 500, n_bars=30)])
    monkeypatch.setitem(bench_models.ROWS, "sequential", dataclasses.replace(bench_models.ROWS["sequential"],
                                                                             length=length))
    run = bench_models.start(tmp_path / "run", "sequential", 0, 9, path)
    run.model.head.weight.mul_(30)
    found = run.song_losses([0, 1, 3])
    tokenizer = MidiTokenizerSequential()
    expected = torch.tensor([of_notes(run, tokenizer.rows_to_ids(songs[i])) for i in (0, 1, 3)], dtype=torch.float64)
    torch.testing.assert_close(found[:, :-1], expected, rtol=1e-4, atol=1e-3)
    assert found[:, -1].tolist() == [31, 15, 26]
    model = PooledTransformer(ModelConfig.for_vocabulary(VOCABULARY, **bench_models.TRIAL))
    assert torch.equal(found[:, -1], measure_losses(model, run.dataset, [0, 1, 3]).by_song[:, -1])  # the same notes
    rows = run.split.train[:2]
    torch.testing.assert_close(run._losses(rows), run._sums(rows) / (2 * (length - 1) * run.notes_per_token))
    assert run.total_steps == round(9 / run.notes_per_token)


@torch.no_grad()
def test_recurrent_losses_are_those_of_a_song_read_in_one_piece_where_it_fits_the_memory(tmp_path, small, monkeypatch):
    late = bench_models.ROWS["late-recurrent"]
    lengths = {}
    for length in (64, 128):
        monkeypatch.setitem(bench_models.ROWS, "late-recurrent", dataclasses.replace(late, length=length))
        run = bench_models.start(tmp_path / str(length), "late-recurrent", 0, 9, small)
        song = song_rows(run.dataset, 0)[:129]
        monkeypatch.setattr(recurrence, "song_rows", lambda _dataset, _song, song=song: song)
        lengths[length] = run.song_losses([0])
    torch.testing.assert_close(lengths[64], lengths[128], rtol=1e-4, atol=1e-3)
    assert lengths[64][0, -1] == 128


# ---------------------------------------------------------------- time


def test_losses_after_the_same_time_are_read_off_a_rows_own_curve(tmp_path):
    (tmp_path / LOSSES).write_text("steps,held_out_loss\n0,20\n50,\n100,10\n200,6\n")
    assert bench_models.after_equal_time(tmp_path, 200, 1.0) == 6
    assert bench_models.after_equal_time(tmp_path, 200, 2.0) == 10
    assert bench_models.after_equal_time(tmp_path, 300, 2.0) == 8
    assert bench_models.after_equal_time(tmp_path, 200, 0.5) == 6


def test_times_are_multiples_of_the_first_rows(tmp_path, small, monkeypatch):
    class Sleeping:
        def __init__(self, name: str) -> None:
            self.seconds = 0.02 if name == "reference" else 0.1

        def batches(self):
            yield None

        def step(self, _rows) -> None:
            time.sleep(self.seconds)

    monkeypatch.setattr(bench_models, "start", lambda _folder, name, *_rest: Sleeping(name))
    times = bench_models.step_times(["reference", "late"], small, rounds=2)
    assert times["reference"] == 1 and 2 < times["late"] < 8
