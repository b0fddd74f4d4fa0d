"""Filters of what is likely enough, temperature, and the draw of an id. Light: no torch."""

from __future__ import annotations

import math

import numpy as np

from backline.generation.config import GenConfig
from backline.music.vocab import EOS

NEXT_BARS = 4  # songs seldom rest for longer


def filtered(logits: np.ndarray, sampling_fn: str, threshold: float) -> np.ndarray:
    """(B, V) logits, −inf where the filter removes an id; see `GenConfig` for what `threshold` means.

    Masked ids (−inf) stay masked, and the most likely id always stays.
    """
    if sampling_fn == "top_k":
        n_ids = logits.shape[1]
        share = round((1 - threshold) * n_ids, 6)  # rounded: 1 − 0.9 is not exactly a tenth
        keep = max(1, math.ceil(share))
        least = np.partition(logits, n_ids - keep, axis=1)[:, n_ids - keep, None]  # (B, 1)
        return np.where(logits < least, -np.inf, logits)
    if sampling_fn == "top_p":
        probabilities = softmax(logits)
        order = np.argsort(-probabilities, axis=1, kind="stable")
        falling = np.take_along_axis(probabilities, order, 1)
        mass_before = falling.cumsum(1) - falling
        beyond = mass_before >= threshold
        beyond[:, 0] = False
        removed = np.zeros_like(beyond)
        np.put_along_axis(removed, order, beyond, 1)
        return np.where(removed, -np.inf, logits)
    if sampling_fn == "min_p":
        probabilities = softmax(logits)
        least = threshold * probabilities.max(1, keepdims=True)  # (B, 1)
        return np.where(probabilities < least, -np.inf, logits)
    return logits


def softmax(logits: np.ndarray) -> np.ndarray:
    """(B, V) probabilities of (B, V) logits, at least one of them finite in each row."""
    raised = np.exp(logits - logits.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


def draw(logits: np.ndarray, family: int, config: GenConfig, uniform: np.ndarray,
         temperature_scale: np.ndarray) -> np.ndarray:
    """(B,) ids of `family` drawn from masked (B, V) logits.

    Args:
        uniform: (B,) numbers from 0 to below 1.
        temperature_scale: (B,) what the temperature is multiplied by.
    """
    logits = filtered(logits, config.sampling_fn, config.threshold[family])
    for name in ("top_p", "min_p"):
        if getattr(config, name):
            logits = filtered(logits, name, getattr(config, name)[family])
    temperature = config.temperature[family] * temperature_scale[:, None]  # (B, 1)
    logits = (logits - logits.max(1, keepdims=True)) / temperature  # none above 0: no overflow
    mass = softmax(logits).cumsum(1)
    return (mass <= uniform[:, None] * mass[:, -1:]).sum(1)


def end_beyond(logits: np.ndarray, last_bar: int) -> None:
    """Add the probability of the NEXT_BARS bars after `last_bar`, an id, to EOS.

    In place, in (V,) bar logits. Merely masked, that probability would flow into the last bar and crowd
    it with notes. Farther bars are left out: their mass is noise and would end songs early.
    """
    going_on = logits[last_bar + 1:last_bar + 1 + NEXT_BARS]
    ending = np.append(going_on, logits[EOS])
    if ending.max() > -np.inf:
        logits[EOS] = np.logaddexp.reduce(ending)
