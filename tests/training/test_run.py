"""Training runs, through the command: what they leave in their folder, and that stopping one changes nothing."""

from __future__ import annotations

import dataclasses
import json
import math
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import fails, succeeds
from random_songs import TINY_MODEL, VOCABULARY, make_dataset, random_song, to_songs, whole, write_json, write_tokens
from torch.utils._python_dispatch import TorchDispatchMode
from training_runs import (
    FILES,
    TINY_TRAINING,
    T,
    assert_same_run,
    column,
    interrupt_after,
    is_stopped,
    same,
    table,
    weights,
)

import prepare
import train_pool
from backline.common import files
from backline.common.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR
from backline.common.files import file_hash
from backline.common.settings import config_from_dict, config_from_file, config_to_dict
from backline.layers import attention
from backline.layers.config import ModelConfig
from backline.music.vocab import FIELDS, FIRST_CONTROL, FIRST_ID, GIVEN, PITCH_INSTRUMENT, load_vocabulary
from backline.preparation import dataset as datasets
from backline.preparation.dataset import Dataset, Split, load_dataset, split_by_song, write_dataset
from backline.training import loss_picture, planning, run_folder, tensorboard_log
from backline.training import run as training
from backline.training.checkpoints import load_checkpoint, load_model, save_checkpoint, save_release
from backline.training.config import BEST, LAST, LOSSES, PICTURE, SEEDS, SETTINGS, TrainingSettings
from backline.training.distributed import Processes
from backline.training.losses import n_predicted, note_losses, window_losses
from backline.training.optimization import WeightAverage, rate_share
from backline.training.planning import steps_in_time
from backline.training.run_folder import COLUMNS, RunFolder
from model import PooledTransformer

CONFIGS = Path(train_pool.__file__).parent / "configs"
OVERFITTING = {"num_epochs": 2, "lr": 0.1, "final_lr": 1}  # the loss on held-out songs falls and rises again
N_SONGS, SONG_NOTES = 10, 30  # a song is one row: 8 to train on, 2 held out
STEPS_PER_EPOCH = 3


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """A working folder with a dataset; drawing, which is slow, is left out."""
    monkeypatch.chdir(tmp_path)
    make_dataset(Path("dataset.pt"), [random_song(i, SONG_NOTES) for i in range(N_SONGS)], T)
    monkeypatch.setattr(loss_picture, "loss_curves", lambda _rows: b"picture")
    return tmp_path


def arguments(model: dict | None = None, dataset: str = "dataset.pt", **changes) -> list[str]:
    """A command line; `model` and `changes` are added to the tiny settings."""
    write_json(Path("model.json"), TINY_MODEL | {"dropout": 0.2} | (model or {}))
    settings = TINY_TRAINING | changes
    write_json(Path("training.json"), {name: value for name, value in settings.items() if value is not None})
    return ["--dataset_path", dataset, "--model_config", "model.json", "--training_args", "training.json",
            "--train_split", "0.8", "-d", "cpu"]


def train(*more: object, model: dict | None = None, **changes) -> Path:
    """A whole run; returns its folder."""
    succeeds(train_pool.main, [*arguments(model, **changes), *more])
    return Path(changes.get("filename", "run"))


def train_until_stopped(model: dict | None = None, **changes) -> Path:
    """A run that a signal stops; returns its folder."""
    is_stopped(arguments(model, **changes))
    return Path(changes.get("filename", "run"))


@pytest.fixture(scope="module")
def baseline(tmp_path_factory) -> Path:
    """The folder of a run with the tiny settings, unchanged."""
    folder = tmp_path_factory.mktemp("baseline")
    make_dataset(folder / "dataset.pt", [random_song(i, SONG_NOTES) for i in range(N_SONGS)], T)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(loss_picture, "loss_curves", lambda _rows: b"picture")
        return folder / train()


# ---------------------------------------------------------------- a run


def test_loss_falls(capsys):
    run = train(num_epochs=15, lr=0.02, loggingsteps=15, model={"dropout": 0.0})
    losses = column(run, "train_loss")
    assert column(run, "held_out_loss")[0] > 18  # nats per note of who knows nothing: log of all vocabularies
    assert losses[-1] < losses[0] - 4
    out = capsys.readouterr().out
    assert out.startswith(f"run: {load_model(run / LAST)[0].n_parameters():,} parameters on cpu; ")
    assert "8 songs for training (8 rows), 2 held out (2 rows); step 0 of 45" in out
    assert "run: 45 steps, 3,720 notes seen; held out: " in out


def test_run_folder():
    run = train()
    assert sorted(path.name for path in run.iterdir()) == FILES
    rows = table(run)
    assert list(rows[0]) == COLUMNS
    assert list(rows[0])[:2] == ["steps", "train_loss"]
    # Every `loggingsteps` and at the end of each epoch; held-out losses before the first step and at those ends.
    assert [row["steps"] for row in rows] == ["0", "2", "3", "4", "6"]
    assert [row["steps"] for row in rows if row["held_out_loss"]] == ["0", "3", "6"]
    assert [row["steps"] for row in rows if row["train_loss"]] == ["2", "3", "4", "6"]
    assert [float(row["epoch"]) for row in rows] == pytest.approx([0, 2 / 3, 1, 4 / 3, 2])
    assert [int(row["notes_seen"]) for row in rows] == [rows * (T - 1) for rows in (0, 6, 8, 11, 16)]
    for row in rows:
        for side in ("train", "held_out"):
            if row[f"{side}_loss"]:
                assert float(row[f"{side}_loss"]) == pytest.approx(sum(float(row[f"{side}_{f}"]) for f in FIELDS))
    settings = json.loads((run / SETTINGS).read_text())
    assert settings["model_config"] == config_to_dict(load_model(run / LAST)[0].config)
    assert settings["training_args"] == config_to_dict(config_from_dict(TrainingSettings, TINY_TRAINING, "test"))
    assert settings["dataset"] == "dataset.pt"
    assert settings["train_split"] == 0.8
    assert settings["held_out_songs"] == ["song8", "song9"]
    assert settings["parameters"] == load_model(run / LAST)[0].n_parameters()


def test_hyperparameters_say_what_repeating_the_run_takes(monkeypatch):
    argv = arguments(seed=7)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2)
        is_stopped(argv)
    settings = json.loads((Path("run") / SETTINGS).read_text())
    assert settings["command"] == ["train_pool.py", *argv]
    assert settings["seed"] == 7
    assert settings["dataset_hash"] == file_hash(Path("dataset.pt"))
    assert settings["vocabulary_hash"] == VOCABULARY.digest
    assert (settings["device"], settings["processes"], settings["resumed"]) == ("cpu", 1, [])
    assert settings["versions"].keys() == {"backline", "python", "torch", "numpy"}
    assert settings["weights"] is settings["weights_hash"] is None
    succeeds(train_pool.main, ["--resume", "run", "-d", "cpu"])
    resumed, = json.loads((Path("run") / SETTINGS).read_text())["resumed"]
    assert (resumed["step"], resumed["command"]) == (2, ["train_pool.py", "--resume", "run", "-d", "cpu"])
    # What it says is enough: the same run again, from that file alone.
    write_json(Path("model.json"), settings["model_config"])
    write_json(Path("again.json"), settings["training_args"] | {"filename": "again"})
    succeeds(train_pool.main, ["--dataset_path", settings["dataset"], "--model_config", "model.json",
                               "--training_args", "again.json", "--train_split", settings["train_split"], "-d", "cpu"])
    assert same(weights(Path("again")), weights(Path("run")))


def test_picture_is_a_png(monkeypatch):
    monkeypatch.undo()
    rows = [{"steps": 0, "notes_seen": 0, "held_out_loss": 20.0, **{f"held_out_{field}": 5.0 for field in FIELDS}},
            {"steps": 9, "notes_seen": 90, "train_loss": 9.0, **{f"train_{field}": 2.25 for field in FIELDS}}]
    drawn = [loss_picture.loss_curves(shown) for shown in (rows[:1], rows)]
    for picture in drawn:
        assert picture.startswith(b"\x89PNG\r\n\x1a\n")
        assert len(picture) > 5000
    assert drawn[0] != drawn[1]


def test_a_run_draws_its_picture(folder, monkeypatch):
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    run = train(max_train_steps=1)
    assert (run / PICTURE).read_bytes().startswith(b"\x89PNG")


