"""What can be said about ΔW: each option once, with its type, default, help and check. Knows neither torch nor PEFT.

`UpdateOptions` is what a user writes for one matrix, `OptionsByModule` for all matrices of a model. `StructuredDelta`,
`StructuneConfig`, the presets, the recipe, hot swaps and weighted sums take the options from here; what they come to at
the sizes of a matrix is `structune.resolved`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, get_args

from structune import pool_maps, structures

NamedStart: TypeAlias = Literal["xavier_uniform", "kaiming_uniform", "lora"]
InitWeights: TypeAlias = bool | NamedStart
Scale: TypeAlias = float | Literal["1/in_features"]
BlockSize: TypeAlias = int | Literal["gcd"]
PoolScope: TypeAlias = str | dict[str, str]
Check: TypeAlias = Callable[[str, Any], None]
"""Called with an option's name and value: raises ValueError, naming both and the fix, if it can be that nowhere."""

LARGEST_SCALE = 1e18
"""Gradients grow with the scale, and optimisers square them: from 10¹⁹ on, or below 10⁻¹⁹, fp32 cannot hold that."""


def check_count(name: str, value: Any, otherwise: str = "") -> None:
    """Raise ValueError unless the value is a positive integer or None."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ValueError(f"{name}={value!r} must be an integer of at least 1{otherwise}")


def check_seed(name: str, value: Any) -> None:
    """Raise ValueError unless the value is an integer that 64 bits hold."""
    if isinstance(value, bool) or not isinstance(value, int) or not -(2**63) <= value < 2**63:
        raise ValueError(f"{name}={value!r} must be an integer from −2⁶³ to 2⁶³ − 1")


def check_strength(name: str, value: float) -> None:
    """Raise ValueError unless ΔW times the value, and what is trained with it, stays a number; 0 is one."""
    if not abs(value) <= LARGEST_SCALE:
        raise ValueError(
            f"{name}={value!r} must be a finite number of at most {LARGEST_SCALE:g} in size: fp32 overflows beyond"
        )


def _check_structure(name: str, value: Any) -> None:
    structures.check(value)


def _check_own_options(name: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"{name}={value!r} must map names of the family's own options to integers")
    for own, number in value.items():
        if own in OPTIONS:
            raise ValueError(f"{name}[{own!r}]: an option of every update has that name, so no family's own can")
        check_count(own, number)


def _check_block_size(name: str, value: Any) -> None:
    if value != "gcd":
        check_count(name, value, ", or 'gcd' for the largest square blocks that divide both sizes of each matrix")


def _check_pool_size(name: str, value: Any) -> None:
    check_count(name, value, ", or None for numbers of each block's own")


def _check_pool_map(name: str, value: Any) -> None:
    if value is not None:
        pool_maps.check(value)


def _check_pool_scope(name: str, value: Any) -> None:
    if value in ("matrix", "module", "model"):
        return
    if not isinstance(value, dict) or not value:
        raise ValueError(
            f"{name}={value!r} must be 'matrix', 'module', 'model' or a dictionary of groups by name, each with an "
            "expression for its modules"
        )
    for group, key in value.items():
        if not isinstance(group, str) or not isinstance(key, str):
            raise ValueError(f"{name}={value!r} must map names of groups to expressions for module names")
        try:
            re.compile(key)
        except re.error as error:
            raise ValueError(f"{name}[{group!r}]={key!r} is no regular expression: {error}") from error


def _check_fixed_ratio(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ValueError(f"{name}={value!r} must be a number in [0, 1): at 1 nothing would be left to train")


def _check_scale(name: str, value: Any) -> None:
    if value == "1/in_features":
        return
    if isinstance(value, (str, bool)) or not isinstance(value, (int, float)) or value in (0, math.inf, -math.inf):
        raise ValueError(f"{name}={value!r} must be a finite number other than 0, or '1/in_features'")
    check_strength(name, value)
    if abs(value) < 1 / LARGEST_SCALE:
        raise ValueError(
            f"{name}={value!r} must be at least {1 / LARGEST_SCALE:g} in size: fp32 would leave nothing of the update"
        )


def _check_init_weights(name: str, value: Any) -> None:
    names = get_args(NamedStart)
    if not isinstance(value, bool) and value not in names:
        raise ValueError(f"{name}={value!r} must be True, False, {', '.join(map(repr, names[:-1]))} or {names[-1]!r}")


def _check_algorithm(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise ValueError(f"{name}={value!r} must be a text: 'auto' or the name of an algorithm")


Described = TypeVar("Described", bound=type)


def describes_options(cls: Described) -> Described:
    """Adds each option's help to the docstring of a class, below the line on `**options`."""
    if cls.__doc__ and (line := re.search(r"( *)\*\*options: .*\n", cls.__doc__)):
        listed = "".join(f"{line[1]}    {each.name}: {each.metadata['help']}.\n" for each in fields(UpdateOptions))
        cls.__doc__ = cls.__doc__.replace(line[0], line[0] + listed)
    return cls


