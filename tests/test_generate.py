"""generate.py: what it writes, where, and what it says of bad input."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
from pathlib import Path

import mido
import numpy as np
import onnxruntime
import pytest
from commands import help_without
from pages import page_data
from playing import PARTS, TOKENIZER, ids_of, notes, of_parts, part_of, prompt_file, song_file
from tiny_models import tiny_model

import generate
from backline.common.errors import EXIT_INTERRUPTED
from backline.common.files import file_hash
from backline.common.settings import config_from_file
from backline.common.surroundings import song_surroundings
from backline.engine.onnx_player import ENGINE_DTYPES
from backline.generation.config import GenConfig
from backline.generation.config_options import with_part_names
from backline.generation.recipes import read_recipe, recipe_to_dict
from backline.generation.sampler import sample_songs
from backline.generation.session import SEED_STEP, TRIES, LoadedModel
from backline.generation.wish import Wish
from backline.listening import outputs
from backline.music.midi_reader import read_song
from backline.music.song import TICKS_PER_QUARTER
from backline.music.vocab import BAR, FIRST_ID, NOTE_DUR, PITCH_INSTRUMENT, QUARTERS_PER_BAR, START_POS, load_vocabulary
from backline.training.checkpoints import save_checkpoint

ROOT = Path(__file__).parents[1]


def one_error(capsys) -> str:
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("error: ")
    return lines[0]


# ---------------------------------------------------------------- what is written


def test_from_scratch_writes_songs_stems_a_page_and_a_log(run, tmp_path, capsys):
    assert run("-o", "out", "-n", 2, "--seed", 5) == 0
    out = tmp_path / "out"
    names = {f"{i}{stem}.mid" for i in range(2) for stem in ("", *(f"-{part}" for part in PARTS))}
    assert {path.name for path in out.iterdir()} == {*names, "index.html", "genconfigs.txt"}
    printed = capsys.readouterr().out
    assert "out/0.mid" in printed.replace(os.sep, "/")
    assert "seed 5" in printed and "out/index.html: open it" in printed.replace(os.sep, "/")
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


def test_files_of_people_are_kept_and_the_numbers_said_are_those_taken(run, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    for name in ("0-my_idea.mid", "1.wav"):
        (out / name).write_bytes(b"mine")
    writes = []

    def put_between(*arguments):
        """A person saves a file between the two songs."""
        if writes:
            (out / "3.wav").write_bytes(b"mine")
        writes.append(write_song(*arguments))
        return writes[-1]

    write_song = outputs.write_song
    monkeypatch.setattr(outputs, "write_song", put_between)
    run("-o", "out", "-n", 2, "--seed", 5)
    said = capsys.readouterr().out.replace(os.sep, "/")
    assert "out/2.mid: " in said and "out/4.mid: " in said and "each song: 2-drums.mid, 2-bass.mid" in said
    log = (out / "genconfigs.txt").read_text()
    assert re.findall(r'"file": "(.*)"', log) == ["2.mid", "4.mid"]
    assert all((out / name).read_bytes() == b"mine" for name in ("0-my_idea.mid", "1.wav", "3.wav"))
    run("-o", "out", "--force", "-n", 2)
    assert all((out / name).read_bytes() == b"mine" for name in ("0-my_idea.mid", "3.wav"))
    assert (out / "0.mid").exists() and not (out / "1.wav").exists()


def test_png_is_drawn(run, tmp_path):
    run("-o", "out", "--png")
    assert (tmp_path / "out/0.png").read_bytes().startswith(b"\x89PNG")


def test_without_a_page(run, tmp_path, capsys):
    run("-o", "out", "--no-page")
    assert not (tmp_path / "out/index.html").exists() and "index.html" not in capsys.readouterr().out


def test_a_page_of_someone_else_is_found_before_anything_is_made(run, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/index.html").write_text("<h1>My band</h1>")
    assert run("-o", "out") == 2
    assert "not a page of this program" in one_error(capsys)
    assert [path.read_text() for path in (tmp_path / "out").iterdir()] == ["<h1>My band</h1>"]


def test_the_page_shows_all_songs_of_the_folder(run, tmp_path):
    run("-o", "out", "-n", 2, "--seed", 5)
    run("-p", prompt_file(tmp_path), "-o", "out", "--seed", 6)
    ideas = page_data(tmp_path / "out/index.html")["ideas"]
    assert [(idea["file"], idea["recipe"]["seed"]) for idea in ideas] == [("0.mid", 5), ("1.mid", 6), ("2.mid", 6)]
    assert [bool(idea["fresh"]) for idea in ideas] == [False, False, True]


def test_an_interrupted_run_records_the_songs_it_wrote(run, tmp_path, monkeypatch):
    def second_is_interrupted(*arguments, **named):
        if (tmp_path / "out/0.mid").exists():
            raise KeyboardInterrupt
        return sample_songs(*arguments, **named)

    monkeypatch.setattr("backline.generation.session.BATCH", 1)
    monkeypatch.setattr("backline.generation.session.sample_songs", second_is_interrupted)
    assert run("-o", "out", "-n", 3, "--seed", 6) == EXIT_INTERRUPTED
    log = (tmp_path / "out/genconfigs.txt").read_text()
    assert '"seed": 6' in log
    assert '"0.mid"' in log
    assert '"1.mid"' not in log
    assert len(page_data(tmp_path / "out/index.html")["ideas"]) == 1


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


# ---------------------------------------------------------------- what to play

STEPS = TOKENIZER.vocabulary.steps_per_bar
TICKS_PER_BAR = QUARTERS_PER_BAR * TICKS_PER_QUARTER
FREE = {"temperature": [1, 1, 1, 1], "sampling_fn": "none", "num_bars": 6}
SUBSETS = [parts for n in range(len(PARTS) + 1) for parts in itertools.combinations(PARTS, n)]


@pytest.fixture
def play(given_path, tmp_path, monkeypatch):
    """Call generate.main in a folder with song.mid and that model; the exit code."""
    monkeypatch.chdir(tmp_path)
    song_file(tmp_path / "song.mid")
    (tmp_path / "free.json").write_text(json.dumps(FREE))

    def call(*arguments: object) -> int:
        sampling = [] if {"--genconfig", "--reproduce"} & set(arguments) else ["--genconfig", "free.json"]
        return generate.main(["-mp", str(given_path), *sampling, "-d", "cpu", *map(str, arguments)])

    return call


def bar_of(row: tuple) -> int:
    """Counted from 1."""
    return row[BAR] - FIRST_ID + 1


def onset(row: tuple) -> int:
    return (row[BAR] - FIRST_ID) * STEPS + row[START_POS] - FIRST_ID


def end(row: tuple) -> int:
    return onset(row) + row[NOTE_DUR] - FIRST_ID + 1


def pitch(row: tuple) -> int:
    return int(TOKENIZER.vocabulary.pitch_of_id[row[PITCH_INSTRUMENT]])


def lengths(folder: Path, number: int = 0) -> set[int]:
    """Of all tracks of a song and of its stems, in ticks."""
    paths = [folder / f"{number}.mid", *(folder / f"{number}-{part}.mid" for part in PARTS)]
    return {sum(message.time for message in track) for path in paths for track in mido.MidiFile(path).tracks}


def recipe_text(path: Path) -> str:
    return mido.MidiFile(path).tracks[0][0].text


@pytest.mark.parametrize(("given", "make"), [(given, make) for given in SUBSETS for make in SUBSETS
                                             if given and len(given) < len(PARTS) and not set(given) & set(make)])
def test_parts_are_made_for_given_ones_which_stay_note_for_note(play, tmp_path, capsys, given, make):
    made = make or tuple(part for part in PARTS if part not in given)
    arguments = ["--make", ",".join(make)] if make else []
    assert play("-p", "song.mid", "--given", ",".join(given), *arguments, "-o", "out", "--seed", 1) == 0
    song, whole = notes("song.mid"), notes("out/0.mid")
    assert of_parts(whole, given) == of_parts(song, given)
    new = [row for row in whole if part_of(row) not in given]
    assert {part_of(row) for row in new} == set(made)
    assert {bar_of(row) for row in new} <= set(range(1, 5))
    assert read_song(tmp_path / "out/0.mid").main_tempo() == 97
    captured = capsys.readouterr()
    dropped = ", ".join(part for part in PARTS if part not in given)
    assert f"notice: left out of the prompt: {dropped}\n" in captured.err
    assert f"{len(whole)} notes, {len(new)} of them new" in captured.out
    assert json.loads(recipe_text(tmp_path / "out/0.mid"))["wish"] == {
        "given": list(given), "make": list(make), "fill": [], "bars": 0, "loop": False}


@pytest.mark.parametrize("wish", [["--given", "bass"], ["--fill", "1-4"]])
def test_what_is_asked_for_does_not_stop_halfway_unless_max_steps_is_set(play, tmp_path, capsys, wish):
    (tmp_path / "four.json").write_text(json.dumps(FREE | {"max_steps": 4}))
    arguments = ["-p", "song.mid", *wish, "--make", "drums", "--seed", 1, "-o"]
    assert play(*arguments, "whole") == 0
    whole = of_parts(notes("whole/0.mid"), ("drums",))
    assert len(whole) > 4 and bar_of(whole[-1]) == 4 and "max_steps" not in capsys.readouterr().err
    assert play(*arguments, "cut", "--genconfig", "four.json") == 0
    n_bars = bar_of(whole[4]) - 1  # that of the first note too many is left out
    cut = of_parts(notes("cut/0.mid"), ("drums",))
    assert list(map(onset, cut)) == [onset(row) for row in whole if bar_of(row) <= n_bars]
    assert (f"seed 1 would have more than 4 new notes (max_steps); cut at the bar line, new bars left: "
            f"{n_bars}\n") in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--bars", 9], ["-p", "song.mid"], ["-p", "song.mid", "--bars", 9]])
def test_a_song_is_cut_at_a_bar_line(play, tmp_path, capsys, arguments):
    (tmp_path / "cut.json").write_text(json.dumps(FREE | {"max_steps": 7, "num_bars": 9, "all_parts": False}))
    (tmp_path / "longer.json").write_text(json.dumps(FREE | {"num_bars": 9, "all_parts": False}))
    n_given = len(notes("song.mid")) if "-p" in arguments else 0
    for name in ("cut", "longer"):
        assert play(*arguments, "--dtype", "fp32", "--genconfig", f"{name}.json", "-o", name, "-n", 4, "--seed", 3) == 0
    said = capsys.readouterr().err
    n_cut = 0
    for number in range(4):
        cut, longer = notes(f"cut/{number}.mid"), notes(f"longer/{number}.mid")
        if len(longer) - n_given <= 7:
            assert cut == longer
            continue
        n_cut += 1
        left = bar_of(longer[n_given + 7]) - 1
        assert list(map(onset, cut)) == [onset(row) for row in longer if bar_of(row) <= left]
        assert f"seed {3 + number} would have more than 7 new notes" in said
    assert n_cut and said.count("cut at the bar line") == n_cut


def test_from_scratch_sixteen_bars_from_the_first_beat_on_in_which_each_part_plays(play, tmp_path):
    (tmp_path / "plain.json").write_text(json.dumps({"temperature": [1, 1, 1, 1], "sampling_fn": "none"}))
    assert play("--genconfig", "plain.json", "-o", "out", "-n", 6, "--seed", 0) == 0
    for number in range(6):
        song = notes(f"out/{number}.mid")
        assert onset(song[0]) == 0 and bar_of(song[-1]) == 16
        assert all(len(set(map(bar_of, of_parts(song, (part,))))) >= 4 for part in PARTS)


@pytest.mark.parametrize(("switch", "n_bars", "holds"), [
    ("start_at_once", 6, lambda song: onset(song[0]) == 0), ("all_bars", 6, lambda song: bar_of(song[-1]) == 6),
    ("all_parts", 4, lambda song: {part_of(row) for row in song} == set(PARTS))])
def test_each_switch_from_scratch_can_be_off(play, model_path, tmp_path, switch, n_bars, holds):
    """With the two others off as well, songs are of many kinds."""
    off = dict.fromkeys(("start_at_once", "all_bars", "all_parts"), False)
    model = ["-mp", model_path] if switch == "all_bars" else []  # the other one always comes to the last bar
    for on in (True, False):
        (tmp_path / "some.json").write_text(json.dumps(FREE | off | {"num_bars": n_bars, switch: on}))
        assert play("--genconfig", "some.json", *model, "-o", str(on), "-n", 16, "--seed", 0) == 0
        assert all(holds(notes(f"{on}/{number}.mid")) for number in range(16)) == on


def test_a_song_that_ends_right_after_the_prompt_is_rejected(play, tmp_path, monkeypatch, capsys):
    make = LoadedModel.make

    def make_short(loaded, task, config, batch, *_):
        for seed, song in zip(batch, make(loaded, task, config, batch), strict=True):
            stays = song.notes[:, BAR] < FIRST_ID + 6 if seed < 2 * SEED_STEP else song.notes[:, BAR] > 0
            yield dataclasses.replace(song, notes=song.notes[stays], surprisals=song.surprisals[stays])

    monkeypatch.setattr(LoadedModel, "make", lambda *about: list(make_short(*about)))
    assert play("-p", "song.mid", "-o", "out", "--seed", 0, "--no-page") == 0
    said = capsys.readouterr().err
    for seed in (0, SEED_STEP):
        assert f"seed {seed} rejected: it would end within 2 bars after the prompt" in said
    assert read_recipe(tmp_path / "out/0.mid").seed >= 2 * SEED_STEP and bar_of(notes("out/0.mid")[-1]) > 6
    (tmp_path / "short.json").write_text(json.dumps(FREE | {"go_on": False}))
    assert play("-p", "song.mid", "-o", "out", "--seed", 0, "--no-page", "--genconfig", "short.json") == 0
    assert "rejected" not in capsys.readouterr().err and read_recipe(tmp_path / "out/1.mid").seed == 0


@pytest.mark.parametrize("wish", [["--given", "bass"], ["--fill", "1-2", "--make", "drums"]])
def test_what_is_made_depends_on_what_is_given(play, tmp_path, wish):
    other = [(*row[:PITCH_INSTRUMENT], row[PITCH_INSTRUMENT] + (5 if part_of(row) == "bass" else 0))
             for row in notes("song.mid")]
    TOKENIZER.create_midi_from_tokens(other).dump("other.mid")
    for name in ("song", "other"):
        play("-p", f"{name}.mid", *wish, "-o", name, "-n", 8, "--seed", 1)
    new = [[of_parts(notes(f"{name}/{i}.mid"), ("drums",)) for i in range(8)] for name in ("song", "other")]
    assert new[0] != new[1]


@pytest.mark.parametrize("make", [(), ("bass",), ("drums", "piano")])
@pytest.mark.parametrize(("text", "first", "last"), [("2-3", 2, 3), ("1", 1, 1), ("4", 4, 4), ("1-4", 1, 4)])
def test_a_fill_changes_these_bars_and_nothing_else(play, make, text, first, last):
    arguments = ["--make", ",".join(make)] if make else []
    assert play("-p", "song.mid", "--fill", text, *arguments, "-o", "out", "--seed", 2) == 0
    song, whole = notes("song.mid"), notes("out/0.mid")

    def is_kept(row: tuple) -> bool:
        return not first <= bar_of(row) <= last or part_of(row) not in (make or PARTS)

    assert list(filter(is_kept, whole)) == list(filter(is_kept, song))
    new = [row for row in whole if not is_kept(row)]
    assert new and not set(new) <= set(song)


def test_the_line_of_a_song_tells_of_its_file(play, tmp_path, capsys):
    """Also of strings that play no part, of notes that fall together on the grid, and of every tempo."""
    song = mido.MidiFile(type=1, ticks_per_beat=480)
    song.tracks.append(mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=500_000),
                                       mido.MetaMessage("set_tempo", tempo=1_000_000, time=1920)]))
    for text, program, channel, pitch, length in (("Bass", 33, 0, 40, 480), ("Roll", 0, 9, 38, 20),
                                                  ("Strings", 48, 1, 70, 480)):
        events = [mido.MetaMessage("track_name", name=text),
                  mido.Message("program_change", program=program, channel=channel)]
        for _ in range(4 * 1920 // length):
            events += [mido.Message("note_on", note=pitch, channel=channel),
                       mido.Message("note_off", note=pitch, channel=channel, time=length)]
        song.tracks.append(mido.MidiTrack(events))
    song.save(tmp_path / "roll.mid")
    assert play("-p", "roll.mid", "--given", "bass,drums", "--make", "piano", "-o", "out", "--seed", 1) == 0
    n_new = len(of_parts(notes("out/0.mid"), ("piano",)))
    line = capsys.readouterr().out.splitlines()[0].split("0.mid: ")[1]
    assert line.startswith(f"4 bars, 0:14, {16 + 384 + 16 + n_new} notes, {n_new} of them new (drums 384, bass 16, "
                           f"piano {n_new}, others 16), 60 BPM")


def test_a_hit_for_the_next_bar_is_in_no_bar_of_the_line_nor_of_the_chords(play, tmp_path, capsys):
    """A moment before the bar line, it is heard in bar 5 of a clip of four bars."""
    bar = QUARTERS_PER_BAR * TICKS_PER_QUARTER
    events = [mido.MetaMessage("track_name", name="Piano")]
    for pitches, gap, length in (*[((60, 64, 67), 0, bar)] * 3, ((60, 64, 67), 0, bar - 2), ((72,), 0, 40)):
        events += [mido.Message("note_on", note=pitch, time=gap) for pitch in pitches]
        events += [mido.Message("note_off", note=pitch, time=length * (i == 0)) for i, pitch in enumerate(pitches)]
    song = mido.MidiFile(type=1, ticks_per_beat=TICKS_PER_QUARTER)
    song.tracks.append(mido.MidiTrack(events))
    song.save(tmp_path / "early.mid")
    assert play("-p", "early.mid", "--given", "piano", "--make", "bass", "-o", "out", "--seed", 1) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0].split("0.mid: ")[1].startswith("4 bars, ")
    assert "; bars 1-4: C" in printed.err


def test_a_fill_of_silent_bars_is_said(play, tmp_path, capsys):
    later = [(row[0] + 2, *row[1:]) for row in notes("song.mid")]
    TOKENIZER.create_midi_from_tokens(later).dump("later.mid")
    silent = "no part plays in bars 1-2: nothing is replaced there"
    for bars, is_said in (("1-2", True), ("2-3", False)):
        assert play("-p", "later.mid", "--fill", bars, "-o", "out", "--seed", 2) == 0
        assert (silent in capsys.readouterr().err) == is_said


def test_a_song_without_a_part_gets_none_in_a_fill_unless_it_is_named(play, tmp_path):
    song_file(tmp_path / "duo.mid", ("drums", "piano"))
    for seed in range(3):
        play("-p", "duo.mid", "--fill", "2-3", "-o", "plain", "--seed", seed)
        assert not of_parts(notes(f"plain/{seed}.mid"), ("bass",))
    play("-p", "duo.mid", "--fill", "2-3", "--make", "bass", "-o", "named")
    assert of_parts(notes("named/0.mid"), ("bass",))
    assert of_parts(notes("named/0.mid"), ("drums", "piano")) == notes("duo.mid")


@pytest.mark.parametrize("n_bars", [1, 4])
def test_exactly_so_many_bars_and_none_rings_past_the_end_of_a_loop(play, tmp_path, n_bars):
    play("--bars", n_bars, "-o", "plain", "-n", 6, "--seed", 0)
    play("--bars", n_bars, "--loop", "-o", "loop", "-n", 6, "--seed", 0)
    for number in range(6):
        assert {bar_of(row) for row in notes(f"plain/{number}.mid")} >= {n_bars}
        assert bar_of(notes(f"plain/{number}.mid")[-1]) == bar_of(notes(f"loop/{number}.mid")[-1]) == n_bars
        assert min(lengths(tmp_path / "plain", number)) >= n_bars * TICKS_PER_BAR
        assert lengths(tmp_path / "loop", number) == {n_bars * TICKS_PER_BAR}
        assert max(map(end, notes(f"loop/{number}.mid"))) <= n_bars * STEPS
    ends = [max(map(end, notes(f"plain/{number}.mid"))) for number in range(6)]
    assert max(ends) > n_bars * STEPS


def test_so_many_bars_after_a_prompt(play, tmp_path):
    for number in range(3):
        assert play("-p", "song.mid", "--bars", 3, "--loop", "-o", "out", "--seed", number) == 0
        song, whole = notes("song.mid"), notes(f"out/{number}.mid")
        assert whole[:len(song)] == song and bar_of(whole[-1]) == 4 + 3
        assert lengths(tmp_path / "out", number) == {7 * TICKS_PER_BAR}


def test_a_loop_for_given_parts_or_bars_lasts_whole_bars(play, tmp_path):
    for number, wish in enumerate([["--given", "piano"], ["--fill", "3-4"]]):
        play("-p", "song.mid", *wish, "--loop", "-o", "out", "--seed", number)
        assert lengths(tmp_path / "out", number) == {4 * TICKS_PER_BAR}
        assert notes(f"out/{number}.mid") != notes("song.mid")


def test_same_parts_as_the_prompt(play, tmp_path):
    song_file(tmp_path / "duo.mid", ("drums", "bass"))
    n_prompt = len(notes("duo.mid"))
    for folder, arguments in (("plain", []), ("same", ["--same-parts"]), ("to", ["--same-parts", "--given", "bass"])):
        assert play("-p", "duo.mid", *arguments, "-o", folder, "-n", 3, "--seed", 0) == 0
    plain, same = ([row for i in range(3) for row in notes(f"{folder}/{i}.mid")[n_prompt:]]
                   for folder in ("plain", "same"))
    assert {part_of(row) for row in plain} == set(PARTS)
    assert {part_of(row) for row in same} == {"drums", "bass"}
    assert {part_of(row) for i in range(3) for row in notes(f"to/{i}.mid")} == {"drums", "bass"}
    assert of_parts(notes("to/0.mid"), ("bass",)) == of_parts(notes("duo.mid"), ("bass",))


def test_only_some_parts_from_scratch(play):
    assert play("--make", "piano bass", "-o", "out", "-n", 3, "--seed", 0) == 0
    assert {part_of(row) for i in range(3) for row in notes(f"out/{i}.mid")} == {"bass", "piano"}


# ---------------------------------------------------------------- rules


def in_a_minor(song: list) -> bool:
    return all(pitch(row) % 12 in {9, 11, 0, 2, 4, 5, 7} for row in of_parts(song, ("bass", "piano")))


def low_bass_and_kick(song: list) -> bool:
    allowed = {"drums": {35, 36, 49}, "bass": set(range(28, 41)), "piano": set(range(128))}
    return all(pitch(row) in allowed[part_of(row)] for row in song)


def one_at_a_time(song: list) -> bool:
    voices = [of_parts(song, (part,)) for part in ("bass", "piano")]
    return all(end(a) <= onset(b) for voice in voices for a, b in itertools.pairwise(voice))


def all_bars_sound(song: list) -> bool:
    return {bar_of(row) for row in song} == set(range(1, 7))


@pytest.mark.parametrize(("arguments", "holds"), [
    (["--key", "A", "--scale", "minor"], in_a_minor), (["--key", "C"], in_a_minor),
    (["--pitches", "bass=28-40", "--pitches", "drums = kick, 49"], low_bass_and_kick),
    (["--mono", "piano, bass"], one_at_a_time), (["--no-empty-bars"], all_bars_sound)])
@pytest.mark.parametrize("source", ["flag", "genconfig"])
def test_rules_shape_the_song(play, tmp_path, arguments, holds, source):
    play("--bars", 6, "-o", "plain", "-n", 4, "--seed", 0)
    assert not all(holds(notes(f"plain/{i}.mid")) for i in range(4))
    if source == "genconfig":
        parsed = generate.gen_config(generate.build_parser().parse_args(arguments)).rules
        (tmp_path / "rules.json").write_text(json.dumps(FREE | {"rules": parsed.__dict__}))
        arguments = ["--genconfig", "rules.json"]
    assert play("--bars", 6, *arguments, "-o", "ruled", "-n", 4, "--seed", 0) == 0
    assert all(holds(notes(f"ruled/{i}.mid")) for i in range(4))


def test_flags_come_before_the_rules_of_genconfig_and_leave_the_others(tmp_path):
    (tmp_path / "rules.json").write_text(json.dumps({"rules": {
        "key": "C", "scale": "minor", "pitches": {"bass": "30", "drums": "kick"}, "monophonic": ["bass"]}}))

    def rules_of(*arguments: str):
        arguments = ["--genconfig", str(tmp_path / "rules.json"), *arguments]
        return generate.gen_config(generate.build_parser().parse_args(arguments)).rules

    ruled = rules_of("--key", "F", "--pitches", "bass=40", "--no-empty-bars")
    assert (ruled.key, ruled.scale, ruled.monophonic, ruled.no_empty_bars) == ("F", "minor", ("bass",), True)
    assert ruled.pitches == {"bass": "40", "drums": "kick"}
    assert rules_of("--scale", "dorian").scale == "dorian"
    assert rules_of("--key", "", "--mono", "").monophonic == () and rules_of("--key", "").key == ""


@pytest.mark.parametrize(("arguments", "key", "scale"), [
    (["--key", "Am"], "A", "minor"), (["--key", "am", "--scale", "dor"], "A", "dorian"), (["--key", "F"], "F", "minor"),
    (["--key", "F major"], "F", "major"), (["--scale", "maj"], "C", "major"), (["--key", "B flat"], "Bb", "minor")])
def test_keys_and_scales_in_the_words_of_musicians(tmp_path, arguments, key, scale):
    (tmp_path / "rules.json").write_text(json.dumps({"rules": {"key": "Cm"}}))
    parse = generate.build_parser().parse_args
    rules = generate.gen_config(parse(["--genconfig", str(tmp_path / "rules.json"), *arguments])).rules
    assert (rules.key, rules.scale) == (key, scale)


def test_parts_in_the_words_of_musicians_are_those_of_the_vocabulary():
    args = generate.build_parser().parse_args([
        "--pitches", "Kit=kick", "--mono", "Keys, bass guitar", "--density", "KEYS=busy", "--rests", "e-bass=1"])
    config = with_part_names(generate.gen_config(args), TOKENIZER.vocabulary)
    assert config.rules.pitches == {"drums": "kick"} and config.rules.monophonic == ("bass", "piano")
    assert config.controls.density == {"piano": "busy"} and config.controls.rests == {"bass": "1"}
    assert config == with_part_names(config, TOKENIZER.vocabulary)


def test_feel_and_temperature_are_settings_of_sampling():
    def settings(*arguments: str) -> GenConfig:
        return generate.gen_config(generate.build_parser().parse_args(arguments))

    assert settings("--temperature", "1.1").temperature == (1.1,) * 4
    safer, plain, wilder = settings("--feel", "safer"), settings(), settings("--feel", "wilder")
    assert safer.temperature <= plain.temperature <= wilder.temperature and safer != plain != wilder
    assert safer.threshold <= plain.threshold <= wilder.threshold


def test_a_prompt_is_heard_and_a_song_has_its_length(run, tmp_path, capsys):
    song = prompt_file(tmp_path, tempo=120)
    assert run("-p", song, "--key", "Am", "--scale", "dorian", "-o", "out", "--seed", 1) == 0
    out, err = capsys.readouterr()
    assert re.search(r"^notice: heard: .*bars 1-2: ", err, re.M)
    assert "notice: --key Am --scale dorian: the scale is A dorian" in err
    n_bars, minutes, seconds = map(int, re.search(r"out/0.mid: (\d+) bars, (\d+):(\d\d), ", out).groups())
    assert 60 * minutes + seconds == 2 * n_bars and "BPM" in out


@pytest.mark.parametrize(("settings", "text"), [
    ({"rules": {"scale": "minor"}}, "odd.json: rules.scale minor: needs a --key"),
    ({"top_p": [0.9, 0, 0.9, 0.9]}, r"odd.json: top_p=\[0.9, 0.0, 0.9, 0.9\] must be above 0"),
    ({"sampling_fn": "top_p", "threshold": [0.9, 0, 0.9, 0.9]}, "threshold")])
def test_settings_that_say_nothing_are_refused(play, tmp_path, capsys, settings, text):
    (tmp_path / "odd.json").write_text(json.dumps(FREE | settings))
    assert play("--genconfig", "odd.json", "-o", "out") == 2
    assert re.search(text, one_error(capsys)) and not Path("out").exists()


def test_a_scale_that_waits_for_a_key(tmp_path):
    (tmp_path / "scale.json").write_text(json.dumps({"rules": {"scale": "minor"}}))
    parse = generate.build_parser().parse_args
    for key in ("A", ""):
        rules = generate.gen_config(parse(["--genconfig", str(tmp_path / "scale.json"), "--key", key])).rules
        assert (rules.key, rules.scale) == (key, "minor")


def test_weights_of_each_kind_make_valid_songs_and_surprise_a_little_differently(play, tmp_path, monkeypatch):
    sampled = []
    monkeypatch.setattr("backline.generation.session.sample_songs",
                        lambda *a, **k: sampled.append(sample_songs(*a, **k)) or sampled[-1])
    for dtype in ENGINE_DTYPES:
        assert play("-p", "song.mid", "--given", "bass", "--dtype", dtype, "-o", dtype, "--seed", 4) == 0
        whole = notes(f"{dtype}/0.mid")
        assert of_parts(whole, ("bass",)) == of_parts(notes("song.mid"), ("bass",)) != whole
        assert read_recipe(tmp_path / dtype / "0.mid").dtype == dtype
        assert f'"dtype": "{dtype}"' in (tmp_path / dtype / "genconfigs.txt").read_text()
    exact, *others = (songs[0].surprisals[0] for songs in sampled)
    assert all(0 < abs(nats - exact) < 0.3 for nats in others)


@pytest.mark.parametrize("dtype", ENGINE_DTYPES)
def test_weights_of_each_kind_make_several_songs(play, dtype):
    assert play("-p", "song.mid", "--given", "bass", "--dtype", dtype, "-o", "out", "-n", 6, "--seed", 4) == 0
    assert len({str(notes(f"out/{i}.mid")) for i in range(6)}) == 6


# ---------------------------------------------------------------- making a song again


@pytest.mark.parametrize(("arguments", "song"), [
    ([], "0.mid"), (["-p", "song.mid", "-pi", 30], "0.mid"), (["-p", "song.mid", "--given", "bass,piano"], "0.mid"),
    (["-p", "song.mid", "--fill", "2-3", "--make", "bass"], "0.mid"), (["-n", 3], "1.mid"),
    (["-n", 3, "-p", "song.mid", "--given", "drums"], "2.mid"), (["--genconfig", "ruled.json", "--key", "D"], "0.mid"),
    (["--bars", 2, "--loop", "--dtype", "int8"], "0.mid"),
    (["-p", "song.mid", "--same-parts"], "0-bass.mid"), (["--bars", 1, "-n", 2], "1-piano.mid")])
def test_reproduce_makes_the_same_bytes(play, tmp_path, capsys, arguments, song):
    (tmp_path / "ruled.json").write_text(json.dumps(FREE | {"max_steps": 9, "rules": {"monophonic": ["bass"]}}))
    assert play(*arguments, "-o", "a", "--seed", 2**32 - 1) == 0
    capsys.readouterr()
    assert play("--reproduce", f"a/{song}", "-o", "b") == 0
    captured = capsys.readouterr()
    assert f"the same bytes as a/{song}" in captured.out.replace(os.sep, "/") and captured.err == ""
    number = song[0]
    for stem in ("", *(f"-{part}" for part in PARTS)):
        assert (tmp_path / f"a/{number}{stem}.mid").read_bytes() == (tmp_path / f"b/0{stem}.mid").read_bytes()


def test_songs_made_again_are_numbered_on(play, tmp_path):
    play("-o", "out", "--seed", 3)
    before = (tmp_path / "out/0.mid").read_bytes()
    assert play("--reproduce", "out/0.mid", "-o", "out") == 0
    assert (tmp_path / "out/1.mid").read_bytes() == before == (tmp_path / "out/0.mid").read_bytes()


def stars_file(*songs: str) -> None:
    """stars.json as the page exports it."""
    starred = [{"file": Path(song).name, "hash": file_hash(Path(song)), "note": "",
                "recipe": recipe_to_dict(read_recipe(Path(song)))} for song in songs]
    Path("stars.json").write_text(json.dumps({"format": "pooled-stars", "version": 1, "songs": starred}))


def test_stars_are_made_again_one_after_another(play, tmp_path, capsys):
    play("-n", 3, "-o", "a", "--seed", 5)
    play("-p", "song.mid", "--given", "bass", "-o", "a", "--seed", 8)
    stars_file("a/2.mid", "a/0.mid", "a/3.mid")
    capsys.readouterr()
    assert play("--reproduce", "stars.json", "-o", "b") == 0
    assert capsys.readouterr().out.count("the same bytes as") == 3
    for number, original in enumerate((2, 0, 3)):
        assert (tmp_path / f"b/{number}.mid").read_bytes() == (tmp_path / f"a/{original}.mid").read_bytes()
    assert (tmp_path / "b/index.html").exists()


def test_one_star_that_comes_out_otherwise_is_enough_to_say_so(play, tmp_path, capsys):
    play("-n", 2, "-o", "a", "--seed", 5)
    edit(tmp_path / "a/1.mid")
    stars_file("a/0.mid", "a/1.mid")
    assert play("--reproduce", "stars.json", "-o", "b") == 1
    assert "not the same bytes as 1.mid" in capsys.readouterr().out


def test_nothing_is_made_again_before_every_star_can_be(play, tmp_path, capsys):
    play("-o", "a", "--seed", 5)
    play("-p", "song.mid", "--given", "bass", "-o", "a", "--seed", 8)
    stars_file("a/0.mid", "a/1.mid")
    Path("song.mid").unlink()
    capsys.readouterr()
    assert play("--reproduce", "stars.json", "-o", "b") == 2
    assert "say with -p where the prompt of 1.mid is now" in one_error(capsys) and not (tmp_path / "b").exists()


def test_a_prompt_that_was_moved_is_named_anew(play, tmp_path, capsys):
    play("-p", "song.mid", "--given", "bass", "-o", "out", "--seed", 3)
    Path("song.mid").rename("moved.mid")
    capsys.readouterr()
    assert play("--reproduce", "out/0.mid", "-o", "again") == 2
    message = one_error(capsys)
    assert message.startswith("error: song.mid: no such file") and "-p" in message
    assert play("--reproduce", "out/0.mid", "-o", "again", "-p", "moved.mid") == 0
    assert (tmp_path / "again/0.mid").read_bytes() == (tmp_path / "out/0.mid").read_bytes()


def edit(path: Path) -> None:
    """Play the first note of a song a little softer."""
    file = mido.MidiFile(path)
    next(message for track in file.tracks for message in track if message.type == "note_on").velocity -= 1
    file.save(path)


def test_other_bytes_are_said_to_be_so_and_what_has_changed_around_them(play, tmp_path, monkeypatch, capsys):
    play("-o", "out", "--make", "drums", "--seed", 3)
    monkeypatch.setattr("backline.generation.reproduce.song_surroundings",
                        lambda of_player: song_surroundings(of_player) | {"onnxruntime": "0.1"})
    assert play("--reproduce", "out/0.mid", "-o", "again") == 0  # it came out the same all the same
    edit(tmp_path / "out/0.mid")
    capsys.readouterr()
    assert play("--reproduce", "out/0.mid", "-o", "again") == 1
    printed = capsys.readouterr().out
    assert "not the same bytes" in printed and f"onnxruntime was {onnxruntime.__version__}, is 0.1" in printed
    assert "numpy" not in printed
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert play("--reproduce", "out/0.mid", "-o", "again") == 1
    assert "was it edited?" in capsys.readouterr().out


def test_reproduce_needs_the_model_and_the_prompt_it_was_made_with(play, model_path, tmp_path, capsys):
    play("-p", "song.mid", "-o", "out", "--seed", 3)
    play("-o", "scratch", "--seed", 3)
    (tmp_path / "noted.txt").write_text("no MIDI")
    edit(tmp_path / "song.mid")
    edited = Path("song.mid").read_bytes()
    capsys.readouterr()
    for arguments, text in [
            (["out/0.mid", "-mp", model_path], "made by another model, given.safetensors"),
            (["out/0.mid", "-mp", "gone.safetensors"], "gone.safetensors: no such file"),
            (["out/0.mid"], "song.mid: not the prompt that out/0.mid was made of; name that one with -p"),
            (["out/0.mid", "-p", "gone.mid"], "gone.mid: no such file"),
            (["scratch/0.mid", "-p", "song.mid"], "made without a prompt"),
            (["song.mid"], "song.mid: holds no recipe"), (["noted.txt"], "noted.txt: not a MIDI file"),
            (["gone.mid"], "gone.mid: no such file"), (["out"], "out: a folder")]:
        assert play("--reproduce", *arguments, "-o", "again") == 2
        assert text in one_error(capsys).replace(os.sep, "/")
    assert not (tmp_path / "again").exists() and Path("song.mid").read_bytes() == edited


@pytest.mark.parametrize("arguments", [
    ["-n", 2], ["--seed", 0], ["--dtype", "bf16"], ["--genconfig", "free.json"], ["-pi", 3], ["-sp"], ["-pe"],
    ["--png"], ["--force"], ["--best-of", 4], ["--check-copies"],
    ["--max-copy", 40], ["--given", "bass"], ["--make", "bass"], ["--same-parts"], ["--missing"],
    ["--watch", "."], ["--fill", "1"], ["--bars", 2], ["--loop"], ["--key", "A"], ["--scale", "minor"],
    ["--pitches", "bass=40"], ["--mono", "bass"], ["--no-empty-bars"]])
def test_reproduce_refuses_what_it_would_ignore(run, play, capsys, arguments):
    play("-o", "out", "--seed", 3)
    capsys.readouterr()
    assert play("--reproduce", "out/0.mid", "-o", "again", *arguments) == 2
    message = one_error(capsys)
    assert "from the recipe; leave out" in message and message.endswith(f" {arguments[0]}")
    assert not Path("again").exists()


# ---------------------------------------------------------------- the recipe and the log


@pytest.mark.parametrize("all_silent", [False, True])
def test_songs_without_a_part_that_was_asked_for_are_rejected(play, tmp_path, monkeypatch, capsys, all_silent):
    make = LoadedModel.make

    def make_less(loaded, task, config, batch, *_):
        for seed, song in zip(batch, make(loaded, task, config, batch), strict=True):
            stays = np.array([part_of(row) != "piano" for row in song.notes.tolist()]) | (not all_silent and seed != 1)
            yield dataclasses.replace(song, notes=song.notes[stays], surprisals=song.surprisals[stays])

    monkeypatch.setattr(LoadedModel, "make", lambda *about: list(make_less(*about)))
    song_file(tmp_path / "some.mid", ("drums",))
    assert play("-p", "some.mid", "--missing", "-o", "out", "-n", 2, "--seed", 0, "--no-page") == 0
    seeds = [read_recipe(tmp_path / f"out/{number}.mid").seed for number in range(2)]
    said = capsys.readouterr().err
    rejected = [int(seed) for seed in re.findall(r"seed (\d+) rejected: .* silent", said)]
    tries = range(1, 1 + TRIES * SEED_STEP, SEED_STEP)
    if all_silent:
        assert seeds == [0, 1] and rejected[1::2] == list(tries)
        assert said.count(f"kept after {TRIES} tries") == 2
    else:
        assert all({part_of(row) for row in notes(f"out/{number}.mid")} == set(PARTS) for number in range(2))
        assert 1 in rejected and seeds[1] in tries[1:]


def test_other_parts_that_fall_silent_are_pointed_out(play, capsys):
    play("-p", "song.mid", "--make", "drums", "-o", "out", "--bars", 1, "--no-page")
    assert "continuing with drums only" in (said := capsys.readouterr().err) and "--given bass,piano" in said
    for arguments in (["--same-parts"], ["--make", "drums,bass,piano"]):
        play("-p", "song.mid", *arguments, "-o", "out", "--bars", 1, "--no-page")
        assert "continuing" not in capsys.readouterr().err


def test_recipe_and_log_say_what_was_asked_for(play, tmp_path, given_path):
    play("-p", "song.mid", "--fill", "2-3", "--make", "bass", "--mono", "bass", "-o", "out", "-n", 2, "--seed", 8)
    recipe, text = read_recipe(tmp_path / "out/1.mid"), recipe_text(tmp_path / "out/1.mid")
    assert recipe.wish == Wish(make=("bass",), fill=(2, 3)) and recipe.genconfig.rules.monophonic == ("bass",)
    assert (recipe.seed, recipe.batch, recipe.prompt, recipe.model) == (9, (8, 9), "song.mid", "given.safetensors")
    for folder in (tmp_path, given_path.parent, ROOT, Path.home()):
        assert str(folder) not in text
    log = (tmp_path / "out/genconfigs.txt").read_text()
    record = json.loads(log[log.index("{"):])
    assert record["wish"] == {"given": [], "make": ["bass"], "fill": [2, 3], "bars": 0, "loop": False}
    assert record["genconfig"]["rules"]["monophonic"] == ["bass"]
    assert [(song["file"], song["seed"]) for song in record["songs"]] == [("0.mid", 8), ("1.mid", 9)]


def test_a_generated_song_is_a_prompt_like_any_other(play):
    play("--bars", 2, "--loop", "-o", "out", "--seed", 3)  # its last note ends with bar 2
    assert play("-p", "out/0.mid", "--bars", 2, "-o", "out", "--seed", 3) == 0
    first, second = notes("out/0.mid"), notes("out/1.mid")
    assert list(map(onset, second[:len(first)])) == list(map(onset, first)) and bar_of(second[-1]) == 4
    assert list(map(pitch, second[:len(first)])) == list(map(pitch, first))  # where it is struck anew, a note ends


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
    (["-n", "0"], "at least 1"), (["--seed", "-1"], "from 0"), (["--seed", "9" * 30], "from 0"),
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


@pytest.mark.parametrize(("arguments", "text"), [
    (["-p", "song.mid", "--given", "banjo"], "unknown part 'banjo'; the model plays drums, bass, piano"),
    (["-p", "song.mid", "--given", "bass", "--make", "banjo"], "unknown part 'banjo'"),
    (["--make", "banjo"], "unknown part 'banjo'"), (["--make", ""], "names no part"), (["--make", ","], "no part"),
    (["-p", "song.mid", "--given", ""], "names no part"),
    (["-p", "song.mid", "--given", "bass,drums", "--make", "drums"], "drums is both given and to be made"),
    (["-p", "duo.mid", "--given", "piano"], "the prompt has no piano; it has drums, bass"),
    (["-p", "song.mid", "--given", "drums,bass,piano"], "names all parts"),
    (["-p", "song.mid", "-pi", "1", "--given", "bass"], "needs a song"),
    (["-p", "song.mid", "--given", "bass", "--fill", "2"], "--fill keeps all"),
    (["-p", "song.mid", "--fill", "5"], "--fill 5: the song has 4 bars"),
    (["-p", "song.mid", "--fill", "3-9"], "--fill 3-9: the song has 4 bars"),
    (["-p", "song.mid", "--fill", "0-2"], "--fill 0-2"), (["-p", "song.mid", "--fill", "3-2"], "--fill 3-2"),
    (["-p", "song.mid", "--fill", "two"], "--fill two"), (["-p", "song.mid", "--fill", ""], "--fill "),
    (["--fill", "2-3"], "--fill needs a song to play to; give one with -p"),
    (["--given", "bass"], "--given needs a song to play to; give one with -p"),
    (["--bars", "0"], "--bars 0"), (["--bars", "-4"], "--bars -4"), (["--bars", "257"], "256 bars are left"),
    (["-p", "song.mid", "--bars", "256"], "255 bars are left"),
    (["-p", "song.mid", "--bars", "2", "--fill", "2"], "--bars is for new bars"),
    (["-p", "song.mid", "--bars", "2", "--given", "bass"], "--bars is for new bars"),
    (["--loop"], "--loop: .* with --bars"), (["-p", "song.mid", "--loop"], "--loop: .* with --bars"),
    (["--same-parts"], "--same-parts"), (["-p", "song.mid", "--same-parts", "--make", "bass"], "--same-parts"),
    (["-p", "song.mid", "--same-parts", "--fill", "2"], "--same-parts: --fill"),
    (["-p", "song.mid", "-pi", "1", "--same-parts"], "--same-parts: the prompt has no parts;"),
    (["-p", "duo.mid", "--same-parts", "--given", "drums,bass"], "no parts besides those given"),
    (["--scale", "minor"], "--scale minor: needs a --key"), (["--key", "H"], "key 'H'"),
    (["--key", "Am", "--scale", "major"], "--key Am --scale major: .* name one of them"),
    (["--key", "keep"], "--key keep: .* give one with -p"), (["--chords", "keep"], "--chords keep: .* with -p"),
    (["-p", "song.mid", "--key", "keep", "--scale", "minor"], "--key keep: keeps the scale, too"),
    (["--feel", "safer", "--temperature", "1.1"], "--feel safer sets the temperature itself"),
    (["--feel", "safest"], "did you mean 'safer'"), (["--temprature", "1.1"], "did you mean '--temperature'"),
    (["--temperature", "0"], "above 0"), (["--temperature", "nan"], "above 0"), (["--temperature", "hot"], "'hot'"),
    (["--make", "pianno"], "did you mean 'piano'"), (["--pitches", "bass=C3-C1"], "'C3-C1': a range goes up"),
    (["--pitches", "Bass=40", "--pitches", "e-bass=41"], "bass is named before"),
    (["--rests", "drums"], "rests 'drums': give a part and its level"),
    (["--scale", "minor", "--key", ""], "needs a --key"), (["--key", "A", "--scale", "mayor"], "scale 'mayor'"),
    (["--pitches", "bass"], "--pitches bass: give a part"), (["--pitches", "bass=52-28"], "'52-28'"),
    (["--pitches", "bass="], "names none"), (["--pitches", "banjo=60"], "unknown part 'banjo'"),
    (["--pitches", "bass=1-9"], "leave bass no pitch of its range, 21 to 108"),
    (["--pitches", "bass=40", "--pitches", "bass=41"], "bass was named before"),
    (["--pitches", "bass=37", "--key", "C"], "pitches 37 and the key C major leave bass no pitch"),
    (["--make", "bass", "--mono", "piano"], "a rule for piano, which is not made"),
    (["-p", "song.mid", "--given", "bass", "--pitches", "bass=40"], "a rule for bass, which is not made"),
    (["-p", "song.mid", "--fill", "2", "--make", "drums", "--key", "A"], "--key A: .* no other is made"),
    (["--mono", "banjo"], "unknown part 'banjo'"), (["-o", "song.mid"], "song.mid: a file stands"),
    (["--best-of", "0"], "--best-of 0"), (["--best-of", "-1"], "--best-of -1"),
    (["-n", "3", "--best-of", "2"], "--best-of 2: at least as many as -n 3"),
    (["-n", "0"], "-n 0"), (["-sp"], "no prompt to save"), (["-pi", "4"], "-pi 4"), (["--seed", "-1"], "--seed -1"),
    (["-p", "gone.mid", "--given", "bass"], "gone.mid")])
def test_wishes_that_cannot_be(play, tmp_path, capsys, arguments, text):
    song_file(tmp_path / "duo.mid", ("drums", "bass"))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert play("-o", "out", *arguments) == 2
    assert re.search(text, one_error(capsys))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("wish", [["--given", "bass"], ["--fill", "1"]])
def test_a_model_that_was_not_trained_for_given_notes_says_how_to_get_one(run, tmp_path, capsys, wish):
    assert run("-p", prompt_file(tmp_path), *wish, "-o", "out") == 2
    message = one_error(capsys)
    assert "tiny.safetensors: not trained" in message and "bundled.safetensors" in message and "-mp" in message
    assert not (tmp_path / "out").exists()


def test_help_needs_no_torch():
    assert "Example  python generate.py" in help_without("generate", "torch")


def test_a_number_format_that_the_engine_lacks_is_one_line(play, capsys):
    assert play("--dtype", "bf16", "-o", "out") == 2
    assert one_error(capsys) == "error: --dtype bf16 plays on a GPU alone; on the CPU take fp32 or int8"


def test_a_tempo_that_no_midi_holds_is_one_line(play, capsys):
    assert play("--tempo", 0, "-o", "out") == 2
    assert "--tempo: tempo must be" in one_error(capsys)
