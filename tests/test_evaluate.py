"""evaluate.py and release.py: losses on held-out songs, and weights to share."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import fails, succeeds
from held_out import HELD_OUT, N_SONGS, write_held_out
from random_songs import BAND, VOCABULARY, make_dataset, whole, write_tokens
from random_songs import random_song as random_notes
from tiny_models import tiny_model

import evaluate
import release
from backline.common.paths import own_copies
from backline.engine.model_file import held_out_names
from backline.evaluation.copy_index import build_index, split_digest, write_index
from backline.evaluation.held_out_losses import by_context, by_position, measure_losses, nats_per_note
from backline.evaluation.song_sets import read_folder
from backline.music.vocab import FIELDS, FIRST_ID, NOTE_DUR
from backline.preparation.dataset import load_dataset, song_rows
from backline.training.checkpoints import load_model, save_checkpoint
from backline.training.losses import note_losses
from tokenizer import MidiTokenizerPooled


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A dataset of five songs and a checkpoint that names two of them as held out."""
    folder = tmp_path_factory.mktemp("held_out")
    write_held_out(folder)
    return folder


@pytest.mark.parametrize("batch_size", [1, 3])
def test_losses_agree_with_one_window_at_a_time(folder, batch_size):
    model, _, _ = load_model(folder / "best.pth")
    dataset = load_dataset(folder / "data.pt")
    sums = measure_losses(model, dataset, [0, 3], batch_size).by_song
    for row, song in zip(sums, (0, 3), strict=True):
        start = dataset.song_starts[song]
        notes = dataset.notes[start:start + 20 + 7 * song + 2].long()
        expected = torch.zeros(len(FIELDS))
        for first in range(0, len(notes) - 1, 16):
            window = notes[None, first:first + 17]
            with torch.no_grad():
                losses = note_losses(model(window[:, :-1], window[:, 1:]), window[:, 1:]).mean((0, 1))
            expected += losses * (window.shape[1] - 1)
        assert torch.allclose(row[:-1].float(), expected, rtol=1e-4)
        assert row[-1] == len(notes) - 1


def test_losses_by_context_agree_with_one_song_at_a_time(folder):
    """Songs of 29 and 36 rows, 16 to a window: the note after the k-th row of each window."""
    model, _, _ = load_model(folder / "best.pth")
    dataset = load_dataset(folder / "data.pt")
    found = measure_losses(model, dataset, [1, 2]).by_context
    expected = torch.zeros(16, len(FIELDS) + 1, dtype=torch.float64)
    for song in (1, 2):
        rows = song_rows(dataset, song)
        for place in range(1, len(rows)):
            begin = (place - 1) // 16 * 16
            with torch.no_grad():
                losses = note_losses(model(rows[None, begin:place], rows[None, begin + 1:place + 1]),
                                     rows[None, begin + 1:place + 1])
            expected[place - 1 - begin] += torch.cat([losses[0, -1], torch.ones(1)])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_losses_by_part_and_position_add_up(folder):
    model, _, _ = load_model(folder / "best.pth")
    found = measure_losses(model, load_dataset(folder / "data.pt"), [1, 3, 4])
    torch.testing.assert_close(found.by_position.sum(1), found.by_song)
    ends = found.by_song[:, -1] - found.by_part.sum(1)[:, -1]
    assert ends.tolist() == [1, 1, 1]  # EOS is of no part
    assert (found.by_part[..., -1] > 0).all()
    notes = song_rows(load_dataset(folder / "data.pt"), 1)[1:-1]
    of_part = VOCABULARY.part_of_id[notes[:, -1].numpy()]
    assert found.by_part[0, :, -1].tolist() == np.bincount(of_part, minlength=3).tolist()
    assert found.by_position[0, :, -1].tolist() == [16, 12, 0, 0, 0]  # 27 notes and EOS, in windows of 16
    assert list(by_position(found.by_position, 16)) == ["1–16", "17–32", "33–64", "65–128"]


