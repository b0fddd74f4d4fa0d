"""Steps that can be undone. Nothing is deleted by that: ideas go to the bin, and come back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from backline.studio.folder import Idea, StudioFolder


class Step:
    """Something that was done. `words`: what, for people."""

    def __init__(self, folder: StudioFolder, words: str) -> None:
        self.folder = folder
        self.words = words

    def undo(self) -> None:
        """Take it back."""
        raise NotImplementedError

    def redo(self) -> None:
        """Do it again."""
        raise NotImplementedError


class Made(Step):
    """Ideas were made, or came back."""

    def __init__(self, folder: StudioFolder, words: str, hashes: Sequence[str]) -> None:
        super().__init__(folder, words)
        self.hashes = list(hashes)

    def undo(self) -> None:
        """Move them to the bin; those that are gone stay gone."""
        for idea in self._there():
            self.folder.throw_away(idea)

    def redo(self) -> None:
        """Move them back."""
        for hash_ in self.hashes:
            self.folder.take_back(hash_)

    def _there(self) -> Iterator[Idea]:
        for hash_ in self.hashes:
            if idea := self.folder.by_hash(hash_):
                yield idea


class Deleted(Made):
    """Ideas went to the bin."""

    def undo(self) -> None:
        """Move them back."""
        super().redo()

    def redo(self) -> None:
        """Move them to the bin again."""
        super().undo()


class Named(Step):
    """An idea got a name."""

    def __init__(self, folder: StudioFolder, hash_: str, before: str, after: str) -> None:
        super().__init__(folder, f"the name {after}" if after else "a name taken away")
        self.hash = hash_
        self.before = before
        self.after = after

    def undo(self) -> None:
        """Give it the name from before."""
        self.folder.keep(self.hash, {"name": self.before})

    def redo(self) -> None:
        """Give it the name again."""
        self.folder.keep(self.hash, {"name": self.after})
