"""Notebook 06: its quizzes and their answers, and its sentences and tables."""

from __future__ import annotations

import math
from collections.abc import Mapping

from kit.labs import conclusions
from kit.labs.conclusions import decided, in_a_cell, row_of, streams_ran
from kit.labs.devices.failures import Outcome
from kit.labs.devices.hosts import Over
from kit.labs.measured import call_ms, overlap
from kit.measuring.comparison import Comparison
from kit.scheduling.links import LINKS, by_request
from kit.scheduling.many_machines import Job
from kit.text import counted, markdown_table, time_text, times
from kit.views.quiz import How, Quiz
from kit.workloads.two_hosts import BY_BRANCH, BY_REQUEST, ONE, REQUESTS, SIZES

IMAGE = 4 * 3 * 224 * 224  # bytes of a float32 image
TWICE = "cpu_and_cpu"
STREAMS = ["at the same time", "one after the other"]
QUIZZES = {
    "parallel": ("nn.DataParallel(model) on this machine: in a call, the two streams run ...", STREAMS),
    "places": ("A stream on each of two devices, and both devices are the CPU. The two streams run ...", STREAMS),
    "ranks": (
        "Two ranks on this machine, a stream on each, against one stream after the other with each operator on all "
        "cores. The ranks are ...",
        ["faster", "slower", "no difference found"],
    ),
    "copy": (
        "A float32 image of 3 x 224 x 224 goes to another host over a link of 1 Gbit/s. One way takes about ...",
        ["0.05 ms", "0.5 ms", "5 ms", "50 ms"],
    ),
    "scatter": (
        f"{REQUESTS} images for a GoogLeNet, two hosts. Either each image is computed by both hosts, which divide its "
        "branches (by branch), or each host gets whole images (by request). Which carries fewer bytes for an image?",
        ["by branch", "by request", "both the same (within 10%)"],
    ),
    "killed": (
        "A rank is killed during a call. The call ...",
        ["waits forever", "gives the results of the others", "raises an error in time"],
    ),
}


def quiz(name: str) -> Quiz:
    """A quiz of the notebook; its answer is given by ``<name>_answer``."""
    return conclusions.quiz(QUIZZES, name)


def how(over: Over) -> How:
    """Whether what is told of two hosts was measured, or simulated by a declared network."""
    return "measured" if over.real else "simulated"


# What the quizzes reveal ----------------------------------------------------------------------------------------------


def parallel_answer(comparison: Comparison) -> str:
    """How the streams ran in nn.DataParallel."""
    return streams_ran(comparison, "replicated", STREAMS)


def places_answer(comparison: Comparison) -> str:
    """How the streams ran on two devices that are both the CPU."""
    return streams_ran(comparison, TWICE, STREAMS)


def ranks_answer(comparison: Comparison) -> str:
    """The verdict on ranks, or why there is none."""
    return decided(comparison, "ranks")


def copy_answer(over: Over) -> str:
    """The option that comes closest to what the image took, on a scale of factors."""
    took = 1e3 * dict(over.found.copies)[IMAGE]
    return min(QUIZZES["copy"][1], key=lambda option: abs(math.log(float(option.split()[0]) / took)))


def scatter_answer(over: Over) -> str:
    """Which way carried fewer bytes for an image."""
    branch, request, same = QUIZZES["scatter"][1]
    ratio = over.found.carried[BY_BRANCH] / over.found.carried[BY_REQUEST]
    return same if 1 / 1.1 <= ratio <= 1.1 else request if ratio > 1 else branch


def by_request_is(scatter: Comparison) -> str:
    """``faster``, ``slower`` or ``no difference found``, than by branch; or why that is not known.

    Each is compared with one host first: two ways with different verdicts there are in that order. Only else they are
    compared directly, where the bound of what cores can gain is not made for a baseline that waits for a network.
    """
    order = ("slower", "no difference found", "faster")
    request, branch = decided(scatter, BY_REQUEST), decided(scatter, BY_BRANCH)
    if request in order and branch in order and request != branch:
        return "faster" if order.index(request) > order.index(branch) else "slower"
    for said in (request, branch):
        if said not in order:
            return said
    return decided(scatter, BY_REQUEST, BY_BRANCH)


