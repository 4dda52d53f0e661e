"""What a command loads before it works: each of these libraries costs a user part of a second, or
seconds, and none of them is needed there."""

import subprocess
import sys
from pathlib import Path

import pytest

SAMPLE = Path(__file__).parents[1] / "spacenet5_nb/assets/sample/las_vegas.tif"
COMPILER = {"torch._dynamo", "torch._inductor", "torch.distributed.fsdp", "sympy"}
NOT_BEFORE_A_MAP = {"folium", "matplotlib", "scipy.ndimage", "scipy.spatial", "numba"}
NOT_FOR_HELP = {"torch", "numpy", "pandas", "geopandas", "rasterio", "networkx", "asyncio"}
NEVER = {"albumentations", "lightning", "distributed", "dask", "skimage", "IPython"}


def loaded(code: str, *arguments: str) -> set[str]:
    "Modules that a fresh process has after it ran some lines."
    run = [sys.executable, "-c", f"{code}\nimport sys; print('|'.join(sys.modules))", *arguments]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split("|"))


def test_help_loads_the_commands_and_no_library_of_numbers():
    code = (
        "import sys; sys.argv[0] = 'spacenet5'\n"
        "from spacenet5_nb.pipeline import main\n"
        "try: main()\n"
        "except SystemExit as e: assert not e.code"
    )
    modules = loaded(code, "--help")
    assert "spacenet5_nb.workflow.member_commands" in modules
    assert not modules & (NOT_FOR_HELP | NEVER | NOT_BEFORE_A_MAP | COMPILER)


def test_extract_and_ensemble_import_torch_and_no_compiler_no_map_and_no_network_library():
    modules = loaded("import spacenet5_nb.extract, spacenet5_nb.ensemble")
    assert {"torch", "rasterio", "spacenet5_nb.inference.tiled_inference"} <= modules
    unwanted = NEVER | NOT_BEFORE_A_MAP | COMPILER | {"timm", "torchvision"}
    assert not modules & unwanted


def test_pictures_of_maps_load_where_they_are_asked_for():
    code = (
        "import sys\nfrom spacenet5_nb import maps\nassert 'matplotlib.pyplot' not in sys.modules\n"
    )
    modules = loaded(f"{code}assert maps.plot_speeds and maps.save_png")
    assert "matplotlib.pyplot" in modules
    with pytest.raises(AttributeError, match="plot_nothing"):
        from spacenet5_nb import maps

        maps.plot_nothing  # noqa: B018


@pytest.mark.slow
def test_a_whole_extract_loads_no_compiler(tmp_path):
    code = (
        "import sys\n"
        "from spacenet5_nb.extract import extract, world_folder\n"
        "members = world_folder() / '0.safetensors'\n"
        "extract(sys.argv[1], members, sys.argv[2], tta='none', say=lambda _: None)"
    )
    modules = loaded(code, str(SAMPLE), str(tmp_path / "roads.gpkg"))
    assert "timm" in modules
    assert not modules & (NEVER | COMPILER | {"matplotlib.pyplot"})
