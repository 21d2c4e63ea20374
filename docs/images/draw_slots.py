"""Draw `slots.svg`: which of a layer's input directions the A of each task has, in seeded slots and beside inputs."""

from pathlib import Path

WIDTH, HEIGHT = 640, 284
LEFT, SPAN, BAR = 120, 500, 22  # of the bar that stands for all directions
TAKEN, A_COLOR = "#c9d3de", "#0b3866"
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#222}.title{font-weight:600;font-size:13px}.white{fill:#fff}"
    ".all{fill:#fff;stroke:#444}"
)
# Of each task: where its A is, and how far what earlier tasks' inputs take reaches; in shares of the bar.
SEEDED = ((0.0, 0.0), (0.14, 0.0), (0.28, 0.0))
BESIDE = ((0.1, 0.0), (0.5, 0.42), (0.68, 0.58))
WIDE = 0.14


def main() -> None:
    """Draw it beside this script."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'aria-label="Directions that tasks in slots have">',
        f'<style>{STYLE}</style><rect width="100%" height="100%" fill="#fff"/>',
        *_group(20, "Seeded: A's rows are orthogonal to one another, and read all tasks' inputs.", SEEDED),
        *_group(154, "Beside inputs: A's rows are orthogonal to what earlier tasks' inputs are (grey).", BESIDE),
    ]
    Path(__file__).with_name("slots.svg").write_text("".join([*parts, "</svg>\n"]))


def _group(top: int, title: str, tasks: tuple[tuple[float, float], ...]) -> list[str]:
    rows = [_task(top + 14 + 34 * number, number, *task) for number, task in enumerate(tasks)]
    return [_text(14, top, title, "title"), *rows]


def _task(top: int, number: int, start: float, taken: float) -> str:
    """A bar of all directions of the inputs, with those that are taken and those of A."""
    bar = f'<rect class="all" x="{LEFT}" y="{top}" width="{SPAN}" height="{BAR}"/>'
    grey = f'<rect x="{LEFT}" y="{top}" width="{SPAN * taken:g}" height="{BAR}" fill="{TAKEN}"/>' if taken else ""
    x = LEFT + SPAN * start
    own = f'<rect x="{x:g}" y="{top}" width="{SPAN * WIDE:g}" height="{BAR}" fill="{A_COLOR}"/>'
    label = _text(14, top + 15, f"task {number}, slot {number}")
    return label + bar + grey + own + _text(round(x) + 8, top + 15, "A", "white")


def _text(x: int, y: int, text: str, style: str = "") -> str:
    return f'<text x="{x}" y="{y}" class="{style}">{text}</text>'


if __name__ == "__main__":
    main()
