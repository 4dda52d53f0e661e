"""Square kilometres a minute from an image on disk to a road graph with speeds: one model and the whole ensemble, with each set of views.

    .venv/bin/python benchmarks/inference.py                                   # the demo preset's twelve, fresh weights
    .venv/bin/python benchmarks/inference.py --members outputs/demo/folds      # trained ones
    .venv/bin/python benchmarks/inference.py --preset faithful --px 512 --tta none --members-per-fold 1

The baseline of the same run: 32 bits, members resident, one view and one chip at a time, nothing beside anything else. Fresh networks find no roads, so roads are traced from
a drawn street grid of the same size, in every row alike. Ratios are measured side by side, once by the clock and once in seconds of CPU, which neighbours on the machine disturb less; the seconds belong to the machine that is named."""
from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from spacenet5_nb import core, ensemble, graph, model, raster, streaming, vectorize, windows  # before torch and rasterio

# isort: split
import torch
from affine import Affine
from torch.utils.flop_counter import FlopCounterMode

PUBLISHED = {"CRESI": 9.44, "XD_XD": 1.53, "selim_sef": 0.72, "cannab": 0.61}   # km2 a minute on four GPUs (specs of the contest; not this machine)
SPENT: Counter = Counter()   # seconds by stage, over all threads


def town(folder: Path, px: int, gsd_m: float, bands: int) -> Path:
    "A 16-bit image of px x px at half the members' pixel size."
    rng = np.random.default_rng(0)
    n = 2*px
    image = rng.gamma(6, 60, (bands, n//16, n//16)).repeat(16, 1).repeat(16, 2).astype(np.uint16) + rng.integers(1, 60, (bands, n//16*16, n//16*16)).astype(np.uint16)
    half = gsd_m/2/np.mean(raster.ground_size(raster.Grid((n, n), Affine(1, 0, 5e5, 0, -1, 4e6), raster.CRS.from_epsg(32611))))
    return raster.write(folder/"town.tif", image, grid=raster.Grid(image.shape[1:], Affine(half, 0, 5e5, 0, -half, 4e6), raster.CRS.from_epsg(32611)))


def streets(folder: Path, grid: raster.Grid, channels: core.Channels, gsd_m: float) -> Path:
    "What a good ensemble would say of a street grid: roads 8 m wide each 90 m, soft at the edges."
    h, w = grid.shape
    far = [np.abs((np.arange(n)*gsd_m + 45) % 90 - 45) for n in (h, w)]
    road = np.clip(230 - 40*np.maximum(np.minimum(far[0][:, None], far[1][None]) - 3, 0), 0, 255).astype(np.uint8)
    p = np.zeros((len(channels), h, w), np.uint8)
    p[channels.road] = p[5] = road
    return raster.write(folder/"streets.tif", p, grid=grid, descriptions=channels.names)


def fresh_members(folder: Path, p: core.Preset, per_fold: int) -> list[Path]:
    "Checkpoints of the preset's networks with fresh weights, all different."
    out = []
    for k in range(len(p.folds)):
        for n in range(per_fold):
            torch.manual_seed(100*k + n)
            out.append(model.save(model.build(replace(p, folds=tuple(replace(g, pretrained=False) for g in p.folds)), k), folder/f"folds/{k}/{n}.safetensors"))
    return out


def clocks() -> np.ndarray:
    "Seconds by the clock, seconds of CPU over all threads."
    return np.array([time.perf_counter(), time.process_time()])


def timed(stage: str, function):
    def inner(*args, **kwargs):
        start = time.perf_counter()
        try: return function(*args, **kwargs)
        finally: SPENT[stage] += time.perf_counter() - start
    return inner


def roads(probs: Path, p: core.Preset, channels: core.Channels, out: Path) -> None:
    "Probabilities on disk to a graph file with speeds."
    g = timed("trace", windows.vectorize_windows)(probs, config=p.vectorize, speed=p.speed, channels=channels, window_px=2048)
    timed("write graph", graph.write)(g, out)


def baseline(paths: list[Path], image: Path, drawn: Path, p: core.Preset, tta: str, folder: Path, device: torch.device, chip: int = 1024) -> np.ndarray:
    "Seconds: 32 bits, one view and one chip at a time, one thing after the other."
    nets = [model.load(path, device=device) for path in paths]
    bands = max(n.spec["in_channels"] for n in nets)
    views = ensemble.VIEWS[tta]
    with torch.inference_mode():
        for net in nets: net(torch.zeros(1, net.spec["in_channels"], 64, 64, device=device))   # kernels are chosen before the clock runs
    start = clocks()
    height, width = raster.grid_of(image).shape
    for r in range(0, height, chip):
        for c in range(0, width, chip):
            source = f"{image}#window={c},{r},{min(chip, width - c)},{min(chip, height - r)}"
            pixels, grid, _ = raster.read_chip(source, bands, gsd_m=p.data.gsd_m)
            total = 0
            with torch.inference_mode():
                for net in nets:
                    x = torch.from_numpy(np.ascontiguousarray(pixels[:net.spec["in_channels"]])).to(device)
                    for v in views: total = total + ensemble.unview(net(net.prepare(ensemble.view(x, v)[None]))[0].sigmoid(), v).cpu()
            raster.write(folder/f"chip_{r}_{c}.tif", model.to_bytes(total/len(nets)/len(views)).numpy(), grid=grid)
            h, w = grid.shape
            part = raster.read(drawn)[:, :h, :w]
            graph.write(vectorize.make_graph(part, grid, p), folder/f"chip_{r}_{c}.gpkg")
    return clocks() - start


def ours(paths: list[Path], image: Path, drawn: Path, p: core.Preset, tta: str, folder: Path, device: torch.device, **how) -> np.ndarray:
    "Seconds: windows through resident members, then roads."
    config = replace(p.ensemble, tta=tta, **how)
    opened = ensemble.open_members(paths, device=device, precision=config.precision, compile=config.compile)
    ensemble.mean_of_members(opened, np.zeros((8, 64, 64), np.uint8), tta="none")
    (folder/"probs.tif").unlink(missing_ok=True)
    SPENT.clear()
    start = clocks()
    streaming.predict_raster(opened, image, folder/"probs.tif", config=config)
    roads(drawn, p, p.channels, folder/"roads.gpkg")
    return clocks() - start


def ceiling(device: torch.device, dtype: torch.dtype, n: int = 2048) -> float:
    "Operations a second of a matrix product, the best of five."
    a = torch.randn(n, n, device=device).to(dtype)
    best = 0.0
    for _ in range(5):
        start = time.perf_counter()
        b = a @ a
        if device.type == "cuda": torch.cuda.synchronize()
        best = max(best, 2*n**3/(time.perf_counter() - start))
    del b
    return best


def operations(paths: list[Path], tta: str, p: core.Preset) -> float:
    "Of all members and different views, per pixel."
    total = 0
    for path in paths:
        net = model.load(path)
        with FlopCounterMode(display=False) as counter, torch.no_grad(): net(torch.zeros(1, net.spec["in_channels"], 256, 256))
        total += counter.get_total_flops()/256**2
    return total*len(set(ensemble.VIEWS[tta]))


def stages() -> str:
    whole = sum(SPENT.values())
    return ", ".join(f"{name} {seconds/whole:.0%}" for name, seconds in SPENT.most_common())


def instrument() -> None:
    for stage, name in (("read and stretch", "read_window"), ("networks", "predict_window"), ("keep parts", "keep_part"), ("blend", "make_cell"), ("write COG", "write_cog"), ("statistics", "open_scene")):
        setattr(streaming, name, timed(stage, getattr(streaming, name)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--members", default="", help="folder of trained checkpoints; default: fresh weights")
    parser.add_argument("--members-per-fold", type=int, default=3)
    parser.add_argument("--px", type=int, default=1024, help="side of the image at the members' pixel size")
    parser.add_argument("--tta", default="none,flips,selim_sef,d4")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--options", default="float32,bfloat16", help="of ours: float32, bfloat16, compile")
    a = parser.parse_args()
    p, device = core.load_preset(a.preset), model.find_device(a.device)
    p = replace(p, data=replace(p.data, gsd_m=p.data.gsd_m or 0.3))
    model.set_threads(); model.keep_memory(); instrument()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = sorted(Path(a.members).rglob("*.safetensors")) if a.members else fresh_members(folder, p, a.members_per_fold)
        image = town(folder, a.px, p.data.gsd_m, 8)
        drawn = streets(folder, raster.target_grid(image, p.data.gsd_m), p.channels, p.data.gsd_m)
        km2 = np.prod(raster.grid_of(drawn).shape)*p.data.gsd_m**2/1e6
        print(f"{platform.machine()}, {torch.get_num_threads()} threads, {torch.cuda.get_device_name() if device.type == 'cuda' else 'no GPU'}, torch {torch.__version__}; "
              f"preset {p.name}, {len(paths)} members ({'trained' if a.members else 'fresh weights'}), {km2:.2f} km2 at {p.data.gsd_m} m")
        report(paths, image, drawn, p, a, folder, device, km2)
    if device.type != "cuda": print("on one GPU, on several: not measured")
    print("published, four GPUs, km2/min: " + ", ".join(f"{k} {v}" for k, v in PUBLISHED.items()))


def report(paths, image, drawn, p, a, folder, device, km2) -> None:
    top = {d: ceiling(device, d) for d in (torch.float32, torch.bfloat16)}
    print("matrix product: " + ", ".join(f"{str(d)[6:]} {v/1e9:.0f} GFLOP/s" for d, v in top.items()))
    for label, some in (("one model", paths[:1]), (f"all {len(paths)}", paths)):
        if label != "one model" and len(paths) == 1: continue
        for tta in a.tta.split(","):
            base = baseline(some, image, drawn, p, tta, folder, device)
            print(f"{label:10} {tta:10} baseline          {base[0]:7.1f} s  {60*km2/base[0]:7.2f} km2/min", flush=True)
            for option in a.options.split(","):
                how = dict(compile=True) if option == "compile" else dict(precision=option)
                spent = ours(some, image, drawn, p, tta, folder, device, **how)
                done = operations(some, tta, p)*km2*1e6/p.data.gsd_m**2
                share = done/SPENT["networks"]/top[torch.bfloat16 if option == "bfloat16" else torch.float32]
                print(f"{label:10} {tta:10} ours, {option:9}   {spent[0]:7.1f} s  {60*km2/spent[0]:7.2f} km2/min  {base[0]/spent[0]:5.2f} x by the clock, {base[1]/spent[1]:5.2f} x in CPU seconds; "
                      f"networks at {share:.0%} of the matrix product; {stages()}", flush=True)


if __name__ == "__main__": main()