def option(
    default: Any, help: str, check: Check, *, instead_of: tuple[str, ...] = (), makes_the_update: bool = True
) -> Any:
    """A field of `UpdateOptions`.

    Args:
        default: its value where nothing is said; a dictionary is made anew for each.
        help: one sentence for help texts and docstrings.
        check: what it may be, sizes and family unknown.
        instead_of: options that are None wherever a pattern gives this one.
        makes_the_update: whether numbers trained with one value mean another ΔW with another.
    """
    metadata = {"help": help, "check": check, "instead_of": instead_of, "makes_the_update": makes_the_update}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def by_module(help: str) -> Any:
    """A field `<option>_pattern` of `OptionsByModule`."""
    return field(default_factory=dict, metadata={"help": help})


Options = TypeVar("Options", bound="type[UpdateOptions]")


def takes_own_options(cls: Options) -> Options:
    """A dataclass of options whose constructor takes a family's own ones as keywords too.

    `rank=4` stands for `structure_options={"rank": 4}`, and `rank_pattern={"query": 4}` for
    `structure_options_pattern={"query": {"rank": 4}}`. Where both are given, the keyword counts.
    """
    init = cls.__init__
    known = {known.name for known in fields(cls) if known.init}

    @wraps(init)
    def taking(self: UpdateOptions, *args: Any, **given: Any) -> None:
        for name in given:
            if name not in known and not _is_own(name, known):
                raise TypeError(f"{cls.__name__}.__init__() got an unexpected keyword argument {name!r}")
        init(self, *args, **gathered(given, known))

    cls.__init__ = taking  # type: ignore[method-assign]
    return cls


