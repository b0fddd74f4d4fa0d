"""Do the songs of a model that has learned six songs of an artist come nearer to that artist?

Example  python -m benchmarks.bench_style make dataset.pt lakh_songs.jsonl runs/base/last.pth style
         python -m benchmarks.bench_style table dataset.pt lakh_songs.jsonl style

`make` adapts the model to six songs of each artist, as adapt.py does, and lets it write songs from scratch. So do the
model as it is ("base"), the model as it is with the sheets of the six songs ("sheets"), and one adapted at ten times
the learning rates without songs of its own ("strongly adapted"). `table` tells how far
these songs are from the artist's other songs, which no model has learned: in each measure of
backline/evaluation/measures.py the distance of the means, in standard deviations of real songs; the mean of the
measures. Real songs are cut to the lengths of the ones they are compared with.

A model may come nearer to an artist because it comes nearer to all real songs. So each artist is also compared with
the models that have learned the seven others. `make` picks up where it was killed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from backline.common.errors import Parser, reports_user_errors
from backline.common.files import write_bytes
from backline.common.paths import CONFIGS
from backline.common.settings import config_from_file
from backline.evaluation.statistics import cut_alike
from backline.generation.freely import FIRST_SEED as REHEARSED_SEED
from backline.generation.freely import made_songs
from backline.generation.session import LoadedModel
from backline.music.sheet_table import sheet_table
from backline.music.vocab import Vocabulary
from backline.preparation.dataset import Dataset, load_dataset, song_notes
from backline.training.adapting import Teacher
from backline.training.checkpoints import load_model, release_facts, save_release
from backline.training.config import TrainingSettings
from benchmarks.bench_adapt import N_REHEARSED, N_SONGS, artists_of, without
from evaluate import measure_table
from model import PooledTransformer

N_LEARNED = max(N_SONGS)
N_ELSEWHERE = 300  # songs whose spread is the unit
FIRST_SEED = 7000
BASE, SHEETS, ADAPTED, STRONGLY = "base", "sheets", "adapted", "strongly"
STRONGER = 10  # times the learning rates


def songs_path(folder: Path, kind: str, artist: str = "") -> Path:
    """Where the songs of a model are."""
    return folder / f"{kind}{'-' if artist else ''}{artist}.json"


def make(args: argparse.Namespace) -> int:
    base, vocabulary, known = load_model(args.model)
    dataset = load_dataset(args.dataset, vocabulary)
    table = sheet_table(known, vocabulary, args.model)
    settings = config_from_file(TrainingSettings, CONFIGS / "training_finetune.json")
    levels = table.levels if table else None
    rehearsal = list(made_songs(LoadedModel(args.model, "cpu"), N_REHEARSED, REHEARSED_SEED))
    strong = dataclasses.replace(settings, lr=STRONGER * settings.lr, muon_lr=STRONGER * settings.muon_lr)
    teachers = {ADAPTED: Teacher(base, vocabulary, settings, levels, rehearsal),
                STRONGLY: Teacher(base, vocabulary, strong, levels)}
    facts = release_facts(known)

    def models() -> Iterator[tuple[Path, PooledTransformer, dict]]:
        yield songs_path(args.folder, BASE), base, facts
        for artist in artists_of(dataset, args.songs_list, args.artists):
            own = notes_of(dataset, artist.songs[:N_LEARNED])
            sheets = facts | teachers[ADAPTED].sheets(own)
            yield songs_path(args.folder, SHEETS, artist.name), base, sheets
            for kind, teacher in teachers.items():
                path = songs_path(args.folder, kind, artist.name)
                if not path.exists():
                    learned, = teacher.learn(own, [settings.max_train_steps], artist.name)
                    yield path, learned, sheets

    for path, model, sheets in models():
        if path.exists():
            continue
        release = path.with_suffix(".safetensors")
        save_release(release, model, vocabulary, sheets)
        loaded = LoadedModel(release, "cpu")
        made = tqdm(made_songs(loaded, args.songs, FIRST_SEED), total=args.songs, desc=path.stem, disable=None)
        write_bytes(path, json.dumps([rows.tolist() for rows in made]).encode())
        release.unlink()
    return 0


def table(args: argparse.Namespace) -> int:
    dataset = load_dataset(args.dataset)
    vocabulary = dataset.vocabulary
    artists = artists_of(dataset, args.songs_list, args.artists)
    random = np.random.default_rng(1)
    elsewhere = random.permutation(without(dataset, artists))[:N_ELSEWHERE].tolist()
    base = read(songs_path(args.folder, BASE))
    everybody = cut_alike(notes_of(dataset, elsewhere), base)
    spread = np.nanstd(measure_table(everybody, vocabulary)[1], axis=0)
    spread[spread == 0] = np.nan  # what never differs says nothing
    print("| artist | base | sheets | adapted | adapted to others | strongly adapted | strongly, to others |")
    print("|---|" + "---:|" * 6)
    rows = []
    for artist in artists:
        real = notes_of(dataset, artist.songs[N_LEARNED:])

        def away(kind: str, name: str = "", real: list[np.ndarray] = real) -> float:
            return distance(read(songs_path(args.folder, kind, name)), real, spread, vocabulary)

        row = [away(BASE), away(SHEETS, artist.name)]
        for kind in (ADAPTED, STRONGLY):
            others = [away(kind, other.name) for other in artists if other != artist]
            row += [away(kind, artist.name), float(np.mean(others))]
        rows.append(row)
        print(f"| {artist.name} | " + " | ".join(f"{value:.3f}" for value in rows[-1]) + " |")
    print("| mean | " + " | ".join(f"{value:.3f}" for value in np.mean(rows, axis=0)) + " |")
    return 0


def notes_of(dataset: Dataset, songs: Sequence[int]) -> list[np.ndarray]:
    """(N, F) ids of songs, without those that were cut off whole with the dataset's last full block."""
    found = (song_notes(dataset, song) for song in songs)
    return [rows for rows in found if len(rows)]