def test_intervals_come_from_songs():
    sums = torch.ones(40, len(FIELDS) + 1, dtype=torch.float64)
    alike = nats_per_note(sums)
    assert alike["interval"] == [4, 4]
    sums[:20] *= torch.tensor([3, 1, 1, 1, 1])
    result = nats_per_note(sums)
    assert result["interval"][0] == pytest.approx(5 - 1.96 / 40 ** 0.5, abs=0.07)
    assert result["intervals"]["bar"][1] == pytest.approx(2 + 1.96 / 40 ** 0.5, abs=0.07)
    assert result["intervals"]["note_dur"] == [1, 1]
    assert result["standard_error"] == pytest.approx(1 / 40 ** 0.5, rel=0.1)
    assert nats_per_note(sums[:1])["interval"] is None


def test_octaves_of_context():
    sums = torch.zeros(12, len(FIELDS) + 1)
    sums[:, 0], sums[:, -1] = 2 * torch.arange(1, 13), 2  # a note after k rows costs k nats, two are after each
    assert by_context(sums, 3) == {"1–3": 2, "4–6": 5, "7–12": 9.5}
    sums[8:] = 0  # no window is as long
    assert by_context(sums, 4) == {"1–4": 2.5, "5–8": 6.5}


def test_only_held_out_songs_count(folder, capsys):
    assert evaluate.main(["-mp", str(folder / "best.pth"), "--dataset_path", str(folder / "data.pt"), "-d", "cpu",
                          "-o", str(folder / "result")]) == 0
    result = json.loads((folder / "result.json").read_text())
    assert result["songs"] == 2
    assert result["notes"] == (20 + 21 + 1) + (64 + 1)
    assert result["nats_per_note"] == pytest.approx(sum(result[field] for field in FIELDS))
    assert (folder / "result.md").read_text() == capsys.readouterr().out
    assert evaluate.main(["-mp", str(folder / "best.pth"), "--dataset_path", str(folder / "data.pt"), "-d", "cpu",
                          "--all", "-o", str(folder / "every")]) == 0
    assert json.loads((folder / "every.json").read_text())["songs"] == N_SONGS


def test_release_keeps_the_held_out_list_and_nearly_the_loss(folder, tmp_path):
    out = tmp_path / "model.safetensors"
    assert release.main([str(folder / "best.pth"), str(out), "--note", "made by a test"]) == 0
    _, vocabulary, facts = load_model(out)
    assert vocabulary == VOCABULARY
    assert facts["held_out_songs"] == HELD_OUT
    assert facts["note"] == "made by a test"
    results = []
    for model in (folder / "best.pth", out):
        evaluate.main(["-mp", str(model), "--dataset_path", str(folder / "data.pt"), "-d", "cpu",
                       "-o", str(tmp_path / "r"), "--force"])
        results.append(json.loads((tmp_path / "r.json").read_text()))
    assert results[0]["notes"] == results[1]["notes"]
    assert results[1]["nats_per_note"] == pytest.approx(results[0]["nats_per_note"], rel=0.01)


# ---------------------------------------------------------------- songs


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    """Two folders of songs: MIDI with stems and a prompt beside them, and token files."""
    folder, tokenizer = tmp_path_factory.mktemp("songs"), MidiTokenizerPooled()
    (folder / "made").mkdir()
    for i in range(12):
        midi = tokenizer.create_midi_from_tokens(whole(in_file(i)))
        midi.dump(str(folder / "made" / f"{i}.mid"))
        for name in ("drums", "prompt"):
            midi.dump(str(folder / "made" / f"{i}-{name}.mid"))
        write_tokens(folder / "real" / "deep" / f"{i}.json", in_file(100 + i))
    return folder


def in_file(seed: int) -> np.ndarray:
    """Notes that last a step, so that a MIDI file holds them."""
    rows = random_notes(seed, 60, 8)
    rows[:, NOTE_DUR] = FIRST_ID
    return rows


