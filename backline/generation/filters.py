"""Filters of what is likely enough, temperature, and the draw of an id. Light: no torch.

Shapes: B songs, V ids.
"""

from __future__ import annotations

import math

import numpy as np

from backline.generation.config import GenConfig
from backline.music.vocab import EOS

NEXT_BARS = 4  # songs seldom rest for longer


def draw(
    logits: np.ndarray,
    family: int,
    config: GenConfig,
    uniform: np.ndarray,
    temperature_scale: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw an id of `family` for each song.

    Args:
        logits: (B, V), −inf for masked ids, at least one of them finite in each row.
        uniform: (B,) numbers from 0 to below 1.
        temperature_scale: (B,) what the temperature is multiplied by; None: 1.
    Returns:
        (B,) ids, and (B,) their surprisal in nats, before filters and temperature.
    """
    probabilities = softmax(logits)                          # (B, V)
    kept = likely_enough(logits, probabilities, family, config)
    temperature = config.temperature[family]
    if temperature_scale is None and temperature == 1:
        weights = probabilities * kept                       # (B, V)
    else:
        scale = np.ones(len(logits)) if temperature_scale is None else temperature_scale
        weights = _heated(logits, kept, temperature * scale[:, None])
    mass = weights.cumsum(1)                                 # (B, V)
    drawn = uniform[:, None] * mass[:, -1:]                  # (B, 1)
    ids = (mass <= drawn).sum(1)
    likelihood = probabilities[np.arange(len(ids)), ids]
    return ids, -np.log(likelihood)


def _heated(logits: np.ndarray, kept: np.ndarray, temperature: np.ndarray) -> np.ndarray:
    """(B, V) unnormalized probabilities of the ids `kept` at temperatures (B, 1)."""
    logits = np.where(kept, logits, -np.inf)
    highest = logits.max(1, keepdims=True)
    return np.exp((logits - highest) / temperature)  # no exponent above 0: no overflow


def softmax(logits: np.ndarray) -> np.ndarray:
    """(B, V) probabilities of (B, V) logits, at least one of them finite in each row."""
    highest = logits.max(1, keepdims=True)
    raised = np.exp(logits - highest)
    return raised / raised.sum(1, keepdims=True)


# ---------------------------------------------------------------- filters


def likely_enough(
    logits: np.ndarray,
    probabilities: np.ndarray,
    family: int,
    config: GenConfig,
) -> np.ndarray:
    """(B, V) bool: the ids of `family` that all filters of `config` leave.

    Masked ids never stay, and the most likely one always does.
    """
    kept = kept_by(config.sampling_fn, config.threshold[family], logits, probabilities)
    further = {"top_p": config.top_p, "min_p": config.min_p}
    for sampling_fn, thresholds in further.items():
        if not thresholds:
            continue
        left = np.where(kept, probabilities, 0.0)
        left /= left.sum(1, keepdims=True)
        kept &= kept_by(sampling_fn, thresholds[family], logits, left)
    return kept


def kept_by(
    sampling_fn: str,
    threshold: float,
    logits: np.ndarray,
    probabilities: np.ndarray,
) -> np.ndarray:
    """(B, V) bool: the ids that one filter leaves; `GenConfig` says what `threshold` means."""
    if sampling_fn == "top_k":
        return _top_k(logits, threshold)
    if sampling_fn == "top_p":
        return _nucleus(probabilities, threshold)
    if sampling_fn == "min_p":
        least = threshold * probabilities.max(1, keepdims=True)  # (B, 1)
        return (probabilities >= least) & (probabilities > 0)
    return np.isfinite(logits)


def _top_k(logits: np.ndarray, threshold: float) -> np.ndarray:
    """All ids but a share `threshold` of V, the least likely ones (Fan et al. 2018)."""
    n_ids = logits.shape[1]  # V
    share = round((1 - threshold) * n_ids, 6)  # rounded: 1 − 0.9 is not exactly a tenth
    keep = max(1, math.ceil(share))
    place = n_ids - keep
    partly_sorted = np.partition(logits, place, axis=1)
    least = partly_sorted[:, place, None]                    # (B, 1)
    return (logits >= least) & np.isfinite(logits)


def _nucleus(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """The fewest ids, most likely first, that hold `threshold` of the mass (Holtzman et al. 2020).

    Ids that are as likely as the last of them stay, too.
    """
    falling = -np.sort(-probabilities, axis=1)               # (B, V), most likely first
    mass = falling.cumsum(1)
    n_kept = (mass - falling < threshold).sum(1)             # (B,) mass before an id below it
    last = np.maximum(n_kept, 1) - 1
    least = falling[np.arange(len(last)), last][:, None]     # (B, 1)
    return (probabilities >= least) & (probabilities > 0)


def end_beyond(logits: np.ndarray, last_bar: int) -> None:
    """Add the probability of the NEXT_BARS bars after `last_bar`, an id, to EOS.

    In place, in (V,) bar logits. Merely masked, that probability would flow into the last bar and
    crowd it with notes. Farther bars are left out: their mass is noise and would end songs early.
    """
    next_bar = last_bar + 1
    going_on = logits[next_bar:next_bar + NEXT_BARS]
    ending = np.append(going_on, logits[EOS])
    if ending.max() > -np.inf:
        logits[EOS] = np.logaddexp.reduce(ending)
