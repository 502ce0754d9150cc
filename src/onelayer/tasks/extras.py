"""Libraries that a task may need and an installation may lack: those of the extra [words]."""

from importlib import import_module
from types import ModuleType

from onelayer.errors import BadInput

__all__ = ["need"]


def need(module: str, what: str) -> ModuleType:
    """`need("babel.dates", "dates in many locales")`: the module, imported when it is needed and not before."""
    try:
        return import_module(module)
    except ImportError as error:
        library = module.partition(".")[0]
        raise BadInput(
            f"{what} need the library {library}, which is not installed. Install it: pip install 'onelayer[words]' "
            f"(or pip install {library})"
        ) from error
