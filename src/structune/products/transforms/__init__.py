"""How vectors become spectra in which convolutions are products, one transform a file."""

from structune.products.transforms.dft_gemm import DFTGemm
from structune.products.transforms.fft import FFT
from structune.products.transforms.transform import Transform

TRANSFORMS: dict[str, Transform] = {"fft": FFT(), "dft_gemm": DFTGemm()}
"""Every transform by name."""

__all__ = ["TRANSFORMS", "Transform"]
