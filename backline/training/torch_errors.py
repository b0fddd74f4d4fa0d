"""What errors of torch mean to the person who trains: its own texts speak of allocators and stacks."""

from __future__ import annotations

import torch

# Of the CPU's allocators (Linux and Mac, Windows) and of Apple's GPUs; CUDA's have a class of their own.
OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")
COMPILER_MODULES = ("torch._dynamo.", "torch._inductor.", "torch._functorch.", "triton.")


def is_out_of_memory(err: Exception) -> bool:
    return isinstance(err, torch.OutOfMemoryError | MemoryError) or any(text in str(err) for text in OUT_OF_MEMORY)


def is_compile_failure(err: Exception) -> bool:
    """Whether `err` comes from torch.compile, and not from the model that it compiles."""
    return any(f"{kind.__module__}.".startswith(COMPILER_MODULES) for kind in type(err).__mro__)


def smaller_batches(batch_size: int, accumulation: int, at_once: int) -> tuple[int, int] | None:
    """Other `batch_size` and `accumulation` with the same product, at most half of the rows that went through at once.

    None if it was one row already.
    """
    rows = batch_size * accumulation
    fits = next((size for size in range(at_once // 2, 0, -1) if rows % size == 0), None)
    return (fits, rows // fits) if fits else None


def too_large(device: object, rows: int, length: int, smaller: tuple[int, int] | None) -> str:
    """One line about `rows` rows of `length` notes that do not fit into a device's memory."""
    shorter = f"prepare shorter rows (prepare.py -b {max(length // 2, 1)})"
    remedy = f"{shorter}, or take a smaller model"
    if smaller:
        remedy = f"lower batch_size to {smaller[0]} and raise accumulation to {smaller[1]} in the training settings, " \
                 f"which makes the same steps, or {shorter}"
    return f"{rows} {'row' if rows == 1 else 'rows'} of {length} notes at once (batch_size) do not fit into the " \
           f"memory of {device}; {remedy}"


def compile_failure(err: Exception) -> str:
    """One line about a model that torch.compile cannot compile: the first line of the cause that names an error."""
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    told = next((line for line in lines if "error:" in line), lines[0] if lines else type(err).__name__)
    return f"the model cannot be compiled here ({told[:200]}); install a C++ compiler (Linux: g++ and Python's " \
           f"headers), or set compile to false in the training settings"
