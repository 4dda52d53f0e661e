"""Does the network learn as well as segmentation_models.pytorch's? Both on the generated cities:
the same batches, loss, optimiser and rate, fresh weights; dice of chips that were held out.

    python benchmarks/smp_dice.py [--encoder dpn92] [--steps 300] [--crop 128] [--batch 4]
        [--seeds 1] [--threads 1]

Needs `pip install --no-deps --target <folder> segmentation-models-pytorch` and PYTHONPATH=<folder>.
smp's decoder normalises batches; ours is given the same (`norm="batch"`). Steps are taken in turn,
so that seconds can be compared too (CPU seconds; on a GPU those of the clock).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
from networks import clock
from torch.utils.data import DataLoader

from spacenet5_nb import demo, explore, masks
from spacenet5_nb.core import Run, StageConfig, load_preset, load_settings
from spacenet5_nb.losses import ComboLoss
from spacenet5_nb.model import RoadUNet, find_device, keep_memory
from spacenet5_nb.train import learning_rate
from spacenet5_nb.training.dataset import EpochSampler, RoadDataset, bit_of, unpack_target

import segmentation_models_pytorch as smp  # isort: skip  (after the cure, which importing the package applies)


def make_nets(
    encoder: str, bands: int, classes: int, device: torch.device
) -> dict[str, torch.nn.Module]:
    nets = {
        "smp": smp.Unet(f"tu-{encoder}", encoder_weights=None, in_channels=bands, classes=classes),
        "ours": RoadUNet(encoder, bands, classes, norm="batch"),
    }
    return {k: n.to(device, memory_format=torch.channels_last).train() for k, n in nets.items()}


def dice_of(
    net: torch.nn.Module, prepare, held: RoadDataset, road: int, device: torch.device
) -> float:
    "Road dice over all pixels of whole chips."
    both = total = 0
    net.eval()
    with torch.no_grad():
        for image, mask in zip(held.images, held.masks, strict=True):
            x = torch.from_numpy(np.array(np.load(image, mmap_mode="r")))[None, :8].to(device)
            x = x[..., : x.shape[-2] // 32 * 32, : x.shape[-1] // 32 * 32]
            found = (net(prepare(x))[0, road] > 0).cpu()
            truth = torch.from_numpy(
                bit_of(np.load(mask, mmap_mode="r"), held.names, road)[
                    : found.shape[0], : found.shape[1]
                ]
            )
            both, total = both + int((found & truth).sum()), total + int(found.sum() + truth.sum())
    net.train()
    return 2 * both / total


def one(
    seed: int, a: argparse.Namespace, data: RoadDataset, held: RoadDataset, p, device: torch.device
) -> None:
    torch.manual_seed(seed)
    nets = make_nets(a.encoder, 8, len(p.channels), device)
    stage = StageConfig(
        crop_px=a.crop,
        batch=a.batch,
        epochs=1,
        steps_per_epoch=a.steps,
        lr=((0, a.lr),),
        schedule="onecycle",
    )
    optimizers = {
        k: torch.optim.AdamW(n.parameters(), lr=a.lr, weight_decay=0.01) for k, n in nets.items()
    }
    loader = DataLoader(
        data,
        a.batch,
        sampler=EpochSampler(data.cities, a.steps * a.batch, seed=seed),
        drop_last=True,
    )
    loss, seconds = ComboLoss(p.loss, channels=p.channels), {k: [] for k in nets}
    prepare = nets["ours"].prepare
    for step, (images, planes) in enumerate(loader):
        x, target = (
            prepare(images.to(device)).contiguous(memory_format=torch.channels_last),
            unpack_target(planes.to(device), p.channels.names),
        )
        for k, net in nets.items():
            start = clock(device)
            for group in optimizers[k].param_groups:
                group["lr"] = learning_rate(stage, 0, step, a.steps)
            loss(net(x), target).backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizers[k].step()
            optimizers[k].zero_grad()
            seconds[k].append(clock(device) - start)
        if step % 50 == 49:
            print(
                f"  step {step + 1}: "
                + ", ".join(f"{k} {statistics.median(v):.2f} s" for k, v in seconds.items()),
                flush=True,
            )
    dice = {k: dice_of(n, prepare, held, p.channels.road, device) for k, n in nets.items()}
    ratio = statistics.median(o / s for o, s in zip(seconds["ours"], seconds["smp"], strict=True))
    print(
        f"seed {seed}: dice "
        + ", ".join(f"{k} {v:.3f}" for k, v in dice.items())
        + f"; time ours / smp {ratio:.2f}",
        flush=True,
    )


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    for name, kind, default in (
        ("encoder", str, "dpn92"),
        ("steps", int, 300),
        ("crop", int, 128),
        ("batch", int, 4),
        ("seeds", int, 1),
        ("lr", float, 0.002),
        ("threads", int, 1),
        ("device", str, "auto"),
    ):
        ask.add_argument(f"--{name}", type=kind, default=default)
    a = ask.parse_args()
    torch.set_num_threads(a.threads)
    keep_memory()
    device, p = find_device(a.device), load_preset("demo")
    with tempfile.TemporaryDirectory() as folder:
        run = Run(
            "smp",
            Path(folder),
            demo.make_demo(Path(folder) / "cities", seed=load_settings().seed, workers=1),
            p,
            0,
        )
        chips = explore.find_chips(run.data_root, n_bands=8, chip_m=0)
        chips = chips[(chips.split == "train") & (chips.label != "")].reset_index(drop=True)
        chips["mask"] = [str(run.mask(c)) for c in chips.chip]
        for c in chips.itertuples():
            masks.make_chip_mask((c.image, c.label, c.mask, p.data.gsd_m, p.channels, p.masks))
        held = chips.index % 4 == 1
        data, rest = (
            RoadDataset(
                some.reset_index(drop=True),
                8,
                p.channels.names,
                crop=a.crop,
                train=p.train,
                cache=run.cache,
                gsd_m=p.data.gsd_m,
            )
            for some in (chips[~held], chips[held])
        )
        print(
            f"{a.encoder}, {int((~held).sum())} chips to learn from, {int(held.sum())} held "
            f"out, {a.steps} steps of {a.batch} x {a.crop} px, {device}, {a.threads} threads"
        )
        for seed in range(a.seeds):
            one(seed, a, data, rest, p, device)


if __name__ == "__main__":
    main()
