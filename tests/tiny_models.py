"""Models small enough for a test: to sample from, to compare layer by layer, to play to given notes."""

from __future__ import annotations

import torch
from random_songs import VOCABULARY, random_song, whole
from torch import Tensor

from backline.layers.config import HEADS, POSITIONS, ModelConfig
from backline.music.vocab import BAR, EOS, load_vocabulary
from model import PooledTransformer

SMALL_VOCABULARY = load_vocabulary({
    "format": "pooled-vocabulary", "version": 1, "bars": 3, "steps_per_bar": 4, "max_duration_steps": 4,
    "parts": [{"name": name, "is_drum": False, "program": 0, "accepts": [], "lowest_pitch": 60, "highest_pitch": 61}
              for name in ("left", "right")]})
HOT = {"temperature": (5.0,) * 4, "sampling_fn": "none"}


def tiny_model(vocabulary=SMALL_VOCABULARY, block_size=16, sharpness=8, **changes) -> PooledTransformer:
    torch.manual_seed(0)
    settings = {"emb_sizes": (4,) * 4, "n_layers": 2, "n_heads": 2, "d_model": 16, "heads": "gru",
                "positions": "music_time", "dropout": 0.0} | changes
    model = PooledTransformer(ModelConfig.for_vocabulary(vocabulary, block_size=block_size, **settings))
    for parameter in model.parameters():  # far from uniform, so that a wrong state shows
        parameter.data.mul_(sharpness)
    return model.eval()


def never_end(model) -> PooledTransformer:
    """The model, but so unwilling to end that it does so only where nothing else is left."""
    model.heads[BAR].bias.data[EOS] = -1e9
    return model


SMALL = ModelConfig.for_vocabulary(
    VOCABULARY, emb_sizes=(8,) * 4, n_layers=2, n_heads=2, d_model=16, block_size=32, dropout=0.0)
LATE = {"heads": "gru", "positions": "metre", "late_layers": 1}
NORMED = LATE | {"qk_norm": True}
KINDS = [*({"positions": positions, "heads": heads} for positions in POSITIONS for heads in HEADS), LATE, NORMED,
         {"heads": "chain", "positions": "rotary", "late_layers": 1},
         {"heads": "chain", "order": ("pitch_instrument", "note_dur", "bar", "start_pos")}]


def small_model(dtype: torch.dtype = torch.float64, **changes) -> PooledTransformer:
    """A small model in evaluation mode, its weights large enough that everything in it shows in its output."""
    torch.manual_seed(0)
    model = PooledTransformer(ModelConfig.for_vocabulary(VOCABULARY, **vars(SMALL) | changes)).to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def given_model(**changes) -> PooledTransformer:
    torch.manual_seed(0)
    settings = {"emb_sizes": (4,) * 4, "n_layers": 2, "n_heads": 2, "d_model": 16, "dropout": 0.0, "heads": "gru",
                "positions": "metre", "late_layers": 1, "bars": "relative", "given": True, "block_size": 200}
    return PooledTransformer(ModelConfig.for_vocabulary(VOCABULARY, **settings | changes)).double()


def notes(*seeds: int, n_notes: int = 10) -> Tensor:
    """(B, T, F): a song of `n_notes` notes for each seed, its BOS and EOS rows around it."""
    return torch.stack([torch.from_numpy(whole(random_song(seed, n_notes))) for seed in seeds])
