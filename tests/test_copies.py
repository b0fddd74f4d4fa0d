"""Runs of notes shared with training songs: hashes, the filter, the index's file, and generate.py's use of it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import torch
from commands import fails, help_without, succeeds
from hypothesis import given
from hypothesis import strategies as st
from playing import ids_of
from random_songs import make_dataset, random_song
from tiny_models import SMALL_VOCABULARY, tiny_model

import copies
import generate
from backline.common.errors import UserError
from backline.common.paths import own_copies
from backline.evaluation.copy_index import (
    EXCERPTS,
    N_BITS_SET,
    WINDOW,
    CopyCheck,
    CopyIndex,
    SharedRun,
    build_index,
    in_filter,
    make_filter,
    read_index,
    split_digest,
    window_hashes,
    write_index,
)
from backline.generation import session
from backline.generation.recipes import SWITCHES
from backline.music.vocab import BAR, FIRST_ID, NOTE_DUR, PITCH_INSTRUMENT, START_POS, load_vocabulary
from backline.training.checkpoints import save_release
from benchmarks import bench_copies
from tokenizer import MidiTokenizerPooled

VOCABULARY = load_vocabulary()
STEPS = VOCABULARY.steps_per_bar
ACCIDENTS = 3  # no so many unknown windows in a row are taken for known in these tests
DRUMS = np.array([part.is_drum for part in VOCABULARY.parts])

songs = st.builds(random_song, st.integers(0, 1000), st.integers(1, 60))


def parts_of(rows: np.ndarray) -> np.ndarray:
    return VOCABULARY.part_of_id[rows[:, PITCH_INSTRUMENT]]


def moved(rows: np.ndarray, steps: int = 0, semitones: int = 0, drums: int = 0) -> np.ndarray:
    """Later by steps, melodic parts up by semitones, drums by others; none may leave its part's range."""
    rows, parts = rows.copy(), parts_of(rows)
    onsets = (rows[:, BAR] - FIRST_ID) * STEPS + rows[:, START_POS] - FIRST_ID + steps
    rows[:, BAR], rows[:, START_POS] = onsets // STEPS + FIRST_ID, onsets % STEPS + FIRST_ID
    rows[:, PITCH_INSTRUMENT] += np.where(DRUMS[parts], drums, semitones)
    inside = (rows[:, PITCH_INSTRUMENT] >= FIRST_ID) & (rows[:, PITCH_INSTRUMENT] < VOCABULARY.sizes[PITCH_INSTRUMENT])
    assert inside.all() and (parts_of(rows) == parts).all()
    return rows


def melodic_song(seed: int, n_notes: int = 40) -> np.ndarray:
    """A random song whose pitches stay away from the ends of their parts' ranges."""
    rows = random_song(seed, 4 * n_notes)
    pitches = VOCABULARY.pitch_of_id[rows[:, PITCH_INSTRUMENT]]
    return rows[(pitches > 40) & (pitches < 76)][:n_notes]


def told_apart(window: np.ndarray) -> tuple:
    """What a window says, note by note: slow and obvious."""
    said, last_onset, last_melodic = [], None, None
    for row in window.tolist():
        onset = row[BAR] * STEPS + row[START_POS]
        part, pitch = (int(of_id[row[PITCH_INSTRUMENT]]) for of_id in (VOCABULARY.part_of_id, VOCABULARY.pitch_of_id))
        sound = pitch if DRUMS[part] else None if last_melodic is None else pitch - last_melodic
        said.append((0 if last_onset is None else onset - last_onset, part, sound))
        last_onset, last_melodic = onset, last_melodic if DRUMS[part] else pitch
    return tuple(said)


def exact_run(song: np.ndarray, other: np.ndarray) -> int:
    """Notes of the longest run of one song in another: slow and obvious."""
    longest = 0
    for i, j in itertools.product(range(len(song)), range(len(other))):
        while (max(i - len(song), j - len(other)) + longest < 0
               and told_apart(song[i:i + longest + 1]) == told_apart(other[j:j + longest + 1])):
            longest += 1
    return longest


def index_of(training: list[np.ndarray], real: list[np.ndarray] | None = None) -> CopyIndex:
    return build_index(training, real or [random_song(999)], VOCABULARY, "")


# ---------------------------------------------------------------- windows


