"""drift.py and evaluate.py --drift: a model's own songs and real ones, measured alike."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from commands import fails
from held_out import HELD_OUT, write_held_out
from random_songs import VOCABULARY
from tiny_models import never_end, tiny_model

import evaluate
from backline.evaluation.held_out_losses import measure_losses
from backline.generation import drift
from backline.music.vocab import BAR, BOS, EOS, FIELDS, FIRST_ID
from backline.preparation.dataset import load_dataset, song_rows
from backline.training.checkpoints import load_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A dataset of five songs and a checkpoint that names two of them as held out."""
    folder = tmp_path_factory.mktemp("held_out")
    write_held_out(folder)
    return folder


def test_own_songs_begin_with_bos_and_end_with_eos_if_they_end(monkeypatch):
    monkeypatch.setattr(drift, "N_NOTES", 20)
    monkeypatch.setattr(drift, "BATCH", 2)
    model = tiny_model(VOCABULARY, block_size=16, sharpness=1)
    model.heads[BAR].bias.data[FIRST_ID:] = -0.3 * torch.arange(VOCABULARY.bars)
    for songs, ended in ((drift.own_songs(model, VOCABULARY, 5), True),
                         (drift.own_songs(never_end(model), VOCABULARY, 5), False)):
        assert len(songs) == 5 and len({str(rows.tolist()) for rows in songs}) == 5
        for rows in songs:
            assert (rows[0] == BOS).all() and (rows[1:-1] >= FIRST_ID).all() and len(rows) <= 21
            assert len(rows) == 21 or (rows[-1] == EOS).all()
        assert any((rows[-1] == EOS).all() for rows in songs) == ended


def test_making_own_songs_leaves_the_model_as_it_was():
    model = tiny_model(VOCABULARY, block_size=16, sharpness=1).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    drift.own_songs(model, VOCABULARY, 1)
    assert model.training and model.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_nats_of_notes_are_those_of_the_losses_of_songs(folder):
    model, _, _ = load_model(folder / "best.pth")
    dataset = load_dataset(folder / "data.pt")
    found = measure_losses(model, dataset, [1, 3, 4])
    sums = drift.note_sums(model, [song_rows(dataset, song) for song in (1, 3, 4)], 2)
    assert sums.shape == (3, drift.N_NOTES, len(FIELDS) + 1)
    torch.testing.assert_close(sums.sum(1), found.by_song, rtol=1e-5, atol=1e-4)
    n_notes = len(song_rows(dataset, 1)) - 1
    assert sums[0, :, -1].tolist() == [1] * n_notes + [0] * (drift.N_NOTES - n_notes)
    for window in range(2):
        torch.testing.assert_close(sums[:, 16 * window:16 * (window + 1)].sum(1), found.by_position[:, window],
                                   rtol=1e-5, atol=1e-4)


def test_the_difference_and_where_others_would_lie():
    real = torch.ones(40, len(FIELDS) + 1, dtype=torch.float64)
    own = real * torch.tensor([3, 1, 1, 1, 1])
    alike = drift.difference(own, real)
    assert (alike["own"]["nats_per_note"], alike["real"]["nats_per_note"], alike["drift"]) == (6, 4, 2)
    assert alike["interval"] == [2, 2]
    own[:20], real[:10] = 5, 5  # five notes, of one nat each
    own[20:] = torch.tensor([3, 1, 1, 1, 1])
    found = drift.difference(own, real)
    assert found["interval"][0] < found["drift"] < found["interval"][1]
    assert drift.difference(own, real[:1])["interval"] is None


def test_it_stands_beside_the_losses(folder, tmp_path, capsys):
    argv = ["-mp", str(folder / "best.pth"), "--dataset_path", str(folder / "data.pt"), "-d", "cpu"]
    assert evaluate.main([*argv, "--drift", "3", "-o", str(tmp_path / "r")]) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "r.md").read_text() == printed
    found = json.loads((tmp_path / "r.json").read_text())["drift"]
    assert (found["own_songs"], found["real_songs"]) == (3, len(HELD_OUT))
    assert found["real"]["notes"] == (20 + 21 + 1) + (64 + 1)  # as few as they are, EOS among them
    assert found["drift"] == pytest.approx(found["own"]["nats_per_note"] - found["real"]["nats_per_note"])
    assert found["interval"][0] <= found["drift"] <= found["interval"][1]
    assert set(found["by_position"]) <= {"1–64", "65–128", "129–256", "257–512"}
    notes = sum(place["own"]["notes"] for place in found["by_position"].values())
    assert notes <= found["own"]["notes"]
    assert (f"its own songs {found['own']['nats_per_note']:.3f}, real ones {found['real']['nats_per_note']:.3f} nats "
            f"per note: drift {found['drift']:+.3f}\n") in printed
    assert "| notes of the song | all | 1–64 |" in printed
    assert evaluate.main([*argv, "-o", str(tmp_path / "plain")]) == 0
    assert "drift" not in json.loads((tmp_path / "plain.json").read_text())


@pytest.mark.parametrize(("n_own", "seeds"), [(None, 100), ("1", 1)])
def test_so_many_songs_are_made(folder, monkeypatch, capsys, n_own, seeds):
    made = []

    def few(model, vocabulary, n):
        made.append(n)
        return [torch.from_numpy(np.full((2, len(FIELDS)), FIRST_ID))]

    monkeypatch.setattr(drift, "own_songs", few)
    arguments = ["--drift"] if n_own is None else ["--drift", n_own]
    assert evaluate.main(["-mp", str(folder / "best.pth"), "--dataset_path", str(folder / "data.pt"), "-d", "cpu",
                          *arguments]) == 0
    assert made == [seeds] and "drift" in capsys.readouterr().out


@pytest.mark.parametrize(("argv", "text"), [
    (["--drift"], "nothing to measure"), (["--drift", "--votes", "x.csv"], "--drift: .* --dataset_path"),
    (["--dataset_path", "x.pt", "--drift", "0"], "--drift 0"), (["--dataset_path", "x.pt", "--drift", "-3"], "--drift"),
    (["--dataset_path", "x.pt", "--drift", "many"], "--drift"), (["--dataset_path", "x.pt", "--drift"], "x.pt")])
def test_bad_input(argv, text, capsys):
    assert re.search(text, fails(evaluate.main, argv, capsys))
