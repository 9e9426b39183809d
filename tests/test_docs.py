"""Every Python snippet of the README and of docs/ runs, and every link and config name is right."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")),
)
# These have tests of their own, which compare what their snippets print.
TESTED_ELSEWHERE = (
    "docs/is-my-number-real.md",
    "docs/independence.md",
    "docs/extending.md",
)
NEEDS_FILES = "weights.load("  # an exported run: tests/launch/test_export.py


def blocks(page, language):
    text = (ROOT / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


SNIPPETS = [
    pytest.param(code, id=f"{page}-{number}")
    for page in PAGES
    if page not in TESTED_ELSEWHERE
    for number, code in enumerate(blocks(page, "python"))
    if NEEDS_FILES not in code
]


@pytest.mark.parametrize("code", SNIPPETS)
def test_snippets_run(code):
    exec(compile(code, "snippet", "exec"), {"__name__": "snippet"})


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert ((ROOT / page).parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES)
def test_commands_name_configs_and_programs_that_exist(page):
    for command in re.findall(r"(?:pnoise|launch\.)[ ]?(\w+) ([^`\n]*)", (ROOT / page).read_text()):
        program, arguments = command
        for name in re.findall(
            r"--config[ =](?:configs/)?([a-z_0-9]+)(?:\.py)?(?=[: ]|$)", arguments
        ):
            own = name == "config"  # the reader's
            assert own or (ROOT / "configs" / f"{name}.py").is_file(), command
        if "--" in arguments:
            program_file = ROOT / "launch" / f"{program}.py"
            assert program_file.is_file() or (ROOT / "launch" / program).is_dir(), command


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().split()) <= 700
