"""How often a track's part is found by its notes alone: names, channels and programs are hidden.

usage: python -m benchmarks.bench_roles SONGS

SONGS    folder of MIDI files, whose channels and programs tell what is right
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from backline.common.errors import UserError, reports_user_errors
from backline.music.midi_reader import read_song
from backline.music.playing import FEWEST_NOTES, play_like
from backline.music.roles import parts_named
from backline.music.song import Track
from backline.music.vocab import Vocabulary, load_vocabulary

NO_PART = "no part"


def true_part(track: Track, vocabulary: Vocabulary) -> str:
    """What a track plays by its channel, else its name, else its program."""
    named = parts_named(track.name, vocabulary)
    if not track.is_drum and len(named) == 1 and not track.shares_name:
        return next(iter(named))
    found = [part.name
             for part in vocabulary.parts
             if part.is_drum == track.is_drum and part.accepts_program(track.program)]
    return found[0] if found else NO_PART


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Print, for each part, how many tracks are said to play it, and how many of them wrongly."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("songs", type=Path, metavar="SONGS", help="folder of MIDI files")
    folder = parser.parse_args(argv).songs
    vocabulary = load_vocabulary()
    n_tracks: Counter[str] = Counter()
    n_said: Counter[str] = Counter()
    n_right: Counter[str] = Counter()
    for path in sorted(folder.rglob("*.mid")):
        try:
            song = read_song(path)
        except UserError:
            continue
        playing = {i: track
                   for i, track in enumerate(song.tracks)
                   if len(track.notes) >= FEWEST_NOTES}
        truth = {i: true_part(track, vocabulary) for i, track in playing.items()}
        notes = {i: track.notes for i, track in playing.items()}
        n_tracks.update(truth.values())
        for i, part in play_like(notes, song.ticks_per_quarter).items():
            n_said[part] += 1
            n_right[part] += part == truth[i]
    print(f"{'part':8}{'tracks':>8}{'found':>8}{'said':>8}{'wrong':>8}")
    for part, n in n_tracks.most_common():
        n_wrong = n_said[part] - n_right[part]
        share = n_wrong / max(n_said[part], 1)
        print(f"{part:8}{n:8}{n_right[part] / n:8.1%}{n_said[part]:8}{share:8.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
