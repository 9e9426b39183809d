"""Every Python snippet of the README and of docs/ runs, and every link and config name is right."""

import ast
import importlib
import os
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

import pnoise_jax

ROOT = pathlib.Path(__file__).parents[1]
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")),
)
API_PAGES = sorted(f"docs/api/{p.name}" for p in (ROOT / "docs" / "api").glob("*.md"))
LINKED = (*PAGES, "CHANGELOG.md", *API_PAGES)
NOTEBOOK = ROOT / "docs" / "notebooks" / "audit_any_function.py"
# Other tests compare what the snippets of these pages print.
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


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_no_field_in_a_class_hides_what_its_annotation_names(page):
    """Up to Python 3.13, an annotation is read after the field has been assigned."""
    code = "\n".join(code for language in ("py", "python") for code in blocks(page, language))
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            names = {each.id for each in ast.walk(node.annotation) if isinstance(each, ast.Name)}
            assert ast.unparse(node.target) not in names


def anchors(page):
    """GitHub's anchors of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", LINKED)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text()
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", text):
        if "://" not in target:
            file = (ROOT / page).parent / target if target else ROOT / page
            assert file.exists(), target
            assert not anchor or anchor in anchors(file), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES)
def test_commands_name_configs_and_programs_that_exist(page):
    for command in re.findall(r"(?:pnoise|launch\.)[ ]?(\w+) ([^`\n]*)", (ROOT / page).read_text()):
        program, arguments = command
        for name in re.findall(
            r"--config[ =](?:configs/)?([a-z_0-9]+)(?:\.py)?(?=[: ]|$)", arguments
        ):
            shown = f"# {name}.py" in (ROOT / page).read_text()  # a file shown on the page
            assert shown or (ROOT / "configs" / f"{name}.py").is_file(), command
        if "--" in arguments:
            program_file = ROOT / "launch" / f"{program}.py"
            assert program_file.is_file() or (ROOT / "launch" / program).is_dir(), command


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().split()) <= 700


def test_every_page_is_within_two_links_of_the_readme():
    linked = set(re.findall(r"\(docs/([\w-]+\.md)\)", (ROOT / "README.md").read_text()))
    further = {
        name
        for page in linked
        for name in re.findall(r"\(([\w-]+\.md)\)", (ROOT / "docs" / page).read_text())
    }
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "index.md" or page.name in linked | further, page.name


def test_the_front_page_of_the_site_lists_every_page():
    text = (ROOT / "docs/index.md").read_text()
    listed = set(re.findall(r"^(?:[\w ]+<)?(?:\.\./)?([\w/-]+)>?$", text, re.MULTILINE))
    pages = {path.removeprefix("docs/").removesuffix(".md") for path in LINKED}
    assert pages - {"index"} <= listed


@pytest.mark.parametrize("package", ["noise", "models", "weights", "studies"])
def test_the_api_pages_have_every_public_name(package):
    page = (ROOT / "docs" / "api" / f"{package}.md").read_text()
    module = importlib.import_module(f"pnoise_jax.{package}")
    for name in module.__all__:
        documented = re.search(rf"pnoise_jax\.{package}\.{name}\b", page)
        # Constants, and what only our own config and errors need
        assert documented or name in NOT_DOCUMENTED or name.isupper(), name


NOT_DOCUMENTED = {
    "bridge",
    "bridge_figure",
    "explain_absent_option",
    "read_run_config",
    "require_preset",
    "spell_out_retired",
    "stage_and_number",
}


@pytest.mark.slow  # four seconds; .ci/run runs it
def test_the_notebook_runs(tmp_path):
    environment = os.environ | {"MPLBACKEND": "agg", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "error", NOTEBOOK],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    kinds = [line for line in done.stdout.splitlines() if line.startswith("('")]
    assert kinds == ["('independent', 'no_effect')", "('leak', 'harm')"]


def test_the_notebook_is_in_jupytexts_percent_format():
    text = NOTEBOOK.read_text()
    assert "format_name: percent" in text
    assert text.count("# %% [markdown]") >= 5


def test_versions_and_extras_are_the_same_everywhere():
    assert f"version: {pnoise_jax.__version__}" in (ROOT / "CITATION.cff").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    readme = (ROOT / "README.md").read_text()
    for extra in project["optional-dependencies"]:
        assert f"`{extra}`" in readme, extra


def test_the_package_imports_nothing_by_itself():
    code = "import sys, pnoise_jax; print(pnoise_jax.__version__, 'jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == [pnoise_jax.__version__, "False"]
    assert "arXiv" in pnoise_jax.__doc__
