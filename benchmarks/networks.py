"""Networks by encoder and size: exact output, parameters, seconds and memory; and one training step
beside segmentation_models.pytorch's U-Net.

    python benchmarks/networks.py [--encoders dpn92 inception_resnet_v2]
        [--sizes 384 512 1300 333x517] [--bands 3 8] [--threads 2]
    python benchmarks/networks.py --beside-smp [--encoder dpn92] [--size 384] [--batch 2]
        [--steps 4] [--threads 2]
    python benchmarks/networks.py --beside-smp --bf16 --batch 10 --steps 20 --bands 8 [--search]
    python benchmarks/networks.py --predict [--encoder dpn92] [--size 1024] [--batch 4] [--bf16]

The third is stage one on a GPU (`--alone`: without smp's); the last is a network as it learns, and
made quick in each way.

Each row of the first table is a process of its own, so that its peak is its own; images above 600
px are trained with recomputed activations. Seconds are CPU seconds of all threads, so that a busy
machine blurs them less. The second needs `pip install --no-deps --target <folder>
segmentation-models-pytorch` and PYTHONPATH=<folder>; both networks take their steps in turn, on the
same input, with the same loss and optimiser. On a GPU: wall seconds, its own peak, fused Adam for
both, ours as it is trained (wide groups), operations of the network as published; `--search` lets
cuDNN try its kernels first (`torch.backends.cudnn.benchmark`).
"""

import argparse
import copy
import json
import resource
import statistics
import subprocess
import sys
import time

from spacenet5_nb import core  # before torch
from spacenet5_nb.losses import ComboLoss
from spacenet5_nb.model import RoadUNet, find_device, keep_memory, recompute, tune
from spacenet5_nb.networks.inference_optimization import OneSize, quicken, widen_groups

import torch  # isort: skip

core.cure_torchvision()


def clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() if device.type == "cuda" else time.process_time()


def kept_mb(net: torch.nn.Module, x: torch.Tensor) -> float:
    "Megabytes that a forward pass keeps for the way back, weights not counted."
    kept, weights = {}, {p.untyped_storage().data_ptr() for p in net.parameters()}

    def count(t: torch.Tensor) -> torch.Tensor:
        if t.untyped_storage().data_ptr() not in weights:
            kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
        net(x)
    return sum(kept.values()) / 1e6


def peak_gb(device: torch.device) -> float:
    return (
        torch.cuda.max_memory_allocated(device) / 1e9
        if device.type == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    )


def row(encoder: str, height: int, width: int, bands: int, device: torch.device) -> dict:
    "One network, one image: forward, backward, output's size, parameters, memory."
    net = tune(RoadUNet(encoder, bands, 12)).to(device).train()
    again = max(height, width) > 600
    if again:
        recompute(net)
    x = torch.randn(1, bands, height, width, device=device).contiguous(
        memory_format=torch.channels_last
    )
    start = clock(device)
    y = net(x)
    middle = clock(device)
    y.square().mean().backward()
    end = clock(device)
    return dict(
        encoder=encoder,
        bands=bands,
        size=f"{height} x {width}",
        output="x".join(map(str, y.shape[1:])),
        exact=tuple(y.shape) == (1, 12, height, width),
        parameters_M=round(sum(p.numel() for p in net.parameters()) / 1e6, 2),
        forward_s=round(middle - start, 2),
        backward_s=round(end - middle, 2),
        recomputed=again,
        peak_gb=round(peak_gb(device), 2),
    )


def table(a: argparse.Namespace) -> None:
    "Every row in a process of its own."
    names = None
    for encoder in a.encoders:
        for bands in a.bands:
            for size in a.sizes:
                command = [
                    sys.executable,
                    __file__,
                    "--row",
                    encoder,
                    size,
                    str(bands),
                    "--threads",
                    str(a.threads),
                    "--device",
                    a.device,
                ]
                out = subprocess.run(command, capture_output=True, text=True)
                found = (
                    json.loads(out.stdout.splitlines()[-1])
                    if out.returncode == 0
                    else dict(
                        encoder=encoder,
                        bands=bands,
                        size=size,
                        error=(out.stderr.splitlines() or ["killed"])[-1],
                    )
                )
                if names is None and "error" not in found:
                    print(" | ".join(names := list(found)))
                print(" | ".join(str(v) for v in found.values()), flush=True)


def flops_of(net: torch.nn.Module, x: torch.Tensor) -> float:
    "Operations of one step: forward, and twice that on the way back."
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(x[:1])
    return 3 * counter.get_total_flops() * len(x)


def ceiling(device: torch.device, dtype: torch.dtype, now=clock) -> float:
    """Operations a second of a matrix product, the best of six, by whichever clock the caller's
    own figures are of.
    """
    n, best = 8192 if device.type == "cuda" else 2048, 0.0
    m = torch.randn(n, n, device=device).to(dtype)
    for _ in range(6):
        start = now(device)
        m @ m
        best = max(best, 2 * n**3 / (now(device) - start))
    return best


def make_nets(a: argparse.Namespace) -> dict[str, torch.nn.Module]:
    ours = {"ours": RoadUNet(a.encoder, a.bands[-1], 12)}
    if a.alone:
        return ours
    try:
        import segmentation_models_pytorch as smp  # noqa: I001
    except ImportError:
        sys.exit(
            "segmentation_models_pytorch is not here: pip install --no-deps --target "
            "<folder> segmentation-models-pytorch; PYTHONPATH=<folder>"
        )
    return {
        "smp": smp.Unet(
            f"tu-{a.encoder}", encoder_weights=None, in_channels=a.bands[-1], classes=12
        ),
        **ours,
    }


