"""python -m tools.bench.coverage [PAGES]   how often the 95 % intervals of eval hold the truth, by design.

Each line is PAGES pages (2,000 unless given) with a seed of their own, whose truth is known. It names what is
measured and the design (clusters have 1 to 60 rows each). Then it prints how often the interval of the figure
and that of the difference between two models hold the truth, how often the page warns that they may be too
narrow, and on how many pages p and interval contradict each other. A line under 93 % of whose pages most do
not warn ends in `TOO NARROW`, and the command then exits with 1. With fewer than 2,000 pages the limit is
three standard errors lower, so that chance alone fails no design.

Run it after a change of eval/statistics.
"""

import sys

from testing.interval_designs import ALL_PAGES, designs, line


def main() -> None:
    """Print a line for each design; exit with 1 if an interval is too narrow and nothing warns of it."""
    pages = int(sys.argv[1]) if sys.argv[1:] else ALL_PAGES
    print("of | design | figure holds the truth | difference holds the truth | warned | contradictions")
    narrow = False
    for seed, (name, draw) in enumerate(designs().items()):
        cells, bad = line(draw, pages, seed)
        narrow = narrow or bad
        print(f"{name} | {cells}", flush=True)
    sys.exit(int(narrow))


if __name__ == "__main__":
    main()
