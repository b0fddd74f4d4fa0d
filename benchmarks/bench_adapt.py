"""A model from a few songs: which way of learning one, three or six songs of an artist helps with their other songs?

Example  python -m benchmarks.bench_adapt split dataset.pt lakh_songs.jsonl base.pt
         python train_pool.py --dataset_path base.pt --model_config configs/model_bundled.json --training_args base.json
         python -m benchmarks.bench_adapt run dataset.pt lakh_songs.jsonl runs/base/last.pth -o adapt.json
         python -m benchmarks.bench_adapt table adapt.json

`split` writes the dataset without the songs of the artists with the most songs, and without their near-duplicates; a
model trained on that has heard none of them. `run` adapts it to some songs of each artist, in each way, and judges it
after some numbers of steps: nats per note of the artist's other songs (at most ten, in windows of 1,024 notes), of the
songs learned, and of a sample of everybody else's. Ways:

  prompted   nothing is trained: the model reads half a window of the songs first
  full       all weights
  pulled     all weights, drawn back to where they began (L2-SP, Li et al. 2018)
  mixed      all weights, on rows of which half are other artists'
  biases     biases and norms alone (BitFit, Ben Zaken et al. 2022)
  lora       a low-rank change of every linear layer (LoRA, Hu et al. 2022), which is added to the weights in the end

All but the first draw rows of 512 notes with transposition. `run` picks up where it was killed.
"""

from __future__ import annotations

import argparse
import collections
import copy
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
from backline.preparation.dataset import Dataset, Songs, load_dataset, song_notes, song_rows, write_dataset
from backline.training.augmentation import Transposition
from backline.training.checkpoints import load_model
from backline.training.losses import window_losses
from model import PooledTransformer

MOST_JUDGED = 10  # other songs of an artist
N_ELSEWHERE = 16  # songs of everybody else, to see what is forgotten
N_SONGS = (1, 3, 6)
WINDOW, ROW, BATCH = 1024, 512, 4  # notes, notes, rows
SEMITONES = (-5, 6)
STEPS = (0, 10, 20, 40, 80)  # after which the model is judged
RANK = 8  # of the low-rank change
PULL = 0.05  # of the weights' distance from the start, each step, over the learning rate's largest


class Way(NamedTuple):
    """A way to learn a few songs."""

    rate: float
    chosen: Callable[[str, nn.Parameter], bool] = lambda _name, _weight: True
    low_rank: bool = False
    pull: float = 0.0
    share_elsewhere: float = 0.0


WAYS = {
    "full": Way(1e-4),
    "full, fast": Way(3e-4),
    "pulled": Way(3e-4, pull=PULL),
    "mixed": Way(3e-4, share_elsewhere=0.5),
    "biases": Way(3e-3, chosen=lambda name, weight: weight.ndim == 1),
    "lora": Way(1e-3, low_rank=True),
}
PROMPTED = "prompted"


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


