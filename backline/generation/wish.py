"""What somebody asks for, in the words of the command line. Light: no torch."""

from __future__ import annotations

import dataclasses
import re
from numbers import Integral

from backline.common.errors import UserError


@dataclasses.dataclass(frozen=True)
class Wish:
    """What somebody asks for; the parts in the order of the vocabulary.

    given: parts of the prompt that stay and are played to; the others of the prompt are left out.
    make: parts to make; () means all that make sense.
    fill: the first and the last bar to make anew, from 1; () means none.
    bars: exactly so many new bars; 0: `num_bars` from scratch, after a prompt up to so many.
    loop: no new note rings on past the last bar that is made.
    """

    given: tuple[str, ...] = ()
    make: tuple[str, ...] = ()
    fill: tuple[int, ...] = ()
    bars: int = 0
    loop: bool = False

    def __post_init__(self) -> None:
        for name in self.given:
            if name in self.make:
                raise UserError(f"{name} is both given and to be made; name it once")
        if self.fill and not _is_range(self.fill):
            raise UserError(f"fill {list(self.fill)} must be the first and the last bar, "
                            "counted from 1")
        if self.given and self.fill:
            raise UserError("--fill keeps all that it does not make: leave out --given, "
                            "and name the parts to make with --make")
        if self.bars and (self.given or self.fill):
            raise UserError("--bars is for new bars: with --given there are as many as are given, "
                            "with --fill as many as are named")
        if self.bars < 0:
            raise UserError(f"--bars {self.bars} must be at least 1")
        if self.loop and not (self.bars or self.given or self.fill):
            raise UserError("--loop: say how many bars it has with --bars")

    @property
    def needs_given(self) -> bool:
        """Whether only a model that plays to given notes can do it."""
        return bool(self.given or self.fill)


def _is_range(bars: tuple[int, ...]) -> bool:
    """Whether `bars` are a first and a last bar, counted from 1; notebooks may give anything."""
    if len(bars) != 2 or not all(isinstance(bar, Integral) for bar in bars):
        return False
    first, last = bars
    return 1 <= first <= last


def parse_bars(text: str) -> tuple[int, int]:
    """(first, last) of "5-8" or "5". Raises UserError."""
    match = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", text.strip())
    if not match:
        raise UserError(f"--fill {text:.40}: give a bar or a range of bars, counted from 1, "
                        "such as 5-8")
    first = int(match[1])
    last = int(match[2] or match[1])
    if not _is_range((first, last)):
        raise UserError(f"--fill {text:.40}: bars are counted from 1, and a range goes up")
    return first, last


def check_has_song(given: bool, fill: bool, has_song: bool) -> None:
    """Raise UserError if parts are `given`, or bars to `fill`, and no song has them."""
    if (given or fill) and not has_song:
        option = "--given" if given else "--fill"
        raise UserError(f"{option} needs a song to play to; give one with -p")
