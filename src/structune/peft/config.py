"""The one configuration class; C3A and HyDRA are presets of it."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from peft import PeftConfig

from structune import pool, pool_maps, products, structures
from structune.arguments import (
    InitWeights,
    Scale,
    as_python,
    block_structure,
    check_pool,
    check_seed,
    resolve_scale,
    start_bound,
)
from structune.grid import Grid
from structune.peft.registration import peft_type
from structune.peft.storage.checkpoint import check_adapter_folder
from structune.peft.storage.ordered import in_order
from structune.peft.storage.pretrained import add_to_card
from structune.peft.targets import check_layer_numbers, check_names, check_tokens

PATTERNED = ("structure", "block_size", "num_splits", "rank", "pool_size", "fixed_ratio", "scale")
"""The options that `<option>_pattern` can override by module name."""


@dataclass
class StructuneConfig(PeftConfig):
    """Configuration of a structured adapter: structure × generators × grid, and where it goes.

    Args:
        structure: family of the blocks, one of `structune.structures.names()`.
        block_size: square blocks of this size; or
        num_splits: this many blocks per axis. Exactly one of the two; sizes need not divide.
        rank: R of low_rank and the "-like" families (default 1); None for the others.
        pool_size: numbers per adapted matrix, shared by its blocks, at most what they read; None gives each block its
            own.
        pool_map: how those numbers reach the blocks: "index" (single numbers, as HyDRA has it), "signed" (single
            numbers with random signs) or "projection" (random sums of all of them, for pools that are tiny); None
            takes "index".
        fixed_ratio: share of those numbers that is random and frozen, in [0, 1).
        seed: determines index maps and random numbers; each layer draws its own from it.
        scale: factor of ΔW; "1/in_features" is the convention of PEFT's C3A.
        init_weights: True starts at ΔW = 0; False, "xavier_uniform" and "kaiming_uniform" start at random (papers).
        algorithm: how ΔW x is worked out: "auto", "dense", "factored", "fft", "dft_gemm" or "fold".
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
        structure_pattern: and the other options that end in _pattern: overrides by module name or regular expression,
            e.g. block_size_pattern={"fc1": 256}. A block size replaces num_splits there and the other way round.
        sampler_version: version of the index map and random numbers; set by the library.

    Raises:
        ValueError: an option is out of range or does not go with another; the message names it and the fix.
    """

    structure: str = field(default="circulant", metadata={"help": "Family of the blocks."})
    block_size: int | None = field(default=None, metadata={"help": "Size of square blocks; or give num_splits."})
    num_splits: int | None = field(default=None, metadata={"help": "Blocks per axis; or give block_size."})
    rank: int | None = field(default=None, metadata={"help": "Rank of low_rank and the -like families."})
    pool_size: int | None = field(default=None, metadata={"help": "Numbers per matrix, shared by its blocks."})
    pool_map: str | None = field(default=None, metadata={"help": "How numbers of the pool reach the blocks."})
    fixed_ratio: float = field(default=0.0, metadata={"help": "Share of the numbers that is random and frozen."})
    seed: int = field(default=0, metadata={"help": "Seed of index maps and random numbers."})
    scale: Scale = field(default=1.0, metadata={"help": "Factor of the update, or '1/in_features'."})
    init_weights: InitWeights = field(default=True, metadata={"help": "True starts as a no-op."})
    algorithm: str = field(default="auto", metadata={"help": "How the product is worked out."})
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
    structure_pattern: dict[str, str] = field(default_factory=dict, metadata={"help": "Structure by module name."})
    block_size_pattern: dict[str, int] = field(default_factory=dict, metadata={"help": "Block size by module name."})
    num_splits_pattern: dict[str, int] = field(default_factory=dict, metadata={"help": "Splits by module name."})
    rank_pattern: dict[str, int] = field(default_factory=dict, metadata={"help": "Rank by module name."})
    pool_size_pattern: dict[str, int] = field(default_factory=dict, metadata={"help": "Pool size by module name."})
    fixed_ratio_pattern: dict[str, float] = field(default_factory=dict, metadata={"help": "Fixed ratio by name."})
    scale_pattern: dict[str, Scale] = field(default_factory=dict, metadata={"help": "Scale by module name."})
    sampler_version: int = field(default=pool.SAMPLER_VERSION, metadata={"help": "Version of the sampler."})

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[no-untyped-call]
        self._saved = self.peft_type is not None  # files say it, whoever makes a new configuration does not
        self.peft_type = peft_type()
        for option in (f.name for f in fields(self) if f.init):
            setattr(self, option, as_python(getattr(self, option)))
        if self.sampler_version != pool.SAMPLER_VERSION:
            raise ValueError(
                f"sampler_version={self.sampler_version!r} is not known to this version of structune "
                f"(it has {pool.SAMPLER_VERSION}): index maps would differ; install the version that saved the adapter"
            )
        check_seed(self.seed)
        self.pool_map = pool_maps.NAMES[0] if self.pool_map is None else self.pool_map
        pool_maps.check(self.pool_map)
        if self.bias not in ("none", "all", "structune_only"):
            raise ValueError(f"bias={self.bias!r} must be 'none', 'all' or 'structune_only'")
        if isinstance(self.dropout, bool) or not isinstance(self.dropout, (int, float)) or not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout!r} must be a number in [0, 1)")
        start_bound(self.init_weights, 1, 1)
        _check_options(self._options())
        for option in PATTERNED:
            for pattern, value in self._patterns(option).items():
                try:
                    re.compile(pattern)
                    _check_options(_override(self._options(), option, value))
                except (ValueError, re.error) as error:
                    raise ValueError(f"{option}_pattern[{pattern!r}]: {error}") from error
        self._check_targets()

    def layer_options(self, module_name: str) -> dict[str, Any]:
        """Arguments of `StructuredDelta` for the module of that full name, patterns applied."""
        options = self._options()
        for option in PATTERNED:
            if (pattern := self._pattern_for(option, module_name)) is not None:
                options = _override(options, option, self._patterns(option)[pattern])
        return {
            **options,
            "seed": self.seed,
            "init_weights": self.init_weights,
            "pool_map": self.pool_map,
            "saved": self._saved,
        }

    def idle_patterns(self, module_names: Collection[str]) -> dict[str, list[str]]:
        """Keys of each option's pattern that decide about none of these modules."""
        idle = {}
        for option in PATTERNED:
            deciding = {self._pattern_for(option, name) for name in module_names}
            if keys := [key for key in self._patterns(option) if key not in deciding]:
                idle[option] = keys
        return idle

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

    def _options(self) -> dict[str, Any]:
        return {option: getattr(self, option) for option in (*PATTERNED, "algorithm")}

    def _pattern_for(self, option: str, module_name: str) -> str | None:
        """The first key that matches, from the end of the name or the whole of it."""
        keys = (key for key in self._patterns(option) if re.fullmatch(rf"(.*\.)?({key})", module_name))
        return next(keys, None)

    def _patterns(self, option: str) -> dict[str, Any]:
        patterns: dict[str, Any] = getattr(self, f"{option}_pattern") or {}
        if not isinstance(patterns, dict):
            raise ValueError(f"{option}_pattern={patterns!r} must map module names to values")
        return patterns

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


def _override(options: dict[str, Any], option: str, value: Any) -> dict[str, Any]:
    """Options with one replaced; block_size and num_splits exclude each other."""
    options = {**options, option: value}
    if option == "block_size":
        options["num_splits"] = None
    if option == "num_splits":
        options["block_size"] = None
    if option == "structure" and not issubclass(structures.get(value), structures.RankedStructure):
        options["rank"] = None
    return options


def _check_options(options: dict[str, Any]) -> None:
    """Everything about an option set that can be said without knowing a layer's size."""
    block = block_structure(options["structure"], 1, 1, options["rank"])
    products.check(options["algorithm"], block)
    check_pool(options["pool_size"], options["fixed_ratio"])
    resolve_scale(options["scale"], 1)
    limit = options["block_size"] or options["num_splits"] or 1
    size = max(int(limit), 1) if isinstance(limit, int) else 1
    Grid.cut(size, size, block_size=options["block_size"], num_splits=options["num_splits"])
