"""Models by their address on the Hugging Face hub: hf:owner/name.

huggingface_hub fetches and caches the file; its cache, tokens, mirrors (HF_ENDPOINT) and offline
mode (HF_HUB_OFFLINE) work as its users know them. It is imported only here.
"""

from __future__ import annotations

import re
from pathlib import Path

from backline.common.errors import UserError
from backline.common.installed import is_installed

HUB = "hf:"
FILE = "model.safetensors"  # in the repository, unless the address names another
INSTALL_HUB = "pip install -r requirements-hub.txt"
NAME = r"\w[\w.-]*"
ADDRESS = re.compile(rf"(?P<repository>{NAME}/{NAME})(?P<file>(?:/{NAME})+)?(?:@(?P<revision>[\w./-]+))?")


def is_address(path: Path) -> bool:
    """Whether a person names a model on the hub, and not a file."""
    return path.as_posix().startswith(HUB)


def fetched(path: Path) -> Path:
    """The file that a person names: a path, or hf:owner/name, which is fetched if it is not here yet.

    Of a repository, hf:owner/name/folder/file.safetensors names another file than FILE, and @ a
    revision. Raises UserError.
    """
    if not is_address(path):
        return path
    text = path.as_posix()
    match = ADDRESS.fullmatch(text.removeprefix(HUB))
    if not match:
        raise UserError(f"{text!r:.80}: not an address on the hub; write hf:owner/name, or "
                        "hf:owner/name/file.safetensors@revision")
    file = (match["file"] or f"/{FILE}")[1:]
    if not file.endswith(".safetensors"):
        raise UserError(f"{text!r:.80}: only .safetensors files are taken from the hub, for they run no code")
    if not is_installed("huggingface_hub"):
        raise UserError(f"{text} needs huggingface_hub, which is not installed; {INSTALL_HUB}")
    return _downloaded(text, match["repository"], file, match["revision"])


def _downloaded(text: str, repository: str, file: str, revision: str | None) -> Path:
    """The file in the hub's cache. Raises UserError."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, file, revision=revision))
    except Exception as err:  # the hub's own, and those of the library that it talks through
        reason = str(err).strip().splitlines()[0] if str(err).strip() else type(err).__name__
        raise UserError(f"{text}: cannot be fetched ({reason:.200}); check the address and the network (private "
                        "models: hf auth login), or fetch the file yourself and give its path") from None
