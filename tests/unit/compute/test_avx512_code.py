"""What the AVX-512 kernel is made of becomes AVX-512 instructions; no processor that has them is needed."""

from __future__ import annotations

import re

import pytest
from llvmlite import binding
from numba import int64, njit

from segmentd.compute.packets.masks import compare_halves
from segmentd.compute.packets.x86 import split_avx512


def split(item, list_bytes, compared, children, end, leaf, table):
    return split_avx512(item, list_bytes, compared, children, end, leaf, table)


def compare(features, threshold, low, high):
    compare_halves(features, threshold, low, high)


def assembly(function, arguments: int, processor: str) -> str:
    """What the code generator makes of a function for another x86 processor."""
    signature = (int64,) * arguments
    dispatcher = njit(signature, error_model="numpy")(function)
    code = re.sub(r'"target-c[^"]*"="[^"]*"', "", dispatcher.inspect_llvm(signature))
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    target = binding.Target.from_triple("x86_64-unknown-linux-gnu")
    return target.create_target_machine(cpu=processor, opt=3).emit_assembly(binding.parse_assembly(code))


@pytest.mark.parametrize("processor", ["skylake-avx512", "znver4"])
def test_children_are_compressed_sixteen_at_a_time(processor: str) -> None:
    code = assembly(split, 7, processor)
    # item, low and high half; for the left and for the right; to the level and to the leaves
    assert len(re.findall(r"vpcompressd\s+%zmm\d+, %zmm\d+ \{%k\d\} \{z\}", code)) == 12
    assert len(re.findall(r"vmov\w+\s+%zmm\d+, .*\(", code)) == 12


@pytest.mark.parametrize("processor", ["skylake-avx512", "znver4"])
def test_sixty_four_features_are_four_comparisons(processor: str) -> None:
    code = assembly(compare, 4, processor)
    assert len(re.findall(r"vcmp\w*ps\s.*%zmm\d+, %k\d", code)) == 4
    assert len(re.findall(r"kmovd\s+%k\d, .*\(", code)) == 2
