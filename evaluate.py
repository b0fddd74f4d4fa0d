"""Measure a model and its songs: losses on songs it was not trained on, and whether what it writes passes for real.

Input    a model (.pth or .safetensors) and the dataset .pt it was trained with: nats per note of the held-out songs,
         for each family and part, by place in the song and in the context, with --drift beside those of the model's
         own songs; and, or, a folder of generated songs and a --reference, a folder of real songs (MIDI or token
         files) or a dataset .pt, whose held-out songs are taken; and, or, votes that a blind page (page.py --blind)
         exported
Output   tables on stdout; with -o a .json and a .md of them and, of songs, a .png
Example  python evaluate.py -mp musictransformer/best.pth --dataset_path dataset.pt
         python evaluate.py --dataset_path dataset.pt --drift
         python evaluate.py generated --reference real_songs -o result
         python evaluate.py generated --reference dataset.pt --copies
         python evaluate.py --votes votes.csv

Songs are compared measure by measure: is the mean over the generated ones where that of as many real ones would be, 95
times in 100? The real songs are cut to the lengths of the generated ones first. And by a classifier that sees all
measures: how well does it tell songs apart that it was not fitted to? With --copies also by the longest run of notes
that is in the training songs too: new songs should share no more with them than real ones that were held out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from backline.common.errors import Parser, UserError, reports_user_errors
from backline.common.files import BUNDLED_COPIES, BUNDLED_MODEL, check_file, check_new, check_writable, write_bytes
from backline.evaluation.copy_index import MARKED, PERCENTILES, CopyIndex, read_index
from backline.evaluation.measures import measure_song
from backline.evaluation.song_sets import SongSet, held_out, held_out_songs, read_folder
from backline.evaluation.statistics import Verdict, cut_alike, judge, tell_apart
from backline.evaluation.tables import drift_as_markdown, losses_as_markdown, songs_as_markdown, table
from backline.listening.votes import Share, folder_shares, read_votes
from backline.music.vocab import Vocabulary, load_vocabulary
from tokenizer import MidiTokenizerPooled

ENOUGH = 100  # songs, for a verdict to mean much
DRIFT_SONGS = 100  # of the model's own, for its drift
# Of options whose default the parser leaves out: so it shows when one is given where nothing uses it.
DEFAULTS = {"model_path": BUNDLED_MODEL, "batch_size": 8, "device": "auto"}


# ---------------------------------------------------------------- losses


def losses(model_path: Path, dataset_path: Path, every: bool, batch_size: int, device: str, n_own: int = 0,
           ) -> dict[str, Any]:
    """Of the held-out songs of a dataset, or of `every` song; and, beside them, of `n_own` songs of the model's own."""
    from backline.evaluation.held_out_losses import (
        by_context,
        by_position,
        measure_losses,
        nats_per_note,
        of_notes,
    )
    from backline.preparation.dataset import load_dataset
    from backline.training.checkpoints import load_model, pick_device  # brings torch

    model, vocabulary, facts = load_model(model_path, pick_device(device))
    dataset = load_dataset(dataset_path, vocabulary)
    songs = list(range(dataset.n_songs)) if every else held_out_songs(facts, dataset, model_path)
    found = measure_losses(model, dataset, songs, batch_size)
    parts = {name: found.by_part[:, p] for p, name in enumerate(vocabulary.part_names)}
    result = {"model": str(model_path), "dataset": str(dataset_path), "songs": len(songs),
              "notes": int(found.by_song[:, -1].sum()), **nats_per_note(found.by_song),
              "by_part": {name: of_notes(sums) for name, sums in parts.items() if sums[:, -1].any()},
              "by_position": by_position(found.by_position, model.config.block_size),
              "by_context": by_context(found.by_context)}
    if n_own:
        from backline.generation.drift import measure_drift

        result["drift"] = measure_drift(model, dataset, songs, n_own, batch_size)
    return result


# ---------------------------------------------------------------- songs


