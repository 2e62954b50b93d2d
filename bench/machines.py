"""When to leave one machine: ``python -m bench.machines`` measures two networks, and prints the rest by arithmetic.

``--doc FILE`` writes both between the marks of docs/many_machines.md. What is computed there is computed from the
numbers as they are printed, so that a reader, and a test, can compute it again.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import nn

from kit.errors import KitError
from kit.machine.about import about_here
from kit.scheduling.links import LINKS, Branch, by_request
from kit.scheduling.many_machines import Job, plans
from kit.text import markdown_table, times
from kit.workloads import branch_costs, networks

NETWORKS: Mapping[str, Callable[[None], tuple[nn.Module, object]]] = {
    "two-stream": networks.two_stream,
    "inception-v3": networks.inception_v3,
}
RATES = (1, 10, 100, 1_000, 10_000)  # requests per second
SLOWER = 2  # a request may take so many times as long as on one free machine, on average
NETWORK = "10 Gbit/s"  # the link of the plans
MEASURED, COMPUTED = "measured", "computed"
_HEAD = ("network", "region", "branch", "ms", "bytes of inputs", "bytes of outputs")


def rounded(job: Job) -> Job:
    """A job with its times as they are printed: microseconds."""

    def of(branch: Branch) -> Branch:
        return branch._replace(work=round(branch.work, 6))

    return Job(of(job.whole), tuple(tuple(map(of, region)) for region in job.regions))


def costs_table(jobs: Mapping[str, Job]) -> str:
    """What was measured: the whole request, and each branch of each region."""
    rows = []
    for name, job in jobs.items():
        rows.append((name, "-", "whole", *_cells(job.whole)))
        for r, region in enumerate(job.regions, 1):
            rows += [(name, str(r), str(b), *_cells(branch)) for b, branch in enumerate(region, 1)]
    return markdown_table(_HEAD, "lllrrr", rows)


def read_costs(table: str) -> dict[str, Job]:
    """The jobs of a table of :func:`costs_table`."""
    whole: dict[str, Branch] = {}
    regions: dict[str, dict[str, list[Branch]]] = {}
    for line in table.splitlines()[2:]:
        name, region, branch, *numbers = (cell.strip() for cell in line.strip("|").split("|"))
        ms, sent, received = (float(each.replace(",", "")) for each in numbers)
        cost = Branch(round(ms / 1e3, 6), int(sent), int(received))
        if branch == "whole":
            whole[name] = cost
        else:
            regions.setdefault(name, {}).setdefault(region, []).append(cost)
    return {name: Job(cost, tuple(map(tuple, regions.get(name, {}).values()))) for name, cost in whole.items()}


def _cells(branch: Branch) -> tuple[str, str, str]:
    return f"{1e3 * branch.work:,.3f}", f"{branch.sent:,}", f"{branch.received:,}"


def links_table(jobs: Mapping[str, Job]) -> str:
    """By arithmetic: one request with a machine for each branch, and many requests on two machines, for each link."""
    rows = []
    for name, job in jobs.items():
        others = [branch for region in job.regions for branch in region[1:]]
        for link_name, link in LINKS.items():
            pay = sum(each.work > link.break_even(each.sent, each.received) for each in others)
            gain = job.whole.work / job.over(link)
            many = by_request(link, job.whole, 2) * job.whole.work
            rows.append((name, link_name, f"{pay} of {len(others)}", f"{times(gain)}x", f"{times(many)}x"))
    head = ("network", "link", "branches that pay", "one request, a branch each", "many requests, 2 machines")
    return markdown_table(head, "llrrr", rows)


def regions_bound(job: Job) -> float:
    """The gain of one request if links cost nothing."""
    return job.whole.work / (max(0.0, job.outside) + sum(max(each.work for each in region) for region in job.regions))


def plans_table(jobs: Mapping[str, Job]) -> str:
    """By arithmetic: the fewest machines of each arrangement, by requests per second."""
    link, rows = LINKS[NETWORK], []
    for name, job in jobs.items():
        for rate in RATES:
            found = plans(job, link, rate, SLOWER * job.whole.work)
            cells = [f"{each.machines:,}" if each.machines else each.why_not for each in found]
            rows.append((name, f"{rate:,}", *cells))
    head = ("network", "requests/s", *(each.name for each in found))
    return markdown_table(head, "lrrrrr", rows)


def computed(jobs: Mapping[str, Job]) -> str:
    """All that is arithmetic."""
    bounds = "\n".join(
        f"- {name}: {times(regions_bound(job))}x at most, with links that cost nothing." for name, job in jobs.items()
    )
    return (
        f"One request, a machine for each branch, against one machine:\n\n{bounds}\n\n{links_table(jobs)}\n\n"
        f"The fewest machines on a link of {NETWORK}, if a request may take {SLOWER} times as long as on one free "
        f"machine, on average:\n\n{plans_table(jobs)}"
    )


def measured() -> dict[str, Job]:
    """The networks, as this machine runs them."""
    return {name: rounded(branch_costs.job(*make(None), calls=15)) for name, make in NETWORKS.items()}


def with_blocks(text: str, blocks: Mapping[str, str]) -> str:
    """A page with new text between its marks ``<!-- name -->`` and ``<!-- end of name -->``.

    Raises:
        KitError: the page has no such marks.
    """
    for name, block in blocks.items():
        text, count = re.subn(
            rf"(<!-- {name} -->\n).*?(\n<!-- end of {name} -->)",
            lambda found, block=block: f"{found[1]}\n{block}\n{found[2]}",  # type: ignore[misc]
            text,
            flags=re.DOTALL,
        )
        if not count:
            raise KitError(f"the page has no marks <!-- {name} --> and <!-- end of {name} -->.")
    return text


def block(text: str, name: str) -> str:
    """What stands between the marks of a page."""
    found = re.search(rf"<!-- {name} -->\n(.*?)\n<!-- end of {name} -->", text, flags=re.DOTALL)
    if found is None:
        raise KitError(f"the page has no marks <!-- {name} --> and <!-- end of {name} -->.")
    return found[1].strip()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print or write."""
    parser = argparse.ArgumentParser(prog="python -m bench.machines", description=__doc__)
    parser.add_argument("--doc", type=Path, metavar="FILE", help="write into this page, between its marks")
    options = parser.parse_args(arguments)
    jobs = measured()
    origin = f"{about_here()}."
    blocks = {"origin": origin, MEASURED: costs_table(jobs), COMPUTED: computed(jobs)}
    if options.doc:
        options.doc.write_text(with_blocks(options.doc.read_text(encoding="utf-8"), blocks), encoding="utf-8")
        print(f"wrote {options.doc}")
    else:
        print("\n\n".join(blocks.values()))


if __name__ == "__main__":
    main()
