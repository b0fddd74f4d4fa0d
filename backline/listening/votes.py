"""The votes of a blind page: which of two folders people prefer, or take for real, and how surely.

A file of votes is a CSV with the columns `pair`, `question` (prefer or real), `first`, `second`
(paths of the songs, with /) and `answer` (first, second or neither). The page of `page.py --blind`
writes it (`web/blind.js`, `votesOf`). Votes of several listeners may be read together.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from backline.common.errors import UserError
from backline.common.files import read_input

COLUMNS = ("pair", "question", "first", "second", "answer")
ANSWERS = ("first", "second", "neither")
REMEDY = "export the votes from the page again"
Z_95 = 1.959963984540054  # standard deviations that hold the central 95 % of a normal distribution


@dataclasses.dataclass(frozen=True)
class Vote:
    """An answer to a question about two songs."""

    question: str
    first: str  # path of a song
    second: str
    answer: str  # one of ANSWERS

    @property
    def folders(self) -> tuple[str, str]:
        """The folders of the first and of the second song."""
        first, second = (PurePosixPath(song).parent
                         for song in (self.first, self.second))
        return str(first), str(second)


@dataclasses.dataclass(frozen=True)
class Share:
    """How often a folder's song was chosen: in `chosen` of `n` votes.

    `share` is their ratio, `low` to `high` its 95 % interval.
    """

    chosen: int
    n: int
    share: float
    low: float
    high: float


def read_votes(path: Path) -> list[Vote]:
    """The votes in a CSV file. Raises UserError naming the file and the line."""
    try:
        text = read_input(path).decode("utf-8-sig")
        lines = io.StringIO(text, newline="")
        rows = list(csv.reader(lines, strict=True))
    except (UnicodeDecodeError, csv.Error) as err:
        raise UserError(f"{path}: not a CSV file of votes ({err}); {REMEDY}") from None
    if not rows or tuple(rows[0]) != COLUMNS:
        raise UserError(f"{path}: its first line must be {','.join(COLUMNS)}; {REMEDY}")
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(COLUMNS) or row[-1] not in ANSWERS:
            *others, last = ANSWERS
            raise UserError(f"{path}: row {number} needs {len(COLUMNS)} columns, the last "
                            f"{', '.join(others)} or {last}; {REMEDY}")
    return [Vote(*row[1:]) for row in rows[1:]]


def folder_shares(votes: Sequence[Vote]) -> dict[str, Share]:
    """For each folder, sorted by name, how often its song was chosen; "neither" does not count.

    Raises UserError unless all votes are about one question and the same two folders, and one of
    them decides.
    """
    folders = sorted({folder for vote in votes for folder in vote.folders})
    questions = sorted({vote.question for vote in votes})
    within_a_folder = any(len(set(vote.folders)) < 2 for vote in votes)
    if len(questions) > 1 or len(folders) != 2 or within_a_folder:
        raise UserError(f"the votes are about {', '.join(questions) or 'nothing'} and "
                        f"{len(folders)} folders ({', '.join(folders)}); read votes of one question "
                        f"about two folders at a time")
    deciding = [vote for vote in votes if vote.answer != "neither"]
    chosen = [vote.folders[ANSWERS.index(vote.answer)] for vote in deciding]
    if not chosen:
        raise UserError("no vote decides for one of the two songs; listen to more pairs")
    return {folder: wilson(chosen.count(folder), len(chosen)) for folder in folders}


def wilson(chosen: int, n: int) -> Share:
    """Share and 95 % interval after Wilson (1927), which holds for few votes and near 0 and 1 too."""
    share = chosen / n
    spread = Z_95**2 / n
    middle = (share + spread / 2) / (1 + spread)
    variance = share * (1 - share) / n + spread / (4 * n)
    half = Z_95 * math.sqrt(variance) / (1 + spread)
    low = max(middle - half, 0.0)
    high = min(middle + half, 1.0)
    return Share(chosen, n, share, low, high)