@given(rows=songs, size=st.integers(1, 20))
def test_windows_have_equal_hashes_where_a_slow_version_says_the_same(rows, size):
    few = rows.copy()  # of few sounds, so that some windows are alike
    few[:, PITCH_INSTRUMENT] = FIRST_ID + (few[:, PITCH_INSTRUMENT] % 2) * 60
    few[:, START_POS] = FIRST_ID + few[:, START_POS] // 16 * 16
    for song in (rows, few[np.lexsort((few[:, PITCH_INSTRUMENT], few[:, START_POS], few[:, BAR]))]):
        hashes = window_hashes(song, size, VOCABULARY)
        said = [told_apart(song[start:start + size]) for start in range(len(song) - size + 1)]
        assert len(hashes) == len(said)
        assert len(set(hashes.tolist())) == len(set(said)) == len(set(zip(hashes.tolist(), said, strict=True)))


@given(rows=songs, start=st.integers(0, 30))
def test_what_stands_before_a_window_and_how_long_notes_are_do_not_matter(rows, start):
    other = rows.copy()
    other[:, NOTE_DUR] = FIRST_ID
    assert (window_hashes(other[start:], WINDOW, VOCABULARY) == window_hashes(rows, WINDOW, VOCABULARY)[start:]).all()


@given(seed=st.integers(0, 1000), steps=st.integers(0, 6 * STEPS), semitones=st.integers(-12, 12))
def test_moving_melodic_parts_together_or_all_in_time_changes_nothing(seed, steps, semitones):
    rows = melodic_song(seed)
    hashes = window_hashes(rows, WINDOW, VOCABULARY)
    assert (window_hashes(moved(rows, steps, semitones), WINDOW, VOCABULARY) == hashes).all()


@given(seed=st.integers(0, 1000), drums=st.integers(-5, 5).filter(bool))
def test_drums_moved_are_others(seed, drums):
    rows = melodic_song(seed)
    has_drums = np.convolve(DRUMS[parts_of(rows)], np.ones(WINDOW), "valid") > 0
    same = window_hashes(moved(rows, drums=drums), WINDOW, VOCABULARY) == window_hashes(rows, WINDOW, VOCABULARY)
    assert (same == ~has_drums).all()


@given(seed=st.integers(0, 1000))
def test_one_melodic_part_moved_alone_is_another_song(seed):
    rows = melodic_song(seed)
    other = rows.copy()
    other[:, PITCH_INSTRUMENT] += parts_of(rows) == len(DRUMS) - 1
    both = np.array([len(set(parts_of(rows[i:i + WINDOW])[~DRUMS[parts_of(rows[i:i + WINDOW])]])) > 1
                     for i in range(len(rows) - WINDOW + 1)])
    assert ((window_hashes(other, WINDOW, VOCABULARY) != window_hashes(rows, WINDOW, VOCABULARY)) == both).all()


def test_a_song_shorter_than_a_window_has_none():
    assert not len(window_hashes(random_song(0, WINDOW - 1), WINDOW, VOCABULARY))
    assert not len(window_hashes(random_song(0)[:0], WINDOW, VOCABULARY))
    assert len(window_hashes(random_song(0, WINDOW), WINDOW, VOCABULARY)) == 1


# ---------------------------------------------------------------- filter


def test_a_filter_knows_what_it_was_given_and_little_else():
    random = np.random.default_rng(0)
    given_hashes, others = random.integers(1 << 64, size=(2, 20_000), dtype=np.uint64)
    bits = make_filter(given_hashes)
    assert in_filter(bits, given_hashes).all()
    assert 0.01 < in_filter(bits, others).mean() < 0.03
    assert len(bits) == len(given_hashes)  # a byte each


def test_an_empty_filter_knows_nothing():
    none = np.zeros(0, np.uint64)
    assert not in_filter(make_filter(none), np.arange(9, dtype=np.uint64)).any()
    assert not len(in_filter(make_filter(np.arange(9, dtype=np.uint64)), none))


# ---------------------------------------------------------------- runs


def test_a_training_song_has_its_whole_length():
    training = [random_song(seed, 60) for seed in range(20)]
    index = index_of(training)
    for rows in training:
        bars = rows[[0, -1], BAR] - FIRST_ID + 1
        assert index.longest_run(rows) == (60, *bars)
        assert index.longest_run(moved(rows, 5 * STEPS + 3)).n_notes == 60


@given(seed=st.integers(0, 1000), start=st.integers(0, 40), length=st.integers(WINDOW + ACCIDENTS, 40),
       semitones=st.integers(-5, 5))
