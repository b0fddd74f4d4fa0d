"""A model taken over to another vocabulary or a smaller size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from random_songs import VOCABULARY
from tiny_models import small_model

from backline.common.paths import ROOT
from backline.music.controls import fields
from backline.music.vocab import (
    BAR,
    BOS,
    FIELDS,
    FIRST_ID,
    NOTE_DUR,
    PITCH_INSTRUMENT,
    START_POS,
    load_vocabulary,
)
from backline.training.transfer import id_sources, narrowed, part_like, sheet_sources, transferred

BAND = load_vocabulary(ROOT / "configs" / "vocab_band.json")


def note_id(vocabulary, part, pitch):
    index = vocabulary.part_names.index(part)
    return vocabulary.first_pitch_ids[index] + pitch - vocabulary.parts[index].lowest_pitch


def test_a_model_taken_over_to_its_own_vocabulary_is_the_same():
    model = small_model(torch.float32)
    for name, weight in transferred(model, VOCABULARY, VOCABULARY).state_dict().items():
        assert torch.equal(weight, model.state_dict()[name]), name


@pytest.mark.parametrize(("part", "like"), [
    ("drums", "drums"), ("percussion", "drums"), ("bass", "bass"), ("piano", "piano"), ("guitar", "piano"),
    ("lead", "piano"), ("pad", "piano")])
def test_each_part_of_the_band_begins_as_one_of_the_trio(part, like):
    index = part_like(BAND.parts[BAND.part_names.index(part)], VOCABULARY)
    assert VOCABULARY.part_names[index] == like


def test_ids_begin_as_those_of_the_same_time_length_and_pitch():
    sources = id_sources(VOCABULARY, BAND)
    assert [len(source) for source in sources] == list(BAND.sizes)
    assert all(source[:FIRST_ID].tolist() == [*range(FIRST_ID)] for source in sources)
    for family, pairs in {
            BAR: [(0, 0), (255, 255)],
            START_POS: [(0, 0), (3, 2), (12, 8), (47, 31)],      # sixteenths of 48 steps, and of 32
            NOTE_DUR: [(11, 7), (47, 31), (191, 127), (0, 0)],   # a quarter, a bar, four bars, the shortest
    }.items():
        for new, old in pairs:
            assert sources[family][FIRST_ID + new] == FIRST_ID + old, (FIELDS[family], new)
    pitches = sources[PITCH_INSTRUMENT]
    for (part, pitch), (like, old_pitch) in {
            ("drums", 36): ("drums", 36), ("percussion", 64): ("drums", 64), ("percussion", 82): ("drums", 81),
            ("bass", 40): ("bass", 40), ("bass", 12): ("bass", 21), ("guitar", 60): ("piano", 60)}.items():
        assert pitches[note_id(BAND, part, pitch)] == note_id(VOCABULARY, like, old_pitch)


def test_ids_that_begin_alike_share_the_probability_of_the_old_one():
    model = small_model(torch.float32)
    band = transferred(model, VOCABULARY, BAND)
    start = torch.full((1, 1, len(FIELDS)), BOS)
    with torch.no_grad():
        old = model(start)[PITCH_INSTRUMENT][0, 0].softmax(0).numpy()
        new = band(start)[PITCH_INSTRUMENT][0, 0].softmax(0).numpy()
    source = id_sources(VOCABULARY, BAND)[PITCH_INSTRUMENT]
    summed = np.bincount(source, new, minlength=len(old))
    is_kept = np.isin(np.arange(len(old)), source)
    assert np.allclose(summed[is_kept], old[is_kept] / old[is_kept].sum(), atol=1e-6)


def test_what_a_model_is_told_of_a_part_is_that_of_the_part_it_begins_as():
    rows = sheet_sources(VOCABULARY, BAND)

    def first_rows(vocabulary):
        told = fields(vocabulary)[:-3]
        starts = np.cumsum([0, *(field.size for field in told[:-1])]).tolist()
        return {field.name: start for field, start in zip(told, starts, strict=True)}

    old, new = first_rows(VOCABULARY), first_rows(BAND)
    assert rows[new["guitar density"]] == old["piano density"]
    assert rows[new["percussion density"] + 1] == old["drums density"] + 1
    assert rows[new["key"] + 5] == old["key"] + 5
    assert len(rows) == sum(field.size for field in fields(BAND)[:-3])


def test_a_narrower_model_keeps_the_hidden_units_that_add_most():
    model = small_model(torch.float32, late_layers=1, heads="gru")
    width = model.config.ff_width
    adding = [unit for unit in range(width) if unit % 4]
    with torch.no_grad():
        for block in [*model.blocks, *model.late_blocks]:
            block.ff[3].weight[:, ::4] = 0.01 * block.ff[3].weight[:, ::4]
    narrow = narrowed(model, len(adding))
    assert narrow.config.ff_width == len(adding)
    for before, after in zip([*model.blocks, *model.late_blocks], [*narrow.blocks, *narrow.late_blocks], strict=True):
        assert torch.equal(after.ff[0].weight, before.ff[0].weight[adding])
        assert torch.equal(after.ff[0].bias, before.ff[0].bias[adding])
        assert torch.equal(after.ff[3].weight, before.ff[3].weight[:, adding])


def test_without_units_that_add_nothing_a_narrower_model_plays_the_same():
    model = small_model(torch.float32)
    with torch.no_grad():
        for block in model.blocks:
            block.ff[3].weight[:, ::2] = 0
    ids = torch.randint(FIRST_ID, 30, (2, 9, len(FIELDS)), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        pairs = zip(model(ids, ids), narrowed(model, model.config.ff_width // 2)(ids, ids), strict=True)
        assert all(torch.allclose(before, after, atol=1e-6) for before, after in pairs)
