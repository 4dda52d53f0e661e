"""Can the network learn at all? DPN92 on two real chips of Las Vegas, until its own training dice
says so.

    .venv/bin/python benchmarks/overfit.py [--encoder dpn92] [--gsd 0.6] [--crop 256]
        [--minutes 15] [--device cpu]

The loss, the optimiser and the batches are the workspace's; there is no augmentation and no
held-out chip: a network that cannot reach dice 0.9 on what it is shown has a fault. A CPU takes a
crop from the middle of each chip (`--crop`); `--crop 0 --gsd 0.3` is the whole of both.
"""

import argparse
import time
from pathlib import Path

import torch

from spacenet5_nb import masks, raster
from spacenet5_nb.core import Channels, load_preset, load_settings
from spacenet5_nb.losses import ComboLoss
from spacenet5_nb.model import RoadUNet, find_device, set_threads

CHIPS = ("img0", "img1454")


def read_pair(folder, chip, *, gsd_m, crop):
    "Image and target of one chip, or of the piece in its middle."
    image, grid, _ = raster.read_chip(next(folder.glob(f"PS-RGB/*_{chip}.tif")), 3, gsd_m=gsd_m)
    target = masks.make_masks(
        next(folder.glob(f"geojson_roads/*_{chip}.geojson")), grid, Channels.selim_sef()
    )
    y, x = ((n - crop) // 2 if crop else 0 for n in image.shape[1:])
    part = slice(y, y + crop if crop else None), slice(x, x + crop if crop else None)
    return torch.from_numpy(image[:, *part].copy()), torch.from_numpy(target[:, *part] > 0)


def dice_of(net, images, targets, road):
    "Dice of the road channel in evaluation mode, as validation counts it."
    net.eval()
    with torch.no_grad():
        found = torch.cat([net(net.prepare(i[None]))[:, road] > 0 for i in images])
    net.train()
    truth = targets[:, road]
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))


def main():
    ask = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    ask.add_argument("--encoder", default="dpn92")
    ask.add_argument(
        "--norm",
        default="batch",
        choices=("batch", "none"),
        help="of the decoder; fresh weights want batch",
    )
    ask.add_argument("--gsd", type=float, default=0.6)
    ask.add_argument("--crop", type=int, default=256)
    ask.add_argument("--lr", type=float, default=5e-4)
    ask.add_argument("--minutes", type=float, default=15)
    ask.add_argument("--goal", type=float, default=0.9)
    ask.add_argument("--device", default="auto")
    ask.add_argument("--data", default="", help="AOI folder with PS-RGB and geojson_roads")
    a = ask.parse_args()
    device = find_device(a.device)
    set_threads()
    torch.manual_seed(load_settings().seed)
    folder = Path(
        a.data or Path(__file__).resolve().parents[1] / "../shared/data/spacenet3_vegas/AOI_2_Vegas"
    )
    if not folder.is_dir():
        raise SystemExit(f"no chips in {folder}; give --data")
    images, targets = (
        torch.stack(part).to(device)
        for part in zip(
            *(read_pair(folder, c, gsd_m=a.gsd, crop=a.crop) for c in CHIPS), strict=True
        )
    )
    net, channels = RoadUNet(a.encoder, 3, 12, norm=a.norm).to(device), Channels.selim_sef()
    loss, optimizer = (
        ComboLoss(load_preset("faithful").loss, channels=channels),
        torch.optim.Adam(net.parameters(), lr=a.lr),
    )
    start, step, dice = time.perf_counter(), 0, 0.0
    print(
        f"{a.encoder}, fresh weights, {len(images)} chips of {images.shape[2]} x "
        f"{images.shape[3]} px at {a.gsd} m, "
        f"{float(targets[:, channels.road].float().mean()):.1%} road, on {device}",
        flush=True,
    )
    while dice < a.goal and time.perf_counter() - start < 60 * a.minutes:
        optimizer.zero_grad()
        value = loss(net(net.prepare(images)), targets)
        value.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 10 == 0:
            dice = dice_of(net, images, targets, channels.road)
            print(
                f"step {step:4d}  {time.perf_counter() - start:5.0f} s  loss "
                f"{float(value.detach()):.3f}  training dice {dice:.3f}",
                flush=True,
            )
    print(
        f"{'reached' if dice >= a.goal else 'NOT reached'}: training dice {dice:.3f} after "
        f"{step} steps, {time.perf_counter() - start:.0f} s (goal {a.goal})"
    )


if __name__ == "__main__":
    main()