def test_songs_are_read_without_their_stems(songs):
    tokenizer = MidiTokenizerPooled()
    made, real = read_folder(songs / "made", tokenizer), read_folder(songs / "real", tokenizer)
    assert len(made.rows) == len(real.rows) == 12
    assert sorted(Path(name).name for name in made.names) == sorted(f"{i}.mid" for i in range(12))
    np.testing.assert_array_equal(made.rows[0], in_file(0))
    assert real.left_out == []


def test_a_stem_alone_is_a_song(songs, tmp_path):
    shutil.copy(songs / "made" / "0-drums.mid", tmp_path)
    assert len(read_folder(tmp_path, MidiTokenizerPooled()).rows) == 1


def test_songs_are_judged(songs, tmp_path, capsys):
    assert evaluate.main([str(songs / "made"), "--reference", str(songs / "real"), "-o", str(tmp_path / "r")]) == 0
    captured = capsys.readouterr()
    assert "12 songs say little" in captured.err
    assert (tmp_path / "r.md").read_text() == captured.out
    result = json.loads((tmp_path / "r.json").read_text())["songs_compared"]
    names = [each["name"] for each in result["measures"]]
    assert {"groove similarity", "piano: polyphony", "drums: pattern regularity", "self-similarity 4"} <= set(names)
    assert result["generated"] == result["real"] == 12
    assert 0.5 * len(names) < result["inside"] == sum(each["inside"] for each in result["measures"])  # of one kind
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")
    assert "12 generated songs beside 12 real ones" in captured.out


def test_a_dataset_lends_its_held_out_songs(folder, songs, tmp_path):
    assert evaluate.main([str(songs / "made"), "--reference", str(folder / "data.pt"), "-mp",
                          str(folder / "best.pth"), "-o", str(tmp_path / "r")]) == 0
    result = json.loads((tmp_path / "r.json").read_text())["songs_compared"]
    assert result["real"] == len(HELD_OUT)
    assert result["told_apart"] is None  # two are too few


@pytest.fixture(scope="module")
def band(tmp_path_factory):
    """Songs, a dataset and a model of seven parts."""
    folder, tokenizer = tmp_path_factory.mktemp("band"), MidiTokenizerPooled(BAND)
    (folder / "made").mkdir()
    for i in range(12):
        rows = random_notes(i, 60, 8, BAND)
        tokenizer.create_midi_from_tokens(whole(rows)).dump(str(folder / "made" / f"{i}.mid"))
    make_dataset(folder / "data.pt", [random_notes(100 + i, 60, 8, BAND) for i in range(4)], 31, BAND)
    facts = {"held_out_songs": ["song2", "song3"]}
    save_checkpoint(folder / "best.pth", tiny_model(BAND, block_size=16), BAND, {"facts": facts})
    (folder / "vocab.json").write_text(json.dumps(BAND.to_dict()))
    return folder


def parts_judged(path: Path) -> set[str]:
    """Parts of which any measure is in a file of results."""
    names = [each["name"] for each in json.loads(path.read_text())["songs_compared"]["measures"]]
    return {name.partition(": ")[0] for name in names if ": " in name}


@pytest.mark.parametrize("more", [(), ("--vocab", "{}/vocab.json")])
def test_songs_beside_a_dataset_are_read_in_the_vocabulary_of_the_model(band, tmp_path, more):
    argv = [band / "made", "--reference", band / "data.pt", "-mp", band / "best.pth", "-o", tmp_path / "r",
            *(text.format(band) for text in more)]
    succeeds(evaluate.main, argv)
    assert parts_judged(tmp_path / "r.json") == set(BAND.part_names)


def test_songs_beside_a_dataset_cannot_be_of_another_vocabulary(band, tmp_path, capsys):
    (tmp_path / "three.json").write_text(json.dumps(VOCABULARY.to_dict()))
    argv = [band / "made", "--reference", band / "data.pt", "-mp", band / "best.pth"]
    message = fails(evaluate.main, [*argv, "--vocab", tmp_path / "three.json"], capsys)
    assert "three.json" in message and "not the vocabulary of the model" in message


