"""Training from Python: a recipe in, a run out, and what is done with a run. `structune.finetune` has the names.

Importing this brings in neither torch nor PEFT: what a function needs is imported when it is called.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from structune.finetune.recipe.recipe import Recipe
from structune.finetune.run_folder import run

if TYPE_CHECKING:
    from rich.console import Console

    from structune.finetune.evaluate import Evaluation
    from structune.finetune.predict import Given, Row
    from structune.finetune.push import Upload


@dataclass(frozen=True)
class Run(run.Run):
    """A run in its folder, and what can be done with it once it is finished.

    `Run.finished("runs/reviews-c3a")` opens one from before. `metrics()`, `recipe()`, `history()` and `targets()` read
    what is there; `adapter` is the folder with the adapter, which plain PEFT loads too.
    """

    def predict(self, given: Given, rows: int = 512) -> list[Row]:
        """What the run says about each row, beside the columns that the row has.

        The model is loaded each time; `structune.finetune.Predictor(folder)` is called in the same way, and keeps it.

        Args:
            given: a file; a text; several texts; or rows as mappings with the columns that the run reads.
            rows: how many are worked on at a time.

        Raises:
            UserError: the rows do not work.
        """
        from structune.finetune.predict import predict

        return predict(self.folder, given, rows)

    def predict_to(self, given: Given, out: str | Path, *, overwrite: bool = False) -> int:
        """`predict` into a file that ends with .csv, .jsonl or .parquet, for any number of rows; how many there are.

        Raises:
            UserError: the rows or the file do not work; then no file is there.
        """
        from structune.finetune.predict import write_predictions

        return write_predictions(self.folder, given, Path(out), overwrite=overwrite)

    def evaluate(self, data: str | Path | None = None, part: str | None = None) -> Evaluation:
        """Scores on a part of the run's own examples, `validation` or `test`, or on a file with the same columns.

        By default on the test part where there is one, else on the validation part.

        Raises:
            UserError: the run or the file does not work.
        """
        from structune.finetune.evaluate import evaluate

        return evaluate(self.folder, data, part=part)

    def merge(self, out: str | Path) -> float:
        """Write the model with the adapter merged into it to a new folder.

        Returns:
            by how much its outputs differ from the unmerged, relative to the largest.

        Raises:
            UserError: the run does not work, `out` holds something, or merging changes the outputs.
        """
        from structune.finetune.merge import merge

        return merge(self.folder, out)

    def push_to_hub(self, name: str, *, private: bool = False, dry_run: bool = False) -> Upload:
        """Upload the adapter and its card to the hub; with `dry_run` only say what would be, without a network.

        Raises:
            UserError: the run is not finished, the name is none, or the hub refuses.
        """
        from structune.finetune.push import push

        return push(self.folder, name, private=private, dry_run=dry_run)


def train(
    recipe: Recipe | Mapping[str, Any],
    *,
    resume: bool = False,
    overwrite: bool = False,
    console: Console | None = None,
) -> Run:
    """Fine-tune as a recipe says, and return the finished run.

    Args:
        recipe: a recipe, or a mapping that is one.
        resume: go on from the last checkpoint of an unfinished run of the same recipe, on the same data.
        overwrite: replace the run that is in the output folder. What else is in there stays.
        console: where progress is shown (a `rich.console.Console`); nowhere by default.

    Raises:
        UserError: the recipe, the data, the model or the output folder does not work, and nothing was written.
        Diverged: numbers ran away; nothing was saved since the last checkpoint.
        Interrupted: a signal such as Ctrl-C asked for the end; a checkpoint was saved.
    """
    known = recipe if isinstance(recipe, Recipe) else Recipe.parse(dict(recipe))
    from structune.finetune import training

    return Run(training.train(known, resume=resume, overwrite=overwrite, console=console).folder)
