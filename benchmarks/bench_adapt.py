"""A model from a few songs: which way of learning one, three or six songs of an artist helps with their other songs?

Example  python -m benchmarks.bench_adapt split dataset.pt lakh_songs.jsonl base.pt
         python train_pool.py --dataset_path base.pt --model_config configs/model_bundled.json
                              --training_args benchmarks/adapt_base.json
         python -m benchmarks.bench_adapt run dataset.pt lakh_songs.jsonl runs/base/last.pth -o adapt.json
         python -m benchmarks.bench_adapt table adapt.json

`split` writes the dataset without the songs of the artists with the most songs, and without their near-duplicates; a
model trained on that has heard none of them. `run` adapts it to some songs of each artist, in each way, and judges it
after some numbers of steps: nats per note of the artist's other songs (eight at most, 2,048 notes of each, in windows
of 1,024), of the songs learned, and of a sample of everybody else's. Ways:

  prompted   nothing is trained: the model reads half a window of the songs first
  sheets     nothing is trained: the model is told to play as densely, rest and repeat as the songs do
  full       all weights
  muon       all weights, the hidden matrices by Muon, as the base was trained
  pulled     all weights, drawn back to where they began (L2-SP, Li et al. 2018)
  mixed      all weights, on rows of which half are other artists'
  rehearsed  all weights, on rows of which half are songs that the base wrote by itself
  biases     biases and norms alone (BitFit, Ben Zaken et al. 2022)
  lora       a low-rank change of every linear layer (LoRA, Hu et al. 2022), which is added to the weights in the end

"muon, rehearsed" does both, as adapt.py does. All but the first two learn from rows of 512 notes with transposition.
`run` picks up where it was killed.
"""

from __future__ import annotations

import argparse
import collections
import copy
import dataclasses
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from backline.common.errors import Parser, UserError, reports_user_errors
from backline.common.files import check_file, check_new, write_bytes
from backline.common.paths import CONFIGS
from backline.common.settings import config_from_file
from backline.generation.freely import FIRST_SEED, made_songs
from backline.generation.session import LoadedModel
from backline.music.chords import UNKNOWN
from backline.music.controls import fields
from backline.music.sheet import Levels, key_column
from backline.music.sheet_table import sheet_table
from backline.music.vocab import FIELDS, PAD, Vocabulary
from backline.preparation.dataset import Dataset, Songs, load_dataset, song_notes, song_rows, write_dataset
from backline.training.adapting import Lessons, few_songs_batches, fitted, own_sheets, whole_song
from backline.training.checkpoints import load_model
from backline.training.config import TrainingSettings
from backline.training.losses import cut_windows, window_losses
from model import PooledTransformer

MOST_JUDGED = 8  # other songs of an artist
N_ELSEWHERE = 8  # songs of everybody else, to see what is forgotten
MOST_NOTES = 2048  # judged of each song, from its beginning
N_SONGS = (1, 3, 6)
WINDOW, BATCH = 1024, 4  # notes, windows
STEPS = (0, 10, 20, 40)  # after which the model is judged
N_REHEARSED = 32  # songs
RANK = 8  # of the low-rank change
PULL = 0.05  # of the weights' distance from the start, each step, over the learning rate's largest


class Way(NamedTuple):
    """A way to learn a few songs."""

    rate: float
    chosen: Callable[[str, nn.Parameter], bool] = lambda _name, _weight: True
    low_rank: bool = False
    pull: float = 0.0
    share_mixed: float = 0.0  # of the rows
    rehearses: bool = False  # mixes in the base's own songs, not other artists'
    muon_rate: float = 0.0


WAYS = {
    "full": Way(3e-5),
    "full, fast": Way(3e-4),
    "muon": Way(5e-5, muon_rate=5e-4),
    "pulled": Way(1e-4, pull=PULL),
    "mixed": Way(3e-5, share_mixed=0.5),
    "rehearsed": Way(3e-5, share_mixed=0.5, rehearses=True),
    "muon, rehearsed": Way(5e-5, muon_rate=5e-4, share_mixed=0.5, rehearses=True),
    "biases": Way(1e-3, chosen=lambda name, weight: weight.ndim == 1),
    "lora": Way(3e-4, low_rank=True),
}
PROMPTED, SHEETS = "prompted", "sheets"


