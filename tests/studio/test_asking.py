"""A form is a command line of generate.py: the same options, the same words, the same song."""

from __future__ import annotations

import shlex

import pytest
from commands import succeeds
from playing import song_file

import generate
from backline.common.files import file_hash
from backline.generation.config import GenConfig
from backline.generation.options import SEEDS
from backline.generation.session import LoadedModel
from backline.studio.asking import LISTS, SWITCHES, TEXTS, FormError, arguments_of, understand

# Options of generate.py that have no field, and why.
WITHOUT_FIELD = {
    "--help": "the page says it",
    "--version": "is that of the program",
    "--prompt": "is the field of the song that the form is about",
    "--output": "is the folder", "--force": "nothing is replaced",
    "--model_path": "of the start", "--device": "of the start", "--dtype": "of the start",
    "--watch": "dropping is", "--reproduce": "makes nothing new",
    "--genconfig": "names a file of the machine", "--soundfont": "names a file of the machine",
    "--wav": "the page plays", "--png": "the page draws", "--no-page": "this is a page",
    "--save_prompt": "the prompt is in the folder", "--print_events": "prints", "--quiet": "prints",
    "--draws": "what one watches is one draw; best_of draws several",
    "--prompt_idx": "counts rows of tokens; the page counts bars",
    "--ranges": "how folders are read", "--max-lost": "how folders are read", "--long-songs": "how folders are read",
    "--meters": "how folders are read", "--min-stretch-bars": "how folders are read", "--join": "how folders are read",
}


@pytest.fixture(scope="module")
def loaded(given_path):
    return LoadedModel(given_path)


def fault(form, loaded, folder, prompt=None) -> FormError:
    with pytest.raises(FormError) as caught:
        understand(form, prompt, folder, loaded)
    return caught.value


def test_every_option_has_its_place_or_a_reason():
    fields = {*TEXTS.values(), *LISTS.values(), *SWITCHES.values()}
    for action in generate.build_parser()._actions:
        names = set(action.option_strings)
        assert names & fields or names & WITHOUT_FIELD.keys(), action.option_strings
    assert not fields & WITHOUT_FIELD.keys()


def test_a_form_is_a_command_line():
    form = {"bars": 8, "key": "Am", "chords": "-", "loop": True, "missing": False, "seed": 0, "scale": "",
            "pitches": ["bass=E1-E3", "drums=kick"], "n": 2}
    assert arguments_of(form) == ["--bars", "8", "--key", "Am", "--chords=-", "--loop", "--seed", "0",
                                  "--pitches", "bass=E1-E3", "--pitches", "drums=kick", "-n", "2"]


@pytest.mark.parametrize(("form", "field", "words"), [
    ({"bars": "x"}, "bars", "argument --bars: invalid int value: 'x'"),
    ({"bars": 0}, "bars", "--bars 0 must be at least 1"),
    ({"bars": 300}, "bars", "256 bars are left"),
    ({"bars": 4, "chords": "Am H?"}, "chords", "H"),
    ({"bars": 4, "key": "X"}, "key", "X"),
    ({"scale": "minor"}, "scale", "--scale minor: needs a --key"),
    ({"feel": "wild"}, "feel", "did you mean 'wilder'?"),
    ({"feel": "wilder", "temperature": 1}, "feel", "leave out --temperature"),
    ({"density": "drums=busy"}, "density", "not trained to be told what to play"),
    ({"density": "kazoo=busy"}, "density", "kazoo"),
    ({"pitches": ["bass=H1"]}, "pitches", "H1"),
    ({"n": 17}, "n", "at most 16 songs"),
    ({"n": 4, "best_of": 2}, "n", "--best-of 2: at least as many as -n 4"),
    ({"seed": -1}, "seed", "--seed -1: must be from 0"),
    ({"fill": "2"}, "fill", "--fill needs a song to play to"),
    ({"loop": True}, "loop", "--loop: say how many bars"),
    ({"loop": "yes"}, "loop", "must be true or false"),
    ({"pitches": "bass=E1"}, "pitches", "must be a list"),
    ({"bars": [1]}, "bars", "must be a text or a number"),
    ({"key": "A\nB"}, "key", "on one line"),
    ({"key": "A" * 2000}, "key", "at most 1000 characters"),
    ({"model_path": "x"}, "model_path", "is no field"),
    ({"genconfig": "/etc/passwd"}, "genconfig", "is no field"),
    ({"chords": "--force"}, "chords", "force"),
])
def test_errors_are_said_at_the_field(loaded, tmp_path, form, field, words):
    err = fault(form, loaded, tmp_path)
    assert (err.field, words in str(err), "\n" in str(err)) == (field, True, False), str(err)


def test_bars_outside_the_song_are_said_at_the_field(loaded, tmp_path):
    song = song_file(tmp_path / "song.mid")
    err = fault({"fill": "5-9", "n": 1}, loaded, tmp_path, song)
    assert err.field == "fill" and "the song has 4 bars" in str(err)


def test_the_command_that_is_shown_makes_the_same_song(loaded, given_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    song = song_file(tmp_path / "my song.mid")
    asking = understand({"fill": "2-3", "make": "drums"}, song, tmp_path / "out", loaded)
    made = asking.session.songs_as_drawn(asking.seed, 1, lambda *_: None)[0]
    program, script, *arguments = shlex.split(asking.command)
    assert (program, script) == ("python", "generate.py")
    succeeds(generate.main, [*arguments, "-mp", given_path])
    files = asking.session.files(made.notes, asking.session.recipe(made))
    assert (tmp_path / "out/0.mid").read_bytes() == files[""]
    assert file_hash(tmp_path / "my song.mid") == asking.session.prompt.hash


def test_without_a_seed_one_is_drawn_and_shown(loaded, tmp_path):
    seeds = {understand({"bars": 2}, None, tmp_path, loaded).seed for _ in range(4)}
    assert len(seeds) == 4 and all(0 <= seed < SEEDS for seed in seeds)
    assert understand({"seed": 0}, None, tmp_path, loaded).command.split()[2:4] == ["--seed", "0"]
    assert understand({}, None, tmp_path, loaded).session.config == GenConfig()