def test_best_is_the_lowest_held_out_loss():
    run = train(**OVERFITTING)
    losses = column(run, "held_out_loss")
    assert min(losses) < losses[0]
    assert losses[-1] > min(losses)
    model, _, state = load_model(run / BEST)
    assert state["progress"]["best"] == min(losses) == load_checkpoint(run / LAST)["training"]["progress"]["best"]
    steps = [int(row["steps"]) for row in table(run) if row["held_out_loss"]]
    assert state["progress"]["step"] == steps[losses.index(min(losses))]
    assert slow_held_out(model) == pytest.approx(min(losses), rel=1e-5)


def slow_held_out(model: PooledTransformer, songs: range = range(8, 10)) -> float:
    """Nats per note of the last two songs, one at a time."""
    blocks = torch.load("dataset.pt")["blocks"].long()
    with torch.no_grad():
        losses = [note_losses(model(rows[:, :-1], rows[:, 1:]), rows[:, 1:]).mean((0, 1)).sum().item()
                  for rows in (blocks[i:i + 1] for i in songs)]
    return sum(losses) / len(losses)


def test_validation_counts_held_out_songs_alone_and_each_row_alike():
    songs = [random_song(i, SONG_NOTES) for i in range(20)]
    found = {}
    for name, train_songs, held_out, batch_size in [
            ("base", songs[:6], songs[6:9], 2), ("other_train", songs[10:16], songs[6:9], 2),
            ("other_held_out", songs[:6], songs[16:19], 2), ("other_batch", songs[:6], songs[6:9], 3)]:
        make_dataset(Path(f"{name}.pt"), train_songs + held_out, T)
        argv = arguments(dataset=f"{name}.pt", filename=name, max_train_steps=1, batch_size=batch_size)
        succeeds(train_pool.main, [*argv[:-4], "--train_split", "0.67", "-d", "cpu"])
        found[name] = column(Path(name), "held_out_loss")[0]
    assert found["other_train"] == found["base"]
    assert found["other_held_out"] != found["base"]
    assert found["other_batch"] == pytest.approx(found["base"], rel=1e-6)


def test_learning_rate_warms_up_and_falls_along_a_cosine():
    run = train(num_epochs=4, warmup_steps=4, final_lr=0.1, lr=0.02, loggingsteps=1)
    rates = column(run, "lr")  # 0: no step is done yet
    cosine = [0.002 + 0.018 * (1 + math.cos(math.pi * step / 8)) / 2 for step in range(8)]
    assert rates == pytest.approx([0, 0.005, 0.01, 0.015, 0.02, *cosine])
    run = train(num_epochs=2, warmup_steps=100, final_lr=1, lr=0.03, loggingsteps=1, filename="short")
    assert column(run, "lr")[:4] == pytest.approx([0, 0.01, 0.02, 0.03])  # half of the six steps
    run = train(num_epochs=1, warmup_steps=0, final_lr=1, lr=0.02, loggingsteps=1, filename="constant")
    assert column(run, "lr") == pytest.approx([0] + [0.02] * 3)


def test_a_constant_rate_decays_in_a_straight_line_at_the_end():
    args = TrainingSettings(schedule="constant", decay_share=0.4, warmup_steps=2, final_lr=0.1)
    shares = [rate_share(args, step, 10) for step in range(11)]
    assert shares == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.775, 0.55, 0.325, 0.1])
    # So one run serves every length: until it decays, a longer one makes the same steps.
    assert shares[:7] == [rate_share(args, step, 20) for step in range(7)]
    assert rate_share(dataclasses.replace(args, decay_share=0.0), 9, 10) == 1


def test_the_average_is_that_of_the_weights_over_a_share_of_the_steps():
    model = torch.nn.Linear(1, 1, bias=False)
    average = WeightAverage(model, 0.25)
    values = torch.randn(20, generator=torch.Generator().manual_seed(0)).tolist()
    for step, value in enumerate(values, 1):
        model.weight.data.fill_(value)
        average.update(step)
    kept = [(1 - 1 / step) ** 4 for step in range(1, 21)]  # the recurrence, written out
    weight = [(1 - kept[i]) * math.prod(kept[i + 1:]) for i in range(20)]
    assert sum(weight) == pytest.approx(1)
    assert 1 - sum(w * step for step, w in enumerate(weight, 1)) / 20 == pytest.approx(0.2, abs=0.05)  # its mean age
    with average.in_place():
        assert model.weight.item() == pytest.approx(sum(w * value for w, value in zip(weight, values, strict=True)))
    assert model.weight.item() == pytest.approx(values[-1])


def test_the_model_of_a_run_with_an_average_is_the_average():
    run = train(average=0.5)
    last = load_checkpoint(run / LAST)
    assert same(last["training"]["raw_weights"], weights(train(filename="without")))
    assert not same(last["weights"], last["training"]["raw_weights"])
    assert slow_held_out(load_model(run / LAST)[0]) == pytest.approx(column(run, "held_out_loss")[-1], rel=1e-5)
    assert column(run, "held_out_raw") == pytest.approx(column(Path("without"), "held_out_loss"))
    assert "raw_weights" not in load_checkpoint(run / BEST)["training"]


def test_muon_moves_the_hidden_matrices_alone():
    state = load_checkpoint(train(optimizer="muon", model={"heads": "gru"}) / LAST)["training"]
    by_name = dict(load_model(Path("run") / LAST)[0].named_parameters())
    hidden = [name for name, p in by_name.items() if p.ndim == 2
              and name.split(".")[0] not in ("embeddings", "chosen", "heads")]
    assert len(state["muon"]["param_groups"][0]["params"]) == len(hidden)
    assert sum(len(group["params"]) for group in state["optimizer"]["param_groups"]) == len(by_name) - len(hidden)


# What shows that a setting has its effect: a change, and the columns in which it does.
EFFECTS = {
    "batch_size": ({"batch_size": 4}, "notes_seen"),
    "num_epochs": ({"num_epochs": 3}, "steps"),
    "lr": ({"lr": 0.001}, "train_loss"),
    "filename": ({"filename": "elsewhere"}, None),
    "loggingsteps": ({"loggingsteps": 1}, "steps"),
    "max_train_steps": ({"max_train_steps": 4}, "steps"),
    "warmup_steps": ({"warmup_steps": 5}, "train_loss"),
    "final_lr": ({"final_lr": 0.9}, "train_loss"),
    "weight_decay": ({"weight_decay": 3.0}, "train_loss"),
    "clip_norm": ({"clip_norm": 1e-9}, "train_loss"),  # so small that AdamW's epsilon counts
    "precision": ({"precision": "bf16"}, "train_loss"),
    "validate_steps": ({"validate_steps": 1}, "steps"),
    "validate_rows": ({"validate_rows": 1}, "held_out_loss"),
    "accumulation": ({"accumulation": 2}, "notes_seen"),
    "patience": ({"patience": 1, "validate_steps": 1, "lr": 3.0, "clip_norm": 0}, "steps"),
    "transpose": ({"transpose": [-5, 6]}, "train_loss"),
    "random_crops": ({"random_crops": True}, "train_loss"),
    "drop_parts": ({"drop_parts": 0.5}, "train_loss"),
    "wrong_notes": ({"wrong_notes": 0.5}, "train_loss"),
    "given_tasks": ({"given_tasks": 0.9, "model": {"given": True}}, "train_loss"),
    "max_minutes": ({"max_minutes": 0.04, "num_epochs": None}, "steps"),
    "row_notes": ({"row_notes": 16}, "notes_seen"),
    "whole_rows_from": ({"whole_rows_from": 0.5}, "notes_seen"),
    "song_starts": ({"song_starts": 0.9}, "train_loss"),
    "song_ends": ({"song_ends": 0.9}, "train_loss"),
    "bar_lines": ({"bar_lines": True}, "train_loss"),
    "optimizer": ({"optimizer": "muon"}, "train_loss"),
    "muon_lr": ({"muon_lr": 0.2}, "train_loss"),
    "momentum": ({"momentum": 0.5}, "train_loss"),
    "beta2_half_life": ({"beta2_half_life": 50}, "train_loss"),
    "schedule": ({"schedule": "constant"}, "lr"),
    "decay_share": ({"decay_share": 0.8}, "lr"),
    "average": ({"average": 0.5}, "held_out_loss"),
    "seed": ({"seed": 1}, "train_loss"),
    "compile": ({"compile": True}, "train_loss"),  # dropout draws otherwise; without, the losses are the same (below)
}
# Settings that matter beside these alone.
BESIDE = {"muon_lr": {"optimizer": "muon"}, "momentum": {"optimizer": "muon"}, "decay_share": {"schedule": "constant"},
          "whole_rows_from": {"row_notes": 16, "batch_size": 4}, "bar_lines": {"random_crops": True}}


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(TrainingSettings)])
def test_every_setting_has_its_effect(baseline, field, monkeypatch):
    compiled = without_inductor(monkeypatch)
    changes, shown_by = EFFECTS[field]
    beside = BESIDE.get(field, {})
    before = train(filename="before", **beside) if beside else baseline
    after = train(**{"filename": "after"} | beside | changes)
    if shown_by == "held_out_loss":  # what is trained on is the same
        assert column(after, "train_loss") == column(before, "train_loss")
    if shown_by is None:
        assert (after / LAST).is_file()
        assert column(after, "train_loss") == column(before, "train_loss")
    else:
        assert column(after, shown_by) != column(before, shown_by)
        assert all(map(math.isfinite, column(after, "train_loss")))
        assert column(after, "train_loss")[0] == pytest.approx(column(before, "train_loss")[0], rel=0.2)
    assert bool(compiled) == (field == "compile")


