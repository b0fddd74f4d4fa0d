"""generate.py with tiny models: fixtures that call it, files to play to, and the notes of what it wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from random_songs import random_song
from tiny_models import tiny_model

import generate
from backline.generation.config import GenConfig
from backline.generation.recipes import Recipe
from backline.generation.wish import Wish
from backline.music.vocab import BAR, FIRST_ID, NOTE_DUR, PITCH_INSTRUMENT, Vocabulary, load_vocabulary
from backline.training.checkpoints import save_release
from tokenizer import MidiTokenizerPooled

TOKENIZER = MidiTokenizerPooled()
PARTS = TOKENIZER.vocabulary.part_names
PLAIN_RECIPE = Recipe(4, (3, 4, 5), Wish(), GenConfig(), "model.safetensors", "a1", "fp32", "", "", 0, {"torch": "2"})


@pytest.fixture(scope="session")
def model_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    model = tiny_model(load_vocabulary(), block_size=32, sharpness=1)
    model.heads[BAR].bias.data[FIRST_ID:] = -0.1 * torch.arange(256)  # so that songs have a few notes per bar
    model.heads[BAR].bias.data[:FIRST_ID] = -5.0
    save_release(path, model, load_vocabulary(), {})
    return path


@pytest.fixture
def run(model_path, tmp_path, monkeypatch):
    """Call generate.main in an empty folder, with the tiny model and at most 24 new notes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short.json").write_text(json.dumps({"max_steps": 24, "all_parts": False, "go_on": False}))

    def call(*arguments: object) -> int:
        return generate.main(["-mp", str(model_path), "--genconfig", "short.json", "-d", "cpu", *map(str, arguments)])

    return call


def prompt_file(folder: Path, tempo: float = 97.0) -> Path:
    """A MIDI prompt of two bars, drums and bass, at an unusual tempo and resolution."""
    rows = [[4, 4, 5, 6], [4, 4, 11, 60], [4, 12, 5, 8], [4, 20, 5, 6], [5, 4, 5, 6], [5, 4, 11, 62], [5, 20, 5, 8]]
    path = folder / "prompt.mid"
    TOKENIZER.create_midi_from_tokens(rows, tpb=480, tempo=tempo).dump(path)
    return path


def ids_of(path: Path) -> list:
    return TOKENIZER(path)["ids"]


@pytest.fixture(scope="session")
def given_path(tmp_path_factory):
    """A model that plays to given notes, a few in each bar."""
    path = tmp_path_factory.mktemp("given") / "given.safetensors"
    save_given_model(path, load_vocabulary())
    return path


def save_given_model(path: Path, vocabulary: Vocabulary) -> None:
    model = tiny_model(vocabulary, block_size=64, sharpness=4, given=True, lookahead_bars=1, positions="metre",
                       bars="relative", late_layers=1)
    model.given.data.normal_()
    model.heads[BAR].bias.data[FIRST_ID:] = -torch.arange(256.0)
    model.heads[BAR].bias.data[:FIRST_ID] = -15.0
    save_release(path, model, vocabulary, {})


def song_file(path: Path, parts: tuple[str, ...] = PARTS) -> Path:
    """Four bars of short notes, at an unusual tempo."""
    rows = random_song(3, 60, 4)
    rows[:, NOTE_DUR] = FIRST_ID + rows[:, NOTE_DUR] % 4
    TOKENIZER.create_midi_from_tokens(of_parts(rows.tolist(), parts), tempo=97.0).dump(path)
    return path


def part_of(row: tuple) -> str:
    return PARTS[TOKENIZER.vocabulary.part_of_id[row[PITCH_INSTRUMENT]]]


def of_parts(rows: list, parts: tuple[str, ...]) -> list:
    return [row for row in rows if part_of(row) in parts]


def notes(path: Path | str) -> list:
    return ids_of(path)[1:-1]
