"""The pictures of figures as SVG: panels of bars and of lines, one below the other.

Used by `benches/chart` and `benches/history`.
"""

import math
from html import escape

WIDTH, LABEL, BAR, ROW, TOP = 860, 190, 520, 24, 46
STYLE = ("text{font:13px sans-serif;fill:#222}.title{font-weight:bold}.note{fill:#666}"
         ".ours{fill:#0b7285}.theirs{fill:#adb5bd}.floor{fill:#e9c46a}"
         ".line{fill:none;stroke:#0b7285;stroke-width:2}.dot{fill:#0b7285}.worse{fill:#c92a2a}"
         ".spread{stroke:#99ced3;stroke-width:6}.small{font-size:11px;fill:#666}")
# Of a panel of lines.
LINE_HEIGHT, LINE_LEFT, LINE_RIGHT = 64, 60, 700
# The share of a figure that a panel is high at least: less is not to look like a change.
LINE_LEAST = 0.1


def bars(title, values, form, logarithmic, top):
    """A bar for each value by name, and where the next panel begins."""
    ordered = sorted((value, name) for name, value in values.items() if value > 0)
    if not ordered:
        return [], top
    low, high = ordered[0][0], ordered[-1][0]
    share = (lambda v: 0.06 + 0.94 * math.log(v / low) / (math.log(high / low) or 1)) \
        if logarithmic else (lambda v: v / high)
    parts = [f'<text class="title" x="12" y="{top + 18}">{escape(title)}</text>']
    for row, (value, name) in enumerate(ordered):
        y = top + 30 + row * ROW
        kind = "ours" if name == "wirewheel" else "floor" if name == "floor" else "theirs"
        length = max(BAR * share(value), 2)
        parts.append(f'<text x="{LABEL - 8}" y="{y + 15}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect class="{kind}" x="{LABEL}" y="{y + 2}" width="{length:.1f}" '
                     f'height="{ROW - 6}" rx="2"/>')
        parts.append(f'<text x="{LABEL + length + 6:.1f}" y="{y + 15}">{form.format(value)}</text>')
    return parts, top + 30 + len(ordered) * ROW + 18


def line(title, points, form, top):
    """A line through points, each with its place (0 to 1), value, quartiles or none, and whether it is worse than it
    should be; and where the next panel begins."""
    every = [value for _, value, spread, _ in points for value in (value, *(spread or ()))]
    low, high = min(every), max(every)
    room = max(high - low, high * LINE_LEAST) or 1
    x = lambda place: LINE_LEFT + place * (LINE_RIGHT - LINE_LEFT)
    y = lambda value: top + 28 + (LINE_HEIGHT - 8) * (high - value) / room
    parts = [f'<text class="title" x="12" y="{top + 16}">{escape(title)}</text>']
    parts += [f'<line class="spread" x1="{x(place):.1f}" x2="{x(place):.1f}" y1="{y(spread[0]):.1f}" '
              f'y2="{y(spread[1]):.1f}"/>' for place, _, spread, _ in points if spread]
    path = " ".join(f"{x(place):.1f},{y(value):.1f}" for place, value, _, _ in points)
    parts.append(f'<polyline class="line" points="{path}"/>')
    for place, value, _, worse in points:
        kind = "dot worse" if worse else "dot"
        parts.append(f'<circle class="{kind}" cx="{x(place):.1f}" cy="{y(value):.1f}" r="3.5"/>')
    parts.append(f'<text class="small" x="{LINE_LEFT - 8}" y="{y(high) + 4:.1f}" text-anchor="end">'
                 f'{form.format(high)}</text>')
    if high - low > room / 4:
        parts.append(f'<text class="small" x="{LINE_LEFT - 8}" y="{y(low) + 4:.1f}" text-anchor="end">'
                     f'{form.format(low)}</text>')
    place, value, *_ = points[-1]
    parts.append(f'<text x="{x(place) + 10:.1f}" y="{y(value) + 4:.1f}">{form.format(value)}</text>')
    return parts, top + 28 + LINE_HEIGHT + 16


def document(note, label, parts, height):
    """The picture with a note at its top."""
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
            f'aria-label="{escape(label)}">\n<style>{STYLE}</style>\n'
            f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>\n'
            f'<text class="note" x="12" y="24">{escape(note)}</text>\n' + "\n".join(parts) + "\n</svg>\n")