def killed_answer(failure: Outcome) -> str:
    """How the call with the killed rank ended."""
    forever, others, error = QUIZZES["killed"][1]
    if not failure.error:
        return others
    return error if failure.seconds <= failure.timeout else forever


# Sentences and tables, in Markdown ------------------------------------------------------------------------------------


def about_parallel(comparison: Comparison) -> str:
    """What nn.DataParallel did with the streams."""
    said = parallel_answer(comparison)
    shares = _overlaps(comparison)
    if said == STREAMS[1]:
        return (
            f"{shares}**In nn.DataParallel the streams ran one after the other: its call is the call of the model.** "
            "It copies a model to several GPUs and splits the batch among them; it never splits a model into its "
            "branches. Without several GPUs there is nothing to copy to, and it calls the model."
        )
    if said == STREAMS[0]:
        return f"{shares}**In nn.DataParallel the streams ran at the same time**: look at its lanes."
    return f"{shares}What nn.DataParallel does is {in_a_cell(said)}."


def about_places(comparison: Comparison) -> str:
    """What a device for each stream did, if there are two, and what one device under two names did."""
    said, devices = places_answer(comparison), decided(comparison, "devices")
    lines = [_overlaps(comparison)]
    if said == STREAMS[1]:
        lines.append(
            f"**`{TWICE}`: the streams ran one after the other.** A device is a place where weights and inputs are. "
            "One CPU under two names is one place: nothing is copied, and the calling thread computes one stream, then "
            "the other."
        )
    elif said == STREAMS[0]:
        lines.append(f"**`{TWICE}`: the streams ran at the same time**: look at its lanes.")
    else:
        lines.append(f"What `{TWICE}` does is {in_a_cell(said)}.")
    if devices.startswith("not "):
        lines.append(f"`devices`, a real device for each stream, is {in_a_cell(devices)}")
    else:
        lines.append(f"`devices`, a real device for each stream: **{in_a_cell(devices)}**.")
    return "\n\n".join(filter(None, lines))


def about_over(over: Over) -> str:
    """Whether there was a network, and what one call over it consisted of."""
    trace = over.found.call
    took = {
        kind: sum(each.duration_ns for each in trace.events() if each.category == kind) for kind in ("task", "transfer")
    }
    call = (
        f"In this call the streams computed for {time_text(took['task'])}, both together, and the hand-overs took "
        f"{time_text(took['transfer'])}, on both hosts together."
    )
    if over.real:
        return f"Two hosts, each with an address of its own: two network namespaces of this machine. {call}"
    return (
        f"**The network is declared, not real**: {in_a_cell(over.why_not)} So the second host is a thread, and each "
        f"hand-over sleeps as long as a link of {over.link} would take. {call}"
    )


def about_copies(over: Over, here: Mapping[str, Mapping[int, float]]) -> str:
    """What a copy costs by its size: here, over the network, and by the formula."""
    link, whose = LINKS["1 Gbit/s"], "to the other host" if over.real else "over the declared network (simulated)"
    sent = dict(over.found.copies)
    rows = [
        (
            f"{each:,} bytes" + (", the image" if each == IMAGE else ""),
            *(time_text(1e9 * took[each]) for took in here.values()),
            f"**{time_text(1e9 * sent[each])}**",
            time_text(1e9 * link.seconds(each)),
        )
        for each in SIZES
    ]
    head = ("one way", *here, whose, f"formula: {link}")
    table = markdown_table(head, "lr" + "r" * len(here) + "r", rows)
    small, large = (times(sent[each] / link.seconds(each)) for each in (SIZES[0], SIZES[-1]))
    return (
        f"{table}\n\nThe formula is latency + 8 · bytes / (bits per second). The smallest copy took {small} times as "
        f"long as it says, the largest {large} times. Not in the formula: packing, Python, and what else uses the "
        "cores."
    )