def test_a_planted_run_is_found_with_its_bars(seed, start, length, semitones):
    source, song = melodic_song(seed, 80), random_song(seed + 5000, 30)
    planted = moved(source[start:start + length], 7 * STEPS, semitones)  # behind the song's four bars
    after = moved(random_song(seed + 9000, 30), 14 * STEPS)
    run = index_of([source]).longest_run(np.concatenate([song, planted, after]))
    assert length == len(planted) <= run.n_notes <= length + ACCIDENTS
    assert run.first_bar <= planted[0, BAR] - FIRST_ID + 1 and planted[-1, BAR] - FIRST_ID + 1 <= run.last_bar
    if run.n_notes == length:
        assert run[1:] == tuple(planted[[0, -1], BAR] - FIRST_ID + 1)


def test_only_new_notes_count():
    rows = random_song(0, 40)
    index = index_of([rows])
    is_new = np.arange(40) >= 30
    assert index.longest_run(rows, is_new) == (10, *(rows[[30, -1], BAR] - FIRST_ID + 1))
    assert index.longest_run(rows, np.zeros(40, bool)) == SharedRun()
    assert index.longest_run(rows[:0]) == index.longest_run(rows[:5]) == SharedRun()


def test_a_run_is_measured_by_real_songs_of_its_length():
    rows = random_song(0, 200)
    index = index_of([rows], [rows, random_song(1, 200)])
    assert index.real_runs[:, 0].tolist() == [128, 200, 200]
    assert index.real_runs[:, 1].max() < WINDOW + ACCIDENTS
    assert [index.usual(n, 100) for n in (1, 128, 129, 10_000)] == [128, 128, 200, 200]
    said = index.describe(SharedRun(23, 5, 7), 512)
    assert said == ("longest run shared with training songs: 23 notes, bars 5–7 (real songs: 198 at the 99th "
                    "percentile of songs this long)")
    longer = index.describe(SharedRun(199, 5, 5), 512)
    assert longer.startswith("COPIED? longest run shared with training songs: 199 notes, bar 5 (")
    plain = index_of([rows], [rows[:5]])
    assert plain.describe(SharedRun(), 9) == (f"longest run shared with training songs: at most {WINDOW} notes (real "
                                        f"songs: at most {WINDOW} at the 99th percentile of songs this long)")
    assert plain.describe(SharedRun(WINDOW, 1, 2), 9) == plain.describe(SharedRun(), 9)
    assert plain.describe(SharedRun(WINDOW + 1, 1, 2), 9).startswith("COPIED?")


def test_a_check_refuses_longer_runs_alone():
    check = CopyCheck(index_of([random_song(0)]), 20)
    assert check.refuses(SharedRun(21, 1, 2)) and not check.refuses(SharedRun(20, 1, 2))
    assert not CopyCheck(check.index).refuses(SharedRun(500, 1, 9))


# ---------------------------------------------------------------- file


def test_an_index_comes_back_as_it_was_written(tmp_path):
    index = build_index([random_song(0)], [random_song(1), random_song(2)], VOCABULARY, split_digest(["a", "b"]))
    write_index(tmp_path / "index.safetensors", index)
    again = read_index(tmp_path / "index.safetensors", VOCABULARY)
    assert (again.bits == index.bits).all() and (again.real_runs == index.real_runs).all()
    assert again.split == index.split == split_digest(["b", "a"])
    assert [path.name for path in tmp_path.iterdir()] == ["index.safetensors"]


