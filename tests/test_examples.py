"""The example stems: made again byte for byte, sound in harmony, and usable by the commands that follow."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import mido
import numpy as np
import orjson
import pytest

import merge_midi
import tokenizer
from backline.common.errors import EXIT_USER_ERROR
from backline.common.files import file_hash
from backline.common.paths import BAND_MODEL, BUNDLED_MODEL
from backline.common.settings import config_from_file
from backline.generation.config import GenConfig
from backline.generation.recipes import read_recipe
from backline.generation.session import SEED_STEP
from backline.generation.wish import Wish
from backline.music.midi_reader import read_song
from backline.music.midi_writer import end_at_next_onset
from backline.music.vocab import BAR, FIRST_ID, PITCH_INSTRUMENT, load_vocabulary

EXAMPLES = Path(tokenizer.__file__).parent / "examples"
PARTS = load_vocabulary().part_names
STEMS = [EXAMPLES / f"{name}.mid" for name in PARTS]


@pytest.fixture(scope="module")
def make_stems() -> ModuleType:
    """The script as a module; it stands in no package."""
    spec = importlib.util.spec_from_file_location("make_stems", EXAMPLES / "make_stems.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "make_stems", module)  # dataclasses look their module up
        patch.setattr(sys, "path", sys.path.copy())
        spec.loader.exec_module(module)
        yield module


def test_committed_stems_are_what_the_script_makes(make_stems, tmp_path, capsys):
    assert make_stems.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / stem.name) for stem in STEMS]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(stem.name for stem in STEMS)
    for stem in STEMS:
        assert (tmp_path / stem.name).read_bytes() == stem.read_bytes()


def test_script_runs_from_any_folder(tmp_path):
    done = subprocess.run([sys.executable, "-W", "error", EXAMPLES / "make_stems.py", "mine"], cwd=tmp_path,
                          capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert (tmp_path / "mine" / "bass.mid").read_bytes() == (EXAMPLES / "bass.mid").read_bytes()


def test_files_that_hold_something_else_are_kept(make_stems, tmp_path, capsys):
    assert make_stems.main([str(tmp_path)]) == 0
    assert make_stems.main([str(tmp_path)]) == 0  # the same bytes: nothing to lose
    (tmp_path / "bass.mid").write_bytes(b"mine")
    assert make_stems.main([str(tmp_path)]) == EXIT_USER_ERROR
    assert "bass.mid exists already" in capsys.readouterr().err
    assert (tmp_path / "bass.mid").read_bytes() == b"mine"
    assert make_stems.main([str(tmp_path), "--force"]) == 0
    assert (tmp_path / "bass.mid").read_bytes() == (EXAMPLES / "bass.mid").read_bytes()


@pytest.mark.parametrize("part", load_vocabulary().parts, ids=PARTS)
def test_stem_is_eight_bars_of_its_part(make_stems, part):
    song = read_song(EXAMPLES / f"{part.name}.mid")
    (track,) = song.tracks
    assert (track.name, track.is_drum, track.program) == (part.name, part.is_drum, part.program)
    assert song.ticks_per_quarter == make_stems.TICKS_PER_QUARTER
    assert song.main_tempo() == pytest.approx(make_stems.TEMPO)
    assert [tuple(signature) for signature in song.time_signatures] == [(0, 4, 4)]
    assert song.last_onset_tick // make_stems.BAR_TICKS == 7
    assert song.end_tick <= 8 * make_stems.BAR_TICKS
    assert part.lowest_pitch <= track.notes[:, 2].min() <= track.notes[:, 2].max() <= part.highest_pitch


def test_no_note_is_cut_by_the_next_of_its_pitch(make_stems):
    for notes in make_stems.compose().values():
        assert sorted(map(tuple, notes.tolist())) == sorted(map(tuple, end_at_next_onset(notes).tolist()))


def test_bass_and_piano_play_tones_of_the_same_chord(make_stems):
    tones = {"Cm7": {0, 3, 7, 10}, "Abmaj7": {8, 0, 3, 7}, "Fm7": {5, 8, 0, 3}, "G7": {7, 11, 2, 5}}
    stems = make_stems.compose()
    for name in ("bass", "piano"):
        for onset, _, pitch in stems[name].tolist():
            chord = make_stems.LOOP[onset // make_stems.BAR_TICKS % len(make_stems.LOOP)]
            assert pitch % 12 in tones[chord.name], (name, onset, pitch)


def test_piano_voices_move_by_small_steps(make_stems):
    loop = make_stems.LOOP
    for chord, following in zip(loop, loop[1:] + loop[:1], strict=True):
        moves = np.subtract(following.voicing, chord.voicing)
        assert abs(moves).max() <= 3
        assert abs(chord.approach - following.root) <= 2


def test_merged_examples_become_tokens(tmp_path, capsys):
    assert merge_midi.main([str(tmp_path), *map(str, STEMS), "-n", "groove.mid"]) == 0
    n_notes = {stem.stem: len(read_song(stem).tracks[0].notes) for stem in STEMS}
    counts = ", ".join(f"{name} {count}" for name, count in n_notes.items())
    assert capsys.readouterr().out == f"{tmp_path / 'groove.mid'}: {counts} notes\n"
    by_mido = [sum(m.type == "note_on" and m.velocity > 0 for m in track)
               for track in mido.MidiFile(tmp_path / "groove.mid").tracks[1:]]
    assert by_mido == list(n_notes.values())

    assert tokenizer.main(["-td", str(tmp_path / "tokens"), str(tmp_path / "groove.mid")]) == 0
    path = tmp_path / "tokens" / "groove.json"
    data = orjson.loads(path.read_bytes())
    assert len(data["ids"]) == sum(n_notes.values()) + 2  # BOS and EOS
    assert data["tempo"] == pytest.approx(110)
    rows, _ = tokenizer.read_tokens(path, tokenizer.MidiTokenizerPooled())
    parts = load_vocabulary().part_of_id[rows[:, tokenizer.PITCH_INSTRUMENT]]
    assert np.bincount(parts).tolist() == list(n_notes.values())


def test_tokens_of_the_examples_are_exact(tmp_path):
    """Every onset and length lies on the grid, so that the prompt that people hear is the one the model reads."""
    assert merge_midi.main([str(tmp_path), *map(str, STEMS)]) == 0
    made = tokenizer.MidiTokenizerPooled()
    tokens = made(tmp_path / "merged.mid")
    made.create_midi_from_tokens(tokens["ids"], tpb=480).dump(tmp_path / "back.mid")
    for there, back in zip(read_song(tmp_path / "merged.mid").tracks, read_song(tmp_path / "back.mid").tracks,
                           strict=True):
        assert (there.notes == back.notes).all()


def test_example_prompt_is_the_merged_stems(tmp_path):
    """Made by an earlier version, which had no track for the tempo; the songs beside it were made to that file."""
    assert merge_midi.main([str(tmp_path), *map(str, STEMS), "-n", "prompt.mid"]) == 0
    made = tokenizer.MidiTokenizerPooled()
    assert made(tmp_path / "prompt.mid")["ids"] == made(EXAMPLES / "prompt.mid")["ids"]
    merged = mido.MidiFile(tmp_path / "prompt.mid")
    assert {sum(message.time for message in track) for track in merged.tracks} == {8 * 4 * merged.ticks_per_beat}


# ---------------------------------------------------------------- made to what is given


def ids_by_part(path: Path) -> dict[str, set[tuple[int, ...]]]:
    """Rows of ids of a file, by the part that plays them."""
    vocabulary, rows = load_vocabulary(), tokenizer.MidiTokenizerPooled()(path)["ids"][1:-1]
    found: dict[str, set[tuple[int, ...]]] = {name: set() for name in vocabulary.part_names}
    for row in rows:
        found[vocabulary.part_names[vocabulary.part_of_id[row[PITCH_INSTRUMENT]]]].add(tuple(row))
    return found


@pytest.mark.parametrize("made", PARTS)
def test_only_the_part_that_was_made_is_another(made):
    prompt, song = ids_by_part(EXAMPLES / "prompt.mid"), ids_by_part(EXAMPLES / "given" / f"{made}.mid")
    assert {name for name in prompt if prompt[name] != song[name]} == {made}
    assert len(song[made]) > 20
    recipe = read_recipe(EXAMPLES / "given" / f"{made}.mid")
    assert recipe.wish == Wish(given=tuple(name for name in prompt if name != made), make=(made,))
    assert recipe.model_hash == file_hash(BUNDLED_MODEL)


def test_only_the_bars_that_were_made_are_others():
    prompt, song = (set().union(*ids_by_part(path).values())
                    for path in (EXAMPLES / "prompt.mid", EXAMPLES / "given" / "bars_3-4.mid"))
    changed = {row[BAR] - FIRST_ID + 1 for row in prompt ^ song}
    assert changed == {3, 4}
    assert read_recipe(EXAMPLES / "given" / "bars_3-4.mid").model_hash == file_hash(BUNDLED_MODEL)


def test_the_band_s_samples_are_its_first_seeds_with_the_default_settings():
    assert sorted(path.name for path in (EXAMPLES / "band").glob("*.mid")) == [f"{i}.mid" for i in range(10)]
    for i in range(10):
        recipe = read_recipe(EXAMPLES / "band" / f"{i}.mid")
        assert recipe.model_hash == file_hash(BAND_MODEL)
        assert recipe.seed % SEED_STEP == i
        assert (recipe.wish, recipe.genconfig, recipe.prompt) == (Wish(), GenConfig(), "")
        assert (EXAMPLES / "band" / f"{i}.png").is_file()


@pytest.mark.parametrize(("folder", "n", "prompt"), [("scratch", 10, ""), ("continued", 6, "examples/prompt.mid")])
def test_samples_are_the_first_seeds_of_the_bundled_model_as_it_plays(folder, n, prompt):
    """None is picked: seeds 0, 1, … and no switch on."""
    settings = config_from_file(GenConfig, EXAMPLES.parent / "configs/genconfig_free.json")
    assert sorted(path.name for path in (EXAMPLES / folder).glob("*.mid")) == [f"{i}.mid" for i in range(n)]
    for i in range(n):
        recipe = read_recipe(EXAMPLES / folder / f"{i}.mid")
        assert (recipe.seed, recipe.prompt, recipe.model_hash) == (i, prompt, file_hash(BUNDLED_MODEL))
        assert (recipe.wish, recipe.genconfig) == (Wish(), settings)
        assert (EXAMPLES / folder / f"{i}.png").is_file()
