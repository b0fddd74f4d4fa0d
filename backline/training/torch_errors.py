"""What torch's errors mean to people who train. Its own texts speak of allocators and stacks."""

from __future__ import annotations

import torch

# What allocators say: of CPUs (Linux and Mac, Windows), of Apple's GPUs. CUDA's errors have a class.
OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")
COMPILER_MODULES = ("torch._dynamo.", "torch._inductor.", "torch._functorch.", "triton.")


def is_out_of_memory(err: Exception) -> bool:
    """Whether `err` says that a device's memory is full."""
    if isinstance(err, torch.OutOfMemoryError | MemoryError):
        return True
    return any(text in str(err) for text in OUT_OF_MEMORY)


def is_compile_failure(err: Exception) -> bool:
    """Whether `err` comes from torch.compile, and not from the model that it compiles."""
    modules = [f"{kind.__module__}." for kind in type(err).__mro__]
    return any(module.startswith(COMPILER_MODULES) for module in modules)


def smaller_batches(batch_size: int, accumulation: int, at_once: int) -> tuple[int, int] | None:
    """Another `batch_size` and `accumulation` with the same product, for smaller memory.

    Args:
        at_once: rows that went through the model together and did not fit.
    Returns:
        The largest `batch_size` of at most half of `at_once`, and what accumulation it takes. None
        if it was one row already.
    """
    rows = batch_size * accumulation
    for size in range(at_once // 2, 0, -1):
        if rows % size == 0:
            return size, rows // size
    return None


def too_large(device: object,
              rows: int,
              length: int,
              smaller: tuple[int, int] | None) -> str:
    """One line about `rows` rows of `length` notes that do not fit into a device's memory.

    `smaller`: what `smaller_batches` found.
    """
    shorter = f"prepare shorter rows (prepare.py -b {max(length // 2, 1)})"
    remedy = f"{shorter}, or take a smaller model"
    if smaller:
        batch_size, accumulation = smaller
        remedy = (f"lower batch_size to {batch_size} and raise accumulation to {accumulation} in the "
                  f"training settings, which makes the same steps, or {shorter}")
    rows_text = "1 row" if rows == 1 else f"{rows} rows"
    return (f"{rows_text} of {length} notes at once (batch_size) do not fit into the memory of "
            f"{device}; {remedy}")


def compile_failure(err: Exception) -> str:
    """One line about a model that torch.compile cannot compile.

    It quotes the first line of the cause that names an error.
    """
    stripped = (line.strip() for line in str(err).splitlines())
    lines = [line for line in stripped if line]
    with_error = [line for line in lines if "error:" in line]
    candidates = [*with_error, *lines, type(err).__name__]
    message = candidates[0]
    return (f"the model cannot be compiled here ({message[:200]}); install a C++ compiler (Linux: g++ "
            f"and Python's headers), or set compile to false in the training settings")