def without_inductor(monkeypatch) -> list[torch.fx.GraphModule]:
    """torch.compile takes the model apart, runs its graphs as they are, and collects them in the list returned."""
    graphs, plain = [], torch.compile

    def backend(graph, _inputs):
        graphs.append(graph)
        return graph

    monkeypatch.setattr(torch, "compile", lambda model: plain(model, backend=backend))
    return graphs


def test_accumulated_batches_make_the_step_of_one_large_batch():
    still = {"model": {"dropout": 0.0}, "num_epochs": 1}
    whole = weights(train(batch_size=8, filename="whole", **still))
    for batch_size, accumulation in ((2, 4), (3, 3)):  # 3 + 3 + 2 rows
        pieces = weights(train(batch_size=batch_size, accumulation=accumulation, filename=f"by_{batch_size}", **still))
        for name, weight in whole.items():
            assert torch.allclose(weight, pieces[name], atol=1e-5), name


def test_patience_ends_a_run_that_gets_no_better_and_best_stays(capsys):
    run = train(validate_steps=1, patience=2, **OVERFITTING | {"num_epochs": 50})
    losses = column(run, "held_out_loss")
    assert len(losses) < 50 * STEPS_PER_EPOCH
    assert losses.index(min(losses)) == len(losses) - 3
    assert "no lower held-out loss in 2 validations; stopped at step" in capsys.readouterr().out
    before = weights(run)
    succeeds(train_pool.main, ["--resume", run])
    assert same(weights(run), before)


def test_biases_norms_and_nothing_else_do_not_decay():
    groups = load_checkpoint(train(weight_decay=0.5) / LAST)["training"]["optimizer"]["param_groups"]
    assert [group["weight_decay"] for group in groups] == [0.5, 0.0]
    shapes = [parameter.shape for parameter in load_model(Path("run") / LAST)[0].parameters()]
    n_vectors = sum(len(shape) == 1 for shape in shapes)
    assert [len(group["params"]) for group in groups] == [len(shapes) - n_vectors, n_vectors]


@pytest.mark.parametrize("heads", ["parallel", "gru"])
def test_bf16_trains(heads):
    run = train(num_epochs=8, lr=0.02, precision="bf16", model={"heads": heads})
    losses = column(run, "train_loss")
    assert losses[-1] < losses[0] - 2
    assert {tensor.dtype for tensor in weights(run).values()} == {torch.float32}


def test_three_small_songs_of_ones_own(capsys):
    for i, n_notes in enumerate([50, 35, 60]):
        write_tokens(Path(f"tokens/mine{i}.json"), random_song(i, n_notes))
    succeeds(prepare.main, ["mine.pt", "-fp", "tokens", "-b", 64])
    run = train(dataset="mine.pt")
    assert sorted(path.name for path in run.iterdir()) == FILES
    assert "notice: few notes: " in capsys.readouterr().err
    split = split_by_song(load_dataset(Path("mine.pt")), 0.8)
    assert json.loads((run / SETTINGS).read_text())["held_out_songs"] == list(split.held_out_songs)
    assert len(column(run, "held_out_loss")) == 3


def test_what_weights_were_not_trained_on_stays_held_out_of_other_datasets(monkeypatch, capsys):
    """Songs that came or went give a dataset another order, and with it another last fifth."""
    first = train(filename="first")
    assert json.loads((first / SETTINGS).read_text())["held_out_songs"] == ["song8", "song9"]
    numbers = [9, 1, 8, *range(2, 8), *range(10, 14)]
    songs = [whole(random_song(i, SONG_NOTES)) for i in numbers]
    write_dataset(Path("other.pt"), to_songs(songs, names=[f"song{i}" for i in numbers]), T, VOCABULARY, {})
    onwards = [*arguments(dataset="other.pt", filename="second"), "-fp", first / LAST]
    succeeds(train_pool.main, onwards)
    second = Path("second")
    held_out = json.loads((second / SETTINGS).read_text())["held_out_songs"]
    assert held_out == ["song13", "song9", "song8"]
    assert "notice: 2 songs that first/last.pth was not trained on stay held out" in capsys.readouterr().err
    whole_run = weights(second)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)
        is_stopped([*onwards, "--force"])
    shutil.rmtree(first)  # a run that goes on needs it no more
    succeeds(train_pool.main, ["--resume", second, "-d", "cpu"])
    assert same(weights(second), whole_run)


def test_a_bare_tensor_of_the_predecessor_can_be_trained_on():
    blocks = torch.load("dataset.pt")["blocks"].long()
    torch.save(blocks, "bare.pt")
    assert same(weights(train(dataset="bare.pt", filename="bare")), weights(train()))


def some_run(path: Path, settings: TrainingSettings, model: PooledTransformer, dataset: Dataset,
             split: Split) -> training.Run:
    """A run that is not begun through the command."""
    processes = Processes("cpu")
    return training.Run(RunFolder(path, {}, processes), settings, model,
                        training.TrainingSongs(dataset, split), processes)


def test_tasks_need_a_model_that_can_be_given_notes(capsys):
    assert '"given": true' in fails(train_pool.main, arguments(given_tasks=0.5), capsys)


def test_notes_that_are_given_do_not_count(folder):
    """The loss of a step is a mean over the notes that are made, whatever rows pass through the model together."""
    dataset = load_dataset(folder / "dataset.pt")
    split = split_by_song(dataset, 0.8)
    losses = []
    for batch_size in (1, 6):
        torch.manual_seed(0)
        model = PooledTransformer(ModelConfig.for_vocabulary(VOCABULARY, **TINY_MODEL, given=True, dropout=0.0))
        run = some_run(folder, TrainingSettings(given_tasks=1.0, batch_size=batch_size, lr=1e-9), model, dataset, split)
        rows = run.data.rows(torch.arange(6) * T, T, len(split.train) * T, 0)
        made = rows[:, 1:, -1] == 0
        assert 0.1 < made.double().mean() < 0.9
        with torch.no_grad():
            alone = torch.cat([window_losses(model, model.config, row[None])[0][mine]
                               for row, mine in zip(rows, made, strict=True)])
        assert torch.allclose(run.step(rows), alone.mean(0), rtol=1e-4)
        losses.append(float(alone.mean()))
    assert losses[0] == pytest.approx(losses[1])


@pytest.mark.parametrize("transpose", [[1, 6], [-5, -1], [-5], [6, -5]])
def test_transpose_must_be_a_range_around_zero(transpose, capsys):
    assert "semitones with 0 between" in fails(train_pool.main, arguments(transpose=transpose), capsys)


def test_rows_that_lose_a_part_are_filled_up_from_their_own_song(folder):
    dataset = load_dataset(folder / "dataset.pt")
    split, model = split_by_song(dataset, 0.8), PooledTransformer(ModelConfig.for_vocabulary(VOCABULARY, **TINY_MODEL))
    run = some_run(folder, TrainingSettings(drop_parts=1.0), model, dataset, split)
    lost = run.data.rows(torch.tensor([2, 5]) * T, T, len(split.train) * T, 0)
    for row, index in zip(lost, (2, 5), strict=True):
        after = split.train.flatten(0, 1)[index * T:].tolist()
        assert len(row) < after.index(row[-1].tolist()) + 1  # some were left out
        assert [note for note in after if note in row.tolist()][:T] == row.tolist()


