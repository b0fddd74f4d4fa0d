"""Train a model on a dataset, or continue a run exactly where it stopped.

Input    a dataset .pt or .pt.xz of prepare.py; JSON files with the settings of model and training
Output   a run folder (`filename` in the training settings): last.pth, best.pth (lowest held-out loss),
         hyperparameters.json, train_losses.csv, losses.png
Example  python train_pool.py --dataset_path dataset.pt --model_config configs/model_config.json
                              --training_args configs/training_args.json
         python train_pool.py --resume musictransformer
         torchrun --nproc_per_node=2 train_pool.py --dataset_path dataset.pt

hyperparameters.json holds all that is needed to repeat the run: both settings in full, the hashes of dataset, weights
and vocabulary, versions, commit, devices and the command line. The same command on the same machine and versions makes
the same run. Under torchrun the processes, one per device, share the rows of each step; the steps stay the same.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from backline.common.errors import Parser, UserError, reports_user_errors
from backline.common.files import check_file, check_writable, read_json_object
from backline.common.settings import config_from_dict
from backline.layers.config import ModelConfig
from backline.music.vocab import load_vocabulary
from backline.training.config import BEST, LAST, LOSSES, TrainingArgs
from backline.training.distributed import Processes, joined

if TYPE_CHECKING:
    from backline.training.run import Run


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    parser.add_argument("--dataset_path", type=Path,
                        help="dataset to train on (default: dataset_pitch_ins512.pt; with --resume: the run's own)")
    parser.add_argument("--model_config", type=Path,
                        help="JSON with model settings (default: the published ones)")
    parser.add_argument("--training_args", type=Path,
                        help="JSON with training settings (default: the published ones)")
    parser.add_argument("--train_split", type=float,
                        help="share of the songs to train on; the rest is held out (default: 0.9)")
    parser.add_argument("-fp", "--file_path", type=Path, metavar="WEIGHTS",
                        help="start a new run from these weights (.pth or .safetensors) and their model settings")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="continue the run in this folder where it stopped")
    parser.add_argument("--batch_size", type=int, metavar="ROWS",
                        help="with --resume: a new number of rows at a time; the steps stay the same")
    parser.add_argument("-d", "--device", default="auto", help="auto, cuda, mps or cpu (default: %(default)s)")
    parser.add_argument("--force", action="store_true", help="replace a run in the same folder")
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    command = sys.argv if argv is None else [Path(__file__).name, *argv]
    with joined(args.device) as processes:
        begin = _resume if args.resume else _start
        return processes.agreed(lambda: begin(args, processes, command)).train()


def _start(args: argparse.Namespace, processes: Processes, command: Sequence[str]) -> Run:
    if args.batch_size is not None:
        raise UserError("--batch_size is for --resume; for a new run, set it in --training_args")
    dataset_path = args.dataset_path or Path("dataset_pitch_ins512.pt")
    for path in filter(None, (dataset_path, args.file_path)):
        check_file(path)
    said = read_json_object(args.training_args) if args.training_args else {}
    settings = config_from_dict(TrainingArgs, said, str(args.training_args))
    if settings.max_minutes and "num_epochs" in said:
        raise UserError(f"{args.training_args}: max_minutes and num_epochs both say how long the run is; leave one out")
    model_settings = read_json_object(args.model_config) if args.model_config else None
    if model_settings is not None:  # the dataset's vocabulary is not known yet, but what can be wrong is
        ModelConfig.from_dict(model_settings, load_vocabulary(), str(args.model_config))
    run = Path(settings.filename)
    if any((run / name).exists() for name in (LAST, BEST, LOSSES)) and not args.force:
        raise UserError(f"{run} holds a run already; continue it with --resume {run}, replace it with --force, "
                        f"or give another \"filename\" in --training_args")
    check_writable(run)

    from backline.training.run import Run  # brings torch, which --help and wrong settings need not wait for

    train_split = 0.9 if args.train_split is None else args.train_split
    return Run.start(run, dataset_path, settings, model_settings, str(args.model_config or "default model settings"),
                     args.file_path, train_split, processes, command)


def _resume(args: argparse.Namespace, processes: Processes, command: Sequence[str]) -> Run:
    given = [name for name in ("model_config", "training_args", "train_split", "file_path")
             if getattr(args, name) is not None]
    if given or args.force:
        raise UserError(f"--resume continues a run with its own settings; leave out --{(given or ['force'])[0]}")
    if not (args.resume / LAST).is_file():
        raise UserError(f"{args.resume}: no run to continue here ({LAST} is missing); give a run's folder")
    check_writable(args.resume)

    from backline.training.run import Run

    return Run.resume(args.resume, args.dataset_path, args.batch_size, processes, command)


if __name__ == "__main__":
    sys.exit(main())
