"""How a run's weights move: the optimizers, the learning rate's schedule, and the average of the weights."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from backline.training.config import TrainingSettings

DEFAULT_BETAS = (0.9, 0.999)
# Modules whose matrices are hidden layers: neither embeddings nor the heads' last layers.
HIDDEN = ("in_linear", "blocks", "late_blocks", "gru", "links")


class Optimizers:
    """AdamW, and beside it Muon for the hidden matrices where the settings say so.

    AdamW: Loshchilov and Hutter 2019. Muon: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon;
    it makes the step of each matrix orthogonal, so that all its directions move alike.
    """

    def __init__(self, model: nn.Module, settings: TrainingSettings, notes_per_step: int) -> None:
        """`notes_per_step`: predicted in a step, for AdamW's `beta2_half_life`."""
        hidden = []  # moved by Muon
        matrices = []
        vectors = []
        for name, parameter in model.named_parameters():
            if settings.optimizer == "muon" and _is_hidden(name, parameter):
                hidden.append(parameter)
            elif parameter.ndim > 1:
                matrices.append(parameter)
            else:
                vectors.append(parameter)
        first, second = DEFAULT_BETAS
        if settings.beta2_half_life:
            second = 0.5 ** (notes_per_step / settings.beta2_half_life)
        groups = [
            {"params": matrices, "weight_decay": settings.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.adamw = torch.optim.AdamW(groups, settings.lr, (first, second), fused=True)
        self.rates: dict[torch.optim.Optimizer, float] = {self.adamw: settings.lr}  # peaks
        self.muon = None
        if hidden:
            self.muon = torch.optim.Muon(hidden, settings.muon_lr, settings.weight_decay,
                                         momentum=settings.momentum)
            self.rates[self.muon] = settings.muon_lr

    def step(self, share: float) -> None:
        """Move the weights by their gradients, at `share` of the peak rates, and clear the gradients."""
        for optimizer, peak in self.rates.items():
            for group in optimizer.param_groups:
                group["lr"] = peak * share
            optimizer.step()
            optimizer.zero_grad()

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of the optimizers."""
        state = {"optimizer": self.adamw.state_dict()}
        if self.muon:
            state["muon"] = self.muon.state_dict()
        return state

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.adamw.load_state_dict(state["optimizer"])
        if self.muon:
            self.muon.load_state_dict(state["muon"])


def _is_hidden(name: str, parameter: Tensor) -> bool:
    return parameter.ndim == 2 and name.split(".", maxsplit=1)[0] in HIDDEN


def rate_share(settings: TrainingSettings, step: int, total_steps: int) -> float:
    """The learning rate of step `step` (from 0) of `total_steps`, as a share of its peak.

    A linear warm-up comes first. A short run warms up for half of its steps at most, or it would
    never leave the warm-up. Then "cosine" falls to `final_lr` along a half cosine. "constant" stays at
    the peak until the last `decay_share` of the steps, and falls to `final_lr` in a straight line
    there (Hu et al. 2024, MiniCPM, section 4): the steps before are the same for a run of any length.
    """
    warmup = min(settings.warmup_steps, total_steps // 2)
    if step < warmup:
        return (step + 1) / warmup
    if settings.schedule == "constant":
        decay_steps = max(total_steps * settings.decay_share, 1)
        height = min((total_steps - step) / decay_steps, 1)
    else:
        progress = (step - warmup) / max(total_steps - warmup, 1)
        height = (1 + math.cos(math.pi * progress)) / 2
    return settings.final_lr + (1 - settings.final_lr) * height


class WeightAverage:
    """A moving average of a model's weights that reaches back over a share of the steps done.

    The weights of step t count in proportion to t^(1/share − 1) (Karras et al. 2024, "Analyzing and
    Improving the Training Dynamics of Diffusion Models", section 3.1). So the average is older than
    the weights by about that share of the steps done, however many these are. After the first step
    nothing of the initial weights is left in it.
    """

    def __init__(self, model: nn.Module, share: float) -> None:
        self.share = share
        self.live: list[Tensor] = list(model.parameters())
        self.weights = [parameter.detach().clone() for parameter in self.live]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the model's weights after step `step`, counted from 1."""
        kept = (1 - 1 / step) ** (1 / self.share)
        torch._foreach_lerp_(self.weights, self.live, 1 - kept)

    @torch.no_grad()
    def begin_again(self) -> None:
        """Take the model's weights, just loaded from a checkpoint, for the average: there they are it."""
        torch._foreach_copy_(self.weights, self.live)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block the model's weights are the average."""
        raw = [parameter.detach().clone() for parameter in self.live]
        with torch.no_grad():
            torch._foreach_copy_(self.live, self.weights)
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self.live, raw)
