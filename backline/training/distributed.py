"""Several processes that train one model, as torchrun starts them: one per device; without torchrun, just this one.

Every process holds the whole model and goes through the same steps. Each takes its share of a step's
rows, and the gradients are summed (DistributedDataParallel, DDP), so that all make the same step.
Whatever else they must know of each other goes through `total` and `agreed`, which all of them call
at the same places.

torch is imported late: what can be found wrong without it is found without waiting for it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

from backline.common.errors import EXIT_USER_ERROR, UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

R = TypeVar("R")
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C; torchrun, batch systems and `kill`
SEEDS = 2**63  # of a torch generator
# What gloo says when a process it talks to is gone.
LOST = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "Connection refused",
    "Socket closed",
)


class SharedError(UserError):
    """A mistake that every process knows of: the first one says so, the others leave quietly."""


class Processes:
    """All processes of a run, as one of them sees them."""

    def __init__(self, device_name: str, number: int = 0, count: int = 1) -> None:
        self.device_name = device_name
        self.number = number  # from 0
        self.count = count
        self._asked_to_stop = False  # this process
        self._one_asked_to_stop = False  # of all, as of the last `total`

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and talks to people."""
        return self.number == 0

    @functools.cached_property
    def device(self) -> torch.device:
        """This process's device. Raises UserError if it is not there."""
        import torch

        from backline.layers.torch_io import pick_device

        if self.count == 1:
            return pick_device(self.device_name)
        name = self.device_name
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        device = pick_device(name)
        if device.type == "cpu":
            return device
        if name != "cuda":
            raise UserError(f"device {name!r} is one, and {self.count} processes want one each; give "
                            f"-d cuda or cpu")
        here = int(os.environ.get("LOCAL_WORLD_SIZE", self.count))
        if here > torch.cuda.device_count():
            raise UserError(f"{here} processes want a GPU each, and this machine has "
                            f"{torch.cuda.device_count()}; give torchrun a lower --nproc_per_node")
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", self.number)))
        torch.cuda.set_device(device)
        return device

    # ------------------------------------------------------------ sharing the work

    def share(self, rows: Tensor) -> Tensor:
        """This process's share of (B, …) rows: shares differ by one row at most, and may be empty."""
        return rows.tensor_split(self.count)[self.number]

    def spread(self, model: nn.Module) -> nn.Module:
        """What to call instead of `model`: its backward pass makes gradients their mean over processes."""
        if self.count == 1:
            return model
        import torch.distributed
        from torch.nn.parallel import DistributedDataParallel

        if self.device.type == "cpu":
            return DistributedDataParallel(model)
        group = torch.distributed.new_group(backend="nccl")
        return DistributedDataParallel(model, [self.device], process_group=group)

    def gradients_wait(self, forward: nn.Module, wait: bool) -> contextlib.AbstractContextManager[None]:
        """Within the block gradients stay with this process if `wait`.

        Args:
            forward: what `spread` returned. Its forward pass belongs into the block, too.
        """
        if not wait or self.count == 1:
            return contextlib.nullcontext()
        from torch.nn.parallel import DistributedDataParallel

        assert isinstance(forward, DistributedDataParallel)
        return forward.no_sync()

    def seed_draws(self, seed: int, step: int) -> None:
        """Let this process's dropout differ from the others', and depend on the run's seed and step alone.

        The first process draws on from its own state, which is stored in checkpoints, as if alone.
        """
        if not self.is_first:
            import torch

            torch.manual_seed(((seed * 1_000_003 + step) * 1_000_003 + self.number) % SEEDS)

    # ------------------------------------------------------------ telling each other

    def total(self, values: Tensor) -> Tensor:
        """Sum of a 1-D tensor over all processes, on the CPU; with one process the tensor itself.

        Along with it they tell each other whether one of them was asked to stop.
        """
        if self.count == 1:
            return values
        import torch

        asked = torch.tensor([self._asked_to_stop], dtype=values.dtype)
        sums = torch.cat([values.detach().cpu(), asked])
        torch.distributed.all_reduce(sums)
        self._one_asked_to_stop = bool(sums[-1])
        return sums[:-1]

    def agreed(self, work: Callable[[], R]) -> R:
        """The result of `work`. A UserError of one process is raised in all of them, as a SharedError."""
        if self.count == 1:
            return work()
        import torch.distributed

        results = []
        message = None
        try:
            results.append(work())
        except UserError as err:
            message = str(err)
        messages: list[str | None] = [None] * self.count
        torch.distributed.all_gather_object(messages, message)
        for message in messages:
            if message is not None:
                raise SharedError(message)
        return results[0]

    @property
    def stopping(self) -> bool:
        """Whether to stop after this step; the same in all processes, as of the last `total`."""
        return self._one_asked_to_stop if self.count > 1 else self._asked_to_stop

    @contextlib.contextmanager
    def noting_stops(self) -> Iterator[None]:
        """Within the block Ctrl-C and SIGTERM are only noted, so that a step is never cut in half.

        Alone, a second Ctrl-C does not wait. torchrun may send on what the terminal has sent already:
        there both count as one, and torchrun itself ends what has not ended after half a minute.
        """

        def note(number: int, _frame: object) -> None:
            if self._asked_to_stop and self.count == 1 and number == signal.SIGINT:
                raise KeyboardInterrupt
            self._asked_to_stop = True

        before = {number: signal.signal(number, note) for number in STOP_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def joined(device_name: str) -> Iterator[Processes]:
    """The processes that torchrun started together with this one, or this one alone.

    If one fails, the others fail too, as soon as they wait for it. The process that knows says what is
    wrong; if all know, the first one does.
    """
    number = int(os.environ.get("RANK", "0"))
    count = int(os.environ.get("WORLD_SIZE", "1"))
    processes = Processes(device_name, number, count)
    if count == 1:
        yield processes
        return
    import torch.distributed

    # For what they tell each other; gradients of GPUs go by nccl.
    torch.distributed.init_process_group("gloo")
    try:
        yield processes
    except SharedError:
        if processes.is_first:
            raise
        raise SystemExit(EXIT_USER_ERROR) from None
    except RuntimeError as err:
        if not is_lost_peer(err):
            raise
        if processes.is_first:
            raise UserError("another process of this run ended before its time: see what it said, or "
                            "whether the machine ran out of memory; then continue with --resume") from None
        raise SystemExit(EXIT_USER_ERROR) from None
    torch.distributed.destroy_process_group()


def is_lost_peer(err: RuntimeError) -> bool:
    """Whether a reduction failed because one of the processes is gone."""
    import torch.distributed

    if isinstance(err, torch.distributed.DistError):
        return True
    return any(text in str(err) for text in LOST)
