"""Plans for the networks of the literature, for tests."""

from planning_cases import fingerprint_of, info_of

from autoseg.networks.literature.table import NETWORKS
from autoseg.planning.planner import PlanningOptions, make_plan
from autoseg.planning.plugin_settings import Plugin

GB = 10**9


def named(name, **given):
    """A network as a plan names it, with some settings changed."""
    return Plugin(name=name, settings=NETWORKS[name].complete(given))


def plan_of(fingerprint, network, *, info=None, gigabytes=8.0, preset=None):
    """A plan for a network."""
    options = PlanningOptions(
        dataset="Dataset001_Any", memory_budget_bytes=int(gigabytes * GB), preset=preset, network=network
    )
    return make_plan(fingerprint, info or info_of("MR"), options)


CUBE = fingerprint_of([(150, 160, 170)] * 5, [(1.0, 1.0, 1.0)] * 5)
SLICE = fingerprint_of([(1, 400, 500)] * 5, [(999.0, 1.0, 1.0)] * 5)
