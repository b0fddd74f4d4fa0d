"""Measure a model and its songs: losses on held-out songs, and whether its own songs pass for real.

Input    one or more of these:
         - a model (.pth or .safetensors) and the dataset .pt it was trained with: nats per note of the held-out songs,
           by family, part, and place in song and context; --drift adds those of songs the model writes itself
         - a folder of generated songs and a --reference: a folder of real songs (MIDI or token files), or the
           held-out songs of a dataset .pt
         - votes that a blind page (page.py --blind) exported
Output   tables on stdout; with -o also as .json and .md, and for songs a .png
Example  python evaluate.py -mp musictransformer/best.pth --dataset_path dataset.pt
         python evaluate.py --dataset_path dataset.pt --drift
         python evaluate.py generated --reference real_songs -o result
         python evaluate.py generated --reference dataset.pt --copies
         python evaluate.py --votes votes.csv

Songs are compared measure by measure: does the mean over generated songs lie in the range that holds 95 % of the means
of as many real songs? Real songs are first cut to the lengths of the generated ones. A classifier on all measures then
shows how well it tells songs apart that it was not fitted to. --copies adds the longest run of notes that a song shares
with the training songs: new songs should share no more with them than held-out real songs do.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from backline.common.errors import Parser, UserError, reports_user_errors
from backline.common.files import check_file, check_new, check_writable, write_bytes
from backline.common.hub import fetched
from backline.common.paths import BUNDLED_MODEL, OWN_INDEX, index_of_copies
from backline.evaluation.copy_index import MARKED, PERCENTILES, CopyIndex, read_index, read_index_for
from backline.evaluation.measures import measure_song
from backline.evaluation.song_sets import SongSet, held_out_set, held_out_songs, read_folder
from backline.evaluation.statistics import Verdict, cut_alike, judge, tell_apart
from backline.evaluation.tables import (
    drift_as_markdown,
    losses_as_markdown,
    songs_as_markdown,
    table,
)
from backline.listening.votes import Share, folder_shares, read_votes
from backline.music.vocab import Vocabulary, load_vocabulary
from tokenizer import MidiTokenizerPooled

if TYPE_CHECKING:
    from model import PooledTransformer

ENOUGH = 100  # songs, for a verdict to mean much
DRIFT_SONGS = 100  # of the model's own, for its drift


@dataclasses.dataclass(frozen=True)
class EvaluatedModel:
    """A model, and what its file says."""

    path: Path
    network: PooledTransformer
    vocabulary: Vocabulary
    metadata: dict[str, Any]


def read_model(path: Path, device: str) -> EvaluatedModel:
    """The model in a file, on the device of that name. Raises UserError."""
    # These bring torch, and wrong arguments need not wait for it.
    from backline.layers.torch_io import pick_device
    from backline.training.checkpoints import load_model

    network, vocabulary, metadata = load_model(path, pick_device(device))
    return EvaluatedModel(path, network, vocabulary, metadata)


# ---------------------------------------------------------------- losses


@dataclasses.dataclass(frozen=True)
class LossSettings:
    """What losses are measured on, and how."""

    every_song: bool = False  # of the dataset, not the held-out ones alone
    n_own_songs: int = 0  # that the model writes itself, for its drift
    batch_size: int = 8  # windows at a time


def losses(model: EvaluatedModel,
           dataset_path: Path,
           settings: LossSettings) -> dict[str, Any]:
    """Losses on songs of a dataset and, where any are asked for, on the model's own songs."""
    from backline.evaluation.held_out_losses import (
        by_context,
        by_position,
        measure_losses,
        nats_per_note,
        of_notes,
    )
    from backline.preparation.dataset import load_dataset  # brings torch

    dataset = load_dataset(dataset_path, model.vocabulary)
    songs = list(range(dataset.n_songs))
    if not settings.every_song:
        songs = held_out_songs(model.metadata, dataset, model.path)
    found = measure_losses(model.network, dataset, songs, settings.batch_size)
    by_part = {}
    for p, name in enumerate(model.vocabulary.part_names):
        of_part = found.by_part[:, p]                        # (n_songs, F + 1)
        if of_part[:, -1].any():
            by_part[name] = of_notes(of_part)
    result = {
        "model": str(model.path),
        "dataset": str(dataset_path),
        "songs": len(songs),
        "notes": int(found.by_song[:, -1].sum()),
        **nats_per_note(found.by_song),
        "by_part": by_part,
        "by_position": by_position(found.by_position, model.network.config.block_size),
        "by_context": by_context(found.by_context),
    }
    if settings.n_own_songs:
        from backline.generation.drift import measure_drift

        result["drift"] = measure_drift(model.network,
                                        dataset,
                                        songs,
                                        settings.n_own_songs,
                                        settings.batch_size)
    return result


