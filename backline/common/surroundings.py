"""What a run must say of where it ran, so that it can be repeated."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).parents[2]


def surroundings(command: Sequence[str], device: torch.device, processes: int) -> dict[str, Any]:
    """Plain data: the command line, the devices, and the versions of what computes."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {"command": list(command), "processes": processes, "device": device.type, "device_name": name,
            "threads": torch.get_num_threads(), "commit": commit(),
            "versions": {"python": platform.python_version(), "torch": str(torch.__version__),
                         "numpy": np.__version__}}


def commit(folder: Path = HERE) -> str | None:
    """The git commit of the program in `folder`, with `-dirty` if files were changed since.

    None where it is no checkout, or git is not installed or refuses.
    """
    git = shutil.which("git")
    if git is None or not (folder / ".git").exists():  # a checkout around ours would name a commit of its own
        return None
    try:
        done = subprocess.run([git, "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],  # noqa: S603 (no input of users in it)
                              capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
