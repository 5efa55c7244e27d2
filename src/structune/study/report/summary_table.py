"""The test scores of a study as Markdown, and where in a page they stand."""

from __future__ import annotations

import re
from pathlib import Path

from structune.errors import UserError
from structune.files import write_text
from structune.finetune.markdown import markdown_row
from structune.study.report.cells import said
from structune.study.report.score_text import number, spread, titled
from structune.study.results.counted import summaries
from structune.study.results.files import Results
from structune.study.search.points import Point
from structune.study.study_file import Study


def table(plan: Study, results: Results) -> str:
    """The test scores as Markdown: a table for each task, sorted by the numbers that are trained."""
    rows = list(summaries(plan, results))
    text: list[str] = []
    for task, metric in plan.scores().items():
        own = sorted((row for row in rows if row["task"] == task), key=lambda row: (row["numbers"], row["method"]))
        text += [f"**{task}**, {titled(metric)} on the test part:", ""]
        text += [
            "| method | trained numbers | learning rate | validation | test | seeds |",
            "|---|---:|---:|---:|---:|---|",
        ]
        text += [
            markdown_row(
                [
                    row["method"], f"{row['numbers']:,}", said(Point.of_run(row)), spread(row["validation"], metric),
                    spread(row["test"], metric), ", ".join(map(str, row["seeds"])),
                ]
            )
            for row in own
        ]  # fmt: skip
        if before := [row["untrained"] for row in own if row["untrained"] is not None]:
            ends = dict.fromkeys(number(end, metric) for end in (min(before), max(before)))  # some start at random
            text += ["", f"Before training: {' to '.join(ends)} on the validation part."]
        text += [""]
    return "\n".join(text)


def put_into(page: Path, name: str, text: str) -> None:
    """Replace what a page has between `<!-- NAME -->` and `<!-- end of NAME -->`.

    Raises:
        UserError: the page has no such place, or cannot be read.
    """
    try:
        content = page.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"--page {str(page)!r}: cannot be read ({error.strerror})") from None
    place = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end of {re.escape(name)} -->)", re.DOTALL)
    if not place.search(content):
        raise UserError(
            f"--page {str(page)!r}: has no lines <!-- {name} --> and <!-- end of {name} -->; put them there"
        )
    write_text(page, place.sub(lambda found: f"{found[1]}\n{text}\n{found[2]}", content))
