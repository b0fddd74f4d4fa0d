from __future__ import annotations

import pytest
import torch

from backline.training.torch_errors import (
    compile_failure,
    is_compile_failure,
    is_out_of_memory,
    smaller_batches,
    too_large,
)


@pytest.mark.parametrize("err", [MemoryError(), torch.OutOfMemoryError("x"), RuntimeError("MPS backend out of memory"),
                                 RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes")])
def test_out_of_memory_is_known_by_class_or_words(err):
    assert is_out_of_memory(err)
    assert not is_compile_failure(err)


def test_the_cpu_allocator_still_says_what_is_looked_for():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_other_errors_are_none_of_these():
    for err in (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("memory")):
        assert not is_out_of_memory(err)
        assert not is_compile_failure(err)


@pytest.mark.parametrize("batch_size", range(1, 25))
@pytest.mark.parametrize("accumulation", [1, 2, 3, 5])
@pytest.mark.parametrize("at_once", [1, 2, 5, 24])
def test_smaller_batches_make_the_same_steps(batch_size, accumulation, at_once):
    at_once = min(at_once, batch_size)
    found = smaller_batches(batch_size, accumulation, at_once)
    if at_once == 1:
        assert found is None
    else:
        assert found[0] * found[1] == batch_size * accumulation
        assert 1 <= found[0] <= at_once // 2


def test_too_large_is_one_line():
    for smaller in (None, (6, 2)):
        assert "\n" not in too_large("cuda:0", 12, 512, smaller)
    assert "lower batch_size to 6 and raise accumulation to 2" in too_large("cuda:0", 12, 512, (6, 2))


def test_a_compile_failure_shows_the_line_that_names_the_error():
    told = "C++ compile error\n\nCommand:\ng++ x\nx.h:3: fatal error: Python.h: No such file"
    text = compile_failure(RuntimeError(told))
    assert "\n" not in text
    assert "(x.h:3: fatal error: Python.h: No such file)" in text
