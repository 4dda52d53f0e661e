"""A cluster on this machine: workers that are killed, and the whole pipeline on one; nothing is
lost, nothing done twice."""

import contextlib
import json
import os
import signal
import threading
from pathlib import Path

import distributed
import numpy as np
import pandas as pd
import pytest
import torch
from affine import Affine
from fresh import members

from spacenet5_nb import core, ensemble, extract, raster
from spacenet5_nb.base import cluster as clusters
from spacenet5_nb.base.cluster import on_cluster
from spacenet5_nb.base.parallel import Failure, parallel, rehearse
from spacenet5_nb.core import StageError
from spacenet5_nb.inference import tiled_inference, window_store

pytestmark = pytest.mark.slow


def start(n: int = 3) -> distributed.LocalCluster:
    "Workers in processes of their own; one that dies is started again."
    return distributed.LocalCluster(n_workers=n, threads_per_worker=1, dashboard_address=None)


@pytest.fixture(scope="module")
def workers():
    "A cluster that the tests share, because each of its processes takes seconds to import torch."
    with start(2) as made:
        yield made


@pytest.fixture
def folders(tmp_path, monkeypatch):
    "Settings of a workspace of its own."
    for name in ("outputs", "data"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"SPACENET5_{name.upper()}", str(tmp_path / name))


@pytest.fixture
def cluster(workers, folders, monkeypatch):
    "The workers, as settings name them."
    monkeypatch.setenv("SPACENET5_SCHEDULER", workers.scheduler_address)
    with distributed.Client(workers.scheduler_address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)  # an earlier test has killed some
    return workers


def when_there(path: Path, act) -> threading.Thread:
    "Act on a file's text as soon as the file is there."

    def wait() -> None:
        while not path.exists() and not over.wait(0.05):
            pass
        if path.exists():
            act(path.read_text())

    over = threading.Event()
    thread = threading.Thread(target=wait, daemon=True)
    thread.over = over
    thread.start()
    return thread


def test_a_killed_worker_loses_nothing_and_doubles_nothing(cluster, tmp_path):
    """The first worker that takes the item `hold:...` is killed while it holds it; another one
    finishes it."""
    held = tmp_path / "pid"
    killer = when_there(held, lambda pid: os.kill(int(pid), signal.SIGKILL))
    jobs = [*range(8), f"hold:{held}", *range(8)]
    found = parallel(rehearse, jobs, desc="rehearsal", module="base.parallel")
    killer.join(timeout=60)
    assert not killer.is_alive() and found == [
        0,
        2,
        4,
        6,
        8,
        10,
        12,
        14,
        "held",
        0,
        2,
        4,
        6,
        8,
        10,
        12,
        14,
    ]


def test_an_item_that_kills_its_workers_is_named(folders, monkeypatch):
    "Workers that are killed while they start are not started again: these are for this test alone."
    with start() as mortal:
        monkeypatch.setenv("SPACENET5_SCHEDULER", mortal.scheduler_address)
        check_that_an_item_that_kills_its_workers_is_named()


def check_that_an_item_that_kills_its_workers_is_named():
    found = parallel(
        rehearse, [1, "die", 2], desc="rehearsal", module="base.parallel", errors="collect"
    )
    assert (
        found[::2] == [2, 4]
        and isinstance(found[1], Failure)
        and found[1].subject == "die"
        and "workers" in found[1].problem
    )
    with pytest.raises(StageError, match="die: ended three workers"):
        parallel(rehearse, ["die"], desc="rehearsal", module="base.parallel")


def test_errors_come_home(cluster):
    with pytest.raises(ValueError, match="rehearsed"):
        parallel(rehearse, [1, "fail", 2], desc="rehearsal", module="base.parallel")
    assert (
        str(
            parallel(
                rehearse, ["fail"], desc="rehearsal", module="base.parallel", errors="collect"
            )[0]
        )
        == "fail: failed with ValueError: rehearsed."
    )


