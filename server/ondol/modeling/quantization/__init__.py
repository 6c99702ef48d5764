"""From any quantized source, or from full precision, to the internal layout of `kernels.quantized`."""
