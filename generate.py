"""Write new music as MIDI, from scratch or continuing a prompt.

Input    a model (.safetensors or .pth; by default the one in this repository); perhaps a prompt, .mid or token .json
Output   in the output folder, for each song: 0.mid, its stems 0-drums.mid, 0-bass.mid, 0-piano.mid (a stem per part
         of the model's vocabulary), with -sp 0-prompt.mid, with --png 0.png; genconfigs.txt says how each was made
Example  python generate.py -o generated -n 3
         python generate.py -p prompt.mid -o generated -n 3
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import secrets
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from arranging import check_playable
from errors import UserError, reports_user_errors
from files import BUNDLED_MODEL, check_file, check_writable, write_bytes
from generation_args import GenConfig
from midi_reader import read_song
from settings import config_from_file, config_to_dict
from songs import DEFAULT_TEMPO, TICKS_PER_QUARTER, Song, parts_to_bytes
from tokenizer import MidiTokenizerPooled, parse_token_file, token_ids
from vocab import BAR, FIRST_ID, PITCH_INSTRUMENT

LOG_NAME = "genconfigs.txt"
SEEDS = 2**32  # seeds are drawn from 0 to this, exclusive


# ---------------------------------------------------------------- prompt


def open_prompt(path: Path) -> Song | dict[str, Any]:
    """Parse a prompt as far as that goes without a vocabulary. Raises UserError about the file."""
    if path.suffix.lower() == ".json":
        return parse_token_file(path)
    song = read_song(path)
    check_playable(song, str(path))
    return song


def prompt_rows(opened: Song | dict[str, Any], path: Path, n_rows: int, tokenizer: MidiTokenizerPooled,
                ) -> tuple[np.ndarray, float]:
    """The prompt's (N, F) note ids in order, and its tempo.

    `n_rows` keeps the first so many rows, BOS counted, in the order of the file; 0 keeps all.
    """
    if isinstance(opened, Song):
        rows = tokenizer.song_rows(opened, str(path))
        ids, tempo = np.array(tokenizer.rows_to_ids(rows)), opened.main_tempo()
    else:
        ids, tempo = token_ids(opened, path, tokenizer)
    rows = tokenizer.ids_to_rows(ids[:n_rows] if n_rows else ids, str(path))
    if not len(rows) and n_rows != 1:
        raise UserError(f"{path}: has no notes to continue; give another prompt, or more of its rows with -pi")
    return rows, tempo


# ---------------------------------------------------------------- output


def song_number(path: Path) -> int:
    """The number of the song that a file in the output folder belongs to, −1 if it belongs to none."""
    match = re.fullmatch(r"(\d+)(?:-\w+\.mid|\.mid|\.png)", path.name)
    return int(match[1]) if match else -1


def next_number(folder: Path) -> int:
    """One more than the highest song number in `folder`, 0 in an empty one."""
    return max(map(song_number, folder.iterdir()), default=-1) + 1


def write_song(folder: Path, number: int, rows: np.ndarray, tokenizer: MidiTokenizerPooled, tempo: float) -> Path:
    """Write (N, F) note ids as `NUMBER.mid` and a stem per part; returns the path of the whole song."""
    v = tokenizer.vocabulary
    parts = tokenizer.rows_to_parts(rows, TICKS_PER_QUARTER)
    for p, part in enumerate(v.parts):
        write_bytes(folder / f"{number}-{part.name}.mid",
                    parts_to_bytes(parts, v, TICKS_PER_QUARTER, tempo, only=p))
    whole = folder / f"{number}.mid"
    write_bytes(whole, parts_to_bytes(parts, v, TICKS_PER_QUARTER, tempo))
    return whole


def describe(rows: np.ndarray, new: np.ndarray, tokenizer: MidiTokenizerPooled) -> str:
    """Bars, notes and notes per part of a song, on one line."""
    v = tokenizer.vocabulary
    counts = np.bincount(v.part_of_id[rows[:, PITCH_INSTRUMENT]], minlength=len(v.parts))
    parts = ", ".join(f"{name} {count}" for name, count in zip(v.part_names, counts, strict=True))
    last = int(rows[-1, BAR]) - FIRST_ID + 1 if len(rows) else 0
    prompt = f", {len(new)} of them new" if len(new) < len(rows) else ""
    return f"{last} bars, {len(rows)} notes{prompt} ({parts})"


def log_run(folder: Path, record: dict[str, Any]) -> None:
    """Append to genconfigs.txt what a run did."""
    line = "=" * 80
    stamp = datetime.datetime.now().isoformat(sep=" ", timespec="seconds")
    with open(folder / LOG_NAME, "a", encoding="utf-8") as file:
        file.write(f"{line}\n{stamp}\n{line}\n{json.dumps(record, indent=2)}\n\n")


# ---------------------------------------------------------------- command


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-p", "--prompt", type=Path,
                        help="song to continue: .mid or token .json (default: from scratch)")
    parser.add_argument("-pi", "--prompt_idx", type=int, default=0, metavar="N",
                        help="keep the first N rows of the prompt, its BOS row counted (default: all)")
    parser.add_argument("-mp", "--model_path", type=Path, default=BUNDLED_MODEL,
                        help="model: .safetensors or a .pth of train_pool.py (default: the one in this repository)")
    parser.add_argument("-o", "--output", type=Path, default=Path("generated"), help="folder (default: %(default)s)")
    parser.add_argument("-n", "--num_samples", type=int, default=1, help="songs to write (default: %(default)s)")
    parser.add_argument("--genconfig", type=Path,
                        help="JSON with sampling settings (default: those of configs/genconfig.json)")
    parser.add_argument("-sp", "--save_prompt", action="store_true", help="also write the prompt as NUMBER-prompt.mid")
    parser.add_argument("-pe", "--print_events", action="store_true", help="print the new notes' events")
    parser.add_argument("--png", action="store_true", help="also draw each song as a piano roll, NUMBER.png")
    parser.add_argument("-d", "--device", default="auto", help="auto, cuda, mps or cpu (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="song i uses seed + i (default: drawn, printed and recorded)")
    parser.add_argument("--force", action="store_true", help="number songs from 0, over those that are there")
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if args.num_samples < 1:
        raise UserError(f"-n {args.num_samples}: at least one song")
    if args.prompt_idx < 0 or (args.prompt_idx and not args.prompt):
        raise UserError(f"-pi {args.prompt_idx}: a number of rows to keep of a prompt (-p)")
    if args.save_prompt and not args.prompt:
        raise UserError("-sp: there is no prompt to save; give one with -p")
    if args.seed is not None and not 0 <= args.seed < SEEDS:
        raise UserError(f"--seed {args.seed}: must be from 0 to {SEEDS - 1}")
    config = config_from_file(GenConfig, args.genconfig) if args.genconfig else GenConfig()
    opened = open_prompt(args.prompt) if args.prompt else None
    check_file(args.model_path)
    check_writable(args.output)

    from checkpoints import load_model, pick_device  # brings torch, which wrong arguments need not wait for

    device = pick_device(args.device)
    model, vocabulary, _ = load_model(args.model_path, device)
    tokenizer = MidiTokenizerPooled(vocabulary)
    prompt, tempo = prompt_rows(opened, args.prompt, args.prompt_idx, tokenizer) if opened is not None else (
        np.zeros((0, len(vocabulary.sizes)), np.int64), DEFAULT_TEMPO)
    if len(prompt) >= model.config.block_size:
        print(f"notice: the prompt has {len(prompt)} notes, more than the model sees at once "
              f"({model.config.block_size}); it continues from the last of them", file=sys.stderr)
    return _write_songs(args, config, model, tokenizer, prompt, tempo)


def _write_songs(args: argparse.Namespace, config: GenConfig, model: Any, tokenizer: MidiTokenizerPooled,
                 prompt: np.ndarray, tempo: float) -> int:
    from sampling import sample_song

    seed = args.seed if args.seed is not None else secrets.randbelow(SEEDS)
    first = 0 if args.force else next_number(args.output)
    record = {"genconfig": config_to_dict(config), "model": str(args.model_path),
              "prompt": str(args.prompt) if args.prompt else None, "prompt_idx": args.prompt_idx,
              "prompt_notes": len(prompt), "tempo": tempo, "seed": seed, "device": args.device, "songs": []}
    try:
        for i in range(args.num_samples):
            began = time.monotonic()
            with tqdm(total=config.max_steps, unit="note", leave=False, disable=None) as bar:
                new = sample_song(model, tokenizer.vocabulary, prompt, config, seed + i, on_note=bar.update)
            rows = np.concatenate([prompt, new])
            for stale in (path for path in args.output.glob(f"{first + i}*") if song_number(path) == first + i):
                stale.unlink()  # under --force: of the song that had this number
            whole = write_song(args.output, first + i, rows, tokenizer, tempo)
            record["songs"].append(whole.name)
            if not len(new):
                print(f"notice: {whole} is the prompt alone: no bar is left after it", file=sys.stderr)
            if args.save_prompt:
                parts = tokenizer.rows_to_parts(prompt, TICKS_PER_QUARTER)
                write_bytes(args.output / f"{first + i}-prompt.mid",
                            parts_to_bytes(parts, tokenizer.vocabulary, TICKS_PER_QUARTER, tempo))
            if args.png:
                from pictures import piano_roll  # brings matplotlib

                write_bytes(whole.with_suffix(".png"),
                            piano_roll(rows, tokenizer.vocabulary, len(prompt), f"{whole.name}, seed {seed + i}"))
            if args.print_events:
                print("\n".join(" ".join(events) for events in tokenizer.tokens_to_events(new)))
            print(f"{whole}: {describe(rows, new, tokenizer)}, {tempo:g} BPM, {time.monotonic() - began:.1f} s")
    finally:  # also when interrupted: what is written can be made again
        if record["songs"]:
            log_run(args.output, record)
    stems = ", ".join(f"{first}-{name}.mid" for name in tokenizer.vocabulary.part_names)
    print(f"seed {seed}; stems beside each song: {stems}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