def test_songs_are_read_in_the_vocabulary_of_the_model_that_is_measured(band, tmp_path):
    argv = [band / "made", "--reference", band / "made", "-mp", band / "best.pth", "--dataset_path", band / "data.pt",
            "-d", "cpu", "-o", tmp_path / "r"]
    succeeds(evaluate.main, argv)
    assert parts_judged(tmp_path / "r.json") == set(BAND.part_names)


def test_held_out_songs_behind_the_last_full_block(tmp_path, songs, capsys):
    """As after preparing a dataset again with larger blocks."""
    made = [random_notes(i, 60, 8) for i in range(3)]
    data = make_dataset(tmp_path / "data.pt", [*made, random_notes(9, 20, 8)], 3 * 62)
    model = tmp_path / "best.pth"
    save_checkpoint(model, tiny_model(VOCABULARY, block_size=16), VOCABULARY, {"facts": {"held_out_songs": ["song3"]}})
    for argv in (["--dataset_path", data], [songs / "made", "--reference", data]):
        message = fails(evaluate.main, [*argv, "-mp", model], capsys)
        assert "behind the last full block" in message and "smaller -b" in message


def test_losses_and_songs_in_one_run(folder, songs, tmp_path, capsys):
    assert evaluate.main([str(songs / "made"), "--reference", str(songs / "real"), "-mp", str(folder / "best.pth"),
                          "--dataset_path", str(folder / "data.pt"), "-d", "cpu", "-o", str(tmp_path / "r")]) == 0
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["songs"] == 2
    assert result["songs_compared"]["generated"] == 12
    assert list(result["by_part"]) == list(VOCABULARY.part_names)
    assert "| part | drums | bass | piano |" in capsys.readouterr().out


def test_without_a_name_the_index_of_copies_is_that_beside_the_model(folder, songs, tmp_path, capsys):
    model = tmp_path / "best.pth"
    shutil.copy(folder / "best.pth", model)
    held_out = held_out_names(load_model(model)[2])
    arguments = [songs / "made", "--reference", songs / "real", "--copies", "-mp", model]
    index = build_index([in_file(i) for i in range(6)], [in_file(100)], VOCABULARY, split_digest(held_out))
    write_index(own_copies(model), index)
    succeeds(evaluate.main, [*arguments, "-o", tmp_path / "r"])
    assert json.loads((tmp_path / "r.json").read_text())["songs_compared"]["copies"]["above"] == 0.5
    assert "other songs" not in capsys.readouterr().err
    own_copies(model).unlink()
    succeeds(evaluate.main, arguments)
    assert "bundled_copies.safetensors may be of other songs" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--copies", "--check-copies"])  # the latter as in generate.py
def test_copies_are_counted(songs, tmp_path, option):
    """Songs that the index was made of are copies as a whole, where the real ones share nothing."""
    trained = [in_file(i) for i in range(6)]
    index = build_index(trained, [in_file(100)], VOCABULARY, "")
    write_index(tmp_path / "index.safetensors", index)
    assert evaluate.main([str(songs / "made"), "--reference", str(songs / "real"), option,
                          str(tmp_path / "index.safetensors"), "-o", str(tmp_path / "r")]) == 0
    found = json.loads((tmp_path / "r.json").read_text())["songs_compared"]["copies"]
    assert found["generated"]["90"] == found["generated"]["99"] == 60
    assert found["real"]["99"] <= 12  # a window that the filter took for another
    assert found["above"] == 0.5
    assert "50.0% of the generated songs" in (tmp_path / "r.md").read_text()


def test_votes_are_read(tmp_path, capsys):
    lines = ["pair,question,first,second,answer", *(f"{i},prefer,a/{i}.mid,b/{i}.mid,first" for i in range(3)),
             "4,prefer,b/4.mid,a/4.mid,first"]
    (tmp_path / "votes.csv").write_text("\n".join(lines) + "\n")
    assert evaluate.main(["--votes", str(tmp_path / "votes.csv"), "-o", str(tmp_path / "r")]) == 0
    assert "| a | 3 of 4 | 75% (30%–95%) |" in capsys.readouterr().out
    assert json.loads((tmp_path / "r.json").read_text())["votes"]["b"]["chosen"] == 1