def test_folders_that_workers_lack_are_named(cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("SPACENET5_OUTPUTS", str(tmp_path / "nowhere"))
    with pytest.raises(StageError, match="nowhere: is not there on worker"):
        parallel(rehearse, [1, 2], desc="rehearsal", module="base.parallel")


def test_no_scheduler_is_one_line(tmp_path, monkeypatch, program):
    monkeypatch.setenv("SPACENET5_SCHEDULER", "")  # the program sets it
    monkeypatch.setenv("SPACENET5_OUTPUTS", str(tmp_path / "o"))
    monkeypatch.setenv("SPACENET5_DATA", str(tmp_path / "d"))
    code, _, err = program("pipeline", "--preset", "demo", "--scheduler", "tcp://127.0.0.1:9")
    assert code == 1 and "tcp://127.0.0.1:9 does not answer" in err.replace(": ", " ")
    assert len(err.strip().splitlines()) == 1, err


# --- the windows of one raster, the chips of stage 05 ---

TINY = core.load_preset(
    {
        "name": "tiny",
        "decoder": [8, 8, 8, 8],
        "data": {"gsd_m": 0.5},
        "folds": [{"encoder": "test_resnet", "pretrained": False, "bands": b} for b in (3, 8)],
        "ensemble": {"tta": "none", "window_px": 320},
        "vectorize": {"threshold": 0.5, "low_threshold": None, "min_component_m": 0.0},
    }
)
SHAPE = (400, 500)  # sixteen windows of 320 pixels


def town(path: Path, shape=SHAPE) -> Path:
    image = (
        np.random.default_rng(shape[0])
        .gamma(6, 60, (8, -(-shape[0] // 16), -(-shape[1] // 16)))
        .repeat(16, 1)
        .repeat(16, 2)[:, : shape[0], : shape[1]]
    )
    return raster.write(
        path,
        image.astype(np.uint16),
        grid=raster.Grid(shape, Affine(0.5, 0, 5e5, 0, -0.5, 4e6), raster.CRS.from_epsg(32611)),
    )


@pytest.fixture
def here(monkeypatch):
    "Does something on this machine, with as many threads as a worker has."
    threads = torch.get_num_threads()

    def do(what):
        torch.set_num_threads(1)
        with monkeypatch.context() as m:
            m.setenv("SPACENET5_SCHEDULER", "")
            m.setenv("SPACENET5_THREADS", "1")
            return what()

    yield do
    torch.set_num_threads(threads)


class Killer(distributed.SchedulerPlugin):
    """Sees every call of a function that a worker finishes, and kills one that holds calls when a
    few are done; the scheduler runs in this process."""

    name = "killer"

    def __init__(self, prefix: str, pids: dict[str, int], after: int = 3):
        self.prefix, self.pids, self.after, self.scheduler = prefix, pids, after, None
        self.done: dict[str, list[str]] = {}  # call: workers that finished it
        self.lost, self.killed = set(), ""

    async def start(self, scheduler) -> None:
        self.scheduler = scheduler

    def transition(self, key, start, finish, *args, worker=None, **kwargs) -> None:
        if not str(key).startswith(self.prefix) or (start, finish) != ("processing", "memory"):
            return
        self.done.setdefault(key, []).append(worker)
        if self.killed or len(self.done) < self.after or not self.pids:
            return
        for address, state in self.scheduler.workers.items():
            self.lost = {t.key for t in state.processing if t.key.startswith(self.prefix)} - {key}
            if self.lost and address in self.pids:
                self.killed = address
                os.kill(self.pids[address], signal.SIGKILL)
                return


@contextlib.contextmanager
def watched(cluster, prefix: str, kill: bool = True):
    "The scheduler's Killer while the block runs."
    with distributed.Client(cluster.scheduler_address, set_as_default=False) as client:
        client.register_plugin(Killer(prefix, client.run(os.getpid) if kill else {}))
        yield cluster.scheduler.plugins["killer"]
        client.unregister_scheduler_plugin("killer")


def test_windows_with_a_worker_killed_are_the_same_file(cluster, here, tmp_path, monkeypatch):
    """Begun on this machine, stopped, gone on with on the cluster, where a worker is killed: as if
    nothing had been."""
    image, paths, made, most, real = (
        town(tmp_path / "town.tif"),
        members(tmp_path / "folds", TINY, std=0.5),
        [],
        [],
        window_store.settle,
    )
    one = here(
        lambda: tiled_inference.predict_raster(
            paths, image, tmp_path / "one.tif", config=TINY.ensemble, devices="cpu"
        )
    )

    def watching(w, cells, *shared):
        most.append(len(list(w.folder.glob("part_*"))))
        made.extend(found := real(w, cells, *shared))
        return found

    def stopping(w, cells, *shared):
        if watching(w, cells, *shared):
            raise KeyboardInterrupt

    monkeypatch.setattr(tiled_inference, "settle", stopping)
    with pytest.raises(KeyboardInterrupt):
        here(
            lambda: tiled_inference.predict_raster(
                paths, image, tmp_path / "many.tif", config=TINY.ensemble, devices="cpu"
            )
        )
    monkeypatch.setattr(tiled_inference, "settle", watching)
    most.clear()
    w = window_store.make_windows(tmp_path / "many.tif.parts", SHAPE, TINY.ensemble, 32, 13)
    left = window_store.waiting(w)
    with watched(cluster, "predict_here-") as killer:
        many = tiled_inference.predict_raster(
            paths, image, tmp_path / "many.tif", config=TINY.ensemble
        )
    assert many.read_bytes() == one.read_bytes()
    check_killed(killer)
    assert 0 < len(left) <= len(w.all()) - 4 and len(killer.done) == len(left) == len(most) - 1, (
        "each window that was left came back, once"
    )
    assert sorted(made) == w.all(), "every cell was made, once"
    assert max(most) <= 3 * len(w.columns) + 4, "little lies on disk"
    assert not list(tmp_path.glob("*.parts")) and not list(tmp_path.glob(".tmp*"))


def check_killed(killer: Killer) -> None:
    """A worker was killed while it held calls, and others made them; what was made twice was lost
    with it, before its result had been fetched."""
    assert (
        killer.killed
        and killer.lost
        and not any(killer.done[key][-1] == killer.killed for key in killer.lost)
    )
    assert all(
        len(by) == 1 or by[0] == killer.killed and len(by) == 2 for by in killer.done.values()
    )


def test_extract_on_a_cluster_gives_the_same_roads(cluster, here, tmp_path, monkeypatch):
    "Windows are predicted by workers, and roads traced by them."
    monkeypatch.setitem(extract._CORES, "window_px", 200)
    monkeypatch.setitem(extract._CORES, "margin_m", 30.0)
    image, folds = (
        town(tmp_path / "town.tif", (200, 400)),
        members(tmp_path / "folds", TINY, std=0.5) and tmp_path / "folds",
    )

    def roads(name):
        return extract.extract(image, folds, tmp_path / f"{name}.gpkg", preset=TINY, html=False)

    one = here(lambda: roads("one"))
    with watched(cluster, "find_part-", kill=False) as traced:
        many = roads("many")
    assert (
        many.probabilities.read_bytes() == one.probabilities.read_bytes() and len(traced.done) == 2
    )
    found, wanted = (
        sorted((d["geometry"].wkt, d["speed_kph"]) for *_, d in g.edges(data=True))
        for g in (many.graph, one.graph)
    )
    assert found == wanted and len(wanted) > 5


def test_chips_of_stage_05_with_a_worker_killed_are_the_same_files(cluster, here, tmp_path):
    r = core.Run("tiny", tmp_path / "outputs/tiny", tmp_path / "data", TINY, 0)
    opened = ensemble.open_members(
        members(r.folder / "folds", TINY, TINY.ensemble.checkpoints, std=0.5), device="cpu"
    )
    rows = pd.DataFrame(
        [
            dict(
                chip=f"AOI_1_Town_chip{k}",
                image=str(town(tmp_path / f"data/{k}.tif", (96 + 16 * k, 128))),
            )
            for k in range(8)
        ]
    )
    one = {
        p.name: p.read_bytes() for p in here(lambda: ensemble.write_probabilities(r, rows, opened))
    }
    for name in one:
        (r.folder / "probs" / name).unlink()
    with watched(cluster, "attempt-") as killer:
        many = ensemble.write_probabilities(r, rows, [], "cpu")
    assert {p.name: p.read_bytes() for p in many} == one and [p.stem for p in many] == list(
        rows.chip
    )
    assert len(killer.done) == 8
    check_killed(killer)
    with pytest.raises(StageError, match="9.tif: is not there on worker"):
        ensemble.write_probabilities(r, rows.assign(image=str(tmp_path / "9.tif")), [], "cpu")


def test_gpu_calls_go_to_the_workers_with_a_gpu(folders, monkeypatch):
    spec = {
        name: {
            "cls": distributed.Worker,
            "options": {"nthreads": 1, "resources": {"GPU": 1} if name else {}},
        }
        for name in range(2)
    }
    with distributed.SpecCluster(
        workers=spec,
        scheduler={
            "cls": distributed.Scheduler,
            "options": {"dashboard": False, "dashboard_address": ":0", "port": 0},
        },
    ) as two:
        gpu = two.workers[1].address
        for wanted in (True, False):
            monkeypatch.setenv(
                "SPACENET5_SCHEDULER", two.scheduler_address
            )  # these workers share this process, and clear it
            with watched(two, "rehearse-", kill=False) as seen:
                monkeypatch.setenv("SPACENET5_SCHEDULER", two.scheduler_address)
                assert dict(
                    on_cluster(
                        "base.parallel",
                        "rehearse",
                        ([k] for k in range(40)),
                        died=pytest.fail,
                        gpu=wanted,
                        ahead=wanted,
                    )
                ) == {k: 2 * k for k in range(40)}
            by = {address for workers in seen.done.values() for address in workers}
            assert len(seen.done) == 40 and (by == {gpu} if wanted else len(by) == 2)


@pytest.fixture
def errand(tmp_path):
    "An image, members and a folder of parts, as a client hands them out."
    image, paths = (
        town(tmp_path / "town.tif", (96, 128)),
        members(tmp_path / "folds", TINY, std=0.5),
    )
    opened = ensemble.open_members(paths, device="cpu")
    scene = tiled_inference.scene_for(opened, image)
    plan = json.loads(json.dumps(tiled_inference.make_plan(opened, scene, TINY.ensemble)))
    with (
        contextlib.suppress(KeyboardInterrupt),
        window_store.workplace(tmp_path / "out.tif", plan) as folder,
    ):
        yield tiled_inference.make_errand(
            paths,
            scene,
            window_store.make_windows(folder, (96, 128), TINY.ensemble, 32, 13),
            TINY.ensemble,
            "cpu",
            plan,
        )
        raise KeyboardInterrupt
    clusters.forget()


def test_a_worker_opens_members_once_and_predicts_nothing_twice(errand, monkeypatch):
    opened, real = [], tiled_inference.open_everywhere
    monkeypatch.setattr(
        tiled_inference, "open_everywhere", lambda *a, **k: opened.append(1) or real(*a, **k)
    )
    assert tiled_inference.predict_here(errand, (0, 0)) and not tiled_inference.predict_here(
        errand, (0, 0)
    ), "another worker's part is not done again"
    errand.windows.part((0, 0)).unlink()
    assert tiled_inference.predict_here(errand, (0, 0)) and len(opened) == 1
    tiled_inference.settle(errand.windows, [(0, 0)])
    assert not errand.windows.part((0, 0)).exists() and not tiled_inference.predict_here(
        errand, (0, 0)
    ), "a cell that is there needs no part"


def test_what_a_worker_sees_otherwise_is_said(errand, cluster, monkeypatch):
    with pytest.raises(
        StageError, match="nowhere.safetensors: is not there on worker.*Mount the same folders"
    ):
        list(tiled_inference.predicted_there(errand._replace(members=("/nowhere.safetensors",))))
    with pytest.raises(StageError, match="sees another members"):
        list(tiled_inference.predicted_there(errand._replace(members=errand.members[:1])))
    os.utime(errand.scene.path, (1e9, 1e9))
    with pytest.raises(StageError, match="sees another image"):
        list(tiled_inference.predicted_there(errand))
    (errand.windows.folder / "plan.json").write_text("{}")
    with pytest.raises(StageError, match="holds no parts of this run"):
        list(tiled_inference.predicted_there(errand))
    assert sorted(p.name for p in errand.windows.folder.iterdir()) == [".lock", "plan.json"]
    with pytest.raises(StageError, match="several.*Start a worker for each GPU"):
        tiled_inference.predict_raster(errand.members, errand.scene.path, "x.tif", devices="0,1")
