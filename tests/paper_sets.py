"Generated folders in the form of City-Scale and of the SpaceNet set of 400 pixels."

import json
from pathlib import Path

import numpy as np
from skimage.io import imsave

from spacenet5_nb.acquire.pickled_graphs import write_pixel_graph
from spacenet5_nb.base.pixel_graphs import PixelGraph, flip_rows


def grid_graph(at: list[float], side: float) -> PixelGraph:
    "Streets down and across a tile, from border to border."
    stops = [0.0, *at, side - 1]
    nodes = [(r, c) for r in at for c in stops] + [(r, c) for c in at for r in (0.0, side - 1)]
    number = {p: i for i, p in enumerate(nodes)}
    edges = [
        (number[r, a], number[r, b]) for r in at for a, b in zip(stops[:-1], stops[1:], strict=True)
    ]
    edges += [
        (number[a, c], number[b, c]) for c in at for a, b in zip(stops[:-1], stops[1:], strict=True)
    ]
    return PixelGraph(np.array(nodes), np.array(edges))


def draw(folder: Path, stem: str, image: str, mask: str, at: list[float], side: int) -> None:
    "An image with bright streets, and its road mask."
    folder.mkdir(parents=True, exist_ok=True)
    road, rng = np.zeros((side, side), bool), np.random.default_rng(len(stem))
    for k in map(int, at):
        road[k - 4 : k + 5], road[:, k - 4 : k + 5] = True, True
    pixels = rng.normal(90, 12, (side, side, 3)) + 70 * road[..., None]
    imsave(folder / f"{stem}{image}", pixels.clip(1, 255).astype(np.uint8))
    imsave(folder / f"{stem}{mask}", road * np.uint8(255), check_contrast=False)


def draw_city_scale(root: Path, numbers=(0, 1, 2, 8, 9), side: int = 480) -> Path:
    "Regions with images, masks and graphs; 8 and 9 are of the papers' test split."
    for k in numbers:
        at = [120.0 + 5 * (k % 4), 240.0, 360.0]
        draw(root, f"region_{k}_", "sat.png", "gt.png", at, side)
        graph = grid_graph(at, side)
        write_pixel_graph(graph, root / f"region_{k}_refine_gt_graph.p")
        write_pixel_graph(graph, root / f"region_{k}_graph_gt.pickle")
    return root


def draw_spacenet_400(root: Path, numbers=(3, 5, 7)) -> Path:
    "Tiles whose graphs count rows from the lower edge; 7 is the test split."
    folder, names = root / "RGB_1.0_meter", [f"AOI_2_Vegas_{k}" for k in numbers]
    for k, name in zip(numbers, names, strict=True):
        at = [100.0, 200.0 + k]
        draw(folder, f"{name}__", "rgb.png", "gt.png", at, 400)
        write_pixel_graph(flip_rows(grid_graph(at, 400), 400), folder / f"{name}__gt_graph.p")
    splits = {"train": names[:-1], "validation": [], "test": names[-1:]}
    (root / "dataset.json").write_text(json.dumps(splits))
    return root


def shifted(graph: PixelGraph, pixels: float) -> PixelGraph:
    return PixelGraph((graph.nodes + (pixels, 0)).clip(0), graph.edges)
