"""Filters of what is likely enough, temperature, and the draw of an id. Light: no torch."""

from __future__ import annotations

import math

import numpy as np

from backline.generation.config import GenConfig
from backline.music.vocab import EOS

NEXT_BARS = 4  # songs seldom rest for longer


def filtered(logits: np.ndarray, sampling_fn: str, threshold: float) -> np.ndarray:
    """(B, V) logits with those that the filter removes set to −inf; see `GenConfig` for what `threshold` means.

    Ids masked before (−inf) stay so; the most likely id always stays.
    """
    if sampling_fn == "top_k":
        n_ids = logits.shape[1]
        keep = max(1, math.ceil(round((1 - threshold) * n_ids, 6)))  # rounded: 1 − 0.9 is not exactly a tenth
        least = np.partition(logits, n_ids - keep, axis=1)[:, n_ids - keep, None]
        return np.where(logits < least, -np.inf, logits)
    if sampling_fn == "top_p":
        probabilities = softmax(logits)
        order = np.argsort(-probabilities, axis=1, kind="stable")
        sorted_ = np.take_along_axis(probabilities, order, 1)
        beyond = sorted_.cumsum(1) - sorted_ >= threshold  # the mass before it is enough already
        beyond[:, 0] = False
        removed = np.zeros_like(beyond)
        np.put_along_axis(removed, order, beyond, 1)
        return np.where(removed, -np.inf, logits)
    if sampling_fn == "min_p":
        probabilities = softmax(logits)
        return np.where(probabilities < threshold * probabilities.max(1, keepdims=True), -np.inf, logits)
    return logits


def softmax(logits: np.ndarray) -> np.ndarray:
    """(B, V) probabilities of (B, V) logits, of which one per row at least is finite."""
    raised = np.exp(logits - logits.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


def draw(logits: np.ndarray, family: int, config: GenConfig, uniform: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """(B,) ids of `family` drawn from masked (B, V) logits.

    Args:
        uniform: (B,) numbers from 0 to below 1.
        heat: (B,) what the temperature is multiplied by.
    """
    logits = filtered(logits, config.sampling_fn, config.threshold[family])
    for name in ("top_p", "min_p"):
        if getattr(config, name):
            logits = filtered(logits, name, getattr(config, name)[family])
    temperature = config.temperature[family] * heat[:, None]
    logits = (logits - logits.max(1, keepdims=True)) / temperature  # of all sizes, without overflow
    mass = softmax(logits).cumsum(1)
    return (mass <= uniform[:, None] * mass[:, -1:]).sum(1)


def end_beyond(logits: np.ndarray, last_bar: int) -> None:
    """Count wanting to go on from `last_bar`, an id, as wanting the end: in (V,) bar logits, in place.

    Masked without this, that wish would go to the last bar, and crowd it with notes. Only the bars right after it
    count: what a model spreads over all the far ones is noise, and would end songs early.
    """
    wishes = np.append(logits[last_bar + 1:last_bar + 1 + NEXT_BARS], logits[EOS])
    if wishes.max() > -np.inf:
        logits[EOS] = np.logaddexp.reduce(wishes)
