"""What a folder run says about each file: `report.jsonl` for programs, `logs.txt` for people."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

from errors import UserError
from files import json_bytes, replacing

REPORT_NAME, LOG_NAME = "report.jsonl", "logs.txt"


class Report:
    """Collects a verdict per input; leaving the `with` block writes the two files, also when interrupted."""

    def __init__(self, folder: Path, verb: str) -> None:
        self.folder, self.verb = folder, verb
        self.rows: list[dict[str, Any]] = []
        self.reasons: Counter[str] = Counter()

    def kept(self, path: Path, **facts: Any) -> None:
        self.rows.append({"source": str(path), "verdict": "kept", **facts})

    def dropped(self, path: Path, reason: UserError) -> None:
        text = str(reason).removeprefix(f"{path}: ")
        self.rows.append({"source": str(path), "verdict": "dropped", "reason": text})
        self.reasons[_kind(text)] += 1

    @property
    def n_kept(self) -> int:
        return sum(row["verdict"] == "kept" for row in self.rows)

    def summary(self) -> str:
        """Counts, then the reasons with theirs, the most frequent first."""
        lines = [f"{self.n_kept} of {len(self.rows)} files {self.verb} into {self.folder}"]
        lines += [f"{count:7d} left out: {kind}" for kind, count in self.reasons.most_common()]
        return "\n".join(lines)

    def __enter__(self) -> Report:
        return self

    def __exit__(self, *exc: object) -> None:
        with replacing(self.folder / REPORT_NAME) as file:
            file.writelines(json_bytes(row) + b"\n" for row in self.rows)
        with replacing(self.folder / LOG_NAME) as file:
            for row in self.rows:
                what = row.get("reason") or f"{self.verb}, {row['notes']} notes"
                file.write(f"{row['source']}: {what}\n".encode("utf-8", "replace"))
            file.write(f"{self.summary()}\n".encode("utf-8", "replace"))

    def finish(self) -> int:
        """Print the counts; the exit code of the run. Raises UserError if nothing was kept."""
        if not self.n_kept:
            if len(self.rows) == 1:
                raise UserError(f"{self.rows[0]['source']}: {self.rows[0]['reason']}")
            raise UserError(f"none of {len(self.rows)} files could be {self.verb}; reasons are in "
                            f"{self.folder / LOG_NAME}, the first: {self.rows[0]['source']}: {self.rows[0]['reason']}")
        print(self.summary())
        return 0


def _kind(reason: str) -> str:
    """A reason without its place, its remedy and its details in brackets, so that equal ones count together."""
    text = re.split(r"[;:(]", re.sub(r"^bar \d+: ", "", reason))[0].strip()
    return re.sub(r"\b(bar|pitch|quarter) \d+", r"\1 N", text)
