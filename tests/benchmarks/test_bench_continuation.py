"""Continuations beside the songs' own: the divergence by examples, what prompts are, and that the command runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from random_songs import VOCABULARY, make_dataset, random_song
from tiny_models import given_model

from backline.music.vocab import BAR, FIRST_ID
from backline.preparation.dataset import load_dataset, song_notes
from backline.training.checkpoints import save_checkpoint
from benchmarks import bench_continuation
from benchmarks.bench_continuation import compared, divergence, split_songs


def test_divergence_of_two_sets_of_values():
    edges = np.linspace(0, 1, 5)
    half = np.array([0.1, 0.9])
    assert divergence(half, half, edges) == 0
    assert divergence(np.array([0.1]), np.array([0.9]), edges) == 1
    assert divergence(half, np.array([0.1, 0.1]), edges) == pytest.approx(0.3113, abs=1e-4)  # H(3/4) − H(1/2) / 2


def test_real_songs_again_diverge_less_than_other_songs():
    random = np.random.default_rng(1)
    found, again = compared(random.normal(0.6, 0.1, 200), random.normal(0.5, 0.1, 200))
    alike, again_alike = compared(random.normal(0.5, 0.1, 200), random.normal(0.5, 0.1, 200))
    assert found > 2 * again and alike < 2 * again_alike


def test_prompts_are_four_bars_and_what_the_song_does_next(tmp_path: Path):
    path = make_dataset(tmp_path / "dataset.pt", [random_song(3, 480, 40)], 60)
    dataset = load_dataset(path, VOCABULARY)
    (before, after), = split_songs(dataset, [0], 8, VOCABULARY)
    rows = song_notes(dataset, 0)
    assert set(before[:, BAR] - FIRST_ID) <= set(range(4)) and before[0, BAR] == FIRST_ID
    assert set(after[:, BAR] - FIRST_ID) <= set(range(8))
    together = np.concatenate([before[:, 1:], after[:, 1:]])
    place = next(i for i in range(len(rows)) if (rows[i:i + len(together), 1:] == together).all())
    assert place >= 0 and len(together) > 60


def test_a_song_that_was_cut_off_whole_gives_no_prompt(tmp_path: Path):
    path = make_dataset(tmp_path / "dataset.pt", [random_song(3, 478, 40), random_song(4, 20)], 60)
    dataset = load_dataset(path, VOCABULARY)
    assert len(song_notes(dataset, 1)) == 0
    assert len(split_songs(dataset, [0, 1], 8, VOCABULARY)) == 1


def test_the_command_runs(tmp_path: Path, capsys):
    dataset = make_dataset(tmp_path / "dataset.pt", [random_song(seed, 480, 40) for seed in range(4)], 60)
    save_checkpoint(tmp_path / "model.pth", given_model(block_size=60).float(), VOCABULARY,
                    {"facts": {"held_out_songs": ["song2", "song3"]}})
    assert bench_continuation.main([str(dataset), str(tmp_path / "model.pth"), "--bars", "4"]) == 0
    printed = capsys.readouterr().out
    assert "2 continuations of 4 bars" in printed and printed.count("consistency |") == 2
    assert bench_continuation.main([str(dataset), str(tmp_path / "model.pth"), "--bars", "90"]) == 2
    assert "ask for fewer with --bars" in capsys.readouterr().err
