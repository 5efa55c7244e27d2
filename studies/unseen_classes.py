"""Samples of horses and ships before and after `structune study studies/unseen-classes.yaml`, and their figure.

    python studies/unseen_classes.py [--runs runs/unseen-classes] [--out studies/results/unseen-classes]
    python studies/unseen_classes.py --figure docs/results/assets/unseen-classes-samples.webp

The first wants the folders of the runs, one of each method: the chosen rate and the first seed. It writes a row of
samples for each into `samples` beside the results, all from the same noise, and the loss of the denoiser that was not
adapted into `before.json`. The second draws the rows that are there, and wants nothing else.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import statistics
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from structune.figure_style import method_style
from structune.palette import GREY, INK
from structune.study.results.counted import summaries
from structune.study.results.files import Results, Wanted
from structune.study.search.points import Point
from structune.study.study_file import Study

STUDY = Path(__file__).with_name("unseen-classes.yaml")
PROMPTS = ["a horse", "a ship"]
EACH = 8
STEPS, GUIDANCE = 30, 2.5


def chosen(plan: Study, results: Results) -> Iterator[tuple[dict[str, Any], Wanted]]:
    """What `summaries` says of each method, and its run of the first seed."""
    methods = plan.settings()
    for row in summaries(plan, results):
        label = row["method"]
        yield row, Wanted(row["task"], label, methods[label], Point(row["rate"]), plan.seeds[0])


def row_of(wanted: Wanted, results: Results) -> Path:
    """Where its samples are."""
    return results.folder / "samples" / f"{Path(wanted.name).name}.png"


def sample(loaded: Any, adapted: bool, path: Path, steps: int) -> None:
    """Draw a row of samples, from the same noise whatever was trained."""
    import torch
    from PIL import Image

    pipeline = loaded.base.processor.for_images(loaded.base.model)
    pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
    prompts = [prompt for prompt in PROMPTS for _ in range(EACH)]
    noise = [torch.Generator().manual_seed(number) for number in range(len(prompts))]
    with nullcontext() if adapted else loaded.model.disable_adapter():
        made = pipeline(prompts, generator=noise, num_inference_steps=steps, guidance_scale=GUIDANCE).images
    row = Image.new("RGB", (sum(image.width for image in made), made[0].height))
    for number, image in enumerate(made):
        row.paste(image, (number * image.width, 0))
    path.parent.mkdir(parents=True, exist_ok=True)
    row.save(path)


def loss_before(loaded: Any, test: Path) -> float:
    """The denoising loss of the denoiser without its adapter."""
    import numpy as np
    import torch
    from accelerate.utils import send_to_device

    from structune.finetune.task_data import load_file

    task, base, recipe = loaded.recipe.task, loaded.base, loaded.recipe
    device = "cuda" if torch.cuda.is_available() else "cpu"
    examples = load_file(test, task, recipe.data, loaded.targets)
    encoded, collate = task.encode(examples, base, loaded.targets, recipe.data), task.collator(base, training=False)
    errors = []
    with torch.no_grad(), loaded.model.to(device).eval().disable_adapter():
        for start in range(0, len(encoded), 64):
            batch = collate([encoded[row] for row in range(start, min(start + 64, len(encoded)))])
            errors.append(task.step(loaded.model, send_to_device(batch, device))[1].cpu().numpy())
    return float(np.concatenate(errors).mean(dtype="float64"))


def draw_samples(plan: Study, results: Results, runs: Path, steps: int) -> None:
    """A row for each method whose run is there, and one of the denoiser as it was."""
    from structune.finetune.evaluate import load_run

    before = results.folder / "before.json"
    for _, wanted in chosen(plan, results):
        path = row_of(wanted, results)
        folder = next((found for found in sorted(runs.rglob(f"runs/{wanted.name}")) if found.is_dir()), None)
        if path.exists() or folder is None:
            continue
        loaded = load_run(folder)
        if not before.exists() and hasattr(loaded.model, "disable_adapter"):
            test = folder.parents[2] / "data" / wanted.task / "test.csv"
            before.parent.mkdir(parents=True, exist_ok=True)
            before.write_text(json.dumps({plan.scores()[wanted.task].key: loss_before(loaded, test)}) + "\n")
            sample(loaded, False, results.folder / "samples" / "before.png", steps)
        sample(loaded, True, path, steps)
        print(f"sampled {wanted.name}", flush=True)


def draw_figure(plan: Study, results: Results, path: Path, only: str) -> None:
    """The rows below each other, most numbers first, with their numbers and losses."""
    from matplotlib.figure import Figure
    from PIL import Image

    (metric,) = plan.scores().values()
    before = json.loads((results.folder / "before.json").read_text())[metric.key]
    entries = [(results.folder / "samples" / "before.png", "not adapted", INK, f"loss {before:.4f}")]
    found = sorted(chosen(plan, results), key=lambda pair: -pair[0]["numbers"])
    for row, wanted in found:
        if re.search(only, wanted.label) and (file := row_of(wanted, results)).exists():
            said = f"{row['numbers']:,} numbers, {statistics.mean(row['test']):.4f}"
            entries.append((file, row["method"], method_style(wanted.method.label)[0], said))
    height = 0.42
    figure = Figure(figsize=(8.8, height * len(entries) + 0.3), dpi=200)
    axes = figure.subplots(len(entries), 1, squeeze=False)[:, 0]
    figure.subplots_adjust(left=0.21, right=0.995, top=1 - 0.26 / figure.get_figheight(), bottom=0.01, hspace=0.06)
    for panel, (file, title, colour, said) in zip(axes, entries, strict=True):
        with Image.open(file) as row:
            panel.imshow(row.convert("RGB"), interpolation="nearest", aspect="auto")
        panel.set_axis_off()
        across = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "right", "annotation_clip": False}
        panel.annotate(title, (0, 0.5), (-6, 1), color=colour, fontsize=8, fontweight="bold", va="bottom", **across)
        panel.annotate(said, (0, 0.5), (-6, -1), color=INK, fontsize=6.5, va="top", **across)
    for number, prompt in enumerate(PROMPTS):
        place = ((number + 0.5) / len(PROMPTS), 1)
        axes[0].annotate(
            prompt, place, (0, 3), xycoords="axes fraction", textcoords="offset points", ha="center",
            fontsize=8, color=GREY, annotation_clip=False,
        )  # fmt: skip
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    with Image.open(drawn) as whole:
        whole.convert("RGB").save(path, quality=85)


def main() -> None:
    """Draw samples, or the figure."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument(
        "--runs", type=Path, default=Path("runs/unseen-classes"), help="a folder that holds the runs"
    )
    arguments.add_argument("--out", type=Path, default=STUDY.parent / "results" / "unseen-classes", help="the results")
    arguments.add_argument("--figure", type=Path, help="draw this file from the samples that are there")
    arguments.add_argument("--only", default="", help="what a method's label must have a match of, in the figure")
    arguments.add_argument("--steps", type=int, default=STEPS, help="of each sample")
    given = arguments.parse_args()
    plan, results = Study.load(STUDY), Results(given.out)
    if given.figure:
        draw_figure(plan, results, given.figure, given.only)
    else:
        draw_samples(plan, results, given.runs, given.steps)


if __name__ == "__main__":
    main()
