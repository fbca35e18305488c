"""A daemon as a child process, and the command lines, as a user or a service manager runs them."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from typer.testing import CliRunner

from segmentctl import Client
from segmentd.cli.main import app

START_SECONDS = 60.0
STOP_SECONDS = 10.0
COMMAND_SECONDS = 100.0
SHOWN_LOG_LINES = 40


@dataclass(frozen=True)
class Output:
    """What a command wrote."""

    stdout: str
    stderr: str


class DaemonProcess:
    """`segmentd run` in a folder of its own: configuration, hot folder, journal and log lie in it.

    Parameters
    ----------
    folder : Path
        Made if it is missing; `hot` in it is watched as `hot` unless `watches` says otherwise.
    models : Path
        The models folder.
    watches : list of mapping
        The `[[watch]]` tables; folders may be relative to `folder`.
    server : mapping
        More keys of `[server]`.

    Attributes
    ----------
    journal, device, training, open_inference, metrics : dict
        The keys of `[journal]`, `[device]`, `[training]`, `[open_inference]` and `[metrics]`.
    prefix : list of str
        A command that the daemon is run by, in the same process: `strace -D`, `unshare`...
    environment : dict
        More of its environment.
    """

    def __init__(
        self,
        folder: Path,
        models: Path,
        watches: list[Mapping[str, Any]] | None = None,
        server: Mapping[str, Any] | None = None,
        **watch: Any,
    ) -> None:
        self.folder = folder
        self.hot = folder / "hot"
        self.hot.mkdir(parents=True, exist_ok=True)
        self.results = self.hot / "segmented"
        self.address = "127.0.0.1:0"
        self.starts = 0
        self.journal: dict[str, Any] = {"folder": "journal"}
        self.device: dict[str, Any] = {}
        self.open_inference: dict[str, Any] = {}
        self.training: dict[str, Any] = {}
        self.metrics: dict[str, Any] = {}
        self.model_settings: dict[str, Any] = {}
        self.prefix: list[str] = []
        self.environment: dict[str, str] = {}
        self._models = models
        self._server = dict(server or {})
        self._watches = watches if watches is not None else [{"id": "hot", "folder": "hot", **watch}]
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str] = queue.Queue()

    def __enter__(self) -> Self:
        if self._process is None:
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clean_up()
        print(f"--- the end of {self.log_path}\n{self.log_end()}")  # pytest shows it when the test failed

    # ------------------------------------------------------------ life

    def start(self) -> Self:
        """Start and wait for READY; a second start keeps address and state."""
        self.launch()
        try:
            self.address = self.wait_until_ready()
        except BaseException:
            self.clean_up()
            raise
        return self

    def launch(self) -> None:
        """Start without waiting."""
        assert self._process is None, "it runs already"
        self.starts += 1
        with self.log_path.open("wb") as stderr:
            self._process = subprocess.Popen(
                [*self.prefix, sys.executable, "-m", "segmentd", "run", "--config", str(self.write_config())],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=environment(self.folder) | self.environment,
            )
        self._lines = queue.Queue()
        threading.Thread(target=_pass_on, args=(self._process, self._lines), daemon=True).start()

    def wait_until_ready(self) -> str:
        """Wait for the line READY and return the address in it."""
        try:
            line = self._lines.get(timeout=START_SECONDS)
        except queue.Empty:
            line = f"nothing within {START_SECONDS:g} s"
        ready, _, address = line.partition(" address=")
        assert ready == "READY" and address, f"no READY but {line!r}\n{self.log_end()}"
        return address

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Stop as a service manager or Ctrl-C does; it must end with 0 in time."""
        assert self._process is not None
        self._process.send_signal(number)
        assert self.wait_for_exit(STOP_SECONDS) == 0, f"exit code after {number.name}\n{self.log_end()}"

    def signal(self, number: signal.Signals) -> None:
        """Send a signal and do not wait."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """`kill -9`."""
        self.signal(signal.SIGKILL)
        self.wait_for_exit(STOP_SECONDS)

    def wait_for_exit(self, seconds: float) -> int:
        """Wait for the end of the process and return its exit code."""
        process = self._process
        assert process is not None
        code = process.wait(seconds)
        self._process = None
        return code

    def clean_up(self) -> None:
        """End the process, whatever state it is in."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        (self.folder / "journal" / "reserve").unlink(missing_ok=True)  # 16 MiB that a killed daemon leaves

    # ------------------------------------------------------------ looking

    @property
    def pid(self) -> int:
        """Process id; the daemon must be running."""
        assert self._process is not None
        return self._process.pid

    @property
    def log_path(self) -> Path:
        return self.folder / f"daemon-{self.starts}.log"

    def log_end(self) -> str:
        """Return the last lines of the log of this start."""
        lines = self.log_path.read_text(errors="replace").splitlines() if self.starts else []
        return "\n".join(lines[-SHOWN_LOG_LINES:])

    def metrics_url(self) -> str:
        """Return where this start serves its metrics."""
        found = re.search(r"url=(http://\S+)", self.log_path.read_text(errors="replace"))
        assert found is not None, self.log_end()
        return found[1]

    def further_output(self) -> list[str]:
        """Return what came on stdout after READY so far."""
        return list(self._lines.queue)

    def client(self) -> Client:
        return Client(self.address, timeout=30)

    def write_config(self) -> Path:
        """Write the configuration with the address that the first start got."""
        tables = {
            "server": {"listen": self.address, **self._server},
            "models": {"folder": str(self._models), **self.model_settings},
            "journal": self.journal,
            "device": self.device,
            "open_inference": self.open_inference,
            "training": self.training,
            "metrics": self.metrics,
        }
        parts = [f"[{name}]\n{toml(table)}" for name, table in tables.items()]
        parts += [f"[[watch]]\n{toml(table)}" for table in self._watches]
        path = self.folder / "segmentd.toml"
        path.write_text("\n".join(parts), encoding="utf-8")
        return path


def toml(table: Mapping[str, Any]) -> str:
    """Write plain keys: TOML's texts, numbers, truth values and lists look as in JSON."""
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())


def environment(home: Path) -> dict[str, str]:
    """Return this environment, with the user's data in `home` and no configuration of the user's."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(("SEGMENTD", "SEGMENTCTL"))}
    return own | {"XDG_DATA_HOME": str(home / "data"), "COLUMNS": "200"}


def run(
    *arguments: str | Path, code: int = 0, module: str = "segmentd", folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command line to its end and check its exit code."""
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        cwd=folder,
        env=environment(Path("/nonexistent")),
        check=False,
    )
    shown = f"{module} {' '.join(map(str, arguments))}\n{done.stdout}\n{done.stderr}"
    assert done.returncode == code, f"exit code {done.returncode}, not {code}\n{shown}"
    assert "Traceback" not in done.stderr, shown
    return done


def run_here(*arguments: str | Path, code: int = 0) -> Output:
    """Run a command line of `segmentd` in this process, which is quicker, and check its exit code."""
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(argument) for argument in arguments])
    unexpected = done.exception is not None and not isinstance(done.exception, SystemExit)
    assert not unexpected, done.exc_info
    assert done.exit_code == code, f"exit code {done.exit_code}, not {code}\n{done.output}"
    return Output(done.stdout, done.stderr)


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    """Wait for a condition that another process brings about."""
    pause = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        pause.wait(0.02)
    raise AssertionError(f"not within {seconds:g} s: {what}")


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _pass_on(process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            lines.put(line.rstrip("\n"))
    lines.put("the end of stdout")
