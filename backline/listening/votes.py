"""The votes of a blind page: which of two folders people prefer, or take for real, and how sure that is.

A file of votes is a CSV with the columns `pair`, `question` (prefer or real), `first`, `second` (paths of the songs,
with /) and `answer` (first, second or neither). The page of `page.py --blind` writes it (`web/blind.js`, `votesOf`).
Votes of several listeners may be joined.
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
Z_95 = 1.959963984540054  # of the normal distribution, whose middle 95 % lie within so many standard deviations


@dataclasses.dataclass(frozen=True)
class Vote:
    """An answer to `question` about two songs; `answer` is one of `ANSWERS`."""

    question: str
    first: str
    second: str
    answer: str

    @property
    def folders(self) -> tuple[str, str]:
        return str(PurePosixPath(self.first).parent), str(PurePosixPath(self.second).parent)


@dataclasses.dataclass(frozen=True)
class Share:
    """How often a folder's song was chosen: `chosen` of `n` votes. `low` to `high` is the interval of 95 %."""

    chosen: int
    n: int
    share: float
    low: float
    high: float


def read_votes(path: Path) -> list[Vote]:
    """The votes in a CSV file. Raises UserError naming the file and the line."""
    try:
        text = read_input(path).decode("utf-8-sig")
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as err:
        raise UserError(f"{path}: not a CSV file of votes ({err}); export the votes from the page again") from None
    if not rows or tuple(rows[0]) != COLUMNS:
        raise UserError(f"{path}: its first line must be {','.join(COLUMNS)}; export the votes from the page again")
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(COLUMNS) or row[-1] not in ANSWERS:
            raise UserError(f"{path}: row {number} needs {len(COLUMNS)} columns, the last {', '.join(ANSWERS[:-1])} or "
                            f"{ANSWERS[-1]}; export the votes from the page again")
    return [Vote(*row[1:]) for row in rows[1:]]


def folder_shares(votes: Sequence[Vote]) -> dict[str, Share]:
    """For each folder, sorted by name, how often its song was chosen. Votes for neither do not count.

    Raises UserError unless the votes are about one question and the same two folders, and one of them decides.
    """
    folders = sorted({folder for vote in votes for folder in vote.folders})
    questions = {vote.question for vote in votes}
    if len(questions) > 1 or len(folders) != 2 or any(len(set(vote.folders)) < 2 for vote in votes):
        raise UserError(f"the votes are about {', '.join(sorted(questions)) or 'nothing'} and {len(folders)} folders "
                        f"({', '.join(folders)}); read votes of one question about two folders at a time")
    chosen = [vote.folders[ANSWERS.index(vote.answer)] for vote in votes if vote.answer != "neither"]
    if not chosen:
        raise UserError("no vote decides for one of the two songs; listen to more pairs")
    return {folder: wilson(chosen.count(folder), len(chosen)) for folder in folders}


def wilson(chosen: int, n: int) -> Share:
    """Share and 95 % interval after Wilson (1927), which also holds for few votes and for shares near 0 and 1."""
    share, spread = chosen / n, Z_95**2 / n
    middle = (share + spread / 2) / (1 + spread)
    half = Z_95 * math.sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    return Share(chosen, n, share, max(middle - half, 0.0), min(middle + half, 1.0))
