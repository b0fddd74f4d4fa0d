"""Graphs written by hand, read by the library `onnx` and run by ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from tiny_models import LATE, small_model

from backline.engine.graphs import choice_graph, trunk_graph
from backline.engine.onnx_writer import CONTRIBUTED, Graph, field, varint
from backline.generation.loading import weights_of


def run(graph: Graph, **inputs: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(graph.to_bytes(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


@pytest.mark.parametrize(("number", "expected"), [
    (0, "00"), (1, "01"), (127, "7f"), (128, "8001"), (300, "ac02"), (-1, "ffffffffffffffffff01")])
def test_numbers_are_written_as_the_format_says(number, expected):
    assert varint(number).hex() == expected


def test_fields_are_written_as_the_format_says():
    assert field(1, 150).hex() == "089601"
    assert field(2, "testing").hex() == "120774657374696e67"
    assert field(1, 1.0).hex() == "0d0000803f"


@given(shape=st.lists(st.integers(0, 5), max_size=3),
       dtype=st.sampled_from([np.float32, np.int64, np.int32, np.int8, np.uint8]))
def test_a_constant_comes_back(shape, dtype):
    array = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    graph = Graph("one")
    graph.constant(array)
    graph.constant(array.T)  # not contiguous
    initializers = onnx.load_from_string(graph.to_bytes()).graph.initializer
    stored, transposed = map(numpy_helper.to_array, initializers)
    assert stored.dtype == dtype and np.array_equal(stored, array) and np.array_equal(transposed, array.T)


def test_a_graph_runs_with_its_attributes_and_open_shapes():
    graph = Graph("small")
    x = graph.input("x", ("B", 4))
    first, second = graph.nodes(2, "Split", x, axis=-1, num_outputs=2)
    norm = (graph.constant(np.ones(2, np.float32)), graph.constant(np.zeros(2, np.float32)))
    normed, total = graph.normed_sum(first, second, "", norm, 1e-5)
    graph.output("normed", normed, ("B", 2))
    graph.output("total", graph.node("Transpose", total, perm=[1, 0]), (2, "B"))
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    normed, total = run(graph, x=x)
    assert np.allclose(total.T, x[:, :2] + x[:, 2:])
    assert np.allclose(normed.mean(1), 0) and np.allclose(normed.std(1), 1, atol=1e-4)


@pytest.mark.parametrize("dtype", ["fp32", "int8"])
def test_the_model_s_graphs_are_what_the_library_takes_for_graphs(dtype):
    model = small_model(torch.float32, **LATE | {"controls": True})
    weights = weights_of(model)
    graphs = [trunk_graph(model.config, weights, dtype)]
    graphs += [choice_graph(model.config, weights, dtype, k) for k in range(3)]
    for data in graphs:
        loaded = onnx.load_from_string(data)
        assert {each.domain for each in loaded.opset_import} == {"", CONTRIBUTED}
        assert len(loaded.graph.node) > 5
        onnx.checker.check_model(loaded)
