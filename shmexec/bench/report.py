"""The figures as a table, as JSON and as plots."""

import importlib.util
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from shmexec.bench.peers import PEERS
from shmexec.bench.workloads import FRESH, RATIOS, WORKLOADS

_PLOTTED = ("array-in", "array-out", "in-and-out", "nested", "pandas")


def progress(workload: str, size: int) -> None:
    """One line to standard error."""
    print(f"measured {case_text(workload, size)}", file=sys.stderr, flush=True)


def case_text(workload: str, size: int) -> str:
    """The name of a line."""
    return f"{workload} {bytes_text(size)}" if size else workload


def collect(
    figures: dict[tuple[str, int, str], list[float]], notes: list[str], peers: list[str], workers: int
) -> dict[str, Any]:
    """What goes into the JSON: the machine, the runs, and each figure with its spread."""
    order = [*WORKLOADS, *FRESH]
    return {
        "machine": {
            "system": platform.system(),
            "kernel": platform.release(),
            "architecture": platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "python": platform.python_version(),
            "numpy": np.__version__,
            "copy_bytes_per_second": copy_speed(),
        },
        "workers": workers,
        "peers": {name: PEERS[name].how for name in peers},
        "notes": notes,
        "figures": [
            {
                "workload": workload,
                "size": size,
                "peer": peer,
                "median": statistics.median(values),
                "least": min(values),
                "most": max(values),
                "runs": len(values),
            }
            for (workload, size, peer), values in sorted(
                figures.items(), key=lambda item: (order.index(item[0][0]), item[0][1])
            )
        ],
    }


def copy_speed() -> float:
    """Bytes per second of `np.copyto` between warm arrays of 64 MiB: what no copy is faster than."""
    source = np.ones(8 << 20)
    target = np.ones(8 << 20)
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        np.copyto(target, source)
        times.append(time.perf_counter() - begun)
    return source.nbytes / min(times)


def table(measured: dict[str, Any]) -> str:
    """Medians, one column for each peer; the fastest of a line has a star."""
    peers = list(measured["peers"])
    found = {(f["workload"], f["size"], f["peer"]): f for f in measured["figures"]}
    shown = {f["workload"] for f in measured["figures"]}
    rows = [["", *peers]]
    for workload, size in dict.fromkeys((f["workload"], f["size"]) for f in measured["figures"]):
        medians = [found.get((workload, size, peer), {}).get("median") for peer in peers]
        least = min(value for value in medians if value is not None)
        name = case_text(workload, size)
        cells = ["-" if value is None else _text(workload, value) + "*" * (value == least) for value in medians]
        rows.append([name, *cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    machine = measured["machine"]
    lines = [
        f"{machine['cores']} cores, {measured['workers']} workers, {machine['system']} {machine['kernel']} "
        f"{machine['architecture']}, Python {machine['python']}, NumPy {machine['numpy']}; "
        f"one copy in memory: {machine['copy_bytes_per_second'] / 1e9:.1f} GB/s",
        f"medians of {_runs(measured)}, the peers in turn; * the least of a line; "
        f"from least to most {_spread(measured):.2f} of the median, as a median",
        "",
        *("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows),
        "",
        *(f"{name}: {title}" for name, title in _titles().items() if name in shown),
        "",
        *(f"{peer}: {how}" for peer, how in measured["peers"].items()),
        *measured["notes"],
    ]
    return "\n".join(lines)


def _runs(measured: dict[str, Any]) -> str:
    runs = sorted({f["runs"] for f in measured["figures"]}) or [0]
    if runs[-1] == 1:
        return "1 run"
    return f"{runs[0]} runs" if len(runs) == 1 else f"{runs[0]} to {runs[-1]} runs"


def _spread(measured: dict[str, Any]) -> float:
    spreads = [(f["most"] - f["least"]) / f["median"] for f in measured["figures"] if f["median"] > 0]
    return statistics.median(spreads) if spreads else 0.0


def _text(workload: str, value: float) -> str:
    if workload in RATIOS:
        return f"{value:.2f}"
    for unit, scale in ("s", 1.0), ("ms", 1e-3), ("us", 1e-6):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"


def bytes_text(size: int) -> str:
    """1 KiB, 64 MiB."""
    for unit, scale in ("GiB", 30), ("MiB", 20), ("KiB", 10):
        if size >= 1 << scale:
            return f"{size / (1 << scale):g} {unit}"
    return f"{size} B"


def plots(measured: dict[str, Any], folder: Path) -> list[str]:
    """Time against size, PNG and SVG, one file for each workload with sizes. What was done, in lines."""
    if importlib.util.find_spec("matplotlib") is None:
        return ['no plots: pip install "shmexec[bench]"']
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    made = []
    for workload in _PLOTTED:
        figures = [f for f in measured["figures"] if f["workload"] == workload]
        sizes = sorted({f["size"] for f in figures})
        if len(sizes) < 2:
            continue
        figure, axes = pyplot.subplots(figsize=(7, 5))
        for at, peer in enumerate(measured["peers"]):
            points = sorted((f["size"], f["median"]) for f in figures if f["peer"] == peer)
            if points:
                ours = peer.startswith("shmexec")
                axes.loglog(
                    *zip(*points, strict=True),
                    color=f"C{at}",  # a peer's in every plot; there are ten
                    marker="os"[at // 10],
                    markersize=4,
                    label=peer,
                    linewidth=2.5 if ours else 1,
                )
        floor = [size / measured["machine"]["copy_bytes_per_second"] for size in sizes]
        axes.loglog(sizes, floor, "k--", linewidth=1, label="one copy in memory")
        axes.set(xlabel="bytes", ylabel="seconds for a call", title=WORKLOADS[workload].title)
        axes.grid(visible=True, which="major", alpha=0.3)
        axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1))  # on no line
        for kind in "png", "svg":
            path = folder / f"{workload}.{kind}"
            figure.savefig(path, dpi=120, bbox_inches="tight")
            made.append(f"wrote {path}")
        pyplot.close(figure)
    return made


def _titles() -> dict[str, str]:
    return {**{name: workload.title for name, workload in WORKLOADS.items()}, **FRESH}