def test_rows_that_lose_a_part_are_transposed_too(folder):
    dataset = load_dataset(folder / "dataset.pt")
    split, model = split_by_song(dataset, 0.8), PooledTransformer(ModelConfig.for_vocabulary(VOCABULARY, **TINY_MODEL))
    middle = torch.tensor(VOCABULARY.first_pitch_ids) + 20  # of each part: every shift fits
    train = torch.full((5, T, len(FIELDS)), FIRST_ID)
    train[..., PITCH_INSTRUMENT] = middle[torch.arange(5 * T).view(5, T) % len(middle)]
    pitches = []
    for transpose in ((), (-5, 6)):
        run = some_run(folder, TrainingSettings(drop_parts=1.0, transpose=transpose), model, dataset,
                       dataclasses.replace(split, train=train))
        pitches.append(torch.stack([run.data.rows(torch.tensor([0]), T, 5 * T, seed)[0, :, PITCH_INSTRUMENT]
                                    for seed in range(40)]))
    assert all(len(row.unique()) == len(middle) - 1 for row in pitches[0])  # each has lost a part
    assert (pitches[0] != pitches[1]).any(1).double().mean() > 0.7


def test_the_largest_seed_transposes_too():
    train(seed=SEEDS - 1, transpose=[-5, 6], num_epochs=1)


def test_every_training_config_loads():
    assert config_from_file(TrainingSettings, CONFIGS / "training_args.json") == TrainingSettings()
    for path in CONFIGS.glob("training_*.json"):
        config_from_file(TrainingSettings, path)


def test_a_teacher_is_small_enough_to_be_carried():
    """In bfloat16, in pieces of 16 MiB; and its settings fit it and the rows of its dataset."""
    settings = json.loads((CONFIGS / "model_teacher.json").read_text())
    config = ModelConfig.from_dict(settings, load_vocabulary(), "model_teacher.json")
    settings = config_from_file(TrainingSettings, CONFIGS / "training_gpu.json")
    with torch.device("meta"):
        n_parameters = PooledTransformer(config).n_parameters()
    assert n_parameters <= 30_000_000 and 2 * n_parameters < 60 << 20
    assert config.given and config.controls and config.qk_norm and config.dropout > 0
    assert config.block_size == 1024 == 2 * settings.row_notes


# ---------------------------------------------------------------- stopping and continuing


@pytest.mark.parametrize(("heads", "stops"), [  # within an epoch and at its end, with and without a row just written
    ("gru", (1,)), ("parallel", (2,)), ("parallel", (3,)), ("gru", (5,)), ("gru", (1, 2, 3, 4, 5))])
def test_a_resumed_run_equals_one_never_stopped(monkeypatch, capsys, heads, stops):
    settings = {"model": {"heads": heads, "given": True}, "validate_steps": 2, "loggingsteps": 2,
                "transpose": [-5, 6], "random_crops": True, "drop_parts": 0.3, "given_tasks": 0.5, "batch_size": 1,
                "accumulation": 3}
    whole = train(filename="whole", **settings)
    capsys.readouterr()
    interrupt_after(monkeypatch, *stops)
    run = train_until_stopped(**settings)
    for stop, following in zip_longest(stops, stops[1:]):
        assert f"stopped at step {stop}; continue with: python train_pool.py --resume run" in capsys.readouterr().out
        assert load_checkpoint(run / LAST)["training"]["progress"]["step"] == stop
        torch.manual_seed(99)  # what happens in between does not matter
        resume = ["--resume", run, "-d", "cpu"]
        if following:
            is_stopped(resume)
        else:
            succeeds(train_pool.main, resume)
    assert_same_run(run, whole)


def test_a_resumed_run_with_muon_and_an_average_equals_one_never_stopped(monkeypatch):
    settings = {"optimizer": "muon", "average": 0.3, "schedule": "constant", "decay_share": 0.5, "validate_steps": 2}
    whole = train(filename="whole", **settings)
    interrupt_after(monkeypatch, 2, 3)
    run = train_until_stopped(**settings)
    is_stopped(["--resume", run, "-d", "cpu"])
    succeeds(train_pool.main, ["--resume", run, "-d", "cpu"])
    assert_same_run(run, whole)


def test_a_run_of_so_many_minutes_is_planned_once(monkeypatch, capsys):
    plans = []

    def planned(run) -> int:
        plans.append(steps_in_time(run))
        interrupt_after(monkeypatch, 3)  # and not one of the steps that are timed
        return 7

    monkeypatch.setattr(training, "steps_in_time", planned)
    settings = {"max_minutes": 0.05, "num_epochs": None, "average": 0.3, "optimizer": "muon", "row_notes": 16,
                "whole_rows_from": 0.5, "batch_size": 4}
    run = train_until_stopped(**settings)
    assert load_checkpoint(run / LAST)["training"]["progress"]["planned"] == 7
    succeeds(train_pool.main, ["--resume", run, "-d", "cpu"])
    assert len(plans) == 1 and plans[0] > 7  # however busy the machine is
    assert column(run, "steps")[-1] == 7
    assert column(run, "lr")[:2] == [0, 0.01]  # of step 2, with which a warm-up of two steps ends
    out = capsys.readouterr().out
    assert "step 0 of as many as 0.05 minutes hold\n" in out and "step 3 of 7\n" in out
    assert "run: 7 steps in 0.05 minutes" in out
    # Nothing is left of the steps that were timed: the same run as one of so many steps.
    settings |= {"max_minutes": None, "num_epochs": 99}
    whole = train_until_stopped(filename="whole", max_train_steps=7, **settings)
    succeeds(train_pool.main, ["--resume", whole, "-d", "cpu"])
    assert same(weights(whole), weights(run))
    assert table(whole)[0] == table(run)[0]
    assert load_checkpoint(run / LAST)["training"]["progress"]["sums"] == [0.0] * len(FIELDS)