def about_scatter(over: Over, costs: Job) -> str:
    """What each way of scattering did: requests per second, hand-overs, bytes, and what the link alone takes."""
    scatter, carried, link = over.found.scatter, over.found.carried, LINKS["1 Gbit/s"]
    trips = {BY_BRANCH: sum(len(region) > 1 for region in costs.regions), BY_REQUEST: 0.5}
    rows = []
    for name in (ONE, BY_BRANCH, BY_REQUEST):
        row = row_of(scatter, name)
        rate = "-" if row is None or row.timing is None else times(1e3 * REQUESTS / call_ms(row.timing).estimate)
        if name == ONE:
            rows.append((f"`{name}`", rate, "0", "0", "0"))
            continue
        alone = 2 * trips[name] * link.latency + 8 * carried[name] / link.bits_per_second
        rows.append((f"`{name}`", rate, f"{trips[name]:g}", f"{carried[name] / 1e3:,.0f} kB", time_text(1e9 * alone)))
    head = (
        "way",
        "images/s",
        "hand-overs of an image",
        "carried for an image",
        "of that the link alone, by arithmetic",
    )
    said = by_request_is(scatter)
    verdict = {
        "faster": "**By request is faster than by branch**",
        "slower": "**By request is slower than by branch**",
        "no difference found": "No difference was found between by request and by branch",
    }.get(said, f"Which one is faster is {in_a_cell(said)}")
    ratio, often = times(carried[BY_BRANCH] / carried[BY_REQUEST]), counted(int(trips[BY_BRANCH]), "hand-over")
    why = (
        f"By branch carries {ratio} times the bytes of by request, in {often} for each image, and after each hand-over "
        "the faster host waits for the slower one. By request, half of the images go to the other host, once, and "
        "nobody waits before all are done."
    )
    return f"{markdown_table(head, 'lrrrr', rows)}\n\n{verdict}. {why}"


def about_break_even(costs: Job) -> str:
    """For each link: how many branches of the GoogLeNet would pay, and what one request and many requests gain."""
    others = [branch for region in costs.regions for branch in region[1:]]
    rows = []
    for name, link in LINKS.items():
        pay = sum(each.work > link.break_even(each.sent, each.received) for each in others)
        apart, rate = costs.over(link), by_request(link, costs.whole, 2)
        rows.append(
            (
                name,
                time_text(1e9 * link.seconds(IMAGE)),
                f"{pay} of {len(others)}",
                time_text(1e9 * apart),
                f"{times(costs.whole.work / apart)}x",
                f"{times(rate * costs.whole.work)}x",
            )
        )
    head = (
        "link",
        "an image of 224 x 224, one way",
        "branches that take longer than their transfer",
        "a request, each branch on a machine of its own",
        "gain of a request",
        "gain of many requests on 2 machines",
    )
    branches = sum(map(len, costs.regions))
    return (
        f"{markdown_table(head, 'lrrrrr', rows)}\n\nComputed from what was measured here: a request takes "
        f"{time_text(1e9 * costs.whole.work)} on one thread of this machine. Of {branches} branches "
        f"in {counted(len(costs.regions), 'region')}, the first of each region stays where the image is: {len(others)} "
        "could be sent. Nothing of the links was measured in this table. A hand-over costs the link's time here, and "
        "nothing else: the table of copies above shows what it costs besides."
    )


def about_failure(failure: Outcome, again: Outcome) -> str:
    """How a call with a killed rank ended, and the call after it."""
    if not failure.error:
        return f"**No error**: {counted(failure.results, 'result')} came back although a rank was to die."
    within = "within" if failure.seconds <= failure.timeout else "**after**"
    after = (
        f"The next call gave {counted(again.results, 'result')}: new ranks were started."
        if not again.error
        else f"The next call failed too: {in_a_cell(again.error)}"
    )
    return (
        f"After {failure.seconds:.2g} s, {within} the timeout of {failure.timeout:.0f} s:\n\n> "
        f"{in_a_cell(failure.error)}\n\n{after}"
    )


def _overlaps(comparison: Comparison) -> str:
    shares = {
        row.name: share.percent
        for row in comparison.rows
        if row.timing is not None and (share := overlap(row.timing)) is not None
    }
    found = ", ".join(f"`{name}` {share}" for name, share in shares.items())
    return f"Share of the time in which both streams ran at the same time: {found}. " if found else ""
