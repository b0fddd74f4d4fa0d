"""When notes end: at the first note-off of their pitch, however a reader paired them."""

from __future__ import annotations

import numpy as np

from backline.music.song import NO_NOTES

LEFT_ON = "never switched off"  # said of notes, in notices


def first_release(notes: np.ndarray) -> np.ndarray:
    """(N, 3) onset, end, pitch of one track: each note ended as `first_releases` does.

    `notes`, (N, 3) in any order, stay unchanged.
    """
    if not len(notes):
        return NO_NOTES
    onset, end, pitch = notes.T
    by_pitch = np.lexsort((onset, pitch))
    onset, end, pitch = notes[by_pitch].T
    start = min(int(onset.min()), int(end.min()))  # objects in memory may begin before 0
    pitch, onset, end = first_releases(pitch, onset - start, end - start)
    return np.stack([onset + start, end + start, pitch], axis=1)


def first_releases(line: np.ndarray,
                   onset: np.ndarray,
                   end: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """End each note at the first note-off of its pitch after its onset.

    MIDI readers pair overlapping notes of one pitch first in, first out; what sounds ends at the
    first note-off. The note-offs are exactly the ends that the reader found, whatever it paired
    them with.

    Args:
        line, onset, end: (N,) int64, of each line sorted by onset; `line` is one number for each
            pitch of each track, the ticks are not negative.
    Returns:
        The same three, sorted by line, then onset. A note of length zero stays so.
    """
    # Stable sorts: by digits where the numbers are short, and nearly free where they are in order.
    is_short = len(line) > 0 and line[-1] <= 0xFFFF
    keys = line.astype(np.uint16) if is_short else line
    order = np.argsort(keys, kind="stable")
    line = line[order]
    onset = onset[order]
    end = end[order]
    latest = int(end.max(initial=0))
    base = line << latest.bit_length()  # one time axis for all lines
    begins = base + onset
    releases = np.sort(base + end, kind="stable")
    # A line has as many releases as onsets, and mostly the k-th release is that of the k-th onset.
    first = releases.copy()
    is_astray = releases <= begins
    is_astray[1:] |= releases[:-1] > begins[1:]
    places = np.flatnonzero(is_astray)
    if len(places):
        found = np.searchsorted(releases, begins[places], side="right")
        found = np.minimum(found, len(releases) - 1)
        first[places] = releases[found]
    end = np.where(end > onset, first - base, onset)
    return line, onset, end
