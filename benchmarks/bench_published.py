"""Songs as the published system samples them: parallel heads, no masks, its settings, EOS ignored.

Example  python -m benchmarks.bench_published runs/reference-s0/best.pth published --songs 100
         python evaluate.py published --reference dataset.pt

Each note's families are drawn apart, by configs/genconfig_published.json, and a song ends after its `max_steps` rows,
whatever they say. A row that is no valid next note (it holds a special id, or does not come after the row
before) is counted and printed; into the MIDI file go all rows without special ids, in order.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from backline.common.errors import Parser, UserError, reports_user_errors
from backline.common.files import check_writable, write_bytes
from backline.common.settings import config_from_file
from backline.generation.config import GenConfig
from backline.generation.filters import draw
from backline.music.midi_writer import parts_to_bytes
from backline.music.song import DEFAULT_TEMPO, TICKS_PER_QUARTER
from backline.music.vocab import BAR, BOS, FIELDS, FIRST_ID, PITCH_INSTRUMENT, START_POS
from backline.training.checkpoints import load_model
from model import PooledTransformer
from tokenizer import MidiTokenizerPooled, canonical

PUBLISHED = Path(__file__).parents[1] / "configs" / "genconfig_published.json"


@torch.inference_mode()
def sample(model: PooledTransformer, config: GenConfig, n_songs: int, seed: int) -> np.ndarray:
    """(n_songs, max_steps, F) ids, BOS left out. Keys and values are kept while the context has room, then it is read
    again a half at a time, as sampling.py does: the published way reads it again for every row."""
    random, size = np.random.default_rng(seed), model.config.block_size
    rows = torch.full((n_songs, 1, len(FIELDS)), BOS)
    cache, unread = model.new_cache(n_songs), rows
    for i in tqdm(range(config.max_steps), unit="row", leave=False, disable=None):
        if i and i % (size // 2) == 0 and i >= size:
            cache, unread = model.new_cache(n_songs), rows[:, -(size // 2):]
        states = model.read(unread, cache).states[:, -1:]
        logits = [model.head(k, states, states)[:, 0].double().numpy() for k in range(len(model.order))]
        note = [draw(logits[k], family, config, random.random(n_songs), None)[0]
                for k, family in enumerate(model.order)]
        by_family = np.stack(note, -1)[:, np.argsort(model.order)]
        unread = torch.from_numpy(by_family)[:, None]
        rows = torch.cat([rows, unread], 1)
    return rows[:, 1:].numpy()


def invalid(rows: np.ndarray) -> np.ndarray:
    """(N,) bool: which of (N, F) rows are no valid next note: a special id in them, or not after the note before."""
    special = (rows < FIRST_ID).any(-1)
    backwards = np.zeros(len(rows), bool)
    last = (-1, -1, -1)
    for i, row in enumerate(rows.tolist()):
        if not special[i]:
            key = (row[BAR], row[START_POS], row[PITCH_INSTRUMENT])
            backwards[i], last = key <= last, key
    return special | backwards


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    parser.add_argument("model", type=Path, help="checkpoint of the reference architecture")
    parser.add_argument("output", type=Path, help="folder for the songs")
    parser.add_argument("--songs", type=int, default=100, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    model, vocabulary, _ = load_model(args.model)
    if model.config.heads != "parallel" or model.config.late_layers or model.config.bars != "absolute":
        raise UserError(f"{args.model}: not of the published architecture; give one with parallel heads")
    check_writable(args.output)
    songs = sample(model.eval(), config_from_file(GenConfig, PUBLISHED), args.songs, args.seed)
    tokenizer = MidiTokenizerPooled(vocabulary)
    wrong = np.array([invalid(rows).sum() for rows in songs])
    for number, rows in enumerate(songs):
        notes = canonical(rows[(rows >= FIRST_ID).all(-1)])
        parts = tokenizer.rows_to_parts(notes, TICKS_PER_QUARTER)
        write_bytes(args.output / f"{number}.mid", parts_to_bytes(parts, vocabulary, TICKS_PER_QUARTER, DEFAULT_TEMPO))
    print(f"{args.output}: {len(songs)} songs, {wrong.sum()} of {songs.shape[0] * songs.shape[1]} rows are no valid "
          f"next note ({(wrong > 0).sum()} songs have such)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