# ---------------------------------------------------------------- artists


class Artist(NamedTuple):
    """An artist's songs in a dataset, by number, in the order in which they are learned."""

    name: str
    songs: tuple[int, ...]


def artists_of(dataset: Dataset, list_path: Path, n_artists: int) -> list[Artist]:
    """The artists with the most songs in a dataset, of near-duplicates one each.

    Args:
        list_path: rows of JSON with `md5` and, where known, `artist`.
    """
    artist_of = {}
    for line in list_path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row.get("artist"):
            artist_of[row["md5"]] = row["artist"]
    songs: dict[str, dict[int, int]] = collections.defaultdict(dict)
    for song, name in enumerate(dataset.songs):
        if artist := artist_of.get(Path(name).name.partition(".")[0]):
            songs[artist].setdefault(int(dataset.clusters[song]), song)
    most = sorted(songs, key=lambda artist: (-len(songs[artist]), artist))[:n_artists]
    random = np.random.default_rng(0)
    return [Artist(name, tuple(random.permutation(list(songs[name].values())).tolist())) for name in most]


def without(dataset: Dataset, artists: Sequence[Artist]) -> list[int]:
    """The songs of a dataset that are no artist's, nor near-duplicates of theirs."""
    theirs = [song for artist in artists for song in artist.songs]
    is_theirs = np.isin(dataset.clusters, dataset.clusters[theirs])
    return np.flatnonzero(~is_theirs).tolist()


def split(args: argparse.Namespace) -> int:
    dataset = load_dataset(args.dataset)
    artists = artists_of(dataset, args.songs_list, args.artists)
    kept = without(dataset, artists)
    check_new([args.out], args.force, [args.dataset])
    names = [dataset.songs[song] for song in kept]
    lengths = np.array([len(song_notes(dataset, song)) for song in kept])
    id_type = dataset.vocabulary.id_type
    notes = (song_notes(dataset, song).astype(id_type).tobytes() for song in kept)
    songs = Songs(names, lengths, dataset.clusters[kept], notes)
    write_dataset(args.out, songs, dataset.block_size, dataset.vocabulary, {})
    for artist in artists:
        print(f"{artist.name}: {len(artist.songs)} songs")
    print(f"{args.out}: {len(kept)} of {dataset.n_songs} songs, none of these artists'")
    return 0


# ---------------------------------------------------------------- learning