def compare(generated: SongSet, real: SongSet, vocabulary: Vocabulary,
            index: CopyIndex | None = None) -> dict[str, Any]:
    """How generated songs differ from the beginnings, as long as they are, of real ones.

    `index`: of the training songs, to look for copies.
    """
    as_long = cut_alike(real.rows, generated.rows)
    kinds = [[measure_song(rows, vocabulary) for rows in tqdm(songs, unit="song", leave=False, disable=None)]
             for songs in (generated.rows, as_long)]
    names = list(kinds[0][0])
    ours, theirs = (np.array([[song[name] for name in names] for song in songs]) for songs in kinds)
    verdicts, difference = judge(names, theirs, ours), tell_apart(names, theirs, ours)
    return {"generated": len(generated.rows), "real": len(real.rows),
            "left_out": {"generated": generated.left_out, "real": real.left_out},
            "inside": sum(verdict.inside for verdict in verdicts), "measures": [each._asdict() for each in verdicts],
            "told_apart": difference._asdict() if difference else None,
            "copies": copying(generated.rows, as_long, index) if index else None}


def copying(generated: Sequence[np.ndarray], real: Sequence[np.ndarray], index: CopyIndex) -> dict[str, Any]:
    """Notes of the longest runs that songs share with training songs, by percentile; see `CopyIndex`.

    above: the share of generated songs with a longer run than real ones have at the highest percentile.
    """
    ours, theirs = (np.array([index.longest_run(rows).n_notes for rows in songs]) for songs in (generated, real))
    by_percentile = {name: {str(share): float(np.percentile(runs, share)) for share in PERCENTILES}
                     for name, runs in (("generated", ours), ("real", theirs))}
    return {**by_percentile, "above": float((ours > np.percentile(theirs, MARKED)).mean())}


def votes_as_markdown(shares: dict[str, Share]) -> str:
    rows = [[folder, f"{share.chosen} of {share.n}", f"{share.share:.0%} ({share.low:.0%}–{share.high:.0%})"]
            for folder, share in shares.items()]
    return table(["chosen, of votes that decide", "votes", "share, and where 95 % of such polls put it"], rows)


# ---------------------------------------------------------------- command


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    parser.add_argument("generated", type=Path, nargs="?", help="folder of songs to judge, .mid or token .json")
    parser.add_argument("--reference", type=Path, metavar="REAL",
                        help="real songs to compare them with: a folder, or a dataset .pt, whose held-out songs count")
    parser.add_argument("--copies", type=Path, nargs="?", const=BUNDLED_COPIES, metavar="INDEX",
                        help="also look for copies of training songs, by an index of copies.py (default: that of the "
                             "model in this repository); the real songs must be held-out ones")
    parser.add_argument("--votes", type=Path, nargs="+", default=[], metavar="CSV", help="votes of a blind page")
    parser.add_argument("-mp", "--model_path", type=Path,
                        help="model: .safetensors or .pth (default: the one in this repository)")
    parser.add_argument("--dataset_path", type=Path, help="dataset with the held-out songs, for the losses")
    parser.add_argument("--all", action="store_true", help="losses on every song of the dataset")
    parser.add_argument("--drift", type=int, nargs="?", const=DRIFT_SONGS, metavar="N",
                        help="also losses on N songs that the model writes itself, 512 notes at most, beside the "
                             "beginnings of real ones (default: %(const)s)")
    parser.add_argument("--vocab", type=Path,
                        help="vocabulary JSON of the songs (default: the model's where one is read, else "
                             "configs/vocab.json)")
    parser.add_argument("-b", "--batch_size", type=int,
                        help=f"windows at a time (default: {DEFAULTS['batch_size']})")
    parser.add_argument("-o", "--output", type=Path, help="write OUTPUT.json, OUTPUT.md and, of songs, OUTPUT.png too")
    parser.add_argument("-d", "--device", help=f"auto, cuda, mps or cpu (default: {DEFAULTS['device']})")
    parser.add_argument("--force", action="store_true", help="overwrite the output")
    return parser


