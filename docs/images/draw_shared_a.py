"""Draw `shared_a.svg`: one backbone and one A, read once, and the B's of many adapters."""

from pathlib import Path

WIDTH, HEIGHT, ROW = 640, 262, 42
REVIEWS, NEWS = "#0b3866", "#b3541e"
ROWS = (("B of reviews", REVIEWS), ("B of news", NEWS), ("B of reviews", REVIEWS), ("none", ""))
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#222}.title{font-weight:600;font-size:13px}.white{fill:#fff}"
    ".box{fill:#f2f4f7;stroke:#444}.line{stroke:#444;fill:none;marker-end:url(#head)}"
)
HEAD = (
    '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0L8 4L0 8z" fill="#444"/></marker></defs>'
)


def main() -> None:
    """Draw it beside this script."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'aria-label="What many adapters share">',
        f'<style>{STYLE}</style>{HEAD}<rect width="100%" height="100%" fill="#fff"/>',
        _text(14, 20, "W and A are frozen and shared by all; each adapter has its B and its head.", "title"),
        _box(150, 38, 160, 44, "W x", "once for the batch"),
        _box(150, 144, 160, 44, "h = A x", "once, r numbers a token"),
        *(_row(90 + ROW * number, f"row {number + 1}", *row) for number, row in enumerate(ROWS)),
        '<path class="line" d="M312 60H536V84"/>',
        _text(494, 248, "y = W x + s B h"),
    ]
    Path(__file__).with_name("shared_a.svg").write_text("".join([*parts, "</svg>\n"]))


def _row(top: int, label: str, adapter: str, color: str) -> str:
    """One row of the batch: its inputs at the left, the B that it has and what comes out at the right."""
    middle = top + 15
    left = f'<rect class="box" x="14" y="{top}" width="74" height="30" rx="4"/>{_text(24, middle + 4, label)}'
    to_factors = f'<path class="line" d="M90 {middle}L146 60"/><path class="line" d="M90 {middle}L146 166"/>'
    right = f'<rect class="box" x="500" y="{top}" width="74" height="30" rx="4"/>{_text(510, middle + 4, "output")}'
    if not color:
        return left + to_factors + _text(372, middle + 4, adapter) + right
    shape = f'<rect x="362" y="{top}" width="110" height="30" rx="4" fill="{color}"/>'
    lines = f'<path class="line" d="M312 166L358 {middle}"/><path class="line" d="M474 {middle}H496"/>'
    return left + to_factors + shape + _text(372, middle + 4, adapter, "white") + lines + right


def _box(x: int, y: int, width: int, height: int, name: str, note: str) -> str:
    frame = f'<rect class="box" x="{x}" y="{y}" width="{width}" height="{height}" rx="4"/>'
    return frame + _text(x + 10, y + 18, name, "title") + _text(x + 10, y + 35, note)


def _text(x: int, y: int, text: str, style: str = "") -> str:
    return f'<text x="{x}" y="{y}" class="{style}">{text}</text>'


if __name__ == "__main__":
    main()
