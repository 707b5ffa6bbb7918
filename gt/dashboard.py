"""``python -m gt.dashboard``: set up a W&B workspace and a report for the runs of a project.

Writes both as JSON; ``--upload`` also saves them at W&B, as a view of the project and a draft report.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gt.cli.program import importing, quick_exit
from gt.errors import Parser, UserError, first_line, one_line


def arguments() -> argparse.Namespace:
    parser = Parser(prog="python -m gt.dashboard", description=__doc__)
    parser.add_argument("--entity", default="", help="team or user (default: your own)")
    parser.add_argument("--project", default="gt", help="default: gt")
    parser.add_argument("--metric", default="accuracy", help="the main metric, such as auroc (default: accuracy)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("dashboard.json"),
        help="output file, beside which the report is written (default: dashboard.json)",
    )
    parser.add_argument("--upload", action="store_true", help="save both at W&B; needs wandb login")
    return parser.parse_args()


def build_panels(metric: str) -> dict[str, list[Any]]:
    """Panels by section, for the names that `gt` logs, see ``docs/tutorials/cluster.md``."""
    import wandb_workspaces.reports.v2 as panels

    def line(*names: str, title: str) -> Any:
        return panels.LinePlot(x="trainer/global_step", y=list(names), title=title)

    return {
        "Result": [
            panels.ScalarChart(metric=f"result/{metric}", title=f"test {metric}"),
            panels.BarPlot(metrics=[f"result/{metric}", f"baseline/{metric}"], title="against the trivial baseline"),
            panels.ParallelCoordinatesPlot(
                columns=[
                    panels.ParallelCoordinatesPlotColumn(metric=name)
                    for name in ("c::optim.lr", "c::model.depth", "c::model.width", f"result/{metric}")
                ],
                title="settings and score",
            ),
        ],
        "Training": [
            line("train/loss", "valid/loss", title="loss"),
            line(f"valid/{metric}", title=f"validation {metric}"),
            panels.LinePlot(x="trainer/global_step", metric_regex="lr-.*", title="learning rate"),
            line("optim/gradient_norm", title="gradient norm before clipping"),
            line("optim/update_to_weight", title="update-to-weight ratio"),
            panels.LinePlot(x="trainer/global_step", metric_regex="blend/.*", title="share of attention by layer"),
        ],
        "Attention": [
            panels.LinePlot(x="trainer/global_step", metric_regex=f"attention/.*/{hop}", title=f"attention {far}")
            for hop, far in (
                ("hop_0", "to the node itself"),
                ("hop_1", "to neighbours"),
                ("hop_2", "two hops away"),
                ("hop_[3-6]", "three to six hops away"),
                ("further", "further away"),
            )
        ],
        "Speed": [
            panels.LinePlot(x="trainer/global_step", metric_regex="speed/.*", title="graphs, nodes, edges per second"),
            line("data/wait", "data/padding", title="shares of waiting for data and of padding"),
            line("memory/peak_gib", title="memory, GiB"),
        ],
        "Pictures": [
            panels.MediaBrowser(media_keys=[f"report/{name}"], title=name)
            for name in ("curves", "predictions", "blend", "reach", "distance")
        ],
    }


def workspace(entity: str, project: str, metric: str) -> Any:
    """The panels as a workspace view of a project."""
    from wandb_workspaces.workspaces import Section, Workspace

    sections = build_panels(metric).items()
    workspace_sections = [Section(name=name, panels=panels, is_open=name != "Speed") for name, panels in sections]
    return Workspace(name="gt", entity=entity, project=project, sections=workspace_sections)


def report(entity: str, project: str, metric: str, online: bool = False) -> Any:
    """The panels under headings, with the project's runs, as a report to which text can be added.

    Args:
        online: whether W&B may be asked for the project's ID; otherwise panels refer to the report's own project.
    """
    import wandb_workspaces.reports.v2 as reports

    blocks: list[Any] = [reports.TableOfContents()]
    for name, panels in build_panels(metric).items():
        runs = reports.Runset(entity=entity if online else "", project=project, name="runs")
        blocks += [reports.H2(name), reports.PanelGrid(runsets=[runs], panels=panels)]
    return reports.Report(project=project, entity=entity, title=f"{project}: {metric}", blocks=blocks)


@contextmanager
def wandb_errors() -> Iterator[None]:
    """Context manager around requests to W&B.

    Raises:
        UserError: W&B cannot be reached or refuses the request.
    """
    import requests
    import wandb

    try:
        yield
    except (wandb.errors.Error, requests.RequestException) as error:
        line = first_line(error)
        raise UserError(f"W&B cannot be reached: {line}; without --upload only the files are written") from None


def main() -> None:
    args = arguments()
    with importing():  # late, so that --help is answered at once
        from gt.data.files import write_bytes

        try:
            import wandb_workspaces  # noqa: F401
        except ImportError:
            raise UserError("this needs wandb-workspaces: pip install -e '.[dashboard]'") from None
    if args.upload:
        from gt.train.logging import online

        if not online():
            raise UserError("no W&B API key: run wandb login first, and leave WANDB_MODE unset")
    with wandb_errors():
        entity = args.entity
        if args.upload and not entity:
            import wandb

            entity = str(wandb.Api().default_entity)
        outputs = {
            args.out: workspace(entity, args.project, args.metric),
            args.out.with_stem(f"{args.out.stem}-report"): report(entity, args.project, args.metric, args.upload),
        }
        for name, (out, document) in zip(("workspace", "report"), outputs.items(), strict=True):
            write_bytes(out, document._to_model().model_dump_json(by_alias=True, indent=1).encode())
            print(f"{name:<10} {out}")
            if args.upload:
                saved = document.save(**({"draft": True} if name == "report" else {}))
                print(f"saved as   {saved.url}")


if __name__ == "__main__":
    with quick_exit(), one_line():
        main()
