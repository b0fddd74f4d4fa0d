"""The mask of one family, as a new array."""

from __future__ import annotations

import numpy as np

from backline.generation.rules import Rules, TimeSpan


def mask(rules: Rules, family: int, chosen: dict[int, int], spans: list[TimeSpan], may_end: bool) -> np.ndarray:
    """(V_f,) bool: what `Rules.allow` marks."""
    allowed = np.zeros(rules.vocabulary.sizes[family], bool)
    rules.allow(allowed, family, chosen, spans, may_end)
    return allowed