# ---------------------------------------------------------------- songs


def compare(generated: SongSet,
            real: SongSet,
            vocabulary: Vocabulary,
            index: CopyIndex | None = None) -> dict[str, Any]:
    """How generated songs differ from the beginnings of real ones, cut to their lengths.

    `index`: of the training songs, to look for copies.
    """
    beginnings = cut_alike(real.rows, generated.rows)
    names, ours = measure_table(generated.rows, vocabulary)
    _, theirs = measure_table(beginnings, vocabulary)
    verdicts = judge(names, theirs, ours)
    difference = tell_apart(names, theirs, ours)
    return {
        "generated": len(generated.rows),
        "real": len(real.rows),
        "left_out": {"generated": generated.left_out, "real": real.left_out},
        "inside": sum(verdict.inside for verdict in verdicts),
        "measures": [verdict._asdict() for verdict in verdicts],
        "told_apart": difference._asdict() if difference else None,
        "copies": copying(generated.rows, beginnings, index) if index else None,
    }


def measure_table(songs: Sequence[np.ndarray], vocabulary: Vocabulary,
                  ) -> tuple[list[str], np.ndarray]:
    """Names of all measures, and (songs, measures) float64 of songs, (N, F) note ids each."""
    progress = tqdm(songs, unit="song", leave=False, disable=None)
    measured = [measure_song(rows, vocabulary) for rows in progress]
    names = list(measured[0])
    values = [list(song.values()) for song in measured]
    return names, np.array(values)


def copying(generated: Sequence[np.ndarray],
            real: Sequence[np.ndarray],
            index: CopyIndex,
            ) -> dict[str, Any]:
    """The longest runs of notes that songs share with training songs; see `CopyIndex`.

    "generated" and "real" are their lengths by percentile. "above" is the share of generated
    songs with a longer run than real ones have at the percentile MARKED.
    """
    our_runs = [index.longest_run(rows) for rows in generated]
    their_runs = [index.longest_run(rows) for rows in real]
    ours = np.array([run.n_notes for run in our_runs])
    theirs = np.array([run.n_notes for run in their_runs])
    usual = np.percentile(theirs, MARKED)
    return {
        "generated": {str(share): float(np.percentile(ours, share))
                      for share in PERCENTILES},
        "real": {str(share): float(np.percentile(theirs, share))
                 for share in PERCENTILES},
        "above": float((ours > usual).mean()),
    }


def song_vocabulary(args: argparse.Namespace, model: EvaluatedModel | None) -> Vocabulary:
    """The vocabulary to read songs in: --vocab, else that of the model, else the default.

    Raises UserError if --vocab is not the vocabulary that the dataset's songs come in.
    """
    if model is None:
        return load_vocabulary(args.vocab)
    given = load_vocabulary(args.vocab) if args.vocab else model.vocabulary
    if given.digest != model.vocabulary.digest and not args.reference.is_dir():
        raise UserError(f"{args.vocab}: not the vocabulary of the model and of "
                        f"{args.reference} ({model.vocabulary.difference(given)}); "
                        f"leave --vocab out")
    return given


