"""Are made velocities like those of real songs? Held-out songs beside a model's table, and flat.

Example  python -m benchmarks.bench_dynamics models/bundled.safetensors my_midi

The notes are those of held-out songs, from the raw MIDI in the folder; only velocities differ: the song's own; the
table's, told nothing of the song; the table's, each part beside the song's other parts as given notes; and 100. Printed
are means over songs, part by part, and for each kind how well a classifier tells it from real songs (area under the ROC
curve of `statistics.tell_apart`: 0.5 blind, 1 always right), with and without what flat notes cannot have.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from backline.common.errors import Parser, UserError, reports_user_errors
from backline.evaluation.statistics import tell_apart
from backline.folders import workers
from backline.music.dynamics import (
    DynamicsTable,
    describe_notes,
    dynamics_table,
    given_dynamics,
    kind_names,
    made_velocities,
)
from backline.music.midi_writer import VELOCITY
from backline.music.vocab import PITCH_INSTRUMENT, QUARTERS_PER_BAR, Vocabulary
from backline.training.checkpoints import load_model
from dynamics import held_out_by_name, is_among, midi_files, read_played

FEW_NOTES = 8  # a part of fewer is left out
MEASURES = ("mean", "spread", "by place", "step", "step of a kind", "values")
ACCENTS = {"kick": (0, 2), "snare": (1, 3)}  # beats, from 0, on which accents are counted


class RealSong(NamedTuple):
    """(N, F) rows and their velocities (N,)."""

    rows: np.ndarray
    velocities: np.ndarray


def read_song(path: str, vocabulary: Vocabulary) -> RealSong:
    """A song without notes of unknown velocity. Raises UserError."""
    rows, velocities = read_played(path, vocabulary)
    known = velocities > 0
    return RealSong(rows[known].astype(np.int64), velocities[known])


# ---------------------------------------------------------------- velocities


def real(song: RealSong, seed: int, vocabulary: Vocabulary, table: DynamicsTable) -> np.ndarray:
    """Those of the song itself."""
    return song.velocities


def flat(song: RealSong, seed: int, vocabulary: Vocabulary, table: DynamicsTable) -> np.ndarray:
    """As published."""
    return np.full(len(song.rows), VELOCITY)


def told_nothing(song: RealSong, seed: int, vocabulary: Vocabulary, table: DynamicsTable) -> np.ndarray:
    """As from scratch."""
    return made_velocities(song.rows, vocabulary, table, seed)


def to_others(song: RealSong, seed: int, vocabulary: Vocabulary, table: DynamicsTable) -> np.ndarray:
    """Each part as if it were made to the others."""
    part = vocabulary.part_of_id[song.rows[:, PITCH_INSTRUMENT]]
    velocities = np.zeros(len(part), np.int64)
    for p in range(len(vocabulary.parts)):
        own = part == p
        given = given_dynamics(song.rows[~own], song.velocities[~own], vocabulary, table)
        velocities[own] = made_velocities(song.rows[own], vocabulary, table, seed, given)
    return velocities


KINDS: dict[str, Callable[[RealSong, int, Vocabulary, DynamicsTable], np.ndarray]] = {
    "real": real,
    "table, told nothing": told_nothing,
    "table, to the other parts": to_others,
    "flat": flat,
}


# ---------------------------------------------------------------- measures


def measure(rows: np.ndarray, velocities: np.ndarray, vocabulary: Vocabulary) -> dict[str, float]:
    """All measures of a song by name; nan where it has nothing to measure."""
    notes = describe_notes(rows, vocabulary)
    part = vocabulary.part_of_id[rows[:, PITCH_INSTRUMENT]]
    names = kind_names(vocabulary)
    found = {}
    for p, name in enumerate(vocabulary.part_names):
        own = part == p
        values = _of_part(velocities[own], notes.kind[own], notes.place[own], notes.onset[own])
        for measure_name, value in zip(MEASURES, values, strict=True):
            found[f"{name}: {measure_name}"] = value
    beat = notes.place * QUARTERS_PER_BAR / vocabulary.steps_per_bar
    for piece, beats in ACCENTS.items():
        own = np.isin(notes.kind, [i for i, (_, kind) in enumerate(names) if kind == piece])
        is_accent = velocities[own] > velocities[own].mean() if own.any() else own[own]
        on_beats = np.isin(beat[own][is_accent], beats)
        on_any = np.isin(beat[own][is_accent], range(QUARTERS_PER_BAR))
        share = on_beats.sum() / on_any.sum() if on_any.any() else np.nan
        found[f"{piece}: accents on {' and '.join(str(b + 1) for b in beats)}"] = float(share)
    return found


def _of_part(velocity: np.ndarray, kind: np.ndarray, place: np.ndarray, onset: np.ndarray) -> tuple[float, ...]:
    """In the order of `MEASURES`."""
    if len(velocity) < FEW_NOTES:
        return (np.nan,) * len(MEASURES)
    spread = velocity.std()
    _, group = np.unique(kind * 1000 + place, return_inverse=True)
    _, kinds = np.unique(kind, return_inverse=True)
    of_kind = velocity - (np.bincount(kinds, velocity) / np.bincount(kinds))[kinds]
    of_place = (np.bincount(group, of_kind) / np.bincount(group))[group]
    variance = (of_kind ** 2).mean()
    by_place = np.sqrt((of_place ** 2).mean() / variance) if variance else np.nan
    in_order = np.argsort(onset, kind="stable")
    by_kind = np.lexsort((onset, kind))
    same = kind[by_kind][1:] == kind[by_kind][:-1]
    steps = np.abs(np.diff(velocity[by_kind].astype(float)))[same]
    return (
        float(velocity.mean()),
        float(spread),
        float(by_place),
        float(np.abs(np.diff(velocity[in_order].astype(float))).mean()),
        float(steps.mean()) if len(steps) else np.nan,
        float(len(np.unique(velocity))),
    )


# ---------------------------------------------------------------- tables


def tables_of(songs: Sequence[RealSong],
              vocabulary: Vocabulary,
              table: DynamicsTable) -> tuple[list[str], dict[str, np.ndarray], float]:
    """Names of measures, their (songs, measures) table for each kind, and seconds of a made song."""
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    seconds = 0.0
    for seed, song in enumerate(songs):
        for kind, make in KINDS.items():
            began = time.perf_counter()
            velocities = make(song, seed, vocabulary, table)
            if make is told_nothing:
                seconds += time.perf_counter() - began
            found[kind].append(measure(song.rows, velocities, vocabulary))
    names = list(found["real"][0])
    by_kind = {kind: np.array([list(each.values()) for each in of_kind])
               for kind, of_kind in found.items()}
    return names, by_kind, seconds / len(songs)


def print_measures(names: Sequence[str], by_kind: dict[str, np.ndarray]) -> None:
    """A row for each measure: the mean over songs, and in brackets the standard deviation."""
    print(f"| | {' | '.join(by_kind)} |\n|---|{'---:|' * len(by_kind)}")
    for i, name in enumerate(names):
        cells = []
        for table in by_kind.values():
            column = table[:, i]
            known = column[~np.isnan(column)]
            cells.append(f"{known.mean():.2f} ({known.std():.2f})" if len(known) else "")
        print(f"| {name} | {' | '.join(cells)} |")


def print_areas(names: Sequence[str], by_kind: dict[str, np.ndarray]) -> None:
    """How well each kind is told from real songs, by all measures and without levels and values."""
    print("\n| told from real songs by | all | all but levels and numbers of values | most by |\n|---|---:|---:|---|")
    shape = [i for i, name in enumerate(names) if not name.endswith((": mean", ": values"))]
    for kind, table in by_kind.items():
        if kind == "real":
            continue
        areas = []
        for columns in (list(range(len(names))), shape):
            of_kind, of_real = (np.nan_to_num(each[:, columns], nan=-1.0) for each in (table, by_kind["real"]))
            difference = tell_apart([names[i] for i in columns], of_real, of_kind)
            if difference is None:
                raise UserError(f"{len(table)} songs are too few for a classifier; give more")
            areas.append(difference)
        most = ", ".join(f"{name} {area:.2f}" for name, area in areas[0].by_measure[:3])
        print(f"| {kind} | {areas[0].auc:.3f} | {areas[1].auc:.3f} | {most} |", flush=True)


# ---------------------------------------------------------------- command


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    parser.add_argument("model", type=Path, help="model with a table of dynamics.py, and a list of held-out songs")
    parser.add_argument("inputs", type=Path, nargs="+", help="folders of raw MIDI with these songs")
    workers.add_options(parser)
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    workers.check_options(args)
    _, vocabulary, metadata = load_model(args.model)
    table = dynamics_table(metadata, vocabulary, args.model)
    if table is None:
        raise UserError(f"{args.model}: carries no table of dynamics; make one with dynamics.py")
    names = held_out_by_name(metadata)
    held_out = [path for name, path in midi_files(args.inputs) if is_among(name, names)]
    read = functools.partial(read_song, vocabulary=vocabulary)
    outcomes = workers.run_tasks(read, held_out, workers.worker_count(args.jobs, len(held_out)), args.time_limit)
    found = [outcome.result for outcome in outcomes if not outcome.reason]
    songs = [song for song in found if len(np.unique(song.velocities)) > 1]
    if not songs:
        raise UserError(f"{args.model}: none of its held-out songs is in {args.inputs[0]}, or all are struck alike; "
                        "give the folder that its songs were made of")
    print(f"{len(held_out)} held-out files: {len(songs)} songs, {len(found) - len(songs)} all of one velocity, "
          f"{len(held_out) - len(found)} not read; the table is of {table.n_songs} songs\n")
    names, by_kind, seconds = tables_of(songs, vocabulary, table)
    print_measures(names, by_kind)
    print_areas(names, by_kind)
    notes = np.mean([len(song.rows) for song in songs])
    print(f"\nvelocities of a song of {notes:.0f} notes: {1000 * seconds:.0f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
