"""The page docs/benchmarks.md: its tables and figures, written anew from the results."""

from __future__ import annotations

import re
from pathlib import Path

from structune.bench.figures import draw
from structune.bench.folder import SUITES
from structune.bench.markdown import to_markdown
from structune.bench.results import Results
from structune.bench.run import RESULTS
from structune.errors import UserError
from structune.files import write_text

PAGE = Path("docs/benchmarks.md")
DEVICES = {"cpu": "On a CPU", "cuda": "On a GPU (CUDA)"}


def write_page(root: Path = Path()) -> list[Path]:
    """Rewrite what lies between the page's markers, and draw the figures into docs/assets.

    Args:
        root: the checkout.

    Returns:
        the files written.

    Raises:
        UserError: this is no checkout, a marker is missing, or a result cannot be read.
    """
    text = page_text(root)
    written = []
    for path in whole_results(root / RESULTS):
        picture = root / PAGE.parent / _picture(path)
        draw(Results.load(path), picture)
        written.append(picture)
    write_text(root / PAGE, text)
    return [root / PAGE, *written]


def page_text(root: Path) -> str:
    """The page as it should be."""
    page = root / PAGE
    if not page.is_file():
        raise UserError(f"{page}: no such file; run `structune bench --docs` at the top of a checkout")
    text = page.read_text(encoding="utf-8")
    results = {path: Results.load(path) for path in whole_results(root / RESULTS)}
    for suite in SUITES:
        begin, end = f"<!-- bench:{suite} -->", f"<!-- /bench:{suite} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise UserError(f"{page}: expected the lines {begin} and {end} once each")
        mine = {path: found for path, found in results.items() if found.suite["name"] == suite}
        inside = re.compile(f"{re.escape(begin)}.*{re.escape(end)}", re.DOTALL)
        section = f"{begin}\n\n{_section(mine)}\n\n{end}"
        text = inside.sub(lambda _, section=section: section, text)  # type: ignore[misc]
    return text


def whole_results(folder: Path) -> list[Path]:
    """The JSON files of whole runs: not of quick, partial or stopped ones."""
    return [
        path for path in sorted(folder.glob("*.json")) if not re.search(r"(-quick|-part|\.partial)\.json$", path.name)
    ]


def _section(results: dict[Path, Results]) -> str:
    parts = []
    for device, heading in DEVICES.items():
        parts.append(f"### {heading}")
        mine = {path: found for path, found in results.items() if found.device == device}
        parts += [to_markdown(found, str(_picture(path))) for path, found in mine.items()] or ["Not measured yet."]
    return "\n\n".join(parts)


def _picture(result: Path) -> Path:
    """The figure of a result file, from the page's folder."""
    return Path("assets") / f"bench-{result.stem}.png"
