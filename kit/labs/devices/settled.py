"""Notebook 06: its card."""

from __future__ import annotations

from kit.labs.conclusions import Claim, Truth, card, claim_faster, row_of, truth
from kit.labs.devices.failures import Outcome
from kit.labs.devices.hosts import Over
from kit.labs.devices.told import QUIZZES, STREAMS, by_request_is, killed_answer, parallel_answer
from kit.labs.measured import overlap
from kit.measuring.comparison import Comparison
from kit.workloads.two_hosts import BY_BRANCH, BY_REQUEST, ONE

JOBS = "On two hosts, ranks with whole requests, as in DDP, Horovod and MPI jobs, serve more than ranks that share each"


def conclusion(
    parallel: Comparison, places: Comparison, ranks: Comparison, over: Over, failure: Outcome, again: Outcome
) -> str:
    """The notebook's claims, and for each what this machine said.

    Args:
        parallel: with ``replicated``.
        places: with ``devices``.
        ranks: with ``ranks``.
    """
    scatter, carried = over.found.scatter, over.found.carried
    claims = [
        _split(parallel),
        claim_faster("A device for each stream makes a call faster", places, "devices"),
        claim_faster("Two ranks on this machine make a call faster", ranks, "ranks"),
        Claim(
            "Sending branches to another host carries more bytes than sending whole requests",
            "true" if carried[BY_BRANCH] > carried[BY_REQUEST] else "false",
            f"{carried[BY_BRANCH] / 1e3:,.0f} kB and {carried[BY_REQUEST] / 1e3:,.0f} kB for an image",
        ),
        _over(claim_faster("Two hosts answer more requests by branch than one host", scatter, BY_BRANCH, ONE), over),
        _jobs(over),
        Claim(
            "A rank that dies is an error within the timeout, and the next call works",
            _survived(failure, again),
            f"an error after {failure.seconds:.2g} s of {failure.timeout:.0f} s" if failure.error else "no error",
        ),
    ]
    left = "" if over.real else "\n\nTwo hosts were a declared network here: no claim about them is decided by it."
    return f"{card(claims)}{left}"


def _split(parallel: Comparison) -> Claim:
    row = row_of(parallel, "replicated")
    share = overlap(row.timing) if row is not None and row.timing is not None else None
    said = parallel_answer(parallel)
    by = f"both streams ran at the same time for {share.percent} of the time" if share else said
    return Claim("nn.DataParallel can conceptually split streams", truth(said, STREAMS[0]), by)


def _jobs(over: Over) -> Claim:
    """Of what such jobs have in common, what two hosts can show; that they are used is no question to a clock."""
    scatter = over.found.scatter
    row = row_of(scatter, BY_REQUEST)
    if row is not None and row.equality is not None and not row.equality.equal:
        return Claim(JOBS, "false", "ranks gave another output than one host")
    said = by_request_is(scatter)
    rows = [(name, row_of(scatter, name)) for name in (BY_REQUEST, BY_BRANCH)]
    ratios = ", ".join(f"{name} {each.ratio_text}" for name, each in rows if each is not None and each.ratio)
    by = f"against one host: {ratios}" if said in ("faster", "slower") else said
    found: Truth = "true" if said == "faster" else "false" if said == "slower" else "not decided"
    return _over(Claim(JOBS, found, by), over)


def _over(claim: Claim, over: Over) -> Claim:
    """A claim about two hosts, which a declared network does not decide."""
    return claim if over.real else claim._replace(truth="not decided", by=f"simulated network: {claim.by}")


def _survived(failure: Outcome, again: Outcome) -> Truth:
    in_time = killed_answer(failure) == QUIZZES["killed"][1][2]
    return "true" if in_time and not again.error else "false"
