"""Names that musicians use: notes, scales, and the pieces of a General MIDI drum kit."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from backline.common.errors import UserError

OCTAVE = 12
PITCH_CLASSES = ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
LETTERS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
ACCIDENTALS = {"": 0, "#": 1, "b": -1}
SCALES = {  # semitones above the tonic
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "harmonic_minor": (0, 2, 3, 5, 7, 8, 11),
    "melodic_minor": (0, 2, 3, 5, 7, 9, 11),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "phrygian": (0, 1, 3, 5, 7, 8, 10),
    "lydian": (0, 2, 4, 6, 7, 9, 11),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
    "locrian": (0, 1, 3, 5, 6, 8, 10),
    "major_pentatonic": (0, 2, 4, 7, 9),
    "minor_pentatonic": (0, 3, 5, 7, 10),
    "blues": (0, 3, 5, 6, 7, 10),
    "chromatic": tuple(range(OCTAVE)),
}
# Pieces of the drum kit as producers call them, and the pitches of the General MIDI percussion map
# that play them.
DRUM_KIT = {
    "kick": (35, 36), "rim": (37,), "snare": (38, 40), "clap": (39,),
    "toms": (41, 43, 45, 47, 48, 50),
    "closed_hat": (42,), "pedal_hat": (44,), "open_hat": (46,), "hats": (42, 44, 46),
    "crash": (49, 57), "ride": (51, 53, 59), "china": (52,), "splash": (55,),
    "tambourine": (54,), "cowbell": (56,),
    "bongos": (60, 61), "congas": (62, 63, 64), "timbales": (65, 66), "agogo": (67, 68),
    "shaker": (70,), "maracas": (70,),
    "claves": (75,), "woodblocks": (76, 77), "triangle": (80, 81),
}
# The same map by pitch, for an axis: the names that are worth its room.
DRUM_NAMES = {
    35: "kick 2", 36: "kick",
    37: "side stick", 38: "snare", 39: "clap", 40: "snare 2",
    41: "floor tom 2", 42: "closed hat", 43: "floor tom", 44: "pedal hat",
    45: "low tom", 46: "open hat", 47: "mid tom 2", 48: "mid tom",
    49: "crash", 50: "high tom", 51: "ride", 52: "china",
    53: "ride bell", 54: "tambourine", 55: "splash", 56: "cowbell",
    57: "crash 2", 58: "vibraslap", 59: "ride 2",
    60: "high bongo", 61: "low bongo", 62: "mute conga", 63: "high conga", 64: "low conga",
    65: "high timbale", 66: "low timbale", 67: "high agogo", 68: "low agogo",
    69: "cabasa", 70: "maracas",
    75: "claves", 76: "high woodblock", 77: "low woodblock",
    80: "mute triangle", 81: "triangle",
}


def pitch_class(name: str) -> int:
    """0 to 11 of a note's name: C, F#, Bb. Raises UserError."""
    match = re.fullmatch(r"([A-Ga-g])([#b]?)", name.strip())
    if not match:
        raise UserError(f"key {name!r}: give a letter from A to G, perhaps with # or b, such as F# "
                        f"or Bb")
    letter = match[1].upper()
    accidental = match[2]
    return (LETTERS[letter] + ACCIDENTALS[accidental]) % OCTAVE


def scale_pitch_classes(key: str, scale: str) -> frozenset[int]:
    """Pitch classes, 0 to 11, of a scale on a tonic. Raises UserError."""
    if scale not in SCALES:
        raise UserError(f"scale {scale!r} must be one of {', '.join(SCALES)}")
    tonic = pitch_class(key)
    return frozenset((tonic + interval) % OCTAVE for interval in SCALES[scale])


def best_scale(counts: Sequence[int]) -> tuple[str, frozenset[int]]:
    """Name and pitch classes of the major or minor scale that holds most notes.

    A scale and its relative hold the same notes: of the two, the one whose tonic is played more.

    Args:
        counts: (12,) notes of each pitch class.
    """
    def fit(tonic_and_scale: tuple[str, str]) -> tuple[int, int]:
        """How many notes lie in the scale, and how many are its tonic."""
        tonic, scale = tonic_and_scale
        inside = scale_pitch_classes(tonic, scale)
        n_inside = sum(int(counts[i]) for i in inside)
        n_tonic = int(counts[pitch_class(tonic)])
        return n_inside, n_tonic

    candidates = itertools.product(PITCH_CLASSES, ("major", "minor"))
    tonic, scale = max(candidates, key=fit)
    return f"{tonic} {scale}", scale_pitch_classes(tonic, scale)


def pitch_set(text: str) -> frozenset[int]:
    """MIDI pitches of a list such as "28-52" or "kick, snare, 42-46". Raises UserError."""
    pitches: set[int] = set()
    items = re.split(r"[,\s]+", text)
    for item in filter(None, items):
        match = re.fullmatch(r"(\d{1,3})(?:-(\d{1,3}))?", item)
        found: Sequence[int]
        if match:
            first = int(match[1])
            last = int(match[2] or first)
            found = range(first, last + 1)
        elif item in DRUM_KIT:
            found = DRUM_KIT[item]
        else:
            raise UserError(f"pitches {item!r}: give a pitch (36), a range (28-52) or a piece of "
                            f"the drum kit: {', '.join(DRUM_KIT)}")
        if not found or max(found) > 127:
            raise UserError(f"pitches {item!r}: a range goes up, from 0 to 127 at most")
        pitches.update(found)
    if not pitches:
        raise UserError(f"pitches {text!r}: names none")
    return frozenset(pitches)
