"""Learning a few songs: what is left out of the base, what each way trains, and that the command goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from random_songs import VOCABULARY, make_dataset, random_song, whole
from tiny_models import small_model

from backline.music.chords import FIRST_VALUE, UNKNOWN
from backline.music.sheet import key_column, measure_levels
from backline.preparation.dataset import load_dataset
from backline.training.checkpoints import save_checkpoint
from backline.training.losses import window_losses
from benchmarks import bench_adapt
from benchmarks.bench_adapt import WAYS, adapted, artists_of, nats, plain, replaced, usual_sheet

ARTISTS = {0: "One", 1: "One", 2: "Two", 3: "One", 5: "Two", 6: "One"}


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    path = make_dataset(tmp_path / "dataset.pt", [random_song(seed, 200, 20) for seed in range(8)], 64)
    lines = [json.dumps({"md5": f"song{i}"} | ({"artist": ARTISTS[i]} if i in ARTISTS else {})) for i in range(8)]
    (tmp_path / "songs.jsonl").write_text("\n".join(lines))
    return str(path), str(tmp_path / "songs.jsonl")


def songs(*seeds: int) -> list[torch.Tensor]:
    return [torch.from_numpy(whole(random_song(seed, 200, 20))) for seed in seeds]


def test_the_base_holds_no_song_of_the_artists(files, tmp_path, capsys):
    assert bench_adapt.main(["split", *files, str(tmp_path / "base.pt"), "--artists", "1"]) == 0
    assert "One: 4 songs" in capsys.readouterr().out
    assert list(load_dataset(tmp_path / "base.pt").songs) == ["song2", "song4", "song5", "song7"]
    assert bench_adapt.main(["split", *files, files[0], "--artists", "1"]) == 2
    first, second = artists_of(load_dataset(Path(files[0])), Path(files[1]), 2)
    assert (first.name, sorted(first.songs), second.name, sorted(second.songs)) == ("One", [0, 1, 3, 6], "Two", [2, 5])


@pytest.mark.parametrize("name", WAYS)
def test_each_way_begins_as_the_base_and_learns_its_own_songs(name, monkeypatch):
    monkeypatch.setattr(bench_adapt, "STEPS", (0, 6))
    base = small_model(torch.float32)
    own = songs(1, 2)
    before = {key: value.clone() for key, value in base.state_dict().items()}
    way = WAYS[name]._replace(rate=20 * WAYS[name].rate)
    (_, first), (_, last) = adapted(base, way, own, songs(3, 4), VOCABULARY, None)
    assert nats(first, own) == pytest.approx(nats(base, own), abs=1e-6)
    assert nats(last, own) < nats(base, own)
    changed = {key for key, value in last.state_dict().items() if not torch.equal(value, before[key])}
    assert all(torch.equal(value, before[key]) for key, value in base.state_dict().items())
    assert changed and last.state_dict().keys() == before.keys()
    if name == "biases":
        assert all(before[key].ndim == 1 for key in changed)
    if name == "lora":
        assert all(before[key].ndim == 2 and "embeddings" not in key for key in changed)


def test_a_low_rank_change_is_the_same_once_it_is_in_the_weights():
    model = small_model(torch.float32)
    replaced(model, torch.nn.Linear, bench_adapt.LowRank)
    for module in model.modules():
        if isinstance(module, bench_adapt.LowRank):
            torch.nn.init.normal_(module.up, std=0.1)
    own = songs(1)
    assert nats(plain(model), own) == pytest.approx(nats(model, own), rel=1e-3)  # in bf16


def test_prompted_windows_judge_every_note_but_each_windows_first():
    model = small_model(torch.float32, block_size=2000)
    song, = songs(1)
    with torch.no_grad():
        alone = window_losses(model, model.config, song[None])[0].sum(-1)
        after = window_losses(model, model.config, torch.cat([*songs(2), song])[None])[0, 1 - len(song):].sum(-1)
    assert nats(model, [song]) == pytest.approx(float(alone.mean()), rel=1e-3)
    assert nats(model, [song], songs(2)) == pytest.approx(float(after.mean()), rel=1e-3)


def test_the_usual_sheet_says_what_most_songs_play_and_no_key():
    levels = measure_levels([random_song(seed, 200, 20) for seed in range(9)], VOCABULARY)
    one, two = songs(1, 2)
    first, _, other = (usual_sheet(those, VOCABULARY, levels) for those in ([one], [two], [one, one, two]))
    assert torch.equal(other, first)
    key = key_column(VOCABULARY)
    assert (first[:key] >= FIRST_VALUE).any()
    assert (first[key:] == UNKNOWN).all()
    model = small_model(torch.float32, controls=True, heads="gru", positions="metre", late_layers=1)
    assert nats(model, [one], sheet=first) != nats(model, [one])


def test_a_run_goes_on_where_it_was_killed_and_makes_a_table(files, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench_adapt, "STEPS", (0, 1))
    monkeypatch.setattr(bench_adapt, "N_SONGS", (1, 3))
    save_checkpoint(tmp_path / "model.pth", small_model(torch.float32, block_size=1024), VOCABULARY, {})
    out = tmp_path / "adapt.json"
    argv = ["run", *files, str(tmp_path / "model.pth"), "-o", str(out), "--artists", "1", "--n-songs", "1", "3"]
    assert bench_adapt.main([*argv, "--ways", "full"]) == 0
    rows = json.loads(out.read_text())
    assert [(row["songs"], row["way"]) for row in rows] == [(1, "prompted"), (1, "full"), (3, "prompted"), (3, "full")]
    out.write_text(json.dumps(rows[:2]))
    assert bench_adapt.main([*argv, "--ways", "full", "lora"]) == 0
    again = json.loads(out.read_text())
    assert again[:2] == rows[:2] and len(again) == 6 and rows[2] in again and rows[3] in again
    capsys.readouterr()
    assert bench_adapt.main(["table", str(out)]) == 0
    assert capsys.readouterr().out.count("| full |") == 2
    monkeypatch.setattr(bench_adapt, "N_SONGS", (1, 3, 4))
    assert bench_adapt.main(argv) == 2
    assert "none is left to judge" in capsys.readouterr().err