def gathered(given: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Arguments by name, all that are not known put into `structure_options` and `structure_options_pattern`.

    Raises:
        ValueError: these, or a pattern, are no dictionaries.
    """
    taken = {name: value for name, value in given.items() if name in known}
    own = [(name, value) for name, value in given.items() if name not in known]
    for name, value in own:
        if not name.endswith("_pattern"):
            before = taken.get("structure_options") or {}
            _check_own_options("structure_options", before)
            both = {**before, name: value}
            taken["structure_options"] = {own: number for own, number in both.items() if number is not None}
            continue
        patterns = {key: dict(values) for key, values in (taken.get("structure_options_pattern") or {}).items()}
        for key, number in _mapping(name, value).items():
            patterns.setdefault(key, {})[name.removesuffix("_pattern")] = number
        taken["structure_options_pattern"] = patterns
    return taken


@takes_own_options
@dataclass
class UpdateOptions:
    """What a user says about one ΔW. Options of a family's own, such as the rank of low_rank, are keywords as well.

    Args:
        **options: each by name:

    Raises:
        ValueError: an option is out of range; the message names it and the fix.
        TypeError: a keyword is neither an option nor one of any family's own.
    """

    structure: str = option(
        "circulant", "family of the blocks, one of `structune.structures.names()`", _check_structure
    )
    block_size: BlockSize | None = option(
        None,
        "square blocks of this size, 'gcd' for the largest that divide both sizes of each matrix, or give num_splits",
        _check_block_size,
        instead_of=("num_splits",),
    )
    num_splits: int | None = option(
        None,
        "this many blocks per axis, or give block_size; sizes need not divide",
        check_count,
        instead_of=("block_size",),
    )
    structure_options: dict[str, int] = option(
        {}, "the family's own options by name, such as a rank; what is left out has its default", _check_own_options
    )
    pool_size: int | None = option(
        None,
        "numbers per matrix, or per pool_scope, shared by its blocks, at most what they read; None gives each block "
        "its own",
        _check_pool_size,
    )
    pool_map: str | None = option(
        None,
        "how those numbers reach the blocks: 'index' (single numbers, as HyDRA has it), 'signed' (single numbers with "
        "random signs) or 'projection' (random sums of all of them, for tiny pools); None takes '"
        f"{pool_maps.DEFAULT}'",
        _check_pool_map,
    )
    pool_scope: PoolScope = option(
        "matrix",
        "what shares a pool: 'matrix' (its blocks), 'module' (all matrices whose names end alike), 'model' (all), or a "
        "dictionary of groups, each with an expression for its modules",
        _check_pool_scope,
    )
    fixed_ratio: float = option(0.0, "share of those numbers that is random and frozen, in [0, 1)", _check_fixed_ratio)
    seed: int = option(
        0,
        "determines index maps and random numbers; each layer draws its own from it",
        check_seed,
        makes_the_update=False,  # files say it themselves, where it counts
    )
    scale: Scale = option(1.0, "factor of ΔW; '1/in_features' is the convention of PEFT's C3A", _check_scale)
    init_weights: InitWeights = option(
        True,
        "True starts at ΔW = 0; 'lora' too, from numbers as small as LoRA's, for low_rank blocks, which train better "
        "so; False, 'xavier_uniform' and 'kaiming_uniform' start at random (papers)",
        _check_init_weights,
    )
    algorithm: str = option(
        "auto",
        "how ΔW x is worked out: 'auto', 'dense', 'factored', 'fft', 'dft_gemm' or 'fold'",
        _check_algorithm,
        makes_the_update=False,
    )

    def __post_init__(self) -> None:
        self.normalise()
        self.check()

    def normalise(self) -> None:
        """Numbers of NumPy become Python's; own options that are None are left out, which stands for the default."""
        for known in fields(self):
            if known.init:
                setattr(self, known.name, as_python(getattr(self, known.name)))
        own = self.structure_options
        if own is None or isinstance(own, dict):
            self.structure_options = {name: value for name, value in (own or {}).items() if value is not None}

    def check(self) -> None:
        """Raise ValueError if an option by itself can be right for no matrix and no family."""
        for each in OPTIONS.values():
            each.metadata["check"](each.name, getattr(self, each.name))

    def spelled_out(self) -> UpdateOptions:
        """These with every option of the family's own, those that are left out with their defaults."""
        return replace(
            self, structure_options={**structures.get(self.structure).own_options(), **self.structure_options}
        )

    def with_option(self, name: str, value: Any) -> UpdateOptions:
        """These with one option replaced, and others that it excludes or makes meaningless left out.

        Args:
            name: of an option, or of one of the family's own.
            value: its new value.
        """
        if name not in OPTIONS:
            return replace(self, structure_options={**self.structure_options, name: value})
        changes = dict.fromkeys(OPTIONS[name].metadata["instead_of"]) | {name: value}
        if name == "structure":
            _check_structure(name, value)
            has = structures.get(value).own_options()
            changes["structure_options"] = {k: v for k, v in self.structure_options.items() if k in has}
        return replace(self, **changes)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Own options are read as they are written: `config.rank`, `config.rank_pattern`."""
            if not name.startswith("_") and "structure_options" in vars(self) and _is_own(name, vars(self)):
                if not name.endswith("_pattern"):
                    return self.structure_options.get(name)
                own = name.removesuffix("_pattern")
                return {k: values[own] for k, values in self.structure_options_pattern.items() if own in values}
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

        def __setattr__(self, name: str, value: Any) -> None:
            """Likewise they are set."""
            known = type(self).__dataclass_fields__
            if name not in known and not name.startswith("_") and _is_own(name, known):
                vars(self).update(gathered({**self._own(known), name: value}, known))
            else:
                object.__setattr__(self, name, value)

    def _own(self, known: Collection[str]) -> dict[str, Any]:
        return {name: vars(self)[name] for name in known if name.startswith("structure_options") and name in vars(self)}


describes_options(UpdateOptions)

OPTIONS: dict[str, Field[Any]] = {each.name: each for each in fields(UpdateOptions)}
"""Every option of an update by name; `metadata` has its help, check and the rest that `option` says."""


@takes_own_options
@dataclass
class OptionsByModule(UpdateOptions):
    """What a user says about every ΔW of a model: options, and for some of them other values by name of the module.

    The keys of `<option>_pattern` are module names or regular expressions, matched against the end of a module's full
    name; the first that matches counts, for each option and each of the family's own by itself.
    """

    structure_pattern: dict[str, str] = by_module("structure by module name")
    block_size_pattern: dict[str, BlockSize] = by_module("block_size by module name; it replaces num_splits there")
    num_splits_pattern: dict[str, int] = by_module("num_splits by module name; it replaces block_size there")
    structure_options_pattern: dict[str, dict[str, int]] = by_module("the family's own options by module name")
    pool_size_pattern: dict[str, int] = by_module("pool_size by module name")
    fixed_ratio_pattern: dict[str, float] = by_module("fixed_ratio by module name")
    scale_pattern: dict[str, Scale] = by_module("scale by module name")

    def general(self) -> UpdateOptions:
        """The options where no pattern matches."""
        return UpdateOptions(**{name: getattr(self, name) for name in OPTIONS})

    def at(self, module_name: str) -> UpdateOptions:
        """The options of the module of that full name."""
        options = self.general()
        for name, values in self.patterns().items():
            if (key := _deciding(values, module_name)) is not None:
                options = options.with_option(name, values[key])
        return options

    def variants(self) -> Iterator[tuple[str, Callable[[], UpdateOptions]]]:
        """What to call it, and how to make it, for the options in general ("") and with each single key of a pattern.

        Raises:
            ValueError: a pattern is no dictionary, or a key no expression.
        """
        yield "", self.general
        for name, values in self.patterns().items():
            for key, value in values.items():
                label = f"{name}_pattern[{key!r}]: "
                try:
                    re.compile(key)
                except re.error as error:
                    raise ValueError(f"{label}{error}") from error
                yield label, lambda name=name, value=value: self._general_for(name).with_option(name, value)  # type: ignore[misc]

    def _general_for(self, name: str) -> UpdateOptions:
        """The options in general; for an option that only a family of `structure_pattern` has, with that family."""
        families = (self.structure, *_mapping("structure_pattern", self.structure_pattern).values())
        having = (family for family in families if name in structures.get(family).own_options())
        family = self.structure if name in OPTIONS else next(having, self.structure)
        return self.general() if family == self.structure else self.general().with_option("structure", family)

    def patterns(self) -> dict[str, dict[str, Any]]:
        """Values by key for each option that patterns can override, the family's own each for itself.

        Raises:
            ValueError: a pattern is no dictionary.
        """
        found: dict[str, dict[str, Any]] = {}
        for name in PATTERNED:
            values = _mapping(f"{name}_pattern", getattr(self, f"{name}_pattern"))
            if name != "structure_options":
                found[name] = values
                continue
            for key, own in values.items():
                for single, number in _mapping(f"structure_options_pattern[{key!r}]", own).items():
                    found.setdefault(single, {})[key] = number
        return found

    def idle_patterns(self, module_names: Collection[str]) -> dict[str, list[str]]:
        """Keys of each option's pattern that decide about none of these modules."""
        idle = {}
        for name, values in self.patterns().items():
            deciding = {_deciding(values, module_name) for module_name in module_names}
            if keys := [key for key in values if key not in deciding]:
                idle[name] = keys
        return idle


PATTERNED = tuple(name for name in OPTIONS if f"{name}_pattern" in OptionsByModule.__dataclass_fields__)
"""The options that `<option>_pattern` can override by module name."""


def default_of(known: Field[Any]) -> Any:
    """The default of an option or a pattern, a dictionary made anew."""
    return known.default if known.default_factory is MISSING else known.default_factory()


def families_with(own_option: str) -> list[str]:
    """The families that have an option of their own of that name."""
    return [family.name for family in structures.usable() if own_option in family.own_options()]


def as_python(value: Any) -> Any:
    """NumPy's numbers and arrays, and tensors, as Python's numbers and lists, in containers too; all else as it is."""
    if isinstance(value, dict):
        return {key: as_python(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set)):
        return type(value)(as_python(inner) for inner in value)
    return value.tolist() if hasattr(value, "shape") and hasattr(value, "tolist") else value


def _is_own(name: str, known: Collection[str]) -> bool:
    """Whether it is the name of a family's own option, or of its pattern where patterns are known."""
    if name.endswith("_pattern") and "structure_options_pattern" not in known:
        return False
    return bool(families_with(name.removesuffix("_pattern")))


def _deciding(values: Mapping[str, Any], module_name: str) -> str | None:
    """The first key that matches, from the end of the name or the whole of it."""
    return next((key for key in values if re.fullmatch(rf"(.*\.)?({key})", module_name)), None)


def _mapping(name: str, value: Any) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{name}={value!r} must map module names to values")
    return value or {}
