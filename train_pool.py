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
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backline.common.errors import Parser, UserError, reports_user_errors
from backline.common.files import check_file, check_writable, read_json_object
from backline.common.hub import fetched
from backline.common.settings import config_from_dict
from backline.engine.model_file import held_out_names
from backline.layers.config import ModelConfig
from backline.music.dynamics import FACT, dynamics_fact
from backline.music.vocab import load_vocabulary
from backline.training.config import BEST, CONTROLS, LAST, LOSSES, TrainingSettings
from backline.training.distributed import Processes, joined
from backline.training.tensorboard_log import TensorBoardLog, check_tensorboard

if TYPE_CHECKING:
    from backline.preparation.dataset import Dataset
    from backline.training.run import Run
    from model import PooledTransformer

DEFAULT_DATASET = "dataset_pitch_ins512.pt"
DEFAULT_SPLIT = 0.9
HELD_OUT_BEFORE = "held_out_before"  # songs of the dataset that the first weights were not trained on
# Options that --resume refuses.
OF_NEW_RUNS = ("model_config", "training_args", "train_split", "file_path", "new_vocab")


def build_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = Parser(__doc__)
    parser.add_argument("--dataset_path", type=Path,
                        help=f"dataset to train on (default: {DEFAULT_DATASET}; with --resume: the run's own)")
    parser.add_argument("--model_config", type=Path,
                        help="JSON with model settings (default: the published ones)")
    parser.add_argument("--training_args", type=Path,
                        help="JSON with training settings (default: the published ones)")
    parser.add_argument("--train_split", type=float,
                        help=f"share of the songs to train on; the rest is held out "
                             f"(default: {DEFAULT_SPLIT})")
    parser.add_argument("-fp", "--file_path", type=Path, metavar="WEIGHTS",
                        help="start a new run from these weights (.pth, .safetensors or hf:owner/name) and their "
                             "model settings")
    parser.add_argument("--new_vocab", action="store_true", default=None,
                        help="with -fp: the dataset has another vocabulary; each of its ids begins as the one of the "
                             "weights that is most like it")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="continue the run in this folder where it stopped")
    parser.add_argument("--batch_size", type=int, metavar="ROWS",
                        help="with --resume: a new number of rows at a time; the steps stay the same")
    parser.add_argument("-d", "--device", default="auto", help="auto, cuda, mps or cpu (default: %(default)s)")
    parser.add_argument("--tensorboard", action="store_true",
                        help="also write the losses for TensorBoard, into the run's folder")
    parser.add_argument("--force", action="store_true", help="replace a run in the same folder")
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Begin or resume a run, and train; returns the exit code."""
    args = build_parser().parse_args(argv)
    command = sys.argv if argv is None else [Path(__file__).name, *argv]
    if args.tensorboard:
        check_tensorboard()
    with joined(args.device) as processes:
        begin = resumed_run if args.resume else new_run
        run = processes.agreed(lambda: begin(args, processes, command))
        if args.tensorboard and processes.is_first:
            run.folder.tensorboard = TensorBoardLog(run.folder.path)
            run.folder.tensorboard.show(run.progress.rows)  # a run that is over tells nothing more
        return run.train()


# ---------------------------------------------------------------- a new run


def new_run(args: argparse.Namespace, processes: Processes, command: Sequence[str]) -> Run:
    """A run from scratch, or from weights, in place of the one in its folder.

    Args:
        command: the command line, for hyperparameters.json.
    Raises:
        UserError: options, settings, weights and dataset do not fit each other. The folder is then
            as it was.
    """
    if args.batch_size is not None:
        raise UserError("--batch_size is for --resume; for a new run, set it in --training_args")
    if args.new_vocab and args.file_path is None:
        raise UserError("--new_vocab takes weights over to the dataset's vocabulary; say whose with -fp, or leave it "
                        "out: a new model has the dataset's vocabulary")
    weights = fetched(args.file_path) if args.file_path else None
    dataset_path = args.dataset_path or Path(DEFAULT_DATASET)
    train_split = DEFAULT_SPLIT if args.train_split is None else args.train_split
    for path in filter(None, (dataset_path, weights)):
        check_file(path)
    settings, model_json = read_settings(args)
    folder = Path(settings.filename)
    check_place(folder, args.force)

    import torch  # only here: neither --help nor a mistake found by now waits for it

    from backline.music.sheet_table import sheet_table
    from backline.preparation.dataset import dataset_hash, split_by_song
    from backline.training.control_tables import ControlTables
    from backline.training.run import Run, TrainingSongs
    from backline.training.run_folder import RunFolder

    began = time.monotonic()
    _ = processes.device  # fail early if the device is missing
    torch.manual_seed(settings.seed)
    start, known, dataset = start_of_run(weights, dataset_path, bool(args.new_vocab))
    model = fitting_model(args, model_json, start, dataset)
    if start and model.config.ff_width < start.config.ff_width and processes.is_first:
        print(f"notice: the feed-forward layers of {weights} are cut from {start.config.ff_width} to "
              f"{model.config.ff_width} hidden units, those that add most", file=sys.stderr)
    dataset, most_train, before = kept_held_out(dataset, held_out_names(known))
    if before and processes.is_first:
        print(f"notice: {len(before)} songs that {weights} was not trained on stay held out, with their "
              "near-duplicates", file=sys.stderr)
    split = split_by_song(dataset, train_split, most_train)
    metadata = {
        "dataset": str(dataset_path),
        "train_split": train_split,
        "weights": str(weights) if weights else None,
        "dataset_hash": dataset_hash(dataset_path),
        "held_out_songs": list(split.held_out_songs),
        HELD_OUT_BEFORE: before,
    }
    controls = None
    if model.config.controls:
        if processes.is_first:
            (folder / CONTROLS).unlink(missing_ok=True)  # perhaps of another dataset
        sheets = sheet_table(known, dataset.vocabulary, weights) if weights else None
        levels = sheets.levels if sheets else None
        controls = ControlTables.of(dataset, len(split.held_out_songs), folder, processes, levels)
        metadata["controls"] = controls.table.to_facts()
    if table := dynamics_fact(known):
        metadata[FACT] = table  # a fine-tuned model plays as its start does, until it learns its own
    songs = TrainingSongs(dataset, split, controls)
    run = Run(RunFolder(folder, metadata, processes), settings, model, songs, processes)
    run.began = began
    run.announce()
    run.folder.write_settings(run, command)
    return run


def start_of_run(weights: Path | None, path: Path,
                 new_vocab: bool) -> tuple[PooledTransformer | None, dict[str, Any], Dataset]:
    """The model that a run begins as, what its file says of its training, and the dataset.

    Args:
        path: of the dataset.
        new_vocab: whether to take the weights over to the dataset's vocabulary. Of what their file
            says, only which songs they were not trained on is then still true.
    """
    from backline.preparation.dataset import load_dataset
    from backline.training.checkpoints import load_model
    from backline.training.transfer import transferred

    if weights is None:
        return None, {}, load_dataset(path)
    start, vocabulary, known = load_model(weights)
    dataset = load_dataset(path, None if new_vocab else vocabulary)
    if vocabulary.digest != dataset.vocabulary.digest:
        start = transferred(start, vocabulary, dataset.vocabulary)
        known = {"held_out_songs": held_out_names(known)}
    return start, known, dataset


def read_settings(args: argparse.Namespace) -> tuple[TrainingSettings, dict[str, Any] | None]:
    """The training settings, and the JSON of --model_config, None where it is not given.

    Raises UserError for all that is wrong in either, whatever the dataset is.
    """
    training_json = read_json_object(args.training_args) if args.training_args else {}
    settings = config_from_dict(TrainingSettings, training_json, str(args.training_args))
    if settings.max_minutes and "num_epochs" in training_json:
        raise UserError(f"{args.training_args}: max_minutes and num_epochs both say how long the run is; "
                        f"leave one out")
    model_json = read_json_object(args.model_config) if args.model_config else None
    if model_json is not None:  # with the dataset's vocabulary only the sizes may be others
        ModelConfig.from_dict(model_json, load_vocabulary(), str(args.model_config))
    return settings, model_json


def check_place(path: Path, force: bool) -> None:
    """Raise UserError if a new run cannot have the folder `path`."""
    holds_run = any((path / name).exists() for name in (LAST, BEST, LOSSES))
    if holds_run and not force:
        raise UserError(f"{path} holds a run already; continue it with --resume {path}, replace it with "
                        f"--force, or give another \"filename\" in --training_args")
    check_writable(path)


def kept_held_out(dataset: Dataset, names: Sequence[str]) -> tuple[Dataset, int | None, list[str]]:
    """A dataset whose last songs are those that weights were not trained on, so that they stay held out.

    Args:
        names: of these songs, in it or not.
    Returns:
        The dataset; how many songs may be trained on, None for all; the names that are in it. It is
        as it was where it holds none of them, or nothing else.
    """
    from backline.preparation.dataset import with_songs_last

    there = set(dataset.songs)
    present = [name for name in names if name in there]
    ordered, n_others = with_songs_last(dataset, present)
    if not present or not n_others:
        return dataset, None, []
    return ordered, n_others, present


def fitting_model(args: argparse.Namespace, model_json: dict[str, Any] | None,
                  start: PooledTransformer | None, dataset: Dataset) -> PooledTransformer:
    """The model to train on `dataset`: `start`, or a new one by the settings in `model_json`.

    Where both are given they must agree, but for what a model can grow and for a narrower feed-forward.
    Raises UserError if they do not, or if the model does not fit the dataset.
    """
    from backline.training.transfer import narrowed
    from model import PooledTransformer

    if start is not None and model_json is None:
        where = str(args.file_path)
        config = start.config
    else:
        where = str(args.model_config or "default model settings")
        config = ModelConfig.from_dict(model_json or {}, dataset.vocabulary, where)
    if start is not None and config != start.config:
        names = ", ".join(start.config.differences(config))
        if names:
            raise UserError(f"{where}: not the model settings of {args.file_path} ({names}); leave out "
                            f"--model_config")
        if config.ff_width < start.config.ff_width:
            start = narrowed(start, config.ff_width)
        start = start.grown(config)
    sizes = dataset.vocabulary.sizes
    if config.n_tokens != sizes:
        raise UserError(f"{where}: n_tokens are not the dataset's {list(sizes)}; leave them out")
    if config.block_size < dataset.block_size:
        raise UserError(f"{where}: block_size={config.block_size} is shorter than the dataset's blocks "
                        f"({dataset.block_size}); raise it, or prepare the dataset with -b {config.block_size}")
    return PooledTransformer(config) if start is None else start


# ---------------------------------------------------------------- a resumed run


def resumed_run(args: argparse.Namespace, processes: Processes, command: Sequence[str]) -> Run:
    """The run in the folder `args.resume`, as it was when last.pth was written.

    Another --batch_size than the run's changes what passes through the model at once, and not the
    steps.

    Args:
        command: the command line, for hyperparameters.json.
    Raises:
        UserError: there is no run to resume, its dataset is not the one it was started with, or an
            option would change it.
    """
    given = [name for name in OF_NEW_RUNS if getattr(args, name) is not None]
    if given or args.force:
        option = (given or ["force"])[0]
        raise UserError(f"--resume continues a run with its own settings; leave out --{option}")
    path = args.resume
    last = path / LAST
    if not last.is_file():
        raise UserError(f"{path}: no run to continue here ({LAST} is missing); give a run's folder")
    check_writable(path)

    from backline.music.sheet_table import sheet_table
    from backline.preparation.dataset import dataset_hash, load_dataset, split_by_song
    from backline.training.checkpoints import load_model
    from backline.training.control_tables import ControlTables
    from backline.training.run import Run, TrainingSongs
    from backline.training.run_folder import RunFolder

    _ = processes.device  # fail early if the device is missing
    model, vocabulary, state = load_model(last)
    if "optimizer" not in state:
        raise UserError(f"{last}: holds no optimizer state, so it cannot be continued; start a new run "
                        f"from it with -fp")
    metadata = state["facts"]
    settings = config_from_dict(TrainingSettings, state["settings"], str(last))
    if args.batch_size is not None:
        settings = settings.with_batch_size(args.batch_size)
    dataset_path = args.dataset_path or Path(metadata["dataset"])
    if not dataset_path.is_file():
        raise UserError(f"{dataset_path}: the run's dataset is not there; say where with --dataset_path")
    if dataset_hash(dataset_path) != metadata["dataset_hash"]:
        raise UserError(f"{dataset_path}: not the dataset this run was started with")
    dataset = load_dataset(dataset_path, vocabulary)
    dataset, most_train, _ = kept_held_out(dataset, metadata.get(HELD_OUT_BEFORE, []))
    split = split_by_song(dataset, metadata["train_split"], most_train)
    controls = None
    if model.config.controls:
        sheets = sheet_table(state, vocabulary, last)
        levels = sheets.levels if sheets else None
        controls = ControlTables.of(dataset, len(split.held_out_songs), path, processes, levels)
    songs = TrainingSongs(dataset, split, controls)
    run = Run(RunFolder(path, metadata, processes), settings, model, songs, processes)
    run.restore(state)
    run.announce()
    if run.progress.step < run.total_steps:
        run.folder.add_to_settings(run, command)
    run.folder.write_table(run.progress.rows)  # killed after last.pth, a run has that of an earlier step
    return run


if __name__ == "__main__":
    sys.exit(main())