def beside_smp(a: argparse.Namespace, device: torch.device) -> None:
    "Training steps in turn with smp's U-Net on the same encoder."
    torch.manual_seed(0)
    gpu, dtype = device.type == "cuda", torch.bfloat16 if a.bf16 else torch.float32
    torch.backends.cudnn.benchmark = a.search
    nets = {
        k: n.to(device, memory_format=torch.channels_last).train() for k, n in make_nets(a).items()
    }
    x = torch.randn(a.batch, a.bands[-1], a.size, a.size, device=device).contiguous(
        memory_format=torch.channels_last
    )
    work = flops_of(nets["ours"].eval(), x)
    if gpu:
        widen_groups(nets["ours"].train())
    nets["ours"].train()
    optimizers = {k: torch.optim.Adam(n.parameters(), lr=1e-4, fused=gpu) for k, n in nets.items()}
    t, loss = torch.rand(a.batch, 12, a.size, a.size, device=device) < 0.1, ComboLoss({})
    seconds, peaks = {k: [] for k in nets}, dict.fromkeys(nets, 0.0)
    for step in range(a.steps + 2):
        for k, net in nets.items():
            if gpu:
                torch.cuda.reset_peak_memory_stats(device)
            start = clock(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=a.bf16):
                y = net(x)
            loss(y, t).backward()
            optimizers[k].step()
            optimizers[k].zero_grad(set_to_none=True)
            if step > 1:
                seconds[k].append(clock(device) - start)
            peaks[k] = peak_gb(device)
    where = torch.cuda.get_device_name(device) if gpu else f"{torch.get_num_threads()} threads"
    print(
        f"{a.encoder}, {a.bands[-1]} bands, batch {a.batch} x {a.size} px, "
        f"{where}{', bf16' if a.bf16 else ''}{', kernels searched' if a.search else ''}, "
        f"{a.steps} steps in turn; matrix product {ceiling(device, dtype) / 1e12:.2f} TFLOP/s"
    )
    for k, net in nets.items():
        peak, m = f", peak {peaks[k]:.2f} GB" if gpu else "", statistics.median(seconds[k])
        print(
            f"  {k:5} {sum(p.numel() for p in net.parameters()) / 1e6:.1f} M parameters, "
            f"{m:.3f} s a step, {a.batch / m:.1f} samples/s, {work / m / 1e12:.2f} TFLOP/s, "
            f"{kept_mb(net, x):.0f} MB kept{peak}"
        )
    if a.alone:
        return
    ratios = [o / s for o, s in zip(seconds["ours"], seconds["smp"], strict=True)]
    print(
        f"  ours / smp: time {statistics.median(ratios):.2f} ({min(ratios):.2f} to "
        f"{max(ratios):.2f}), memory kept "
        f"{kept_mb(nets['ours'], x) / kept_mb(nets['smp'], x):.2f}"
    )


def predict(a: argparse.Namespace, device: torch.device) -> None:
    """Millions of pixels a second of a forward pass, as the network is and made quick; the ways
    take turns.
    """
    dtype = torch.bfloat16 if a.bf16 else torch.float32
    net = RoadUNet(a.encoder, a.bands[-1], 12).eval()
    x = torch.randn(a.batch, a.bands[-1], a.size, a.size, device=device, dtype=dtype).contiguous(
        memory_format=torch.channels_last
    )

    def ready(n: torch.nn.Module) -> torch.nn.Module:
        return n.to(memory_format=torch.channels_last)

    ways = {
        "as it is": ready(copy.deepcopy(net).to(device, dtype)),
        "quick": ready(quicken(copy.deepcopy(net).to(device), dtype=dtype)),
        "quick, fused": ready(quicken(copy.deepcopy(net).to(device), dtype=dtype, fuse=True)),
    }
    ways["quick, compiled"] = OneSize(ways["quick"], compile=True)
    seconds = {k: [] for k in ways}
    with torch.inference_mode():
        for step in range(a.steps + 1):
            for k, way in ways.items():
                start = clock(device)
                way(x)
                if step:
                    seconds[k].append(clock(device) - start)
    where = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{torch.get_num_threads()} threads"
    )
    print(
        f"{a.encoder}, {a.bands[-1]} bands, {a.batch} x {a.size} px, {dtype}, {where}; matrix "
        f"product {ceiling(device, dtype) / 1e12:.2f} TFLOP/s"
    )
    for k, s in seconds.items():
        ratio = statistics.median(
            one / other for one, other in zip(s, seconds["as it is"], strict=True)
        )
        print(
            f"  {k:16} {x[:, 0].numel() / statistics.median(s) / 1e6:8.2f} Mpx/s, {ratio:.2f} "
            "of the time"
        )


def main() -> None:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--encoders", nargs="+", default=["dpn92", "inception_resnet_v2"])
    p.add_argument("--sizes", nargs="+", default=["384", "512", "333x517", "1300"])
    p.add_argument("--bands", nargs="+", type=int, default=[3, 8])
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--device", default="auto")
    p.add_argument("--beside-smp", action="store_true")
    p.add_argument("--predict", action="store_true")
    p.add_argument("--alone", action="store_true", help="as --beside-smp, without smp's")
    p.add_argument("--bf16", action="store_true")
    p.add_argument("--search", action="store_true")
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
        print(
            json.dumps(
                row(
                    a.row[0],
                    int(height),
                    int(width or height),
                    int(a.row[2]),
                    find_device(a.device),
                )
            )
        )
    elif a.predict:
        predict(a, find_device(a.device))
    elif a.beside_smp or a.alone:
        beside_smp(a, find_device(a.device))
    else:
        table(a)


if __name__ == "__main__":
    main()
