"""Lines for the user about the folds of a dataset: where they came from, and what is not as usual in them."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from autoseg.datasets.splits import FOLDS, Splits
from autoseg.runtime.reporting import Reporter
from autoseg.workspace import DatasetFolders, ModelFolder

GroupRule = re.Pattern[str] | Mapping[str, str]
"""Says which cases belong together: a regular expression for their names, or a mapping from case name to group."""


def report_groups(names: Sequence[str], group_of: Mapping[str, str], rule: GroupRule, reporter: Reporter) -> None:
    """Reports the number and size of the groups, and which cases a pattern does not match."""
    if not group_of:
        return
    sizes = Counter(group_of[name] for name in sorted(group_of))
    [(largest, size)] = sizes.most_common(1)
    if size == 1:
        reporter.say("no two cases have the same group, so the cases are assigned as if there were none")
    else:
        count = f"{len(sizes)}, with {len(group_of)} of {len(names)} cases"
        reporter.say(f"groups of cases that stay together: {count}; the largest is {largest!r} with {size}")
    alone = sorted(set(names) - group_of.keys())
    if alone and isinstance(rule, re.Pattern):
        count = f"{len(alone)} of {len(names)}, such as {alone[0]!r}"
        reporter.say(f"cases that the groups {rule.pattern!r} do not match: {count}; each stands alone")


def report_loaded(splits: Splits, names: Sequence[str], reporter: Reporter) -> None:
    """Reports which folds are used, and which cases are in no fold or validated in several."""
    unused = sorted(set(names) - splits.names)
    if unused:
        count = f"{len(unused)} of {len(names)}, such as {unused[0]!r}"
        reporter.say(f"cases in no fold: {count}; they are neither trained on nor validated")
    times = Counter(name for fold in splits.folds for name in fold.validation)
    repeated = sorted(name for name, count in times.items() if count > splits.repeats)
    if repeated:
        count = f"{len(repeated)} of {len(names)}, such as {repeated[0]!r}"
        reporter.say(f"cases validated in several folds: {count}; scores of all folds together count each time")


def report_assigned(
    assigned: Splits, saved: Splits | None, group_of: Mapping[str, str], folders: DatasetFolders, reporter: Reporter
) -> None:
    """Reports why the folds differ from the saved ones, and why there are more or fewer than usual."""
    if saved is not None and saved.scheme != assigned.scheme:
        reporter.say(f"assigned the cases anew, because {folders.splits} held them out in another way")
    elif saved is not None and saved.names != assigned.names:
        reporter.say(f"assigned the cases anew, because {folders.splits} held others")
    elif saved not in (None, assigned):
        reporter.say(f"assigned the cases anew, because {folders.splits} did not keep the groups together")
    count = len(assigned.folds) // assigned.repeats
    if assigned.leave_one_out:
        reporter.say(f"leave one out: {count} folds, each of which holds out one {'group' if group_of else 'case'}")
    elif assigned.repeats > 1:
        last = len(assigned.folds) - 1
        reporter.say(f"{assigned.repeats} times {count} folds, 0 to {last}: each case is held out once in each repeat")
    if count < FOLDS:
        alone = "" if group_of.keys() >= assigned.names else ", single cases included,"
        units = f"groups{alone}" if group_of else "cases"
        reporter.say(f"{count} {units} make {count} folds instead of {FOLDS}")


def report_outdated_models(folders: DatasetFolders, reporter: Reporter) -> None:
    """Names the folds that were trained with other splits; going on with them would mix the two."""
    patterns = ("*/fold_*", "*/*/fold_*")  # models of the usual plan, and of plans with names
    models = sorted({path.parent for pattern in patterns for path in folders.results.glob(pattern)})
    trained = [
        f"fold {fold} of {path.relative_to(folders.results).as_posix()}"
        for path in models
        for fold in ModelFolder(path=path).trained_folds()
        if fold != "all"
    ]
    if trained:
        reporter.say(f"trained before the folds changed: {', '.join(trained)}; train anew with --restart")
