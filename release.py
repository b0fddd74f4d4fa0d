"""Turn a checkpoint into one self-contained file to share: weights, config, vocabulary and training facts.

Input    a checkpoint .pth of train_pool.py
Output   a .safetensors with bfloat16 weights; generate.py, evaluate.py and train_pool.py -fp read it
Example  python release.py musictransformer/best.pth mymodel.safetensors --note "My songs, 2026. Licence: CC0."
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from backline.common.errors import Parser, UserError, reports_user_errors
from backline.common.files import check_file, check_new, check_writable
from backline.common.installed import is_installed


def build_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = Parser(__doc__)
    parser.add_argument("checkpoint", type=Path, help="checkpoint .pth")
    parser.add_argument("out", type=Path, help="file to write, ending in .safetensors")
    parser.add_argument("--note", default="", help="text stored in the file: data, licence, attribution")
    parser.add_argument("--force", action="store_true", help="overwrite a file that exists")
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Write the release; returns the exit code."""
    args = build_parser().parse_args(argv)
    if args.out.suffix != ".safetensors":
        raise UserError(f"{args.out}: the name must end in .safetensors")
    check_file(args.checkpoint)
    check_new([args.out], args.force)
    check_writable(args.out.parent)

    # These bring torch.
    from backline.generation.loading import load_player
    from backline.training.checkpoints import load_model, release_facts, save_release

    model, vocabulary, training = load_model(args.checkpoint)
    save_release(args.out, model, vocabulary, {**release_facts(training), "note": args.note})
    if is_installed("onnxruntime"):
        load_player(args.out, "cpu", "fp32")  # an error if the engine plays another model
    print(f"{args.out}: {model.n_parameters():,} parameters, {args.out.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
