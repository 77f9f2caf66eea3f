"""A plot as a part of a page: an SVG that has the page's letters and follows its light or dark colours."""

import re

COLOURS = {"#000000": "currentColor", "#ffffff": "var(--paper)", "#dddddd": "var(--line)"}
LEFT_OUT = re.compile(r"<metadata>.*?</metadata>|<style .*?</style>", re.S)
TAG = re.compile(r"<[^>]*>")
ID = re.compile(r' id="([^"]*)"')
REFERENCE = re.compile(r'(url\(#|xlink:href="#)([^)"]*)')
COLOUR = re.compile(r"(?<=: )#\w{6}")
FONT = re.compile(r"(font-family: [^;\"]*)")


def inline(svg: str, prefix: str, escaped: str) -> str:
    """Return matplotlib's SVG file as an element; `escaped` is its text for those who do not see it.

    Ids that something refers to begin with `prefix`, which no other plot of the page has; the others go.
    """
    used = {found[2] for found in REFERENCE.finditer(svg)}

    def changed(tag: re.Match[str]) -> str:
        text = ID.sub(lambda found: f' id="{prefix}{found[1]}"' if found[1] in used else "", tag[0])
        text = REFERENCE.sub(rf"\g<1>{prefix}\g<2>", text)
        text = COLOUR.sub(lambda found: COLOURS.get(found[0], found[0]), text)
        return FONT.sub(r"\1, Verdana, var(--font)", text)  # Verdana is as wide as DejaVu Sans

    drawn = TAG.sub(changed, LEFT_OUT.sub("", svg[svg.index("<svg ") :]))
    return drawn.replace("<svg ", f'<svg role="img" aria-label="{escaped}" ', 1)
