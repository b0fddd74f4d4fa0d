"""Measure duplicates.py: recall on altered songs, joins in a real corpus, the leak of a split by file, time and memory.

Input    a folder of token .json files named by MD5, and lakh_songs.jsonl with a row per song (md5, bass_line_hash,
         artist and title where known); or only a number of synthetic songs
Output   tables on stdout
Example  python -m benchmarks.bench_duplicates --tokens tokens --songs lakh_songs.jsonl
         python -m benchmarks.bench_duplicates --synthetic 1400000
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import resource
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from backline.common.errors import Parser, UserError, reports_user_errors
from backline.folders.inputs import Listing
from backline.music.vocab import BAR, FIRST_ID, NOTE_DUR, PITCH_INSTRUMENT, START_POS, Vocabulary
from backline.preparation.duplicates import EMPTY, N_HASHES, THRESHOLD, cluster, exact_key, signature, similarity
from tokenizer import MidiTokenizerPooled, read_tokens, rows_in_order

CHANGED = 0.05  # share of notes that get another pitch and another onset
BARS_MOVED = 1  # at most, by a changed note
HELD_OUT = 0.1
PAIRS_SHOWN = 40


# ---------------------------------------------------------------- altered songs


def altered(rows: np.ndarray, vocabulary: Vocabulary, random: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    """Versions of a song, each with its name: (N, F) note ids in order. Notes outside the vocabulary are left out."""
    onset = (rows[:, BAR].astype(np.int64) - FIRST_ID) * vocabulary.steps_per_bar + rows[:, START_POS] - FIRST_ID
    duration = rows[:, NOTE_DUR].astype(np.int64) - FIRST_ID + 1
    part = vocabulary.part_of_id[rows[:, PITCH_INSTRUMENT]]
    pitch = vocabulary.pitch_of_id[rows[:, PITCH_INSTRUMENT]]
    melodic = ~vocabulary.is_drum[part]

    def song(onset: np.ndarray, duration: np.ndarray, pitch: np.ndarray, keep: np.ndarray | slice) -> np.ndarray:
        return to_rows(onset[keep], duration[keep], part[keep], pitch[keep], vocabulary)

    def changed(onset: np.ndarray, pitch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        onset, pitch = onset.copy(), pitch.copy()
        reach = BARS_MOVED * vocabulary.steps_per_bar
        for p in np.unique(part):
            own = np.flatnonzero(part == p)
            which = random.choice(own, round(CHANGED * len(own)), replace=False)
            pitch[which] = random.integers(pitch[own].min(), pitch[own].max() + 1, len(which))
            onset[which] = np.maximum(onset[which] + random.integers(-reach, reach + 1, len(which)), 0)
        return onset, pitch

    every, up, later = slice(None), pitch + 3 * melodic, onset + 2 * vocabulary.steps_per_bar
    yield "transposed by 3", song(onset, duration, up, every)
    yield "shifted by 2 bars", song(later, duration, pitch, every)
    for p, facts in enumerate(vocabulary.parts):
        yield f"without {facts.name}", song(onset, duration, pitch, part != p)
    new_onset, new_pitch = changed(onset, pitch)
    yield f"{CHANGED:.0%} of notes changed", song(new_onset, duration, new_pitch, every)
    yield "grid doubled", song(2 * onset, 2 * duration, pitch, every)
    yield "grid halved", song(onset // 2, -(-duration // 2), pitch, every)
    new_onset, new_pitch = changed(later, up)
    yield "transposed, shifted, changed", song(new_onset, duration, new_pitch, every)


def to_rows(onset: np.ndarray, duration: np.ndarray, part: np.ndarray, pitch: np.ndarray,
            vocabulary: Vocabulary) -> np.ndarray:
    """(N, F) note ids in order of notes in steps, parts and pitches; notes outside the vocabulary are left out."""
    lowest, highest = np.array([(facts.lowest_pitch, facts.highest_pitch) for facts in vocabulary.parts]).T
    inside = (pitch >= lowest[part]) & (pitch <= highest[part]) & (onset < vocabulary.bars * vocabulary.steps_per_bar)
    pitch_instrument = pitch - lowest[part] + np.array(vocabulary.first_pitch_ids)[part]
    duration = np.clip(duration, 1, vocabulary.max_duration_steps)
    return rows_in_order(onset[inside], duration[inside], pitch_instrument[inside], vocabulary)


def recall(songs: Sequence[np.ndarray], signatures: np.ndarray, n_chosen: int, vocabulary: Vocabulary) -> None:
    """Print for each alteration the share of chosen songs whose altered version falls into their own cluster.

    All songs are there, and the altered versions of all chosen songs, one alteration at a time.
    """
    random = np.random.default_rng(0)
    chosen = np.sort(random.choice(len(songs), min(n_chosen, len(songs)), replace=False))
    versions = defaultdict(list)
    for i in tqdm(chosen, unit="song", disable=None):
        for name, rows in altered(songs[i], vocabulary, random):
            versions[name].append(signature(rows, vocabulary))
    counted = ~(signatures[chosen] == EMPTY).all(axis=2)
    print(f"\nfound in the cluster of the original, of {len(chosen)} songs "
          f"({counted.any(axis=1).mean():.1%} have a part with enough material)")
    for name, found in versions.items():
        labels = cluster(np.concatenate([signatures, found]))
        print(f"  {name:32} {(labels[chosen] == labels[len(songs):]).mean():6.1%}")


# ---------------------------------------------------------------- the corpus


def corpus(signatures: np.ndarray, keys: Sequence[bytes], facts: Sequence[dict]) -> None:
    """Print what was joined, how it agrees with what is known of the songs, and the least similar pairs joined."""
    labels = cluster(signatures)
    sizes = np.unique(labels, return_counts=True)[1]
    several = sizes[sizes > 1]
    print(f"\n{len(labels)} songs, {len(set(keys))} different note for note")
    print(f"  clusters of more than one song   {len(several)}, with {several.sum()} songs; "
          f"the largest: {', '.join(map(str, np.sort(several)[:-6:-1]))}")
    for name, known in (("equal bass_line_hash", [row.get("bass_line_hash") for row in facts]),
                        ("same artist and title", [song_name(row) for row in facts])):
        a, b = same_pairs(known)
        together = labels[a] == labels[b]
        one_counts = ((signatures[a] != EMPTY).any(axis=2) & (signatures[b] != EMPTY).any(axis=2)).any(axis=1)
        print(f"  pairs: {name:25} {together.sum()} of {len(a)} joined ({one_counts.sum()} have a part that counts in "
              f"both songs)")
    a, b = same_pairs(labels.tolist())
    alike = similarity(signatures, a, b)
    order = np.argsort(alike)
    counts, edges = np.histogram(alike, np.arange(0, signatures.shape[1] + 0.2, 0.1))
    print(f"  {len(a)} pairs joined, by similarity   " +
          ", ".join(f"{low:.1f}: {count}" for low, count in zip(edges[:-1], counts, strict=True) if count))
    print("  the least similar pairs joined with other names or other bass lines:")
    shown = (i for i in order if facts[a[i]].get("bass_line_hash") != facts[b[i]].get("bass_line_hash")
             and (song_name(facts[a[i]]) is None or song_name(facts[a[i]]) != song_name(facts[b[i]])))
    for i in itertools.islice(shown, PAIRS_SHOWN):
        each = similarity_by_part(signatures, a[i], b[i])
        names = [f"{row['md5'][:8]} {row.get('artist', '?')}: {row.get('title', '?')}"
                 for row in (facts[a[i]], facts[b[i]])]
        print(f"    {alike[i]:.2f} ({' '.join(f'{x:.2f}' for x in each)})  {' | '.join(names)}")
    for by_cluster in (False, True):
        leaks = [leak(labels, seed, by_cluster) for seed in range(5)]
        print(f"  split by {'cluster' if by_cluster else 'file   '}: held-out songs with a near duplicate in training "
              f"{', '.join(f'{share:.1%}' for share in leaks)}")


def song_name(row: dict) -> tuple[str, str] | None:
    """Artist and title without case, punctuation and what stands in brackets; None where not known."""
    if "title" not in row:
        return None
    return tuple(re.sub(r"\(.*?\)|\.\d+$|\W", "", row[key].casefold()) for key in ("artist", "title"))


def same_pairs(values: Sequence) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of indices whose values are equal and not None."""
    places = defaultdict(list)
    for i, value in enumerate(values):
        if value is not None:
            places[value].append(i)
    pairs = [pair for group in places.values() for pair in itertools.combinations(group, 2)]
    a, b = np.array(pairs, np.int64).reshape(-1, 2).T
    return a, b


