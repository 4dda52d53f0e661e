"""Every figure of a GPU that README and docs quote, in one program that cannot waste a machine.

    .venv/bin/python benchmarks/gpu.py [--out outputs/gpu] [--minutes 8] [--parts ceiling forward]
    .venv/bin/python benchmarks/gpu.py --tiny --device cpu --out FOLDER   # all parts, small sizes
    .venv/bin/python benchmarks/gpu.py --show --out outputs/gpu           # the rows there are

Each part is a process of its own with its own seconds, smallest first; its words go to
`OUT/<part>.log`, and nothing is read from a terminal. A row is a line of `OUT/rows.jsonl` as soon
as it is measured. A part that fails, or takes longer than it may, leaves its rows and the others
their time. Started again, the program goes on: rows that are there are not measured again, parts
that are done are left out. `--tiny` measures nothing worth quoting: it shows that every part works.

Parts: `ceiling`, matrix products; `forward`, passes of members as they are, wide, compiled, with
CUDA graphs, fused; `step`, stage one of training, eager, compiled, with graphs, in 32 bits and
bfloat16, beside segmentation_models.pytorch's where that is installed; `together`, the step
distributed over one process, norms pooled; `loader`, samples; `world`, `extract` with the members
that come with the workspace; `full`, twelve full-size members and the original's six views end to
end, beside the fixed baseline; `train`, faithful's fold 2 and a fold of best on generated cities.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

BUDGETS = {  # seconds of each part, in the order in which they run
    "ceiling": 25,
    "world": 40,
    "loader": 35,
    "together": 40,
    "forward": 90,
    "step": 110,
    "train": 60,
    "full": 80,
}


class Rows:
    "Measured rows in a file; each is there before the next is begun."

    def __init__(self, out: Path, part: str):
        self.path, self.part, self.failed = out / "rows.jsonl", part, []
        self.known = {(r["part"], r["what"]) for r in read_rows(out) if "failed" not in r}

    def measure(self, what: str, find: Callable[[], dict[str, Any]]) -> None:
        "Measure and write a row, unless it is there; a row that fails is said and passed over."
        if (self.part, what) in self.known:
            return
        began = time.time()
        try:
            found = find()
        except Exception as e:  # noqa: BLE001  the next row may work
            traceback.print_exc()
            found = {"failed": f"{type(e).__name__}: {' '.join(str(e).split())[:160]}"}
            self.failed.append(what)
        row = {"part": self.part, "what": what, **found, "took_s": round(time.time() - began, 2)}
        with open(self.path, "a") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
        print(row, flush=True)


def read_rows(out: Path) -> list[dict[str, Any]]:
    "Rows of earlier runs; a line that was cut off by a kill is none."
    path, found = out / "rows.jsonl", []
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def run_parts(a: argparse.Namespace) -> None:
    "Each part in a process, as long as there is time; parts that are done are left out."
    out, end = Path(a.out), time.monotonic() + 60 * a.minutes
    out.mkdir(parents=True, exist_ok=True)
    if (out / "rows.jsonl").is_file() and not (out / "rows.jsonl").read_text().endswith("\n"):
        with open(out / "rows.jsonl", "a") as file:
            file.write("\n")  # the row that a kill cut off stays alone on its line
    for part in a.parts:
        left = end - time.monotonic()
        if (out / f"{part}.done").exists():
            continue
        if left < 5:
            print(f"{part}: no time left", flush=True)
            continue
        command = [sys.executable, __file__, "--one", part, "--out", a.out, "--device", a.device]
        command += ["--tiny"] * a.tiny
        limit = min(left, BUDGETS[part] * a.stretch)
        with open(out / f"{part}.log", "ab") as log:
            try:
                code = subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    timeout=limit,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                code = f"stopped after {limit:.0f} s"
        if code == 0:
            (out / f"{part}.done").touch()
        print(f"{part}: {'done' if code == 0 else code}", flush=True)


def show(out: Path) -> None:
    "Rows as a table a part."
    for part in BUDGETS:
        print(f"\n{part}")
        for row in read_rows(out):
            if row["part"] == part:
                print("  " + ", ".join(f"{k} {v}" for k, v in row.items() if k != "part"))


def setting(a: argparse.Namespace) -> SimpleNamespace:
    "The device, sizes, and what every part needs."
    import torch

    from spacenet5_nb.model import find_device, keep_memory, set_threads

    set_threads()
    keep_memory()
    device = find_device(a.device)
    sizes = dict(
        encoders=["test_resnet"] if a.tiny else ["dpn92", "inception_resnet_v2"],
        decoder=(8, 8, 8, 8) if a.tiny else (256, 256, 128, 64),
        crop=64 if a.tiny else 384,
        batch=2 if a.tiny else 10,
        px=96 if a.tiny else 1024,
        views=2 if a.tiny else 4,
        steps=1 if a.tiny else 10,
    )
    precisions = {"32": torch.float32, "bf16": torch.bfloat16}
    order = list(precisions.items())[::-1]
    ways = {"eager": False, "compiled": True, "graphs": "graphs"}
    if a.tiny:  # a compilation takes a processor a minute: one of each kind
        order, ways = order[:1], {"eager": False, "graphs": "graphs"}
    sizes |= dict(precisions=precisions, order=order, ways=ways)
    return SimpleNamespace(**sizes, tiny=a.tiny, device=device, torch=torch)


def seconds_of(s: SimpleNamespace, f: Callable[[], Any], times: int = 0) -> float:
    "The median of some calls, after two that choose kernels; the device has finished each."
    found = []
    for k in range((times or s.steps) + 2):
        wait(s)
        began = time.perf_counter()
        f()
        wait(s)
        found += [time.perf_counter() - began] * (k > 1)
    return median(found)


def wait(s: SimpleNamespace) -> None:
    if s.device.type == "cuda":
        s.torch.cuda.synchronize(s.device)


def peak(s: SimpleNamespace) -> dict[str, float]:
    "Peak memory since it was last asked for."
    import resource

    if s.device.type != "cuda":
        return {"peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)}
    found = s.torch.cuda.max_memory_allocated(s.device) / 1e9
    s.torch.cuda.reset_peak_memory_stats(s.device)
    return {"peak_gb": round(found, 2)}


def ceiling(s: SimpleNamespace, rows: Rows) -> None:
    n = 8192 if s.device.type == "cuda" else 256
    s.torch.backends.cuda.matmul.allow_tf32 = True
    for name, dtype in s.precisions.items():
        x = s.torch.randn(n, n, device=s.device).to(dtype)

        def product(x: Any = x) -> dict[str, Any]:
            seconds = seconds_of(s, lambda: x @ x)
            return {"tflops": round(2 * n**3 / seconds / 1e12, 3), **peak(s)}

        rows.measure(f"matrix product, {name}", product)


def ways_of_a_pass(s: SimpleNamespace, encoder: str, dtype: Any) -> Iterator[tuple[str, Any]]:
    "A network as it is, and made quick in each way."
    import copy

    from spacenet5_nb.model import RoadUNet
    from spacenet5_nb.networks.inference_optimization import OneSize, quicken

    s.torch.manual_seed(0)
    net = RoadUNet(encoder, 8, 12, decoder=s.decoder).eval().to(s.device)
    net.to(memory_format=s.torch.channels_last)
    yield "as it is", copy.deepcopy(net).to(dtype)
    wide = quicken(copy.deepcopy(net), dtype=dtype)
    yield "wide", wide
    yield "wide, fused", quicken(copy.deepcopy(net), dtype=dtype, fuse=True)
    for way, compiled in s.ways.items():
        if compiled:
            yield f"wide, {way}", OneSize(wide, compile=compiled)


def forward(s: SimpleNamespace, rows: Rows) -> None:
    for encoder in s.encoders:
        for name, dtype in s.order:
            x = s.torch.randn(s.views, 8, s.px, s.px, device=s.device).to(dtype)
            x = x.contiguous(memory_format=s.torch.channels_last)
            for way, net in ways_of_a_pass(s, encoder, dtype):

                def one(net: Any = net, x: Any = x) -> dict[str, Any]:
                    with s.torch.inference_mode():
                        seconds = seconds_of(s, lambda: net(x))
                    return {"mpx_s": round(s.views * s.px**2 / seconds / 1e6, 3), **peak(s)}

                rows.measure(f"{encoder}, {name}, {way}", one)


def make_step(
    s: SimpleNamespace, net: Any, dtype: Any, prepare: Callable | None = None
) -> Callable[[], Any]:
    "A training step on a batch that is there: forward, loss, back, clip, update."
    from spacenet5_nb.core import load_preset
    from spacenet5_nb.losses import ComboLoss

    p, torch = load_preset("faithful"), s.torch
    loss = ComboLoss(p.loss, channels=p.channels)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4, fused=s.device.type == "cuda")
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 255, (s.batch, 8, s.crop, s.crop), generator=g, dtype=torch.uint8)
    images = images.to(s.device)
    target = (torch.rand(s.batch, len(p.channels), s.crop, s.crop, generator=g) < 0.05).to(s.device)
    prepare = prepare or net.prepare

    def step() -> Any:
        x = prepare(images).contiguous(memory_format=torch.channels_last)
        with torch.autocast(s.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            y = net(x)
        value = loss(y, target)
        value.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return value

    return step


def timed_step(s: SimpleNamespace, step: Callable[[], Any]) -> dict[str, Any]:
    seconds = seconds_of(s, step)
    return {"step_s": round(seconds, 4), "samples_s": round(s.batch / seconds, 2), **peak(s)}


def step(s: SimpleNamespace, rows: Rows) -> None:
    from spacenet5_nb.model import RoadUNet, tune
    from spacenet5_nb.networks.inference_optimization import likes_wide, widen_groups

    for encoder in s.encoders:
        for name, dtype in s.order:
            for way, compiled in s.ways.items():

                def ours(
                    encoder: str = encoder, compiled: Any = compiled, dtype: Any = dtype
                ) -> dict[str, Any]:
                    net = tune(RoadUNet(encoder, 8, 12, decoder=s.decoder), compiled=compiled)
                    net = net.to(s.device).train()
                    if likes_wide(s.device):
                        widen_groups(net)
                    return timed_step(s, make_step(s, net, dtype))

                rows.measure(f"{encoder}, {name}, {way}", ours)

            def smp(encoder: str = encoder, dtype: Any = dtype) -> dict[str, Any]:
                import segmentation_models_pytorch as library

                net = library.Unet(f"tu-{encoder}", encoder_weights=None, in_channels=8, classes=12)
                net = net.to(s.device, memory_format=s.torch.channels_last).train()
                return timed_step(s, make_step(s, net, dtype, lambda x: x.float() / 128 - 1))

            if importlib.util.find_spec("segmentation_models_pytorch"):
                rows.measure(f"{encoder}, {name}, segmentation_models.pytorch, eager", smp)


def together(s: SimpleNamespace, rows: Rows) -> None:
    "Distributed data parallel with one process: what pooled norms and its reducer cost."
    from torch import distributed
    from torch.nn.parallel import DistributedDataParallel

    from spacenet5_nb.model import RoadUNet, tune
    from spacenet5_nb.training.distributed import pool_norms

    gpu = s.device.type == "cuda"
    with tempfile.NamedTemporaryFile() as meeting:
        distributed.init_process_group(
            "nccl" if gpu else "gloo", init_method=f"file://{meeting.name}-0", rank=0, world_size=1
        )
        for way in ("alone", "DDP", "DDP, norms pooled"):

            def one(way: str = way) -> dict[str, Any]:
                net = tune(RoadUNet(s.encoders[0], 8, 12, decoder=s.decoder)).to(s.device).train()
                prepare = net.prepare
                if "pooled" in way and gpu:  # torch has it for GPUs only
                    net = pool_norms(net)
                if "DDP" in way:
                    net = DistributedDataParallel(net, [s.device.index or 0] if gpu else None)
                return timed_step(s, make_step(s, net, s.torch.bfloat16, prepare))

            rows.measure(f"{s.encoders[0]}, bf16, {way}", one)
        distributed.destroy_process_group()


def loader(s: SimpleNamespace, rows: Rows) -> None:
    from loader import CHANNELS, loader_rate, make_chips

    from spacenet5_nb.training.dataset import RoadDataset

    with tempfile.TemporaryDirectory() as d:
        chips = make_chips(Path(d), 2 if s.tiny else 6, 128 if s.tiny else 1300)
        data = RoadDataset(chips, 8, CHANNELS.names, crop=s.crop, cache=Path(d) / "cache")
        for workers in (0,) if s.tiny else (4, 8):

            def one(workers: int = workers) -> dict[str, Any]:
                rate = loader_rate(data, s.batch, workers, 0.2 if s.tiny else 8)
                return {"samples_s": round(rate, 1)}

            rows.measure(f"{workers} processes", one)


def world(s: SimpleNamespace, rows: Rows) -> None:
    "`extract` of an image that lies on disk, with its map."
    from inference import town

    from spacenet5_nb.extract import WORLD, extract, world_folder
    from spacenet5_nb.raster import grid_of, ground_size

    with tempfile.TemporaryDirectory() as d:
        image = town(Path(d), 64 if s.tiny else 4096, 1.0, 3, 1)
        members = world_folder() / "0.safetensors" if s.tiny else WORLD
        y_m, x_m = ground_size(grid_of(image))
        km2 = y_m * x_m * grid_of(image).shape[0] * grid_of(image).shape[1] / 1e6

        def one() -> dict[str, Any]:
            began = time.perf_counter()
            extract(
                image,
                members,
                Path(d) / "roads.gpkg",
                tta="none" if s.tiny else "d4",
                devices=str(s.device),
                html=not s.tiny,
                say=lambda _: None,
            )
            return {"km2_min": round(float(60 * km2 / (time.perf_counter() - began)), 2), **peak(s)}

        rows.measure("extract, the workspace's members", one)


def full(s: SimpleNamespace, rows: Rows) -> None:
    "Twelve members, six views, end to end: the fixed baseline, and ours in each way."
    from dataclasses import replace

    import inference

    from spacenet5_nb import raster
    from spacenet5_nb.core import load_preset

    p = load_preset("demo" if s.tiny else "faithful")
    p = replace(p, data=replace(p.data, gsd_m=p.data.gsd_m or 0.3))
    if s.tiny:
        p = replace(p, folds=tuple(replace(f, encoder="test_resnet") for f in p.folds[:1]))
    with tempfile.TemporaryDirectory() as d:
        members = inference.fresh_members(p, 1 if s.tiny else 3, s.device)
        image = inference.town(Path(d), 96 if s.tiny else 4096, p.data.gsd_m, 8, 1)
        grid = raster.target_grid(image, p.data.gsd_m)
        drawn = inference.streets(Path(d), grid, p.channels, p.data.gsd_m)
        km2 = grid.shape[0] * grid.shape[1] * p.data.gsd_m**2 / 1e6
        tta = "none" if s.tiny else "selim_sef"
        ways = {
            "bfloat16": dict(precision="bfloat16"),
            "float32": dict(precision="float32"),
            "bfloat16, compiled": dict(precision="bfloat16", compile=True),
            "bfloat16, graphs": dict(precision="bfloat16", compile="graphs"),
            "bfloat16, fused": dict(precision="bfloat16", fuse=True),
        }
        for way, how in list(ways.items())[: 1 if s.tiny else None]:

            def ours(how: dict = how) -> dict[str, Any]:
                found = inference.ours(
                    members, image, drawn, p, tta, Path(d), s.device, **{"compile": False} | how
                )
                return {"km2_min": round(float(60 * km2 / found[0]), 2), **peak(s)}

            rows.measure(f"{len(members)} members, {tta}, {way}", ours)

        def base() -> dict[str, Any]:
            side = 96 if s.tiny else 1024
            small = inference.town(Path(d) / "small", side, p.data.gsd_m, 8, 1)
            part = raster.target_grid(small, p.data.gsd_m)
            roads = inference.streets(Path(d) / "small", part, p.channels, p.data.gsd_m)
            found = inference.baseline(
                members, small, roads, p, tta, Path(d) / "small", s.device, side
            )
            km2 = part.shape[0] * part.shape[1] * p.data.gsd_m**2 / 1e6
            return {"km2_min": round(float(60 * km2 / found[0]), 2), **peak(s)}

        (Path(d) / "small").mkdir()
        rows.measure(f"{len(members)} members, {tta}, fixed baseline", base)


def train(s: SimpleNamespace, rows: Rows) -> None:
    "A short fold of each large preset on generated cities, and what it has learnt."
    from dataclasses import replace

    import full_size

    from spacenet5_nb import demo
    from spacenet5_nb.core import Run
    from spacenet5_nb.train import fit

    with tempfile.TemporaryDirectory() as d:
        sizes = dict(chip_m=120.0, gsd_m=1.0, grid=(1, 2), test_grid=(1, 1), cities=["Terra"])
        sizes = sizes if s.tiny else sizes | dict(chip_m=400.0, gsd_m=0.3, grid=(3, 3))
        data = demo.make_demo(Path(d) / "cities", seed=1, workers=1 if s.tiny else 0, **sizes)
        for name, fold in (("faithful", 2), ("best", 0)):

            def one(name: str = name, fold: int = fold) -> dict[str, Any]:
                how = argparse.Namespace(lr=0.0, precision="bf16", minutes=1.0)
                p = full_size.open_preset(name, fold, how, 2 if s.tiny else 60)
                if s.tiny:
                    stage = replace(p.train.stages[0], crop_px=64, batch=2)
                    small = replace(p.folds[fold], encoder="test_resnet")
                    folds = (*p.folds[:fold], small, *p.folds[fold + 1 :])
                    p = replace(p, folds=folds, decoder=(8, 8, 8, 8))
                    p = replace(p, train=replace(p.train, stages=(stage,)))
                run = Run(name, Path(d) / name, data, p, 1)
                chips = full_size.open_chips(run, fold, p.folds[fold].bands)
                chips = chips.assign(fold=[fold, *[fold + 1] * (len(chips) - 1)])
                out = run.fold(fold)
                history = fit(p, fold, chips, out=out, cache=run.cache, device=str(s.device))
                stage = p.train.stages[0]
                steps = len(history) * stage.steps_per_epoch
                rate = steps * stage.batch / float(history.seconds.sum())
                last = history.iloc[-1]
                dice = {"dice": round(float(last["dice"]), 3)} if "dice" in history else {}
                return {"samples_s": round(rate, 1), "steps": steps, **dice, **peak(s)}

            rows.measure(f"{name}, fold {fold}", one)


def main() -> None:
    ask = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ask.add_argument("--out", default="outputs/gpu", help="folder of rows and logs")
    ask.add_argument("--parts", nargs="+", choices=BUDGETS, default=list(BUDGETS))
    ask.add_argument("--minutes", type=float, default=8.0)
    ask.add_argument("--stretch", type=float, default=1.0, help="times the parts' own seconds")
    ask.add_argument("--device", default="auto")
    ask.add_argument("--tiny", action="store_true", help="small sizes: a trial, on a CPU too")
    ask.add_argument("--show", action="store_true", help="rows that are there")
    ask.add_argument("--one", choices=BUDGETS, help=argparse.SUPPRESS)
    a = ask.parse_args()
    if a.one:
        rows = Rows(Path(a.out), a.one)
        globals()[a.one](setting(a), rows)
        sys.exit(f"failed: {', '.join(rows.failed)}" if rows.failed else 0)
    if not a.show:
        run_parts(a)
    show(Path(a.out))


if __name__ == "__main__":
    main()
