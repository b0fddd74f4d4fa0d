"""The list of weights is that of the model."""

from __future__ import annotations

import pytest
from tiny_models import KINDS, LATE, small_model

from backline.layers.shapes import weight_shapes


@pytest.mark.parametrize("kind", [*KINDS, {"emb_pooling": "sum"}, {"given": True}, LATE | {"controls": True}],
                         ids=lambda kind: "-".join(map(str, kind.values())))
def test_names_and_shapes_are_the_model_s(kind):
    model = small_model(**kind)
    assert weight_shapes(model.config) == {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