def similarity_by_part(signatures: np.ndarray, a: int, b: int) -> list[float]:
    return [float(similarity(signatures[:, [p]], np.array([a]), np.array([b]))[0]) for p in range(signatures.shape[1])]


def leak(labels: np.ndarray, seed: int, by_cluster: bool) -> float:
    """Share of held-out songs whose cluster has a song in training."""
    groups = labels if by_cluster else np.arange(len(labels))
    random = np.random.default_rng(seed)
    order = random.permutation(len(labels))[groups]  # of songs, by the random number of their group
    held_out = order < np.quantile(order, HELD_OUT)
    return float(np.isin(labels[held_out], labels[~held_out]).mean())


# ---------------------------------------------------------------- time and memory


def synthetic(n: int, folder: Path | None) -> None:
    """Print time and memory of `cluster` on signatures of `n` songs that do not exist, in a memory-mapped file.

    One song in ten is a changed copy of another (six of ten hash values), and one in twenty shares a cliché, a fifth
    of the first part's values, with all others that do; one part in six has too little material.
    """
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        path, step = Path(scratch) / "signatures", 10_000
        signatures = np.memmap(path, np.uint32, "w+", shape=(n, 2, N_HASHES))
        is_copy = np.zeros(n, bool)
        cliche = random.integers(1 << 32, size=N_HASHES // 5, dtype=np.uint32)
        for i in range(0, n, step):
            songs = random.integers(1 << 32, size=(min(step, n - i), 2, N_HASHES), dtype=np.uint32)
            songs[random.random(len(songs)) < 1 / 20, 0, :len(cliche)] = cliche
            half, kept = len(songs) // 2, random.random(songs.shape) < 0.6
            copies = random.random(half) < 0.2
            songs[half:2 * half] = np.where(kept[half:2 * half] & copies[:, None, None], songs[:half],
                                            songs[half:2 * half])
            songs[random.random(songs.shape[:2]) < 1 / 6] = EMPTY
            is_copy[i + half:i + 2 * half] = copies & ((songs[:half] != EMPTY) & (songs[half:2 * half] != EMPTY)
                                                       ).any(axis=(1, 2))
            signatures[i:i + len(songs)] = songs
        signatures.flush()
        del signatures
        mapped = np.memmap(path, np.uint32, "r", shape=(n, 2, N_HASHES))
        with PeakMemory() as memory:
            began = time.monotonic()
            labels = cluster(mapped)
            seconds = time.monotonic() - began
        joined = labels != np.arange(n)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{n} songs: {seconds:.1f} s, {memory.peak_mib:.0f} MiB beside the mapped file of "
              f"{mapped.nbytes >> 20} MiB ({peak:.0f} MiB with it); {joined[is_copy].mean():.2%} of "
              f"{is_copy.sum()} copies and {joined[~is_copy].sum()} other songs joined")


