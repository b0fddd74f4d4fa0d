"""What a corpus of N songs needs: time, disk, and memory per process of clean, tokenize and prepare.

Example  python -m benchmarks.bench_scale corpus work -n 3125 12500 50000 100000

For each N the songs of `corpus` are repeated under new names in the empty folder `work`, each time transposed and
shifted, so that all differ (and each has its near-duplicates). What a stage has read is deleted after it. Memory is
the largest that any process of the stage reached, workers and mapped files counted, read from /proc: Linux only.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from shutil import rmtree

import symusic
from tqdm import tqdm

from backline.common.errors import Parser, UserError, reports_user_errors
from backline.folders.inputs import Listing
from backline.music.midi_chunks import MIDI_SUFFIXES

ROOT = Path(__file__).parents[1]
POLL_SECONDS = 0.05
MIB = 1 << 20
TRANSPOSITIONS = (0, 3, -2, 5, -4, 1, 4, -1, 2, -3, 6, -5)


def grow(corpus: Path, folder: Path, n_songs: int) -> None:
    """Write `n_songs` songs, in sub-folders of a thousand."""
    sources = [task.source for task in Listing([corpus], MIDI_SUFFIXES, folder, ".mid")]
    for number in tqdm(range(n_songs), unit="song", desc="growing", disable=None):
        data = Path(sources[number % len(sources)]).read_bytes()
        score = symusic.Score.from_midi(data[max(data.find(b"MThd"), 0):])
        turn = number // len(sources)
        semitones = TRANSPOSITIONS[turn % len(TRANSPOSITIONS)]
        bars = turn // len(TRANSPOSITIONS)
        for track in score.tracks:
            pitches = track.notes.numpy()["pitch"].astype(int) + semitones
            if not track.is_drum and len(pitches) and pitches.min() >= 0 and pitches.max() <= 127:
                track.shift_pitch(semitones, inplace=True)
            if bars:
                track.shift_time(4 * bars * score.ticks_per_quarter, inplace=True)
        out = folder / f"{number // 1000:04d}" / f"{number:07d}.mid"
        out.parent.mkdir(parents=True, exist_ok=True)
        score.dump_midi(out)


def run_stage(script: str, *options: object) -> tuple[float, float]:
    """Seconds, and MiB of the largest process, of one command."""
    began = time.monotonic()
    child = subprocess.Popen([sys.executable, str(ROOT / script), *map(str, options)],
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    peaks: dict[int, int] = {}
    watcher = threading.Thread(target=_watch, args=(child, peaks))
    watcher.start()
    said = child.communicate()[0]
    watcher.join()
    if child.returncode:
        raise UserError(f"{script}: {said}")
    print(said.strip().splitlines()[-1] if said else "", file=sys.stderr)
    return time.monotonic() - began, max(peaks.values()) / 1024


def _watch(child: subprocess.Popen, peaks: dict[int, int]) -> None:
    """Note the peak (KiB) of each process of the child's session, until the child ends."""
    while child.poll() is None:
        for pid in filter(str.isdecimal, os.listdir("/proc")):
            try:
                if os.getsid(int(pid)) == child.pid:
                    status = Path("/proc", pid, "status").read_text()
                    peaks[int(pid)] = int(status.split("VmHWM:")[1].split()[0])
            except (OSError, IndexError):
                continue  # gone, or going
        time.sleep(POLL_SECONDS)


def disk(path: Path) -> float:
    """MiB that a file or a folder takes."""
    files: Iterator[Path] = (each for each in path.rglob("*") if each.is_file()) if path.is_dir() else iter([path])
    return sum(each.stat().st_blocks for each in files) * 512 / MIB


def measure(corpus: Path, work: Path, n_songs: int) -> list[str]:
    """The rows of one corpus size."""
    raw, cleaned, tokens, dataset = (work / name for name in ("raw", "cleaned", "tokens", "dataset.pt"))
    grow(corpus, raw, n_songs)
    rows = []
    for script, options, read, written in (
            ("clean_midi.py", ("-o", cleaned, raw), raw, cleaned),
            ("tokenizer.py", ("--no-events", "-td", tokens, cleaned), cleaned, tokens),
            ("prepare.py", (dataset, "-fp", tokens), tokens, dataset)):
        seconds, peak = run_stage(script, *options)
        rows.append(f"{n_songs:9,d}  {script:14s} {seconds:8.0f} {n_songs / seconds:9.0f} {peak:10.0f} "
                    f"{disk(read):10,.0f} {disk(written):10,.0f}")
        rmtree(read)
    dataset.unlink()
    return rows


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    parser.add_argument("corpus", type=Path, help="folder of multitrack songs")
    parser.add_argument("work", type=Path, help="folder to work in, new or empty")
    parser.add_argument("-n", "--songs", type=int, nargs="+", default=[3125, 12500, 50000],
                        help="corpus sizes (default: %(default)s)")
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if args.work.exists() and any(args.work.iterdir()):
        raise UserError(f"{args.work}: not empty; give a new folder")
    print(f"{'songs':>9s}  {'stage':14s} {'seconds':>8s} {'songs/s':>9s} {'peak MiB':>10s} {'read MiB':>10s} "
          f"{'wrote MiB':>10s}")
    for n_songs in args.songs:
        print("\n".join(measure(args.corpus, args.work, n_songs)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
