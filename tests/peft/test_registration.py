"""The method is a member of PEFT's own enumeration, not a string beside it."""

from __future__ import annotations

import copy
import json
import pickle

from peft import PeftType
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

from structune.peft import StructuneConfig, StructuneModel
from structune.peft.registration import peft_type, register


def test_the_member_is_like_every_other() -> None:
    member = PeftType("STRUCTUNE")
    assert member is PeftType.STRUCTUNE is PeftType["STRUCTUNE"]
    assert isinstance(member, PeftType)
    assert (member.name, member.value, member == "STRUCTUNE") == ("STRUCTUNE", "STRUCTUNE", True)
    assert member in list(PeftType)
    assert copy.deepcopy(member) is member
    assert pickle.loads(pickle.dumps(member)) is member  # noqa: S301
    assert json.dumps({"type": member}) == '{"type": "STRUCTUNE"}'


def test_registering_again_changes_nothing() -> None:
    before = len(PeftType)
    register(StructuneConfig, StructuneModel)
    assert peft_type() is PeftType.STRUCTUNE
    assert len(PeftType) == before
    assert PEFT_TYPE_TO_CONFIG_MAPPING[PeftType.STRUCTUNE] is StructuneConfig
    assert PEFT_TYPE_TO_TUNER_MAPPING[PeftType.STRUCTUNE] is StructuneModel
    assert PEFT_TYPE_TO_PREFIX_MAPPING[PeftType.STRUCTUNE] == "structune_"
