"""Words keep their promises: docstrings and sources stand, links lead somewhere, the README's commands exist."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

from onelayer import cli

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "src").rglob("*.py"))
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(p for p in (ROOT / "docs").rglob("*.md") if "_build" not in p.parts)]
README = (ROOT / "README.md").read_text("utf-8")
FORMULAS = ("layers", "positions", "optimizers", "sublayers")  # folders whose every file implements a formula


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""


# ---------------------------------------------------------------------------------------------------- docstrings


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_every_module_says_in_its_first_line_what_it_is(path):
    first = docstring(path).partition("\n")[0]
    assert len(first) >= 20, "the first line of the docstring is missing, or says too little"


@pytest.mark.parametrize(
    "path",
    [p for p in SOURCES if p.parts[-2] in FORMULAS and p.name != "__init__.py"],
    ids=name,
)
def test_every_formula_names_its_source(path):
    assert re.search(r"^Source +\S", docstring(path), re.MULTILINE), (
        "a line `Source    Author year, arXiv:…` is missing"
    )


@pytest.mark.parametrize("path", sorted((ROOT / "tests").glob("*.py")), ids=name)
def test_every_test_file_says_what_it_guards(path):
    assert docstring(path)


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_the_pages_that_the_source_mentions_exist(path):
    for page in re.findall(r"docs/[\w/]+\.\w+", path.read_text("utf-8")):
        assert (ROOT / page).is_file(), page


# ---------------------------------------------------------------------------------------------------- links


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_links_lead_to_files(path):
    prose = re.sub(r"```.*?```|`[^`]*`|<!--.*?-->", "", path.read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if not target.startswith(("http://", "https://", "mailto:", "#")):
            assert (path.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_no_line_is_lost_as_a_comment(path):
    """MyST takes a line that begins with % for a comment: a percentage must not be cut before its sign."""
    prose = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
    assert not re.findall(r"^[ ]*%.*", prose, re.MULTILINE)


# ---------------------------------------------------------------------------------------------------- README


def commands() -> list[str]:
    """The lines of the README's shell blocks, without comments."""
    blocks = re.findall(r"```(?:sh|bash|console)\n(.*?)```", README, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line and not line.startswith("#")]


def test_the_readme_has_one_command_for_the_main_job_and_one_for_the_tests():
    assert len([c for c in commands() if c.startswith("pip install . && onelayer grok")]) == 1
    assert (
        len([c for c in commands() if c.startswith("pip install '.[test]' && pytest")]) == 1
    )  # .ci/run runs this line


def test_the_readmes_commands_exist():
    named = {word for line in commands() for word in re.findall(r"\bonelayer ([a-z]\w*)", line)}
    assert named
    assert named <= set(cli.COMMANDS)


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_the_readmes_python_runs(block):
    exec(compile(block, "README.md", "exec"), {})


def test_the_readmes_extras_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    named = {
        name
        for line in README.splitlines()
        for group in re.findall(r"\.\[([\w,]+)\]", line)
        for name in group.split(",")
    }
    assert named
    assert named <= set(extras)


# ---------------------------------------------------------------------------------------------------- skips


@pytest.mark.parametrize("path", sorted((ROOT / "tests").glob("*.py")), ids=name)
def test_skips_stand_in_one_place(path):
    """An inventory is worth something only if it is whole: `needs` in tests/backends.py is the one way to skip."""
    calls = [
        ast.unparse(node) for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Attribute)
    ]
    skips = [
        c
        for c in calls
        if c in {"pytest.skip", "pytest.importorskip", "pytest.xfail"} or re.search(r"mark\.(skip|xfail)", c)
    ]
    assert not skips or path.name == "backends.py"