class Clock:
    """A time of its own, which passes only where the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def passes(self, monkeypatch, owner: object, name: str, seconds: Callable[..., float]) -> None:
        """Let a method of `owner` take as long as `seconds` says of its arguments."""
        plain = getattr(owner, name)

        def slow(*args, **more):
            self.now += seconds(*args, **more)
            return plain(*args, **more)

        monkeypatch.setattr(owner, name, slow)


@pytest.mark.parametrize("more", [
    {}, {"row_notes": 16, "whole_rows_from": 0.6}, {"average": 0.2, "validate_steps": 40, "loggingsteps": 10}])
def test_a_plan_keeps_to_the_time(monkeypatch, more):
    """With compiling, which each new shape of a batch brings on, and with all that is validated and saved."""
    clock, shapes = Clock(), set()
    monkeypatch.setattr(planning, "time", clock)
    monkeypatch.setattr(training, "time", clock)
    monkeypatch.setattr(train_pool, "time", clock)

    def seconds(_run, rows) -> float:
        compiling = 0 if rows.shape in shapes else 20
        shapes.add(rows.shape)
        return compiling + rows.shape[1] / 32

    clock.passes(monkeypatch, training.Run, "step", seconds)
    clock.passes(monkeypatch, training.Run, "validate", lambda _run: 2)
    clock.passes(monkeypatch, run_folder, "save_checkpoint", lambda *_args: 1)
    clock.passes(monkeypatch, datasets, "load_dataset", lambda *_args: 30)
    monkeypatch.setattr(PooledTransformer, "compile", lambda _model: None)
    run = train(**{"max_minutes": 8, "compile": True, "num_epochs": None, "batch_size": 2, "loggingsteps": 20} | more)
    assert 0.85 * 480 < clock.now - 1000 <= 480
    assert column(run, "steps")[-1] > 50


def test_a_plan_of_slow_steps_takes_little_of_the_time(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(planning, "time", clock)
    monkeypatch.setattr(training, "time", clock)
    monkeypatch.setattr(train_pool, "time", clock)
    clock.passes(monkeypatch, training.Run, "step", lambda _run, _rows: 10)
    run = train(max_minutes=3, num_epochs=None, batch_size=2)
    assert 13 <= column(run, "steps")[-1] <= 18
    assert clock.now - 1000 <= 180


def test_a_run_stopped_before_its_plan_is_planned_when_it_is_continued(monkeypatch, capsys):
    def stopped(_run) -> int:
        raise KeyboardInterrupt

    settings = {"max_minutes": 0.05, "num_epochs": None}
    with monkeypatch.context() as patch:
        patch.setattr(training, "steps_in_time", stopped)
        assert train_pool.main(arguments(**settings)) == EXIT_INTERRUPTED
    monkeypatch.setattr(training, "steps_in_time", lambda _run: 4)
    succeeds(train_pool.main, ["--resume", "run", "-d", "cpu"])
    assert "run: 4 steps in 0.05 minutes" in capsys.readouterr().out
    assert same(weights(Path("run")), weights(train(filename="whole", max_train_steps=4)))


@pytest.mark.parametrize(("beside", "text"), [
    ({"num_epochs": 3}, "max_minutes and num_epochs both say how long the run is"),
    ({"num_epochs": None, "max_train_steps": 3}, "max_minutes=1.0 and max_train_steps=3 both say")])
def test_a_run_is_as_long_as_one_setting_says(beside, text, capsys):
    assert text in fails(train_pool.main, arguments(max_minutes=1.0, **beside), capsys)


@pytest.mark.parametrize("step", [1, 4])
def test_a_killed_run_goes_on_from_its_last_checkpoint(monkeypatch, step):
    whole = train(filename="whole")
    with monkeypatch.context() as patch:
        interrupt_after(patch, step, times=2)  # the second Ctrl-C does not wait
        assert train_pool.main(arguments()) == EXIT_INTERRUPTED
    assert load_checkpoint(Path("run") / LAST)["training"]["progress"]["step"] < step
    succeeds(train_pool.main, ["--resume", "run", "-d", "cpu"])
    assert_same_run(Path("run"), whole)


@pytest.mark.parametrize("n_written", [0, 1])
def test_a_run_killed_between_its_files_loses_none(monkeypatch, n_written):
    settings = OVERFITTING
    whole = train(filename="whole", **settings)
    lowest = load_checkpoint(whole / BEST)["training"]["progress"]["step"]
    assert 0 < lowest < load_checkpoint(whole / LAST)["training"]["progress"]["step"]
    written = []

    def killed(path, model, vocabulary, state) -> None:
        if state["progress"]["step"] == lowest:
            if len(written) == n_written:
                raise KeyboardInterrupt
            written.append(path)
        save_checkpoint(path, model, vocabulary, state)

    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "save_checkpoint", killed)
        assert train_pool.main(arguments(**settings)) == EXIT_INTERRUPTED
    assert len(written) == n_written
    succeeds(train_pool.main, ["--resume", "run", "-d", "cpu"])
    assert_same_run(Path("run"), whole)


def test_a_finished_run_has_nothing_to_continue(capsys):
    run = train()
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    capsys.readouterr()
    succeeds(train_pool.main, ["--resume", run, "-d", "cpu"])
    assert "step 6 of 6" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_a_run_goes_on_with_its_dataset_compressed(monkeypatch, capsys):
    whole = train(filename="whole")
    interrupt_after(monkeypatch, 2)
    make_dataset(Path("packed.pt.xz"), [random_song(i, SONG_NOTES) for i in range(N_SONGS)], T)
    run = train_until_stopped(dataset="packed.pt.xz")
    Path("packed.pt.xz").unlink()
    succeeds(train_pool.main, ["--resume", run, "--dataset_path", "dataset.pt", "-d", "cpu"])
    for name in ("dataset_hash", "held_out_songs"):
        assert json.loads((run / SETTINGS).read_text())[name] == json.loads((whole / SETTINGS).read_text())[name]
    assert same(weights(run), weights(whole))
    Path("packed.pt.xz").write_bytes(b"no dataset")
    assert "damaged or not an .xz file" in fails(train_pool.main, ["--resume", run, "--dataset_path", "packed.pt.xz",
                                                                   "-d", "cpu"], capsys)


def test_a_moved_run_and_dataset_can_be_continued(monkeypatch):
    interrupt_after(monkeypatch, 1)
    train_until_stopped().rename("moved")
    Path("dataset.pt").rename("new.pt")
    succeeds(train_pool.main, ["--resume", "moved", "--dataset_path", "new.pt", "-d", "cpu"])
    assert load_checkpoint(Path("moved") / LAST)["training"]["progress"]["step"] == 6
    assert not Path("run").exists()


@pytest.mark.parametrize(("extra", "text"), [
    (["--model_config", "model.json"], "leave out --model_config"),
    (["--training_args", "training.json"], "leave out --training_args"),
    (["--train_split", "0.9"], "leave out --train_split"),
    (["--train_split", "0"], "leave out --train_split"),
    (["-fp", "run/best.pth"], "leave out --file_path"),
    (["--force"], "leave out --force"),
    (["--dataset_path", "other.pt"], "other.pt: not the dataset this run was started with"),
    (["--dataset_path", "none.pt"], "none.pt: the run's dataset is not there; say where with --dataset_path"),
])
def test_resume_takes_nothing_that_would_change_the_run(capsys, extra, text):
    run = train(max_train_steps=1)
    make_dataset(Path("other.pt"), [random_song(i, SONG_NOTES) for i in range(1, N_SONGS + 1)], T)
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    assert text in fails(train_pool.main, ["--resume", run, *extra, "-d", "cpu"], capsys)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_resume_without_a_run(capsys):
    assert "nowhere: no run to continue here (last.pth is missing)" in fails(
        train_pool.main, ["--resume", "nowhere"], capsys)
    assert not Path("nowhere").exists()
    Path("empty").mkdir()
    assert "no run to continue here" in fails(train_pool.main, ["--resume", "empty"], capsys)


def test_resume_with_a_checkpoint_that_cannot_be_continued(capsys):
    run = train(max_train_steps=1)
    (run / LAST).write_bytes((run / BEST).read_bytes())
    assert f"{run / LAST}: holds no optimizer" in fails(train_pool.main, ["--resume", run, "-d", "cpu"], capsys)
    data = load_checkpoint(run / LAST)
    del data["weights"]["out_norm.bias"]
    torch.save(data, run / LAST)
    assert "weights do not fit" in fails(train_pool.main, ["--resume", run, "-d", "cpu"], capsys)
    (run / LAST).write_bytes(b"damaged")
    assert "damaged or not a PyTorch file" in fails(train_pool.main, ["--resume", run, "-d", "cpu"], capsys)


@pytest.mark.parametrize("lost", [LOSSES, PICTURE])
def test_a_run_killed_after_its_last_checkpoint_gets_its_table_and_picture(lost):
    run = train()
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    (run / lost).write_bytes(b"of an earlier step") if lost == LOSSES else (run / lost).unlink()
    succeeds(train_pool.main, ["--resume", run, "-d", "cpu"])
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_a_forced_run_that_is_killed_at_once_leaves_no_older_one_to_continue(monkeypatch, capsys):
    train(max_train_steps=1)

    def killed(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(training.Run, "validate", killed)
    assert train_pool.main([*arguments(lr=0.1), "--force"]) == EXIT_INTERRUPTED
    assert "no run to continue here" in fails(train_pool.main, ["--resume", "run", "-d", "cpu"], capsys)


def test_sigterm_saves_as_ctrl_c_does(monkeypatch, capsys):
    whole = train(filename="whole")
    interrupt_after(monkeypatch, 2, times=2, number=signal.SIGTERM)  # unlike a second Ctrl-C, it waits
    train_until_stopped()
    assert "stopped at step 2; continue with" in capsys.readouterr().out
    succeeds(train_pool.main, ["--resume", "run", "-d", "cpu"])
    assert_same_run(Path("run"), whole)


# ---------------------------------------------------------------- what does not fit


def fails_in(monkeypatch, error: Exception, step: int, training_now: bool) -> None:
    """Let the model raise `error` in the given step, or in the validation after it."""
    plain = PooledTransformer.forward

    def forward(self, *args):
        if self.training == training_now and steps[0] == step:
            raise error
        return plain(self, *args)

    steps = [0]
    plain_step = training.Run.step

    def run_step(self, rows):
        steps[0] = self.progress.step + training_now
        losses = plain_step(self, rows)
        steps[0] = self.progress.step
        return losses

    monkeypatch.setattr(training.Run, "step", run_step)
    monkeypatch.setattr(PooledTransformer, "forward", forward)


CPU_FULL = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: {}: you tried to allocate 40 bytes."


@pytest.mark.parametrize("error", [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), MemoryError(),
    RuntimeError(CPU_FULL.format("can't allocate memory")), RuntimeError(CPU_FULL.format("not enough memory"))])
@pytest.mark.parametrize("training_now", [True, False])
def test_a_batch_that_does_not_fit_says_what_to_lower(monkeypatch, capsys, error, training_now):
    settings = {"batch_size": 4, "loggingsteps": 1, "model": {"dropout": 0.0}, "num_epochs": 4}
    whole = train(filename="whole", **settings)
    with monkeypatch.context() as patch:
        fails_in(patch, error, 4, training_now)
        capsys.readouterr()
        assert train_pool.main(arguments(**settings)) == EXIT_USER_ERROR
    last = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("step ")]
    rows, less, more = (4, 2, 2) if training_now else (2, 1, 4)  # no more than two are held out
    assert last == [f"error: {rows} rows of 32 notes at once (batch_size) do not fit into the memory of cpu; lower "
                    f"batch_size to {less} and raise accumulation to {more} in the training settings, which makes the "
                    f"same steps, or prepare shorter rows (prepare.py -b 16); run/last.pth is there still: --resume "
                    f"run --batch_size {less} continues it"]
    assert load_checkpoint(Path("run") / LAST)["training"]["progress"]["step"] == 3
    succeeds(train_pool.main, ["--resume", "run", "--batch_size", 2, "-d", "cpu"])
    state = load_checkpoint(Path("run") / LAST)["training"]
    assert (state["settings"]["batch_size"], state["settings"]["accumulation"]) == (2, 2)
    assert column(Path("run"), "steps") == column(whole, "steps")
    for name in ("train_loss", "held_out_loss"):
        assert column(Path("run"), name) == pytest.approx(column(whole, name), rel=1e-5)


def test_a_first_batch_that_does_not_fit(monkeypatch, capsys):
    fails_in(monkeypatch, torch.OutOfMemoryError("CUDA out of memory."), 0, False)
    assert train_pool.main(arguments(batch_size=1)) == EXIT_USER_ERROR
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == ("error: 1 row of 32 notes at once (batch_size) do not fit into the memory of cpu; prepare shorter "
                     "rows (prepare.py -b 16), or take a smaller model")
    monkeypatch.undo()


def test_other_errors_of_torch_stay_bugs(monkeypatch):
    fails_in(monkeypatch, RuntimeError("shapes"), 1, True)
    with pytest.raises(RuntimeError, match="shapes"):
        train_pool.main(arguments())


def test_batch_size_is_for_continuing_and_makes_the_same_steps(capsys):
    assert "--batch_size is for --resume" in fails(train_pool.main, [*arguments(), "--batch_size", 2], capsys)
    run = train(batch_size=6, max_train_steps=1)
    for wrong in (0, 4, -1):
        message = fails(train_pool.main, ["--resume", run, "--batch_size", wrong, "-d", "cpu"], capsys)
        assert f"--batch_size {wrong}: a step of this run is 6 rows; give one of 1, 2, 3, 6" in message


# ---------------------------------------------------------------- a disk that is full


@pytest.mark.parametrize("bytes_left", [0, 1000, 100_000])
def test_a_disk_that_is_full_leaves_the_last_checkpoint_and_goes_on_with_room(monkeypatch, capsys, bytes_left):
    """Files cannot grow beyond a limit, which torch's writer meets as it does a full disk: in the middle."""
    resource = pytest.importorskip("resource", reason="this system has no limit of file sizes")
    whole = train(filename="whole")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    plain = training.Run.step

    def step(self, rows):
        if self.progress.step == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, limits[1]))
        return plain(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(training.Run, "step", step)
        argv = arguments()
        capsys.readouterr()
        try:
            code = train_pool.main(argv)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == EXIT_USER_ERROR
    errors = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("step ")]
    assert errors == ["error: run/last.pth: cannot be written (File too large); make room there, then continue with "
                      "--resume run: last.pth is whole"]
    assert load_checkpoint(Path("run") / LAST)["training"]["progress"]["step"] == 3
    assert sorted(path.name for path in Path("run").iterdir()) == FILES
    succeeds(train_pool.main, ["--resume", "run", "-d", "cpu"])
    assert_same_run(Path("run"), whole)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
