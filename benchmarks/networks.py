"""Networks by encoder and size: exact output, parameters, seconds and memory; and one training step beside segmentation_models.pytorch's U-Net.

    python benchmarks/networks.py [--encoders dpn92 inception_resnet_v2] [--sizes 384 512 1300 333x517] [--bands 3 8] [--threads 2]
    python benchmarks/networks.py --beside-smp [--encoder dpn92] [--size 384] [--batch 2] [--steps 4] [--threads 2]

Each row of the first table is a process of its own, so that its peak is its own; images above 600 px are trained with recomputed activations. Seconds are
CPU seconds of all threads, so that a busy machine blurs them less. The second needs `pip install --no-deps --target <folder> segmentation-models-pytorch` and
PYTHONPATH=<folder>; both networks take their steps in turn, on the same input, with the same loss and optimiser. On a GPU: seconds by its clock, and its own peak.
"""
import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

from spacenet5_nb import core  # before torch
from spacenet5_nb.losses import ComboLoss
from spacenet5_nb.model import RoadUNet, find_device, keep_memory, recompute, tune

import torch  # isort: skip

core.cure_torchvision()


def clock(device: torch.device) -> float:
    if device.type == "cuda": torch.cuda.synchronize(device)
    return time.perf_counter() if device.type == "cuda" else time.process_time()


def kept_mb(net: torch.nn.Module, x: torch.Tensor) -> float:
    "Megabytes that a forward pass keeps for the way back, weights not counted."
    kept, weights = {}, {p.untyped_storage().data_ptr() for p in net.parameters()}

    def count(t: torch.Tensor) -> torch.Tensor:
        if t.untyped_storage().data_ptr() not in weights: kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t): net(x)
    return sum(kept.values())/1e6


def peak_gb(device: torch.device) -> float:
    return torch.cuda.max_memory_allocated(device)/1e9 if device.type == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e6


def row(encoder: str, height: int, width: int, bands: int, device: torch.device) -> dict:
    "One network, one image: forward, backward, output's size, parameters, memory."
    net = tune(RoadUNet(encoder, bands, 12)).to(device).train()
    again = max(height, width) > 600
    if again: recompute(net)
    x = torch.randn(1, bands, height, width, device=device).contiguous(memory_format=torch.channels_last)
    start = clock(device)
    y = net(x)
    middle = clock(device)
    y.square().mean().backward()
    end = clock(device)
    return dict(encoder=encoder, bands=bands, size=f"{height} x {width}", output="x".join(map(str, y.shape[1:])), exact=tuple(y.shape) == (1, 12, height, width),
                parameters_M=round(sum(p.numel() for p in net.parameters())/1e6, 2), forward_s=round(middle - start, 2), backward_s=round(end - middle, 2),
                recomputed=again, peak_gb=round(peak_gb(device), 2))


def table(a: argparse.Namespace) -> None:
    "Every row in a process of its own."
    names = None
    for encoder in a.encoders:
        for bands in a.bands:
            for size in a.sizes:
                command = [sys.executable, __file__, "--row", encoder, size, str(bands), "--threads", str(a.threads), "--device", a.device]
                out = subprocess.run(command, capture_output=True, text=True)
                found = json.loads(out.stdout.splitlines()[-1]) if out.returncode == 0 else dict(encoder=encoder, bands=bands, size=size, error=(out.stderr.splitlines() or ["killed"])[-1])
                if names is None and "error" not in found: print(" | ".join(names := list(found)))
                print(" | ".join(str(v) for v in found.values()), flush=True)


def beside_smp(a: argparse.Namespace, device: torch.device) -> None:
    "Training steps in turn with smp's U-Net on the same encoder."
    try: import segmentation_models_pytorch as smp  # noqa: I001
    except ImportError: sys.exit("segmentation_models_pytorch is not here: pip install --no-deps --target <folder> segmentation-models-pytorch; PYTHONPATH=<folder>")
    torch.manual_seed(0)
    nets = {"smp": smp.Unet(f"tu-{a.encoder}", encoder_weights=None, in_channels=a.bands[-1], classes=12), "ours": RoadUNet(a.encoder, a.bands[-1], 12)}
    nets = {k: n.to(device, memory_format=torch.channels_last).train() for k, n in nets.items()}
    optimizers = {k: torch.optim.Adam(n.parameters(), lr=1e-4) for k, n in nets.items()}
    x = torch.randn(a.batch, a.bands[-1], a.size, a.size, device=device).contiguous(memory_format=torch.channels_last)
    t, loss = torch.rand(a.batch, 12, a.size, a.size, device=device) < 0.1, ComboLoss({})
    seconds, peaks = {k: [] for k in nets}, dict.fromkeys(nets, 0.0)
    for step in range(a.steps + 1):
        for k, net in nets.items():
            if device.type == "cuda": torch.cuda.reset_peak_memory_stats(device)
            start = clock(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=a.bf16): y = net(x)
            loss(y, t).backward()
            optimizers[k].step()
            optimizers[k].zero_grad(set_to_none=True)
            if step: seconds[k].append(clock(device) - start)
            peaks[k] = peak_gb(device)
    print(f"{a.encoder}, {a.bands[-1]} bands, batch {a.batch} x {a.size} px, {device}, {torch.get_num_threads()} threads{', bf16' if a.bf16 else ''}, {a.steps} steps in turn")
    for k, net in nets.items():
        peak = f", peak {peaks[k]:.2f} GB" if device.type == "cuda" else ""
        print(f"  {k:5} {sum(p.numel() for p in net.parameters())/1e6:.1f} M parameters, {statistics.median(seconds[k]):.3f} s a step, {kept_mb(net, x):.0f} MB kept{peak}")
    ratios = [o/s for o, s in zip(seconds["ours"], seconds["smp"], strict=True)]
    print(f"  ours / smp: time {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), memory kept {kept_mb(nets['ours'], x)/kept_mb(nets['smp'], x):.2f}")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--encoders", nargs="+", default=["dpn92", "inception_resnet_v2"])
    p.add_argument("--sizes", nargs="+", default=["384", "512", "333x517", "1300"])
    p.add_argument("--bands", nargs="+", type=int, default=[3, 8])
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--device", default="auto")
    p.add_argument("--beside-smp", action="store_true")
    p.add_argument("--bf16", action="store_true")
    p.add_argument("--encoder", default="dpn92")
    p.add_argument("--size", type=int, default=384)
    p.add_argument("--batch", type=int, default=2)
    p.add_argument("--steps", type=int, default=4)
    p.add_argument("--row", nargs=3, help=argparse.SUPPRESS)
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    keep_memory()
    if a.row:
        height, _, width = a.row[1].partition("x")
        print(json.dumps(row(a.row[0], int(height), int(width or height), int(a.row[2]), find_device(a.device))))
    elif a.beside_smp: beside_smp(a, find_device(a.device))
    else: table(a)


if __name__ == "__main__": main()