def test_bad_songs_are_left_out_with_a_reason(songs, tmp_path, capsys):
    shutil.copytree(songs / "made", tmp_path / "made")
    (tmp_path / "made" / "12.mid").write_bytes(b"not MIDI")
    assert evaluate.main([str(tmp_path / "made"), "--reference", str(songs / "real")]) == 0
    assert "Left out: 1 generated songs; the first: " in capsys.readouterr().out


@pytest.mark.parametrize(("content", "text"), [
    (None, "no songs in this folder"), (b"not MIDI", "none of its 1 files is a song of drums, bass, piano")])
def test_folders_without_songs(songs, tmp_path, capsys, content, text):
    (tmp_path / "made").mkdir()
    if content:
        (tmp_path / "made" / "0.mid").write_bytes(content)
    assert text in fails(evaluate.main, [tmp_path / "made", "--reference", songs / "real"], capsys)


@pytest.mark.parametrize(("argv", "text"), [
    ([], "nothing to measure"),
    (["."], "give both or none"),
    (["--reference", ".", "--dataset_path", "x.pt"], "give both or none"),
    ([".", "--reference", "missing"], "missing: no such file"),
    (["missing", "--reference", "."], "missing: no such folder"),
    ([".", "--reference", ".", "--all"], "--all"),
    (["--votes", "missing.csv", "--copies"], "--copies"),
    (["--votes", "missing.csv"], "missing.csv: no such file"),
    (["--votes", "missing.csv", "-b", "8"], "-b 8: is about losses; give a --dataset_path"),
    ([".", "--reference", ".", "-d", "cpu"], "-d cpu: is about losses; give a --dataset_path"),
    (["--votes", "missing.csv", "-mp", "best.pth"], "-mp best.pth: no model is read; leave it out"),
    ([".", "--reference", ".", "-mp", "best.pth"], "-mp best.pth: no model is read; leave it out"),
    (["--dataset_path", "x.pt", "--vocab", "v.json"], "--vocab v.json: is about songs")])
def test_what_to_measure_must_be_said(argv, text, capsys):
    assert text in fails(evaluate.main, argv, capsys)


@pytest.mark.parametrize(("command", "text"), [
    (["evaluate", "-mp", "missing.pth", "--dataset_path", "{data}"], "missing.pth"),
    (["evaluate", "-mp", "{model}", "--dataset_path", "missing.pt"], "missing.pt"),
    (["evaluate", "-mp", "{model}", "--dataset_path", "{model}"], "not a dataset"),
    (["evaluate", "-mp", "{data}", "--dataset_path", "{data}"], "not a checkpoint"),
    (["evaluate", "-mp", "{plain}", "--dataset_path", "{data}"], "no list of held-out songs"),
    (["evaluate", "-mp", "{other}", "--dataset_path", "{data}"], "none of its 1 held-out songs"),
    (["evaluate", "-mp", "{model}", "--dataset_path", "{data}", "-b", "0"], "at least 1"),
    (["release", "{model}", "out.pth"], ".safetensors"), (["release", "missing.pth", "out.safetensors"], "missing.pth"),
    (["release", "{data}", "out.safetensors"], "not a checkpoint"),
    (["release", "{model}", "taken.safetensors"], "--force"),
])
def test_bad_input(folder, tmp_path, monkeypatch, capsys, command, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken.safetensors").write_text("mine")
    model = tiny_model(VOCABULARY, block_size=16)
    save_checkpoint(tmp_path / "plain.pth", model, VOCABULARY, {})
    save_checkpoint(tmp_path / "other.pth", model, VOCABULARY, {"facts": {"held_out_songs": ["elsewhere"]}})
    names = {"data": folder / "data.pt", "model": folder / "best.pth", "plain": "plain.pth", "other": "other.pth"}
    module = {"evaluate": evaluate, "release": release}[command[0]]
    assert module.main([argument.format(**names) for argument in command[1:]]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert text in lines[0]
    assert (tmp_path / "taken.safetensors").read_text() == "mine"
