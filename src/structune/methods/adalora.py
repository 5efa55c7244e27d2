"""AdaLoRA: low rank, given to the layers that use it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from structune.methods.method import Count, LearningRates, PeftMethod, Probability
from structune.palette import GREEN

if TYPE_CHECKING:
    import peft
    from torch import nn
    from transformers import TrainerCallback
    from typing_extensions import Self  # in typing from Python 3.11 on

Share = Annotated[float, Field(ge=0, lt=1)]


class AdaLoRA(PeftMethod):
    """Low-rank adaptation as P Λ Q, whose entries of Λ are set to 0 where they matter least (arXiv 2303.10512).

    All layers begin with `initial_rank`; between the shares `begin` and 1 − `end` of the steps the ranks fall until
    they are `rank` on average. `penalty` keeps P and Q orthogonal: its gradient, that of the penalty times the mean of
    ‖Pᵀ P − 1‖ and ‖Q Qᵀ − 1‖, is added after gradients are clipped, whatever the task's loss is. Numbers are counted
    before any are set to 0.
    """

    name: Literal["adalora"] = "adalora"
    rank: Count = 8
    initial_rank: Count = 12
    alpha: Count = 32
    dropout: Probability = 0.0
    begin: Share = 0.1
    end: Share = 0.3
    penalty: Annotated[float, Field(ge=0)] = 0.5

    colour: ClassVar[str] = GREEN
    marker: ClassVar[str] = "^"

    def rates(self) -> LearningRates:
        return LearningRates(adapter=5e-3)

    def config(self, **common: Any) -> peft.PeftConfig:
        import peft

        # How many steps there are is known when training begins. PEFT's own penalty would be in scores as well.
        return peft.AdaLoraConfig(
            init_r=self.initial_rank, target_r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout,
            orth_reg_weight=0.0, total_step=1, **common,
        )  # fmt: skip

    def mend(self, model: nn.Module) -> None:
        """PEFT's forward asks a loaded adapter for what only a trained one has."""
        tuner: Any = model.base_model
        if "trainable_adapter_name" not in vars(tuner):
            tuner.trainable_adapter_name = "default"

    def callbacks(self, model: nn.Module) -> list[TrainerCallback]:
        from structune.methods.parts.rank_allocation import RankAllocation

        return [RankAllocation(model.base_model, self.begin, self.end, self.penalty)]

    @model_validator(mode="after")
    def _falls(self) -> Self:
        if self.initial_rank <= self.rank:
            raise ValueError(f"initial_rank = {self.initial_rank}: ranks fall to rank = {self.rank}; give a larger one")
        if self.begin + self.end >= 1:
            raise ValueError(f"begin = {self.begin:g} and end = {self.end:g} leave no step in which ranks could fall")
        return self
