"""For people who add a family: an oracle, one test class, and the whole conformance suite is theirs.

Needs the `testing` extra (pytest, SciPy). `docs/adding-a-family.md` shows how; in short:

    @oracle("my_family")
    def my_family(structure, v): ...  # NumPy, fp64, written in another way than the family itself

    @pytest.mark.parametrize("family", ["my_family"])
    class TestMyFamily(StructureConformance): ...
"""

from structune.testing.conformance import StructureConformance
from structune.testing.device import DEVICE
from structune.testing.errors import assert_close, normalised_error, unit_roundoff
from structune.testing.mutations import MUTATIONS
from structune.testing.oracles import oracle, oracle_dense
from structune.testing.outcomes import algorithms, outcomes, reference_matmul
from structune.testing.poison import poisoned_memory
from structune.testing.samples import make_structure, sample_generators, sample_inputs, sample_raw
from structune.testing.updates import by_every_algorithm, dense_by_oracle, moved, sample_update

__all__ = [
    "DEVICE",
    "MUTATIONS",
    "StructureConformance",
    "algorithms",
    "assert_close",
    "by_every_algorithm",
    "dense_by_oracle",
    "make_structure",
    "moved",
    "normalised_error",
    "oracle",
    "oracle_dense",
    "outcomes",
    "poisoned_memory",
    "reference_matmul",
    "sample_generators",
    "sample_inputs",
    "sample_raw",
    "sample_update",
    "unit_roundoff",
]
