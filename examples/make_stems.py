"""Compose the example stems: eight bars of an original pop-funk groove in C minor, at 110 beats per minute.

Output   drums.mid, bass.mid and piano.mid in OUT_DIR, the same bytes each time
Example  python examples/make_stems.py my_stems

The idea: a loop of four chords, Cm7 – Abmaj7 – Fm7 – G7, one bar each, played twice.
  bass   steps down by thirds (C, Ab, F, then G to lead home), locked to the kick, with a syncopated octave
  piano  one voice after another slips down a step until G7 lifts all four back up; a hook of three notes asks
         over the first chord and is answered over the next two
  drums  kick on 1 and off the beat around 2 and after 3, snare on 2 and 4, an open hat that breathes into the next bar
The second time adds a chord stab and an octave on the push after 1, and a snare fill leads back to the start.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the toolkit's modules lie one folder up

from backline.common.errors import reports_user_errors
from backline.common.files import check_new, check_writable, write_bytes
from backline.music.midi_writer import parts_to_bytes
from backline.music.vocab import QUARTERS_PER_BAR, load_vocabulary

TICKS_PER_QUARTER = 480
TEMPO = 110.0  # beats per minute
SIXTEENTH = TICKS_PER_QUARTER // 4
BAR_TICKS = QUARTERS_PER_BAR * TICKS_PER_QUARTER
ROUNDS = 2  # times the loop is played

# General MIDI drum keys.
KICK, SNARE, CLOSED_HAT, OPEN_HAT = 36, 38, 42, 46

# A bar of drums, a column per sixteenth.
GROOVE = {
    CLOSED_HAT: "x.x.x.x.x.x.x...",
    OPEN_HAT:   "..............x.",
    SNARE:      "....x.......x...",
    KICK:       "x..x..x...x.....",
}
GROOVE_WITH_GHOST = GROOVE | {SNARE: "....x....x..x..."}  # every second bar: a nudge before the hook
FILL = {
    CLOSED_HAT: "x.x.x.x.x.......",
    OPEN_HAT:   "..............x.",
    SNARE:      "....x..x..x.xxxx",
    KICK:       "x..x..x...x.....",
}


@dataclasses.dataclass(frozen=True)
class Chord:
    """One bar of the loop; pitches as MIDI keys."""

    name: str
    root: int
    fifth: int
    approach: int  # the bass's last note, a chord tone a second away from the next root
    voicing: tuple[int, ...]  # of the piano, low to high
    hook: tuple[int, ...]  # the piano's three single notes


LOOP = (
    Chord("Cm7", root=36, fifth=43, approach=34, voicing=(58, 60, 63, 67), hook=(67, 70, 72)),
    Chord("Abmaj7", root=32, fifth=39, approach=31, voicing=(56, 60, 63, 67), hook=(72, 68, 67)),
    Chord("Fm7", root=29, fifth=36, approach=32, voicing=(56, 60, 63, 65), hook=(72, 68, 65)),
    Chord("G7", root=31, fifth=38, approach=35, voicing=(55, 59, 62, 65), hook=(65, 67, 71)),
)
OCTAVE = 12

# Rhythms: (start, length) in sixteenths of the bar.
BASS_ROOT, BASS_PUSH, BASS_OCTAVE, BASS_FIFTH, BASS_APPROACH = (0, 2), (3, 1), (6, 2), (10, 2), (14, 2)
PIANO_CHORD, PIANO_PUSH, PIANO_OFFBEAT = (0, 2), (3, 1), (6, 3)
PIANO_HOOK = ((10, 2), (12, 1), (13, 2))


def note(bar: int, rhythm: tuple[int, int], pitch: int) -> tuple[int, int, int]:
    """Onset and end in ticks, and pitch."""
    start, length = rhythm
    onset = bar * BAR_TICKS + start * SIXTEENTH
    return onset, onset + length * SIXTEENTH, pitch


def drum_bar(bar: int, pattern: dict[int, str]) -> list[tuple[int, int, int]]:
    return [note(bar, (start, 1), key) for key, hits in pattern.items() for start, hit in enumerate(hits) if hit == "x"]


def bass_bar(bar: int, chord: Chord, again: bool) -> list[tuple[int, int, int]]:
    push = chord.root + OCTAVE if again else chord.root
    return [note(bar, BASS_ROOT, chord.root), note(bar, BASS_PUSH, push),
            note(bar, BASS_OCTAVE, chord.root + OCTAVE), note(bar, BASS_FIFTH, chord.fifth),
            note(bar, BASS_APPROACH, chord.approach)]


def piano_bar(bar: int, chord: Chord, again: bool) -> list[tuple[int, int, int]]:
    stabs = [PIANO_CHORD, PIANO_PUSH, PIANO_OFFBEAT] if again else [PIANO_CHORD, PIANO_OFFBEAT]
    return [*(note(bar, stab, pitch) for stab in stabs for pitch in chord.voicing),
            *(note(bar, rhythm, pitch) for rhythm, pitch in zip(PIANO_HOOK, chord.hook, strict=True))]


def compose() -> dict[str, np.ndarray]:
    """For each stem, (N, 3) onsets and ends in ticks and pitches. No two notes of one pitch overlap."""
    stems: dict[str, list[tuple[int, int, int]]] = {"drums": [], "bass": [], "piano": []}
    n_bars = ROUNDS * len(LOOP)
    for bar in range(n_bars):
        chord, again = LOOP[bar % len(LOOP)], bar >= len(LOOP)
        pattern = FILL if bar == n_bars - 1 else GROOVE_WITH_GHOST if bar % 2 else GROOVE
        stems["drums"] += drum_bar(bar, pattern)
        stems["bass"] += bass_bar(bar, chord, again)
        stems["piano"] += piano_bar(bar, chord, again)
    return {name: np.array(notes, np.int64) for name, notes in stems.items()}


def stem_files() -> dict[str, bytes]:
    """File name → MIDI file with the one track of that part."""
    vocabulary = load_vocabulary()
    composed = compose()
    return {f"{part.name}.mid": parts_to_bytes([composed[part.name]], dataclasses.replace(vocabulary, parts=(part,)),
                                               TICKS_PER_QUARTER, TEMPO)
            for part in vocabulary.parts}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out_dir", type=Path, nargs="?", metavar="OUT_DIR", default=Path(__file__).resolve().parent,
                        help="folder for the stems (default: the one this script stands in)")
    parser.add_argument("--force", action="store_true", help="overwrite files that hold something else")
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    stems = {args.out_dir / name: data for name, data in stem_files().items()}
    check_new((path for path, data in stems.items() if not (path.is_file() and path.read_bytes() == data)), args.force)
    check_writable(args.out_dir)
    for path, data in stems.items():
        write_bytes(path, data)
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