def rows_of(songs: Sequence[Tensor], n: int, random: np.random.Generator) -> Tensor:
    """(n, ROW, F) rows that begin anywhere in songs (N, F), longer songs more often; short songs come around."""
    lengths = np.array([len(song) for song in songs])
    found = []
    for number in random.choice(len(songs), n, p=lengths / lengths.sum()):
        song = songs[number]
        song = song.repeat(-(-ROW // len(song)), 1)
        start = random.integers(len(song) - ROW + 1)
        found.append(song[start:start + ROW])
    return torch.stack(found)


def adapted(base: PooledTransformer,
            way: Way,
            own: Sequence[Tensor],
            elsewhere: Sequence[Tensor],
            transposed: Transposition) -> Iterator[tuple[int, PooledTransformer]]:
    """The model after each number of STEPS, the first of which is 0."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    generator = torch.Generator().manual_seed(0)
    model = copy.deepcopy(base).train()
    if way.low_rank:
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        replaced(model, nn.Linear, LowRank)
    trained = {name: weight for name, weight in model.named_parameters()
               if weight.requires_grad and way.chosen(name, weight)}
    start = {name: weight.detach().clone() for name, weight in trained.items()}
    optimizer = torch.optim.AdamW(trained.values(), lr=way.rate, weight_decay=0.0)
    n_elsewhere = int(BATCH * way.share_elsewhere)
    for step in range(max(STEPS) + 1):
        if step in STEPS:
            yield step, plain(model)
        rows = rows_of(own, BATCH - n_elsewhere, random)
        if n_elsewhere:
            rows = torch.cat([rows, rows_of(elsewhere, n_elsewhere, random)])
        rows = transposed(rows, generator)
        optimizer.zero_grad()
        losses = window_losses(model, model.config, rows)
        losses.sum(-1).mean().backward()
        nn.utils.clip_grad_norm_(trained.values(), 1.0)
        optimizer.step()
        if way.pull:
            for name, weight in trained.items():
                weight.data.lerp_(start[name], way.pull)


def plain(model: PooledTransformer) -> PooledTransformer:
    """A copy to judge, with low-rank changes in its weights."""
    found = replaced(copy.deepcopy(model), LowRank, LowRank.merged)
    assert isinstance(found, PooledTransformer)
    return found.eval()


# ---------------------------------------------------------------- judging


@torch.inference_mode()
def nats(model: PooledTransformer, songs: Sequence[Tensor], before: Sequence[Tensor] = ()) -> float:
    """Nats per note of songs (N, F) in windows of WINDOW notes, or of half of one after the end of `before`."""
    size = WINDOW // 2 if before else WINDOW
    context = torch.cat([*before])[-(WINDOW - size):] if before else torch.zeros(0, 4, dtype=torch.long)
    total, number = 0.0, 0
    for song in songs:
        for start in range(0, len(song), size - 1):
            window = torch.cat([context, song[start:start + size]])
            if len(window) > len(context) + 1:
                losses = window_losses(model, model.config, window[None])[0, len(context):].sum(-1)
                total, number = total + float(losses.sum()), number + len(losses)
    return total / number


def run(args: argparse.Namespace) -> int:
    check_file(args.model)
    base, vocabulary, _ = load_model(args.model)
    dataset = load_dataset(args.dataset, vocabulary)
    artists = artists_of(dataset, args.songs_list, args.artists)
    random = np.random.default_rng(1)
    others = random.permutation(without(dataset, artists))[:200].tolist()
    elsewhere = [song_rows(dataset, song) for song in others]
    transposed = Transposition(vocabulary, *SEMITONES)
    results = json.loads(args.output.read_text()) if args.output.exists() else []
    done = {(row["artist"], row["songs"], row["way"]) for row in results}
    todo = [each for each in itertools.product(artists, args.n_songs, (PROMPTED, *args.ways))
            if (each[0].name, each[1], each[2]) not in done]
    for artist, n_songs, way in tqdm(todo, unit="run", disable=None):
        if len(artist.songs) <= max(args.n_songs):
            raise UserError(f"{artist.name}: {len(artist.songs)} songs, none is left to judge; ask for fewer with "
                            "--n-songs, or for fewer artists")
        songs = [song_rows(dataset, song) for song in artist.songs]
        own, judged = songs[:n_songs], songs[max(args.n_songs):][:MOST_JUDGED]
        row: dict[str, Any] = {"artist": artist.name, "songs": n_songs, "way": way}
        if way == PROMPTED:
            row["judged"] = {"0": nats(base, judged), "prompted": nats(base, judged, own)}
        else:
            for step, model in adapted(base, WAYS[way], own, elsewhere, transposed):
                for name, which in (("judged", judged), ("own", own), ("elsewhere", elsewhere[:N_ELSEWHERE])):
                    row.setdefault(name, {})[str(step)] = nats(model, which)
        results.append(row)
        write_bytes(args.output, json.dumps(results, indent=1).encode())
    return 0


def table(args: argparse.Namespace) -> int:
    """Changes of the loss on the artists' other songs, in percent: mean over artists, and the worst."""
    results = json.loads(args.output.read_text())
    print("| way | songs | " + " | ".join(f"{step} steps" for step in STEPS[1:]) + " | worst | own | elsewhere |")
    print("|---|" + "---:|" * (len(STEPS) + 3))
    for way, n_songs in sorted({(row["way"], row["songs"]) for row in results}):
        rows = [row for row in results if (row["way"], row["songs"]) == (way, n_songs)]
        steps = [step for step in rows[0]["judged"] if step != "0"]
        changes = np.array([[change(row["judged"], step) for step in steps] for row in rows])
        cells = [f"{mean:+.1f}" for mean in changes.mean(0)]
        best = int(changes.mean(0).argmin())
        rest = ["", ""]
        if way != PROMPTED:
            rest = [f"{np.mean([change(row[name], steps[best]) for row in rows]):+.1f}"
                    for name in ("own", "elsewhere")]
        cells += [""] * (len(STEPS) - 1 - len(cells))
        print(f"| {way} | {n_songs} | {' | '.join(cells)} | {changes[:, best].max():+.1f} | {' | '.join(rest)} |")
    return 0


def change(losses: dict[str, float], step: str) -> float:
    """Percent by which a loss changes from the start to a step."""
    return 100 * (losses[step] / losses["0"] - 1)


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    commands = parser.add_subparsers(required=True, parser_class=Parser)
    for name, function in (("split", split), ("run", run), ("table", table)):
        command = commands.add_parser(name)
        command.set_defaults(function=function)
        if name == "table":
            command.add_argument("output", type=Path, help="results .json of `run`")
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
            command.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="default: all")
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    return args.function(args)


if __name__ == "__main__":
    sys.exit(main())
