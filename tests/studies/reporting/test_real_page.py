"""The examples of docs/is-my-number-real.md run, and print what the page shows."""

import contextlib
import io
import pathlib
import re

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from pnoise_jax import studies

with contextlib.suppress(ImportError):
    import timm  # noqa: F401  # early: after much use of JAX, importing Triton crashes

pytestmark = pytest.mark.long

PAGE = (pathlib.Path(__file__).parents[3] / "docs" / "is-my-number-real.md").read_text()
SECTIONS = dict(re.findall(r"^##+ ([^\n]*)\n(.*?)(?=^##|\Z)", PAGE, re.M | re.S))
CODE, SHOWN = (
    {
        heading: blocks[0]
        for heading, section in SECTIONS.items()
        if (blocks := re.findall(f"```{language}\n(.*?)```", section, re.S))
    }
    for language in ("python", "text")
)
TIMM, PREAMBLE = "A timm model on a folder of images", "The examples"
NUMBER = r"[-+\N{MINUS SIGN}]?\d+(?:\.\d+)?"

# the kinds of each verdict that they print
KINDS = {
    "Batch norm in training mode": [
        ("order_effect", "honest_gain"),
        ("leak", "order_effect", "honest_gain"),
    ],
    "A representation shared by the batch": [("leak", "harm")],
    "Attention over the wrong axis": [("leak", "harm"), ("independent", "no_effect")],
    "Results that move with the batch size": [("undecided", "harm")],
    "A metric averaged over batches": [("independent", "no_effect")],
    "Noise that mixes examples": [("leak", "harm"), ("independent", "no_effect")],
    "A gain that is real, and a gain from the order of files": [
        ("honest_gain", "independent"),
        ("order_effect", "harm"),
    ],
}


def printed_by(*blocks: str) -> str:
    """What the blocks print, run one after another in one namespace."""
    namespace, printed = {}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        for code in blocks:
            exec(compile(code, "is-my-number-real.md", "exec"), namespace)
    return printed.getvalue()


def as_pattern(shown: str) -> str:
    """A regular expression of printed text: numbers are groups, and "…" stands for anything."""
    pieces = re.split(f"(…|{NUMBER})", " ".join(shown.split()))
    kinds = {"…": ".*?"} | {piece: f"({NUMBER})" for piece in pieces if re.fullmatch(NUMBER, piece)}
    return "".join(kinds.get(piece, re.escape(piece)) for piece in pieces)


def as_number(text: str) -> float:
    return float(text.replace("\N{MINUS SIGN}", "-"))


def test_every_example_is_known():
    assert CODE.keys() == {TIMM, PREAMBLE, *KINDS}
    assert SHOWN.keys() == {"What to give", *KINDS}


@pytest.mark.parametrize("heading", KINDS)
def test_examples_print_what_the_page_shows(heading):
    printed = " ".join(printed_by(CODE[PREAMBLE], CODE[heading]).split())
    printed_kinds = [
        tuple(re.findall(r"'(\w+)'", line)) for line in re.findall(r"\('\w+',.*?\)", printed)
    ]
    assert printed_kinds == KINDS[heading]
    match = re.fullmatch(as_pattern(SHOWN[heading]), printed)
    assert match, f"the page shows other words than were printed: {printed}"
    shown = [as_number(text) for text in re.findall(NUMBER, SHOWN[heading])]
    np.testing.assert_allclose(
        [as_number(text) for text in match.groups()], shown, rtol=0.1, atol=3, err_msg=printed
    )


def test_the_table_of_kinds_is_complete():
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", PAGE, re.M)
    assert rows == list(studies.KINDS.items())


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """A small ViT of timm, trained on digits, and a directory with images/val: 12 of each class."""
    torch, timm = pytest.importorskip("torch"), pytest.importorskip("timm")
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        pytest.skip(f"torchvision is built for another PyTorch: {error}")
    pixels, labels = load_digits(return_X_y=True)
    images = (pixels.reshape(-1, 8, 8) * 15.9).astype(np.uint8).repeat(4, 1).repeat(4, 2)
    directory = tmp_path_factory.mktemp("timm")
    val = np.concatenate([np.flatnonzero(labels == c)[:12] for c in range(10)])
    for i in val:
        folder = directory / "images" / "val" / str(labels[i])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[i]).convert("RGB").save(folder / f"{i}.png")

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small layers: more threads only wait for one another
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=10, img_size=32, patch_size=8, depth=2)
    model.pretrained_cfg["input_size"] = (3, 32, 32)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    train = np.setdiff1d(np.arange(len(labels)), val)
    x = torch.stack([transform(Image.fromarray(images[i]).convert("RGB")) for i in train])
    y = torch.from_numpy(labels[train])
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    for _ in range(400):
        rows = torch.randint(len(x), (32,))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
    yield model, directory
    torch.set_num_threads(threads)


def audited(vit, monkeypatch) -> str:
    """What the page's example prints for this model instead of the one that it loads."""
    import timm

    model, directory = vit
    monkeypatch.chdir(directory)
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: model)
    return printed_by(CODE[TIMM])


def test_a_timm_model_is_independent(vit, monkeypatch):
    printed = audited(vit, monkeypatch)
    assert "'independent'" in printed
    assert "nothing leaked" in printed


def test_a_timm_model_that_mixes_examples_leaks(vit, monkeypatch):
    def mix(block, inputs):
        (tokens,) = inputs
        return (tokens + tokens.sum(dim=0)) / (len(tokens) + 1)

    hook = vit[0].blocks[-1].register_forward_pre_hook(mix)
    try:
        printed = audited(vit, monkeypatch)
    finally:
        hook.remove()
    assert printed.startswith("('leak'"), printed
