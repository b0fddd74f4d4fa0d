"""Try mutated MIDI and token files on everything that reads them: each is read, or refused by one line that helps.

Input    files built here and the repository's examples; where shared/data lies beside the repository, real MIDI too
Output   a table of what became of the inputs; those with findings as files in --output; exit code 1 if there are any
Example  PYTHONPATH=. python tests/fuzz.py --inputs 2000 --seed 7

A finding is: an exception other than UserError; a message that is not one line naming the file, what is wrong and
(after a semicolon) what to do; more than 10 seconds; more than a gigabyte for an input under a megabyte; the death of
the process; what was written and cannot be read back; a folder run whose report lacks a file.
Each input is tried with eight of all combinations of the choices, in turn, so that every one meets many inputs.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import io
import itertools
import json
import multiprocessing
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import miditoolkit
import numpy as np
import orjson
from midi_bytes import three_parts
from mutations import MIDI, TOKENS, inputs
from tqdm import tqdm

from backline.common.errors import EXIT_USER_ERROR, UserError, reports_user_errors
from backline.folders import workers
from backline.folders.inputs import Input
from backline.generation.prompt import open_prompt, read_prompt
from backline.generation.reading import Asked
from backline.music.choices import ALL, CUT, MOST_NOTES, NO_TRACK, RANGES, SKIP, Choices
from backline.music.midi_reader import read_song
from backline.music.midi_tracks import tracks_to_bytes
from backline.music.midi_writer import parts_to_bytes
from backline.music.song import Song
from backline.music.stems import find_part, read_stem
from backline.music.stems import merge as merge_stems
from clean_midi import Cleaning, CleanSong
from prepare import ReadSong
from tokenizer import MidiTokenizerPooled, SongTokens, read_tokens

ROOT = Path(__file__).parents[1]
SUFFIXES = {MIDI: ".mid", TOKENS: ".json"}
READ, REFUSED, FAILED = "read", "refused", "findings"
SLOW_SECONDS, KILLED_SECONDS = 10, 60
LARGE_BYTES, MOST_BYTES = 1 << 30, 8 << 30  # a finding; where allocation fails, for the machine's sake
LONGEST_MESSAGE = 600  # characters besides the path
REAL_FILES, REAL_BYTES = 60, 24_000  # how many real files are bases, and how large they may be
OBJECT_BYTES, OBJECT_TICKS = 8_000, 1 << 20  # miditoolkit's own reader takes long for larger files and longer songs
COMBINATIONS_EACH = 8
SHOWN = 5  # findings printed in full, and slowest and largest inputs named

TRACKS = ((), (("drums", MOST_NOTES), ("bass", ALL)), (("piano", "*"),), (("bass", "0-127"), ("drums", "#2")),
          (("piano", NO_TRACK), ("drums", "#1")))
COMBINATIONS = [Choices(tracks, ranges, max_lost, long_songs, meters, shortest)
                for tracks, ranges, max_lost, long_songs, meters, shortest in itertools.product(
                    TRACKS, RANGES, (0.2, 1.0), (SKIP, CUT), (SKIP, CUT), (1, 8))]
NO_LIMITS = dict.fromkeys(("min_onsets_on_grid", "min_bars", "min_notes_per_part", "max_empty_bars", "max_same_drum",
                           "min_sounding_bars"))


@dataclasses.dataclass
class Tried:
    """What became of one input."""

    outcomes: Counter[str] = dataclasses.field(default_factory=Counter)
    findings: list[str] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    slowest: str = ""
    peak_bytes: int = 0

    def attempt(self, what: str, where: str, work: Callable[..., Any], *arguments: Any, may_refuse: bool = True) -> Any:
        """`work(*arguments)`, its outcome noted; None if there is no result. `where` is what a message must name."""
        began, result = time.process_time(), None  # a busy machine is not the input's fault
        try:
            result = work(*arguments)
            self.outcomes[READ] += 1
        except UserError as err:
            fault = wrong_form(str(err), where) if may_refuse else "refused what this toolkit wrote"
            self.outcomes[FAILED if fault else REFUSED] += 1
            self.findings += [f"{what}: {fault}: {str(err)[:LONGEST_MESSAGE]!r}"] * bool(fault)
        except Exception:  # that is what is looked for
            self.outcomes[FAILED] += 1
            self.findings.append(f"{what}: {traceback.format_exc()[-LONGEST_MESSAGE:]}")
        seconds = time.process_time() - began
        if seconds > self.seconds:
            self.seconds, self.slowest = seconds, what
        if seconds > SLOW_SECONDS:
            self.findings.append(f"{what}: took {seconds:.0f} seconds")
        return result


def wrong_form(text: str, where: str) -> str:
    """What is wrong with an error message; nothing if it is as `song.mid: has no notes; export it again`."""
    before, named, after = text.partition(where)
    if not named:
        return "a message that does not name the file"
    if not (before + after).isprintable():
        return "a message of several lines, or with control characters"
    if len(before + after) > LONGEST_MESSAGE:
        return "a message too long to read"
    if not after.partition("; ")[2]:
        return "a message without a remedy"
    return ""


# ---------------------------------------------------------------- one input


@dataclasses.dataclass(frozen=True)
class TryInput:
    """The job of a worker: one input through every reader of its kind."""

    folder: Path

    def __call__(self, task: tuple[int, str, bytes]) -> Tried:
        number, kind, data = task
        if multiprocessing.parent_process():  # a worker
            resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
        path = self.folder / f"piano {number}{SUFFIXES[kind]}"  # merge_midi.py wants a part's name
        path.write_bytes(data)
        tried, before = Tried(), memory_now()
        try:
            (try_midi if kind == MIDI else try_tokens)(tried, path, number)
        finally:
            path.unlink()
        tried.peak_bytes = memory_peak() - before
        if tried.peak_bytes > LARGE_BYTES:
            tried.findings.append(f"{kind}: took {tried.peak_bytes >> 20} MB")
        return tried


def memory_now() -> int:
    """Bytes of this process; its peak begins anew, where the system can do that."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return memory_peak()