@pytest.mark.parametrize("name", [LAST, BEST, LOSSES, PICTURE])
def test_no_space_left_for_one_file(monkeypatch, capsys, name):
    whole = train(filename="whole")
    with files.replacing(Path("run") / name) as file:
        part = Path(file.name)
    (Path("run") / name).unlink()

    def step(self, rows, plain=training.Run.step):
        if self.progress.step == 3:
            part.symlink_to("/dev/full")
        return plain(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(training.Run, "step", step)
        assert train_pool.main(arguments(validate_steps=1)) == EXIT_USER_ERROR
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: run/{name}: cannot be written (No space left on device); make room there, then")
    assert not part.exists()  # room again
    succeeds(train_pool.main, ["--resume", "run", "-d", "cpu"])
    assert same(weights(Path("run")), weights(whole))
    assert column(Path("run"), "steps") == [0, 1, 2, 3, 4, 5, 6]


# ---------------------------------------------------------------- as on a GPU


@pytest.fixture
def running_ahead(monkeypatch) -> None:
    """The CPU is treated as a GPU is: rows come from other processes, and nothing looks at a step's losses."""
    plain = training.Run.__init__

    def begin(run, *args) -> None:
        plain(run, *args)
        run.runs_ahead = True

    monkeypatch.setattr(training.Run, "__init__", begin)


AHEAD = {"optimizer": "muon", "average": 0.3, "validate_steps": 2, "random_crops": True, "transpose": [-5, 6],
         "row_notes": 16, "whole_rows_from": 0.5, "batch_size": 4}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_processes_that_make_rows_outlive_a_signal_to_all(monkeypatch, running_ahead, number):
    """torchrun and terminals send it to every process; the run needs its rows to finish the step and save."""
    step, asked = training.Run.step, []

    def signalled(self, rows):
        if self.progress.step == 1 and not asked:
            asked.extend(multiprocessing.active_children())
            for process in asked:
                os.kill(process.pid, number)
        return step(self, rows)

    monkeypatch.setattr(training.Run, "step", signalled)
    run = train(**AHEAD)
    assert asked and column(run, "steps")[-1] == 8
    for process in asked:
        process.join(20)
        assert not process.is_alive()


def test_a_run_that_does_not_wait_is_the_same_run_and_is_continued(monkeypatch, request):
    plain = train(filename="plain", **AHEAD)
    request.getfixturevalue("running_ahead")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1, 4)
        run = train_until_stopped(**AHEAD)
        is_stopped(["--resume", run, "-d", "cpu"])
    succeeds(train_pool.main, ["--resume", run, "-d", "cpu"])
    assert_same_run(run, plain)
    assert column(run, "seconds")[-1] > 0


class Reads(TorchDispatchMode):
    """Counts how often a tensor's value is asked for, for which the host of a GPU must wait."""

    n = 0

    def __torch_dispatch__(self, func, _types, args=(), kwargs=None):
        self.n += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **kwargs or {})


def test_no_step_reads_a_value_of_the_device(monkeypatch, running_ahead):
    with Reads() as reads:
        assert torch.ones(2).isfinite().all() and reads.n == 1
    found, plain = [], training.Run.step

    def step(run, rows):
        with monkeypatch.context() as patch, Reads() as reads:
            n_counted = n_predicted(rows)  # of rows that are still the host's
            patch.setattr(training, "n_predicted", lambda _rows: n_counted)
            reads.n = 0
            losses = plain(run, rows)
            found.append(reads.n)
        return losses

    monkeypatch.setattr(training.Run, "step", step)
    model = {"heads": "gru", "late_layers": 1, "positions": "metre", "bars": "relative", "qk_norm": True, "given": True,
             "controls": True}
    train(model=model, given_tasks=0.5, precision="bf16", **AHEAD)
    assert found and not any(found)


def test_a_loss_that_is_not_finite_ends_a_run_that_does_not_wait_where_it_logs(capsys, running_ahead):
    assert train_pool.main(arguments(lr=1e30, clip_norm=0, loggingsteps=2, num_epochs=9)) == EXIT_USER_ERROR
    assert "the loss is no longer finite at step" in capsys.readouterr().err.splitlines()[-1]
    assert load_checkpoint(Path("run") / LAST)["training"]["progress"]["step"] == 0
    assert all(weight.isfinite().all() for weight in weights(Path("run")).values())


# ---------------------------------------------------------------- compiled


def test_a_compiled_run_is_the_same_run_and_is_continued(monkeypatch):
    plain = train(filename="plain", model={"dropout": 0.0})
    graphs = without_inductor(monkeypatch)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2)
        run = train_until_stopped(model={"dropout": 0.0}, compile=True)
    assert graphs
    n_graphs = len(graphs)
    torch.compiler.reset()  # as in a process of its own
    succeeds(train_pool.main, ["--resume", run, "-d", "cpu"])
    assert len(graphs) > n_graphs
    assert weights(run).keys() == weights(plain).keys()
    for name, weight in weights(plain).items():
        assert torch.allclose(weights(run)[name], weight, atol=1e-5), name
    for name in ("train_loss", "held_out_loss"):
        assert column(run, name) == pytest.approx(column(plain, name), rel=1e-5)


