"""How far songs are from an artist's: none from the artist's own, and a table that says so."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from random_songs import VOCABULARY, make_dataset, random_song

from benchmarks import bench_style
from benchmarks.bench_style import ADAPTED, BASE, SHEETS, STRONGLY, distance, songs_path

N_SONGS = 10  # of each of two artists, and of others


@pytest.fixture
def files(tmp_path):
    """A dataset in which "One" plays eight bars and "Two" forty, and the list of its songs."""
    songs = [random_song(seed, 150, 8) for seed in range(N_SONGS)]
    songs += [random_song(100 + seed, 150, 40) for seed in range(N_SONGS)]
    songs += [random_song(200 + seed, 150, 20) for seed in range(N_SONGS)]
    path = make_dataset(tmp_path / "dataset.pt", songs, 64)
    artists = ["One"] * N_SONGS + ["Two"] * N_SONGS + [None] * N_SONGS
    lines = [json.dumps({"md5": f"song{i}", "artist": artist}) for i, artist in enumerate(artists)]
    (tmp_path / "songs.jsonl").write_text("\n".join(lines))
    return [str(path), str(tmp_path / "songs.jsonl")]


def test_songs_are_no_distance_from_themselves_and_some_from_others():
    songs = [random_song(seed, 100, 8) for seed in range(5)]
    others = [random_song(50 + seed, 100, 40) for seed in range(5)]
    n_measures = bench_style.measure_table(songs, VOCABULARY)[1].shape[1]
    spread = np.ones(n_measures)
    assert distance(songs, songs, spread, VOCABULARY) == pytest.approx(0)
    assert distance(songs, others, spread, VOCABULARY) > 0.5
    assert distance(songs, others, 2 * spread, VOCABULARY) == pytest.approx(
        distance(songs, others, spread, VOCABULARY) / 2)


def test_the_table_finds_songs_like_an_artists_nearer(files, tmp_path, capsys):
    folder = tmp_path / "style"
    folder.mkdir()

    def write(kind, artist, first, n_bars):
        songs = [random_song(first + seed, 150, n_bars).tolist() for seed in range(8)]
        songs_path(folder, kind, artist).write_text(json.dumps(songs))

    write(BASE, "", 300, 20)
    for artist, n_bars in (("One", 8), ("Two", 40)):
        write(SHEETS, artist, 400, 20)
        write(ADAPTED, artist, 500, n_bars)
        write(STRONGLY, artist, 600, n_bars)
    assert bench_style.main(["table", *files, str(folder), "--artists", "2"]) == 0
    printed = capsys.readouterr().out
    for artist in ("One", "Two"):
        values = re.search(rf"\| {artist} \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|", printed).groups()
        base, sheets, adapted, others = map(float, values)
        assert adapted < min(base, sheets) < others
    assert "| mean |" in printed
