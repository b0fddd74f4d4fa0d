"""dynamics.py: a table learned from raw MIDI into a model's file, and generate.py playing by it."""

from __future__ import annotations

import json
from pathlib import Path

import mido
import numpy as np
import pytest
import safetensors
from commands import fails, help_without, succeeds
from playing import prompt_file
from random_songs import random_song
from tiny_models import tiny_model

import dynamics
import generate
from backline.engine.model_file import ADAPTED, write_fact
from backline.music.dynamics import FACT, dynamics_table
from backline.music.midi_writer import VELOCITY
from backline.music.vocab import NOTE_DUR, load_vocabulary
from backline.training.checkpoints import load_model, save_release
from tokenizer import MidiTokenizerPooled

V = load_vocabulary()
HELD_OUT = "b/3"


def write_song(path: Path, seed: int, flat: bool = False) -> None:
    rows = random_song(seed, 200, 4)
    rows[:, NOTE_DUR] = 4
    midi = MidiTokenizerPooled().create_midi_from_tokens(rows)
    random = np.random.default_rng(seed)
    for note in (note for instrument in midi.instruments for note in instrument.notes):
        note.velocity = 90 if flat else int(random.integers(40, 120))
    path.parent.mkdir(parents=True, exist_ok=True)
    midi.dump(path)


@pytest.fixture
def folder(tmp_path):
    """Six songs, of which one is held out and one is struck at one velocity; a file that is no song."""
    for seed in range(6):
        write_song(tmp_path / f"raw/b/{seed}.mid", seed, flat=seed == 5)
    (tmp_path / "raw/b/broken.mid").write_bytes(b"MThd")
    return tmp_path / "raw"


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "mine.safetensors"
    save_release(path, tiny_model(V, block_size=32, sharpness=1), V, {"held_out_songs": [HELD_OUT], "note": "ours"})
    return path


