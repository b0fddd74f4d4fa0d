"""Songs for property tests, and the slow, obvious version of what a MIDI file can hold of them."""

from __future__ import annotations

from hypothesis import strategies as st

from backline.music.vocab import BAR, BOS, EOS, FIELDS, FIRST_ID, NOTE_DUR, PITCH_INSTRUMENT, START_POS, Vocabulary

Ids = list[tuple[int, ...]]


def _often(first: int, size: int) -> st.SearchStrategy[int]:
    """Ids of one family: the first two and the last often, so that notes meet, overlap and touch the limits."""
    return st.sampled_from([first, first + 1, size - 1]) | st.integers(first, size - 1)


def song_ids(vocabulary: Vocabulary) -> st.SearchStrategy[Ids]:
    """Whole songs of 1 to 20 notes in order, no two of one onset and pitch_instrument."""
    rows = st.tuples(*(_often(FIRST_ID, size) for size in vocabulary.sizes))
    return st.lists(rows, min_size=1, max_size=20, unique_by=_key).map(lambda notes: whole(sorted(notes, key=_key)))


def whole(notes: Ids) -> Ids:
    return [(BOS,) * len(FIELDS), *notes, (EOS,) * len(FIELDS)]


def _key(row: tuple[int, ...]) -> tuple[int, int, int]:
    return row[BAR], row[START_POS], row[PITCH_INSTRUMENT]


def shortened(ids: Ids, steps_per_bar: int) -> Ids:
    """The ids with each note ended where the next of its pitch begins."""
    notes = []
    for row in ids[1:-1]:
        start = row[BAR] * steps_per_bar + row[START_POS]
        gaps = [other[BAR] * steps_per_bar + other[START_POS] - start for other in ids[1:-1]
                if other[PITCH_INSTRUMENT] == row[PITCH_INSTRUMENT]]
        duration = min([row[NOTE_DUR] - FIRST_ID + 1, *(gap for gap in gaps if gap > 0)])
        notes.append((row[BAR], row[START_POS], duration - 1 + FIRST_ID, row[PITCH_INSTRUMENT]))
    return whole(notes)
