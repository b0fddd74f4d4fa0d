"""adapt.py: a model that learns a few songs, and what it says of that."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from commands import fails, help_without, succeeds
from playing import TOKENIZER
from random_songs import random_song
from tiny_models import tiny_model

import adapt
import generate
import release
from adapt import Learned, OwnSong, Trial, keep_back, what_it_learned
from backline.engine.model_file import read_model_file
from backline.music.sheet import Levels, measure_levels
from backline.music.sheet_table import SheetTable, sheet_table
from backline.music.vocab import FIRST_ID, NOTE_DUR, PITCH_INSTRUMENT, load_vocabulary
from backline.training.adapting import few_songs_batches, own_sheets, whole_song
from backline.training.checkpoints import load_model, save_checkpoint, save_release
from backline.training.config import TrainingSettings

V = load_vocabulary()
SETTINGS = {"batch_size": 2, "row_notes": 32, "max_train_steps": 8, "num_epochs": 1000, "lr": 0.02, "average": 0.2,
            "warmup_steps": 1, "random_crops": True, "song_ends": 0.3}


def song(seed: int, n_bars: int = 8) -> np.ndarray:
    """Short notes, of which a part's own repeat little."""
    rows = random_song(seed, 80, n_bars)
    rows[:, NOTE_DUR] = FIRST_ID + rows[:, NOTE_DUR] % 4
    return rows


