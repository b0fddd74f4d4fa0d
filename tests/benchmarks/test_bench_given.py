"""The measures of benchmarks/bench_given.py and bench_repetition.py, by examples; and that the commands run."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from commands import fails
from random_songs import VOCABULARY, make_dataset, random_song
from tiny_models import given_model
from written_songs import NOTHING, notes

from backline.training.checkpoints import save_checkpoint
from benchmarks import bench_given, bench_repetition
from benchmarks.bench_given import agreement

C_THEN_F = [*((0, 0, "piano", pitch) for pitch in (60, 64, 67)), *((0, 16, "piano", pitch) for pitch in (65, 69, 72))]


def test_made_notes_agree_with_the_chord_of_their_beat():
    given = notes(*C_THEN_F)  # each chord lasts half a beat
    bass = notes((0, 0, "bass", 36), (0, 2, "bass", 38), (0, 9, "bass", 38), (0, 16, "bass", 29), (0, 17, "bass", 36))
    assert agreement(bass, given, VOCABULARY)[0] == pytest.approx(3 / 4)  # one of them has no chord in its beat
    assert math.isnan(agreement(bass[2:3], given, VOCABULARY)[0])


def test_kicks_go_with_the_bass_and_the_bass_with_kicks():
    drums = notes((0, 0, "drums", 36), (0, 8, "drums", 38), (0, 12, "drums", 35), (0, 24, "drums", 42))
    bass = notes((0, 0, "bass", 36), (0, 8, "bass", 36), (0, 14, "bass", 36))
    piano = notes((0, 12, "piano", 60))
    assert agreement(bass, np.concatenate([drums, piano]), VOCABULARY)[1] == pytest.approx(1 / 3)
    assert agreement(drums, np.concatenate([bass, piano]), VOCABULARY)[1] == pytest.approx(1 / 2)
    assert math.isnan(agreement(drums[1:2], bass, VOCABULARY)[1])  # no kick
    assert all(map(math.isnan, agreement(NOTHING, bass, VOCABULARY)))


def test_distance_of_distributions():
    assert bench_repetition._distance(np.array([1, 2, 3]), np.array([1, 2, 3])) == 0
    assert bench_repetition._distance(np.array([1, 2]), np.array([3, 4])) == 1
    assert bench_repetition._distance(np.array([1, 2, 3, 4]), np.array([3, 4, 5, 6])) == 0.5


def test_commands_run(tmp_path: Path, capsys):
    songs = [random_song(seed, 480, 96) for seed in range(4)]
    dataset = make_dataset(tmp_path / "dataset.pt", songs, 60)
    model = given_model(block_size=60).float()
    save_checkpoint(tmp_path / "model.pth", model, VOCABULARY, {"facts": {"held_out_songs": ["song2", "song3"]}})
    paths = [str(dataset), str(tmp_path / "model.pth")]
    assert bench_given.main(["loss", *paths]) == 0
    printed = capsys.readouterr().out
    assert "4 windows of 2 songs" in printed and "not knowing" in printed
    counts = [line.count("notes)") for line in printed.splitlines() if "plain task" in line]
    assert counts == [3] * len(VOCABULARY.parts)
    assert bench_given.main(["agree", *paths]) == 0
    assert capsys.readouterr().out.count("another's") == len(VOCABULARY.parts)
    assert bench_repetition.main([*paths, "--songs", "2", "--notes", "30", "--variety", "0", "1"]) == 0
    assert "| variety 1 | 2 |" in capsys.readouterr().out


def test_songs_shorter_than_four_contexts_are_one_line(tmp_path: Path, capsys):
    dataset = make_dataset(tmp_path / "dataset.pt", [random_song(seed, 100, 20) for seed in range(4)], 60)
    facts = {"held_out_songs": ["song2"]}
    save_checkpoint(tmp_path / "model.pth", given_model(block_size=60), VOCABULARY, {"facts": facts})
    message = fails(bench_given.main, ["loss", dataset, tmp_path / "model.pth"], capsys)
    assert "none of the held-out songs has 240 notes" in message
