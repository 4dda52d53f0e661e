"A cluster on this machine: workers that are killed, and the whole pipeline on one; nothing is lost, nothing done twice."
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import distributed
import pytest

from spacenet5_nb.core import StageError
from spacenet5_nb.parallel import Failure, parallel, rehearse


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    "Three workers in processes of their own."
    for name in ("outputs", "data"): (tmp_path/name).mkdir()
    monkeypatch.setenv("SPACENET5_OUTPUTS", str(tmp_path/"outputs"))
    monkeypatch.setenv("SPACENET5_DATA", str(tmp_path/"data"))
    with distributed.LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address=None) as made:
        monkeypatch.setenv("SPACENET5_SCHEDULER", made.scheduler_address)
        yield made


def when_there(path: Path, act) -> threading.Thread:
    "Act on a file's text as soon as the file is there."
    def wait() -> None:
        while not path.exists() and not over.wait(0.05): pass
        if path.exists(): act(path.read_text())
    over = threading.Event()
    thread = threading.Thread(target=wait, daemon=True)
    thread.over = over
    thread.start()
    return thread


def test_a_killed_worker_loses_nothing_and_doubles_nothing(cluster, tmp_path):
    "The first worker that takes the item `hold:...` is killed while it holds it; another one finishes it."
    held = tmp_path/"pid"
    killer = when_there(held, lambda pid: os.kill(int(pid), signal.SIGKILL))
    jobs = [*range(8), f"hold:{held}", *range(8)]
    found = parallel(rehearse, jobs, desc="rehearsal", module="parallel")
    killer.join(timeout=60)
    assert not killer.is_alive() and found == [0, 2, 4, 6, 8, 10, 12, 14, "held", 0, 2, 4, 6, 8, 10, 12, 14]


def test_an_item_that_kills_its_workers_is_named(cluster):
    found = parallel(rehearse, [1, "die", 2], desc="rehearsal", module="parallel", errors="collect")
    assert found[::2] == [2, 4] and isinstance(found[1], Failure) and found[1].subject == "die" and "workers" in found[1].problem
    with pytest.raises(StageError, match="die: ended three workers"): parallel(rehearse, ["die"], desc="rehearsal", module="parallel")


def test_errors_come_home(cluster):
    with pytest.raises(ValueError, match="rehearsed"): parallel(rehearse, [1, "fail", 2], desc="rehearsal", module="parallel")
    assert str(parallel(rehearse, ["fail"], desc="rehearsal", module="parallel", errors="collect")[0]) == "fail: failed with ValueError: rehearsed."


def test_folders_that_workers_lack_are_named(cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("SPACENET5_OUTPUTS", str(tmp_path/"nowhere"))
    with pytest.raises(StageError, match="nowhere: is not there on worker"): parallel(rehearse, [1, 2], desc="rehearsal", module="parallel")


def test_no_scheduler_is_one_line(tmp_path):
    done = subprocess.run([sys.executable, "-c", "from spacenet5_nb.pipeline import main; main()", "pipeline", "--preset", "demo", "--scheduler", "tcp://127.0.0.1:9"],
                          capture_output=True, text=True, env=os.environ | {"SPACENET5_OUTPUTS": str(tmp_path/"o"), "SPACENET5_DATA": str(tmp_path/"d")})
    assert done.returncode == 1 and "tcp://127.0.0.1:9 does not answer" in done.stderr.replace(": ", " ") and len(done.stderr.strip().splitlines()) == 1, done.stderr
