"""bench_sampling and bench_published: settings judged, and songs as the published system samples them."""

from __future__ import annotations

import numpy as np
import pytest
from commands import ROOT, fails, succeeds
from random_songs import VOCABULARY, make_dataset, random_song
from tiny_models import tiny_model

from backline.common.settings import config_from_file
from backline.evaluation.song_sets import read_folder
from backline.generation.config import GenConfig
from backline.music.vocab import BAR, FIRST_ID, NOTE_DUR
from backline.training.checkpoints import save_checkpoint
from benchmarks import bench_published, bench_sampling
from tokenizer import MidiTokenizerPooled

HELD_OUT = {"facts": {"held_out_songs": ["song2", "song3"]}}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_dataset(tmp_path / "data.pt", [random_song(i) for i in range(4)])
    return tmp_path


def test_each_setting_is_a_row(folder, capsys):
    save_checkpoint(folder / "best.pth", tiny_model(VOCABULARY, block_size=32), VOCABULARY, HELD_OUT)
    (folder / "grid.json").write_text('[{"name": "cold", "temperature": [0.1, 0.1, 0.1, 0.1], "max_steps": 20}, '
                                      '{"name": "warm", "sampling_fn": "none", "max_steps": 20}]')
    succeeds(bench_sampling.main, ["data.pt", "best.pth", "grid.json", "--songs", "3"])
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if not line.startswith(("| |", "|---"))]
    assert [row[0] for row in rows] == ["| cold", "| warm"]
    assert float(rows[0][2]) < float(rows[1][2])  # cold songs surprise their model less
    assert all(" of " in row[3] for row in rows)


def test_the_default_is_in_the_committed_grid():
    free = config_from_file(GenConfig, bench_sampling.FREE)
    assert free in bench_sampling.read_grid(ROOT / "benchmarks" / "sampling_grid.json").values()


@pytest.mark.parametrize("text", ["{", "{}", "[1]", '[{"temperature": [1, 1, 1, 1]}]', '[{"name": "a", "warmth": 1}]'])
def test_a_wrong_grid_is_one_line(folder, capsys, text):
    (folder / "grid.json").write_text(text)
    assert "grid.json" in fails(bench_sampling.main, ["data.pt", "best.pth", "grid.json"], capsys)


def test_rows_that_are_no_next_note():
    note = random_song(0, 5)
    special, backwards = note[2].copy(), note[0]
    special[NOTE_DUR] = 2
    rows = np.stack([note[0], note[1], special, note[2], backwards, note[0], note[1]])
    assert bench_published.invalid(rows).tolist() == [False, False, True, False, True, True, False]


def test_the_published_way_writes_songs(folder, capsys):
    model = tiny_model(VOCABULARY, block_size=32, heads="parallel")
    save_checkpoint(folder / "best.pth", model, VOCABULARY, {})
    succeeds(bench_published.main, ["best.pth", "out", "--songs", "2"])
    first = capsys.readouterr().out
    assert "2 songs, " in first and " of 1024 rows are no valid next note" in first
    songs = read_folder(folder / "out", MidiTokenizerPooled())
    assert len(songs.rows) == 2
    assert all((rows[:, BAR] >= FIRST_ID).all() for rows in songs.rows)
    before = (folder / "out" / "1.mid").read_bytes()
    succeeds(bench_published.main, ["best.pth", "out", "--songs", "2"])
    assert capsys.readouterr().out == first
    assert (folder / "out" / "1.mid").read_bytes() == before


def test_the_published_way_needs_its_architecture(folder, capsys):
    save_checkpoint(folder / "best.pth", tiny_model(VOCABULARY, block_size=32, heads="gru"), VOCABULARY, {})
    assert "not of the published architecture" in fails(bench_published.main, ["best.pth", "out"], capsys)
