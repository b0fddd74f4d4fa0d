"""Type every command of README.md and the pages beside it, in a copy of the repository, with the bundled model.

Example  python tests/walkthrough.py
         python tests/walkthrough.py --folder copy                   # keeps the copy
         python tests/walkthrough.py --folder copy --only evaluate   # types the commands that hold this word in it

What a reader brings is made first: songs of his own, stars and votes of a page. Commands are typed as they stand, but
for those that would take hours (LESS). Those that set the machine up or run tests are not typed (SET_UP): the project's
CI does that from nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import mido

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "PLAYING.md", "RESULTS.md")
SET_UP = re.compile(r"make (test|walkthrough|slow|fuzz)|python3.11 -m venv|\.venv/bin/python -m pip|\.venv/bin/ruff"
                    r"|\.venv/bin/python (-m pytest|tests/)")
LESS = (  # a command that holds the words gets the arguments too: the last of two is the one that counts
    ("bench_models train", "--steps 2"),
    ("bench_models table", "--steps 2 --songs 2 --rounds 1"),
    ("bench_published", "--songs 3"),
    ("critic.py", "-n 20"),
    ("bench_critic", "--songs 4"),
    ("bench_sampling", "--songs 5"),
    ("bench_continuation", "--songs 5 --bars 2"),
    ("-n 100", "-n 10"),
    ("--drift", "--drift 3"),
    ("evaluate.py --dataset_path", "--all"),  # the bundled model held out none of the reader's songs
    ("evaluate.py gen100", "-mp musictransformer/best.pth --force"),
    ("torchrun --nproc_per_node=2 train_pool.py --dataset_path", "--force"),  # the same folder as on one device
)
INSTEAD = {  # what stands in a command that holds the words, and what is typed instead
    "bench_sampling": ("models/bundled.safetensors", "musictransformer/best.pth"),  # as above
    "bench_continuation": ("models/bundled.safetensors", "musictransformer/best.pth"),
    "bench_critic": ("models/bundled.safetensors", "mine.safetensors"),  # as above, and with a critic
    "band.pt": ("models/band.safetensors", "runs/own_band/last.pth"),
}
# How a reader comes to a dataset of seven parts, to a model that held some of its songs out, and to its index.
OWN_BAND = (
    "clean_midi.py --vocab configs/vocab_band.json --config configs/cleaning_band.json -o band_cleaned my_midi",
    "tokenizer.py --vocab configs/vocab_band.json --no-events -td band_tokens band_cleaned",
    "prepare.py band.pt --vocab configs/vocab_band.json -b 128 -fp band_tokens",
    "train_pool.py --dataset_path band.pt -fp models/band.safetensors --training_args own_band.json",
    "copies.py -mp runs/own_band/last.pth --dataset_path band.pt",
)
N_OWN_SONGS = 40  # that the bundled model makes to stand for the reader's own
WATCHED_SECONDS = 60
MOST_SECONDS = 600  # for all of it


def commands(text: str) -> Iterator[str]:
    """Every command of a Markdown text, in its order: lines of code blocks, and code within a sentence.

    A block in another language than the shell's, or one that shows output, is passed over but for its commands.
    """
    for block, inline in re.findall(r"^```\w*\n(.*?)^```|`([^`]+)`", text, re.MULTILINE | re.DOTALL):
        for line in block.splitlines() or [re.sub(r"\s+", " ", inline)]:
            if re.match(r"(make|torchrun|python|python3\.11|\.venv/bin/\w+) \S", line) and "…" not in line:
                yield line


def smaller(command: str) -> str:
    """What is typed for a command."""
    for words, (this, other) in INSTEAD.items():
        if words in command:
            command = command.replace(this, other)
    return " ".join([command, *(more for words, more in LESS if words in command)])


# ---------------------------------------------------------------- what a reader has


def copy_repository(folder: Path) -> None:
    """What git knows, as it is now; and an environment, installed already, where the README has it made."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(sys.prefix)


def bring_songs(folder: Path) -> None:
    run_python(["generate.py", "-n", str(N_OWN_SONGS), "--bars", "6", "--seed", "1000", "-o", "made"], folder)
    for name in ("my_midi", "lmd_full"):
        (folder / name).mkdir()
        for song in (folder / "made").glob("*.mid"):
            if song.stem.isdigit():
                play_softer(song, folder / name / song.name)


