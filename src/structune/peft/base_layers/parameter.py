"""Any parameter of any module: the module runs with W + ΔW in the parameter's place."""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn

from torch import Tensor, nn

from structune.peft.layer import StructuneLayer


class ParamWrapper(StructuneLayer):
    """A module with an adapter on one parameter, named by `target_parameters`, such as the experts of a mixture.

    A parameter (out, in) has one ΔW. One of (experts, out, in) has one per expert, with generators of its own or all
    from one pool; modules that set `is_transposed` store (experts, in, out). Several parameters of one module are
    wrappers around each other, in the order of their names. In half precision W + ΔW is rounded to W's dtype, as
    merging does. PEFT knows the class by its name and by `parameter_name`.

    Args:
        base_layer: the module, or a wrapper around it.
        parameter_name: the parameter's name in the module.

    Raises:
        TypeError: the parameter is no floating-point tensor of two or three dimensions.
    """

    base_types: ClassVar[tuple[type[nn.Module], ...]] = ()
    weight_is_read = True
    is_called = False
    parameter_name: str = ""

    def __init__(self, base_layer: nn.Module, parameter_name: str) -> None:
        super().__init__(base_layer)
        self.parameter_name = parameter_name
        weight = getattr(self.get_base_layer(), parameter_name)
        if weight.ndim not in (2, 3) or not weight.is_floating_point():
            raise TypeError(
                f"parameter {parameter_name!r} has shape {tuple(weight.shape)} and dtype {weight.dtype}: only "
                "floating-point matrices (out, in) and stacks of them (experts, out, in) can be adapted"
            )

    @property
    def weight_name(self) -> str:
        """The adapted parameter."""
        return self.parameter_name

    def features(self) -> tuple[int, int]:
        """(out_features, in_features) of the matrix, or of each of the stack."""
        rows, cols = self.get_base_weight().shape[-2:]
        return (cols, rows) if self._transposed() else (rows, cols)

    def stack(self) -> int | None:
        """How many matrices the parameter holds."""
        shape = self.get_base_weight().shape
        return shape[0] if len(shape) == 3 else None

    def to_weight_layout(self, delta: Tensor) -> Tensor:
        """ΔW, transposed where the module stores it so."""
        return delta.mT if self._transposed() else delta

    def runs_whole(self) -> bool:
        """Always."""
        return True

    def update(self, adapter_name: str, x: Tensor) -> Tensor:
        """Not to be had: the module is a function of its parameter, not a product with it."""
        self._no_output_of_its_own()

    def _no_output_of_its_own(self) -> NoReturn:
        raise TypeError(
            f"ΔW of {self.parameter_name!r} has no output of its own, so adapter_names cannot pick adapters by sample: "
            "use set_adapter for the whole batch"
        )

    def unload_and_optionally_merge_module(
        self, merge: bool, safe_merge: bool, adapter_names: list[str] | None
    ) -> nn.Module:
        """The bare module, with the adapters of all its parameters merged or dropped; called by PEFT."""
        inner: nn.Module = self
        while isinstance(inner, StructuneLayer):
            if merge:
                inner.merge(safe_merge=safe_merge, adapter_names=adapter_names)
            inner = inner.base_layer
        return inner

    def _transposed(self) -> bool:
        return self.stack() is not None and bool(getattr(self.get_base_layer(), "is_transposed", False))

    def _get_base_layer_device_and_dtype(self, base_layer: nn.Module) -> Any:
        weight = self.get_base_weight()
        return weight.device, weight.dtype

    def __getattr__(self, name: str) -> Any:
        """W + ΔW under the parameter's name, and whatever else the module has, such as its number of experts."""
        if name == self.__dict__.get("parameter_name"):
            return self._effective_weight()
        return super().__getattr__(name)

    def _forwards(self, name: str, base: nn.Module) -> bool:
        """All but Python's own: the wrapper stands for a module of any class, and torch reads what begins with _."""
        return not name.startswith("__")
