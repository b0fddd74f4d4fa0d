"""What somebody asks for, in the words of the command line. Light: no torch."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Sequence
from numbers import Integral

from backline.common.errors import UserError


@dataclasses.dataclass(frozen=True)
class Wish:
    """What somebody asks for; the parts in the order of the vocabulary.

    given: parts of the prompt that stay and are played to; the others of the prompt are left out.
    make: parts to make; () means all that make sense.
    fill: the bars to make anew: the first and the last of each stretch, from 1; () means none.
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
        if self.fill and not _are_stretches(self.fill):
            raise UserError(f"fill {list(self.fill)} must be the first and the last bar of each stretch, "
                            "counted from 1, in order")
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

    @property
    def stretches(self) -> list[tuple[int, int]]:
        """The first and the last bar of each stretch of `fill`."""
        return stretches_of(self.fill)


def stretches_of(fill: Sequence[int]) -> list[tuple[int, int]]:
    """(first, last) of each stretch of bars, as `Wish.fill` has them."""
    return list(zip(fill[::2], fill[1::2], strict=True))


def bars_text(fill: Sequence[int], dash: str = "-") -> str:
    """Bars as people write them: "bar 3", "bars 5-8", "bars 2, 5-8"."""
    is_one = len(fill) == 2 and fill[0] == fill[1]
    return ("bar " if is_one else "bars ") + fill_text(fill, dash, ", ")


def fill_text(fill: Sequence[int], dash: str = "-", comma: str = ",") -> str:
    """What `parse_bars` reads as these stretches."""
    return comma.join(str(first) if first == last else f"{first}{dash}{last}"
                      for first, last in stretches_of(fill))


def _are_stretches(bars: tuple[int, ...]) -> bool:
    """Whether `bars` are first and last bars in order, from 1; notebooks may give anything."""
    if len(bars) % 2 or not all(isinstance(bar, Integral) for bar in bars):
        return False
    stretches = stretches_of(bars)
    goes_up = all(last < following for (_, last), (following, _) in itertools.pairwise(stretches))
    return goes_up and bars[0] >= 1 and all(first <= last for first, last in stretches)


def parse_bars(text: str) -> tuple[int, ...]:
    """`Wish.fill` of "5-8", "5" or "2,5-8". Stretches that touch are joined. Raises UserError."""
    bars: list[int] = []
    for item in text.split(","):
        match = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", item.strip())
        if not match:
            raise UserError(f"--fill {text:.40}: give bars or ranges of bars, counted from 1, "
                            "such as 5-8 or 2,5-8")
        first = int(match[1])
        last = int(match[2] or match[1])
        if bars and first == bars[-1] + 1:
            first = bars[-2]
            del bars[-2:]
        bars += [first, last]
        if not _are_stretches(tuple(bars)):
            raise UserError(f"--fill {text:.40}: bars are counted from 1 and named in order, each "
                            "once")
    return tuple(bars)


def check_has_song(given: bool, fill: bool, has_song: bool) -> None:
    """Raise UserError if parts are `given`, or bars to `fill`, and no song has them."""
    if (given or fill) and not has_song:
        option = "--given" if given else "--fill"
        raise UserError(f"{option} needs a song to play to; give one with -p")
