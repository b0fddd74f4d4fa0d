"""Results of evaluate.py as tables of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from backline.evaluation.copy_index import MARKED, PERCENTILES
from backline.evaluation.statistics import Difference, Verdict
from backline.music.vocab import FIELDS

GIVEAWAYS = 5  # measures named by which generated songs are told from real ones


def losses_as_markdown(result: dict[str, Any]) -> str:
    """Tables of losses in nats per note: of all notes, of each part, by place in the song and in the context."""
    intervals = result.get("intervals") or {}
    of_all = {"songs": f"{result['songs']:,}", "notes": f"{result['notes']:,}",
              "nats per note": with_interval(result["nats_per_note"], result["interval"]),
              **{field: with_interval(result[field], intervals.get(field)) for field in FIELDS}}
    tables = [of_all]
    for title, key in (("part", "by_part"), ("notes of the song", "by_position")):
        tables.append({title: "nats per note", **{name: with_interval(of_notes["nats_per_note"], of_notes["interval"])
                                                  for name, of_notes in result[key].items()}})
    tables.append({"rows before": "nats per note", **{name: f"{loss:.3f}" for name, loss in
                                                      result["by_context"].items()}})
    return "\n".join(table(cells, [cells.values()]) for cells in tables)


def with_interval(mean: float, interval: Sequence[float] | None) -> str:
    return f"{mean:.3f}" + (f" ({interval[0]:.3f}–{interval[1]:.3f})" if interval else "")


def drift_as_markdown(drift: dict[str, Any]) -> str:
    """A line, and a table by place in the song."""
    places = {"all": drift, **drift["by_position"]}
    rows = []
    for kind in ("own", "real"):
        losses_of_kind = [place[kind] for place in places.values()]
        rows.append([f"{drift[f'{kind}_songs']} {kind} songs",
                     *(with_interval(each["nats_per_note"], each["interval"]) for each in losses_of_kind)])
    rows.append(["drift", *(with_sign(place["drift"], place["interval"]) for place in places.values())])
    return (f"its own songs {drift['own']['nats_per_note']:.3f}, real ones {drift['real']['nats_per_note']:.3f} nats "
            f"per note: drift {drift['drift']:+.3f}\n\n{table(['notes of the song', *places], rows)}")


def with_sign(drift: float, interval: Sequence[float] | None) -> str:
    return f"{drift:+.3f}" + (f" ({interval[0]:+.3f} to {interval[1]:+.3f})" if interval else "")


def songs_as_markdown(result: dict[str, Any]) -> str:
    """The verdicts, and how generated songs are told from real ones."""
    verdicts = [Verdict(**each) for each in result["measures"]]
    rows = [[each.name, f"{each.real:.3f}", f"{each.low:.3f} – {each.high:.3f}", f"{each.generated:.3f}",
             "inside" if each.inside else "**outside**"] for each in verdicts]
    lines = [f"{result['generated']} generated songs beside {result['real']} real ones cut to their lengths: "
             f"{result['inside']} of {len(verdicts)} measures inside the band of real songs "
             f"({result['inside'] / len(verdicts):.0%}).", "",
             table(["mean of", "real songs", "band", "generated", ""], rows)]
    for kind, reasons in result["left_out"].items():
        if reasons:
            lines.append(f"Left out: {len(reasons)} {kind} songs; the first: {reasons[0]}\n")
    if result["told_apart"]:
        difference = Difference(**result["told_apart"])
        giveaways = ", ".join(f"{name} ({area:.2f})" for name, area in difference.by_measure[:GIVEAWAYS])
        lines.append(f"A random forest on all measures tells them apart with an AUC of {difference.auc:.3f} "
                     f"({difference.low:.3f}–{difference.high:.3f}; 0.5: not at all; between two halves of the real "
                     f"songs {difference.control:.3f}). By one measure alone: {giveaways}; above 0.5, generated songs "
                     f"have more of it.\n")
    if result["copies"]:
        found = result["copies"]
        rows = [[kind, *(f"{found[name][str(share)]:.0f}" for share in PERCENTILES)]
                for kind, name in (("generated", "generated"), ("real songs", "real"))]
        lines += [table(["longest run shared with training songs, in notes", *(f"percentile {share}" for share in
                                                                               PERCENTILES)], rows),
                  f"{found['above']:.1%} of the generated songs share more than real ones do at percentile {MARKED}.\n"]
    return "\n".join(lines)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, ["---"] * len(head), *rows))
