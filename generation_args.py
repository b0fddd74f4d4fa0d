"""The settings of sampling (genconfig JSON). Light: no torch."""

from __future__ import annotations

import dataclasses
import math

from errors import UserError
from vocab import FIELDS

SAMPLING_FNS = ("top_k", "top_p", "min_p", "none")


@dataclasses.dataclass(frozen=True)
class GenConfig:
    """How notes are sampled; `temperature` and `threshold` hold one number per family, in `vocab.FIELDS` order.

    Masks come first, then the filter, then the temperature, as in the published system.

    threshold: for "top_k" the share of the family's whole vocabulary that is removed (0.9 keeps the most likely
        tenth, rounded up). For "top_p" the probability mass kept (Holtzman et al. 2020). For "min_p" the least
        probability kept, as a share of the highest (Nguyen et al. 2024). For "none" it has no meaning.
    num_bars: from scratch, bars 0 to num_bars − 1; after a prompt, the rest of its last bar and so many more.
    max_steps: most new notes.
    """

    temperature: tuple[float, ...] = (0.8, 0.6, 0.6, 0.8)
    num_bars: int = 32
    max_steps: int = 512
    sampling_fn: str = "top_k"
    threshold: tuple[float, ...] = (0.9, 0.9, 0.9, 0.9)

    def __post_init__(self) -> None:
        for name in ("temperature", "threshold"):
            if len(getattr(self, name)) != len(FIELDS):
                raise UserError(f"{name} must be {len(FIELDS)} numbers, one per family: {', '.join(FIELDS)}")
        if not all(0 < value < math.inf for value in self.temperature):
            raise UserError(f"temperature={list(self.temperature)} must be above 0")
        if self.sampling_fn not in SAMPLING_FNS:
            raise UserError(f"sampling_fn={self.sampling_fn!r} must be one of {', '.join(SAMPLING_FNS)}")
        lowest_is_legal = self.sampling_fn != "top_p"  # a nucleus of mass 0 holds nothing
        if not all(0 <= value <= 1 and (value or lowest_is_legal) for value in self.threshold):
            raise UserError(f"threshold={list(self.threshold)} must lie between 0 and 1")
        for name in ("num_bars", "max_steps"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} must be at least 1")
