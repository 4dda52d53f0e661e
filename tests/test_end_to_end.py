"""The whole house on a miniature world: every stage and fold through the command line, killed and
resumed, run twice; truth masks; nothing predicted."""

import json
import os
import signal
import subprocess

import nbformat
import numpy as np
import pandas as pd
import pytest
from small_workspace import command, environment, results, run

from spacenet5_nb import graph, raster
from spacenet5_nb.core import open_run
from spacenet5_nb.explore import load_chips
from spacenet5_nb.pipeline import make_score

pytestmark = pytest.mark.slow


@pytest.fixture
def tiny(world, monkeypatch):
    for key, value in environment(world.home).items():
        if key.startswith("SPACENET5"):
            monkeypatch.setenv(key, value)
    return open_run("", "demo")


def check_the_same(world, outputs: str) -> None:
    "A run made the same, byte for byte."
    made = results(world.home, outputs)
    assert made.keys() == world.made.keys()
    assert [name for name in made if made[name] != world.made[name]] == []


def test_every_contract_file_is_there(tiny):
    chips = load_chips(tiny)
    test = chips[chips.split == "test"].chip
    assert len(test) >= 3 and set(chips[chips.split == "train"].fold) == {0, 1}
    for path in (
        tiny.report,
        tiny.solution,
        tiny.roads,
        tiny.scores_csv,
        tiny.scores_json,
        tiny.map_html,
        tiny.map_png,
    ):
        assert path.stat().st_size > 0
    for chip in test:
        assert (
            tiny.prob(chip).is_file()
            and tiny.graph(chip).is_file()
            and tiny.graph(chip).with_suffix(".graphml").is_file()
        )
    for chip in chips.chip:
        assert raster.read_named(tiny.mask(chip))[2] == tiny.preset.channels.names
    for k in (0, 1):
        assert {p.name for p in tiny.fold(k).glob("*.safetensors")} == {
            "last.safetensors",
            "best_dice.safetensors",
            "best_apls.safetensors",
        }
    assert set(pd.read_csv(tiny.scores_csv).chip) == set(test)
    assert not list(tiny.folder.rglob(".tmp-*")), "no temporary name is left"


def test_every_stage_left_its_executed_notebook(tiny):
    names = {p.stem for p in (tiny.folder / "runs").glob("*.ipynb")}
    assert names == {
        "01_explore",
        "02_masks",
        "03_model",
        "04_train-fold0",
        "04_train-fold1",
        "05_ensemble",
        "06_vectorize",
        "07_apls",
        "08_maps",
    }
    for path in (tiny.folder / "runs").glob("*.ipynb"):
        pictures = [
            o
            for c in nbformat.read(path, 4).cells
            for o in c.get("outputs", [])
            if "image/png" in o.get("data", {})
        ]
        assert pictures, f"{path.name} shows no picture"


def test_the_end_says_where_things_are(world):
    assert all(
        name in world.said for name in ("map.html", "scores.csv", "solution.csv", "APLS_length")
    )


def test_members_know_how_their_training_chips_look(world):
    from spacenet5_nb.model import read_info
    from spacenet5_nb.networks.training_profile import SIGNS

    for path in (world.home / "outputs/demo/folds").glob("*/last.safetensors"):
        looks = read_info(path)["trained_on"]["looks"]
        assert set(looks) == set(SIGNS) and all(low <= high for low, high in looks.values())


def test_the_demo_ends_on_a_real_picture(world):
    "Roads of Las Vegas, by the members that come with the workspace."
    folder = world.home / "outputs/demo/real"
    said = next(line for line in world.said.splitlines() if "its map" in line)
    assert "SpaceNet LLC / Maxar, CC BY-SA 4.0" in said and said.endswith("las_vegas.html")
    roads = graph.read(folder / "las_vegas.gpkg")
    km = sum(d["length"] for *_, d in roads.edges(data=True)) / 1000
    assert 0.4 < km < 1.0, "two streets of 195 m, one of 150 m, and lanes"
    assert "CC BY-SA 4.0" in (folder / "las_vegas.html").read_text()


def test_a_second_run_skips_everything(world):
    said = run(world.home, "pipeline", "--preset", "demo")
    assert said.count(": complete") == 8, said
    check_the_same(world, "outputs")


def test_killed_while_training_and_resumed_gives_the_same(world):
    "A second run, killed after an epoch and started again: equal to the uninterrupted one."
    arguments = ("pipeline", "--preset", "demo", "--devices", "cpu")
    process = subprocess.Popen(
        command(*arguments),
        stdout=subprocess.PIPE,
        start_new_session=True,
        cwd=world.home,
        env=environment(world.home, "again"),
        text=True,
    )
    for line in process.stdout:
        if "fold 0: epoch" in line:
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not (world.home / "again/demo/runs/04_train-fold0.ipynb").exists()
    said = run(world.home, *arguments, outputs="again")
    assert "01_explore: complete" in said and "02_masks: complete" in said
    check_the_same(world, "again")


def test_on_a_cluster_with_a_worker_killed_while_training(world, monkeypatch):
    """A third run, its folds and chips on two workers of a cluster; the one that trains fold 0 is
    killed: equal to the first, byte for byte."""
    distributed = pytest.importorskip("distributed")
    home, killed, lines = world.home, [], []
    for key, value in environment(home, "spread").items():
        monkeypatch.setenv(key, value)
    (home / "spread").mkdir()
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None
    ) as cluster:
        process = subprocess.Popen(
            command("pipeline", "--preset", "demo", "--scheduler", cluster.scheduler_address),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=home,
        )
        for line in process.stdout:
            lines.append(line)
            if killed or "fold 0: epoch 1" not in line:
                continue
            task = next(
                t
                for key, t in cluster.scheduler.tasks.items()
                if key.startswith("run_spacenet5-") and key.endswith("-0")
            )
            killed.append(cluster.workers[task.processing_on.name].pid)
            os.kill(killed[0], signal.SIGKILL)
        assert process.wait() == 0 and killed, "".join(lines)
    check_the_same(world, "spread")


def test_truth_masks_score_and_nothing_scores_nothing(tiny):
    """The vectorizer and the judge give a truth mask its due; overpasses beside junctions and
    streets that end 5 m before a road (Enigma) cost some of it."""
    chips, score = load_chips(tiny), make_score(tiny)
    chips = chips[chips.road_km > 0.2]
    perfect = pd.DataFrame(
        [
            {"city": c.city} | score(c.chip, raster.read(tiny.mask(c.chip)))
            for c in chips.itertuples()
        ]
    )
    assert perfect[perfect.city == "Terra"].apls_length.mean() >= 0.97
    assert perfect.apls_length.mean() >= 0.88
    for chip in chips.chip[:2]:
        assert score(chip, np.zeros_like(raster.read(tiny.mask(chip)))) == {
            "apls_length": 0,
            "apls_time": 0,
        }


def test_scores_json_names_trained_and_mystery_cities(tiny):
    text = json.dumps(json.loads(tiny.scores_json.read_text()))
    assert "Terra" in text and "Enigma" in text
