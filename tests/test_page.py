"""page.py: a page says what the MIDI files say, whatever is in them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import mido
import numpy as np
import pretty_midi
import pytest
from commands import fails, help_without, succeeds
from pages import RECIPE, TEMPO, TOKENIZER, V, notes_by_pretty_midi, page_data, write_idea
from random_songs import BAND, random_song

import page
from backline.common.files import file_hash
from backline.generation.config import GenConfig, RuleConfig
from backline.generation.output_files import song_bytes, write_song
from backline.generation.recipes import STARS_FORMAT, read_originals, recipe_from_dict
from backline.generation.run_log import log_run
from backline.generation.wish import Wish
from backline.listening import ideas_page
from backline.listening.blind_page import excerpt
from backline.listening.votes import read_votes
from backline.music.midi_writer import parts_to_bytes
from backline.music.song import TICKS_PER_QUARTER
from backline.music.vocab import BAR, FIRST_ID, QUARTERS_PER_BAR
from tokenizer import MidiTokenizerPooled

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
BAR_TICKS = QUARTERS_PER_BAR * TICKS_PER_QUARTER
ROWS = random_song(3, 80, 6)


def shown(folder: Path) -> list[dict]:
    succeeds(page.main, [folder])
    return page_data(folder / "index.html")["ideas"]


def in_quarters(idea: dict) -> list[tuple]:
    """(part, onset, end, pitch) of an idea on a page."""
    ticks = idea["ticks_per_quarter"]
    return sorted((p, round(onset / ticks, 4), round(end / ticks, 4), pitch)
                  for p, part in enumerate(idea["notes"]) for onset, end, pitch, *_ in part)


def old_pairs(idea: dict) -> set[tuple[int, int, int]]:
    """(part, onset, pitch) of the notes that a page shows as there before."""
    return {(p, onset, pitch) for p, part in enumerate(idea["notes"]) for onset, _, pitch, old, *_ in part if old}


def onset_pairs(rows: np.ndarray) -> set[tuple[int, int, int]]:
    parts = TOKENIZER.rows_to_parts(rows, TICKS_PER_QUARTER)
    return {(p, onset, pitch) for p, part in enumerate(parts) for onset, _, pitch in part.tolist()}


def whole_bars(path: Path) -> int:
    """The bars that a song of ours lasts: its tracks end with the last."""
    song = mido.MidiFile(path)
    ticks = max(sum(message.time for message in track) for track in song.tracks)
    assert ticks % (4 * song.ticks_per_beat) == 0
    return ticks // (4 * song.ticks_per_beat)


def prompt_file(path: Path, rows: np.ndarray) -> Path:
    path.write_bytes(parts_to_bytes(TOKENIZER.rows_to_parts(rows, TICKS_PER_QUARTER), V, TICKS_PER_QUARTER, TEMPO))
    return path


# ---------------------------------------------------------------- what a page holds


def test_notes_tempo_and_bars_are_those_of_the_midi(tmp_path):
    paths = [write_idea(tmp_path, number) for number in (0, 2, 11)]
    ideas = shown(tmp_path)
    assert [idea["file"] for idea in ideas] == ["0.mid", "2.mid", "11.mid"]  # by number, not by letter
    for idea, path in zip(ideas, paths, strict=True):
        assert in_quarters(idea) == notes_by_pretty_midi(path)
        assert idea["tempo"] == TEMPO and idea["hash"] == file_hash(path)
        assert idea["bars"] == whole_bars(path)


def test_songs_that_other_runs_write_meanwhile_are_shown_and_those_that_go_are_not(tmp_path, monkeypatch):
    def idea_data(path: Path, *arguments: object) -> dict:
        if path.name == "2.mid":
            write_idea(tmp_path, 3)
            path.unlink()
        return plain(path, *arguments)

    plain = ideas_page.idea_data
    monkeypatch.setattr(ideas_page, "idea_data", idea_data)
    for number in (0, 2):
        write_idea(tmp_path, number)
    assert [idea["file"] for idea in shown(tmp_path)] == ["0.mid", "3.mid"]


def test_recipe_links_and_parts(tmp_path):
    write_idea(tmp_path, 0, genconfig=GenConfig(rules=RuleConfig("A", "minor", {"bass": "28-52"})))
    (tmp_path / "0-bass.mid").unlink()
    (idea,) = shown(tmp_path)
    assert [(link["label"], link["file"]) for link in idea["files"]] == [
        ("all parts", "0.mid"), *((name, f"0-{name}.mid") for name in V.part_names if name != "bass")]
    recipe = recipe_from_dict(idea["recipe"], "page")
    assert (recipe.seed, recipe.genconfig.rules.key) == (100, "A")
    rows = dict(idea["recipe_rows"])
    assert rows["seed"] == "100" and rows["key"] == "A minor" and rows["may play"] == "bass 28-52"
    assert rows["how boldly"].startswith("temperature 1;")
    assert idea["recipe_summary"] == "How it was made: from nothing, with seed 100"
    parts = page_data(tmp_path / "index.html")["parts"]
    assert parts == [{"name": part.name, "drum": part.is_drum, "program": part.program} for part in V.parts]


def test_songs_without_a_recipe_and_silent_ones_are_shown(tmp_path):
    shutil.copy(EXAMPLES / "prompt.mid", tmp_path / "0.mid")
    write_idea(tmp_path, 1, ROWS[:0])
    without, silent = shown(tmp_path)
    assert without["recipe"] is None and without["recipe_rows"] == [] and in_quarters(without)
    assert silent["bars"] == 1 and not in_quarters(silent) and silent["recipe"]


def test_the_same_songs_give_the_same_bytes_and_nothing_from_elsewhere(tmp_path):
    write_idea(tmp_path, 0)
    succeeds(page.main, [tmp_path])
    first = (tmp_path / "index.html").read_bytes()
    succeeds(page.main, [tmp_path])
    assert (tmp_path / "index.html").read_bytes() == first
    addresses = set(re.findall(rb"https?://[^\"']+|(?:src|@import|url\()=?[^;\s]+", first))
    assert addresses <= {b"http://www.w3.org/2000/svg"}  # the name of a format, never fetched
    assert str(tmp_path).encode() not in first


@pytest.mark.parametrize("text", ["</script><b>bold</b>", "<!--<script>", "{{script}}", '"\\\u2028\n', "Prélude ☃.mid"])
def test_no_text_breaks_out_of_the_page(tmp_path, text):
    write_idea(tmp_path, 0, prompt=text, model=text)
    (idea,) = shown(tmp_path)
    assert idea["recipe"]["prompt"] == text == dict(idea["recipe_rows"])["from"]
    source = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert source.count("</script>") == 2 and "<b>" not in source and "{{style}}" not in source


def test_another_vocabulary_shows_its_parts(tmp_path):
    seven = json.loads((ROOT / "configs/vocab.json").read_text())
    seven["parts"] += [{"name": name, "is_drum": False, "program": 48, "accepts": [], "lowest_pitch": 30,
                        "highest_pitch": 90} for name in ("lead", "pad", "brass", "choir")]
    (tmp_path / "seven.json").write_text(json.dumps(seven))
    (tmp_path / "out").mkdir()
    write_idea(tmp_path / "out", 0)
    succeeds(page.main, [tmp_path / "out", "--vocab", tmp_path / "seven.json"])
    data = page_data(tmp_path / "out/index.html")
    assert [part["name"] for part in data["parts"]][3:] == ["lead", "pad", "brass", "choir"]
    assert in_quarters(data["ideas"][0]) == notes_by_pretty_midi(tmp_path / "out/0.mid")


def test_tracks_of_other_parts_have_lanes_of_their_own(tmp_path, capsys):
    """As when page.py is run again, without --vocab, on songs of a model of seven parts."""
    band = MidiTokenizerPooled(BAND)
    for number in range(2):
        rows = random_song(number, 200, 4, BAND)
        write_song(tmp_path, number, song_bytes(rows, band, TEMPO, RECIPE))
    for idea in shown(tmp_path):
        # The shaker joins the drums.
        assert [other["name"] for other in idea["others"]] == ["guitar", "strings", "lead"]
        notes = pretty_midi.PrettyMIDI(str(tmp_path / idea["file"])).instruments
        assert sum(map(len, idea["notes"])) == sum(len(track.notes) for track in notes)
    assert page_data(tmp_path / "index.html")["parts"][-1]["name"] == "other"
    assert "has stems of guitar, lead, shaker, strings, which are" in capsys.readouterr().err
    (tmp_path / "band.json").write_text(json.dumps(BAND.to_dict()))
    succeeds(page.main, [tmp_path, "--vocab", tmp_path / "band.json"])
    assert capsys.readouterr().err == ""
    data = page_data(tmp_path / "index.html")
    assert all(map(len, data["ideas"][0]["notes"])) and not data["ideas"][0]["others"]
    assert len(data["parts"]) == len(BAND.parts)


def test_stems_of_another_vocabulary_are_noticed(tmp_path, capsys):
    write_idea(tmp_path, 0)
    write_idea(tmp_path, 1)
    shown(tmp_path)
    assert "notice" not in capsys.readouterr().err
    shutil.copy(tmp_path / "0-bass.mid", tmp_path / "0-guitar.mid")
    shutil.copy(tmp_path / "0-bass.mid", tmp_path / "7-pad.mid")  # of no song
    shutil.copy(tmp_path / "0-bass.mid", tmp_path / "1-prompt.mid")
    shown(tmp_path)
    assert f"notice: {tmp_path} has stems of guitar, which are parts of another vocabulary" in capsys.readouterr().err


def test_key_and_chords_are_those_that_are_played(tmp_path):
    midi = pretty_midi.PrettyMIDI(initial_tempo=TEMPO, resolution=TICKS_PER_QUARTER)
    piano = pretty_midi.Instrument(0, name="piano")
    quarter = 60 / TEMPO
    for bar, chord in enumerate([(57, 60, 64), (53, 57, 60), (48, 52, 55), (55, 59, 62)] * 2):
        piano.notes += [pretty_midi.Note(90, pitch, 4 * bar * quarter, 4 * (bar + 1) * quarter) for pitch in chord]
    midi.instruments.append(piano)
    midi.write(str(tmp_path / "0.mid"))
    (idea,) = shown(tmp_path)
    assert idea["key"] in ("A minor", "C major")
    assert idea["chords"] == [[bar * BAR_TICKS, ("Am", "F", "C", "G")[bar % 4]] for bar in range(8)]


def test_a_song_without_pitches_has_no_harmony(tmp_path):
    write_idea(tmp_path, 0, ROWS[V.part_of_id[ROWS[:, -1]] == V.part_names.index("drums")])
    (idea,) = shown(tmp_path)
    assert (idea["key"], idea["chords"]) == ("", [])


def test_the_page_repeats_what_the_run_said_of_its_songs(tmp_path):
    for number in range(2):
        write_idea(tmp_path, number)
    songs = [{"file": "0.mid", "seed": 100, "score": "score 0.9: likely", "copied": None},
             {"file": "1.mid", "seed": 7, "score": "score of another song", "copied": None}]
    log_run(tmp_path, {"songs": [{"file": "0.mid", "seed": 100, "score": "before"}]})
    with open(tmp_path / "genconfigs.txt", "a", encoding="utf-8") as log:
        log.write("\n{\n damaged\n\n")
    log_run(tmp_path, {"songs": songs})
    assert [idea["said"] for idea in shown(tmp_path)] == [["score 0.9: likely"], []]


# ---------------------------------------------------------------- what was there before


def test_parts_that_were_given_are_old(tmp_path):
    for name in V.part_names:
        shutil.copy(EXAMPLES / f"given/{name}.mid", tmp_path / f"{V.part_names.index(name)}.mid")
    for made, idea in enumerate(shown(tmp_path)):
        is_old = [{old for _, _, _, old, *_ in part} for part in idea["notes"]]
        assert is_old == [{int(p != made)} for p in range(len(V.parts))]
        assert idea["fresh"] == []
        assert idea["asked"].startswith(f"{V.part_names[made]} to given ")


@pytest.mark.parametrize("make", [(), ("bass",)])
def test_bars_that_were_made_anew_are_new(tmp_path, make):
    write_idea(tmp_path, 0, ROWS, wish=Wish(make=make, fill=(2, 3)), prompt="gone.mid")
    (idea,) = shown(tmp_path)
    bars = ROWS[:, BAR] - FIRST_ID + 1
    new = (bars >= 2) & (bars <= 3)
    if make:
        bass = V.part_names.index("bass")
        new &= V.part_of_id[ROWS[:, -1]] == bass
    assert old_pairs(idea) == onset_pairs(ROWS[~new])
    assert idea["fresh"] == [[BAR_TICKS, 3 * BAR_TICKS]]
    assert idea["asked"] == "bars 2–3 anew" + (" in bass" if make else "")


@pytest.mark.parametrize("kept", ["where the recipe says", "beside the song", "partly"])
def test_the_new_music_begins_where_the_prompt_ends(tmp_path, kept):
    n_old = 30
    prompt = prompt_file(tmp_path / "prompt.mid", ROWS[:50] if kept == "partly" else ROWS[:n_old])
    recipe = {"prompt": str(prompt), "prompt_hash": file_hash(prompt),
              "prompt_rows": n_old + 1 if kept == "partly" else 0}
    (tmp_path / "out").mkdir()
    write_idea(tmp_path / "out", 0, ROWS, **recipe)
    if kept == "beside the song":
        prompt.rename(tmp_path / "out/0-prompt.mid")
    (idea,) = shown(tmp_path / "out")
    assert old_pairs(idea) == onset_pairs(ROWS[:n_old])
    first_new = min(onset for _, onset, _ in onset_pairs(ROWS[n_old:]))
    assert idea["fresh"] == [[first_new, whole_bars(tmp_path / "out/0.mid") * BAR_TICKS]]


@pytest.mark.parametrize("change", ["gone", "edited", "damaged"])
def test_where_the_prompt_is_not_as_it_was_no_beginning_is_claimed(tmp_path, change):
    prompt = prompt_file(tmp_path / "prompt.mid", ROWS[:30])
    write_idea(tmp_path, 0, ROWS, prompt=str(prompt), prompt_hash=file_hash(prompt))
    if change == "gone":
        prompt.unlink()
    elif change == "edited":
        prompt_file(prompt, ROWS[:40])
    else:
        prompt.unlink()
        (tmp_path / "0-prompt.mid").write_bytes(b"no MIDI")
    (idea,) = shown(tmp_path)
    assert idea["fresh"] == [] and not old_pairs(idea) and idea["asked"] == "continued"


# ---------------------------------------------------------------- the command


def test_a_song_that_cannot_be_read_is_left_out_with_a_notice(tmp_path, capsys):
    write_idea(tmp_path, 0)
    (tmp_path / "1.mid").write_bytes(b"hello")
    assert [idea["file"] for idea in shown(tmp_path)] == ["0.mid"]
    captured = capsys.readouterr()
    assert captured.out == f"{tmp_path / 'index.html'}\n"
    assert captured.err.startswith(f"notice: not on the page: {tmp_path / '1.mid'}: not a MIDI file")


def test_a_song_in_other_meters_is_left_out_with_a_line_that_says_what_pages_show(tmp_path, capsys):
    write_idea(tmp_path, 0)
    waltz = mido.MidiFile(type=1, ticks_per_beat=TICKS_PER_QUARTER)
    waltz.tracks.append(mido.MidiTrack([mido.MetaMessage("time_signature", numerator=3, denominator=4),
                                        mido.Message("note_on", note=60),
                                        mido.Message("note_off", note=60, time=99)]))
    waltz.save(tmp_path / "1.mid")
    assert [idea["file"] for idea in shown(tmp_path)] == ["0.mid"]
    assert capsys.readouterr().err == (
        f"notice: not on the page: {tmp_path / '1.mid'}: bar 1 is in 3/4; pages and pictures show bars of four "
        "quarters alone: export its 4/4 part to see that\n")


def test_folders_without_songs(tmp_path, capsys):
    assert "no numbered songs" in fails(page.main, [tmp_path], capsys)
    (tmp_path / "prompt.mid").write_bytes((EXAMPLES / "prompt.mid").read_bytes())
    assert "no numbered songs" in fails(page.main, [tmp_path], capsys)
    assert "no such folder" in fails(page.main, [tmp_path / "gone"], capsys)
    assert "no such folder" in fails(page.main, [tmp_path / "prompt.mid"], capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["prompt.mid"]


def test_a_page_of_someone_else_is_kept(tmp_path, capsys):
    write_idea(tmp_path, 0)
    (tmp_path / "index.html").write_text("<h1>My band</h1>")
    assert "index.html: not a page of this program" in fails(page.main, [tmp_path], capsys)
    assert (tmp_path / "index.html").read_text() == "<h1>My band</h1>"


@pytest.mark.parametrize(("arguments", "text"), [
    (["a", "b"], "2 folders"), (["--blind", "a"], "1 folders"), (["--blind", "a", "b", "a"], "3 folders"),
    (["--blind", "a", "a"], "compared with itself"), (["--blind", "a", "b", "--bars", 0], "--bars 0"),
    (["--blind", "a", "gone"], "gone: no such folder"), (["--blind", "a", "empty"], "no songs in it"),
    (["a", "--ask", "real"], "--ask is for --blind"), (["a", "--bars", 4], "--bars is for"),
    (["a", "--seed", 0], "--seed is for"), (["a", "-o", "x.html"], "--output is for"),
    (["a", "--force"], "--force is for"),
    (["--blind", "a", "b", "-o", "there.html"], "there.html exists already")])
def test_bad_arguments(tmp_path, monkeypatch, capsys, arguments, text):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        write_idea(tmp_path / name, 0)
    (tmp_path / "empty").mkdir()
    (tmp_path / "there.html").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    assert text in fails(page.main, arguments, capsys)
    assert sorted(tmp_path.rglob("*")) == before and (tmp_path / "there.html").read_text() == "mine"


def test_help_needs_no_torch():
    assert "Example  python page.py" in help_without("page", "torch")


# ---------------------------------------------------------------- two folders, blind


@pytest.fixture
def two_folders(tmp_path, monkeypatch):
    """a: three generated songs of four bars with stems; b: two real ones, of another length and tempo."""
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        write_idea(tmp_path / "a", number)
    (tmp_path / "b").mkdir()
    for name in ("x", "y"):
        midi = TOKENIZER.create_midi_from_tokens(random_song(ord(name), 200, 12), tempo=141.0)
        midi.dump(str(tmp_path / f"b/{name}.mid"))
    return tmp_path


def test_pairs_hold_a_song_of_each_folder_of_one_length_and_tempo(two_folders):
    succeeds(page.main, ["--blind", "a", "b", "--bars", 3, "-o", "blind.html"])
    data = page_data(two_folders / "blind.html")
    assert data["question"] == "prefer" and data["pairs"] == [[0, 1], [2, 3]]
    for pair in data["pairs"]:
        ideas = [data["ideas"][i] for i in pair]
        assert {idea["file"][:2] for idea in ideas} == {"a/", "b/"}
        assert {(idea["bars"], idea["tempo"]) for idea in ideas} == {(3, 141.0)}
        for idea in ideas:
            assert max(onset for part in idea["notes"] for onset, *_ in part) < 3 * 4 * idea["ticks_per_quarter"]
            assert not {"recipe", "files", "asked"} & set(idea)
    visible = (two_folders / "blind.html").read_text(encoding="utf-8").partition('id="data"')[0]
    assert "a/0.mid" not in visible and "b/x.mid" not in visible


def test_the_order_is_drawn_from_the_seed(two_folders):
    orders = set()
    for seed in range(8):
        succeeds(page.main, ["--blind", "a", "b", "--seed", seed, "-o", f"{seed}.html"])
        orders.add(tuple(idea["file"] for idea in page_data(two_folders / f"{seed}.html")["ideas"]))
    succeeds(page.main, ["--blind", "a", "b", "--seed", 3, "-o", "again.html", "--ask", "prefer"])
    assert (two_folders / "again.html").read_bytes() == (two_folders / "3.html").read_bytes()
    assert len(orders) > 4 and len({order[0][0] for order in orders}) == 2


def test_an_excerpt_begins_with_the_first_bar_that_has_music():
    data = {"ticks_per_quarter": 10, "bars": 9, "notes": [[[95, 200, 60, 0]], [[130, 140, 61, 0], [170, 171, 62, 0]]]}
    cut = excerpt(data, 2)
    assert cut["notes"] == [[[15, 80, 60, 0]], [[50, 60, 61, 0]]] and cut["bars"] == 2


# ---------------------------------------------------------------- stars and votes


def test_stars_and_votes_of_the_formats_that_the_page_writes(tmp_path):
    """The browser tests export real ones; this is what they must look like, where there is no browser."""
    path = write_idea(tmp_path, 0)
    (idea,) = shown(tmp_path)
    stars = {"format": STARS_FORMAT, "version": 1,
             "songs": [{"file": idea["file"], "hash": idea["hash"], "note": "!", "recipe": idea["recipe"]}]}
    (tmp_path / "stars.json").write_text(json.dumps(stars))
    (from_stars,), (from_song,) = read_originals(tmp_path / "stars.json"), read_originals(path)
    assert (from_stars.recipe, from_stars.hash) == (from_song.recipe, from_song.hash)
    assert from_stars.recipe.seed != RECIPE.seed
    (tmp_path / "votes.csv").write_text("pair,question,first,second,answer\n1,real,a/0.mid,b/x.mid,first\n")
    assert read_votes(tmp_path / "votes.csv")[0].folders == ("a", "b")
