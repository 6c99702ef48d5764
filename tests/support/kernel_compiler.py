"""Compiles what an operator would launch for a GPU that need not be there."""

import contextlib
from dataclasses import dataclass

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction


@dataclass(frozen=True)
class Card:
    """What kernels are compiled for, and the shared memory that one program may take there."""

    target: GPUTarget
    shared_bytes: int


HOPPER = Card(GPUTarget("cuda", 90, 32), 227 * 1024)
# Ampere as in workstations; Ada and consumers' Blackwell have as much. No card since 8.0 has less.
SMALL_CARD = Card(GPUTarget("cuda", 86, 32), 99 * 1024)
# What a grid may be in its second and third dimension.
MAX_GRID = 65_535

POINTERS = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.float8_e4m3fn: "*fp8e4nv",
    torch.bool: "*i1",
    torch.int8: "*i8",
    torch.uint8: "*u8",
    torch.int16: "*i16",
    torch.int32: "*i32",
    torch.int64: "*i64",
}


@dataclass(frozen=True)
class Launch:
    """One launch: the kernel, its arguments by name, options such as num_warps, and its grid."""

    kernel: JITFunction
    arguments: dict
    options: dict
    grid: tuple

    def specialization(self):
        """What Triton compiles anew for: equal for launches that share a compiled kernel."""
        key = list(self.options.items())
        for parameter in self.kernel.params:
            value = self.arguments[parameter.name]
            if isinstance(value, torch.Tensor):
                is_free = parameter.do_not_specialize or parameter.do_not_specialize_on_alignment
                value = (value.dtype, None if is_free else value.data_ptr() % 16 == 0)
            elif isinstance(value, int) and not parameter.is_constexpr:
                value = None if parameter.do_not_specialize else (value == 1, value % 16 == 0)
            key.append((parameter.name, value))
        return self.kernel, tuple(key)

    def compile(self, target):
        """Through Triton's whole compiler and ptxas, specialized as a launch would be."""
        parameters = {parameter.name: parameter for parameter in self.kernel.params}
        signature, constants, attributes = {}, {}, {}
        for index, (name, parameter) in enumerate(parameters.items()):
            value = self.arguments[name]
            if parameter.is_constexpr or value is None:
                signature[name] = "constexpr"
                constants[(index,)] = value
            elif isinstance(value, torch.Tensor):
                signature[name] = POINTERS[value.dtype]
                attributes[(index,)] = [["tt.divisibility", 16]]
            else:
                signature[name] = "fp32" if isinstance(value, float) else "i32"
        source = ASTSource(self.kernel, signature, constants, attributes)
        return triton.compile(source, target=target, options=self.options)


@contextlib.contextmanager
def recorded_launches():
    """Inside, kernels are not run: the launches of operators are collected in the yielded list."""
    launches = []

    def record(self, *args, grid, warmup, **named):
        names = [parameter.name for parameter in self.params]
        arguments = dict(zip(names, args, strict=False))
        arguments |= {name: value for name, value in named.items() if name in names}
        options = {name: value for name, value in named.items() if name not in names}
        launches.append(Launch(self, arguments, options, grid))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JITFunction, "run", record)
        yield launches


def compile_launches(operate, num_launches, card=HOPPER):
    """What is launched inside, compiled: so many kernels, all of which fit the card."""
    with recorded_launches() as launches:
        operate()
    assert len(launches) == num_launches
    compiled = [launch.compile(card.target) for launch in launches]
    for kernel in compiled:
        assert kernel.asm["cubin"]
        assert kernel.metadata.shared <= card.shared_bytes
    return compiled