def read(path: Path) -> list[np.ndarray]:
    """(N, F) ids of the songs in a file of `make`."""
    return [np.array(rows) for rows in json.loads(path.read_text())]


def distance(songs: Sequence[np.ndarray],
             real: Sequence[np.ndarray],
             spread: np.ndarray,
             vocabulary: Vocabulary) -> float:
    """How far the means of the measures lie apart, in `spread`; the mean of the measures."""
    away = np.abs(means(songs, vocabulary) - means(cut_alike(real, songs), vocabulary)) / spread
    return float(np.nanmean(away))


def means(songs: Sequence[np.ndarray], vocabulary: Vocabulary) -> np.ndarray:
    """(measures,) of songs; nan where none of them has anything to measure."""
    _, values = measure_table(songs, vocabulary)
    known = np.isfinite(values)
    number = np.where(known.any(axis=0), known.sum(axis=0), np.nan)
    return np.where(known, values, 0).sum(axis=0) / number


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    commands = parser.add_subparsers(required=True, parser_class=Parser)
    for name, function in (("make", make), ("table", table)):
        command = commands.add_parser(name)
        command.set_defaults(function=function)
        command.add_argument("dataset", type=Path, help="dataset .pt with all songs")
        command.add_argument("songs_list", type=Path, help=".jsonl with each song's md5 and artist")
        if name == "make":
            command.add_argument("model", type=Path, help="trained on what `bench_adapt split` wrote")
            command.add_argument("--songs", type=int, default=20, help="by each model (default: %(default)s)")
        command.add_argument("folder", type=Path, help="songs of the models")
        command.add_argument("--artists", type=int, default=8, help="how many (default: %(default)s)")
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    return args.function(args)


if __name__ == "__main__":
    sys.exit(main())