def test_bad_indices(tmp_path, capsys):
    path = tmp_path / "index.safetensors"
    write_index(path, index_of([random_song(0)]))
    with safetensors.safe_open(path, framework="np") as file:
        header, tensors = file.metadata(), {name: file.get_tensor(name) for name in ("bits", "real_runs")}

    def refused(vocabulary=VOCABULARY) -> str:
        with pytest.raises(UserError) as caught:
            read_index(path, vocabulary)
        assert str(caught.value).startswith(str(path)) and "make one with copies.py" in str(caught.value)
        return str(caught.value)

    assert "made with another vocabulary" in refused(SMALL_VOCABULARY)
    for change, text in [({"format": "pooled-model"}, "not an index"), ({"version": "9"}, "version '9'"),
                         ({"window": "3"}, "window '3'"), ({"bits_set": str(N_BITS_SET + 1)}, "bits_set"),
                         ({"excerpts": "1 2"}, "excerpts"), ({"vocabulary": ""}, "another vocabulary")]:
        path.write_bytes(safetensors.numpy.save(tensors, header | change))
        assert text in refused()
    for change in ({"bits": np.zeros(0, np.uint8)}, {"bits": np.zeros(8, np.int64)},
                   {"real_runs": np.zeros((len(EXCERPTS), 0), np.int32)}, {"real_runs": np.zeros(3, np.int32)}):
        path.write_bytes(safetensors.numpy.save(tensors | change, header))
        assert "damaged or missing" in refused()
    path.write_bytes(safetensors.numpy.save({"bits": tensors["bits"]}, header))
    assert "damaged or missing" in refused()
    path.write_bytes(b"text")
    assert "not a safetensors file" in refused()
    path.unlink()
    assert "no such index" in refused()


# ---------------------------------------------------------------- command


