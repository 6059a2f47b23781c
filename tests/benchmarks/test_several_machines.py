"""Two processes on this machine, each with half of the images, as two machines would be.

Skipped where JAX is missing; `.ci/jax` installs it and runs this.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("jax", reason="no JAX: .ci/jax installs it")
COMMAND = Path(__file__).parent / "several_machines.py"
DIGITS = {"CIFAR10_NPZ": "none", "REQUIRE_CIFAR10": "0", "SMOKE_TEST": "0"}
SETTINGS = DIGITS | {"EPOCHS": "4", "PEAK_RATE": "0.1"}


@pytest.fixture
def start(tmp_path):
    """Starts the two processes on scikit-learn's digits; ends them with the test."""
    started = []

    def two():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        for index in ("0", "1"):
            command = [sys.executable, COMMAND, address, "2", index]
            options = {"cwd": tmp_path, "env": os.environ | SETTINGS, "start_new_session": True}
            options |= {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
            started.append(subprocess.Popen(command, encoding="utf-8", **options))
        return started[-2:]

    yield two
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.timeout(500)
def test_one_dies_the_other_says_so_and_a_restart_goes_on(start, tmp_path):
    """The second is killed once the first has saved an epoch."""
    first, second = start()
    while not (tmp_path / "several_machines" / "saved.npz").exists():
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.1)
    os.killpg(second.pid, signal.SIGKILL)
    said, _ = first.communicate(timeout=200)
    assert first.returncode == 1
    assert "goes on after the last saved epoch" in said.splitlines()[-1]

    outputs = [process.communicate()[0] for process in start()]
    done = [int(re.search(r"(\d+) epochs are done", text)[1]) for text in outputs]
    assert done[0] == done[1] >= 1
    losses = [re.findall(r"epoch (\d+): loss (.*)", text) for text in outputs]
    assert losses[0] == losses[1] and len(losses[0]) == 4 - done[0]
    shares = [re.search(r"(.*)% of the validation images", text)[1] for text in outputs]
    assert shares[0] == shares[1]
    assert float(losses[0][-1][1]) < 2.3  # of guessing
