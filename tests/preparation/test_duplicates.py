"""Near duplicates are found whatever was done to a song, unrelated songs stay apart, and no cliché costs much."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest
from commands import ROOT
from random_songs import VOCABULARY, random_song

from backline.music.vocab import NOTE_DUR, Part, Vocabulary
from backline.preparation import duplicates
from backline.preparation.duplicates import (
    BANDS_AT_ONCE,
    EMPTY,
    MINIMUM,
    N_HASHES,
    THRESHOLD,
    cluster,
    exact_key,
    signature,
    similarity,
)
from benchmarks import bench_duplicates
from benchmarks.bench_duplicates import altered, to_rows

SEVEN = Vocabulary(256, 32, 128, (
    Part("drums", True, 0, (), 35, 81), *(Part(f"part{i}", False, i, (), 21, 108) for i in range(1, 7))))


def tune(random: np.random.Generator, n_bars: int, middle: int) -> tuple[np.ndarray, np.ndarray]:
    """Onsets in steps, eighths with gaps, and pitches that wander around `middle`; verse, verse, chorus, verse."""
    sections = []
    for _ in range(2):
        steps = random.integers(-4, 5, 2 * n_bars).cumsum() % 24 + middle - 12
        sections.append((np.sort(random.choice(8 * n_bars // 4, 2 * n_bars, replace=False)) * 4, steps))
    length = 8 * n_bars
    order = [sections[i] for i in (0, 0, 1, 0)]
    return (np.concatenate([onset + i * length for i, (onset, _) in enumerate(order)]),
            np.concatenate([pitch for _, pitch in order]))


def made_song(seed: int, vocabulary: Vocabulary = VOCABULARY, n_bars: int = 48) -> np.ndarray:
    """(N, F) note ids: a drum loop that all songs share, and for each other part a tune of its own, with thirds."""
    random = np.random.default_rng(seed)
    notes = []
    for p, part in enumerate(vocabulary.parts):
        if part.is_drum:
            onset = np.arange(0, 32 * n_bars, 8)
            notes.append((onset, np.full(len(onset), p), np.where(onset % 16 == 0, 36, 38)))
        else:
            onset, pitch = tune(random, n_bars, 60 - 20 * (p % 2))
            notes.append((onset, np.full(len(onset), p), pitch))
            notes.append((onset[::4], np.full(len(onset[::4]), p), pitch[::4] + 4))
    onset, part, pitch = (np.concatenate(column) for column in zip(*notes, strict=True))
    return to_rows(onset, np.full(len(onset), 4), part, pitch, vocabulary)


def signatures_of(songs: list[np.ndarray], vocabulary: Vocabulary = VOCABULARY) -> np.ndarray:
    return np.stack([signature(rows, vocabulary) for rows in songs])


def one_part(pitches: list[int], part: int = 1) -> np.ndarray:
    """A song of quarter notes in one part."""
    onset = 8 * np.arange(len(pitches))
    return to_rows(onset, np.full(len(onset), 8), np.full(len(onset), part), np.array(pitches, int), VOCABULARY)


def fake_signatures(n: int, n_parts: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1 << 32, size=(n, n_parts, N_HASHES), dtype=np.uint32)


# ---------------------------------------------------------------- exact


def test_equal_notes_have_equal_keys_whatever_the_integer_type():
    rows = random_song(1)
    keys = {exact_key(np.asarray(rows, dtype, order)) for dtype in (np.int16, np.int32, np.int64) for order in "CF"}
    assert len(keys) == 1
    assert len(keys.pop()) == 16


@pytest.mark.parametrize("field", range(4))
def test_any_other_note_has_another_key(field):
    rows = random_song(1)
    other = rows.copy()
    other[7, field] += 1
    assert exact_key(rows) != exact_key(other)
    assert exact_key(rows) != exact_key(rows[:-1])


# ---------------------------------------------------------------- near


@pytest.mark.parametrize("vocabulary", [VOCABULARY, SEVEN], ids=["three parts", "seven parts"])
def test_every_alteration_is_found_and_unrelated_songs_stay_apart(vocabulary):
    songs = [made_song(seed, vocabulary) for seed in range(12)]
    values = signatures_of(songs, vocabulary)
    for i in (0, 5):
        for name, rows in altered(songs[i], vocabulary, np.random.default_rng(i)):
            labels = cluster(np.concatenate([values, signatures_of([rows], vocabulary)]))
            assert labels.tolist() == [*range(12), i], name


def test_signature_has_a_row_for_each_melodic_part():
    assert signature(made_song(0), VOCABULARY).shape == (2, N_HASHES)
    values = signature(made_song(0, SEVEN), SEVEN)
    assert values.shape == (6, N_HASHES)
    assert values.dtype == np.uint32
    assert not (values == EMPTY).any()


def test_key_time_and_length_of_notes_change_nothing():
    rows = made_song(3)
    longer = rows.copy()
    longer[:, NOTE_DUR] += 3
    values = signature(rows, VOCABULARY)
    assert (signature(longer, VOCABULARY) == values).all()
    same = dict(altered(rows, VOCABULARY, np.random.default_rng(0)))
    for name in ("transposed by 3", "shifted by 2 bars", "grid doubled", "grid halved", "without drums"):
        assert (signature(same[name], VOCABULARY) == values).all(), name


def test_drums_alone_never_match():
    drums = made_song(0)[VOCABULARY.part_of_id[made_song(0)[:, -1]] == 0]
    labels = cluster(signatures_of([drums, drums]))
    assert labels.tolist() == [0, 1]


@pytest.mark.parametrize("pitches", [[], [40], [40] * 300, [40, 52] * 150, [40, 44, 47, 52] * 80,
                                     [40, 42, 44, 45, 47, 45, 44, 42] * 40,
                                     np.random.default_rng(0).choice([40, 44, 47, 52], 400).tolist()],
                         ids=["none", "one", "repeated", "octaves", "arpeggio", "one-bar loop", "four pitches"])
def test_too_little_material_is_marked_and_matches_nothing(pitches):
    songs = [one_part(pitches), one_part(pitches)]
    values = signatures_of(songs)
    assert (values == EMPTY).all()
    assert cluster(values).tolist() == [0, 1]


def test_minimum_is_the_number_of_different_shingles():
    random = np.random.default_rng(0)
    line = 40 + random.permutation(24)
    enough = duplicates.SHINGLE + MINIMUM
    assert (signature(one_part(line[:enough - 1].tolist()), VOCABULARY) == EMPTY).all()
    assert (signature(one_part(line[:enough].tolist()), VOCABULARY)[0] != EMPTY).all()


def test_estimates_agree_with_exact_jaccard():
    songs = [made_song(0), *(rows for _, rows in altered(made_song(0), VOCABULARY, np.random.default_rng(0)))]
    values = signatures_of(songs)
    for i, rows in enumerate(songs):
        for p, expected in enumerate(_exact(songs[0], rows)):
            found = similarity(values[:, [p]], np.array([0]), np.array([i]))[0]
            assert abs(found - expected) < 4 * np.sqrt(0.25 / N_HASHES)


def _exact(a: np.ndarray, b: np.ndarray) -> list[float]:
    """Jaccard similarity of two songs in each melodic part, from the shingles themselves."""
    result = []
    for p in (1, 2):
        left, right = (set(duplicates.shingle_hashes(duplicates.lines(rows[VOCABULARY.part_of_id[rows[:, -1]] == p],
                                                                      VOCABULARY)).tolist()) for rows in (a, b))
        result.append(len(left & right) / max(1, len(left | right)))
    return result


def test_same_songs_same_signatures_in_another_process(tmp_path):
    np.save(tmp_path / "rows.npy", made_song(2))
    code = ("import numpy as np, sys; from backline.music import vocab; from backline.preparation import duplicates\n"
            "print(duplicates.signature(np.load(sys.argv[1]), vocab.load_vocabulary()).tobytes().hex())")
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "rows.npy"], cwd=ROOT,
                          capture_output=True, text=True, check=True)
    assert done.stdout.strip() == signature(made_song(2), VOCABULARY).tobytes().hex()


def test_importing_is_quick_and_leaves_datasketch_for_later():
    code = ("import sys; import backline.preparation.duplicates\n"
            "assert not {'datasketch', 'scipy', 'torch'} & set(sys.modules)")
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


# ---------------------------------------------------------------- clusters


def test_clusters_are_those_of_comparing_all_pairs():
    random = np.random.default_rng(0)
    values = fake_signatures(300)
    for i in range(100, 300):  # each like an earlier one, more or less
        kept = random.random((2, N_HASHES)) < random.choice([0.02, 0.1, 0.25, 0.5, 0.9])
        values[i] = np.where(kept, values[random.integers(i)], values[i])
    a, b = np.triu_indices(300, 1)
    alike = similarity(values, a, b)
    expected = _components(300, a[alike >= THRESHOLD], b[alike >= THRESHOLD])
    labels = cluster(values)
    together = labels[a] == labels[b]
    assert together[alike >= 0.6].all()
    assert together[alike >= THRESHOLD].mean() > 0.9  # near the threshold a pair may share no band
    assert not (together & (expected[a] != expected[b])).any()
    assert (labels[labels] == labels).all()
    assert (labels <= np.arange(300)).all()


def _components(n: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    labels = list(range(n))
    for i, j in zip(a.tolist(), b.tolist(), strict=True):
        old, new = max(labels[i], labels[j]), min(labels[i], labels[j])
        labels = [new if label == old else label for label in labels]
    return np.array(labels)


def test_parts_add_up():
    values = fake_signatures(2)
    share = int(0.2 * N_HASHES)  # too little in one part, enough in two
    values[1, 0, ::N_HASHES // share][:share] = values[0, 0, ::N_HASHES // share][:share]
    one = similarity(values, np.array([0]), np.array([1]))[0]
    values[1, 1] = np.where(values[1, 0] == values[0, 0], values[0, 1], values[1, 1])
    both = similarity(values, np.array([0]), np.array([1]))[0]
    assert one < THRESHOLD < both == 2 * one


def test_memory_mapped_signatures_are_read_in_pieces(tmp_path, monkeypatch):
    values = fake_signatures(500)
    values[250:] = np.where(np.random.default_rng(1).random(values[250:].shape) < 0.7, values[:250], values[250:])
    mapped = np.memmap(tmp_path / "signatures", np.uint32, "w+", shape=values.shape)
    mapped[:] = values
    mapped.flush()
    mapped = np.memmap(tmp_path / "signatures", np.uint32, "r", shape=values.shape)
    whole = cluster(values)
    assert whole.tolist() == [*range(250), *range(250)]
    monkeypatch.setattr(duplicates, "VALUES_AT_ONCE", 7 * N_HASHES)
    monkeypatch.setattr(duplicates, "BANDS_AT_ONCE", BANDS_AT_ONCE - 3)
    assert (cluster(mapped) == whole).all()


def test_a_cliche_of_all_songs_joins_none_and_hides_no_duplicate():
    n = 6000
    values = fake_signatures(n, 1)
    values[:, :, :N_HASHES // 5] = values[0, :, :N_HASHES // 5]  # a fifth of the values: below the threshold
    assert similarity(values, np.array([0]), np.array([1]))[0] < THRESHOLD
    values[n - 100:, :, ::2] = values[:100, :, ::2]
    labels = cluster(values)
    assert labels.tolist() == [*range(n - 100), *range(100)]


def test_time_of_a_cliche_grows_with_the_songs_not_their_pairs(monkeypatch):
    compared = []
    monkeypatch.setattr(duplicates, "similarity",
                        lambda values, a, b: compared.append(len(a)) or np.zeros(len(a)))
    counts = []
    for n in (1000, 4000):
        compared.clear()
        cluster(np.broadcast_to(np.uint32(7), (n, 1, N_HASHES)))
        counts.append(sum(compared))
    assert counts[1] < 4.1 * counts[0]
    assert counts[1] <= N_HASHES * len(duplicates.NEIGHBOURS) * 4000


def test_many_copies_of_one_song_are_one_cluster_quickly():
    began = time.process_time()
    labels = cluster(np.repeat(fake_signatures(1), 20_000, axis=0))
    assert not labels.any()
    assert time.process_time() - began < 20


def test_a_part_that_both_lack_is_no_evidence():
    values = fake_signatures(2)
    values[:, 1] = EMPTY
    values[1, 0, :N_HASHES // 5] = values[0, 0, :N_HASHES // 5]  # shares bands, and is compared
    assert cluster(values).tolist() == [0, 1]


def test_songs_without_material_are_not_compared(monkeypatch):
    monkeypatch.setattr(duplicates, "similarity", lambda values, a, b: pytest.fail("compared") if len(a) else a)
    assert cluster(np.full((500, 2, N_HASHES), EMPTY)).tolist() == list(range(500))


def test_within_a_cliche_the_most_similar_are_compared():
    n, step = 1000, max(duplicates.BAND_STEPS)
    values = fake_signatures(n, 1)
    values[:, :, :step + 4] = values[0, :, :step + 4]  # all songs share a few bands, and copies no other
    extra = slice(N_HASHES // 2, N_HASHES // 2 + step - 8)
    values[n // 2:, :, extra] = values[:n // 2, :, extra]
    assert similarity(values, np.array([0, 0]), np.array([n // 2, 1])).round(1).tolist() == [0.3, 0.2]
    assert (cluster(values)[n // 2:] == np.arange(n // 2)).all()


@pytest.mark.parametrize("shape", [(0, 2), (1, 2), (2, 2), (3, 0)])
def test_few_songs_or_no_melodic_part(shape):
    assert cluster(fake_signatures(*shape)).tolist() == list(range(shape[0]))


def test_label_is_the_first_song_whatever_the_order_of_joins():
    values = fake_signatures(6)
    values[[5, 3, 1]] = values[5]
    values[[4, 2]] = values[2]
    assert cluster(values).tolist() == [0, 1, 2, 1, 2, 1]


# ---------------------------------------------------------------- the measurement


def test_benchmark_runs_on_made_up_signatures(tmp_path, capsys):
    assert bench_duplicates.main(["--synthetic", "2000", "--scratch", str(tmp_path)]) == 0
    assert "2000 songs" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_benchmark_wants_something_to_measure(capsys):
    assert bench_duplicates.main([]) == 2
    assert "--synthetic" in capsys.readouterr().err
