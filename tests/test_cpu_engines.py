"""What computes networks on a CPU: the same probabilities from every engine; chosen, recorded, and
part of what decides whether windows that are done may be used."""

import importlib.util
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from fresh import ENCODERS, members
from test_inference import preset, scene

from spacenet5_nb import core, ensemble, extract, model, raster
from spacenet5_nb.core import EnsembleConfig
from spacenet5_nb.inference import cpu_engines, tiled_inference
from spacenet5_nb.inference.cpu_engines import describe, with_engine
from spacenet5_nb.inference.members import open_members, probabilities

needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="needs the extra openvino"
)
TWO = preset(("test_resnet", 3), ("test_resnet", 8))
SMALL = EnsembleConfig(tta="none", window_px=192, margin_px=16, blend_px=32)
BOTH = (1, 2)  # pixel sizes


def tags(path):
    with raster.open_raster(path) as source:
        return source.tags()


@needs_openvino
def test_a_raster_is_the_same_by_each_engine(tmp_path, monkeypatch):
    "RGB and eight bands, several windows; a result of one engine is not another's."
    paths = members(tmp_path, TWO, std=0.5)
    image, heard = scene(tmp_path / "a.tif", (130, 300), bands=8), []

    def predicted(name, **more):
        out, config = tmp_path / f"{name}.tif", replace(SMALL, **more)
        how = dict(config=config, devices="cpu", say=heard.append)
        return tiled_inference.predict_raster(paths, image, out, **how)

    plain, quick = predicted("plain", engine="torch"), predicted("quick", engine="openvino")
    several = [predicted(f"{e}2", engine=e, scales=BOTH) for e in ("torch", "openvino")]
    a, b = (raster.read(p).astype(int) for p in several)
    assert np.abs(a - b).max() <= 2 and np.abs(a - raster.read(plain)).max() > 2
    del heard[2:]
    assert heard == [f"networks computed by {describe(e)}" for e in ("torch", "openvino")]
    assert tags(plain)["SPACENET5_ENGINE"] == describe("torch")
    assert tags(quick)["SPACENET5_ENGINE"] == describe("openvino")
    a, b = (raster.read(p).astype(int) for p in (plain, quick))
    assert np.ptp(a) > 50 and np.abs(a - b).max() <= 2
    assert tags(plain)["SPACENET5_PLAN"] != tags(quick)["SPACENET5_PLAN"], "parts are not shared"
    assert predicted("plain") == plain and len(heard) == 2, "auto: too small to be worth it"
    monkeypatch.setattr(cpu_engines, "WORTH_PX", 1)
    assert predicted("quick") == quick and len(heard) == 2, "auto is what it chooses"


@needs_openvino
def test_chips_of_stage_05_are_the_same_by_each_engine(tmp_path):
    "Chips of sizes that no network's stride divides."
    p = replace(TWO, ensemble=replace(TWO.ensemble, tta="none", checkpoints=("last",)))
    r = core.Run("two", tmp_path / "outputs", tmp_path, p, 0)
    opened = open_members(members(r.folder / "folds", p, std=0.5), device="cpu")
    images = [scene(tmp_path / f"{n}.tif", (n, 90), bands=8) for n in (70, 101)]
    rows = pd.DataFrame({"chip": ["c0", "c1"], "image": list(map(str, images))})
    found = {}
    for engine in ("torch", "openvino"):
        one = replace(r, preset=replace(p, ensemble=replace(p.ensemble, engine=engine)))
        found[engine] = [
            raster.read(f).astype(int) for f in ensemble.write_probabilities(one, rows, opened)
        ]
    pairs = list(zip(*found.values(), strict=True))
    assert len(pairs) == 2 and all(np.abs(a - b).max() <= 2 and np.ptp(a) > 50 for a, b in pairs)


def test_a_member_that_an_engine_cannot_compute_is_said_and_computed(tmp_path, monkeypatch):
    opened = open_members(members(tmp_path, preset(("test_resnet", 3))), device="cpu")

    def refuse(member):
        raise RuntimeError("no such operator: road\nat line 7")

    monkeypatch.setattr(cpu_engines, "convert", refuse)
    monkeypatch.setattr(cpu_engines, "describe", lambda engine: engine)
    heard = []
    assert with_engine(opened, "openvino", heard.append) == opened
    assert heard[0] == "networks computed by openvino"
    assert heard[1].endswith("not by OpenVINO (no such operator: road); PyTorch computes it")


@needs_openvino
def test_nothing_is_sent_or_written_at_home(tmp_path):
    "In a process of its own, with threads as PyTorch has them."
    program = (
        "import sys, torch; from spacenet5_nb.inference import cpu_engines as e; "
        "torch.set_num_threads(1); e.openvino_core(); "
        "assert e._settings()['INFERENCE_NUM_THREADS'] == 1; "
        "print([m for m in sys.modules if m.startswith('openvino_telemetry.')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"HOME": str(tmp_path), "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]" and not list(tmp_path.iterdir())


@pytest.mark.slow
@needs_openvino
@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda e: f"{e[0]}-{e[1]}-{e[3]}")
def test_every_encoder_of_the_presets_is_converted(encoder):
    name, bands, decoder, norm = encoder
    torch.manual_seed(0)
    net = model.RoadUNet(name, bands, 12, decoder=decoder, norm=norm).eval()
    torch.nn.init.normal_(net.head.weight, std=0.3)
    plain, heard = open_members([net], device="cpu"), []
    quick = with_engine(plain, "openvino", heard.append)
    assert len(heard) == 1, heard
    images = torch.randint(0, 256, (1, bands, 96, 160), dtype=torch.uint8)
    a, b = (probabilities(m, images) for (m,) in (plain, quick))
    assert float(a.max() - a.min()) > 0.01 and float((a - b).abs().max()) < 1e-3


@pytest.mark.slow
@needs_openvino
def test_a_shortcut_of_speeds_is_converted():
    torch.manual_seed(0)
    how = dict(decoder=[16] * 4, norm="batch", shortcut=(16, 10))
    net = model.RoadUNet("mobilenetv3_small_050", 3, 12, **how).eval()
    torch.nn.init.normal_(net.shortcut[1].weight, std=0.5)
    plain = open_members([net], device="cpu")
    images = torch.randint(0, 256, (1, 3, 96, 160), dtype=torch.uint8)
    a, b = (probabilities(m, images) for (m,) in (plain, with_engine(plain, "openvino")))
    assert float(a[:, :10].max() - a[:, :10].min()) > 0.5 and float((a - b).abs().max()) < 1e-3


@pytest.mark.slow
@needs_openvino
def test_the_members_that_come_with_the_workspace_find_the_same_roads(tmp_path, monkeypatch):
    monkeypatch.setattr(cpu_engines, "WORTH_PX", 1)
    sample = extract.world_folder().parent / "sample/las_vegas.tif"
    found = {}
    for engine in ("torch", "auto"):
        p = core.load_preset({"base": "world", "ensemble": {"engine": engine}})
        how = dict(preset=p, devices="cpu", html=False)
        found[engine] = extract.extract(sample, "world", tmp_path / f"{engine}.gpkg", **how)
    a, b = (raster.read(e.probabilities).astype(int) for e in found.values())
    assert np.abs(a - b).max() <= 2
    assert tags(found["auto"].probabilities)["SPACENET5_ENGINE"] == describe("openvino")
    km = [sum(d["length"] for *_, d in e.graph.edges(data=True)) for e in found.values()]
    assert abs(km[0] - km[1]) < 0.01 * km[0]