class LowRank(nn.Module):
    """A linear layer with a change of low rank, W + B A, that begins as no change."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer
        self.down = nn.Parameter(torch.randn(RANK, layer.in_features) / layer.in_features ** 0.5)
        self.up = nn.Parameter(torch.zeros(layer.out_features, RANK))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + x @ self.down.T @ self.up.T

    def merged(self) -> nn.Linear:
        """The layer with the change in its weights."""
        layer = copy.deepcopy(self.layer)
        layer.weight.data += self.up.data @ self.down.data
        return layer


def replaced(module: nn.Module, old: type[nn.Module], new: Callable[[Any], nn.Module]) -> nn.Module:
    """The module with each part of a kind replaced, in place."""
    for name, child in module.named_children():
        setattr(module, name, new(child) if isinstance(child, old) else replaced(child, old, new))
    return module


def adapted(base: PooledTransformer,
            way: Way,
            own: Sequence[Tensor],
            mixed_in: Sequence[Tensor],
            vocabulary: Vocabulary,
            levels: Levels | None) -> Iterator[tuple[int, PooledTransformer]]:
    """The model after each number of STEPS, the first of which is 0."""
    torch.manual_seed(0)
    model = copy.deepcopy(base)
    if way.low_rank:
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        replaced(model, nn.Linear, LowRank)
    for name, weight in model.named_parameters():
        weight.requires_grad_(weight.requires_grad and way.chosen(name, weight))
    settings = config_from_file(TrainingSettings, CONFIGS / "training_finetune.json")
    settings = dataclasses.replace(fitted(settings, base.config), optimizer="adamw", lr=way.rate)
    if way.muon_rate:
        settings = dataclasses.replace(settings, optimizer="muon", muon_lr=way.muon_rate)
    n_mixed = int(BATCH * way.share_mixed)
    batches = few_songs_batches(own, vocabulary, base.config,
                                dataclasses.replace(settings, batch_size=BATCH - n_mixed), levels)
    rows = batches.from_step(0)
    if n_mixed:
        others = few_songs_batches(mixed_in, vocabulary, base.config,
                                   dataclasses.replace(settings, batch_size=n_mixed), levels)
        rows = (torch.cat(pair) for pair in zip(rows, others.from_step(0), strict=True))
    lessons = Lessons(model, rows, settings)
    start = [weight.detach().clone() for weight in lessons.model.parameters()]
    for step in range(max(STEPS) + 1):
        if step in STEPS:
            yield step, plain(lessons.learned())
        lessons.take()
        if way.pull:
            for weight, first in zip(lessons.model.parameters(), start, strict=True):
                weight.data.lerp_(first, way.pull)


def plain(model: PooledTransformer) -> PooledTransformer:
    """A copy to judge, with low-rank changes in its weights."""
    found = replaced(copy.deepcopy(model), LowRank, LowRank.merged)
    assert isinstance(found, PooledTransformer)
    return found.eval()


# ---------------------------------------------------------------- judging


@torch.inference_mode()
def nats(model: PooledTransformer,
         songs: Sequence[Tensor],
         before: Sequence[Tensor] = (),
         sheet: Tensor | None = None) -> float:
    """Nats per note of songs (N, F) in windows of WINDOW notes, or of half of one after the end of `before`.

    Args:
        sheet: (K,) the controls of all their notes; None: unknown.
    """
    size = WINDOW // 2 if before else WINDOW - 1
    context = torch.cat([*before])[-(WINDOW - size):] if before else torch.zeros(0, len(FIELDS), dtype=torch.long)
    windows = [torch.cat([context, window]) for song in songs for window in cut_windows(song, size)]
    total, number = 0.0, 0
    for batch in torch.stack(windows).split(BATCH):
        rows = batch
        if sheet is not None:
            rows = torch.cat([batch, torch.zeros_like(batch[..., :1]), sheet.expand(*batch.shape[:2], -1)], dim=-1)
        with torch.autocast("cpu", torch.bfloat16):
            losses = window_losses(model, model.config, rows)[:, len(context):].sum(-1)
        total += float(losses.double().sum())
        number += int((batch[:, len(context) + 1:, 0] != PAD).sum())
    return total / number


def usual_sheet(songs: Sequence[Tensor], vocabulary: Vocabulary, levels: Levels) -> Tensor:
    """(K,) the most frequent value of each column of the sheets of songs (N, F); no key, no chord, no end."""
    sheets = torch.from_numpy(own_sheets(songs, levels, vocabulary).sheets).long()
    controls = torch.zeros(len(fields(vocabulary)), dtype=torch.long)
    controls[:sheets.shape[1]] = sheets.mode(dim=0).values
    controls[key_column(vocabulary)] = UNKNOWN
    return controls


def run(args: argparse.Namespace) -> int:
    check_file(args.model)
    base, vocabulary, facts = load_model(args.model)
    dataset = load_dataset(args.dataset, vocabulary)
    artists = artists_of(dataset, args.songs_list, args.artists)
    random = np.random.default_rng(1)
    others = random.permutation(without(dataset, artists))[:200].tolist()
    elsewhere = [song_rows(dataset, song) for song in others]
    known = sheet_table(facts, vocabulary, args.model)
    levels = known.levels if known else None
    results = json.loads(args.output.read_text()) if args.output.exists() else []
    loaded = LoadedModel(args.model, "cpu")
    rehearsal = [whole_song(rows) for rows in made_songs(loaded, N_REHEARSED, FIRST_SEED)]
    before: dict[tuple[str, str, int], float] = {}
    done = {(row["artist"], row["songs"], row["way"]) for row in results}
    ways = [PROMPTED, *([SHEETS] if levels else []), *args.ways]
    todo = [(artist, n_songs, way) for artist, n_songs, way in itertools.product(artists[args.rank], args.n_songs, ways)
            if (artist.name, n_songs, way) not in done]
    for artist, n_songs, way in tqdm(todo, unit="run", disable=None):
        if len(artist.songs) <= max(N_SONGS):
            raise UserError(f"{artist.name}: {len(artist.songs)} songs, none is left to judge after "
                            f"{max(N_SONGS)}; ask for fewer --artists")
        songs = [song_rows(dataset, song) for song in artist.songs]
        own = songs[:n_songs]
        which = {"judged": songs[max(N_SONGS):][:MOST_JUDGED], "own": own, "elsewhere": elsewhere[:N_ELSEWHERE]}
        which = {name: [song[:MOST_NOTES] for song in those] for name, those in which.items()}
        judged = which["judged"]
        row: dict[str, Any] = {"artist": artist.name, "songs": n_songs, "way": way}
        if way == PROMPTED:
            row["judged"] = {"0": nats(base, judged), way: nats(base, judged, own)}
        elif levels and way == SHEETS:
            row["judged"] = {"0": nats(base, judged),
                             way: nats(base, judged, sheet=usual_sheet(own, vocabulary, levels))}
        else:
            mixed_in = rehearsal if WAYS[way].rehearses else elsewhere
            for step, model in adapted(base, WAYS[way], own, mixed_in, vocabulary, levels):
                for name, those in which.items():
                    key = (artist.name, name, n_songs if name == "own" else 0)
                    if step == 0 and key not in before:  # the same in all ways
                        before[key] = nats(model, those)
                    row.setdefault(name, {})[str(step)] = nats(model, those) if step else before[key]
        results.append(row)
        write_bytes(args.output, json.dumps(results, indent=1).encode())
    return 0


def table(args: argparse.Namespace) -> int:
    """Changes of losses from before to after learning, in percent: means over artists, and the worst artist."""
    read = (row for path in args.outputs for row in json.loads(path.read_text()))
    results = {(row["artist"], row["songs"], row["way"]): row for row in read}.values()
    trained = [str(step) for step in STEPS[1:]]
    print(f"| way | songs | artists | {' | '.join(f'{step} steps' for step in trained)} | worst artist | own songs | "
          "everybody else's |")
    print("|---|" + "---:|" * (len(trained) + 5))
    for way, n_songs in sorted({(row["way"], row["songs"]) for row in results}):
        rows = [row for row in results if (row["way"], row["songs"]) == (way, n_songs)]
        steps = trained if way in WAYS else [way]
        changes = np.array([[change(row["judged"], step) for step in steps] for row in rows])
        cells = [f"{mean:+.2f}" for mean in changes.mean(0)] + [""] * (len(trained) - len(steps))
        cells.append(f"{changes[:, -1].max():+.2f}")
        for name in ("own", "elsewhere"):
            beside = [change(row[name], steps[-1]) for row in rows if name in row]
            cells.append(f"{np.mean(beside):+.1f}" if beside else "")
        print(f"| {way} | {n_songs} | {len(rows)} | {' | '.join(cells)} |")
    return 0


def change(losses: dict[str, float], step: str) -> float:
    """Percent by which a loss changes from the start to a step."""
    return 100 * (losses[step] / losses["0"] - 1)


def ranks(text: str) -> slice:
    """The slice that "1-4" means."""
    first, last = map(int, text.split("-"))
    return slice(first - 1, last)


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    commands = parser.add_subparsers(required=True, parser_class=Parser)
    for name, function in (("split", split), ("run", run), ("table", table)):
        command = commands.add_parser(name)
        command.set_defaults(function=function)
        if name == "table":
            command.add_argument("outputs", type=Path, nargs="+", help="results .json of `run`")
            continue
        command.add_argument("dataset", type=Path, help="dataset .pt with all songs")
        command.add_argument("songs_list", type=Path, help=".jsonl with each song's md5 and artist")
        command.add_argument("--artists", type=int, default=8, help="how many (default: %(default)s)")
        if name == "split":
            command.add_argument("out", type=Path, help="dataset to write")
            command.add_argument("--force", action="store_true", help="replace it")
        else:
            command.add_argument("model", type=Path, help="trained on what `split` wrote")
            command.add_argument("-o", "--output", type=Path, required=True, help="results .json, added to")
            command.add_argument("--n-songs", type=int, nargs="+", default=list(N_SONGS), help="default: 1 3 6")
            command.add_argument("--rank", type=ranks, default=slice(None), metavar="FIRST-LAST",
                                 help="only artists from this to that rank in number of songs (default: all)")
            command.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="default: all")
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    return args.function(args)


if __name__ == "__main__":
    sys.exit(main())
