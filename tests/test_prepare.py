"""The prepare command: from token files to a dataset."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import fails, succeeds
from random_songs import VOCABULARY, random_song, whole, write_json, write_tokens

import prepare
from dataset import load_dataset
from errors import EXIT_INTERRUPTED, EXIT_USER_ERROR
from tokenizer import MidiTokenizerPooled, in_order, read_tokens
from vocab import FIRST_ID, NOTE_DUR, PITCH_INSTRUMENT, START_POS

SONGS = {"a": random_song(0, 30), "b": random_song(1, 41), "deep/folder/a": random_song(2, 25),
         "deep/c": random_song(3, 1), "z": random_song(4, 60)}


@pytest.fixture
def tokens(tmp_path) -> Path:
    for name, rows in SONGS.items():
        write_tokens(tmp_path / "tokens" / f"{name}.json", rows)
    return tmp_path / "tokens"


def prepared(tokens: Path, out: Path, *more) -> Path:
    succeeds(prepare.main, [out, "-fp", tokens, "-b", 32, "--force", *more])
    return out


def test_blocks_are_the_songs_joined_in_the_stored_order(tokens, tmp_path, capsys):
    dataset = load_dataset(prepared(tokens, tmp_path / "d.pt"))
    assert sorted(dataset.songs) == sorted(SONGS)
    everything = np.concatenate([whole(SONGS[name]) for name in dataset.songs])
    kept = len(everything) // 32 * 32
    assert np.array_equal(dataset.notes.numpy(), everything[:kept])
    assert dataset.notes.dtype == torch.int16
    starts = np.cumsum([0, *(len(SONGS[name]) + 2 for name in dataset.songs)])
    assert dataset.song_starts.tolist() == starts[:-1].tolist()
    out, err = capsys.readouterr()
    assert out == (f"{tmp_path / 'd.pt'}: 5 songs (0 files left out), {len(everything)} notes, {kept // 32} blocks of "
                   f"32; {len(everything) - kept} notes after the last full block dropped\n")
    assert err == ""


def test_the_seed_alone_decides_the_order(tokens, tmp_path):
    shutil.copytree(tokens, tmp_path / "elsewhere")
    first = prepared(tokens, tmp_path / "1.pt", "--seed", 3).read_bytes()
    assert prepared(tmp_path / "elsewhere", tmp_path / "2.pt", "--seed", 3).read_bytes() == first
    orders = {load_dataset(prepared(tokens, tmp_path / f"{seed}.pt", "--seed", seed)).songs for seed in range(6)}
    assert len(orders) > 3
    assert load_dataset(prepared(tokens, tmp_path / "0.pt")).songs \
        == load_dataset(prepared(tokens, tmp_path / "0.pt", "--seed", 0)).songs


def test_block_size_is_512_unless_given(tmp_path):
    write_tokens(tmp_path / "tokens" / "long.json", random_song(0, 1100, n_bars=200))
    succeeds(prepare.main, [tmp_path / "d.pt", "-fp", tmp_path / "tokens"])
    assert torch.load(tmp_path / "d.pt")["blocks"].shape == (2, 512, 4)


def test_token_files_of_the_predecessor_are_put_in_order(tmp_path):
    rows = random_song(0, 40, n_bars=1)
    rows[1::2, START_POS] = rows[::2, START_POS]
    rows = in_order(rows)
    shuffled = rows[np.lexsort((-rows[:, PITCH_INSTRUMENT], rows[:, START_POS]))]  # within an onset, file order
    repeat = rows[5].copy()
    repeat[NOTE_DUR] = FIRST_ID if rows[5, NOTE_DUR] != FIRST_ID else rows[5, NOTE_DUR]
    assert not np.array_equal(shuffled, rows)
    write_tokens(tmp_path / "tokens" / "old.json", np.concatenate([[repeat], shuffled]), events=["<<BOS>>", "wrong"])
    dataset = load_dataset(prepared(tmp_path / "tokens", tmp_path / "d.pt", "-b", len(rows) + 2))
    assert np.array_equal(dataset.notes.numpy(), whole(rows))


def test_token_files_of_the_published_tokenizer_are_read(shared, tmp_path, capsys):
    for path in sorted((shared / "compat").glob("[0-9a-f]*.json"))[:5]:
        (tmp_path / path.name).symlink_to(path)
    dataset = load_dataset(prepared(tmp_path, tmp_path / "d.pt", "-b", 16))
    assert "5 songs (0 files left out)" in capsys.readouterr().out
    for name, start, end in zip(dataset.songs, dataset.song_starts, [*dataset.song_starts[1:], None], strict=True):
        rows, _ = read_tokens(tmp_path / f"{name}.json", MidiTokenizerPooled())
        notes = dataset.notes[start:end].numpy()
        assert np.array_equal(notes[1:len(rows) + 1], rows[:len(notes) - 1])
        assert (np.diff(rows[:, 0]) >= 0).all()


BAD = {
    "not_json": ("{", "not valid JSON"),
    "no_ids": ('{"events": []}', "has no 'ids': not a token file; make one with tokenizer.py"),
    "outside": ('{"ids": [[1, 1, 1, 1], [4, 4, 4, 900]]}', "row 1 [4, 4, 4, 900] is outside the vocabulary"),
    "half_special": ('{"ids": [[4, 4, 2, 9]]}', "row 0 [4, 4, 2, 9] is outside the vocabulary"),
    "empty": ('{"ids": [[1, 1, 1, 1], [2, 2, 2, 2]]}', "has no notes"),
    "other_vocabulary": ('{"ids": [[4, 4, 4, 4]], "vocabulary": "0123"}', "made with another vocabulary"),
    "other_version": ('{"ids": [[4, 4, 4, 4]], "format": "pooled-tokens", "version": 9}', "make it again"),
    "ragged": ('{"ids": [[4, 4, 4, 4], [4]]}', "must be rows of 4 whole numbers"),
}


def test_files_that_cannot_be_read_are_named_and_left_out(tokens, tmp_path, capsys):
    for name, (text, _) in BAD.items():
        (tokens / f"{name}.json").write_text(text)
    dataset = load_dataset(prepared(tokens, tmp_path / "d.pt"))
    assert sorted(dataset.songs) == sorted(SONGS)
    out, err = capsys.readouterr()
    assert f"5 songs ({len(BAD)} files left out)" in out
    lines = err.splitlines()
    assert len(lines) == len(BAD)
    for name, (_, reason) in BAD.items():
        assert [line for line in lines if line.startswith(f"left out: {tokens / name}.json: ") and reason in line]


def test_nothing_usable_is_an_error_and_every_reason_is_told(tmp_path, capsys):
    tokens = tmp_path / "tokens"
    tokens.mkdir()
    for name, (text, _) in BAD.items():
        (tokens / f"{name}.json").write_text(text)
    assert prepare.main([str(tmp_path / "d.pt"), "-fp", str(tokens)]) == EXIT_USER_ERROR
    lines = capsys.readouterr().err.splitlines()
    assert Counter(line.split(": ")[0] for line in lines) == {"left out": len(BAD) - 1, "error": 1}
    assert lines[-1].startswith(f"error: none of {len(BAD)} token files could be read, the first because: {tokens}")
    assert list(tmp_path.iterdir()) == [tokens]


def test_an_existing_file_is_kept_unless_forced(tokens, tmp_path, capsys):
    out = tmp_path / "d.pt"
    out.write_text("precious")
    message = fails(prepare.main, [out, "-fp", tokens, "-b", 32], capsys)
    assert f"{out} exists already" in message
    assert "--force" in message
    assert out.read_text() == "precious"
    prepared(tokens, out)
    assert load_dataset(out).n_songs == len(SONGS)
    out.unlink()
    out.mkdir()
    assert str(out) in fails(prepare.main, [out, "-fp", tokens, "-b", 32], capsys)


@pytest.mark.parametrize(("arguments", "text"), [
    (["-fp", "tokens", "-b", "15"], "-b 15: blocks must be at least 16 notes long"),
    (["-fp", "tokens", "-b", "1000"], "5 songs have 167 notes, fewer than one block of 1000"),
    (["-fp", "nowhere"], "nowhere: no such file or folder"),
    (["-fp", "hollow"], "hollow: no .json file in this folder"),
    (["-fp", "tokens", "--vocab", "none.json"], "none.json: no such file"),
])
def test_mistakes_are_one_line_and_leave_nothing(tokens, tmp_path, capsys, monkeypatch, arguments, text):
    (tmp_path / "hollow").mkdir()
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert text in fails(prepare.main, ["d.pt", *arguments], capsys)
    assert sorted(tmp_path.iterdir()) == before


def test_another_vocabulary_goes_into_the_dataset_and_default_files_do_not(tokens, tmp_path, capsys):
    vocabulary = VOCABULARY.to_dict() | {"bars": 300}
    write_json(tmp_path / "vocab.json", vocabulary)
    write_tokens(tokens / "ours.json", random_song(0, 40), vocabulary=VOCABULARY.digest)
    dataset = load_dataset(prepared(tokens, tmp_path / "d.pt", "--vocab", tmp_path / "vocab.json"))
    assert dataset.vocabulary.to_dict() == vocabulary
    assert "ours" not in dataset.songs  # says what it was made with; the others say nothing
    assert "ours.json: made with another vocabulary" in capsys.readouterr().err


def test_a_killed_run_leaves_nothing(tokens, tmp_path, capsys, monkeypatch):
    calls = []

    def interrupted(path, tokenizer):
        calls.append(path)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return read_tokens(path, tokenizer)

    monkeypatch.setattr(prepare, "read_tokens", interrupted)
    assert prepare.main([str(tmp_path / "d.pt"), "-fp", str(tokens), "-b", "32"]) == EXIT_INTERRUPTED
    assert list(tmp_path.iterdir()) == [tokens]
