"""Where the files that come with the program lie."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]

CONFIGS = ROOT / "configs"
DEFAULT_VOCABULARY = CONFIGS / "vocab.json"
BUNDLED_CONFIG = CONFIGS / "model_bundled.json"
BUNDLED_MODEL = ROOT / "models" / "bundled.safetensors"
BAND_MODEL = ROOT / "models" / "band.safetensors"  # of seven parts
OWN_INDEX = Path()  # in place of a path: the index of copies that belongs to the model
WEB = ROOT / "backline" / "listening" / "web"
STUDIO_WEB = ROOT / "backline" / "studio" / "web"


def own_copies(model: Path) -> Path:
    """Where the index of the songs that a model was trained on lies: beside the model."""
    return model.with_name(f"{model.stem}_copies.safetensors")


def index_of_copies(asked: Path | None, model: Path) -> Path:
    """The index that somebody asks for; of OWN_INDEX or None, the model's, or else the bundled one."""
    if asked is not None and asked != OWN_INDEX:
        return asked
    own = own_copies(model)
    return own if own.is_file() else own_copies(BUNDLED_MODEL)
