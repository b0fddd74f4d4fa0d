"""Filters of what is likely enough, temperature, and the draw of an id. Light: no torch."""

from __future__ import annotations

import math

import numpy as np

from backline.generation.config import GenConfig
from backline.music.vocab import EOS

NEXT_BARS = 4  # songs seldom rest for longer


def filtered(logits: np.ndarray, sampling_fn: str, threshold: float) -> np.ndarray:
    """(B, V) logits, −inf where the filter removes an id; `GenConfig` says what `threshold` means.

    Masked ids (−inf) stay masked, and the most likely id always stays.
    """
    if sampling_fn == "top_k":
        n_ids = logits.shape[1]  # V
        share = round((1 - threshold) * n_ids, 6)  # rounded: 1 − 0.9 is not exactly a tenth
        keep = max(1, math.ceil(share))
        place = n_ids - keep
        partly_sorted = np.partition(logits, place, axis=1)
        least = partly_sorted[:, place, None]                # (B, 1)
        return np.where(logits < least, -np.inf, logits)
    if sampling_fn == "top_p":
        probabilities = softmax(logits)
        order = np.argsort(-probabilities, axis=1, kind="stable")  # most likely first
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
    highest = logits.max(1, keepdims=True)
    raised = np.exp(logits - highest)
    return raised / raised.sum(1, keepdims=True)


def draw(logits: np.ndarray,
         family: int,
         config: GenConfig,
         uniform: np.ndarray,
         temperature_scale: np.ndarray) -> np.ndarray:
    """(B,) ids of `family` drawn from masked (B, V) logits.

    Args:
        uniform: (B,) numbers from 0 to below 1.
        temperature_scale: (B,) what the temperature is multiplied by.
    """
    logits = filtered(logits, config.sampling_fn, config.threshold[family])
    if config.top_p:
        logits = filtered(logits, "top_p", config.top_p[family])
    if config.min_p:
        logits = filtered(logits, "min_p", config.min_p[family])
    temperature = config.temperature[family] * temperature_scale[:, None]  # (B, 1)
    highest = logits.max(1, keepdims=True)
    logits = (logits - highest) / temperature  # none above 0: no overflow
    mass = softmax(logits).cumsum(1)           # (B, V)
    drawn = uniform[:, None] * mass[:, -1:]    # (B, 1)
    return (mass <= drawn).sum(1)


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
