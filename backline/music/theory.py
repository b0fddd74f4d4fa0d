"""Names that musicians use: notes, scales, and the pieces of a General MIDI drum kit."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from backline.common.errors import UserError, suggestion

OCTAVE = 12
PITCH_CLASSES = ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
LETTERS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
ACCIDENTALS = {"": 0, "#": 1, "b": -1}
SIGNS = {"♯": "#", "♭": "b", "sharp": "#", "flat": "b"}  # other ways to write accidentals
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
SCALE_SYNONYMS = {
    "ionian": "major",
    "aeolian": "minor",
    "natural_minor": "minor",
    "jazz_minor": "melodic_minor",
    "pentatonic_major": "major_pentatonic",
    "pentatonic_minor": "minor_pentatonic",
}
MINOR_THIRD, MAJOR_THIRD = 3, 4  # semitones
MIDDLE_C_OCTAVE = 4  # C4 is pitch 60
LOWEST_OCTAVE = -1  # C-1 is pitch 0
HIGHEST_PITCH = 127
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
    80: "mute triangle", 81: "triangle", 82: "shaker",
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


def scale_name(text: str) -> str:
    """The name in SCALES of a scale, by name, synonym or prefix: min, Aeolian, "harm min".

    "M" is major, "m" minor. Raises UserError: no such scale, or several.
    """
    if text in ("m", "M"):
        return "minor" if text == "m" else "major"
    words = re.split(r"[\s_-]+", text.strip().casefold())
    found = {SCALE_SYNONYMS.get(name, name)
             for name in (*SCALES, *SCALE_SYNONYMS)
             if _begin(words, name.split("_"))}
    if len(found) == 1:
        return found.pop()
    known = [name for name in SCALES if name in found] or SCALES
    hint = "" if found else suggestion(text, [*SCALES, *SCALE_SYNONYMS])
    raise UserError(f"scale {text!r:.40} must be one of {', '.join(known)}{hint}")


def _begin(beginnings: Sequence[str], words: Sequence[str]) -> bool:
    """Whether there are as many words as prefixes, and each begins with its prefix."""
    if len(beginnings) != len(words):
        return False
    pairs = zip(words, beginnings, strict=True)
    return all(beginning and word.startswith(beginning) for word, beginning in pairs)


def parse_key(text: str) -> tuple[str, str]:
    """Tonic and scale of a key: ("A", "minor") of Am or "a minor", ("Bb", "") of "B flat".

    The scale is "" where the text names none. Raises UserError.
    """
    match = re.fullmatch(r"([A-Ga-g])(#|b|♯|♭|\s*sharp\b|\s*flat\b)?[\s_-]*(.*)", text.strip())
    if not match:
        raise UserError(f"key {text!r:.40}: give a letter from A to G, perhaps with # or b, and "
                        "perhaps a scale, such as F#, Bb or Am")
    sign = (match[2] or "").strip()
    tonic = match[1].upper() + SIGNS.get(sign, sign)
    if not match[3]:
        return tonic, ""
    try:
        return tonic, scale_name(match[3])
    except UserError as err:
        raise UserError(f"key {text!r:.40}: {err}") from None


def scale_in_key(key: str, scale: str) -> tuple[str, str]:
    """Tonic and scale where both may name the scale, as in `--key Am --scale dorian`.

    A key that is plain minor or major gives the third, and the scale gives the rest. If neither
    names a scale, it is major. Raises UserError if they contradict each other.
    """
    tonic, of_key = parse_key(key)
    if not of_key or not scale:
        return tonic, of_key or scale_name(scale or "major")
    name = scale_name(scale)
    third = {"minor": MINOR_THIRD, "major": MAJOR_THIRD}.get(of_key)
    if name != of_key and third not in SCALES[name]:
        raise UserError(f"key {key!r:.40} is {of_key}, and the scale {name}; name one of them")
    return tonic, name


def scale_pitch_classes(key: str, scale: str) -> frozenset[int]:
    """Pitch classes, 0 to 11, of a scale on a tonic. Raises UserError."""
    if scale not in SCALES:
        scale = scale_name(scale)
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
    """MIDI pitches of a list such as "28-52", "E1-G3" or "kick, snare, 42-46". Raises UserError."""
    pitches: set[int] = set()
    items = re.split(r"[,\s]+", text)
    for item in filter(None, items):
        pitches.update(_pitches_of(item))
    if not pitches:
        raise UserError(f"pitches {text!r}: names none")
    return frozenset(pitches)


def _pitches_of(item: str) -> Sequence[int]:
    """The pitches that a pitch, a range or a piece of the drum kit names. Raises UserError."""
    pitch = r"\d{1,3}|[A-Ga-g][#b♯♭]?-?\d"
    match = re.fullmatch(f"({pitch})(?:-({pitch}))?", item)
    if match:
        first = _pitch(match[1])
        last = _pitch(match[2] or match[1])
        if not 0 <= first <= last <= HIGHEST_PITCH:
            raise UserError(f"pitches {item!r}: a range goes up, from 0 to {HIGHEST_PITCH} at most "
                            f"(C{LOWEST_OCTAVE} to G9; C{MIDDLE_C_OCTAVE} is 60)")
        return range(first, last + 1)
    piece = item.casefold()
    if piece not in DRUM_KIT:
        raise UserError(f"pitches {item!r}: give a pitch (36 or C2), a range (28-52 or E1-E3) or a "
                        f"piece of the drum kit: {', '.join(DRUM_KIT)}"
                        f"{suggestion(item, DRUM_KIT)}")
    return DRUM_KIT[piece]


def _pitch(text: str) -> int:
    """The pitch of a number or a note's name; C4 is 60. It may lie outside MIDI's range."""
    if text.isdigit():
        return int(text)
    match = re.fullmatch(r"(.)([^-]?)(-?\d)", text)
    assert match  # the caller's expression is narrower
    sign = SIGNS.get(match[2], match[2])
    above_c = LETTERS[match[1].upper()] + ACCIDENTALS[sign]  # Cb4 is 59
    return OCTAVE * (int(match[3]) - LOWEST_OCTAVE) + above_c
