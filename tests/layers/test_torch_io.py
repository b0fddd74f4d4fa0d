"""The device that a command computes on. Files of tensors: test_checkpoints.py, through the models they hold."""

from __future__ import annotations

import pytest
import torch

from backline.common.errors import UserError
from backline.generation.loading import LARGE, playing_device
from backline.layers.torch_io import pick_device


def give_devices(monkeypatch, n_cuda: int = 0, mps: bool = False) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n_cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(("n_cuda", "mps", "name", "device"), [
    (0, False, "auto", "cpu"), (0, True, "auto", "mps"), (1, True, "auto", "cuda"), (1, False, "cpu", "cpu"),
    (2, False, "cuda:1", "cuda:1"), (1, False, "cuda", "cuda"), (0, True, "mps", "mps")])
def test_a_device_that_is_there(monkeypatch, n_cuda, mps, name, device):
    give_devices(monkeypatch, n_cuda, mps)
    assert pick_device(name) == torch.device(device)


@pytest.mark.parametrize(("n_cuda", "name", "text"), [
    (0, "cuda", "device 'cuda' is not there; this machine has cpu"),
    (2, "cuda:2", "device 'cuda:2' is not there; this machine has cuda, cpu"),
    (1, "mps", "device 'mps' is not there; this machine has cuda, cpu"),
    (0, "meta", "device 'meta' is not there"),
    (0, "gpu", "unknown device 'gpu'; give auto, cuda, mps or cpu"),
    (0, "", "unknown device ''"),
    (0, "cuda:x", "unknown device 'cuda:x'"),
])
def test_a_device_that_is_not_there(monkeypatch, n_cuda, name, text):
    give_devices(monkeypatch, n_cuda)
    with pytest.raises(UserError) as caught:
        pick_device(name)
    assert text in str(caught.value)


@pytest.mark.parametrize(("n_cuda", "mps", "name", "n_parameters", "device"), [
    (0, True, "auto", LARGE - 1, "cpu"), (0, True, "auto", LARGE, "mps"), (0, True, "mps", 1, "mps"),
    (1, True, "auto", 1, "cpu"), (1, True, "auto", LARGE, "cuda"), (1, True, "cuda", 1, "cuda"),
    (0, False, "auto", LARGE, "cpu"), (1, True, "cpu", LARGE, "cpu")])
def test_a_small_model_plays_on_the_cpu_unless_another_device_is_named(monkeypatch, n_cuda, mps, name, n_parameters,
                                                                       device):
    give_devices(monkeypatch, n_cuda, mps)
    assert playing_device(name, n_parameters) == device
