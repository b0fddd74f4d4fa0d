"""Tokenizer throughput beside MidiTok's, on the same songs in the same run, files read and token files written.

Example  python -m benchmarks.bench_tokenizer cleaned

One process each: MidiTok's REMI with its default configuration and its own `save_tokens`, and `tokenizer.py -j 0`
with and without events, in turns, so that what else the machine does touches all. Then `tokenizer.py` as a command
with 1, 2, ... workers. Needs requirements-dev.txt.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import tokenizer
from backline.common.errors import Parser, reports_user_errors
from backline.folders.inputs import Listing
from backline.folders.workers import available_cores
from backline.music.midi_chunks import MIDI_SUFFIXES

ROOT = Path(__file__).parents[1]


def miditok_run(paths: Sequence[str]) -> Callable[[Path], None]:
    """REMI over `paths`, one by one, as MidiTok's documentation has it."""
    from miditok import REMI, TokenizerConfig

    remi = REMI(TokenizerConfig())

    def run(out: Path) -> None:
        for number, path in enumerate(paths):
            remi.save_tokens(remi(path), out / f"{number}.json")

    return run


def own_run(paths: Sequence[str], *options: str) -> Callable[[Path], None]:
    """`tokenizer.py` over `paths` in this process."""
    def run(out: Path) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            assert tokenizer.main([*paths, "-td", str(out), "-j", "0", *options]) == 0

    return run


def seconds(run: Callable[[Path], None]) -> float:
    with tempfile.TemporaryDirectory() as out:
        began = time.perf_counter()
        run(Path(out))
        return time.perf_counter() - began


def compare(paths: Sequence[str], rounds: int) -> list[str]:
    """A table of files per second, and of each as a multiple of MidiTok's in the same round (medians)."""
    runs = {"MidiTok REMI": miditok_run(paths), "tokenizer.py": own_run(paths),
            "tokenizer.py --no-events": own_run(paths, "--no-events")}
    times = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(seconds(run))
    reference = times["MidiTok REMI"]
    lines = [f"{'one process':28s} files/s   times MidiTok"]
    for name, own in times.items():
        ratio = statistics.median(theirs / ours for theirs, ours in zip(reference, own, strict=True))
        lines.append(f"{name:28s} {len(paths) / statistics.median(own):7.1f} {ratio:15.1f}")
    return lines


def scale(folder: Path, rounds: int) -> list[str]:
    """A table of the command's files per second by workers, start-up included."""
    n_files = sum(1 for _ in Listing([folder], MIDI_SUFFIXES, Path("tokens"), ".json"))
    jobs = sorted({1, available_cores(), *itertools.takewhile(lambda n: n < available_cores(),
                                                              (2 ** i for i in itertools.count(1)))})
    times = {n: [] for n in jobs}
    for _ in range(rounds):
        for n in jobs:
            command = [sys.executable, str(ROOT / "tokenizer.py"), "--no-events", str(folder), "-j", str(n), "-td"]
            times[n].append(seconds(lambda out, command=command: subprocess.run(
                [*command, str(out)], check=True, capture_output=True)))
    lines = [f"{'workers':28s} files/s    times one"]
    for n in jobs:
        ratio = statistics.median(one / own for one, own in zip(times[1], times[n], strict=True))
        lines.append(f"{n:<28d} {n_files / statistics.median(times[n]):7.1f} {ratio:15.2f}")
    return lines


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    parser.add_argument("folder", type=Path, help="folder of three-part songs, from clean_midi.py")
    parser.add_argument("-n", "--files", type=int, default=200, help="songs for the comparison (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="times each is run (default: %(default)s)")
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    paths = [task.source for task in Listing([args.folder], MIDI_SUFFIXES, Path("tokens"), ".json")][:args.files]
    print("\n".join(compare(paths, args.rounds)), flush=True)
    print("\n" + "\n".join(scale(args.folder, args.rounds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
