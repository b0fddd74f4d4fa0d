"""Does a model play what it is told? Songs with controls beside the same left free.

Example  python -m benchmarks.bench_controls models/bundled.safetensors dataset.pt

Songs of 16 bars from scratch, without rules, exact lengths or redraws (configs/genconfig_free.json): each is told
something else, drawn by its seed, and made again with only that left unsaid. Measured: the share of the notes of all
parts but drums on strong beats that belong to the chord asked for (for free songs the same chords, which nobody asked
for; for the dataset's held-out songs those that are estimated from themselves); the rank correlation (Spearman) of the
density asked for with the notes per bar that plays, by part; likewise of --rests and --repeats with the level that the
song's own sheet has; how many songs end in the bar asked for; and how many of the parts asked for play. Also the nats
per note of the held-out songs, told nothing and told what they play, if a dataset is given.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from backline.common.errors import Parser, UserError, reports_user_errors
from backline.common.files import read_json_object
from backline.common.settings import config_from_dict
from backline.evaluation.song_sets import held_out_songs
from backline.generation.config import ControlConfig, GenConfig
from backline.generation.sampler import Request, Sampled, sample_songs
from backline.generation.session import LoadedModel
from backline.generation.task import Task, make_task
from backline.generation.telling import Told, tell
from backline.generation.wish import Wish
from backline.music.chords import FIRST_VALUE, HALVES_PER_BAR, chord_pitch_classes, estimate_chords
from backline.music.controls import bars_left, song_controls
from backline.music.sheet import N_PART_FIELDS, PART_CONTROLS, Levels, sheet_of
from backline.music.sheet_table import SheetTable
from backline.music.theory import OCTAVE, PITCH_CLASSES
from backline.music.vocab import BAR, FIELDS, FIRST_ID, PAD, PITCH_INSTRUMENT, START_POS, Vocabulary
from backline.preparation.dataset import load_dataset, song_notes, song_rows
from backline.training.checkpoints import load_model
from backline.training.losses import cut_windows, window_losses

FREE = Path(__file__).parents[1] / "configs" / "genconfig_free.json"
N_BARS = 16
LONGEST = 32  # bars that a song may go on for where it is asked to end earlier
BATCH = 16
STRONG_BEATS = 2  # in a bar
# Roots in semitones above the tonic, and qualities, a chord a bar.
PROGRESSIONS = (((0, ""), (7, ""), (9, "m"), (5, "")), ((9, "m"), (5, ""), (0, ""), (7, "")),
                ((0, ""), (9, "m"), (5, ""), (7, "")), ((2, "m7"), (7, "7"), (0, "maj7"), (0, "maj7")),
                ((0, "m"), (8, ""), (3, ""), (10, "")), ((0, "m"), (5, "m"), (7, "7"), (0, "m")))


def progression(seed: int) -> str:
    """Four chords, of a progression and in a key drawn by the seed."""
    random = np.random.default_rng(seed)
    tonic = random.integers(OCTAVE)
    chords = PROGRESSIONS[random.integers(len(PROGRESSIONS))]
    return " ".join(PITCH_CLASSES[(tonic + above) % OCTAVE] + quality for above, quality in chords)


def part_levels(control: str, seed: int, vocabulary: Vocabulary) -> dict[str, str]:
    """A level of a control for each part, drawn by the seed."""
    n_levels = PART_CONTROLS[control].n_levels
    levels = np.random.default_rng(seed).integers(1, n_levels + 1, len(vocabulary.parts))
    return {name: str(level) for name, level in zip(vocabulary.part_names, levels, strict=True)}


def in_chord(rows: np.ndarray, chords: np.ndarray, vocabulary: Vocabulary) -> tuple[int, int]:
    """Of (N, F) notes on strong beats, drums left out: how many are in the chords (H, 3), and how many there are."""
    is_drum = np.array([part.is_drum for part in vocabulary.parts])
    start = rows[:, START_POS] - FIRST_ID
    strong = start % (vocabulary.steps_per_bar // STRONG_BEATS) == 0
    rows = rows[strong & ~is_drum[vocabulary.part_of_id[rows[:, PITCH_INSTRUMENT]]]]
    half = (rows[:, BAR] - FIRST_ID) * HALVES_PER_BAR
    half += (rows[:, START_POS] - FIRST_ID) * HALVES_PER_BAR // vocabulary.steps_per_bar
    rows, half = rows[half < len(chords)], half[half < len(chords)]
    is_chord = chords[half, 0] >= FIRST_VALUE
    tones = [chord_pitch_classes(chord) for chord in chords[half[is_chord]]]
    classes = vocabulary.pitch_of_id[rows[is_chord, PITCH_INSTRUMENT]] % OCTAVE
    return sum(int(c) in t for c, t in zip(classes, tones, strict=True)), len(tones)


def notes_per_bar(rows: np.ndarray, part: int, vocabulary: Vocabulary) -> float:
    """Notes of a part in a bar of those in which it begins one; 0 where it does not play."""
    bars = rows[vocabulary.part_of_id[rows[:, PITCH_INSTRUMENT]] == part, BAR]
    return len(bars) / max(len(set(bars.tolist())), 1)


def played_level(rows: np.ndarray, part: int, control: str, vocabulary: Vocabulary, levels: Levels) -> float:
    """The level of a control in what a part plays, the mean where it is two; nan where nothing can be said."""
    sheet = sheet_of(rows, vocabulary, levels, 0, N_BARS - 1)
    own = sheet[:-1].reshape(len(vocabulary.parts), N_PART_FIELDS)[part]
    values = own[list(PART_CONTROLS[control].columns)]
    said = values[values >= FIRST_VALUE]
    return float(said.mean()) - FIRST_VALUE + 1 if len(said) else np.nan


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's: the correlation of ranks, equal values sharing theirs. Pairs with a nan do not count."""
    is_known = ~(np.isnan(a) | np.isnan(b))
    ranks = [_ranks(np.asarray(values)[is_known]) for values in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


def _ranks(values: Sequence[float]) -> np.ndarray:
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[which]


def make(loaded: LoadedModel, task: Task, config: GenConfig, told: Sequence[Told]) -> list[Sampled]:
    """A song for each of `told`, with the seeds 0, 1, …"""
    requests = [Request(task.rules, seed, told=each) for seed, each in enumerate(told)]
    config = dataclasses.replace(config, max_steps=task.max_steps)
    songs: list[Sampled] = []
    for start in tqdm(range(0, len(requests), BATCH), unit="batch", leave=False, disable=None):
        songs += sample_songs(loaded.player, requests[start:start + BATCH], config)
    return songs


def with_end(told: Told, n_bars: int) -> Told:
    """The same, told to end with a bar."""
    by_bar = told.by_bar.copy()
    by_bar[:, -1] = bars_left(np.maximum(n_bars - 1 - np.arange(len(by_bar)), 0))
    return dataclasses.replace(told, by_bar=by_bar)


@torch.inference_mode()
def held_out_nats(loaded: LoadedModel, dataset_path: Path, table: SheetTable, n_songs: int,
                  ) -> tuple[float, float, float]:
    """Nats per note of held-out songs, told nothing and told what they play; and notes in their own chords."""
    vocabulary = loaded.vocabulary
    dataset = load_dataset(dataset_path, vocabulary)
    songs = held_out_songs(loaded.facts, dataset, loaded.path)[:n_songs]
    model = load_model(loaded.path)[0]
    sums, n_notes, inside, strong = np.zeros(2), 0, 0, 0
    for song in tqdm(songs, unit="song", leave=False, disable=None):
        rows = song_rows(dataset, song)
        controls = torch.from_numpy(song_controls(rows.numpy(), vocabulary, table.levels)).long()
        told = torch.cat([rows, torch.zeros_like(rows[:, :1]), controls], 1)
        for k, wide in enumerate((rows, told)):
            batch = torch.stack(cut_windows(wide, model.config.block_size))
            losses = window_losses(model, model.config, batch)
            sums[k] += float(losses[batch[:, 1:, BAR] != PAD].sum())
        n_notes += len(rows) - 1
        notes = song_notes(dataset, song)
        chords = estimate_chords(notes, vocabulary, 0, int(notes[-1, BAR]) - FIRST_ID + 1)
        found = in_chord(notes, chords, vocabulary)
        inside, strong = inside + found[0], strong + found[1]
    return (*(sums / n_notes).tolist(), inside / strong)


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    parser.add_argument("model", type=Path, help="model with controls, .safetensors or .pth")
    parser.add_argument("dataset", type=Path, nargs="?", help="dataset .pt with its held-out songs")
    parser.add_argument("-n", "--songs", type=int, default=100, help="songs of each kind (default: %(default)s)")
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    loaded = LoadedModel(args.model, "cpu")
    if not loaded.sheets:
        raise UserError(f"{args.model}: was not trained with controls")
    vocabulary, table = loaded.vocabulary, loaded.sheets
    own = np.nan
    if args.dataset:
        nothing, everything, own = held_out_nats(loaded, args.dataset, table, args.songs)
        print(f"held out: {nothing:.3f} nats per note told nothing, {everything:.3f} told what they play")

    free = config_from_dict(GenConfig, read_json_object(FREE) | {"num_bars": N_BARS}, str(FREE))
    free = dataclasses.replace(free, max_steps=0, controls=ControlConfig(ending="no"))
    seeds = range(args.songs)
    empty = np.zeros((0, len(FIELDS)), np.int64)

    def told(controls: dict[str, object]) -> tuple[Task, list[Told]]:
        configs = [dataclasses.replace(free, controls=dataclasses.replace(free.controls, **{
            name: value(seed) for name, value in controls.items()})) for seed in seeds]
        tasks = [make_task(Wish(), empty, vocabulary, config) for config in configs]
        return tasks[0], [tell(task, config, table, seed)
                          for task, config, seed in zip(tasks, configs, seeds, strict=True)]

    task, plain = told({})
    left_free = make(loaded, task, free, plain)

    _, wanted = told({"chords": progression})
    asked = [each.by_half_bar[:HALVES_PER_BAR * N_BARS] for each in wanted]
    found = {}
    for label, songs in (("asked", make(loaded, task, free, wanted)), ("free", left_free)):
        counts = np.sum([in_chord(song.notes, chords, vocabulary)
                         for song, chords in zip(songs, asked, strict=True)], axis=0)
        found[label] = counts[0] / max(counts[1], 1)
    beside = f", real songs in their own {own:.1%}" if args.dataset else ""
    print(f"notes on strong beats in the chord: asked {found['asked']:.1%}, free {found['free']:.1%}{beside}")

    _, wanted = told({"density": lambda seed: part_levels("density", seed, vocabulary)})
    songs = make(loaded, task, free, wanted)
    for p, name in enumerate(vocabulary.part_names):
        levels = [int(part_levels("density", seed, vocabulary)[name]) for seed in seeds]
        played, unasked = ([notes_per_bar(song.notes, p, vocabulary) for song in made] for made in (songs, left_free))
        print(f"{name}: rank correlation of density asked and played {rank_correlation(levels, played):.2f}, "
              f"free {rank_correlation(levels, unasked):.2f}")
    plays = [[(vocabulary.part_of_id[song.notes[:, PITCH_INSTRUMENT]] == p).any() for song in songs]
             for p in range(len(vocabulary.parts))]
    print(f"parts asked for that play: {np.mean(plays):.1%}")

    for control in ("rests", "repeats"):
        def levels_of(seed: int, control: str = control) -> dict[str, str]:
            return part_levels(control, seed, vocabulary)

        _, wanted = told({control: levels_of})
        songs = make(loaded, task, free, wanted)
        for p, name in enumerate(vocabulary.part_names):
            levels = [int(levels_of(seed)[name]) for seed in seeds]
            played = [played_level(song.notes, p, control, vocabulary, table.levels) for song in songs]
            unasked = [played_level(song.notes, p, control, vocabulary, table.levels) for song in left_free]
            print(f"{name}: rank correlation of --{control} asked and played {rank_correlation(levels, played):.2f}, "
                  f"free {rank_correlation(levels, unasked):.2f}")

    long = dataclasses.replace(free, num_bars=LONGEST)
    task = make_task(Wish(), empty, vocabulary, long)
    for label, each in (("asked", [with_end(told_, N_BARS) for told_ in plain]), ("free", plain)):
        last_bars = [song.notes[-1:, BAR] - FIRST_ID for song in make(loaded, task, long, each)]
        print(f"songs that end in bar {N_BARS}: {label} {np.mean(np.concatenate(last_bars) == N_BARS - 1):.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