def judge_songs(args: argparse.Namespace, model: EvaluatedModel | None) -> dict[str, Any]:
    """Compare a folder of generated songs with real ones: a folder, or a dataset's held-out songs.

    `model`: what says which songs of a dataset were held out.
    """
    tokenizer = MidiTokenizerPooled(song_vocabulary(args, model))
    index = None
    if args.copies:
        path = index_of_copies(args.copies, args.model_path or BUNDLED_MODEL)
        if model:
            index = read_index_for(model.path, model.metadata, path, tokenizer.vocabulary)
        else:
            index = read_index(path, tokenizer.vocabulary)
    generated = read_folder(args.generated, tokenizer)
    if args.reference.is_dir():
        real = read_folder(args.reference, tokenizer)
    else:
        from backline.preparation.dataset import load_dataset  # brings torch

        assert model is not None  # read wherever the reference is a dataset
        dataset = load_dataset(args.reference, model.vocabulary)
        real = held_out_set(dataset, model.metadata, model.path)
    if len(generated.rows) < ENOUGH:
        print(f"notice: {len(generated.rows)} songs say little; make {ENOUGH} or more",
              file=sys.stderr)
    return compare(generated, real, tokenizer.vocabulary, index)


# ---------------------------------------------------------------- votes


def votes_as_markdown(shares: dict[str, Share]) -> str:
    """How often each folder's song was chosen."""
    rows = []
    for folder, share in shares.items():
        rows.append([
            folder,
            f"{share.chosen} of {share.n}",
            f"{share.share:.0%} ({share.low:.0%}–{share.high:.0%})",
        ])
    head = [
        "chosen, of votes that decide",
        "votes",
        "share, and where 95 % of such polls put it",
    ]
    return table(head, rows)


# ---------------------------------------------------------------- command


def build_parser() -> argparse.ArgumentParser:
    """The options of the command.

    -b, -d and -mp have no default here, so that it shows when one is given in vain.
    """
    parser = Parser(__doc__)
    parser.add_argument("generated",
                        type=Path,
                        nargs="?",
                        help="folder of songs to judge, .mid or token .json")
    parser.add_argument("--reference",
                        type=Path,
                        metavar="REAL",
                        help="real songs to compare them with: a folder, or the held-out songs of "
                             "a dataset .pt")
    parser.add_argument("--copies", "--check-copies",
                        type=Path,
                        nargs="?",
                        const=OWN_INDEX,
                        metavar="INDEX",
                        help="also look for copies of training songs, using an index of copies.py "
                             "(default: that beside -mp, or else the bundled model's); the real "
                             "songs must be held-out ones")
    parser.add_argument("--votes",
                        type=Path,
                        nargs="+",
                        default=[],
                        metavar="CSV",
                        help="votes exported by a blind page")
    parser.add_argument("-mp", "--model_path",
                        type=Path,
                        metavar="MODEL",
                        help="model: .safetensors, .pth or hf:owner/name (default: the one in this repository)")
    parser.add_argument("--dataset_path",
                        type=Path,
                        help="dataset with the held-out songs, for the losses")
    parser.add_argument("--all", action="store_true", help="losses on every song of the dataset")
    parser.add_argument("--drift", type=int, nargs="?", const=DRIFT_SONGS, metavar="N",
                        help="also compare losses on N songs of the model's own, 512 notes at most, "
                             "with those on the beginnings of real songs (default: %(const)s)")
    parser.add_argument("--vocab",
                        type=Path,
                        help="vocabulary JSON of the songs (default: the model's if one is read, "
                             "else configs/vocab.json)")
    parser.add_argument("-b", "--batch_size",
                        type=int,
                        help=f"windows at a time (default: {LossSettings.batch_size})")
    parser.add_argument("-o", "--output",
                        type=Path,
                        help="also write OUTPUT.json, OUTPUT.md and, for songs, OUTPUT.png")
    parser.add_argument("-d", "--device", help="auto, cuda, mps or cpu (default: auto)")
    parser.add_argument("--force", action="store_true", help="overwrite the output")
    return parser


def needs_model(args: argparse.Namespace) -> bool:
    """Whether a model is read: for losses, to know a dataset's held-out songs, or which songs it learned."""
    reads_dataset = args.dataset_path or (args.reference and not args.reference.is_dir())
    return bool(reads_dataset or (args.copies and args.model_path))


