"""Square kilometres a minute from an image on disk to a road graph with speeds: one model and the
whole ensemble, with each set of views.

    .venv/bin/python benchmarks/inference.py
    .venv/bin/python benchmarks/inference.py --members outputs/demo/folds
    .venv/bin/python benchmarks/inference.py --preset faithful --px 512 --tta none
        --members-per-fold 1
    .venv/bin/python benchmarks/inference.py --preset faithful --own-grid --px 4096
        --tta selim_sef --options bfloat16 --window 2240

The demo preset's twelve with fresh weights; trained ones; one member at full size; a GPU's share.

The baseline of the same run: 32 bits, members resident, one view and one chip at a time, nothing
beside anything else. Fresh networks find no roads, so roads are traced from a drawn street grid of
the same size, in every row alike; on a GPU they are traced by worker processes while windows are
predicted, as `spacenet5 extract` does. Ratios are measured side by side, once by the clock and once
in seconds of CPU, which neighbours on the machine disturb less; the seconds belong to the machine
that is named.
"""

from __future__ import annotations

import argparse
import copy
import platform
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from spacenet5_nb import (  # before torch and rasterio
    core,
    ensemble,
    extract,
    graph,
    model,
    raster,
    vectorize,
)
from spacenet5_nb.inference import tiled_inference as streaming
from spacenet5_nb.inference import window_store as parts
from spacenet5_nb.roads import concurrent_tracing as beside
from spacenet5_nb.roads import windowed_tracing as windows

# isort: split
import torch
from affine import Affine
from networks import ceiling
from torch.utils.flop_counter import FlopCounterMode

PUBLISHED = {
    "CRESI": 9.44,
    "XD_XD": 1.53,
    "selim_sef": 0.72,
    "cannab": 0.61,
}  # km2 a minute on four GPUs (specs of the contest; not this machine)
SPENT: Counter = Counter()  # seconds by stage, over all threads: of CPU, on a GPU by the clock
CLOCK = time.thread_time


Members = list[Path | model.RoadUNet]


