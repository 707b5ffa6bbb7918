"""The HTML report of a sweep: its tables, and a picture of the scores of all seeds."""

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
from gt.schema import format_number
from gt.train.page import page, picture, render

MAX_DRAWN = 40  # settings in the picture, the best ones
MAX_LABEL = 60  # characters


def points(outcome: Outcome) -> Figure:
    """Plot the final score of each run and the mean of each setting with its interval, best by validation on top."""
    settings = outcome.same_criterion[:MAX_DRAWN]
    names = outcome.labels[: len(settings)]
    figure = Figure(figsize=(8, 1.4 + 0.42 * len(settings)), layout="constrained")
    axes = figure.subplots()
    extent: list[float] = []
    for row, jobs in enumerate(settings):
        scores = [final(job) for job in jobs]
        axes.plot(scores, [row - 0.12] * len(scores), "o", ms=5, alpha=0.5, color="#4477aa", mew=0, label="one run")
        mean = Estimate.of(scores)
        extent += scores
        if not math.isnan(mean.low):
            extent += [mean.low, mean.high]
            errors = [[mean.mean - mean.low], [mean.high - mean.mean]]
            axes.errorbar(mean.mean, row + 0.16, xerr=errors, fmt="|", ms=8, color="#222222", capsize=3, lw=1.2,
                          label="mean, 95 % interval")  # fmt: skip
    extent = [end for end in extent if math.isfinite(end)] or [0.0]
    span, out_of_range, jobs = max(extent) - min(extent), "", [job for each in settings for job in each]
    for name, score, style in (("trivial baseline", trivial, "--"), ("classical baseline", classical, "-.")):
        baselines = [value for job in jobs if (value := score(job)) is not None and math.isfinite(value)]
        if baselines and min(extent) - span <= fmean(baselines) <= max(extent) + span:
            axes.axvline(fmean(baselines), color="grey" if style == "--" else "#cc6677", ls=style, lw=1.2, label=name)
        elif baselines:
            out_of_range += f"; {name} {format_number(fmean(baselines))}, out of range"
    axes.set(xlabel=outcome.measure + out_of_range, ylim=(len(settings) - 0.5, -0.5))
    axes.set_yticks(range(len(settings)), [short(name, MAX_LABEL) for name in names])
    axes.grid(axis="x", alpha=0.3)
    better = "further right is better" if jobs[0]["mode"] == "max" else "further left is better"
    axes.set_title(f"{len(jobs)} runs, best setting by validation on top; {better}", fontsize=9)
    entries = dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def _interval_note(outcome: Outcome) -> str:
    """A note on which variation the intervals cover, by what the runs of a setting differ in."""
    lines = [line for jobs in outcome.settings for job in jobs for line in repetition(job)]
    if all(line.partition("=")[0] == "seed" for line in lines):
        return "It covers the variation between seeds, but not other data or another split."
    return "Runs differ in their split; as splits share training samples, the interval is somewhat too narrow."


def write_page(folder: Path, outcome: Outcome, command: str) -> Path:
    """Write ``ranking.html`` and its picture ``ranking.png``; returns the page's path.

    Args:
        command: the command that reruns the best job.
    """
    with mpl.rc_context({"font.size": 9}):
        figure = points(outcome)
        key_figures = pictures(outcome.same_criterion, outcome.importance)
    png = render(figure)
    write_bytes(folder / "ranking.png", png)
    best, total = len(outcome.same_criterion[:MAX_DRAWN]), len(outcome.settings)
    omitted = f" Only the {best} best of {total} settings are drawn." if len(outcome.same_criterion) > MAX_DRAWN else ""
    if outcome.metric_column:
        omitted += (
            f" Only settings measured by {outcome.settings[0][0]['criterion']} are drawn; the others are in the tables."
        )
    text = (
        "A dot is one run; a bar is the mean of a setting with its 95 % confidence interval, by Student's t over its "
        f"runs. {_interval_note(outcome)}{omitted} Differences are paired by seed and split; of twenty settings that "
        "do not differ, about one will seem to."
    )
    body = [
        f"<p>Overrides of all runs: <code>{html.escape(' '.join(outcome.shared) or 'none')}</code>.</p><p>{text}</p>",
        picture(figure, "scores of all runs", png),
        *(sheet.html() for sheet in outcome.sheets()),
        *(f"<h2>{title}</h2>{picture(drawing, title)}" for title, drawing in key_figures.items()),
        f"<h2>to rerun the best</h2><p><code>{html.escape(command)}</code></p>",
    ]
    write_bytes(folder / "ranking.html", page(folder.name, "".join(body)).encode())
    return folder / "ranking.html"
