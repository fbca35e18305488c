"""Which kernel a processor gets, and what is said when another one is asked for."""

from __future__ import annotations

import pytest
from numba import config

from segmentd.compute.packets import Kernel, choose_kernel, warm_up
from segmentd.compute.packets.choice import can_be_compiled
from segmentd.errors import Reason, SegmentdError

AVX512 = "+avx2,+avx512f,+avx512bw,+avx512dq,+avx512vl"


@pytest.fixture(autouse=True)
def nothing_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEGMENTD_KERNEL", raising=False)


@pytest.mark.parametrize(
    ("features", "kernel"),
    [
        (AVX512, Kernel.AVX512),
        (AVX512.replace("+avx512vl", "-avx512vl"), Kernel.AVX2),
        ("+avx,-avx2,+sse2", Kernel.SIMD),
        ("+neon", Kernel.SIMD),
        ("", Kernel.SIMD),
    ],
)
def test_the_best_kernel_that_the_processor_can_run(
    features: str, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "CPU_FEATURES", features)
    assert choose_kernel() is kernel


def test_without_numba_settings_the_processor_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "CPU_FEATURES", None)
    assert choose_kernel() in Kernel


def test_the_environment_or_the_caller_may_ask_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "CPU_FEATURES", "+avx2")
    monkeypatch.setenv("SEGMENTD_KERNEL", "plain")
    assert choose_kernel() is Kernel.PLAIN
    assert choose_kernel("simd") is Kernel.SIMD


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("avx512", "this processor has no avx512bw, avx512dq, avx512f, avx512vl"),
        ("fast", "must be one of avx512,"),
    ],
)
def test_what_cannot_be_had_is_an_error(wanted: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "CPU_FEATURES", "+avx2")
    monkeypatch.setenv("SEGMENTD_KERNEL", wanted)
    with pytest.raises(SegmentdError, match=message) as caught:
        choose_kernel()
    assert caught.value.reason is Reason.BAD_CONFIGURATION


def test_code_that_cannot_be_compiled_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "CPU_FEATURES", "+neon")
    can_be_compiled.cache_clear()
    try:
        with pytest.raises(ValueError, match="cannot run the kernel avx2"):
            warm_up(Kernel.AVX2)
        assert can_be_compiled(Kernel.AVX512)
    finally:
        can_be_compiled.cache_clear()
