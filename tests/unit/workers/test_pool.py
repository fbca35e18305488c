"""Workers that crash, hang, eat memory or tell lies leave the daemon as it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from segmentd.errors import Reason, SegmentdError
from segmentd.workers import Session, WorkerPool

GIB = 1 << 30
PARENT = """
import sys
sys.path.insert(0, sys.argv[1])
from segmentd.workers import WorkerPool
pool = WorkerPool(1, packages=("worker_targets",))
print(pool.call("worker_targets:echo", {}).value["pid"], flush=True)
pool.call("worker_targets:" + sys.argv[2], {})
"""


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        with WorkerPool(1, memory_bytes=2 * GIB, packages=("segmentd", "worker_targets")) as started:
            yield started


def pid_of(pool: WorkerPool) -> int:
    pid = pool.call("worker_targets:echo", {}).value["pid"]
    assert isinstance(pid, int)
    return pid


def wait_until_gone(pid: int) -> bool:
    """Whether a process that is not our child ends within ten seconds."""
    for _ in range(1000):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":  # dead; whoever adopted it has not looked yet
            return True
        time.sleep(0.01)
    return False


def test_json_goes_there_and_back_and_one_process_serves_many_calls(pool: WorkerPool) -> None:
    sent = {"text": "µm \u0000 \udcff", "number": 1.5, "list": [None, True, {"deep": []}]}
    first = pool.call("worker_targets:echo", sent)
    assert first.value["args"] == sent
    assert first.arrays == []
    assert pid_of(pool) == first.value["pid"] != os.getpid()


def test_a_worker_loads_little(pool: WorkerPool) -> None:
    with WorkerPool(1, packages=("worker_targets",)) as fresh:
        modules = set(fresh.call("worker_targets:echo", {}).value["modules"])
    assert not modules & {"cv2", "sklearn", "scipy", "numba", "tifffile", "grpc", "asyncio", "watchdog"}


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "uint16", "uint32", "float32", "float64"])
def test_arrays_come_back_as_they_were(pool: WorkerPool, dtype: str) -> None:
    arrays = pool.call("worker_targets:ramp", {"dtype": dtype}).arrays
    assert [values.shape for values in arrays] == [(3, 5, 7), (), (0, 4), (11,), (2, 2)]
    assert {values.dtype.name for values in arrays} == {dtype}
    expected = np.arange(105).reshape(3, 5, 7).astype(dtype)
    np.testing.assert_array_equal(arrays[0], expected)
    np.testing.assert_array_equal(arrays[4], np.array([[0, 3], [12, 15]]).astype(dtype))
    arrays[0][...] = 1  # the caller's own memory


def test_descriptors_are_handed_over_and_closed_there(pool: WorkerPool, tmp_path: Path) -> None:
    files = []
    for name in ("a", "b"):
        (tmp_path / name).write_text(f"content of {name}")
        files.append((tmp_path / name).open("rb"))
    fds = [file.fileno() for file in files]
    before = pool.call("worker_targets:open_descriptors", {}).value
    assert pool.call("worker_targets:read_all", {}, fds).value == ["content of a", "content of b"]
    assert pool.call("worker_targets:open_descriptors", {}).value == before
    for file in files:
        assert file.read() == f"content of {Path(file.name).name}".encode()
        file.close()


def test_a_session_has_a_process_of_its_own_which_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    pool = WorkerPool(1, packages=("worker_targets",))

    def pid(session: Session) -> int:
        return int(session.call("worker_targets:echo", {}).value["pid"])

    first, second = pool.session(), pool.session()
    pids = {pid_of(pool), pid(first), pid(second), pid(first)}
    assert len(pids) == 3
    kept = pid(first)
    first.end(reuse=True)
    second.end(reuse=False)
    with pytest.raises(ValueError, match="has ended"):
        pid(first)
    again = pool.session()
    assert pid(again) == kept
    with pytest.raises(SegmentdError, match="crashed"):
        again.call("worker_targets:abort", {})
    again.end(reuse=True)
    last = pool.session()
    assert pid(last) not in pids
    pool.close()
    with pytest.raises(SegmentdError, match="shut down"):
        pid(last)
    last.end(reuse=True)
    with pytest.raises(SegmentdError, match="shut down"):
        pool.session()


def test_no_descriptors_are_left_here(pool: WorkerPool) -> None:
    pid_of(pool)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for target in ("ramp", "bug", "fault", "abort", "echo"):
        try:
            pool.call(f"worker_targets:{target}", {"dtype": "uint8"})
        except SegmentdError:
            continue
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_fault_is_raised_here_as_it_was_there(pool: WorkerPool) -> None:
    pid = pid_of(pool)
    with pytest.raises(SegmentdError) as caught:
        pool.call("worker_targets:fault", {}, subject="ignored: the message names the file")
    assert caught.value.reason is Reason.IMAGE_CORRUPT
    assert caught.value.message == "x.tif: its strips are torn"
    assert caught.value.metadata == {"file": "x.tif", "strip": "3"}
    assert pid_of(pool) == pid


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("worker_targets:bug", "a.tif: ZeroDivisionError: of zero by zero"),
        ("worker_targets:no_json", "returned what is no JSON"),
        ("worker_targets:objects", "an array of type object cannot be sent"),
        ("worker_targets:missing", "AttributeError"),
        ("worker_targets.missing:f", "ModuleNotFoundError"),
        ("os:abort", "os:abort may not be called in a worker"),
        ("segmentdx.y:f", "may not be called in a worker"),
        ("segmentd.workers.process:_environment", "may not be called in a worker"),
    ],
)
def test_other_exceptions_are_internal_and_named(pool: WorkerPool, target: str, text: str) -> None:
    pid = pid_of(pool)
    with pytest.raises(SegmentdError, match=text.replace("(", r"\(")) as caught:
        pool.call(target, {}, subject="a.tif")
    assert caught.value.reason is Reason.INTERNAL
    assert pid_of(pool) == pid


@pytest.mark.parametrize(
    ("target", "args", "how"),
    [("abort", {}, "SIGABRT"), ("segfault", {}, "SIGSEGV"), ("leave", {"code": 7}, "exit code 7")],
)
def test_a_crash_is_reported_and_the_next_call_gets_a_new_process(
    pool: WorkerPool, target: str, args: dict[str, int], how: str
) -> None:
    pid = pid_of(pool)
    with pytest.raises(SegmentdError, match=rf"a\.tif: .*{how}") as caught:
        pool.call(f"worker_targets:{target}", args, subject="a.tif")
    assert caught.value.reason is Reason.WORKER_CRASHED
    assert pid_of(pool) != pid


@pytest.mark.parametrize("target", ["hang", "hang_with_the_lock_held"])
def test_a_call_past_its_deadline_is_killed(pool: WorkerPool, target: str) -> None:
    pid = pid_of(pool)
    with pytest.raises(SegmentdError, match=r"a\.tif: not done after 0\.2 seconds") as caught:
        pool.call(f"worker_targets:{target}", {}, deadline_seconds=0.2, subject="a.tif")
    assert caught.value.reason is Reason.WORKER_DEADLINE
    assert not Path(f"/proc/{pid}").exists()
    assert pid_of(pool) != pid


def test_memory_is_limited_in_the_worker_only(pool: WorkerPool) -> None:
    with pytest.raises(SegmentdError, match=r"a\.tif: needs more memory") as caught:
        pool.call("worker_targets:hog", {"bytes": 3 * GIB}, subject="a.tif")
    assert caught.value.reason is Reason.WORKER_MEMORY
    assert pool.call("worker_targets:hog", {"bytes": 1000}).arrays[0].sum() == 1000


def test_signals_of_the_terminal_do_not_reach_a_worker(pool: WorkerPool) -> None:
    value = pool.call("worker_targets:interrupt_oneself", {}).value
    assert value["session"] == value["pid"]


def test_numeric_libraries_have_one_thread(pool: WorkerPool) -> None:
    assert pool.call("worker_targets:environment", {}).value["OPENBLAS_NUM_THREADS"] == "1"


def test_many_threads_share_the_processes(pool: WorkerPool) -> None:
    with WorkerPool(2, packages=("worker_targets",)) as shared:
        pids: set[int] = set()
        threads = [threading.Thread(target=lambda: pids.add(pid_of(shared))) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert 1 <= len(pids) <= 2


def test_close_ends_what_runs_and_what_waits(pool: WorkerPool) -> None:
    closing = WorkerPool(1, packages=("worker_targets",))
    pid = pid_of(closing)
    reasons: list[Reason] = []

    def ask() -> None:
        try:
            closing.call("worker_targets:hang", {})
        except SegmentdError as error:
            reasons.append(error.reason)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    closing.close()
    for thread in threads:
        thread.join()
    assert reasons == [Reason.SHUTTING_DOWN] * 3
    assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(SegmentdError, match="shut down"):
        closing.call("worker_targets:echo", {})
    closing.close()


@pytest.mark.parametrize("doing", ["hang", "hang_with_the_lock_held"])
def test_workers_die_with_a_killed_daemon(tmp_path: Path, doing: str) -> None:
    """From a script without a guard for `__main__`, too."""
    script = tmp_path / "script.py"
    script.write_text(PARENT)
    here = str(Path(__file__).parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, str(script), here, doing]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        assert Path(f"/proc/{worker}").exists()
        parent.send_signal(signal.SIGKILL)
    assert wait_until_gone(worker)


def test_a_size_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match="size = 0: must be >= 1"):
        WorkerPool(0)
