"""From the options of generate.py to a session: what a command and the studio both ask for songs with."""

from __future__ import annotations

import argparse
import dataclasses

from backline.common.errors import UserError
from backline.common.paths import index_of_copies
from backline.evaluation.copy_index import CopyCheck
from backline.generation.config import PLAYED, GenConfig
from backline.generation.config_options import key_notices, with_part_names
from backline.generation.notices import notices_about
from backline.generation.options import asked_of, check_rules_matter, given_notices, make_wish
from backline.generation.prompt import Prompt
from backline.generation.reading import Asked
from backline.generation.session import LoadedModel, Session, open_session
from backline.generation.telling import check_controls


@dataclasses.dataclass(frozen=True)
class Setup:
    """The options and what they load: all that does not depend on the prompt."""

    args: argparse.Namespace
    config: GenConfig
    loaded: LoadedModel
    copy_check: CopyCheck | None
    asked: Asked

    def session(self, prompt: Prompt) -> tuple[Session, list[str]]:
        """What the options ask for with a prompt, and lines about what becomes of both.

        Raises UserError about options that do not fit the prompt.
        """
        args = self.args
        vocabulary = self.loaded.vocabulary
        wish = make_wish(args, prompt, vocabulary)
        reading = self.asked.reading if prompt.path or args.tempo else None
        session = open_session(self.loaded, wish, self.config, prompt, reading)
        session = dataclasses.replace(session, copy_check=self.copy_check)
        check_rules_matter(args, session.task.made, vocabulary)
        notices = [
            *given_notices(args, wish, vocabulary),
            *key_notices(args, session.config.rules),
            *check_controls(session.config, session.task),
            *notices_about(session),
        ]
        return session, notices


def open_setup(args: argparse.Namespace, config: GenConfig, loaded: LoadedModel) -> Setup:
    """The setup of a model. Raises UserError about options that do not fit it."""
    if args.dynamics == PLAYED and not loaded.dynamics:
        raise UserError(f"--dynamics {PLAYED}: {loaded.path} has not learned how songs are played; "
                        "run dynamics.py on it, or leave the option out")
    if args.draws is not None and args.draws > 1:
        if loaded.critic is None:
            raise UserError(f"--draws {args.draws}: {loaded.path} has no critic to choose; run critic.py on "
                            "it, or use --best-of")
        if args.prompt or args.watch:
            raise UserError(f"--draws {args.draws}: chooses among songs from scratch; with a prompt, use "
                            "--best-of")
    copy_check = copy_check_of(args, loaded)
    config = with_part_names(config, loaded.vocabulary)
    asked = asked_of(args, config, loaded.vocabulary)
    return Setup(args, config, loaded, copy_check, asked)


def copy_check_of(args: argparse.Namespace, loaded: LoadedModel) -> CopyCheck | None:
    """None if nobody asked for it."""
    if args.check_copies is None and args.max_copy is None:
        return None
    path = index_of_copies(args.check_copies, loaded.path)
    return CopyCheck(loaded.copy_index(path), args.max_copy)