class PeakMemory:
    """Largest anonymous memory of this process while in the block, in MiB: mapped files do not count. Linux only."""

    def __enter__(self) -> PeakMemory:
        self.peak_mib, self.done = 0.0, threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()

    def _watch(self) -> None:
        while not self.done.wait(0.02):
            status = Path("/proc/self/status").read_text()
            self.peak_mib = max(self.peak_mib, int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]) / 1024)


# ---------------------------------------------------------------- command


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    parser.add_argument("--tokens", type=Path, help="folder of token files, named by MD5")
    parser.add_argument("--songs", type=Path, help="lakh_songs.jsonl")
    parser.add_argument("--altered", type=int, default=300, help="songs to alter (default: %(default)s)")
    parser.add_argument("--synthetic", type=int, nargs="*", default=[], metavar="N",
                        help="songs with made-up signatures, for time and memory")
    parser.add_argument("--scratch", type=Path, help="folder for the made-up signatures, 1 kB a song (default: the "
                                                     "system's temporary folder)")
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if (args.tokens is None) != (args.songs is None) or not (args.tokens or args.synthetic):
        raise UserError("give --tokens and --songs, or --synthetic")
    if args.tokens:
        measure(args.tokens, args.songs, args.altered)
    for n in args.synthetic:
        synthetic(n, args.scratch)
    return 0


def measure(tokens: Path, songs_list: Path, n_altered: int) -> None:
    tokenizer = MidiTokenizerPooled()
    known = {row["md5"]: row for row in map(json.loads, songs_list.read_text(encoding="utf-8").splitlines())}
    files = [path for task in Listing([tokens], (".json",), tokens, "") if (path := Path(task.source)).stem in known]
    if not files:
        raise UserError(f"{tokens}: no token file is named by an md5 of {songs_list}")
    songs = [read_tokens(path, tokenizer)[0].astype(tokenizer.vocabulary.id_type)
             for path in tqdm(files, unit="song", disable=None)]
    facts = [known[path.stem] for path in files]
    signature(songs[0], tokenizer.vocabulary)  # imports datasketch, which is not what is measured
    began = time.monotonic()
    signatures = np.stack([signature(rows, tokenizer.vocabulary) for rows in songs])
    each = (time.monotonic() - began) / len(songs)
    print(f"{len(songs)} songs of {np.mean([len(rows) for rows in songs]):.0f} notes: signature {each * 1e3:.2f} ms "
          f"each; threshold {THRESHOLD}")
    corpus(signatures, [exact_key(rows) for rows in songs], facts)
    recall(songs, signatures, n_altered, tokenizer.vocabulary)


if __name__ == "__main__":
    sys.exit(main())