@pytest.fixture(scope="module")
def model_path(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    model = tiny_model(VOCABULARY, block_size=32, sharpness=1)
    bars = model.heads[BAR].bias.data
    bars[:FIRST_ID], bars[FIRST_ID:] = -9, -3.0 * torch.arange(len(bars) - FIRST_ID)  # many notes in a bar
    save_release(path, model, VOCABULARY, {"held_out_songs": ["song2", "song3"]})
    return path


@pytest.fixture
def own_index(model_path):
    """Where the index of the model goes, until the end of the test."""
    path = own_copies(model_path)
    yield path
    path.unlink()


def test_the_command_indexes_what_is_not_held_out(tmp_path, model_path, capsys):
    made = [random_song(seed, 60) for seed in range(4)]
    dataset = make_dataset(tmp_path / "dataset.pt", [*made, made[0]], 2)  # blocks of 2: no song is cut
    out = tmp_path / "new" / "index.safetensors"
    arguments = [out, "--dataset_path", dataset, "-mp", model_path]
    succeeds(copies.main, arguments)
    printed = capsys.readouterr().out
    assert "3 songs" in printed and "of 2 held-out songs" in printed and printed.count("\n| ") == 1 + len(EXCERPTS)
    index = read_index(out, VOCABULARY)
    assert [index.longest_run(rows).n_notes >= 60 for rows in made] == [True, True, False, False]
    assert index.split == split_digest(["song2", "song3"])
    assert "--force" in fails(copies.main, arguments, capsys)
    succeeds(copies.main, [*arguments, "--force"])


def test_an_index_without_a_name_is_written_beside_its_model(tmp_path, model_path, own_index):
    dataset = make_dataset(tmp_path / "dataset.pt", [random_song(seed, 60) for seed in range(4)], 2)
    succeeds(copies.main, ["--dataset_path", dataset, "-mp", model_path])
    assert read_index(own_index, VOCABULARY).split == split_digest(["song2", "song3"])


def test_the_command_says_what_is_wrong(tmp_path, model_path, capsys):
    dataset = make_dataset(tmp_path / "dataset.pt", [random_song(seed) for seed in range(4)])
    others = make_dataset(tmp_path / "others.pt", [random_song(seed) for seed in range(2)])
    unknown = tmp_path / "unknown.safetensors"
    save_release(unknown, tiny_model(VOCABULARY, block_size=32), VOCABULARY, {})
    all_held_out = tmp_path / "all.safetensors"
    save_release(all_held_out, tiny_model(VOCABULARY, block_size=32), VOCABULARY,
                 {"held_out_songs": [f"song{i}" for i in range(4)]})
    out = tmp_path / "index.safetensors"
    for arguments, text in [
            ([out, "--dataset_path", others, "-mp", model_path], "none of its 2 held-out songs"),
            ([out, "--dataset_path", dataset, "-mp", unknown], "carries no list of held-out songs"),
            ([out, "--dataset_path", dataset, "-mp", all_held_out], "all its songs are held out"),
            ([out, "--dataset_path", tmp_path / "gone.pt", "-mp", model_path], "gone.pt: no such file"),
            ([out, "--dataset_path", dataset, "-mp", tmp_path / "gone.pth"], "gone.pth: no such file"),
            ([model_path, "--dataset_path", dataset, "-mp", model_path, "--force"], "would replace the file"),
            ([tmp_path / "index.npz", "--dataset_path", dataset, "-mp", model_path], "must end in .safetensors")]:
        assert text in fails(copies.main, arguments, capsys)
    assert not out.exists()
    message = fails(copies.main, ["--dataset_path", dataset, "-mp", "hf:me/band"], capsys)
    assert "hf:me/band: say where to write the index of a model on the hub" in message


def test_help_needs_no_torch():
    assert "Example  python copies.py" in help_without("copies", "torch")


# ---------------------------------------------------------------- generate.py


@pytest.fixture
def play(model_path, tmp_path, monkeypatch):
    """Call generate.main in an empty folder, with the tiny model and at most 60 new notes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short.json").write_text(json.dumps({
        "max_steps": 60, "temperature": [0.8, 0.6, 0.6, 0.8], "sampling_fn": "top_k", "threshold": [0.9] * 4,
        "num_bars": 32, **dict.fromkeys(SWITCHES, False)}))

    def call(*arguments: object) -> int:
        return generate.main(["-mp", str(model_path), "--genconfig", "short.json", "-d", "cpu", "--seed", "0",
                              *map(str, arguments)])

    return call


def made_song(path: Path | str) -> np.ndarray:
    return np.array(ids_of(path)[1:-1])


def save_index(path: Path, training: list[np.ndarray]) -> Path:
    write_index(path, build_index(training, [random_song(seed, 60) for seed in range(3)], VOCABULARY,
                                  split_digest(["song2", "song3"])))
    return path


def test_a_copied_song_is_marked_and_the_others_are_not(play, tmp_path, capsys):
    play("-o", "plain", "-n", 3)
    index = save_index(tmp_path / "index.safetensors", [made_song("plain/1.mid")])
    capsys.readouterr()
    assert play("-o", "out", "-n", 3, "--check-copies", index) == 0
    captured = capsys.readouterr()
    n_notes = len(made_song("plain/1.mid"))
    lines = captured.out.splitlines()
    assert f"COPIED? longest run shared with training songs: {n_notes} notes, bar" in lines[1]
    assert captured.out.count("COPIED?") == 1 and captured.out.count("longest run shared") == 3
    assert captured.err == ""
    log = (tmp_path / "out/genconfigs.txt").read_text()
    assert f"{n_notes} notes, bar" in json.loads(log[log.index("{"):])["songs"][1]["copied"]
    for name in (path.name for path in (tmp_path / "plain").glob("*.mid")):
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_a_copied_song_is_passed_over_for_that_of_a_further_seed(play, model_path, tmp_path, capsys):
    play("-o", "plain", "-n", 3)
    play("-o", "further", "--seed", 1 + session.SEED_STEP)
    index = save_index(tmp_path / "index.safetensors", [made_song("plain/1.mid")])
    capsys.readouterr()
    assert play("-o", "out", "-n", 3, "--check-copies", index, "--max-copy", 16) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith("notice: seed 1 rejected: COPIED? longest run")
    assert len(captured.err.splitlines()) == 1 and captured.out.count("longest run shared") == 3
    for number, name in enumerate(("plain/0.mid", "further/0.mid", "plain/2.mid")):
        assert (made_song(f"out/{number}.mid") == made_song(name)).all()
    log = (tmp_path / "out/genconfigs.txt").read_text()
    assert [song["seed"] for song in json.loads(log[log.index("{"):])["songs"]] == [0, 1 + session.SEED_STEP, 2]
    for number in range(3):
        succeeds(generate.main, ["--reproduce", f"out/{number}.mid", "-o", "again", "-mp", model_path, "-d", "cpu"])


def test_the_best_are_chosen_among_songs_that_do_not_copy(play, tmp_path, capsys):
    play("-o", "plain", "-n", 3)
    play("-o", "further", "-n", 3, "--seed", session.SEED_STEP)
    index = save_index(tmp_path / "index.safetensors", [made_song(f"plain/{seed}.mid") for seed in (0, 1, 2)])
    assert play("-o", "out", "--best-of", 3, "-n", 3, "--check-copies", index, "--max-copy", 16) == 0
    songs_made = [made_song(f"out/{number}.mid").tolist() for number in range(3)]
    assert sorted(songs_made) == sorted(made_song(f"further/{number}.mid").tolist() for number in range(3))


def test_where_all_copy_there_is_an_end(play, tmp_path, capsys):
    tries = [seed + attempt * session.SEED_STEP for seed in range(2) for attempt in range(session.TRIES)]
    for seed in tries:
        play("-o", "plain", "--seed", seed)
    index = save_index(tmp_path / "index.safetensors",
                       [made_song(f"plain/{number}.mid") for number, seed in enumerate(tries) if seed != 1])
    capsys.readouterr()
    assert play("-o", "out", "-n", 2, "--check-copies", index, "--max-copy", WINDOW) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: --max-copy {WINDOW}: 1 of 2 songs share more in each of {session.TRIES} tries;")
    last = made_song(f"plain/{tries.index(1)}.mid")
    assert (made_song("out/0.mid") == last).all() and not Path("out/1.mid").exists()


def test_the_best_of_those_that_do_not_copy_are_written_though_some_do(play, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(session, "TRIES", 1)
    play("-o", "plain", "-n", 3)
    index = save_index(tmp_path / "index.safetensors", [made_song(f"plain/{seed}.mid") for seed in (0, 1)])
    checked = ["--best-of", 3, "--check-copies", index, "--max-copy", WINDOW]
    assert play("-o", "enough", "-n", 1, *checked) == 0
    assert (made_song("enough/0.mid") == made_song("plain/2.mid")).all()
    capsys.readouterr()
    assert play("-o", "few", "-n", 2, *checked) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: --max-copy {WINDOW}: 2 of 3 songs share more in each of 1 tries;")
    assert (made_song("few/0.mid") == made_song("plain/2.mid")).all() and not Path("few/1.mid").exists()
    assert "0.mid" in Path("few/genconfigs.txt").read_text()


def test_what_was_given_is_no_copy(play, tmp_path, capsys):
    rows = random_song(3, 60)
    MidiTokenizerPooled().create_midi_from_tokens(rows).dump("prompt.mid")
    prompt = made_song("prompt.mid")
    index = save_index(tmp_path / "index.safetensors", [prompt])
    assert play("-p", "prompt.mid", "-o", "out", "--check-copies", index, "--max-copy", WINDOW) == 0
    captured = capsys.readouterr()
    assert "rejected" not in captured.err and "COPIED?" not in captured.out


def test_an_index_of_other_songs_is_said_to_be_so(play, tmp_path, capsys):
    index = tmp_path / "other.safetensors"
    write_index(index, index_of([random_song(0)]))
    assert play("-o", "out", "--check-copies", index) == 0
    assert "may be of other songs" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--max-copy", 40], ["--check-copies"]])
def test_the_index_beside_a_model_is_the_one_that_is_used(play, own_index, option, capsys):
    save_index(own_index, [random_song(0)])
    assert play("-o", "out", *option) == 0
    captured = capsys.readouterr()
    assert "longest run shared" in captured.out and "may be of other songs" not in captured.err


def test_without_an_index_of_its_own_a_model_is_compared_with_the_songs_of_the_bundled_one(play, capsys):
    assert play("-o", "out", "--check-copies") == 0
    assert "bundled_copies.safetensors may be of other songs" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "text"), [
    (["--max-copy", WINDOW - 1], f"must be at least {WINDOW}"), (["--max-copy", -1], "--max-copy -1"),
    (["--check-copies", "gone.safetensors"], "gone.safetensors: no such index")])
def test_bad_arguments(play, tmp_path, capsys, arguments, text):
    assert play("-o", "out", *arguments) == 2
    error, = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ") and text in error
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- benchmark


@given(seed=st.integers(0, 1000))
def test_exact_runs_are_those_of_a_slow_version(seed):
    training = [random_song(seed + i, 12, 1) for i in range(2)]
    few = random_song(seed + 7, 12, 1)
    planted = np.concatenate([moved(training[1][2:9]), moved(few, 2 * STEPS)])
    expected = [max(exact_run(song, other) for other in training) for song in (few, planted)]
    assert bench_copies.exact_runs([few, planted], training, VOCABULARY).tolist() == expected
    assert expected[1] >= 7


def test_the_benchmark_runs(tmp_path, model_path, capsys):
    made = [random_song(seed, 80) for seed in range(4)]
    made[2][30:60] = moved(made[0][30:60])
    dataset = make_dataset(tmp_path / "dataset.pt", made, 2)
    assert bench_copies.main([str(dataset), str(model_path), "--windows", "8", "12", "--notes", "70"]) == 0
    printed = capsys.readouterr().out
    assert "2 held-out songs" in printed and printed.count("\n| 12 |") == 2 * len(bench_copies.KEPT)
