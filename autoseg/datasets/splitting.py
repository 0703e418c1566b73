"""The folds of a dataset on disk: dealt, kept or taken over, and never with one patient on both sides of a fold."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from autoseg.datasets.dataset import Dataset
from autoseg.datasets.info import DatasetInfo, compile_groups, info_file
from autoseg.datasets.nnunet_files import SPLITS_FILE, read_splits
from autoseg.datasets.splits import FOLDS, Split, Splits, find_leak, list_units, make_splits
from autoseg.errors import ArtifactError, DatasetError, UsageError
from autoseg.runtime.artifact import first_mistake, read_text
from autoseg.runtime.reporting import Reporter
from autoseg.workspace import DatasetFolders, ModelFolder

GroupRule = re.Pattern[str] | Mapping[str, str]
"""Which cases belong together: an expression to match with their names, or case name to group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Folds that people or another program made.

    Attributes:
        path: Their file.
        splits: Its content.
        remark: What the user is told when they are used.
        fix: What to do if they cannot be used.
    """

    path: Path
    splits: Splits
    remark: str
    fix: str = "correct the file, or remove it to have the cases dealt anew"


def resolve_splits(
    names: Sequence[str],
    folders: DatasetFolders,
    info: DatasetInfo,
    reporter: Reporter,
    *,
    groups: str | None = None,
    source: Path | None = None,
) -> Splits:
    """The folds to train by. Nothing is written.

    They are, in this order: those of `source`; those of a splits.json that was edited; those that nnU-Net left beside
    the raw or the preprocessed cases; new ones. Decision: a splits.json that is as it was dealt counts for nothing,
    because dealing again gives the same folds for the same cases and groups.

    Args:
        names: Of the cases to train on.
        folders: Of the dataset.
        info: Its "groups" say which cases belong together, unless `groups` does.
        reporter: Is told what is not as usual.
        groups: A regular expression; its first bracket, or whole match, in a case's name is the group of the case. A
            case without a match, or with an empty one, stands alone.
        source: A splits.json, or a splits_final.json of nnU-Net, or the folder in which that lies.

    Raises:
        DatasetError: There is only one case or one group, or "groups" in dataset.json names unknown cases.
        UsageError: The groups are no regular expression or match no case; `source` is missing; or folds that were
            found name unknown cases or have one group on both sides.
        ArtifactError: A file of folds is damaged, or has a case on both sides.
    """
    rule = _find_rule(info, groups)
    group_of = _group_cases(names, rule)
    _check_groups(names, group_of, folders, rule)
    dealt = make_splits(names, group_of)
    _say_groups(names, group_of, rule, reporter)
    former = _load_saved_splits(folders, forgiving=source is not None)
    found = _find_source(source) if source else _find_edited(folders, former, rule) or _find_nnunet(folders)
    if found is None:
        _say_dealt(dealt, former, group_of, folders, reporter)
    else:
        _check_found(found, names, group_of, folders)
        _say_found(found, names, reporter)
    settled = found.splits if found else dealt
    if former not in (None, settled):
        _say_outdated(folders, reporter)
    return settled


def check_leaks(splits: Splits, folders: DatasetFolders, info: DatasetInfo) -> None:
    """Makes sure that splits.json, which may have been edited, keeps the groups of dataset.json together.

    Raises:
        UsageError: A fold has one group on both sides.
    """
    found = Found(path=folders.splits, splits=splits, remark="")
    _check_leak(found, _group_cases(splits.names, _find_rule(info, None)))


def _find_rule(info: DatasetInfo, pattern: str | None) -> GroupRule:
    """The pattern, else the groups of dataset.json, else none."""
    given = info.groups if pattern is None else pattern
    if not isinstance(given, str):
        return given or {}
    try:
        return compile_groups(given)
    except ValueError as error:
        raise UsageError(f"--groups: {error}", "give one such as '^(.+?)_'") from error


def _group_cases(names: Iterable[str], rule: GroupRule) -> dict[str, str]:
    """Case name to group, without the cases that stand alone."""
    if isinstance(rule, Mapping):
        return {name: rule[name] for name in names if name in rule}
    bracket = min(1, rule.groups)
    matches = ((name, rule.search(name)) for name in names)
    return {name: match[bracket] for name, match in matches if match and match[bracket]}


def _check_groups(names: Sequence[str], group_of: Mapping[str, str], folders: DatasetFolders, rule: GroupRule) -> None:
    """Makes sure that the groups are of these cases."""
    if isinstance(rule, re.Pattern):
        if names and not group_of:
            what = f"the groups {rule.pattern!r} match none of {len(names)} cases, such as {min(names)!r}"
            raise UsageError(what, 'correct --groups, or "groups" in dataset.json')
    elif unknown := rule.keys() - set(names):
        dataset = Dataset.open(folders.raw)  # a case that --skip leaves out may have its group
        unknown -= {case.name for case in dataset.cases} | {problem.case for problem in dataset.problems}
        if unknown:
            what = f"{min(unknown)!r}, which {folders.raw.name} does not have ({len(unknown)} such names)"
            raise DatasetError(f'"groups" in {info_file(folders.raw)} names {what}', "correct the names there")


def _say_groups(names: Sequence[str], group_of: Mapping[str, str], rule: GroupRule, reporter: Reporter) -> None:
    """States what the groups come to, and which cases a pattern passes over."""
    if not group_of:
        return
    sizes = Counter(group_of[name] for name in sorted(group_of))
    [(largest, size)] = sizes.most_common(1)
    if size == 1:
        reporter.say("no two cases have the same group, so the cases are dealt as if there were none")
    else:
        count = f"{len(sizes)}, with {len(group_of)} of {len(names)} cases"
        reporter.say(f"groups of cases that stay together: {count}; the largest is {largest!r} with {size}")
    alone = sorted(set(names) - group_of.keys())
    if alone and isinstance(rule, re.Pattern):
        count = f"{len(alone)} of {len(names)}, such as {alone[0]!r}"
        reporter.say(f"cases that the groups {rule.pattern!r} do not match: {count}; each stands alone")


def _load_saved_splits(folders: DatasetFolders, *, forgiving: bool) -> Splits | None:
    """The content of splits.json; if it is not needed, damage counts as absence."""
    try:
        return Splits.load(folders.splits) if folders.splits.is_file() else None
    except ArtifactError:
        if forgiving:
            return None
        raise


def _find_source(path: Path) -> Found:
    if path.is_dir():
        path = path / SPLITS_FILE
    if not path.is_file():
        raise UsageError(f"there is no file {path}", "check the path given to --splits")
    splits = _read_any(path)
    remark = f"took {len(splits.folds)} folds from {path}"
    return Found(path=path, splits=splits, remark=remark, fix="correct the file, or give another with --splits")


def _find_edited(folders: DatasetFolders, former: Splits | None, rule: GroupRule) -> Found | None:
    """The folds of splits.json, unless they are as they were dealt, with or without the groups."""
    if former is None:
        return None
    cases = sorted(former.names)
    group_of = _group_cases(cases, rule)
    ways = [{}, group_of] if len(list_units(cases, group_of)) > 1 else [{}]
    if any(former == make_splits(cases, way) for way in ways):
        return None
    remark = f"kept the folds of {folders.splits}; remove it to have the cases dealt anew"
    return Found(path=folders.splits, splits=former, remark=remark)


def _find_nnunet(folders: DatasetFolders) -> Found | None:
    for path in (folders.raw / SPLITS_FILE, folders.preprocessed / SPLITS_FILE):
        if path.is_file():
            splits = _read_any(path)
            remark = f"took over {len(splits.folds)} folds that nnU-Net left in {path}"
            return Found(path=path, splits=splits, remark=remark)
    return None


def _read_any(path: Path) -> Splits:
    """Reads either format: nnU-Net's is a list, ours an object."""
    text = read_text(path)
    if not text.lstrip().startswith("["):
        return Splits.parse(text, source=str(path))
    pairs = read_splits(path)
    try:
        return Splits(folds=tuple(Split(training=tuple(one), validation=tuple(other)) for one, other in pairs))
    except ValidationError as error:
        raise ArtifactError(f"{path}: {first_mistake(error)}", "correct that fold") from error