def check_arguments(args: argparse.Namespace) -> list[Path]:
    """The files to write. Raises UserError about what is wrong whatever the files hold."""
    if not (args.generated or args.dataset_path or args.votes):
        raise UserError("nothing to measure; give a folder of songs and a --reference, a --dataset_path, or --votes")
    if (args.generated is None) != (args.reference is None):
        raise UserError("a folder of generated songs and the --reference to compare them with: give both or none")
    if args.copies and not args.generated:
        raise UserError("--copies: is about generated songs; give a folder of them and a --reference")
    if args.drift is not None and args.drift < 1:
        raise UserError(f"--drift {args.drift}: at least one song")
    if args.drift and not args.dataset_path:
        raise UserError("--drift: is beside real songs; give a --dataset_path")
    if args.all and not args.dataset_path:
        raise UserError("--all: is about losses; give a --dataset_path")
    if args.batch_size is not None and args.batch_size < 1:
        raise UserError(f"-b {args.batch_size}: at least one window")
    for option, value in (("-b", args.batch_size), ("-d", args.device)):
        if value is not None and not args.dataset_path:
            raise UserError(f"{option} {value}: is about losses; give a --dataset_path")
    if args.vocab and not args.generated:
        raise UserError(f"--vocab {args.vocab}: is about songs; give a folder of them and a --reference")
    songs_of_dataset = args.reference and not args.reference.is_dir()
    reads_model = args.dataset_path or songs_of_dataset
    if args.model_path and not reads_model:
        raise UserError(f"-mp {args.model_path}: no model is read; leave it out")
    for path, is_read in ((args.dataset_path, args.dataset_path), (args.reference, songs_of_dataset),
                          (args.model_path or BUNDLED_MODEL, reads_model)):
        if is_read:
            check_file(path)
    suffixes = (".json", ".md") + ((".png",) if args.generated else ())
    outputs = [args.output.with_name(args.output.name + suffix) for suffix in suffixes] if args.output else []
    check_new(outputs, args.force)
    for path in outputs:
        check_writable(path.parent)
    return outputs


def song_vocabulary(args: argparse.Namespace) -> Vocabulary:
    """The vocabulary to read songs in: --vocab, else that of the model where one is read, else the default.

    Raises UserError if --vocab is not the vocabulary of the dataset whose songs they are compared with.
    """
    if args.reference.is_dir() and (args.vocab or not args.dataset_path):
        return load_vocabulary(args.vocab)
    from backline.training.checkpoints import load_model  # brings torch

    _, vocabulary, _ = load_model(args.model_path)
    given = load_vocabulary(args.vocab) if args.vocab else vocabulary
    if given.digest != vocabulary.digest:
        raise UserError(f"{args.vocab}: another vocabulary than the model's ({vocabulary.difference(given)}), in "
                        f"which the songs of {args.reference} come; leave --vocab out")
    return vocabulary


def judge_songs(args: argparse.Namespace) -> dict[str, Any]:
    tokenizer = MidiTokenizerPooled(song_vocabulary(args))
    index = read_index(args.copies, tokenizer.vocabulary) if args.copies else None
    generated = read_folder(args.generated, tokenizer)
    is_folder = args.reference.is_dir()
    real = read_folder(args.reference, tokenizer) if is_folder else held_out(args.reference, args.model_path)
    if len(generated.rows) < ENOUGH:
        print(f"notice: {len(generated.rows)} songs say little; make {ENOUGH} or more", file=sys.stderr)
    return compare(generated, real, tokenizer.vocabulary, index)


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    outputs = check_arguments(args)
    for name, default in DEFAULTS.items():
        if getattr(args, name) is None:
            setattr(args, name, default)
    result: dict[str, Any] = {}
    texts = []
    if args.votes:
        shares = folder_shares([vote for path in args.votes for vote in read_votes(path)])
        result["votes"] = {folder: dataclasses.asdict(share) for folder, share in shares.items()}
        texts.append(votes_as_markdown(shares))
    if args.dataset_path:
        result |= losses(args.model_path, args.dataset_path, args.all, args.batch_size, args.device, args.drift or 0)
        texts.append(losses_as_markdown(result))
        if args.drift:
            texts.append(drift_as_markdown(result["drift"]))
    if args.generated:
        result["songs_compared"] = judge_songs(args)
        texts.append(songs_as_markdown(result["songs_compared"]))
    text = "\n".join(texts)
    if outputs:
        write_bytes(outputs[0], (json.dumps(result, indent=2) + "\n").encode())
        write_bytes(outputs[1], text.encode())
    if outputs and args.generated:
        from backline.evaluation.bands_picture import measures_in_bands  # brings matplotlib

        verdicts = [Verdict(**each) for each in result["songs_compared"]["measures"]]
        write_bytes(outputs[2], measures_in_bands(verdicts, f"{args.generated} beside real songs"))
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