def play_softer(song: Path, path: Path) -> None:
    """Write a song with velocities of more than one kind, as a reader's have, whatever the model gave it."""
    file = mido.MidiFile(song)
    strikes = [message for track in file.tracks for message in track if message.type == "note_on" and message.velocity]
    for number, message in enumerate(strikes):
        message.velocity = max(message.velocity - number % 40, 1)
    file.save(path)


def bring_stars(folder: Path) -> None:
    """Of the first song, as its page exports them."""
    page = (folder / "generated/index.html").read_text(encoding="utf-8")
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])
    idea = data["ideas"][0]
    stars = data["stars"] | {"songs": [{key: idea[key] for key in ("file", "hash", "recipe")}]}
    (folder / "stars.json").write_text(json.dumps(stars))


def bring_band(folder: Path) -> None:
    (folder / "own_band.json").write_text('{"max_train_steps": 1, "filename": "runs/own_band"}')
    for command in OWN_BAND:
        done = run_python(shlex.split(command), folder)
        if done.returncode:
            raise SystemExit(f"{command}\n{done.stdout}{done.stderr}")


def bring_votes(folder: Path) -> None:
    (folder / "votes.csv").write_text("pair,question,first,second,answer\n"
                                      "1,real,songs100/0.mid,cleaned/0.mid,second\n")


# ---------------------------------------------------------------- typing


def run_python(arguments: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False)


def type_command(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    program, *arguments = shlex.split(command)
    if program == "make":
        arguments = ["-o", ".venv/users", *arguments]  # as installed, whatever the times of files say
        return subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if program == "torchrun":
        arguments = ["-m", "torch.distributed.run", *arguments]
    if "--watch" in arguments:
        return watch(arguments, folder)
    if arguments[0] == "studio.py":
        return serve(arguments, folder)
    return run_python(arguments, folder)


def watch(arguments: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Start the command, drop a song without bass, wait for what is made of it, and press Ctrl-C."""
    process = subprocess.Popen([sys.executable, *arguments], cwd=folder, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True)
    made, until = folder / "drop_here-generated/drums/0.mid", time.monotonic() + WATCHED_SECONDS
    while not (folder / "drop_here").exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.2)
    shutil.copy(folder / "examples/drums.mid", folder / "drop_here")
    while not made.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.2)
    time.sleep(1)  # it says so, and writes the page
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=WATCHED_SECONDS)
    code = process.returncode if made.exists() else 1
    return subprocess.CompletedProcess(arguments, code, output, "")


def serve(arguments: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Start the studio without a browser, wait for its address, and press Ctrl-C."""
    process = subprocess.Popen([sys.executable, *arguments, "--no-browser", "--port", "0"], cwd=folder,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout
    address = process.stdout.readline()
    time.sleep(1)  # it serves now
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=WATCHED_SECONDS)
    code = process.returncode if address.startswith("http://127.0.0.1") else 1
    return subprocess.CompletedProcess(arguments, code, address + output, "")


def walk(folder: Path, only: str) -> list[str]:
    """Type all commands that hold `only`; returns those that failed."""
    failed, typed = [], set()
    pages = "\n".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
    for command in commands(pages):
        if SET_UP.match(command) or command in typed or only not in command:
            continue
        typed.add(command)
        whole = smaller(command)
        if "stars.json" in command:
            bring_stars(folder)
        if "band.pt" in command and not (folder / "band.pt").exists():
            bring_band(folder)
        if "votes.csv" in command:
            bring_votes(folder)
        began = time.monotonic()
        done = type_command(whole, folder)
        print(f"{time.monotonic() - began:6.1f} s  {whole}", flush=True)
        if done.returncode:
            failed.append(command)
            print(f"          exit {done.returncode}\n{done.stdout}{done.stderr}", flush=True)
    return failed


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="WORD", help="only commands that hold this word")
    parser.add_argument("--folder", type=Path, help="keep the copy here, or go on in one that is there")
    args = parser.parse_args(argv)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job, and what it starts, ignore it
    os.environ.pop("PYTHONPATH", None)
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        folder = args.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if not (folder / "README.md").exists():
            folder.mkdir(parents=True, exist_ok=True)
            copy_repository(folder)
            bring_songs(folder)
        failed = walk(folder, args.only)
    seconds = time.monotonic() - began
    print(f"{seconds:6.0f} s in all, {MOST_SECONDS} at most; {len(failed)} commands failed"
          + "".join(f"\n  {command}" for command in failed))
    return 1 if failed or seconds > MOST_SECONDS else 0


if __name__ == "__main__":
    sys.exit(main())
