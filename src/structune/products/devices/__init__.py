"""What products cost on one kind of device, one kind a file: which algorithm is least, and how much is done at once."""

from structune.products.devices.case import Case
from structune.products.devices.cpu import CPU
from structune.products.devices.cuda import CUDA
from structune.products.devices.device import Device

DEVICES: dict[str, Device] = {"cpu": CPU(), "meta": CPU(), "cuda": CUDA()}
"""By PyTorch's name of the type of device; on meta nothing is worked out."""


def device(device_type: str) -> Device:
    """That of "cpu", "cuda", …; accelerators of other makes are taken for a GPU."""
    return DEVICES.get(device_type, DEVICES["cuda"])


__all__ = ["DEVICES", "Case", "Device", "device"]
