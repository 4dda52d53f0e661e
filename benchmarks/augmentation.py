"""A picture of what augmentation does: tiles as they are, and crops as a network is shown them.

    .venv/bin/python benchmarks/augmentation.py [--preset world] [--seeds 1 2 3] [--out FILE.jpg]

Two tiles each of Las Vegas, Shanghai and Japan, of `--data` (a folder with `tiles.csv`, and
per source `images/` and `masks/`). Imagery: SpaceNet, SpaceNet LLC / Maxar, CC BY-SA 4.0; GSI Japan
(2022), Technical Paper H1-No.17, Public Data License 1.0.
"""

import argparse
import tempfile
from pathlib import Path

from spacenet5_nb import explore, masks
from spacenet5_nb.base.pyplot import plt
from spacenet5_nb.core import load_preset
from spacenet5_nb.training.crop_pictures import plot_crops
from spacenet5_nb.training.dataset import RoadDataset
from spacenet5_nb.workflow.mask_labels import make_chips

TILES = {
    "spacenet3_vegas": ("10217", "10221"),
    "spacenet3_shanghai": ("10325", "10422"),
    "gsi_japan_roads": ("1019", "154"),
}


def linked(data, folder):
    "The chosen tiles with their masks, in a folder of their own."
    for source, stems in TILES.items():
        for kind in ("images", "masks"):
            (folder / source / kind).mkdir(parents=True)
            for stem in stems:
                (path,) = (data / source / kind).glob(f"{stem}.*")
                (folder / source / kind / path.name).symlink_to(path.resolve())
    return folder


def dataset(preset, data, folder):
    "The tiles as a training set."
    root = linked(data, folder / "tiles")
    make_chips(root, folder / "chips", gsd=str(data / "tiles.csv"), say=lambda line: None)
    chips = explore.scan_chips(explore.find_chips(folder / "chips", n_bands=3, chip_m=0))
    chips = chips.assign(mask=[str(folder / f"{c}.tif") for c in chips.chip])
    for c in chips.itertuples():
        job = (c.image, c.label, c.mask, preset.data.gsd_m, preset.channels, preset.masks)
        masks.make_chip_mask(job)
    crop, how = preset.train.stages[0].crop_px, dict(cache=folder, gsd_m=preset.data.gsd_m)
    return RoadDataset(chips, 3, preset.channels.names, crop=crop, train=preset.train, **how)


def parsed():
    root = Path(__file__).resolve().parents[1]
    ask = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ask.add_argument("--data", type=Path, default=root / "../shared/data/real_roads")
    ask.add_argument("--preset", default="world")
    ask.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    ask.add_argument("--out", type=Path, default=root / "docs/images/augmentation.jpg")
    return ask.parse_args()


def main():
    a = parsed()
    preset = load_preset(a.preset)
    with tempfile.TemporaryDirectory() as folder:
        data = dataset(preset, a.data.resolve(), Path(folder))
        figure = plot_crops(data, road=preset.channels.road, seeds=a.seeds, inch=1.7, dpi=80)
        figure.savefig(a.out, pil_kwargs={"quality": 80})
        plt.close(figure)
    print(f"{a.out}: {a.out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
