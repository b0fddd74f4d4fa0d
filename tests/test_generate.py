"""generate.py: what it writes, where, and what it says of bad input."""

from __future__ import annotations

import json
import os
from pathlib import Path

import mido
import numpy as np
import pytest
import torch
from commands import help_without
from test_sampling import tiny_model

import generate
from checkpoints import save_checkpoint, save_release
from errors import EXIT_INTERRUPTED
from generation_args import GenConfig
from midi_reader import read_song
from sampling import sample_songs
from settings import config_from_file
from tokenizer import MidiTokenizerPooled
from vocab import BAR, FIRST_ID, PITCH_INSTRUMENT, load_vocabulary

ROOT = Path(__file__).parents[1]
TOKENIZER = MidiTokenizerPooled()
PARTS = TOKENIZER.vocabulary.part_names


@pytest.fixture(scope="module")
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
    (tmp_path / "short.json").write_text(json.dumps({"max_steps": 24}))

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


def one_error(capsys) -> str:
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("error: ")
    return lines[0]


# ---------------------------------------------------------------- what is written


def test_from_scratch_writes_songs_stems_and_a_log(run, tmp_path, capsys):
    assert run("-o", "out", "-n", 2, "--seed", 5) == 0
    out = tmp_path / "out"
    names = {f"{i}{stem}.mid" for i in range(2) for stem in ("", *(f"-{part}" for part in PARTS))}
    assert {path.name for path in out.iterdir()} == {*names, "genconfigs.txt"}
    printed = capsys.readouterr().out
    assert "out/0.mid" in printed.replace(os.sep, "/")
    assert "seed 5" in printed
    log = (out / "genconfigs.txt").read_text()
    assert '"seed": 5' in log
    assert '"max_steps": 24' in log


def test_songs_are_valid_and_stems_add_up(run, tmp_path):
    run("-o", "out", "--seed", 1)
    song = read_song(tmp_path / "out/0.mid")
    assert mido.MidiFile(tmp_path / "out/0.mid").type == 1
    assert [track.name for track in song.tracks] == [part for part in PARTS if part in
                                                     {track.name for track in song.tracks}]
    assert 1 <= sum(len(track.notes) for track in song.tracks) <= 24
    for part in PARTS:
        stem = read_song(tmp_path / f"out/0-{part}.mid")
        expected = [track.notes.tolist() for track in song.tracks if track.name == part]
        assert [track.notes.tolist() for track in stem.tracks] == expected


def test_same_seed_same_bytes_and_songs_do_not_depend_on_n(run, tmp_path):
    run("-o", "a", "-n", 3, "--seed", 7)
    run("-o", "b", "-n", 3, "--seed", 7)
    run("-o", "c", "--seed", 9)
    for i in range(3):
        assert (tmp_path / f"a/{i}.mid").read_bytes() == (tmp_path / f"b/{i}.mid").read_bytes()
    assert ids_of(tmp_path / "a/2.mid") == ids_of(tmp_path / "c/0.mid")  # its recipe names another batch
    assert (tmp_path / "a/0.mid").read_bytes() != (tmp_path / "a/1.mid").read_bytes()


def test_without_seed_one_is_drawn_and_makes_the_song_again(run, tmp_path, capsys):
    run("-o", "a")
    seed = capsys.readouterr().out.split("seed ")[1].split(";")[0]
    run("-o", "b", "--seed", seed)
    assert (tmp_path / "a/0.mid").read_bytes() == (tmp_path / "b/0.mid").read_bytes()


