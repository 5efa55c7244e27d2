"""What every run needs, imported once by the process that runs are forked from. It touches no device."""

import gc
import os

os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # asking whether there is a GPU begins nothing on it

from structune.finetune.importing import without_remarks

with without_remarks():
    import matplotlib.figure  # noqa: F401
    import transformers.models.auto.modeling_auto  # noqa: F401
    from transformers import Trainer  # noqa: F401

    import structune.finetune.check
    import structune.finetune.evaluate
    import structune.finetune.training  # noqa: F401

gc.collect()
gc.freeze()  # a run that asks for a collection of garbage looks through what is its own, and copies none of this