def test_validation_as_on_a_gpu_compiles_nothing_and_finds_the_same(monkeypatch):
    plain = train(filename="plain", max_train_steps=1)
    graphs, held_out = without_inductor(monkeypatch), []
    for run_ahead in (True, False):
        args = train_pool.build_parser().parse_args([*arguments(compile=True, model={"dropout": 0.0}), "--force"])
        run = train_pool.new_run(args, Processes("cpu"), [])
        run.runs_ahead = run_ahead
        held_out.append(sum(run.validate()))
        assert bool(graphs) != run_ahead
    assert held_out == pytest.approx([column(plain, "held_out_loss")[0]] * 2, rel=1e-5)


def test_all_batches_of_a_run_on_a_gpu_are_two_graphs(monkeypatch):
    """Each whole, and none for an epoch's last batch: every graph costs a minute of those that a run is given."""
    def as_on_a_gpu(query, key, value, _dropout, _visible=None):
        return torch.nn.functional.scaled_dot_product_attention(query.to(key.dtype), key, value, is_causal=True)

    monkeypatch.setattr(attention, "causal_attention", as_on_a_gpu)
    graphs = without_inductor(monkeypatch)
    settings = json.loads((CONFIGS / "model_teacher.json").read_text())
    config = ModelConfig.from_dict(settings, load_vocabulary(), "model_teacher.json")
    model = PooledTransformer(dataclasses.replace(config, **TINY_MODEL | {"n_layers": 3, "dropout": 0.0})).train()
    model.compile()
    for n_rows, length in ((8, 16), (4, 32), (3, 16), (2, 32), (8, 16), (4, 32)):  # as planning.py begins
        rows = torch.full((n_rows, length, FIRST_CONTROL + len(config.control_sizes)), FIRST_ID)
        rows[..., GIVEN:] = 0
        with torch.autocast("cpu", torch.bfloat16):
            window_losses(model, config, rows).sum().backward()
    assert len(graphs) == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's, about itself
@pytest.mark.parametrize("heads", ["parallel", "gru"])
def test_compiled_by_a_compiler_the_losses_are_the_same(heads):
    """Once a model of a shape is compiled it takes seconds; before, a minute or two."""
    if not any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))):
        pytest.skip("no C++ compiler")
    model, same_rows = {"n_layers": 1, "dropout": 0.0, "heads": heads}, {"batch_size": 2, "num_epochs": 4}
    plain, run = train(filename="plain", model=model, **same_rows), train(model=model, compile=True, **same_rows)
    for name in ("train_loss", "held_out_loss"):
        assert column(run, name) == pytest.approx(column(plain, name), rel=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_without_a_compiler_compile_is_one_line(monkeypatch, tmp_path, capsys):
    from torch._inductor import config

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(config.cpp, "cxx", ("/nowhere/c++",))
    assert train_pool.main(arguments(compile=True)) == EXIT_USER_ERROR
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert error[0].startswith("error: the model cannot be compiled here (")
    assert "No working C++ compiler" in error[0]
    assert error[0].endswith("install a C++ compiler (Linux: g++ and Python's headers), or set compile to false in the "
                             "training settings")


# ---------------------------------------------------------------- starting from weights


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_new_run_can_start_from_weights(suffix):
    first = train(num_epochs=10)
    model, vocabulary, _ = load_model(first / LAST)
    path = Path(f"start{suffix}")
    if suffix == ".pth":
        save_checkpoint(path, model, vocabulary, {})
    else:
        save_release(path, model, vocabulary, {}, torch.float32)
    write_json(Path("training.json"), TINY_TRAINING | {"filename": "second"})
    succeeds(train_pool.main, ["--dataset_path", "dataset.pt", "-fp", path, "--training_args", "training.json",
                               "--train_split", "0.8", "-d", "cpu"])  # the model's settings come with its weights
    second = Path("second")
    assert load_model(second / LAST)[0].config == model.config
    assert column(second, "held_out_loss")[0] == column(first, "held_out_loss")[-1]
    assert json.loads((second / SETTINGS).read_text())["weights"] == str(path)
    assert not same(weights(second), weights(first))
    succeeds(train_pool.main, [*arguments(filename="third"), "-fp", path])  # settings that do not differ
    assert same(weights(Path("third")), weights(second))


def test_a_fine_tuned_run_of_three_songs_ends_with_before_and_after(capsys):
    first = train()
    for i, n_notes in enumerate([50, 35, 60]):
        write_tokens(Path(f"tokens/mine{i}.json"), random_song(i, n_notes))
    succeeds(prepare.main, ["mine.pt", "-fp", "tokens", "-b", 64])
    capsys.readouterr()
    write_json(Path("training.json"), TINY_TRAINING | {"filename": "mine"})
    succeeds(train_pool.main, ["--dataset_path", "mine.pt", "-fp", first / BEST, "--training_args", "training.json",
                               "-d", "cpu"])
    losses = column(Path("mine"), "held_out_loss")
    assert losses[-1] < losses[0]
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"mine: held out before {losses[0]:.3f}, after {losses[-1]:.3f} nats/note")
    settings = json.loads((Path("mine") / SETTINGS).read_text())
    assert settings["weights_hash"] == file_hash(first / BEST)


def test_fine_tuning_that_lowers_no_loss_says_which_file_holds_what(capsys):
    first = train()
    capsys.readouterr()
    succeeds(train_pool.main, [*arguments(filename="worse", lr=1.0), "-fp", first / BEST])
    losses = column(Path("worse"), "held_out_loss")
    assert min(losses) == losses[0] < losses[-1]
    assert capsys.readouterr().out.endswith("so best.pth is what the run began with, and last.pth what it learned\n")
    assert same(weights(Path("worse"), BEST), weights(first, BEST))


def test_a_run_can_take_the_place_of_the_one_whose_weights_it_starts_from():
    best = load_checkpoint(train() / BEST)["weights"]
    succeeds(train_pool.main, [*arguments(lr=1e-9), "-fp", "run/best.pth", "--force"])
    for name, weight in best.items():
        assert torch.allclose(weights(Path("run"))[name], weight, atol=1e-6)


def test_weights_and_other_model_settings_are_refused(capsys):
    first = train(max_train_steps=1)
    message = fails(train_pool.main, [*arguments({"n_layers": 3}, filename="second"), "-fp", first / BEST], capsys)
    assert f"model.json: not the model settings of {first / BEST} (n_layers); leave out --model_config" in message


def test_weights_take_a_narrower_feed_forward(capsys):
    first = train(max_train_steps=1)
    width = load_model(first / BEST)[0].config.ff_width
    narrower = arguments({"d_ff": width - 8}, filename="narrow", max_train_steps=1, lr=1e-9)
    succeeds(train_pool.main, [*narrower, "-fp", first / BEST])
    narrow = load_model(Path("narrow") / BEST)[0]
    assert narrow.config.ff_width == width - 8
    assert f"cut from {width} to {width - 8} hidden units" in capsys.readouterr().err
    trunk = "blocks.0.attention.to_qkv.weight"
    assert torch.allclose(narrow.state_dict()[trunk], weights(first, BEST)[trunk], atol=1e-6)
    message = fails(train_pool.main, [*arguments({"d_ff": width + 8}, filename="wide"), "-fp", first / BEST], capsys)
    assert "not the model settings" in message and "(d_ff)" in message


def test_weights_bring_their_vocabulary(capsys):
    vocabulary = load_vocabulary(VOCABULARY.to_dict() | {"bars": 64, "steps_per_bar": 16})
    songs = [random_song(i, SONG_NOTES, vocabulary=vocabulary) for i in range(N_SONGS)]
    make_dataset(Path("coarse.pt"), songs, T, vocabulary)
    coarse = train(dataset="coarse.pt", filename="coarse")
    assert load_model(coarse / BEST)[0].config.steps_per_bar == 16
    succeeds(train_pool.main, [*arguments(dataset="coarse.pt", filename="more"), "-fp", coarse / BEST])
    assert load_model(Path("more") / BEST)[1] == vocabulary
    message = fails(train_pool.main, [*arguments(filename="mixed"), "-fp", coarse / BEST], capsys)
    assert "dataset.pt: made with another vocabulary than the model (bars 256, not 64; steps_per_bar 32, not 16); " \
           "tokenize and prepare the songs again" in message


