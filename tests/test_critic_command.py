"""critic.py: a critic in a model's file, and generate.py choosing among draws by it."""

from __future__ import annotations

import json
import re

import pytest
from commands import fails, help_without, succeeds
from random_songs import make_dataset, random_song
from tiny_models import tiny_model

import critic
import generate
from backline.engine.model_file import read_model_file
from backline.evaluation.critic import critic_of
from backline.generation.config import GenConfig
from backline.generation.recipes import read_recipe
from backline.generation.session import SEED_STEP, LoadedModel
from backline.music.vocab import load_vocabulary
from backline.training.checkpoints import save_release

V = load_vocabulary()
N_SONGS = 60


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A released model, in a working folder with its dataset."""
    monkeypatch.chdir(tmp_path)
    make_dataset(tmp_path / "dataset.pt", [random_song(i, 60) for i in range(N_SONGS + 2)], 32)
    path = tmp_path / "mine.safetensors"
    held_out = [f"song{i}" for i in range(N_SONGS, N_SONGS + 2)]
    save_release(path, tiny_model(V, block_size=32, sharpness=1), V, {"held_out_songs": held_out})
    return path


@pytest.fixture
def with_critic(model):
    succeeds(critic.main, [model, "dataset.pt", "-n", 50, "-d", "cpu"])
    return model


def play(model, *arguments) -> str:
    return succeeds(generate.main, ["-mp", model, "--no-page", "-d", "cpu", "--dtype", "fp32", *arguments])


def test_help_needs_no_torch():
    assert "critic" in help_without("critic", "torch")


def test_the_critic_is_put_beside_what_the_file_says(model, capsys):
    before = read_model_file(model).facts
    succeeds(critic.main, [model, "dataset.pt", "-n", 50, "-d", "cpu"])
    assert re.search(r"a critic of 50 real and \d+ made songs, [\d.]+ kB; .* AUC of [01]\.\d+", capsys.readouterr().out)
    after = read_model_file(model).facts
    assert {name: value for name, value in after.items() if name != "critic"} == before
    assert critic_of(after, V, model) is not None
    message = fails(critic.main, [model, "dataset.pt", "-n", 50], capsys)
    assert "already has a critic; --force replaces it" in message
    first = after["critic"]
    succeeds(critic.main, [model, "dataset.pt", "-n", 50, "-d", "cpu", "--force"])
    assert read_model_file(model).facts["critic"] == first, "the same seeds, the same critic"


def test_wrong_input_is_one_line(model, tmp_path, capsys):
    make_dataset(tmp_path / "other.pt", [random_song(i, 60) for i in range(5)], 32)
    assert "none of the songs held out" in fails(critic.main, [model, "other.pt"], capsys)
    assert "--songs 3: must be at least 20" in fails(critic.main, [model, "dataset.pt", "-n", 3], capsys)
    assert "no such file" in fails(critic.main, [model, "gone.pt"], capsys).lower()
    assert "--draws 2" in fails(generate.main, ["-mp", model, "--draws", 2], capsys)


def test_each_song_is_the_most_real_of_its_own_draws(with_critic, tmp_path, capsys):
    loaded = LoadedModel(with_critic, "cpu", "fp32")
    (tmp_path / "free.json").write_text(json.dumps({"num_bars": 2, "all_parts": False, "draws": 3}))
    play(with_critic, "-n", 3, "--seed", 5, "--genconfig", "free.json", "-o", "out")
    assert "chosen of 3 draws" in capsys.readouterr().out
    for number in range(3):
        recipe = read_recipe(tmp_path / f"out/{number}.mid")
        draws = [5 + number + k * SEED_STEP for k in range(3)]
        assert recipe.seed in draws and set(draws) <= set(recipe.batch)
        by_seed = {}
        for seed in draws:
            play(with_critic, "--seed", seed, "--genconfig", "free.json", "--draws", 1, "-o", f"alone{seed}")
            rows, = loaded.tokenizer(tmp_path / f"alone{seed}/0.mid")["ids"],
            by_seed[seed] = loaded.critic.realness(loaded.tokenizer.ids_to_rows(rows), V)
        assert recipe.seed == max(draws, key=lambda seed: by_seed[seed])
    play(with_critic, "--seed", 6, "--genconfig", "free.json", "-o", "single")
    assert read_recipe(tmp_path / "single/0.mid").seed == read_recipe(tmp_path / "out/1.mid").seed
    capsys.readouterr()
    assert succeeds(generate.main, ["--reproduce", "out/1.mid", "-mp", with_critic, "-o", "again", "-d", "cpu"]) is None
    assert "the same bytes" in capsys.readouterr().out


def test_draws_and_best_of_are_one_or_the_other(with_critic, tmp_path, capsys):
    assert "leave out --draws" in fails(generate.main, ["-mp", with_critic, "--draws", 2, "--best-of", 3], capsys)
    assert "from 1 to 16" in fails(generate.main, ["-mp", with_critic, "--draws", 17], capsys)
    (tmp_path / "free.json").write_text(json.dumps({"num_bars": 2, "all_parts": False}))
    play(with_critic, "--best-of", 4, "--seed", 1, "--genconfig", "free.json", "-o", "best")
    assert re.search(r"score 0\.\d+: real 0\.\d+, likely", capsys.readouterr().out)
    assert read_recipe(tmp_path / "best/0.mid").genconfig.draws == 1
    message = fails(generate.main, ["-mp", with_critic, "--draws", 2, "-p", "best/0.mid"], capsys)
    assert "--draws 2: chooses among songs from scratch" in message
    assert GenConfig().draws > 1
