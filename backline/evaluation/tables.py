"""Results of evaluate.py as tables of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from backline.evaluation.copy_index import MARKED, PERCENTILES
from backline.evaluation.statistics import Difference, Verdict
from backline.music.vocab import FIELDS

GIVEAWAYS = 5  # measures named by which generated songs are told from real ones


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of Markdown, one line for each row."""
    head = list(head)
    rule = ["---"] * len(head)
    lines = (" | ".join(cells) for cells in (head, rule, *rows))
    return "".join(f"| {line} |\n" for line in lines)


# ---------------------------------------------------------------- losses


def losses_as_markdown(result: dict[str, Any]) -> str:
    """Losses in nats per note: of all notes, of each part, by place in song and in context."""
    intervals = result.get("intervals") or {}
    of_all = {
        "songs": f"{result['songs']:,}",
        "notes": f"{result['notes']:,}",
        "nats per note": with_interval(result["nats_per_note"], result["interval"]),
    }
    for field in FIELDS:
        of_all[field] = with_interval(result[field], intervals.get(field))
    by_part = {"part": "nats per note", **_losses_by_name(result["by_part"])}
    by_position = {"notes of the song": "nats per note", **_losses_by_name(result["by_position"])}
    by_context = {"rows before": "nats per note"}
    for name, loss in result["by_context"].items():
        by_context[name] = f"{loss:.3f}"
    return "\n".join(table(columns, [columns.values()])
                     for columns in (of_all, by_part, by_position, by_context))


def _losses_by_name(losses: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: with_interval(loss["nats_per_note"], loss["interval"])
            for name, loss in losses.items()}


def with_interval(mean: float, interval: Sequence[float] | None) -> str:
    """A mean in figures, and its interval if it has one."""
    if not interval:
        return f"{mean:.3f}"
    low, high = interval
    return f"{mean:.3f} ({low:.3f}–{high:.3f})"


# ---------------------------------------------------------------- drift


def drift_as_markdown(drift: dict[str, Any]) -> str:
    """The drift in a sentence, and in a table by place in the song."""
    places = {"all": drift, **drift["by_position"]}
    rows = []
    for kind in ("own", "real"):
        n_songs = drift[f"{kind}_songs"]
        losses = (place[kind] for place in places.values())
        cells = [with_interval(loss["nats_per_note"], loss["interval"])
                 for loss in losses]
        rows.append([f"{n_songs} {kind} songs", *cells])
    cells = [_with_sign(place["drift"], place["interval"])
             for place in places.values()]
    rows.append(["drift", *cells])
    own = drift["own"]["nats_per_note"]
    real = drift["real"]["nats_per_note"]
    sentence = (f"its own songs {own:.3f}, real ones {real:.3f} nats per note: drift "
                f"{drift['drift']:+.3f}")
    return sentence + "\n\n" + table(["notes of the song", *places], rows)


def _with_sign(drift: float, interval: Sequence[float] | None) -> str:
    if not interval:
        return f"{drift:+.3f}"
    low, high = interval
    return f"{drift:+.3f} ({low:+.3f} to {high:+.3f})"


# ---------------------------------------------------------------- songs


def songs_as_markdown(result: dict[str, Any]) -> str:
    """The verdicts, how generated songs are told from real ones, and what they copy."""
    paragraphs = [_verdicts(result)]
    for kind, reasons in result["left_out"].items():
        if reasons:
            first = reasons[0]
            paragraphs.append(f"Left out: {len(reasons)} {kind} songs; the first: {first}\n")
    if result["told_apart"]:
        paragraphs.append(_difference(Difference(**result["told_apart"])))
    if result["copies"]:
        paragraphs.append(_copies(result["copies"]))
    return "\n".join(paragraphs)


def _verdicts(result: dict[str, Any]) -> str:
    verdicts = [Verdict(**measure) for measure in result["measures"]]
    rows = []
    for verdict in verdicts:
        rows.append([
            verdict.name,
            f"{verdict.real:.3f}",
            f"{verdict.low:.3f} – {verdict.high:.3f}",
            f"{verdict.generated:.3f}",
            "inside" if verdict.inside else "**outside**",
        ])
    n_inside = result["inside"]
    share = n_inside / len(verdicts)
    sentence = (f"{result['generated']} generated songs beside {result['real']} real ones cut to "
                f"their lengths: {n_inside} of {len(verdicts)} measures inside the band of real "
                f"songs ({share:.0%}).")
    return sentence + "\n\n" + table(["mean of", "real songs", "band", "generated", ""], rows)


def _difference(difference: Difference) -> str:
    measures = difference.by_measure[:GIVEAWAYS]
    giveaways = ", ".join(f"{name} ({area:.2f})" for name, area in measures)
    return (f"A random forest on all measures tells them apart with an AUC of {difference.auc:.3f} "
            f"({difference.low:.3f}–{difference.high:.3f}; 0.5: not at all; between two halves of "
            f"the real songs {difference.control:.3f}). By one measure alone: {giveaways}; above "
            f"0.5, generated songs have more of it.\n")


def _copies(copies: dict[str, Any]) -> str:
    head = ["longest run shared with training songs, in notes"]
    head += [f"percentile {share}" for share in PERCENTILES]
    rows = []
    for name, key in (("generated", "generated"), ("real songs", "real")):
        lengths = [copies[key][str(share)] for share in PERCENTILES]
        rows.append([name, *(f"{length:.0f}" for length in lengths)])
    sentence = (f"{copies['above']:.1%} of the generated songs share more than real ones do at "
                f"percentile {MARKED}.")
    return f"{table(head, rows)}\n{sentence}\n"
