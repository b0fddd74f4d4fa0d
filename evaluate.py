"""Measure a model's loss on the songs it was not trained on: nats per note, in all, for each family, and by context.

Input    a model (.pth or .safetensors) and the dataset .pt it was trained with
Output   the table on stdout; with -o a .json and a .md of it
Example  python evaluate.py -mp musictransformer/best.pth --dataset_path dataset.pt
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from errors import UserError, reports_user_errors
from files import BUNDLED_MODEL, check_file, check_new, check_writable, write_bytes
from vocab import FIELDS


def as_markdown(result: dict[str, Any]) -> str:
    """Two tables of losses in nats: of all notes, and by how many rows stand before a note in its context."""
    error = result["standard_error"]
    of_all = {"songs": f"{result['songs']:,}", "notes": f"{result['notes']:,}",
              "nats per note": f"{result['nats_per_note']:.3f}" + (f" ± {error:.3f}" if error is not None else ""),
              **{field: f"{result[field]:.3f}" for field in FIELDS}}
    context = {"rows before": "nats per note", **{key: f"{loss:.3f}" for key, loss in result["by_context"].items()}}
    return "\n".join("\n".join(f"| {' | '.join(cells)} |" for cells in (table, ["---"] * len(table), table.values()))
                     + "\n" for table in (of_all, context))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-mp", "--model_path", type=Path, default=BUNDLED_MODEL,
                        help="model: .safetensors or .pth (default: the one in this repository)")
    parser.add_argument("--dataset_path", type=Path, required=True, help="dataset with the held-out songs")
    parser.add_argument("--all", action="store_true", help="evaluate on every song of the dataset")
    parser.add_argument("-b", "--batch_size", type=int, default=8, help="windows at a time (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, help="write OUTPUT.json and OUTPUT.md too")
    parser.add_argument("-d", "--device", default="auto", help="auto, cuda, mps or cpu (default: %(default)s)")
    parser.add_argument("--force", action="store_true", help="overwrite the output")
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if args.batch_size < 1:
        raise UserError(f"-b {args.batch_size}: at least one window")
    for path in (args.model_path, args.dataset_path):
        check_file(path)
    outputs = [args.output.with_name(args.output.name + suffix) for suffix in (".json", ".md")] if args.output else []
    check_new(outputs, args.force)
    for path in outputs:
        check_writable(path.parent)

    from checkpoints import load_model, pick_device  # brings torch
    from dataset import load_dataset
    from evaluation import by_context, held_out_songs, measure_losses, nats_per_note

    model, vocabulary, facts = load_model(args.model_path, pick_device(args.device))
    dataset = load_dataset(args.dataset_path, vocabulary)
    songs = list(range(dataset.n_songs)) if args.all else held_out_songs(facts, dataset, args.model_path)
    losses = measure_losses(model, dataset, songs, args.batch_size)
    result = {"model": str(args.model_path), "dataset": str(args.dataset_path), "songs": len(songs),
              "notes": int(losses.by_song[:, -1].sum()), **nats_per_note(losses.by_song),
              "by_context": by_context(losses.by_context)}
    for path, text in zip(outputs, (json.dumps(result, indent=2) + "\n", as_markdown(result)), strict=False):
        write_bytes(path, text.encode())
    print(as_markdown(result), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