def memory_peak() -> int:
    """Most bytes of this process since `memory_now`; where there is no /proc, ever."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@functools.cache
def tokenizer() -> MidiTokenizerPooled:
    return MidiTokenizerPooled()


def try_midi(tried: Tried, path: Path, number: int) -> None:
    where = str(path)
    song = tried.attempt("read_song", where, read_song, path)
    opened = tried.attempt("generate: open_prompt", where, open_prompt, path)
    if opened is not None:
        tried.attempt("generate: read_prompt", where, read_prompt, opened, path, Asked(n_rows=number % 4), tokenizer())
    tried.attempt("MidiTokenizerPooled()(path)", where, tokenizer(), path)
    tried.attempt("merge_midi", where, merge, path)
    if song is None:
        return
    for k in range(COMBINATIONS_EACH):
        choices = COMBINATIONS[(number * COMBINATIONS_EACH + k) % len(COMBINATIONS)]
        try_choices(tried, song, where, choices, k)
    midi = midi_object(path, song)
    if midi is not None:
        tried.attempt("MidiTokenizerPooled()(object)", "MIDI object", tokenizer(), midi)


def try_choices(tried: Tried, song: Song, where: str, choices: Choices, k: int) -> None:
    """Both conversions of a song; what they write must be readable."""
    result = tried.attempt(f"tokenizer, {choices}", where, SongTokens(tokenizer(), choices, k % 2 == 0), song, where)
    for content in result.files if result else ():
        tried.attempt(f"tokens written, {choices}", where, tokenizer().ids_to_rows, orjson.loads(content)["ids"],
                      may_refuse=False)
    cleaning = Cleaning(**vars(choices), allow_missing=k % 4 > 0, **(NO_LIMITS if k % 4 > 1 else {}))
    result = tried.attempt(f"clean_midi, {cleaning}", where, CleanSong(tokenizer().vocabulary, cleaning), song, where)
    for content in result.files if result else ():
        again = tried.attempt(f"read_song of cleaned, {cleaning}", where, read_song, where, content, may_refuse=False)
        if again is not None:
            tried.attempt(f"tokenizer of cleaned, {cleaning}", where, tokenizer().song_rows, again, where,
                          may_refuse=False)


def merge(path: Path) -> bytes:
    """What merge_midi.py does with this stem and another, without writing it."""
    vocabulary = tokenizer().vocabulary
    stems = [read_stem(stem, find_part(stem, vocabulary)) for stem in (path, path.parent / "bass.mid")]
    merged = tracks_to_bytes(merge_stems(stems, vocabulary, "merged.mid").midi)
    read_song(path, merged)
    return merged


def midi_object(path: Path, song: Song) -> miditoolkit.MidiFile | None:
    """The file as miditoolkit reads it, if it does, which is its own affair."""
    data = path.read_bytes()
    if len(data) > OBJECT_BYTES or song.end_tick > OBJECT_TICKS:
        return None
    with contextlib.suppress(Exception):
        return miditoolkit.MidiFile(file=io.BytesIO(data))
    return None


def try_tokens(tried: Tried, path: Path, number: int) -> None:
    where = str(path)
    read = tried.attempt("read_tokens", where, read_tokens, path, tokenizer())
    tried.attempt("prepare", where, ReadSong(tokenizer()), Input(where, "", ""))
    opened = tried.attempt("generate: open_prompt", where, open_prompt, path)
    if opened is not None:
        tried.attempt("generate: read_prompt", where, read_prompt, opened, path, Asked(n_rows=number % 4), tokenizer())
    if read is not None:
        rows, tempo = read
        midi = tried.attempt("create_midi_from_tokens", "ids", create_midi, rows, tempo, may_refuse=False)
        if midi is not None:
            tried.attempt("MidiTokenizerPooled()(object)", "MIDI object", tokenizer(), midi)


def create_midi(rows: np.ndarray, tempo: float) -> miditoolkit.MidiFile:
    midi = tokenizer().create_midi_from_tokens(rows, tempo=tempo)
    tokenizer().tokens_to_events(rows)
    parts_to_bytes(tokenizer().rows_to_parts(rows, 96), tokenizer().vocabulary, 96, tempo)
    return midi


# ---------------------------------------------------------------- folders


def try_folder(folder: Path, files: Sequence[bytes]) -> list[str]:
    """Both commands on a folder of these MIDI files; returns the findings."""
    for number, data in enumerate(files):
        (folder / f"{number}.mid").write_bytes(data)
    options = ["--time-limit", str(KILLED_SECONDS), "--meters", CUT, "--long-songs", CUT]
    findings = []
    for script, out_option in (("tokenizer.py", "-td"), ("clean_midi.py", "-o")):
        out = folder.parent / f"{folder.name}_{script}"
        done = subprocess.run([sys.executable, ROOT / script, out_option, out, *options, folder], capture_output=True,
                              text=True, errors="replace", check=False)
        report = out / "report.jsonl"
        rows = [json.loads(line) for line in report.read_text().splitlines()] if report.exists() else []
        n_kept = sum(row["verdict"] == "kept" for row in rows)
        if done.returncode != (0 if n_kept else EXIT_USER_ERROR) or "Traceback" in done.stderr:
            findings.append(f"{script} on a folder: exit code {done.returncode}: {done.stderr[-2000:]}")
        verdicts = {Path(row["source"]).name: bool(row["verdict"] == "kept" or row.get("reason")) for row in rows}
        lacking = [f"{number}.mid" for number in range(len(files)) if not verdicts.get(f"{number}.mid")]
        if lacking or len(rows) != len(files):
            findings.append(f"{script} on a folder: {len(rows)} rows for {len(files)} files; without verdict or "
                            f"reason: {', '.join(lacking[:SHOWN])}")
        print(f"{script} on a folder of {len(files)}: {len(rows)} rows, {n_kept} kept, exit code {done.returncode}",
              flush=True)
    return findings


def real_files(work: Path) -> list[bytes]:
    """Some small files of the corpus beside the repository; none where there is none."""
    archive = ROOT.parent / "shared" / "data" / "messy_midi.tar.xz"
    if not archive.is_file():
        return []
    with tarfile.open(archive) as tar:
        tar.extractall(work, filter="data")
    fitting = [path for path in sorted(work.rglob("*.mid")) if 0 < path.stat().st_size <= REAL_BYTES]
    return [path.read_bytes() for path in fitting[::max(len(fitting) // REAL_FILES, 1)]]


# ---------------------------------------------------------------- command


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=20_000, help="how many (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=1200, help="begin none after so long (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations (default: %(default)s)")
    parser.add_argument("--folder-inputs", type=int, default=500,
                        help="MIDI inputs that both commands get as a folder (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, default=Path("fuzz_findings"),
                        help="folder for inputs with findings (default: %(default)s)")
    parser.add_argument("-j", "--jobs", type=int, default=workers.available_cores(),
                        help="worker processes (default: %(default)s)")
    return parser


def numbered(files: Iterator[tuple[str, bytes]], n: int, until: float) -> Iterator[tuple[int, str, bytes]]:
    for number, (kind, data) in enumerate(itertools.islice(files, n)):
        if time.monotonic() > until:
            return
        yield number, kind, data


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    began = time.monotonic()
    kinds: dict[str, Counter[str]] = {MIDI: Counter(), TOKENS: Counter()}
    findings: list[str] = []
    extremes: list[tuple[float, int, str]] = []  # seconds, bytes, which input
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        real = real_files(work)
        print(f"{len(real)} real files among the bases, {len(COMBINATIONS)} combinations of choices, seed {args.seed}",
              flush=True)
        folder, for_folder = work / "inputs", []
        folder.mkdir()
        (work / "readers").mkdir()
        (work / "readers" / "bass.mid").write_bytes(three_parts())
        tasks = numbered(inputs(args.seed, real), args.inputs, began + args.seconds)
        outcomes = workers.run_tasks(TryInput(work / "readers"), tasks, args.jobs, KILLED_SECONDS)
        for (number, kind, data), tried, reason in tqdm(outcomes, total=args.inputs, unit="input", disable=None):
            result = tried or Tried(findings=[reason])
            kinds[kind] += result.outcomes + Counter({"inputs": 1, "with findings": bool(result.findings)})
            which = f"{kind} {number} ({result.slowest.partition(',')[0]})"
            extremes.append((result.seconds, result.peak_bytes, which))
            findings += [f"{kind} {number}: {finding}" for finding in result.findings]
            if result.findings:
                args.output.mkdir(parents=True, exist_ok=True)
                (args.output / f"{args.seed}-{number}{SUFFIXES[kind]}").write_bytes(data)
            if kind == MIDI and len(for_folder) < args.folder_inputs:
                for_folder.append(data)
        seconds = time.monotonic() - began
        findings += try_folder(folder, for_folder)
    print_table(kinds, extremes, seconds)
    print_findings(findings, args.output)
    return bool(findings)


def print_table(kinds: dict[str, Counter[str]], extremes: list[tuple[float, int, str]], seconds: float) -> None:
    columns = {"inputs": 12, "with findings": 15, READ: 12, REFUSED: 12, FAILED: 12}
    print(f"\n{'':35}{'-- calls of readers --':>36}")
    print(f"{'':8}" + "".join(f"{column:>{width}}" for column, width in columns.items()))
    for kind, counts in kinds.items():
        print(f"{kind:8}" + "".join(f"{counts[column]:>{width},}" for column, width in columns.items()))
    print(f"\n{len(extremes):,} inputs in {seconds:.0f} s")
    for slow, _, which in sorted(extremes, reverse=True)[:SHOWN]:
        print(f"slowest: {slow:.2f} s  {which}")
    for _, peak, which in sorted(extremes, key=lambda each: -each[1])[:SHOWN]:
        print(f"largest: {peak >> 20} MB  {which.partition(' (')[0]}")


def print_findings(findings: list[str], folder: Path) -> None:
    """Each kind of finding once, with its count: what follows the reader's name and the path differs little."""
    kinds: dict[str, list[str]] = {}
    for finding in findings:
        last_line = finding.strip().splitlines()[-1]
        kinds.setdefault("".join(c for c in last_line.partition(": ")[2] if c.isalpha())[:60], []).append(finding)
    for alike in sorted(kinds.values(), key=len, reverse=True):
        print(f"\n{len(alike)} ×  {alike[0]}")
    print(f"\n{len(findings)} findings" + (f"; their inputs are in {folder}" if findings else ""))


if __name__ == "__main__":
    sys.exit(main())
