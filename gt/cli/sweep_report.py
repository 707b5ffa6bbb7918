"""The page that a sweep leaves behind: its tables, and the scores of all seeds in a picture."""

import html
import math
from pathlib import Path
from statistics import fmean

import matplotlib as mpl
from matplotlib.figure import Figure

from gt.cli.intervals import Estimate
from gt.cli.settings import final, repetition
from gt.cli.sweep_pictures import pictures, short
from gt.cli.sweep_tables import Outcome, classical, trivial
from gt.data.files import write_bytes
from gt.schema import number
from gt.train.page import drawn, page, picture

MOST = 40  # settings that are drawn, the best ones
LONGEST = 60  # letters of a label


def points(outcome: Outcome) -> Figure:
    """Each run's final score, and the mean of each setting with its interval; the best by validation on top."""
    settings = outcome.alike[:MOST]
    names = outcome.labels[: len(settings)]
    figure = Figure(figsize=(8, 1.4 + 0.42 * len(settings)), layout="constrained")
    axes = figure.subplots()
    ends: list[float] = []
    for row, jobs in enumerate(settings):
        scores = [final(job) for job in jobs]
        axes.plot(scores, [row - 0.12] * len(scores), "o", ms=5, alpha=0.5, color="#4477aa", mew=0, label="one run")
        mean = Estimate.of(scores)
        ends += scores
        if not math.isnan(mean.low):
            ends += [mean.low, mean.high]
            reach = [[mean.mean - mean.low], [mean.high - mean.mean]]
            axes.errorbar(mean.mean, row + 0.16, xerr=reach, fmt="|", ms=8, color="#222222", capsize=3, lw=1.2,
                          label="mean, 95 % interval")  # fmt: skip
    ends = [end for end in ends if math.isfinite(end)] or [0.0]
    span, beyond, jobs = max(ends) - min(ends), "", [job for each in settings for job in each]
    for name, score, style in (("trivial baseline", trivial, "--"), ("classical baseline", classical, "-.")):
        known = [value for job in jobs if (value := score(job)) is not None and math.isfinite(value)]
        if known and min(ends) - span <= fmean(known) <= max(ends) + span:
            axes.axvline(fmean(known), color="grey" if style == "--" else "#cc6677", ls=style, lw=1.2, label=name)
        elif known:
            beyond += f"; {name} {number(fmean(known))}, outside the picture"
    axes.set(xlabel=outcome.measure + beyond, ylim=(len(settings) - 0.5, -0.5))
    axes.set_yticks(range(len(settings)), [short(name, LONGEST) for name in names])
    axes.grid(axis="x", alpha=0.3)
    better = "further right is better" if jobs[0]["mode"] == "max" else "further left is better"
    axes.set_title(f"{len(jobs)} runs, best setting by validation on top; {better}", fontsize=9)
    entries = dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def _held(outcome: Outcome) -> str:
    """What the runs of a setting differ in, and what their interval therefore says nothing of."""
    lines = [line for jobs in outcome.settings for job in jobs for line in repetition(job)]
    if all(line.partition("=")[0] == "seed" for line in lines):
        return "It says how much seeds matter, and nothing of other data or another split."
    return "Runs differ in their split; as splits share what is trained on, the interval is rather too narrow."


def write_page(folder: Path, outcome: Outcome, again: str) -> Path:
    """Write ``ranking.html`` and its picture ``ranking.png``; returns the page's path.

    Args:
        again: the command that runs the best again.
    """
    with mpl.rc_context({"font.size": 9}):
        figure = points(outcome)
        further = pictures(outcome.alike, outcome.importance)
    png = drawn(figure)
    write_bytes(folder / "ranking.png", png)
    best, every = len(outcome.alike[:MOST]), len(outcome.settings)
    left = f" The {best} best of {every} settings." if len(outcome.alike) > MOST else ""
    if outcome.metric:
        left += f" Drawn are settings that go by {outcome.settings[0][0]['criterion']}, the others in the tables alone."
    text = (
        "A dot is one run; a bar is the mean of a setting with the interval that holds it in 95 of 100 such sweeps, by "
        f"Student's t over its runs. {_held(outcome)}{left} A difference is taken in pairs of runs of the same "
        "seed and split; of twenty settings that do not differ, one seems to."
    )
    body = [
        f"<p>Overrides of all runs: <code>{html.escape(' '.join(outcome.shared) or 'none')}</code>.</p><p>{text}</p>",
        picture(figure, "scores of all runs", png),
        *(sheet.html() for sheet in outcome.sheets()),
        *(f"<h2>{title}</h2>{picture(each, title)}" for title, each in further.items()),
        f"<h2>the best again</h2><p><code>{html.escape(again)}</code></p>",
    ]
    write_bytes(folder / "ranking.html", page(folder.name, "".join(body)).encode())
    return folder / "ranking.html"
