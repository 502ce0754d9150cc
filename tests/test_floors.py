"""No import of the package runs up the house's floors, or sideways; and the checker sees each way to do so."""

from pathlib import Path

import pytest
from floors import FLOORS, imports, violations

import onelayer

assert onelayer.__file__ is not None
ROOT = Path(onelayer.__file__).parent


def name_of(path: Path) -> str:
    parts = ["onelayer", *path.relative_to(ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}


@pytest.mark.parametrize("module", FILES)
def test_imports_keep_to_the_floors(module):
    path = FILES[module]
    assert violations(module, path.read_text("utf-8"), set(FILES), path.name == "__init__.py") == []


def test_the_house_is_seen():
    assert {"onelayer.arrays", "onelayer.layers", "onelayer.cli"} <= FILES.keys()


# ---------------------------------------------------------------------------------------------------- the checker

MODULES = {
    "onelayer", "onelayer.arrays", "onelayer.errors", "onelayer.layers", "onelayer.layers.linear",
    "onelayer.layers.softmax", "onelayer.positions", "onelayer.positions.rope", "onelayer.sublayers.attention",
    "onelayer.models.decoder_only", "onelayer.models.encoder_decoder", "onelayer.training.loop",
    "onelayer.microscope.trace", "onelayer.report.page", "onelayer.cli", "onelayer.cli.grok",
}  # fmt: skip

WRONG = [
    ("onelayer.layers.linear", "from ..sublayers.attention import forward", "floor 2 reaches up to floor 3"),
    ("onelayer.layers.linear", "import onelayer.models.decoder_only", "floor 2 reaches up to floor 4"),
    ("onelayer.layers.linear", "from onelayer.models import decoder_only", "floor 2 reaches up to floor 4"),
    ("onelayer.layers.linear", "from ..positions import rope", "both stand on floor 2"),
    ("onelayer.layers.linear", "from . import softmax", "files of layers/ do not import each other"),
    ("onelayer.layers.linear", "from .softmax import forward", "files of layers/ do not import each other"),
    ("onelayer.layers.linear", "from onelayer.layers import softmax", "files of layers/ do not import each other"),
    ("onelayer.layers.linear", "def f():\n    from .. import cli", "floor 2 reaches up to floor 8"),
    ("onelayer.layers.linear", "import importlib\nimportlib.import_module('..cli', __package__)", "up to floor 8"),
    ("onelayer.training.loop", "from onelayer.microscope import trace", "both stand on floor 5"),
    ("onelayer.training.loop", "from ..report.page import write", "floor 5 reaches up to floor 7"),
    ("onelayer.models.decoder_only", "from onelayer import something", "floor 4 reaches up to floor 9"),
    ("onelayer.arrays", "from .errors import BadInput", "both stand on floor 1"),
    ("onelayer.models.decoder_only", "import onelayer.cellar.wine", "'cellar' stands on no floor"),
    ("onelayer.cellar.wine", "", "the folder 'cellar' stands on no floor"),
]

RIGHT = [
    ("onelayer.layers.linear", "from ..arrays import Array\nimport numpy as np\nfrom ..errors import BadInput"),
    ("onelayer.sublayers.attention", "from ..layers import linear, softmax\nfrom ..positions.rope import forward"),
    ("onelayer.positions.rope", "from . import Places"),  # the registry's own types
    ("onelayer.models.encoder_decoder", "from . import decoder_only\nfrom .config import ModelConfig"),
    ("onelayer.cli.grok", "from ..report.page import write\nfrom ..training import loop"),
    ("onelayer.__main__", "from .cli import main"),
]


@pytest.mark.parametrize(("module", "source", "fault"), WRONG)
def test_a_wrong_import_is_found(module, source, fault):
    found = violations(module, source, MODULES)
    assert len(found) == 1
    assert fault in found[0]


@pytest.mark.parametrize(("module", "source"), RIGHT)
def test_a_right_import_passes(module, source):
    assert violations(module, source, MODULES) == []


def test_a_registry_may_import_its_files():
    assert violations("onelayer.layers", "from . import linear, softmax", MODULES, package=True) == []
    assert violations("onelayer.layers", "from ..models import decoder_only", MODULES, package=True) != []


def test_relative_names_are_resolved_from_a_folder_and_from_a_file():
    assert list(imports("onelayer.layers", "from .linear import x", MODULES, package=True)) == [
        "onelayer.layers.linear"
    ]
    assert list(imports("onelayer.layers.linear", "from . import x", MODULES)) == ["onelayer.layers"]
    assert list(imports("onelayer.layers.linear", "from ..arrays import x", MODULES)) == ["onelayer.arrays"]


def test_the_map_is_that_of_the_design():
    assert FLOORS["training"] == FLOORS["microscope"] == FLOORS["decoding"] == 5
    assert FLOORS["cli"] == max(floor for room, floor in FLOORS.items() if room)
