"""Playing to given notes: what knowing them is worth, and whether what is made agrees with them.

Example  python -m benchmarks.bench_given loss dataset.pt given/best.pth given-no_lookahead/best.pth
         python -m benchmarks.bench_given agree dataset.pt given/best.pth

On songs that the model was not trained on. `loss`: nats per note of each part, in half a context, where the other
parts are given (and what of them comes next), where they are silent, and in the plain task, where all parts are made;
and nats per note of bars in the middle, told what comes after them or not. The plain task's are not the same choice
(which part comes next is asked as well), and stand there to compare models. `agree`: a part is made for excerpts of
eight bars, the others given, with the controls that generate.py sets. Of the made notes, of the songs' own, and of
another song's: the share of melodic notes that belong to the chord sounding in the given melodic parts within their
beat, and the share struck together with a kick or, of the made drums' kicks, with a note of the lowest given part, the
bass.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from backline.common.errors import Parser, UserError, reports_user_errors
from backline.common.paths import CONFIGS
from backline.common.settings import config_from_file
from backline.evaluation.song_sets import held_out_songs
from backline.generation.config import GenConfig
from backline.generation.sampler import Request, sample_songs
from backline.generation.session import LoadedModel
from backline.generation.task import make_task
from backline.generation.wish import Wish
from backline.music.theory import DRUM_KIT, OCTAVE
from backline.music.vocab import BAR, BOS, FIRST_ID, NOTE_DUR, PITCH_INSTRUMENT, QUARTERS_PER_BAR, START_POS, Vocabulary
from backline.preparation.dataset import Dataset, load_dataset, song_rows
from backline.training.checkpoints import load_model
from backline.training.given_tasks import Anticipation
from backline.training.losses import window_losses
from model import PooledTransformer

EXCERPT = 8  # bars
FILL = 4  # bars
BATCH = 16


def windows(dataset: Dataset, songs: Sequence[int], size: int) -> Iterator[np.ndarray]:
    """(2 T, F) rows of songs, one window from the beginning of each and one from its middle; T is `size`."""
    for song in songs:
        rows = song_rows(dataset, song).numpy()
        if len(rows) >= 4 * size:
            yield rows[:2 * size]
            yield rows[len(rows) // 2:][:2 * size]


@torch.inference_mode()
def mean_loss(model: PooledTransformer, rows: list[np.ndarray], counts: list[np.ndarray]) -> tuple[float, int]:
    """Nats per note, and how many notes: those of (T, F + 1) rows that `counts` (T,) says."""
    total, number = 0.0, 0
    for start in range(0, len(rows), BATCH):
        batch = torch.from_numpy(np.stack(rows[start:start + BATCH])).long()
        counted = torch.from_numpy(np.stack(counts[start:start + BATCH]))[:, 1:]
        losses = window_losses(model, model.config, batch).sum(-1)
        total, number = total + float(losses[counted].sum()), number + int(counted.sum())
    return total / number, number


def padded(rows: np.ndarray, size: int) -> np.ndarray:
    """(size, F + 1) of (N, F + 1) rows, cut or filled up with what counts for nothing."""
    filling = np.zeros((max(size - len(rows), 0), rows.shape[1]), np.int64)
    filling[:, -1] = 1
    return np.concatenate([rows, filling])[:size]


def with_flags(rows: np.ndarray) -> np.ndarray:
    return np.concatenate([rows, np.zeros((len(rows), 1), np.int64)], 1)


def part_losses(model: PooledTransformer, tasks: Anticipation, found: list[np.ndarray], vocabulary: Vocabulary) -> None:
    size = model.config.block_size
    for p, name in enumerate(vocabulary.part_names):
        made = np.arange(len(vocabulary.parts)) == p
        plain = [with_flags(window[:size // 2]) for window in found]
        silent = [tasks.parts_given(rows, made, ~made) for rows in plain]
        given = []
        for window in found:
            late = (np.arange(len(window)) >= size // 2) & (vocabulary.part_of_id[window[:, PITCH_INSTRUMENT]] == p)
            given.append(tasks.parts_given(with_flags(window[~late]), made, made & False))
        line = f"  {name:8s}"
        for label, kind in (("others given", given), ("silent", silent), ("plain task", plain)):
            rows = [padded(row, size) for row in kind]
            counts = [(vocabulary.part_of_id[row[:, PITCH_INSTRUMENT]] == p) & (row[:, -1] == 0) for row in rows]
            for of_row in counts:
                of_row[of_row.argmax()] = False  # the part's first note: nothing may stand before it to tell it from
            loss, number = mean_loss(model, rows, counts)
            line += f"  {label} {loss:.3f} ({number} notes)"
        print(line)


def fill_losses(model: PooledTransformer, tasks: Anticipation, found: list[np.ndarray]) -> None:
    size, told, untold = model.config.block_size, [], []
    every = np.ones(len(tasks.vocabulary.parts), bool)
    for window in found:
        first = max(int(window[size // 4, BAR]), FIRST_ID)
        if (window[:, BAR] == BOS).sum() > 1:
            continue
        rows = padded(tasks.filled(with_flags(window), first, first + FILL - 1, every), size)
        plain = with_flags(window[:size])
        if _filled(rows, first).sum() == _filled(plain, first).sum():  # both hold all of them
            told.append(rows)
            untold.append(plain)
    for label, rows in (("knowing what comes after", told), ("not knowing", untold)):
        loss, number = mean_loss(model, rows, [_filled(row, int(window[size // 4, BAR])) for row, window in
                                               zip(rows, untold, strict=True)])
        print(f"  {FILL} bars in the middle, {label}: {loss:.3f} ({number} notes)")


def _filled(rows: np.ndarray, first: int) -> np.ndarray:
    """(N,) which of (N, F + 1) rows are made in the bars to fill."""
    return (rows[:, BAR] >= first) & (rows[:, BAR] < first + FILL) & (rows[:, -1] == 0)


def loss(args: argparse.Namespace) -> int:
    for path in args.models:
        model, vocabulary, facts = load_model(path)
        dataset = load_dataset(args.dataset, vocabulary)
        songs = held_out_songs(facts, dataset, path)[:args.songs]
        found = list(windows(dataset, songs, model.config.block_size))
        if not found:
            raise UserError(f"{args.dataset}: none of the held-out songs has {4 * model.config.block_size} notes, four "
                            "contexts; give a dataset of longer songs")
        print(f"{path}: look-ahead {model.config.lookahead_bars} bars, {len(found)} windows of {len(songs)} songs")
        tasks = Anticipation(vocabulary, model.config.lookahead_bars, 1.0)
        part_losses(model, tasks, found, vocabulary)
        fill_losses(model, tasks, found)
    return 0


# ---------------------------------------------------------------- agreement


def excerpts(dataset: Dataset, songs: Sequence[int], vocabulary: Vocabulary) -> list[np.ndarray]:
    """(N, F) rows of `EXCERPT` bars of songs, counted from bar 0, where all parts play in the first and the last."""
    found = []
    for song in songs:
        rows = song_rows(dataset, song).numpy()
        rows = rows[rows[:, BAR] >= FIRST_ID]
        for first in range(int(rows[0, BAR]), int(rows[-1, BAR]) - EXCERPT + 2, EXCERPT):
            piece = rows[(rows[:, BAR] >= first) & (rows[:, BAR] < first + EXCERPT)].astype(np.int64)
            parts = [set(vocabulary.part_of_id[piece[piece[:, BAR] == bar, PITCH_INSTRUMENT]].tolist())
                     for bar in (first, first + EXCERPT - 1)]
            if all(len(there) == len(vocabulary.parts) for there in parts):
                piece[:, BAR] -= first - FIRST_ID
                found.append(piece)
                break
    return found


def agreement(made: np.ndarray, given: np.ndarray, vocabulary: Vocabulary) -> tuple[float, float]:
    """Two shares of the (N, F) made notes, nan where none counts: see above.

    A beat's chord is the pitch classes that sound in it; notes in beats without a chord do not count.
    """
    steps, beat = vocabulary.steps_per_bar, vocabulary.steps_per_bar // QUARTERS_PER_BAR
    melodic, kicks = heard(given, vocabulary)
    made_melodic, made_kicks = heard(made, vocabulary)
    chords: dict[int, set[int]] = {}
    for time, note in zip(onsets(melodic, steps), melodic, strict=True):
        for number in range(time // beat, (time + int(note[NOTE_DUR]) - FIRST_ID) // beat + 1):
            chords.setdefault(number, set()).add(_pitch(note, vocabulary) % OCTAVE)
    in_chord = [_pitch(note, vocabulary) % OCTAVE in chords[time // beat]
                for time, note in zip(onsets(made_melodic, steps), made_melodic, strict=True) if time // beat in chords]
    ours, theirs = (made_melodic, kicks) if len(made_melodic) else (made_kicks, lowest_part(melodic, vocabulary))
    together = np.isin(onsets(ours, steps), onsets(theirs, steps))
    return (float(np.mean(in_chord)) if in_chord else float("nan"),
            float(together.mean()) if len(ours) and len(theirs) else float("nan"))


def onsets(rows: np.ndarray, steps_per_bar: int) -> np.ndarray:
    """(N,) when notes (N, F) begin, in steps from the beginning of bar 0."""
    return (rows[:, BAR].astype(np.int64) - FIRST_ID) * steps_per_bar + rows[:, START_POS] - FIRST_ID


def heard(rows: np.ndarray, vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    """Of (N, F) notes those that are no drums, and the kicks of the drums."""
    drums = np.array([part.is_drum for part in vocabulary.parts])[vocabulary.part_of_id[rows[:, PITCH_INSTRUMENT]]]
    kicks = drums & np.isin(vocabulary.pitch_of_id[rows[:, PITCH_INSTRUMENT]], DRUM_KIT["kick"])
    return rows[~drums], rows[kicks]


def lowest_part(melodic: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """The notes of the part that plays lowest on average."""
    parts = vocabulary.part_of_id[melodic[:, PITCH_INSTRUMENT]]
    pitches = vocabulary.pitch_of_id[melodic[:, PITCH_INSTRUMENT]]
    lowest = min(set(parts.tolist()), key=lambda part: pitches[parts == part].mean(), default=-1)
    return melodic[parts == lowest]


def _pitch(note: np.ndarray, vocabulary: Vocabulary) -> int:
    return int(vocabulary.pitch_of_id[note[PITCH_INSTRUMENT]])


def agree(args: argparse.Namespace) -> int:
    config = config_from_file(GenConfig, args.genconfig)
    loaded = LoadedModel(args.models[0], "cpu")
    vocabulary = loaded.vocabulary
    dataset = load_dataset(args.dataset, vocabulary)
    songs = held_out_songs(loaded.facts, dataset, args.models[0])
    pieces = excerpts(dataset, songs, vocabulary)[:args.songs]
    if len(pieces) < 2:
        raise UserError(f"{args.dataset}: no excerpts of {EXCERPT} bars with all parts in it among the held-out songs")
    print(f"{args.models[0]}: {len(pieces)} excerpts of {EXCERPT} bars; share in the chord / with the kick or bass")
    for p, name in enumerate(vocabulary.part_names):
        others = tuple(other for other in vocabulary.part_names if other != name)
        tasks = [make_task(Wish(given=others), piece, vocabulary, config) for piece in pieces]
        requests = [Request(task.rules, seed, task.prompt, task.given, loaded.told(task, config, seed))
                    for seed, task in enumerate(tasks)]
        made = []
        for start in tqdm(range(0, len(requests), BATCH), unit="batch", disable=None):
            made += sample_songs(loaded.player, requests[start:start + BATCH], config)
        own = [piece[vocabulary.part_of_id[piece[:, PITCH_INSTRUMENT]] == p] for piece in pieces]
        for label, notes in (("made", [song.notes for song in made]), ("own", own), ("another's", own[1:] + own[:1])):
            shares = [agreement(rows, task.given, vocabulary) for rows, task in zip(notes, tasks, strict=True)]
            chord, struck = (np.nanmean(of_kind) if not np.isnan(of_kind).all() else np.nan
                             for of_kind in np.array(shares).T)
            print(f"  {name:8s} {label:10s} {chord:.3f} / {struck:.3f}  ({sum(map(len, notes))} notes)")
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    parser.add_argument("what", choices=("loss", "agree"))
    parser.add_argument("dataset", type=Path, help="dataset .pt that the models were trained on")
    parser.add_argument("models", type=Path, nargs="+", help="checkpoints or released weights")
    parser.add_argument("--songs", type=int, default=60, help="at most (default: %(default)s)")
    parser.add_argument("--genconfig", type=Path, default=CONFIGS / "genconfig.json",
                        help="of agree: JSON with settings of generate.py (default: %(default)s)")
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    return {"loss": loss, "agree": agree}[args.what](args)


if __name__ == "__main__":
    sys.exit(main())