def check_arguments(args: argparse.Namespace) -> None:
    """Raise UserError about what is wrong whatever the files hold."""
    if not (args.generated or args.dataset_path or args.votes):
        raise UserError("nothing to measure; give a folder of songs and a --reference, a "
                        "--dataset_path, or --votes")
    if (args.generated is None) != (args.reference is None):
        raise UserError("a folder of generated songs needs a --reference to compare with; give "
                        "both or none")
    check_loss_options(args)
    if args.copies and not args.generated:
        raise UserError("--copies: is about generated songs; give a folder of them and a "
                        "--reference")
    if args.vocab and not args.generated:
        raise UserError(f"--vocab {args.vocab}: is about songs; give a folder of them and a "
                        f"--reference")
    if args.model_path and not needs_model(args):
        raise UserError(f"-mp {args.model_path}: no model is read; leave it out")
    if args.dataset_path:
        check_file(args.dataset_path)
    if args.reference and not args.reference.is_dir():
        check_file(args.reference)
    if needs_model(args):
        args.model_path = fetched(args.model_path or BUNDLED_MODEL)
        check_file(args.model_path)


def check_loss_options(args: argparse.Namespace) -> None:
    """Raise UserError about options of losses that make no sense, or that nothing uses."""
    if args.drift is not None and args.drift < 1:
        raise UserError(f"--drift {args.drift}: must be at least 1 song")
    if args.batch_size is not None and args.batch_size < 1:
        raise UserError(f"-b {args.batch_size}: must be at least 1 window")
    if args.dataset_path:
        return
    if args.drift:
        raise UserError("--drift: compares with real songs; give a --dataset_path")
    if args.all:
        raise UserError("--all: is about losses; give a --dataset_path")
    for option, value in (("-b", args.batch_size), ("-d", args.device)):
        if value is not None:
            raise UserError(f"{option} {value}: is about losses; give a --dataset_path")


def output_paths(args: argparse.Namespace) -> list[Path]:
    """The files to write: .json, .md and, of songs, .png; none without -o.

    Raises UserError if one of them exists or cannot be written.
    """
    if not args.output:
        return []
    suffixes = [".json", ".md"]
    if args.generated:
        suffixes.append(".png")
    name = args.output.name
    paths = [args.output.with_name(name + suffix) for suffix in suffixes]
    check_new(paths, args.force)
    for path in paths:
        check_writable(path.parent)
    return paths


def write_results(paths: Sequence[Path],
                  result: dict[str, Any],
                  text: str,
                  title: str) -> None:
    """Write the results as JSON, their tables, and of songs a picture under `title`."""
    data = json.dumps(result, indent=2) + "\n"
    write_bytes(paths[0], data.encode())
    write_bytes(paths[1], text.encode())
    if "songs_compared" in result:
        from backline.evaluation.bands_picture import measures_in_bands  # brings matplotlib

        verdicts = [Verdict(**measure)
                    for measure in result["songs_compared"]["measures"]]
        picture = measures_in_bands(verdicts, title)
        write_bytes(paths[2], picture)


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = build_parser().parse_args(argv)
    check_arguments(args)
    outputs = output_paths(args)
    result: dict[str, Any] = {}
    texts = []
    if args.votes:
        votes = []
        for path in args.votes:
            votes += read_votes(path)
        shares = folder_shares(votes)
        result["votes"] = {folder: dataclasses.asdict(share)
                           for folder, share in shares.items()}
        texts.append(votes_as_markdown(shares))
    model = None
    if needs_model(args):
        device = args.device or "auto" if args.dataset_path else "cpu"  # losses alone are slow
        model = read_model(args.model_path, device)
    if model and args.dataset_path:
        batch_size = args.batch_size or LossSettings.batch_size
        settings = LossSettings(args.all, args.drift or 0, batch_size)
        result |= losses(model, args.dataset_path, settings)
        texts.append(losses_as_markdown(result))
        if args.drift:
            texts.append(drift_as_markdown(result["drift"]))
    if args.generated:
        result["songs_compared"] = judge_songs(args, model)
        texts.append(songs_as_markdown(result["songs_compared"]))
    text = "\n".join(texts)
    if outputs:
        write_results(outputs, result, text, f"{args.generated} beside real songs")
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
