"""Fine-tuning a pretrained model as a recipe says: the main job.

    run = train({"data": {"train": "reviews.csv"}, "method": "c3a"})
    run.predict("The soup was cold.")

Importing this brings in neither torch nor PEFT: each name is imported when it is first used.
"""

from typing import TYPE_CHECKING

from structune.lazy import lazy

if TYPE_CHECKING:
    from structune.finetune.evaluate import Evaluation
    from structune.finetune.interface import Run, train
    from structune.finetune.predict import Predictor
    from structune.finetune.push import Upload
    from structune.finetune.recipe.recipe import Recipe

__all__ = ["Evaluation", "Predictor", "Recipe", "Run", "Upload", "train"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "Evaluation": "structune.finetune.evaluate:Evaluation",
            "Predictor": "structune.finetune.predict:Predictor",
            "Recipe": "structune.finetune.recipe.recipe:Recipe",
            "Run": "structune.finetune.interface:Run",
            "Upload": "structune.finetune.push:Upload",
            "train": "structune.finetune.interface:train",
        },
    )
