"""A process that writes songs into a folder until it is killed: python claimers.py FOLDER NAME [old-disk] [NUMBERS]

It prints the number of each song once that is written. `old-disk`: without hard links. With NUMBERS it replaces, again
and again, the songs of the numbers below, and ends after a while. Importing it is quick: no model.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from backline.generation import claims

ENDINGS = (".png", "-piano.mid", "-bass.mid", "-drums.mid", ".mid")
ROUNDS = 60


def files_of(name: str, count: int) -> dict[str, bytes]:
    """What the process of this name writes as its song `count`: sizes from a few bytes to more than one write takes."""
    return {ending: f"{name} {count} {ending}\n".encode() * (1 + count * 997 % 6000) for ending in ENDINGS}


def no_links(source: Path, target: Path) -> None:
    if os.path.lexists(target):
        raise FileExistsError(17, "File exists", str(target))
    raise PermissionError(1, "Operation not permitted", str(source))


def main(folder: str, name: str, *options: str) -> None:
    if "old-disk" in options:
        os.link = no_links
    numbers = [int(option) for option in options if option.isdigit()]
    if numbers:
        for count in range(ROUNDS):
            claims.write_over(Path(folder), count % numbers[0], files_of(name, count))
        return
    count = 0
    while True:
        number = claims.write_new(Path(folder), files_of(name, count))
        print(number, flush=True)
        count += 1


if __name__ == "__main__":
    main(*sys.argv[1:])