def test_numbers_go_on_from_the_highest_and_force_starts_over(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/4-bass.mid").write_bytes(b"mine")
    run("-o", "out", "-n", 2, "--seed", 0)
    assert (tmp_path / "out/5.mid").exists()
    assert (tmp_path / "out/6.mid").exists()
    assert (tmp_path / "out/4-bass.mid").read_bytes() == b"mine"
    before = ids_of(tmp_path / "out/5.mid")
    run("-o", "out", "--force", "--seed", 0)
    assert ids_of(tmp_path / "out/0.mid") == before


def test_force_leaves_nothing_of_the_song_that_had_the_number(run, tmp_path):
    run("-p", prompt_file(tmp_path), "-o", "out", "-n", 2, "-sp", "--png", "--seed", 0)
    run("-o", "out", "--force", "--seed", 0)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert not {"0-prompt.mid", "0.png"} & names
    assert {"1-prompt.mid", "1.png", "0.mid"} <= names


def test_png_is_drawn(run, tmp_path):
    run("-o", "out", "--png")
    assert (tmp_path / "out/0.png").read_bytes().startswith(b"\x89PNG")


def test_an_interrupted_run_records_the_songs_it_wrote(run, tmp_path, monkeypatch):
    def second_is_interrupted(*arguments, **named):
        if (tmp_path / "out/0.mid").exists():
            raise KeyboardInterrupt
        return sample_songs(*arguments, **named)

    monkeypatch.setattr("generate.BATCH", 1)
    monkeypatch.setattr("sampling.sample_songs", second_is_interrupted)
    assert run("-o", "out", "-n", 3, "--seed", 6) == EXIT_INTERRUPTED
    log = (tmp_path / "out/genconfigs.txt").read_text()
    assert '"seed": 6' in log
    assert '"0.mid"' in log
    assert '"1.mid"' not in log


# ---------------------------------------------------------------- prompts


def test_a_prompt_comes_back_whole_followed_by_new_notes_at_its_tempo(run, tmp_path, capsys):
    prompt = prompt_file(tmp_path)
    given = ids_of(prompt)[1:-1]
    assert run("-p", prompt, "-o", "out", "-sp", "-pe", "--seed", 2) == 0
    whole = ids_of(tmp_path / "out/0.mid")[1:-1]
    assert whole[:len(given)] == given
    assert len(given) < len(whole) <= len(given) + 24
    assert ids_of(tmp_path / "out/0-prompt.mid")[1:-1] == given
    assert read_song(tmp_path / "out/0.mid").main_tempo() == 97
    events = [line for line in capsys.readouterr().out.splitlines() if line.startswith("bar")]
    assert events == [" ".join(row) for row in TOKENIZER.tokens_to_events(whole[len(given):])]


def test_json_and_mid_prompts_give_the_same_song(run, tmp_path):
    prompt = prompt_file(tmp_path)
    TOKENIZER(prompt, tmp_path / "prompt.json")
    run("-p", prompt, "-o", "a", "--seed", 3)
    run("-p", "prompt.json", "-o", "b", "--seed", 3)
    assert ids_of(tmp_path / "a/0.mid") == ids_of(tmp_path / "b/0.mid")


def test_prompt_idx_counts_rows_in_file_order_bos_included(run, tmp_path):
    rows = [[1] * 4, [4, 4, 5, 60], [4, 4, 5, 6], [4, 12, 5, 8], [5, 4, 5, 6], [2] * 4]  # unsorted within an onset
    (tmp_path / "published.json").write_text(json.dumps({"ids": rows, "events": []}))
    run("-p", "published.json", "-pi", 2, "-o", "out", "-sp")
    assert ids_of(tmp_path / "out/0-prompt.mid")[1:-1] == [tuple(rows[1])]
    run("-p", "published.json", "-o", "all", "-sp")
    assert ids_of(tmp_path / "all/0-prompt.mid")[1:-1] == [tuple(rows[i]) for i in (2, 1, 3, 4)]
    run("-p", "published.json", "-pi", 0, "-o", "zero", "-sp")
    assert (tmp_path / "zero/0-prompt.mid").read_bytes() == (tmp_path / "all/0-prompt.mid").read_bytes()


def test_a_prompt_longer_than_the_context_says_so_and_is_kept_whole(run, tmp_path, capsys):
    rows = [[4 + i // 16, 4 + 2 * (i % 16), 4, 6] for i in range(64)]
    (tmp_path / "long.json").write_text(json.dumps({"ids": rows}))
    assert run("-p", "long.json", "-o", "out") == 0
    assert "more than the model sees at once (32)" in capsys.readouterr().err
    assert ids_of(tmp_path / "out/0.mid")[1:65] == [tuple(row) for row in rows]


def test_a_prompt_that_fills_the_last_bar_comes_back_alone_with_a_notice(run, tmp_path, capsys):
    sizes = TOKENIZER.vocabulary.sizes
    (tmp_path / "full.json").write_text(json.dumps({"ids": [[size - 1 for size in sizes]]}))
    assert run("-p", "full.json", "-o", "out") == 0
    assert "prompt alone" in capsys.readouterr().err


def test_num_bars_after_a_prompt(run, tmp_path):
    (tmp_path / "bars.json").write_text(json.dumps({"num_bars": 2, "max_steps": 200}))
    run("-p", prompt_file(tmp_path), "-o", "out", "--genconfig", "bars.json")
    assert max(row[BAR] for row in ids_of(tmp_path / "out/0.mid")[1:-1]) <= FIRST_ID + 1 + 2


def test_a_checkpoint_serves_as_well(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_checkpoint(tmp_path / "best.pth", tiny_model(load_vocabulary(), sharpness=1), load_vocabulary(), {})
    assert generate.main(["-mp", "best.pth", "-o", "out", "-d", "cpu"]) == 0
    assert (tmp_path / "out/0.mid").exists()


# ---------------------------------------------------------------- defaults


def test_default_settings_are_the_example_config():
    assert config_from_file(GenConfig, ROOT / "configs/genconfig.json") == GenConfig()


def test_bundled_model_plays_every_part(tmp_path):
    (tmp_path / "short.json").write_text(json.dumps({"max_steps": 150}))
    assert generate.main(["-p", str(ROOT / "examples/prompt.mid"), "-o", str(tmp_path / "out"), "--seed", "0",
                          "--genconfig", str(tmp_path / "short.json"), "-d", "cpu"]) == 0
    new = np.array(ids_of(tmp_path / "out/0.mid")[1:-1])[len(ids_of(ROOT / "examples/prompt.mid")) - 2:]
    assert len(new) > 100
    assert len(set(TOKENIZER.vocabulary.part_of_id[new[:, PITCH_INSTRUMENT]])) == len(PARTS)


# ---------------------------------------------------------------- bad input


def broken_files(folder: Path) -> dict[str, Path]:
    """Files of each kind that generate.py must refuse, by what is wrong with them."""
    contents = {
        "empty.mid": b"", "text.mid": b"hello", "truncated.mid": b"MThd\0\0", "not.json": b"{", "list.json": b"[]",
        "no_ids.json": b"{}", "short_rows.json": b'{"ids": [[4, 4, 4]]}', "ragged.json": b'{"ids": [[4, 4], [4]]}',
        "outside.json": b'{"ids": [[4, 4, 4, 900]]}', "half_special.json": b'{"ids": [[1, 4, 4, 5]]}',
        "words.json": b'{"ids": [["a", "b", "c", "d"]]}', "no_notes.json": b'{"ids": [[1, 1, 1, 1]]}',
        "slow.json": b'{"ids": [[4, 4, 4, 5]], "tempo": 1e-9}', "yes.json": b'{"ids": [[4, 4, 4, 5]], "tempo": true}',
        "other_vocabulary.json": b'{"ids": [[4, 4, 4, 5]], "vocabulary": "0000"}',
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in [*contents, "missing.mid", "missing.json"]}


@pytest.mark.parametrize("name", [
    "empty.mid", "text.mid", "truncated.mid", "not.json", "list.json", "no_ids.json", "short_rows.json", "ragged.json",
    "outside.json", "half_special.json", "words.json", "no_notes.json", "other_vocabulary.json", "missing.mid",
    "missing.json", "slow.json", "yes.json"])
def test_bad_prompts(run, tmp_path, capsys, name):
    broken_files(tmp_path)
    assert run("-p", name, "-o", "out") == 2
    assert name in one_error(capsys)
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.parametrize(("arguments", "text"), [
    (["-n", "0"], "at least one"), (["--seed", "-1"], "from 0"), (["--seed", "9" * 30], "from 0"),
    (["-mp", "."], "a folder"), (["-pi", "3"], "-pi 3"), (["-sp"], "no prompt"), (["-d", "tpu"], "'tpu'"),
    (["-d", "cuda:77"], "cuda:77"), (["-mp", "missing.safetensors"], "missing.safetensors"),
    (["-mp", "text.pth"], "text.pth"), (["-mp", "text.safetensors"], "text.safetensors"),
    (["--genconfig", "typo.json"], "did you mean 'temperature'"), (["--genconfig", "type.json"], "num_bars"),
    (["--genconfig", "cold.json"], "above 0"), (["--genconfig", "fn.json"], "sampling_fn"),
    (["-o", "text.pth"], "text.pth"), (["-o", "text.pth/inside"], "text.pth")])
def test_bad_arguments(run, tmp_path, capsys, arguments, text):
    for name, content in {"text.pth": "text", "text.safetensors": "text", "typo.json": '{"temprature": [1, 1, 1, 1]}',
                          "type.json": '{"num_bars": "many"}', "cold.json": '{"temperature": [0, 1, 1, 1]}',
                          "fn.json": '{"sampling_fn": "best"}'}.items():
        (tmp_path / name).write_text(content)
    assert run(*arguments) == 2
    assert text in one_error(capsys)
    assert not list(tmp_path.glob("**/*.mid"))
    assert (tmp_path / "text.pth").read_text() == "text"


def test_help_needs_no_torch():
    assert "Example  python generate.py" in help_without("generate", "torch")