def town(folder: Path, px: int, gsd_m: float, bands: int, finer: int = 2) -> Path:
    """A 16-bit image that is px x px at the members' pixel size; its own pixels are `finer`
    times as many a side.
    """
    rng = np.random.default_rng(0)
    n = finer * px
    image = (
        rng.gamma(6, 60, (bands, n // 16, n // 16)).astype(np.uint16).repeat(16, 1).repeat(16, 2)
    )
    image += rng.integers(1, 60, (1, n // 16 * 16, n // 16 * 16), dtype=np.uint16)
    half = (
        gsd_m
        / finer
        / np.mean(
            raster.ground_size(
                raster.Grid((n, n), Affine(1, 0, 5e5, 0, -1, 4e6), raster.CRS.from_epsg(32611))
            )
        )
    )
    return raster.write(
        folder / "town.tif",
        image,
        grid=raster.Grid(
            image.shape[1:], Affine(half, 0, 5e5, 0, -half, 4e6), raster.CRS.from_epsg(32611)
        ),
    )


def streets(folder: Path, grid: raster.Grid, channels: core.Channels, gsd_m: float) -> Path:
    "What a good ensemble would say of a street grid: roads 8 m wide each 90 m, soft at the edges."
    h, w = grid.shape
    far = [np.abs((np.arange(n) * gsd_m + 45) % 90 - 45) for n in (h, w)]
    road = np.clip(
        230 - 40 * np.maximum(np.minimum(far[0][:, None], far[1][None]) - 3, 0), 0, 255
    ).astype(np.uint8)
    p = np.zeros((len(channels), h, w), np.uint8)
    p[channels.road] = p[5] = road
    return raster.write(folder / "streets.tif", p, grid=grid, descriptions=channels.names)


def fresh_members(p: core.Preset, per_fold: int, device: torch.device) -> list[model.RoadUNet]:
    "The preset's networks with fresh weights, all different."
    p, out = replace(p, folds=tuple(replace(g, pretrained=False) for g in p.folds)), []
    for k in range(len(p.folds)):
        for n in range(per_fold):
            torch.manual_seed(100 * k + n)
            with device:
                out.append(model.build(p, k).eval())
    return out


def opened(member: Path | model.RoadUNet, device: torch.device) -> model.RoadUNet:
    return (
        member.to(device)
        if isinstance(member, model.RoadUNet)
        else model.load(member, device=device)
    )


def wall(device: torch.device) -> float:
    "Seconds by the clock, when the device has done what it was asked."
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def clocks() -> np.ndarray:
    "Seconds by the clock, seconds of CPU over all threads."
    return np.array([time.perf_counter(), time.process_time()])


def timed(stage: str, function):
    def inner(*args, **kwargs):
        start = CLOCK()
        try:
            return function(*args, **kwargs)
        finally:
            SPENT[stage] += CLOCK() - start

    return inner


def roads(probs: Path, p: core.Preset, channels: core.Channels, out: Path) -> None:
    "Probabilities on disk to a graph file with speeds."
    g = timed("trace", windows.vectorize_windows)(
        probs, config=p.vectorize, speed=p.speed, channels=channels, window_px=2048
    )
    timed("write graph", graph.write)(g, out)


def baseline(
    members: Members,
    image: Path,
    drawn: Path,
    p: core.Preset,
    tta: str,
    folder: Path,
    device: torch.device,
    chip: int = 1024,
) -> np.ndarray:
    "Seconds: 32 bits, one view and one chip at a time, one thing after the other."
    nets = [opened(m, device) for m in members]
    bands = max(n.spec["in_channels"] for n in nets)
    views = ensemble.VIEWS[tta]
    with torch.inference_mode():
        for net in nets:
            net(
                torch.zeros(1, net.spec["in_channels"], 64, 64, device=device)
            )  # kernels are chosen before the clock runs
    start = clocks()
    height, width = raster.grid_of(image).shape
    for r in range(0, height, chip):
        for c in range(0, width, chip):
            source = f"{image}#window={c},{r},{min(chip, width - c)},{min(chip, height - r)}"
            pixels, grid, _ = raster.read_chip(source, bands, gsd_m=p.data.gsd_m)
            total = 0
            with torch.inference_mode():
                for net in nets:
                    x = torch.from_numpy(
                        np.ascontiguousarray(pixels[: net.spec["in_channels"]])
                    ).to(device)
                    for v in views:
                        total = (
                            total
                            + ensemble.unview(
                                net(net.prepare(ensemble.view(x, v)[None]))[0].sigmoid(), v
                            ).cpu()
                        )
            raster.write(
                folder / f"chip_{r}_{c}.tif",
                model.to_bytes(total / len(nets) / len(views)).numpy(),
                grid=grid,
            )
            h, w = grid.shape
            part = raster.read(drawn)[:, :h, :w]
            graph.write(vectorize.make_graph(part, grid, p), folder / f"chip_{r}_{c}.gpkg")
    return clocks() - start


def largest(shape: tuple[int, int], config: core.EnsembleConfig, multiple: int) -> tuple[int, int]:
    "Sides of the largest window of a raster."
    w = parts.make_windows(Path(), shape, config, multiple, 1)
    return tuple(max(s.stop - s.start for s in axis) for axis in (w.rows, w.columns))


def cut(
    drawn: Path, w: parts.Windows, folder: Path, channels: core.Channels
) -> dict[tuple[int, int], beside.Cell]:
    "The drawn probabilities in the cells that a run makes, with validity as the last band."
    out, whole = {}, raster.read(drawn)
    folder.mkdir(exist_ok=True)
    for at in w.all():
        r, c = w.rows[at[0]], w.columns[at[1]]
        part = whole[:, r.low : r.high, c.low : c.high]
        path = raster.write(
            folder / f"{at[0]}_{at[1]}.tif",
            part,
            grid=raster.Grid(part.shape[1:], Affine(2, 0, 0, 0, -2, 0), raster.CRS.from_epsg(3857)),
        )
        out[at] = beside.Cell(path, extract.cell_of(w, at).place)
    return out


def warm(said: tuple[str, float]) -> int:
    "Trace a street in a process that has traced none."
    p, probs = core.load_preset(said[0]), np.zeros((12, 256, 256), np.uint8)
    p = replace(p, channels=core.Channels.selim_sef())
    probs[p.channels.road, 120:136] = probs[5, 120:136] = 230
    return len(
        vectorize.make_graph(
            probs,
            raster.Grid(
                (256, 256), Affine(said[1], 0, 5e5, 0, -said[1], 4e6), raster.CRS.from_epsg(32611)
            ),
            p,
        )
    )


def ours(
    members: Members,
    image: Path,
    drawn: Path,
    p: core.Preset,
    tta: str,
    folder: Path,
    device: torch.device,
    **how,
) -> np.ndarray:
    "Seconds: windows through resident members, then roads; on a GPU roads beside them."
    config = replace(p.ensemble, tta=tta, **how)
    ready = ensemble.open_members(members, device=device, **ensemble.opening(config, weights=None))
    grid, multiple = raster.grid_of(drawn), int(np.lcm.reduce([m.net.multiple for m in ready]))
    gpu = device.type == "cuda"
    side = largest(grid.shape, config, multiple) if gpu else (64, 64)
    ensemble.mean_of_members(
        ready, np.zeros((8, *side), np.uint8), tta=tta if gpu else "none", batch=config.batch
    )  # kernels are chosen before the clock runs
    (folder / "probs.tif").unlink(missing_ok=True)
    SPENT.clear()
    if not gpu:
        start = clocks()
        streaming.predict_raster(ready, image, folder / "probs.tif", config=config)
        roads(drawn, p, p.channels, folder / "roads.gpkg")
        return clocks() - start
    cells = cut(
        drawn,
        parts.make_windows(folder, grid.shape, config, multiple, len(p.channels) + 1),
        folder / "drawn",
        p.channels,
    )
    tracing = beside.Tracing(grid, p.vectorize, p.channels, workers=core.load_settings().n_workers)
    list(
        tracing.pool.map(warm, [(p.name, p.data.gsd_m)] * 64)
    )  # processes are there, their code is compiled
    torch.cuda.synchronize()
    start = clocks()
    streaming.predict_raster(
        ready,
        image,
        folder / "probs.tif",
        config=config,
        beside=lambda w, made: tracing.add([cells[at] for at in made]),
    )
    g = timed("wait for roads", tracing.finish)(drawn, p.speed)
    timed("write graph", graph.write)(g, folder / "roads.gpkg")
    return clocks() - start


def operations(members: Members, tta: str) -> float:
    "Of all members and different views, per pixel."
    total, known = 0, {}
    for m in members:
        spec = str(m.spec if isinstance(m, model.RoadUNet) else model.read_info(m)["spec"])
        if spec not in known:
            net = (
                copy.deepcopy(opened(m, torch.device("cpu")))
                if not isinstance(m, model.RoadUNet)
                else m
            )
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                net(torch.zeros(1, net.spec["in_channels"], 256, 256, device=net.mean.device))
            known[spec] = counter.get_total_flops() / 256**2
        total += known[spec]
    return total * len(set(ensemble.VIEWS[tta]))


def stages() -> str:
    whole = sum(SPENT.values())
    return ", ".join(f"{name} {seconds / whole:.0%}" for name, seconds in SPENT.most_common())


def instrument() -> None:
    for module, stage, name in (
        (streaming, "read and stretch", "read_window"),
        (streaming, "networks", "predict_window"),
        (streaming, "keep parts", "keep_part"),
        (parts, "blend", "make_cell"),
        (streaming, "write COG", "write_cog"),
        (streaming, "statistics", "scene_for"),
    ):
        setattr(module, name, timed(stage, getattr(module, name)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--preset", default="demo")
    parser.add_argument(
        "--members", default="", help="folder of trained checkpoints; default: fresh weights"
    )
    parser.add_argument("--members-per-fold", type=int, default=3)
    parser.add_argument(
        "--px", type=int, default=1024, help="side of the image at the members' pixel size"
    )
    parser.add_argument("--tta", default="none,flips,selim_sef,d4")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--options",
        default="float32,bfloat16",
        help="of ours: float32, bfloat16, compile, fuse; joined by + for several",
    )
    parser.add_argument(
        "--own-grid",
        action="store_true",
        help="the image has the members' pixel size; without, half of it",
    )
    parser.add_argument("--window", type=int, default=0, help="window_px; 0: the preset's")
    parser.add_argument("--no-baseline", action="store_true")
    parser.add_argument("--all-only", action="store_true", help="not one model alone")
    a = parser.parse_args()
    p, device = core.load_preset(a.preset), model.find_device(a.device)
    p = replace(p, data=replace(p.data, gsd_m=p.data.gsd_m or 0.3))
    model.set_threads()
    model.keep_memory()
    instrument()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = (
            sorted(Path(a.members).rglob("*.safetensors"))
            if a.members
            else fresh_members(p, a.members_per_fold, device)
        )
        p = replace(p, ensemble=replace(p.ensemble, window_px=a.window or p.ensemble.window_px))
        image = town(folder, a.px, p.data.gsd_m, 8, 1 if a.own_grid else 2)
        drawn = streets(folder, raster.target_grid(image, p.data.gsd_m), p.channels, p.data.gsd_m)
        km2 = np.prod(raster.grid_of(drawn).shape) * p.data.gsd_m**2 / 1e6
        print(
            f"{platform.machine()}, {torch.get_num_threads()} threads, "
            f"{torch.cuda.get_device_name() if device.type == 'cuda' else 'no GPU'}, torch "
            f"{torch.__version__}; "
            f"preset {p.name}, {len(paths)} members "
            f"({'trained' if a.members else 'fresh weights'}), {km2:.2f} km2 at "
            f"{p.data.gsd_m} m"
        )
        report(paths, image, drawn, p, a, folder, device, km2)
    print("published, four GPUs, km2/min: " + ", ".join(f"{k} {v}" for k, v in PUBLISHED.items()))


def report(members, image, drawn, p, a, folder, device, km2) -> None:
    top = {d: ceiling(device, d, wall) for d in (torch.float32, torch.bfloat16)}
    print(
        "matrix product: "
        + ", ".join(f"{str(d)[6:]} {v / 1e12:.2f} TFLOP/s" for d, v in top.items())
    )
    for label, some in (("one model", members[:1]), (f"all {len(members)}", members)):
        if label == "one model" and a.all_only or label != "one model" and len(members) == 1:
            continue
        for tta in a.tta.split(","):
            base = None if a.no_baseline else baseline(some, image, drawn, p, tta, folder, device)
            if base is not None:
                print(
                    f"{label:10} {tta:10} baseline          {base[0]:7.1f} s  "
                    f"{60 * km2 / base[0]:7.2f} km2/min",
                    flush=True,
                )
            for option in a.options.split(","):
                how = dict(
                    compile="compile" in option,
                    fuse="fuse" in option,
                    precision="bfloat16" if "bfloat16" in option else "float32",
                )
                spent = ours(some, image, drawn, p, tta, folder, device, **how)
                done = operations(some, tta) * km2 * 1e6 / p.data.gsd_m**2
                share = (
                    done
                    / (spent[0] if device.type == "cuda" else SPENT["networks"])
                    / top[torch.bfloat16 if "bfloat16" in option else torch.float32]
                )
                times = (
                    ""
                    if base is None
                    else f"  {base[0] / spent[0]:5.2f} x by the clock, {base[1] / spent[1]:5.2f} x "
                    "in CPU seconds;"
                )
                print(
                    f"{label:10} {tta:10} ours, {option:9}   {spent[0]:7.1f} s  "
                    f"{60 * km2 / spent[0]:7.2f} km2/min{times} "
                    f"{'the whole' if device.type == 'cuda' else 'networks'} at {share:.1%} "
                    f"of the matrix product; {stages()}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