def _check_found(found: Found, names: Sequence[str], group_of: Mapping[str, str], folders: DatasetFolders) -> None:
    """Makes sure that all cases of the folds are there, and that no group is on both sides."""
    unknown = found.splits.names - set(names)
    if unknown:
        what = f"which {folders.raw.name} does not have, or --skip leaves out ({len(unknown)} such names)"
        raise UsageError(f"{found.path} names {min(unknown)!r}, {what}", found.fix)
    _check_leak(found, group_of)


def _check_leak(found: Found, group_of: Mapping[str, str]) -> None:
    """Makes sure that no group is on both sides of a fold."""
    leak = find_leak(found.splits, group_of)
    if leak is not None:
        number, trained, held_out = leak
        raise UsageError(
            f"{found.path}: fold {number} trains on {trained!r} and is validated on {held_out!r}, which both belong to "
            f"the group {group_of[held_out]!r}",
            found.fix,
        )


def _say_found(found: Found, names: Sequence[str], reporter: Reporter) -> None:
    reporter.say(found.remark)
    unused = sorted(set(names) - found.splits.names)
    if unused:
        count = f"{len(unused)} of {len(names)}, such as {unused[0]!r}"
        reporter.say(f"cases in no fold: {count}; they are neither trained on nor validated")
    times = Counter(name for fold in found.splits.folds for name in fold.validation)
    repeated = sorted(name for name, count in times.items() if count > 1)
    if repeated:
        count = f"{len(repeated)} of {len(names)}, such as {repeated[0]!r}"
        reporter.say(f"cases validated in several folds: {count}; scores of all folds together count each time")


def _say_dealt(
    dealt: Splits, former: Splits | None, group_of: Mapping[str, str], folders: DatasetFolders, reporter: Reporter
) -> None:
    """States why there are other folds than before, and why there are fewer than usual."""
    if former is not None and former.names != dealt.names:
        reporter.say(f"dealt the cases anew, because {folders.splits} held others")
    elif former not in (None, dealt):
        reporter.say(f"dealt the cases anew, because {folders.splits} did not keep the groups together")
    count = len(dealt.folds)
    if count < FOLDS:
        alone = "" if group_of.keys() >= dealt.names else ", single cases included,"
        units = f"groups{alone}" if group_of else "cases"
        reporter.say(f"{count} {units} make {count} folds instead of {FOLDS}")


def _say_outdated(folders: DatasetFolders, reporter: Reporter) -> None:
    """Names the folds that were trained on another division; going on with them would mix the two."""
    places = ("*", "*/*")  # of the usual plan, and of those that have names
    models = sorted({path.parent for place in places for path in folders.results.glob(f"{place}/fold_*")})
    trained = [
        f"fold {fold} of {path.relative_to(folders.results).as_posix()}"
        for path in models
        for fold in ModelFolder(path=path).trained_folds()
        if fold != "all"
    ]
    if trained:
        reporter.say(f"trained before the folds changed: {', '.join(trained)}; train anew with --restart")
