"""What a model's file carries of the controls it was trained with.

These are the edges between the levels of density, and the sheets of the songs trained on, from
which `generate.py` draws what it is not told.
"""

from __future__ import annotations

import base64
import dataclasses
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from backline.common.errors import UserError
from backline.music.sheet import Levels, sheet_width
from backline.music.vocab import Vocabulary


@dataclasses.dataclass(frozen=True)
class SheetTable:
    """What a model's file carries of its songs' controls."""

    levels: Levels
    sheets: np.ndarray  # (n_songs, S) uint8, of each song's first bars

    def to_facts(self) -> dict[str, Any]:
        """Plain data; the sheets are bytes in base64, compressed."""
        packed = zlib.compress(self.sheets.tobytes())
        return {
            **dataclasses.asdict(self.levels),
            "sheets": base64.b64encode(packed).decode(),
            "n_songs": len(self.sheets),
        }

    @classmethod
    def from_facts(cls,
                   data: dict[str, Any],
                   vocabulary: Vocabulary,
                   where: Path) -> SheetTable:
        """The table in plain data. Raises UserError if that is damaged."""
        try:
            edges_of_parts = [tuple(edges) for edges in data["density_edges"]]
            packed = base64.b64decode(data["sheets"])
            sheets = np.frombuffer(zlib.decompress(packed), np.uint8)
            sheets = sheets.reshape(data["n_songs"], sheet_width(vocabulary))
            return cls(Levels(tuple(edges_of_parts)), sheets)
        except (KeyError, TypeError, ValueError, zlib.error):
            raise UserError(f"{where}: its table of sheets is damaged; copy or make it "
                            f"again") from None


def sheet_table(metadata: dict[str, Any],
                vocabulary: Vocabulary,
                where: Path) -> SheetTable | None:
    """The table in what a model's file says of its training; None where there is none."""
    of_training = metadata.get("facts", {})
    data = metadata.get("controls") or of_training.get("controls")
    return SheetTable.from_facts(data, vocabulary, where) if data else None