def test_weights_are_taken_over_to_another_vocabulary_where_that_is_asked_for(capsys):
    first = train()
    vocabulary = load_vocabulary(VOCABULARY.to_dict() | {"bars": 64, "steps_per_bar": 48, "max_duration_steps": 192})
    songs = [random_song(i, SONG_NOTES, vocabulary=vocabulary) for i in range(N_SONGS)]
    make_dataset(Path("fine.pt"), songs, T, vocabulary)
    argv = [*arguments(dataset="fine.pt", filename="fine", max_train_steps=1, lr=1e-9), "-fp", first / BEST]
    assert "or let train_pool.py take the weights over with -fp and --new_vocab" in fails(train_pool.main, argv, capsys)
    succeeds(train_pool.main, [*argv, "--new_vocab"])
    model, own, _ = load_model(Path("fine") / BEST)
    assert own == vocabulary and model.config.steps_per_bar == 48
    trunk = "blocks.0.attention.to_qkv.weight"
    assert torch.allclose(weights(Path("fine"), BEST)[trunk], weights(first, BEST)[trunk], atol=1e-6)
    assert "say whose with -fp" in fails(train_pool.main, [*arguments(filename="new"), "--new_vocab"], capsys)
    assert "leave out --new_vocab" in fails(train_pool.main, ["--resume", "fine", "--new_vocab"], capsys)


def test_rows_longer_than_the_models_context_are_refused(capsys):
    text = "block_size=16 is shorter than the dataset's blocks (32); "
    assert f"model.json: {text}" in fails(train_pool.main, arguments({"block_size": 16}), capsys)
    model = PooledTransformer(ModelConfig.from_dict(TINY_MODEL | {"block_size": 16}, VOCABULARY, "test"))
    save_release(Path("short.safetensors"), model, VOCABULARY, {})
    argv = ["--dataset_path", "dataset.pt", "-fp", "short.safetensors", "-d", "cpu"]
    assert f"short.safetensors: {text}" in fails(train_pool.main, argv, capsys)
    make_dataset(Path("long.pt"), [random_song(i, 600, n_bars=99) for i in range(3)], 600)
    message = fails(train_pool.main, ["--dataset_path", "long.pt", "-d", "cpu"], capsys)
    assert "default model settings: block_size=512 is shorter than the dataset's blocks (600); " in message


# ---------------------------------------------------------------- mistakes


def test_a_run_is_not_overwritten(capsys):
    run = train()
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    message = fails(train_pool.main, arguments(lr=0.1), capsys)
    assert f"continue it with --resume {run}, replace it with --force, or give another \"filename\"" in message
    # Nor does --force destroy anything before the new run can begin.
    write_json(Path("training.json"), TINY_TRAINING)
    for bad in (["--dataset_path", "model.json"], ["-fp", "model.json"], ["--train_split", "2"]):
        fails(train_pool.main, [*arguments(), *bad, "--force"], capsys)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
    first = weights(run)
    train("--force", lr=0.1)
    assert not same(weights(run), first)
    assert len(table(run)) == 5


@pytest.mark.parametrize(("model", "changes", "text"), [
    ({"n_layer": 2}, {}, "model.json: unknown key 'n_layer'; did you mean 'n_layers'?"),
    ({"d_model": 18, "n_heads": 4}, {}, "model.json: d_model=18 must be a multiple of n_heads=4"),
    ({"dropout": "a lot"}, {}, "model.json: dropout must be a number, not 'a lot'"),
    ({"n_tokens": [5, 5, 5, 5]}, {}, "model.json: n_tokens are not the dataset's [260, 36, 132, 227]; leave them out"),
    ({}, {"batchsize": 2}, "training.json: unknown key 'batchsize'; did you mean 'batch_size'?"),
    ({}, {"learning": 2}, "training.json: unknown key 'learning'; known keys: batch_size, num_epochs, lr"),
    ({}, {"batch_size": "12"}, "training.json: batch_size must be a whole number, not '12'"),
    ({}, {"num_epochs": 1.5}, "training.json: num_epochs must be a whole number, not 1.5"),
    ({}, {"batch_size": 0}, "training.json: batch_size=0 must be at least 1"),
    ({}, {"num_epochs": 0}, "num_epochs=0 must be at least 1"),
    ({}, {"loggingsteps": 0}, "loggingsteps=0 must be at least 1"),
    ({}, {"warmup_steps": -1}, "warmup_steps=-1 must not be negative"),
    ({}, {"clip_norm": -1}, "clip_norm=-1.0 must not be negative"),
    ({}, {"lr": 0}, "lr=0.0 must be above 0"),
    ({}, {"final_lr": 2}, "final_lr=2.0 must be from 0 to 1"),
    ({}, {"precision": "fp16"}, "precision='fp16' must be one of fp32, bf16"),
    ({}, {"filename": ""}, "filename must name the run's folder"),
    ({}, {"seed": -1}, "seed=-1 must be from 0 to"),
    ({}, {"seed": 2**63}, f"seed={2**63} must be from 0 to"),
    ({}, {"filename": "dataset.pt"}, "dataset.pt: a file stands where a folder is needed"),
])
def test_wrong_settings(capsys, model, changes, text):
    assert text in fails(train_pool.main, arguments(model, **changes), capsys)
    assert not list(Path().glob("*/*"))


@pytest.mark.parametrize(("bad", "text"), [
    (["--dataset_path", "none.pt"], "none.pt: no such file"),
    (["--dataset_path", "model.json"], "model.json: damaged or not a PyTorch file"),
    (["--model_config", "none.json"], "none.json: no such file"),
    (["--training_args", "dataset.pt"], "dataset.pt: not valid JSON"),
    (["-fp", "none.pth"], "none.pth: no such file"),
    (["-fp", "dataset.pt"], "dataset.pt: not a checkpoint of train_pool.py"),
    (["--train_split", "0"], "--train_split 0.0 must lie between 0 and 1"),
    (["--train_split", "1"], "--train_split 1.0 must lie between 0 and 1"),
    (["--train_split", "nan"], "--train_split nan must lie between 0 and 1"),
    (["-d", "gpu"], "unknown device 'gpu'; give auto, cuda, mps or cpu"),
    (["-d", "cuda"], "device 'cuda' is not there; this machine has cpu"),
])
def test_wrong_arguments(capsys, monkeypatch, bad, text):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    before = {path: path.read_bytes() for path in Path().iterdir()}
    assert text in fails(train_pool.main, [*arguments(), *bad], capsys)
    assert {path: path.read_bytes() for path in Path().iterdir() if path.is_file()} == {
        **before, **{path: path.read_bytes() for path in (Path("model.json"), Path("training.json"))}}
    assert not list(Path().glob("*/*"))


def test_default_dataset_name(capsys):
    assert fails(train_pool.main, [], capsys).startswith("error: dataset_pitch_ins512.pt: no such file")


@pytest.mark.parametrize("clip_norm", [0, 1])
def test_a_loss_that_is_no_longer_finite_ends_the_run_and_keeps_its_last_checkpoint(capsys, clip_norm):
    argv = arguments(lr=1e30, warmup_steps=0, clip_norm=clip_norm, loggingsteps=1)
    assert train_pool.main(argv) == EXIT_USER_ERROR
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if not line.startswith("step ")] == lines[-1:]
    assert lines[-1].startswith("error: the loss is no longer finite at step ")
    assert "lower lr" in lines[-1]
    assert np.isfinite(column(Path("run"), "train_loss")).all()
    assert all(tensor.isfinite().all() for tensor in weights(Path("run"), BEST).values())


# ---------------------------------------------------------------- TensorBoard


def told(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The charts of a run's events: steps and values by tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.filterwarnings("ignore")  # tensorboard's, about itself
def test_tensorboard_shows_the_table_and_a_resumed_run_tells_it_anew(monkeypatch):
    run = Path("run")
    interrupt_after(monkeypatch, 3)
    is_stopped([*arguments(max_train_steps=6, loggingsteps=1), "--tensorboard"])
    for last in (3, 6, 6):  # stopped, resumed, and resumed once more when all is done
        if last == 6:
            succeeds(train_pool.main, ["--resume", "run", "--tensorboard"])
        charts = told(run)
        for name, chart in {"train_loss": "loss/train", "held_out_loss": "loss/held out", "train_bar": "bar/train",
                            "lr": "run/lr"}.items():
            rows = [(int(row["steps"]), float(row[name])) for row in table(run) if row[name]]
            assert rows[-1][0] == last
            assert [step for step, _ in charts[chart]] == [step for step, _ in rows], name
            assert [value for _, value in charts[chart]] == pytest.approx([value for _, value in rows], rel=1e-5)
        assert len(list((run / "tensorboard").iterdir())) == 1


def test_without_tensorboard_the_option_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(tensorboard_log, "is_installed", lambda _: False)
    message = fails(train_pool.main, [*arguments(), "--tensorboard"], capsys)
    assert "--tensorboard needs tensorboard, which is not installed; pip install -r requirements-tensorboard" in message
