"""The head of a classifier: a new one that is trained, or the pretrained one that is matched with other classes."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import model_validator

from structune.doubt import say
from structune.tasks.parts.classes.classification import Classification, class_options
from structune.tasks.task import Base, Targets

if TYPE_CHECKING:
    from transformers import TrainerCallback

FIGURE = "matching.png"
_NO_ANSWERS = "there are no answers to match; use task.head: new, or a model that can classify"


class ClassHead(Classification, ABC):
    """Classification by the head of a classifier, which is new, or the pretrained one matched with the classes.

    Of `head`, `new` is one that is trained. `match` keeps the pretrained head and trains none: each class is answered
    by an output of its own, the one that fits the answers of the frozen model (HyDRA, MERL TR2024-157). `bayes` keeps
    it too: each class is answered by all outputs, by what they say for it (arXiv 2410.24018). With `rematch: epoch`
    that is found out anew at the start of each epoch (arXiv 2211.11635).
    """

    head: Literal["new", "match", "bayes"] = "new"
    rematch: Literal["never", "epoch"] = "never"

    figures: ClassVar[tuple[str, ...]] = (*Classification.figures, FIGURE)

    @model_validator(mode="after")
    def _something_to_rematch(self) -> ClassHead:
        if self.head == "new" and self.rematch != "never":
            raise ValueError("rematch: a new head is trained, not matched; use head: match, or remove rematch")
        return self

    def trains_head(self) -> bool:
        return self.head == "new"

    def head_options(self, targets: Targets) -> dict[str, Any]:
        """Arguments with which `parts.pretrained.load_pretrained` loads the model with this head."""
        return class_options(targets) if self.head == "new" else {"with_its_head": _NO_ANSWERS}

    def with_head(self, base: Base, name: str, targets: Targets) -> Base:
        """The base that was loaded so, knowing its pretrained head where it is kept.

        Args:
            base: model and processor.
            name: of the model, for messages.
            targets: with the names of the classes.

        Raises:
            UserError: the pretrained head cannot be matched with these classes.
        """
        if self.head == "new":
            return base
        from structune.tasks.parts.matching.head import MatchedBase

        return MatchedBase.of(base, name, targets["classes"], self.head)

    def prepare(self, base: Base, train: Sequence[Mapping[str, Any]], data: Any, device: str) -> Mapping[str, Any]:
        if self.head == "new":
            return {}
        from structune.tasks.parts.matching.head import MatchedBase

        assert isinstance(base, MatchedBase)  # `with_head` made it
        matching = base.find(self.head, train, self.collator(base, training=False), device)
        lacking = [repr(base.targets[target]) for target in matching.unanswered()]
        if lacking:
            more = ", ..." if len(lacking) > 5 else ""
            say(
                [
                    f"task.head = {self.head!r}: no output was left that answers for {', '.join(lacking[:5])}{more}; "
                    f"before training the model cannot tell them from others"
                ]
            )
        return matching.to_json()

    def equip(self, base: Base, prepared: Mapping[str, Any]) -> Base:
        if self.head == "new":
            return super().equip(base, prepared)
        self.restore(base, prepared)
        return base

    def restore(self, base: Base, prepared: Mapping[str, Any]) -> None:
        if self.head == "new":
            return
        from structune.tasks.parts.matching.head import MatchedBase
        from structune.tasks.parts.matching.matching import Matching

        assert isinstance(base, MatchedBase)
        base.use(Matching.from_json(prepared))

    def callbacks(self, base: Base) -> list[TrainerCallback]:
        if self.rematch == "never":
            return []
        from structune.tasks.parts.matching.head import MatchedBase, Rematching

        assert isinstance(base, MatchedBase)
        return [Rematching(base, self.collator(base, training=False))]

    def found(self, prepared: Mapping[str, Any], targets: Targets) -> dict[str, dict[str, dict[str, Any]]]:
        if self.head == "new" or not prepared:
            return {}
        from structune.tasks.parts.matching.matching import Matching

        return {"matching": Matching.from_json(prepared).rows(targets["classes"])}

    def draw_found(self, prepared: Mapping[str, Any], targets: Targets, folder: Path) -> list[Path]:
        if self.head == "new" or not prepared:
            return []
        from structune.tasks.parts.matching.figure import draw_matching
        from structune.tasks.parts.matching.matching import Matching

        return [draw_matching(Matching.from_json(prepared), targets["classes"], folder / FIGURE)]

    def loading_head(self, base: Base) -> str:
        """Lines for `loading` that give the loaded model its matched head; none where it is new."""
        if self.head == "new":
            return ""
        from structune.tasks.parts.matching.head import MatchedBase, loading_lines

        assert isinstance(base, MatchedBase)
        return loading_lines(base)
