"""Making PEFT know the method: peft type "STRUCTUNE"."""

from __future__ import annotations

from peft import PeftConfig, PeftType
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.tuners.tuners_utils import BaseTuner
from peft.utils import register_peft_method

NAME = "structune"


def peft_type() -> PeftType:
    """The member STRUCTUNE of `peft.PeftType`, added when it is not there yet.

    `register_peft_method` takes only names that the enumeration holds, and transformers reads `.value` of the member,
    so a plain string in PEFT's tables would not do.
    """
    key = NAME.upper()
    members = PeftType._member_map_
    if key not in members:
        member = str.__new__(PeftType, key)
        member._name_, member._value_ = key, key
        PeftType._member_names_.append(key)
        members[key] = member
        PeftType._value2member_map_[key] = member
        type.__setattr__(PeftType, key, member)
    return PeftType(key)


def register(config_cls: type[PeftConfig], model_cls: type[BaseTuner]) -> None:
    """Enter the method's config and model into PEFT's tables; a second call changes nothing."""
    if peft_type() not in PEFT_TYPE_TO_CONFIG_MAPPING:
        register_peft_method(name=NAME, config_cls=config_cls, model_cls=model_cls, is_mixed_compatible=True)
