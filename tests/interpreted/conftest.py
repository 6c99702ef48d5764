"""Kernels on the CPU, by Triton's interpreter.

In a process of their own: Triton decides when it is imported whether it interprets.
"""

import os

import pytest


def pytest_configure():
    if os.environ.get("TRITON_INTERPRET") != "1":
        raise pytest.UsageError(
            "these tests need TRITON_INTERPRET=1 in the environment, as `make test` sets it"
        )


@pytest.fixture(autouse=True, scope="session")
def repaired_interpreter():
    """What Triton 3.6's interpreter does otherwise than a GPU.

    A loop bound computed in the kernel is an array of one element, which numpy no longer takes for a number,
    and a product of bfloat16 matrices multiplies their bits as if they were integers.
    """
    import numpy as np
    import triton.language as tl
    from triton.runtime import interpreter

    patch_tensor = interpreter._patch_lang_tensor
    multiply = interpreter.InterpreterBuilder.create_dot

    def patch_tensor_and_index(tensor, scope):
        patch_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    def widened(handle):
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        return interpreter.TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    def multiply_widened(self, a, b, *rest):
        return multiply(self, widened(a), widened(b), *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter, "_patch_lang_tensor", patch_tensor_and_index)
        patch.setattr(interpreter.InterpreterBuilder, "create_dot", multiply_widened)
        yield
