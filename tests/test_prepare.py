"""The prepare command: from token files to a dataset."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import fails, help_without, succeeds
from random_songs import VOCABULARY, random_song, whole, write_json, write_tokens

import prepare
from backline.common.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR
from backline.folders import workers
from backline.music.vocab import FIRST_ID, NOTE_DUR, PITCH_INSTRUMENT, START_POS
from backline.preparation.dataset import load_dataset, split_by_song
from tokenizer import MidiTokenizerPooled, canonical, read_tokens

ROOT = Path(__file__).parents[1]
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
    assert out == (f"{tmp_path / 'd.pt'}: 5 songs (0 files left out, 0 duplicates), "
                   f"{sum(map(len, SONGS.values()))} notes; with the first and last row of each song {kept // 32} "
                   f"blocks of 32 rows, the {len(everything) - kept} after the last full block dropped\n"
                   f"no song has a near-duplicate\n")
    assert dataset.clusters.tolist() == list(range(5))
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
    rows = canonical(rows)
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
    assert "5 songs (0 files left out, 0 duplicates)" in capsys.readouterr().out
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
    assert f"5 songs ({len(BAD)} files left out, 0 duplicates)" in out
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
    assert lines[-1].startswith(f"error: none of {len(BAD)} token files could be read; the first reason: {tokens}")
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


# ---------------------------------------------------------------- duplicates


def melodic(seed: int, n_notes: int = 80) -> np.ndarray:
    """(N, F) note ids: a bass and a piano that wander, as songs do, and drums that all songs share."""
    rng = np.random.default_rng(seed)
    rows = []
    for part, low in (("drums", 36), ("bass", 40), ("piano", 60)):
        p = VOCABULARY.part_names.index(part)
        first = VOCABULARY.first_pitch_ids[p] - VOCABULARY.parts[p].lowest_pitch
        pitch = low + (np.arange(n_notes) % 2 if part == "drums" else rng.integers(0, 18, n_notes))
        onset = np.arange(n_notes) * 4
        rows.append(np.stack([onset // 32 + FIRST_ID, onset % 32 + FIRST_ID, np.full(n_notes, 7), first + pitch], 1))
    return canonical(np.concatenate(rows))


def transposed(rows: np.ndarray, semitones: int) -> np.ndarray:
    """All but the drums, moved."""
    melodic_rows = VOCABULARY.part_of_id[rows[:, PITCH_INSTRUMENT]] > 0
    moved = rows.copy()
    moved[melodic_rows, PITCH_INSTRUMENT] += semitones
    return canonical(moved)


@pytest.fixture
def similar(tmp_path) -> Path:
    """Twelve songs of their own; one of them a second time exactly, one transposed, and one in three pieces."""
    folder = tmp_path / "similar"
    for number in range(12):
        write_tokens(folder / f"{number:02d}.json", melodic(number))
    write_tokens(folder / "x" / "again.json", melodic(4), source="elsewhere")
    write_tokens(folder / "x" / "higher.json", transposed(melodic(7), 3))
    for number, name in enumerate(["11.part2", "11.part3", "x/11"], 50):  # the last is another song of this name
        write_tokens(folder / f"{name}.json", melodic(number))
    return folder


def clusters_of(path: Path) -> set[frozenset[str]]:
    dataset = load_dataset(path)
    found = {}
    for name, cluster in zip(dataset.songs, dataset.clusters.tolist(), strict=True):
        found.setdefault(cluster, set()).add(name)
    return {frozenset(names) for names in found.values() if len(names) > 1}


PIECES = frozenset(["11", "11.part2", "11.part3"])


@pytest.mark.parametrize(("kind", "n_songs", "clusters"), [
    ("none", 17, {frozenset(["04", "x/again"]), frozenset(["07", "x/higher"]), PIECES}),
    ("exact", 16, {frozenset(["07", "x/higher"]), PIECES}),
    ("near", 13, set())])
def test_duplicates_are_kept_together_or_left_out(similar, tmp_path, capsys, kind, n_songs, clusters):
    path = prepared(similar, tmp_path / "d.pt", "--duplicates", kind)
    assert load_dataset(path).n_songs == n_songs
    assert clusters_of(path) == clusters
    assert f"{n_songs} songs (0 files left out, {17 - n_songs} duplicates)" in capsys.readouterr().out
    dropped = {"x/again": kind != "none", "x/higher": kind == "near", "11.part2": kind == "near"}
    for name, is_dropped in dropped.items():  # of equal songs the first in the listing stays
        assert (name in load_dataset(path).songs) != is_dropped
    assert {"04", "07", "11", "x/11"} <= set(load_dataset(path).songs)


def test_exact_is_the_default(similar, tmp_path):
    assert prepared(similar, tmp_path / "a.pt").read_bytes() \
        == prepared(similar, tmp_path / "b.pt", "--duplicates", "exact").read_bytes()


@pytest.mark.parametrize("seed", [0, 5])
def test_near_duplicates_are_next_to_each_other_and_on_one_side_for_every_share(similar, tmp_path, seed):
    dataset = load_dataset(prepared(similar, tmp_path / "d.pt", "--duplicates", "none", "--seed", seed))
    assert (np.diff(np.flatnonzero(np.diff(dataset.clusters, prepend=-1, append=-1))) > 0).all()
    assert len(np.flatnonzero(np.diff(dataset.clusters))) + 1 == len(set(dataset.clusters.tolist()))  # no two runs
    for names in (PIECES, {"07", "x/higher"}, {"04", "x/again"}):
        places = sorted(dataset.songs.index(name) for name in names)
        assert places == list(range(places[0], places[0] + len(names)))
    for share in np.linspace(0.02, 0.98, 49):
        held_out = set(split_by_song(dataset, float(share)).held_out_songs)
        for names in (PIECES, {"07", "x/higher"}, {"04", "x/again"}):
            assert len(held_out & names) in (0, len(names))


def test_equal_songs_differ_from_those_of_other_durations(tmp_path):
    rows = melodic(0)
    longer = rows.copy()
    longer[0, NOTE_DUR] += 1
    for name, song in (("a", rows), ("b", rows), ("c", longer)):
        write_tokens(tmp_path / "tokens" / f"{name}.json", song)
    dataset = load_dataset(prepared(tmp_path / "tokens", tmp_path / "d.pt"))
    assert sorted(dataset.songs) == ["a", "c"]
    assert clusters_of(tmp_path / "d.pt") == {frozenset("ac")}


def test_the_order_depends_on_the_seed_and_not_on_what_is_left_out(similar, tmp_path):
    """Clusters keep their places, whether all of their songs are kept or one."""
    orders = {}
    for kind in ("none", "exact", "near"):
        path = prepared(similar, tmp_path / f"{kind}.pt", "--duplicates", kind, "--seed", 2)
        orders[kind] = load_dataset(path).songs
    assert tuple(name for name in orders["none"] if name in orders["exact"]) == orders["exact"]
    assert tuple(name for name in orders["none"] if name in orders["near"]) == orders["near"]


def test_songs_are_ordered_cluster_by_cluster():
    clusters = np.array([0, 1, 0, 3, 1, 5, 0])
    order = prepare.song_order(clusters, np.array([True] * 5 + [False, True]), 1)
    assert sorted(order.tolist()) == [0, 1, 2, 3, 4, 6]
    runs = clusters[order]
    assert len(np.flatnonzero(np.diff(runs))) == 2
    for label in (0, 1, 3):
        assert (np.diff(order[runs == label]) > 0).all()


# ---------------------------------------------------------------- workers, kills


def test_the_same_bytes_for_every_number_of_workers(similar, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(workers, "TASKS_WORTH_A_WORKER", 1)
    (similar / "bad.json").write_text("{")
    expected = prepared(similar, tmp_path / "d.pt", "-j", 0).read_bytes()
    said = capsys.readouterr()
    assert prepared(similar, tmp_path / "d.pt", "-j", 2).read_bytes() == expected
    assert capsys.readouterr() == said


def interrupted(monkeypatch, after: int, *argv: object) -> None:
    """Press Ctrl-C while the file after so many is read."""
    calls = []

    def read(path, tokenizer):
        if len(calls) == after:
            raise KeyboardInterrupt
        calls.append(path)
        return read_tokens(path, tokenizer)

    with monkeypatch.context() as patched:
        patched.setattr(prepare, "read_tokens", read)
        assert prepare.main([str(each) for each in argv]) == EXIT_INTERRUPTED


@pytest.mark.parametrize("after", [0, 1, 3, 5])
def test_an_interrupted_run_goes_on_where_it_was(tokens, tmp_path, capsys, monkeypatch, after):
    (tokens / "bad.json").write_text("{")
    expected = prepared(tokens, tmp_path / "undisturbed.pt").read_bytes()
    said = capsys.readouterr()
    argv = [tmp_path / "d.pt", "-fp", tokens, "-b", "32"]
    interrupted(monkeypatch, after, *argv)
    assert capsys.readouterr().err == "interrupted; the same command goes on from here\n"
    assert not (tmp_path / "d.pt").exists()
    succeeds(prepare.main, argv)
    again = capsys.readouterr()
    notice = f"notice: {after} of 6 files were read before\n" if after else ""
    assert again.err == notice + said.err and again.out == said.out.replace("undisturbed.pt", "d.pt")
    assert (tmp_path / "d.pt").read_bytes() == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.pt", "tokens", "undisturbed.pt"]


@pytest.mark.parametrize("change", ["changed", "removed", "added", "added before", "other vocabulary"])
def test_what_changed_since_is_read_again(tokens, tmp_path, capsys, monkeypatch, change):
    interrupted(monkeypatch, 4, tmp_path / "d.pt", "-fp", tokens, "-b", "32")
    flags = []
    if change == "changed":
        write_tokens(tokens / "b.json", random_song(9, 44))
    elif change == "removed":
        (tokens / "b.json").unlink()
    elif change == "added":
        write_tokens(tokens / "zz.json", random_song(9, 44))
    elif change == "added before":
        write_tokens(tokens / "aa.json", random_song(9, 44))
    else:
        write_json(tmp_path / "vocab.json", VOCABULARY.to_dict() | {"bars": 300})
        flags = ["--vocab", tmp_path / "vocab.json"]
    found = prepared(tokens, tmp_path / "d.pt", *flags).read_bytes()
    assert prepared(tokens, tmp_path / "fresh.pt", *flags).read_bytes() == found
    err = capsys.readouterr().err
    assert ("notice: " in err) == (change != "other vocabulary")
    if change in ("changed", "removed", "added before"):
        assert "notice: 1 of " in err


def test_a_killed_run_goes_on_with_what_it_committed(similar, tmp_path, monkeypatch, capsys):
    """Killed after the last commit, with notes on the disk that the index does not count."""
    code = (f"import os, signal, sys; sys.path.insert(0, {str(ROOT)!r})\n"
            f"import prepare; from backline.folders import store; from backline.preparation import song_store\n"
            f"store.SECONDS_PER_COMMIT = -1\n"
            f"add, calls = song_store.SongStore.add, []\n"
            f"def counted(self, *args):\n"
            f"    calls.append(1)\n"
            f"    store.SECONDS_PER_COMMIT = -1 if len(calls) < 9 else 60\n"
            f"    add(self, *args)\n"
            f"    if len(calls) == 12:\n"
            f"        self._notes.flush(); self._signatures.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
            f"song_store.SongStore.add = counted\n"
            f"prepare.main(['d.pt', '-fp', 'similar', '-b', '32', '-j', '0'])")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / ".d.pt.songs" / "notes").stat().st_size > 8 * 240 * 4 * 2  # more than was committed
    monkeypatch.chdir(tmp_path)
    succeeds(prepare.main, ["d.pt", "-fp", "similar", "-b", 32])
    assert capsys.readouterr().err == "notice: 8 of 17 files were read before\n"
    assert (tmp_path / "d.pt").read_bytes() == prepared(similar, tmp_path / "undisturbed.pt").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.pt", "similar", "undisturbed.pt"]


def test_a_full_disk_while_writing_keeps_what_was_read(tokens, tmp_path, capsys, monkeypatch):
    from backline.preparation import dataset

    def full(*args):
        raise OSError(28, "No space left on device", "d.pt")

    with monkeypatch.context() as patched:
        patched.setattr(dataset, "_save", full)
        assert "No space left" in fails(prepare.main, [tmp_path / "d.pt", "-fp", tokens, "-b", "32"], capsys)
    succeeds(prepare.main, [tmp_path / "d.pt", "-fp", tokens, "-b", "32"])
    assert capsys.readouterr().err == "notice: 5 of 5 files were read before\n"


def test_help_needs_no_torch():
    assert "python prepare.py dataset.pt" in help_without("prepare", "torch", "scipy")


def test_a_vocabulary_of_drums_alone_has_no_near_duplicates(tmp_path, capsys):
    vocabulary = VOCABULARY.to_dict()
    write_json(tmp_path / "vocab.json", vocabulary | {"parts": vocabulary["parts"][:1]})
    for name, seed in (("a", 0), ("b", 1), ("same", 0)):
        rows = random_song(seed, 30)
        rows[:, PITCH_INSTRUMENT] = FIRST_ID + rows[:, PITCH_INSTRUMENT] % 40
        write_tokens(tmp_path / "tokens" / f"{name}.json", canonical(rows))
    prepared(tmp_path / "tokens", tmp_path / "d.pt", "-b", 16, "--vocab", tmp_path / "vocab.json")
    assert "2 songs (0 files left out, 1 duplicates)" in capsys.readouterr().out
