"""Recognises pickles, which are never loaded."""

from pathlib import Path

_ADVICE = (
    "is a pickle, as torch.save writes it: loading it runs any code in it, so it is not loaded. "
    "If you trust it, convert it once with PyTorch:\n"
    "  import torch, safetensors.torch\n"
    "  state = torch.load({path!r}, weights_only=True, map_location='cpu')\n"
    "  safetensors.torch.save_file({{k: v.contiguous() for k, v in state.items()}}, {out!r})\n"
    "(if the state dict is nested, use state['model'] or state['state_dict']; "
    "for TorchScript, torch.jit.load({path!r}).state_dict())"
)


def is_pickle(path: Path, start: bytes) -> bool:
    """Whether a file is a pickle.

    Protocols 2 to 5, which PyTorch before 1.6 used, have a magic number. Protocols 0 and 1 do not;
    they are recognised by their first opcode and the final ".".
    """
    if start[:1] == b"\x80":
        return start[1:2] in (b"\2", b"\3", b"\4", b"\5")
    if start[:1] not in (b"(", b"c", b"]", b"}"):
        return False
    with path.open("rb") as stream:
        stream.seek(-1, 2)
        return stream.read() == b"."


def refusal(path: Path) -> str:
    """Why a pickle is not loaded, and how to convert it."""
    return _ADVICE.format(path=str(path), out=f"{path.stem}.safetensors")
