__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    "`from spacenet5_nb import formats`, as scripts from before the rooms have it."
    if name == "formats":
        import importlib

        return importlib.import_module("spacenet5_nb.roads.formats")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
