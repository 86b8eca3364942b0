"""Which arithmetic suits the device that trains. Knows no runs and no networks."""

import torch

from models.processor import features
from trainer.config import Device, Precision
from trainer.distributed import resolve

BF16_UNITS = frozenset({"avx512_bf16", "amx_bf16"})  # by Linux's names


def suited(device: Device) -> Precision:
    """bf16 where the device multiplies in it; elsewhere it is emulated, at a small part of float32's speed.

    Raises:
        Invalid: torch sees no such device.
    """
    if resolve(device) == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if BF16_UNITS & features() else "fp32"
