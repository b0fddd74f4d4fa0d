"""The band of seven that comes with the project: its file, and music made with it by the commands of the README."""

from __future__ import annotations

import json

import mido
import pytest
from commands import succeeds

import generate
from backline.common.paths import BAND_MODEL, BUNDLED_MODEL, ROOT, own_copies
from backline.engine.model_file import held_out_names, read_model_file
from backline.evaluation.copy_index import read_index, split_digest
from backline.evaluation.critic import critic_of
from backline.music.dynamics import dynamics_table
from backline.music.vocab import load_vocabulary

BAND = load_vocabulary(ROOT / "configs" / "vocab_band.json")
MOST_BYTES = 12_000_000
PROMPT = ROOT / "examples/prompt.mid"


def test_the_file_is_small_and_holds_all_that_generate_uses():
    assert BAND_MODEL.stat().st_size <= MOST_BYTES
    stored = read_model_file(BAND_MODEL)
    assert stored.vocabulary == BAND
    settings = json.loads((ROOT / "configs" / "model_band.json").read_text())
    assert {name: list(value) if isinstance(value, tuple) else value
            for name, value in vars(stored.config).items() if name in settings} == settings
    assert dynamics_table(stored.facts, BAND, BAND_MODEL) and critic_of(stored.facts, BAND, BAND_MODEL)


def test_its_index_of_copies_is_of_the_songs_it_was_trained_on():
    held_out = held_out_names(read_model_file(BAND_MODEL).facts)
    assert len(held_out) == 265
    assert read_index(own_copies(BAND_MODEL), BAND).split == split_digest(held_out)


def test_it_was_trained_on_no_song_that_the_bundled_model_held_out():
    """It began with the bundled weights, and both are judged on songs that no stage heard."""
    band, bundled = (set(held_out_names(read_model_file(path).facts)) for path in (BAND_MODEL, BUNDLED_MODEL))
    assert len(band & bundled) == 236


def struck(song: mido.MidiFile) -> set[tuple[float, int, int]]:
    """When, on which channel and at which pitch each note is struck; times in quarters."""
    found = set()
    for track in song.tracks:
        tick = 0
        for message in track:
            tick += message.time
            if message.type == "note_on" and message.velocity > 0:
                found.add((tick / song.ticks_per_beat, message.channel, message.note))
    return found


@pytest.mark.parametrize("arguments", [
    ["--bars", 4, "--check-copies"],
    ["-p", PROMPT, "--given", "drums,bass,piano", "--make", "guitar"],
    ["-p", PROMPT, "--fill", "3-4"]], ids=["scratch", "given", "fill"])
def test_it_plays(arguments, tmp_path, capsys):
    given = struck(mido.MidiFile(PROMPT)) if "-p" in arguments else set()
    succeeds(generate.main, ["-mp", BAND_MODEL, *arguments, "--seed", 1, "-d", "cpu", "-o", tmp_path])
    song = mido.MidiFile(tmp_path / "0.mid")
    assert struck(song) - given
    assert {path.name for path in tmp_path.glob("0-*.mid")} == {f"0-{name}.mid" for name in BAND.part_names}
    if "--make" in arguments:
        assert "guitar" in {track.name for track in song.tracks}
    if "--check-copies" in arguments:
        captured = capsys.readouterr()
        assert "longest run shared" in captured.out and "may be of other songs" not in captured.err