def tensors(path: Path) -> tuple[bytes, dict]:
    """The bytes behind the header, and the header without the metadata."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + size])
    del header["__metadata__"]
    return data[8 + size:], header


def velocities(path: Path) -> list[int]:
    return [message.velocity for message in mido.MidiFile(path) if message.type == "note_on" and message.velocity]


def test_help_needs_no_torch():
    assert "velocit" in help_without("dynamics", "torch")


def test_the_table_is_put_beside_weights_that_keep_their_bytes(folder, model, capsys):
    before = tensors(model)
    succeeds(dynamics.main, [model, folder, "-j", 0])
    printed = capsys.readouterr().out
    assert "dynamics of 4 songs (drums, bass, piano)" in printed
    assert "1 held out" in printed and "1 struck at one velocity" in printed and "1 not in the model's bars" in printed
    assert tensors(model) == before
    with safetensors.safe_open(model, framework="pt") as file:
        assert set(file.keys()) == set(before[1])
    _, _, metadata = load_model(model)
    assert metadata["note"] == "ours" and dynamics_table(metadata, V, model).n_songs == 4


def test_the_same_songs_make_the_same_file_and_another_table_needs_force(folder, model, capsys):
    succeeds(dynamics.main, [model, folder, "-j", 0])
    once = model.read_bytes()
    message = fails(dynamics.main, [model, folder], capsys)
    assert "already has a table" in message and "--force" in message
    succeeds(dynamics.main, [model, folder, "-j", 0, "--force"])
    assert model.read_bytes() == once


def test_a_folder_without_the_held_out_songs_is_said(folder, model, capsys):
    (folder / f"{HELD_OUT}.mid").unlink()
    succeeds(dynamics.main, [model, folder, "-j", 0])
    assert "none of the 1 songs held out" in capsys.readouterr().err


def test_a_model_adapted_to_the_users_songs_is_not_expected_to_have_held_out_any(folder, model, capsys):
    write_fact(model, ADAPTED, {"n_steps": 10})
    (folder / "b/3.mid").unlink()
    succeeds(dynamics.main, [model, folder, "-j", "1"])
    assert "held out" not in capsys.readouterr().err


@pytest.mark.parametrize(("names", "name", "is_there"), [
    ({"b/3"}, "lakh/b/3", True), ({"b/3"}, "b/3", True), ({"b/3"}, "b/33", False), ({"b/3"}, "3", False),
])
def test_songs_are_known_by_the_end_of_their_name(names, name, is_there):
    assert dynamics.is_among(name, names) == is_there


def test_folders_that_teach_nothing_are_one_line(model, tmp_path, capsys):
    write_song(tmp_path / "flat/0.mid", 0, flat=True)
    before = model.read_bytes()
    assert "no song to learn dynamics from (1 struck at one velocity)" in fails(
        dynamics.main, [model, tmp_path / "flat", "-j", 0], capsys)
    assert model.read_bytes() == before
    assert "no such file" in fails(dynamics.main, [model, tmp_path / "nowhere"], capsys)


def test_only_a_released_model_gets_a_table(folder, tmp_path, capsys):
    (tmp_path / "run.pth").write_bytes(b"")
    assert "release.py" in fails(dynamics.main, [tmp_path / "run.pth", folder], capsys)


# ---------------------------------------------------------------- generate.py


@pytest.fixture
def playing(model_path, folder, tmp_path):
    """The tiny model of `run`, with a table."""
    path = tmp_path / "playing.safetensors"
    path.write_bytes(model_path.read_bytes())
    succeeds(dynamics.main, [path, folder, "-j", 0])
    return path


def test_made_notes_are_played_and_made_again_the_same(playing, run, tmp_path):
    assert run("-mp", playing, "--seed", 3, "-o", "out", "--no-page") == 0
    played = velocities(tmp_path / "out/0.mid")
    assert len(set(played)) > 3
    stems = [velocity for stem in (tmp_path / "out").glob("0-*.mid") for velocity in velocities(stem)]
    assert sorted(stems) == sorted(played)
    assert generate.main(["--reproduce", "out/0.mid", "-mp", str(playing), "-o", "again", "-d", "cpu"]) == 0
    assert (tmp_path / "again/0.mid").read_bytes() == (tmp_path / "out/0.mid").read_bytes()
    assert run("-mp", playing, "--seed", 3, "-o", "flat", "--no-page", "--dynamics", "flat") == 0
    assert velocities(tmp_path / "flat/0.mid") == [VELOCITY] * len(played)


def test_given_notes_keep_their_velocities(playing, run, tmp_path):
    prompt = prompt_file(tmp_path)
    file = mido.MidiFile(prompt)
    strikes = [message for track in file.tracks for message in track if message.type == "note_on" and message.velocity]
    for number, message in enumerate(strikes):
        message.velocity = 30 + number
    file.save(prompt)
    assert run("-mp", playing, "-p", prompt, "--seed", 3, "-o", "out", "--no-page") == 0
    assert set(range(30, 30 + len(strikes))) <= set(velocities(tmp_path / "out/0.mid"))


def test_a_model_without_a_table_plays_flat_unless_told_otherwise(run, tmp_path, capsys):
    assert run("--seed", 3, "-o", "out", "--no-page") == 0
    assert set(velocities(tmp_path / "out/0.mid")) == {VELOCITY}
    capsys.readouterr()
    assert run("--dynamics", "played", "-o", "more") == 2
    error, = capsys.readouterr().err.splitlines()
    assert "has not learned how songs are played" in error and "dynamics.py" in error


def test_a_damaged_table_is_one_line(playing, run, tmp_path, capsys):
    write_fact(playing, FACT, {"parts": 3})
    capsys.readouterr()
    assert run("-mp", playing, "-o", "out") == 2
    error, = capsys.readouterr().err.splitlines()
    assert error.startswith(f"error: {playing}: its table of dynamics is damaged") and not (tmp_path / "out").exists()
