"Drawn pictures with road masks, as public data sets have them: PNG, without a georeference."

from pathlib import Path

import numpy as np
from skimage.io import imsave


def draw_pictures(folder: Path, n: int = 2, side: int = 200) -> Path:
    "Pictures in images/ and masks of 0 and 255 in masks/, one street across and one down in each."
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for k in range(n):
        rng, road = np.random.default_rng(k), np.zeros((side, side), bool)
        road[80 + k : 88 + k], road[:, 120 - k : 128 - k] = True, True
        image = rng.normal(90, 14, (side, side, 3)) + 60 * road[..., None]
        imsave(folder / f"images/{k}.png", image.clip(1, 255).astype(np.uint8))
        imsave(folder / f"masks/{k}.png", road * np.uint8(255), check_contrast=False)
    return folder
