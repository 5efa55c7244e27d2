"""The one configuration class; C3A and HyDRA are presets of it."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from peft import PeftConfig

from structune import pool, pool_maps, structures
from structune.options import OPTIONS, OptionsByModule, describes_options, takes_own_options
from structune.peft.registration import peft_type
from structune.peft.storage.checkpoint import check_adapter_folder
from structune.peft.storage.ordered import in_order
from structune.peft.storage.pretrained import add_to_card
from structune.peft.targets import check_layer_numbers, check_names, check_tokens
from structune.resolved import check_options
from structune.structures import registry


@describes_options
@takes_own_options
@dataclass
class StructuneConfig(OptionsByModule, PeftConfig):
    """Configuration of a structured adapter: structure × generators × grid, and where it goes.

    Options of the family's own, such as the rank of low_rank, are keywords as well (`rank=4`,
    `rank_pattern={"fc1": 8}`) and are kept in `structure_options`.

    Args:
        **options: what each update is made of, by name:
        dropout: probability with which entries of the adapter's input are zeroed during training, in [0, 1).
        target_modules: module names (list), a regular expression (str), or "all-linear"; None takes the usual ones of
            the architecture.
        exclude_modules: module names (list) or a regular expression (str) left out.
        target_parameters: parameters adapted by name (list), such as "experts.gate_up_proj": matrices (out, in) and
            stacks of them (experts, out, in). With these, no target_modules are taken by default.
        modules_to_save: further modules that are trained in full and saved, such as a classifier.
        trainable_token_indices: rows of the embedding that are trained in full and saved, such as those of new tokens:
            their numbers (list), or by the name of the embedding (dict).
        layers_to_transform: only layers of these indices (with a list of target_modules).
        layers_pattern: name of the layer list, where it is not one of the usual names.
        bias: which biases are trained: "none", "all" or "structune_only".
        <option>_pattern: other values of an option by module name or regular expression, such as
            block_size_pattern={"fc1": 256}.
        sampler_version: version of the index map and random numbers; set by the library.

    Raises:
        ValueError: an option is out of range or does not go with another; the message names it and the fix.
    """

    dropout: float = field(default=0.0, metadata={"help": "Dropout on the adapter's input."})
    target_modules: list[str] | str | None = field(default=None, metadata={"help": "Modules to adapt."})
    exclude_modules: list[str] | str | None = field(default=None, metadata={"help": "Modules to leave out."})
    target_parameters: list[str] | None = field(default=None, metadata={"help": "Parameters to adapt, by name."})
    modules_to_save: list[str] | None = field(default=None, metadata={"help": "Modules trained in full and saved."})
    trainable_token_indices: list[int] | dict[str, list[int]] | None = field(
        default=None, metadata={"help": "Rows of the embedding trained in full and saved."}
    )
    layers_to_transform: list[int] | int | None = field(default=None, metadata={"help": "Layer indices to adapt."})
    layers_pattern: list[str] | str | None = field(default=None, metadata={"help": "Name of the layer list."})
    bias: Literal["none", "all", "structune_only"] = field(default="none", metadata={"help": "Biases to train."})
    sampler_version: int = field(default=pool.SAMPLER_VERSION, metadata={"help": "Version of the sampler."})

    def __post_init__(self) -> None:
        PeftConfig.__post_init__(self)
        self._saved = self.peft_type is not None  # files say it, whoever makes a new configuration does not
        self.peft_type = peft_type()
        self.normalise()
        if self.pool_map is None:
            self.pool_map = pool_maps.OF_OLD if self._saved else pool_maps.DEFAULT
        if self.sampler_version != pool.SAMPLER_VERSION:
            raise ValueError(
                f"sampler_version={self.sampler_version!r} is not known to this version of structune "
                f"(it has {pool.SAMPLER_VERSION}): index maps would differ; install the version that saved the adapter"
            )
        if self.bias not in ("none", "all", "structune_only"):
            raise ValueError(f"bias={self.bias!r} must be 'none', 'all' or 'structune_only'")
        if isinstance(self.dropout, bool) or not isinstance(self.dropout, (int, float)) or not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout!r} must be a number in [0, 1)")
        self.check()
        for label, variant in self.variants():
            try:
                check_options(variant())
            except ValueError as error:
                raise ValueError(f"{label}{error}") from error
        self._check_targets()

    def layer_options(self, module_name: str) -> dict[str, Any]:
        """Arguments of `StructuredDelta` for the module of that full name, patterns applied."""
        options = self.at(module_name)
        return {name: getattr(options, name) for name in OPTIONS} | {"saved": self._saved}

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str, subfolder: str | None = None, **kwargs: Any
    ) -> StructuneConfig:
        """Load the configuration of a saved adapter; a local folder's weights are looked over first.

        Raises:
            ValueError: the configuration is not valid, or the weight file is truncated, foreign or a pickle.
        """
        config = super().from_pretrained(pretrained_model_name_or_path, subfolder=subfolder, **kwargs)
        check_adapter_folder(Path(pretrained_model_name_or_path) / (subfolder or ""))
        if not isinstance(config, cls):
            raise TypeError(
                f"{pretrained_model_name_or_path}: its configuration is of type {config.peft_type}, another method's"
            )
        return config

    def to_dict(self) -> dict[str, Any]:
        """Every option by name, in the form in which it is saved: sets as sorted lists."""
        with in_order(self):
            options: dict[str, Any] = super().to_dict()
        return options

    def save_pretrained(self, save_directory: str, **kwargs: Any) -> None:
        """Write adapter_config.json, and the lines that load the adapter into the model card beside it."""
        super().save_pretrained(save_directory, **kwargs)
        add_to_card(Path(save_directory), self)

    def _check_targets(self) -> None:
        for name in ("target_modules", "exclude_modules"):
            check_names(name, getattr(self, name), expression=True)
        for name in ("target_parameters", "modules_to_save"):
            check_names(name, getattr(self, name))
        check_names("layers_pattern", self.layers_pattern, single=True)
        check_layer_numbers(self.layers_to_transform)
        check_tokens(self.trainable_token_indices)
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)  # type: ignore[assignment]  # as PEFT's own configs do
        if isinstance(self.exclude_modules, list):
            self.exclude_modules = set(self.exclude_modules)  # type: ignore[assignment]
        for name in ("layers_to_transform", "layers_pattern"):
            if isinstance(self.target_modules, str) and getattr(self, name) is not None:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} needs a list of target_modules, but target_modules="
                    f"{self.target_modules!r} is a string: give a list, or write the layers into the expression"
                )
        if self.layers_pattern and self.layers_to_transform is None:
            raise ValueError(
                f"layers_pattern={self.layers_pattern!r} says nothing without layers_to_transform: give both or neither"
            )


def _signature_with_own_options() -> inspect.Signature:
    """The constructor's, with the keywords that families of the package have for options of their own.

    Where a file has a key from a later version, PEFT drops all keys that are not in the signature: old files have the
    families' own among them.
    """
    names = dict.fromkeys(own for family in registry.PLACES for own in structures.get(family).own_options())
    own = [
        inspect.Parameter(name + suffix, inspect.Parameter.KEYWORD_ONLY, default=None)
        for name in names
        for suffix in ("", "_pattern")
    ]
    plain = inspect.signature(StructuneConfig.__init__)
    return plain.replace(parameters=[*plain.parameters.values(), *own])


vars(StructuneConfig.__init__)["__signature__"] = _signature_with_own_options()
