"""A progress bar with images per second and the time left; only notes if not at a terminal."""

from pathlib import Path
from types import TracebackType

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.text import Text

from pnoise_jax.terminal import create_console, printable


class Progress:
    """A progress bar that appears at `scanning` and disappears when it is closed."""

    def __init__(self):
        console = create_console(stderr=True)
        self._bar = RichProgress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            _ImagesPerSecond(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None, visible=False)

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def scanning(self, manual_dir: Path) -> None:
        """Shows that files are being listed, without their unknown total."""
        self._bar.update(
            self._task, description=f"listing {printable(str(manual_dir))}", visible=True
        )

    def writing(self, total: int, *, done: int) -> None:
        """Shows that images are being written, of which an earlier run has written `done`."""
        self._bar.reset(self._task, description="images", total=total, completed=done)

    def say(self, text: str) -> None:
        """Prints a line above the bar, on stderr."""
        self._bar.console.print(text, soft_wrap=True)

    def advance(self) -> None:
        """Counts one more image."""
        self._bar.advance(self._task)


class _ImagesPerSecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.0f}/s")
