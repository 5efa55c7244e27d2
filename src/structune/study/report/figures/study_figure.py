"""All tasks of a study in one figure, as pages of documentation show it."""

from __future__ import annotations

import math
from pathlib import Path

from structune.errors import UserError
from structune.figure_style import save
from structune.palette import INK
from structune.study.report.figures.drawn import plain_text
from structune.study.report.figures.scores import score_panel
from structune.study.report.line_looks import line_looks
from structune.study.results.counted import summaries
from structune.study.results.files import Results
from structune.study.study_file import Study

ACROSS = 3
"""How many panels are beside each other."""


def draw(plan: Study, results: Results, path: Path) -> None:
    """Test score against trained numbers, a panel for each task, a line for methods that differ in their size alone.

    Raises:
        UserError: nothing was scored yet, or the file cannot be written.
    """
    from matplotlib.figure import Figure

    rows = list(summaries(plan, results))
    if not rows:
        raise UserError("no run of the study has a test score yet: nothing to draw")
    across, looks = min(ACROSS, len(plan.tasks)), line_looks(plan)
    down = math.ceil(len(plan.tasks) / across)
    with plain_text():
        figure = Figure(figsize=(6 * across, 5 * down), dpi=160, layout="constrained")
        panels = list(figure.subplots(down, across, squeeze=False).flat)
        for panel in panels[len(plan.tasks) :]:
            panel.set_axis_off()
        for panel, (task, metric) in zip(panels, plan.scores().items(), strict=False):
            own = [row for row in rows if row["task"] == task]
            score_panel(panel, own, metric, looks)
            panel.set_title(task, loc="left", fontsize=10, color=INK)
            if own:
                panel.legend(fontsize=7, frameon=False)
        save(figure, path)
