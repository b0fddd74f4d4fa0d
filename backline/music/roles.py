"""Which part a text names: the name of a track or a file, or what a person types.

Texts are compared word by word, in any letter case, without accents. The words for a part are its
name and its synonyms in the vocabulary; a vocabulary that has none for it borrows those of the part
of that name in the default vocabulary. Likewise the words for other instruments and metronomes.
"""

from __future__ import annotations

import functools
import re
import unicodedata

from backline.common.errors import UserError, suggestion
from backline.music.vocab import Part, Vocabulary, load_vocabulary

Phrase = tuple[str, ...]
OTHER: frozenset[str] = frozenset()  # what phrases stand for that name no part


def parts_named(text: str, vocabulary: Vocabulary) -> frozenset[str]:
    """Names of the parts that a text may mean: none, one, or several if it has several meanings.

    Of phrases inside one another the longest counts: "Bass Drum" is no bass, "Steel Drums" are no
    drums. Of words with two meanings the one counts that the other words share: "808" may be drums
    or bass, "808 Bass" is bass.
    """
    found = [parts for parts in _phrases_in(text, vocabulary) if parts]
    if not found:
        return OTHER
    shared = frozenset.intersection(*found)
    return shared or frozenset.union(*found)


def names_other_instrument(text: str, vocabulary: Vocabulary) -> bool:
    """Whether a text names an instrument, and none that plays a part."""
    found = _phrases_in(text, vocabulary)
    return bool(found) and not any(found)


def names_click(text: str, vocabulary: Vocabulary) -> bool:
    """Whether a text names a metronome, and no part: "Click track", but not "Kick click"."""
    phrases = _click_phrases(vocabulary)
    longest = max(map(len, phrases))
    words = _words(text)
    runs = (words[start:start + size]
            for start in range(len(words))
            for size in range(1, longest + 1))
    return any(run in phrases for run in runs) and not parts_named(text, vocabulary)


def part_asked_for(text: str, vocabulary: Vocabulary) -> str | None:
    """The name of the part that a person means by a word: "Bass", "keys", "KIT".

    None if it is no part's, or that of several.
    """
    parts = _lookup(_words(text), _lexicon(vocabulary))
    if parts is None or len(parts) != 1:
        return None
    name, = parts
    return name


def part_name(text: str, vocabulary: Vocabulary) -> str:
    """The part that somebody means by its name or a synonym, in any letter case.

    Raises UserError.
    """
    name = part_asked_for(text, vocabulary)
    if name is None:
        known = vocabulary.part_names
        raise UserError(f"unknown part {text!r:.40}; the model plays {', '.join(known)}"
                        f"{suggestion(text, known)}")
    return name


def parse_parts(text: str, vocabulary: Vocabulary) -> tuple[str, ...]:
    """Names of parts in "Bass, keys", in the order of the vocabulary. Raises UserError."""
    known = vocabulary.part_names
    found: set[str] = set()
    for item in filter(None, map(str.strip, text.split(","))):
        several_words = part_asked_for(item, vocabulary)  # "bass guitar"
        found.update([several_words] if several_words else
                     [part_name(word, vocabulary) for word in item.split()])
    if not found:
        raise UserError(f"{text!r} names no part; the model plays {', '.join(known)}")
    return tuple(name for name in known if name in found)


def _phrases_in(text: str, vocabulary: Vocabulary) -> list[frozenset[str]]:
    """The parts that each phrase of a text stands for, without phrases inside longer ones."""
    lexicon = _lexicon(vocabulary)
    longest = max(map(len, lexicon))
    words = _words(text)
    found: list[frozenset[str]] = []
    covered = 0  # words up to here lie inside a phrase found
    for start in range(len(words)):
        for end in range(min(start + longest, len(words)), max(start, covered), -1):
            parts = _lookup(words[start:end], lexicon)
            if parts is not None:
                found.append(parts)
                covered = end
                break
    return found


def _lookup(phrase: Phrase, lexicon: dict[Phrase, frozenset[str]]) -> frozenset[str] | None:
    """What a phrase stands for, in the plural too; None if it is not known."""
    if phrase in lexicon or not phrase:
        return lexicon.get(phrase)
    *first, last = phrase
    if not last.endswith("s"):
        return None
    singular = (*first, last[:-1])
    return lexicon.get(singular)


@functools.lru_cache(maxsize=64)
def _click_phrases(vocabulary: Vocabulary) -> frozenset[Phrase]:
    """The words for a metronome, and the same in the plural."""
    texts = vocabulary.click_tracks or load_vocabulary().click_tracks
    return frozenset(_words(text + plural) for text in texts for plural in ("", "s"))


@functools.lru_cache(maxsize=64)
def _lexicon(vocabulary: Vocabulary) -> dict[Phrase, frozenset[str]]:
    """The parts that each phrase stands for. A part's name is that part's alone."""
    default = load_vocabulary()
    others = vocabulary.other_instruments or default.other_instruments
    lexicon = {_words(phrase): OTHER for phrase in others}
    defaults = {part.name.casefold(): part for part in default.parts}
    for part in vocabulary.parts:
        for phrase in _synonyms(part, defaults):
            words = _words(phrase)
            lexicon[words] = lexicon.get(words, OTHER) | {part.name}
    for name in vocabulary.part_names:
        lexicon[_words(name)] = frozenset([name])
    return lexicon


def _synonyms(part: Part, defaults: dict[str, Part]) -> tuple[str, ...]:
    default = defaults.get(part.name.casefold(), part)
    return part.synonyms or default.synonyms


def _words(text: str) -> Phrase:
    """The words of a text: "MyBass_2" has my, bass and 2."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    decomposed = unicodedata.normalize("NFKD", apart)
    plain = "".join(letter for letter in decomposed if not unicodedata.combining(letter))
    return tuple(re.findall(r"[^\W\d_]+|\d+", plain.casefold()))