def write_song(path: Path, rows: np.ndarray) -> Path:
    TOKENIZER.create_midi_from_tokens(rows.tolist()).dump(path)
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder: a model that can be told what to play, settings for a moment, and three songs."""
    monkeypatch.chdir(tmp_path)
    levels = measure_levels([song(seed) for seed in range(5)], V)
    table = own_sheets([whole_song(song(9))], levels, V)
    model = tiny_model(V, block_size=32, sharpness=1, controls=True, given=True, lookahead_bars=1, positions="metre",
                       bars="relative", late_layers=1)
    facts = {"held_out_songs": ["far"], "controls": table.to_facts(), "note": "CC0"}
    save_release(tmp_path / "base.safetensors", model, V, facts)
    (tmp_path / "quick.json").write_text(json.dumps(SETTINGS))
    (tmp_path / "songs").mkdir()
    for seed in range(3):
        write_song(tmp_path / f"songs/{seed}.mid", song(seed))
    return tmp_path


def learn(*arguments: object) -> None:
    succeeds(adapt.main, ["-mp", "base.safetensors", "--training_args", "quick.json", "-d", "cpu", *arguments])


def test_help_needs_no_torch():
    assert "kept back" in help_without("adapt", "torch")


def test_a_model_learns_three_songs_and_says_what_came_of_it(folder, capsys):
    learn("songs")
    printed = capsys.readouterr().out
    assert printed.startswith("3 songs to learn, ")
    losses = re.search(r"your 3 songs: ([\d.]+) before, ([\d.]+) after, [\d.]+ % fewer, in \d steps", printed)
    before, after = losses.groups()
    assert float(after) < 0.99 * float(before)
    assert re.search(r"[012]\.mid, kept back at first: .* in \d steps on 2 others", printed)

    old, new = (read_model_file(Path(name)) for name in ("base.safetensors", "adapted.safetensors"))
    assert new.facts["held_out_songs"] == ["far"]
    assert new.facts["note"] == "CC0"
    facts = new.facts["adapted"]
    assert (facts["n_songs"], round(facts["before"], 3), round(facts["after"], 3)) == (3, float(before), float(after))
    assert new.config == old.config
    sheets = sheet_table(new.facts, V, Path("adapted.safetensors"))
    expected = own_sheets([whole_song(song(seed)) for seed in range(3)], sheets.levels, V)
    np.testing.assert_array_equal(sheets.sheets, expected.sheets)
    assert sheets.levels == sheet_table(old.facts, V, Path("base.safetensors")).levels
    (folder / "short.json").write_text(json.dumps({"max_steps": 8, "all_parts": False, "go_on": False}))
    succeeds(generate.main, ["-mp", "adapted.safetensors", "--genconfig", "short.json", "-d", "cpu", "-o", "out"])
    assert (folder / "out/0.mid").exists()


def test_the_same_command_makes_the_same_bytes(folder):
    learn("songs", "-o", "one.safetensors")
    learn("songs", "-o", "two.safetensors")
    assert (folder / "one.safetensors").read_bytes() == (folder / "two.safetensors").read_bytes()


def test_one_song_takes_the_fewest_steps_as_nothing_is_kept_back(folder, capsys):
    learn("songs/1.mid")
    printed = capsys.readouterr().out
    assert re.search(r"your song: .* in 2 steps\n", printed)
    assert "no song was left to tell" in printed
    assert read_model_file(folder / "adapted.safetensors").facts["adapted"]["trial"] is None


def test_copies_and_files_that_cannot_be_read_are_left_out_aloud(folder, capsys):
    shutil.copy("songs/1.mid", "songs/9.mid")
    (folder / "songs/bad.mid").write_bytes(b"no song")
    learn("songs")
    captured = capsys.readouterr()
    assert captured.out.startswith("3 songs to learn, ")
    assert re.search(r"left out: songs.9\.mid: has the same notes as songs.1\.mid\n", captured.err)
    assert re.search(r"left out: songs.bad\.mid: ", captured.err)


def test_notes_that_no_part_takes_are_counted(folder, capsys):
    midi = TOKENIZER.create_midi_from_tokens(np.concatenate([song(4), song(5)]).tolist())
    midi.instruments[-1].program = 56
    midi.instruments[-1].name = "Trumpet"
    n_lost = len(midi.instruments[-1].notes)
    midi.dump(folder / "odd.mid")
    learn("odd.mid")
    assert re.search(rf"\n +{n_lost} left out: in tracks that play no part\n", capsys.readouterr().out)


def test_a_checkpoint_of_a_run_is_adapted_too(folder):
    model, vocabulary, facts = load_model(folder / "base.safetensors")
    state = {"facts": facts | {"dataset": "/home/me/dataset.pt"}, "settings": {"lr": 1, "filename": "/home/me/run"},
             "progress": {"step": 3, "notes_seen": 9, "seconds": 1.0}, "versions": {}}
    save_checkpoint(folder / "last.pth", model, vocabulary, state)
    learn("songs", "-mp", "last.pth")
    facts = read_model_file(folder / "adapted.safetensors").facts
    assert facts["step"] == 3
    assert "/home" not in json.dumps(facts)
    succeeds(release.main, ["last.pth", "released.safetensors"])
    assert facts.keys() - read_model_file(folder / "released.safetensors").facts.keys() == {"adapted"}


@pytest.mark.parametrize(("argv", "message"), [
    (["nowhere"], "no such file or folder"),
    (["songs", "-o", "adapted.pth"], "must end in .safetensors"),
    (["songs", "-o", "base.safetensors"], "base.safetensors"),
    (["songs", "-mp", "gone.safetensors"], "gone.safetensors"),
    (["short.mid"], "1 file with 3 notes to learn, and 64 are the fewest; give longer songs"),
    (["bad.mid"], "1 file with 0 notes to learn, and 64 are the fewest; the first left out: bad.mid"),
    (["songs", "--training_args", "no_end.json"], "max_train_steps and average must be set"),
    (["songs", "--part", "cello=#1"], "--part cello=#1: must be NAME=TRACKS"),
])
def test_wrong_input_is_one_line(folder, capsys, argv, message):
    write_song(folder / "short.mid", song(1)[:3])
    (folder / "bad.mid").write_bytes(b"no song")
    (folder / "no_end.json").write_text("{}")
    defaults = ["-mp", "base.safetensors", "--training_args", "quick.json", "-d", "cpu"]
    assert message in fails(adapt.main, [*defaults, *argv], capsys)
    assert not (folder / "adapted.safetensors").exists()


def test_rows_shorter_songs_do_not_fill_come_around():
    settings = TrainingSettings(batch_size=3, row_notes=512, max_train_steps=3, num_epochs=99, random_crops=True)
    model = tiny_model(V, block_size=512)
    short = [whole_song(song(seed)[:20]) for seed in range(2)]
    batches = few_songs_batches(short, V, model.config, settings, None)
    rows = batches[2]
    assert rows.shape == (3, 512, 4)
    known = {tuple(row) for each in short for row in each.tolist()}
    assert {tuple(row) for row in rows.flatten(0, 1).tolist()} <= known


def test_what_is_kept_back_has_no_near_duplicate_among_what_is_learned():
    first, second = song(1, 30), song(2, 30)
    moved = first.copy()
    moved[0, PITCH_INSTRUMENT] += 1
    songs = [OwnSong(name, [rows], Counter()) for name, rows in
             (("long", np.concatenate([second, song(3, 30)])), ("first", first), ("again", moved))]
    kept, others = keep_back(songs, V)
    assert (kept.path, [other.path for other in others]) == ("again", ["long"])
    assert keep_back(songs[1:], V) is None


@pytest.mark.parametrize(("losses", "n_steps", "words"), [
    ({0: 1.0, 10: 0.8, 20: 0.9, 40: 1.3}, 20, "helps with one that it has not heard (b.mid)"),
    ({0: 1.0, 10: 1.2, 20: 1.2, 40: 0.995}, 40, "gained nothing from the others"),
    ({0: 1.0, 10: 1.1, 20: 1.2, 40: 1.3}, 10, "does worse with b.mid"),
])
def test_it_takes_the_most_steps_that_do_no_harm_and_says_what_they_brought(losses, n_steps, words):
    trial = Trial("songs/b.mid", 2, losses)
    assert trial.n_steps == n_steps
    text = what_it_learned(Learned(3, n_steps, 1.0, 0.5, trial))
    assert words in text
    assert f"0.500 after, 50.0 % fewer, in {n_steps} steps" in text


def test_the_first_sheets_are_those_of_each_songs_beginning():
    levels = measure_levels([song(seed) for seed in range(5)], V)
    table = own_sheets([whole_song(song(1)), whole_song(song(2))], levels, V)
    assert isinstance(levels, Levels)
    assert isinstance(table, SheetTable)
    assert table.sheets.shape[0] == 2
    np.testing.assert_array_equal(table.sheets[:1], own_sheets([whole_song(song(1))], levels, V).sheets)
