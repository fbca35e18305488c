"""The CUDA source compiles for every card that is meant, without a card or a driver."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from segmentd.compute.cuda.source import KERNELS, OPTIONS, source

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def compiler() -> ctypes.CDLL:
    reason = "needs the extra cuda-check: NVIDIA's compiler, 90 MB"
    package = pytest.importorskip("nvidia.cuda_nvrtc", reason=reason)
    folder = Path(next(iter(package.__path__))) / "lib"
    return ctypes.CDLL(str(next(folder.glob("libnvrtc.so.*"))))


@pytest.mark.parametrize("card", ["sm_75", "sm_80", "sm_90"])
def test_all_kernels_become_machine_code(compiler: ctypes.CDLL, card: str) -> None:
    program, options = (
        ctypes.c_void_p(),
        [option.encode() for option in (*OPTIONS, f"--gpu-architecture={card}")],
    )
    text = source().encode()
    assert compiler.nvrtcCreateProgram(ctypes.byref(program), text, b"kernels.cu", 0, None, None) == 0
    given = (ctypes.c_char_p * len(options))(*options)
    failed = compiler.nvrtcCompileProgram(program, len(options), given)
    size = ctypes.c_size_t()
    compiler.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    compiler.nvrtcGetProgramLog(program, log)
    assert (failed, log.value) == (0, b"")
    assert compiler.nvrtcGetCUBINSize(program, ctypes.byref(size)) == 0
    code = ctypes.create_string_buffer(size.value)
    assert compiler.nvrtcGetCUBIN(program, code) == 0
    assert code.raw.startswith(b"\x7fELF")
    for kernel in KERNELS:
        assert b".text." + kernel.encode() in code.raw
