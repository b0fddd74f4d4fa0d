"""evaluate.py and release.py: losses on held-out songs, and weights to share."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from random_songs import to_songs
from test_sampling import tiny_model

import evaluate
import release
from checkpoints import load_model, save_checkpoint
from dataset import load_dataset, write_dataset
from evaluation import by_context, measure_losses, song_rows
from model import note_losses
from vocab import FIELDS, load_vocabulary

VOCABULARY = load_vocabulary()
N_SONGS, HELD_OUT = 5, ["song 3", "song 4"]


def random_song(length: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.stack([random.integers(4, size, length) for size in VOCABULARY.sizes], axis=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A dataset of five songs and a checkpoint that names two of them as held out."""
    folder = tmp_path_factory.mktemp("evaluate")
    songs = [random_song(20 + 7 * i, i) for i in range(N_SONGS)]
    songs[-1] = random_song(16 * 4, 9)  # the last block is full, so that no song is cut off
    total = sum(len(rows) + 2 for rows in songs)
    names = [f"song {i}" for i in range(N_SONGS)]
    write_dataset(folder / "data.pt", to_songs(songs, VOCABULARY, names), total, VOCABULARY, {})
    model = tiny_model(VOCABULARY, block_size=16, sharpness=1)
    save_checkpoint(folder / "best.pth", model, VOCABULARY, {"facts": {"held_out_songs": HELD_OUT}})
    return folder


@pytest.mark.parametrize("batch_size", [1, 3])
def test_losses_agree_with_one_window_at_a_time(folder, batch_size):
    model, _, _ = load_model(folder / "best.pth")
    dataset = load_dataset(folder / "data.pt")
    sums = measure_losses(model, dataset, [0, 3], batch_size).by_song
    for row, song in zip(sums, (0, 3), strict=True):
        start = dataset.song_starts[song]
        notes = dataset.notes[start:start + 20 + 7 * song + 2].long()
        expected = torch.zeros(len(FIELDS))
        for first in range(0, len(notes) - 1, 16):
            window = notes[None, first:first + 17]
            with torch.no_grad():
                losses = note_losses(model(window[:, :-1], window[:, 1:]), window[:, 1:]).mean((0, 1))
            expected += losses * (window.shape[1] - 1)
        assert torch.allclose(row[:-1].float(), expected, rtol=1e-4)
        assert row[-1] == len(notes) - 1


def test_losses_by_context_agree_with_one_song_at_a_time(folder):
    """Songs of 29 and 36 rows, 16 to a window: the note after the k-th row of each window."""
    model, _, _ = load_model(folder / "best.pth")
    dataset = load_dataset(folder / "data.pt")
    found = measure_losses(model, dataset, [1, 2]).by_context
    expected = torch.zeros(16, len(FIELDS) + 1, dtype=torch.float64)
    for song in (1, 2):
        rows = song_rows(dataset, song)
        for place in range(1, len(rows)):
            begin = (place - 1) // 16 * 16
            with torch.no_grad():
                losses = note_losses(model(rows[None, begin:place], rows[None, begin + 1:place + 1]),
                                     rows[None, begin + 1:place + 1])
            expected[place - 1 - begin] += torch.cat([losses[0, -1], torch.ones(1)])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_octaves_of_context():
    sums = torch.zeros(12, len(FIELDS) + 1)
    sums[:, 0], sums[:, -1] = 2 * torch.arange(1, 13), 2  # a note after k rows costs k nats, two are after each
    assert by_context(sums, 3) == {"1–3": 2, "4–6": 5, "7–12": 9.5}
    sums[8:] = 0  # no window is as long
    assert by_context(sums, 4) == {"1–4": 2.5, "5–8": 6.5}


def test_only_held_out_songs_count(folder, capsys):
    assert evaluate.main(["-mp", str(folder / "best.pth"), "--dataset_path", str(folder / "data.pt"), "-d", "cpu",
                          "-o", str(folder / "result")]) == 0
    result = json.loads((folder / "result.json").read_text())
    assert result["songs"] == 2
    assert result["notes"] == (20 + 21 + 1) + (64 + 1)
    assert result["nats_per_note"] == pytest.approx(sum(result[field] for field in FIELDS))
    assert (folder / "result.md").read_text() == capsys.readouterr().out
    assert evaluate.main(["-mp", str(folder / "best.pth"), "--dataset_path", str(folder / "data.pt"), "-d", "cpu",
                          "--all", "-o", str(folder / "every")]) == 0
    assert json.loads((folder / "every.json").read_text())["songs"] == N_SONGS


def test_release_keeps_the_held_out_list_and_nearly_the_loss(folder, tmp_path):
    out = tmp_path / "model.safetensors"
    assert release.main([str(folder / "best.pth"), str(out), "--note", "made by a test"]) == 0
    _, vocabulary, facts = load_model(out)
    assert vocabulary == VOCABULARY
    assert facts["held_out_songs"] == HELD_OUT
    assert facts["note"] == "made by a test"
    results = []
    for model in (folder / "best.pth", out):
        evaluate.main(["-mp", str(model), "--dataset_path", str(folder / "data.pt"), "-d", "cpu",
                       "-o", str(tmp_path / "r"), "--force"])
        results.append(json.loads((tmp_path / "r.json").read_text()))
    assert results[0]["notes"] == results[1]["notes"]
    assert results[1]["nats_per_note"] == pytest.approx(results[0]["nats_per_note"], rel=0.01)


@pytest.mark.parametrize(("command", "text"), [
    (["evaluate", "-mp", "missing.pth", "--dataset_path", "{data}"], "missing.pth"),
    (["evaluate", "-mp", "{model}", "--dataset_path", "missing.pt"], "missing.pt"),
    (["evaluate", "-mp", "{model}", "--dataset_path", "{model}"], "not a dataset"),
    (["evaluate", "-mp", "{data}", "--dataset_path", "{data}"], "not a checkpoint"),
    (["evaluate", "-mp", "{plain}", "--dataset_path", "{data}"], "no list of held-out songs"),
    (["evaluate", "-mp", "{other}", "--dataset_path", "{data}"], "none of its 1 held-out songs"),
    (["evaluate", "-mp", "{model}", "--dataset_path", "{data}", "-b", "0"], "at least one"),
    (["release", "{model}", "out.pth"], ".safetensors"), (["release", "missing.pth", "out.safetensors"], "missing.pth"),
    (["release", "{data}", "out.safetensors"], "not a checkpoint"),
    (["release", "{model}", "taken.safetensors"], "--force"),
])
def test_bad_input(folder, tmp_path, monkeypatch, capsys, command, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken.safetensors").write_text("mine")
    model = tiny_model(VOCABULARY, block_size=16)
    save_checkpoint(tmp_path / "plain.pth", model, VOCABULARY, {})
    save_checkpoint(tmp_path / "other.pth", model, VOCABULARY, {"facts": {"held_out_songs": ["elsewhere"]}})
    names = {"data": folder / "data.pt", "model": folder / "best.pth", "plain": "plain.pth", "other": "other.pth"}
    module = {"evaluate": evaluate, "release": release}[command[0]]
    assert module.main([argument.format(**names) for argument in command[1:]]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert text in lines[0]
    assert (tmp_path / "taken.safetensors").read_text() == "mine"
