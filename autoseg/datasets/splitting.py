"""Choosing the folds of a dataset: assigned anew, kept from splits.json, or read from a file of the user or of nnU-Net.

No fold may have one group, such as the scans of one patient, on both its training and its validation side.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from autoseg.datasets.dataset import Dataset
from autoseg.datasets.groups import compile_groups
from autoseg.datasets.info import DatasetInfo, info_file
from autoseg.datasets.names import compose
from autoseg.datasets.nnunet_files import SPLITS_FILE, read_splits
from autoseg.datasets.splits import FOLDS, Split, Splits, find_leak, list_units, make_splits
from autoseg.errors import ArtifactError, DatasetError, UsageError
from autoseg.runtime.json_text import first_mistake, read_json_text
from autoseg.runtime.reporting import Reporter
from autoseg.workspace import DatasetFolders, ModelFolder

GroupRule = re.Pattern[str] | Mapping[str, str]
"""Says which cases belong together: a regular expression for their names, or a mapping from case name to group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedSplits:
    """Splits from a file that the user or another program wrote.

    Attributes:
        path: The file.
        splits: Its content.
        remark: Line for the user when the splits are used.
        fix: Advice for the user if the splits cannot be used.
    """

    path: Path
    splits: Splits
    remark: str
    fix: str = "correct the file, or remove it to have the cases assigned anew"


def resolve_splits(
    names: Sequence[str],
    folders: DatasetFolders,
    info: DatasetInfo,
    reporter: Reporter,
    *,
    groups: str | None = None,
    source: Path | None = None,
) -> Splits:
    """Returns the folds to train by; nothing is written.

    The first of these that exist: the folds of `source`; those of a splits.json that was edited; those that nnU-Net
    left beside the raw or the preprocessed cases; newly assigned ones. Decision: a splits.json that was not edited is
    not used, because assigning again gives the same folds for the same cases and groups.

    Args:
        names: Names of the cases to train on.
        folders: Folders of the dataset.
        info: Content of dataset.json; its "groups" say which cases belong together, unless `groups` does.
        reporter: Is told what is not as usual.
        groups: A regular expression; its first bracket, or whole match, in a case's name is the group of the case. A
            case without a match, or with an empty one, forms a group of its own.
        source: A splits.json, or a splits_final.json of nnU-Net, or the folder that holds the latter.

    Raises:
        DatasetError: There is only one case or one group, or "groups" in dataset.json names unknown cases.
        UsageError: The groups are no regular expression or match no case; `source` is missing; or loaded folds name
            unknown cases or have one group on both sides.
        ArtifactError: A file of folds is damaged, or has a case on both sides.
    """
    rule = _find_rule(info, groups)
    group_of = _group_cases(names, rule)
    _check_groups(names, group_of, folders, rule)
    assigned = make_splits(names, group_of)
    _report_groups(names, group_of, rule, reporter)
    saved = _load_saved_splits(folders, ignore_damage=source is not None)
    loaded = _load_source(source) if source else _select_edited(folders, saved, rule) or _load_nnunet_splits(folders)
    if loaded is None:
        _report_assigned(assigned, saved, group_of, folders, reporter)
    else:
        _check_loaded(loaded, names, group_of, folders)
        _report_loaded(loaded, names, reporter)
    splits = loaded.splits if loaded else assigned
    if saved not in (None, splits):
        _report_outdated_models(folders, reporter)
    return splits


def check_leaks(splits: Splits, folders: DatasetFolders, info: DatasetInfo) -> None:
    """Checks that splits.json, which may have been edited, keeps the groups of dataset.json together.

    Raises:
        UsageError: A fold has one group on both sides.
    """
    saved = LoadedSplits(path=folders.splits, splits=splits, remark="")
    _check_leak(saved, _group_cases(splits.names, _find_rule(info, None)))


def group_cases(names: Iterable[str], info: DatasetInfo) -> dict[str, str]:
    """Returns case name to group as dataset.json says, without the cases that form a group of their own."""
    return _group_cases(names, _find_rule(info, None))


def _find_rule(info: DatasetInfo, pattern: str | None) -> GroupRule:
    """Returns the pattern, else the groups of dataset.json, else an empty mapping."""
    groups = info.groups if pattern is None else compose(pattern)
    if not isinstance(groups, str):
        return groups or {}
    try:
        return compile_groups(groups)
    except ValueError as error:
        raise UsageError(f"--groups: {error}", "give one such as '^(.+?)_'") from error


def _group_cases(names: Iterable[str], rule: GroupRule) -> dict[str, str]:
    """Returns case name to group, without the cases that form a group of their own."""
    if isinstance(rule, Mapping):
        return {name: rule[name] for name in names if name in rule}
    bracket = min(1, rule.groups)
    matches = ((name, rule.search(name)) for name in names)
    return {name: match[bracket] for name, match in matches if match and match[bracket]}


def _check_groups(names: Sequence[str], group_of: Mapping[str, str], folders: DatasetFolders, rule: GroupRule) -> None:
    """Checks that the groups name cases of the dataset."""
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


def _report_groups(names: Sequence[str], group_of: Mapping[str, str], rule: GroupRule, reporter: Reporter) -> None:
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


def _load_saved_splits(folders: DatasetFolders, *, ignore_damage: bool) -> Splits | None:
    """Returns the content of splits.json; None if there is none, or if it is damaged and that is to be ignored."""
    try:
        return Splits.load(folders.splits) if folders.splits.is_file() else None
    except ArtifactError:
        if ignore_damage:
            return None
        raise


def _load_source(path: Path) -> LoadedSplits:
    if path.is_dir():
        path = path / SPLITS_FILE
    if not path.is_file():
        raise UsageError(f"there is no file {path}", "check the path given to --splits")
    splits = _read_any(path)
    remark = f"took {len(splits.folds)} folds from {path}"
    return LoadedSplits(path=path, splits=splits, remark=remark, fix="correct the file, or give another with --splits")


def _select_edited(folders: DatasetFolders, saved: Splits | None, rule: GroupRule) -> LoadedSplits | None:
    """Returns the folds of splits.json, unless this program assigned them so, with or without the groups."""
    if saved is None:
        return None
    cases = sorted(saved.names)
    group_of = _group_cases(cases, rule)
    groupings = [{}, group_of] if len(list_units(cases, group_of)) > 1 else [{}]
    if any(saved == make_splits(cases, grouping) for grouping in groupings):
        return None
    remark = f"kept the folds of {folders.splits}; remove it to have the cases assigned anew"
    return LoadedSplits(path=folders.splits, splits=saved, remark=remark)


def _load_nnunet_splits(folders: DatasetFolders) -> LoadedSplits | None:
    for path in (folders.raw / SPLITS_FILE, folders.preprocessed / SPLITS_FILE):
        if path.is_file():
            splits = _read_any(path)
            remark = f"took over {len(splits.folds)} folds that nnU-Net left in {path}"
            return LoadedSplits(path=path, splits=splits, remark=remark)
    return None


def _read_any(path: Path) -> Splits:
    """Reads a file of folds in either format: nnU-Net's is a list, this program's an object."""
    text = read_json_text(path)
    if not text.lstrip().startswith("["):
        return Splits.parse(text, source=str(path))
    pairs = read_splits(path)
    try:
        return Splits(
            folds=tuple(Split(training=tuple(training), validation=tuple(held_out)) for training, held_out in pairs)
        )
    except ValidationError as error:
        raise ArtifactError(f"{path}: {first_mistake(error)}", "correct that fold") from error


def _check_loaded(
    loaded: LoadedSplits, names: Sequence[str], group_of: Mapping[str, str], folders: DatasetFolders
) -> None:
    """Checks that all cases of the folds are there, and that no group is on both sides."""
    unknown = loaded.splits.names - set(names)
    if unknown:
        what = f"which {folders.raw.name} does not have, or --skip leaves out ({len(unknown)} such names)"
        raise UsageError(f"{loaded.path} names {min(unknown)!r}, {what}", loaded.fix)
    _check_leak(loaded, group_of)


def _check_leak(loaded: LoadedSplits, group_of: Mapping[str, str]) -> None:
    """Checks that no group is on both sides of a fold."""
    leak = find_leak(loaded.splits, group_of)
    if leak is not None:
        number, trained, held_out = leak
        raise UsageError(
            f"{loaded.path}: fold {number} trains on {trained!r} and is validated on {held_out!r}, which both belong "
            f"to the group {group_of[held_out]!r}",
            loaded.fix,
        )


def _report_loaded(loaded: LoadedSplits, names: Sequence[str], reporter: Reporter) -> None:
    """Reports which folds are used, and which cases are in no fold or validated in several."""
    reporter.say(loaded.remark)
    unused = sorted(set(names) - loaded.splits.names)
    if unused:
        count = f"{len(unused)} of {len(names)}, such as {unused[0]!r}"
        reporter.say(f"cases in no fold: {count}; they are neither trained on nor validated")
    times = Counter(name for fold in loaded.splits.folds for name in fold.validation)
    repeated = sorted(name for name, count in times.items() if count > 1)
    if repeated:
        count = f"{len(repeated)} of {len(names)}, such as {repeated[0]!r}"
        reporter.say(f"cases validated in several folds: {count}; scores of all folds together count each time")


def _report_assigned(
    assigned: Splits, saved: Splits | None, group_of: Mapping[str, str], folders: DatasetFolders, reporter: Reporter
) -> None:
    """Reports why the folds differ from the saved ones, and why there are fewer than usual."""
    if saved is not None and saved.names != assigned.names:
        reporter.say(f"assigned the cases anew, because {folders.splits} held others")
    elif saved not in (None, assigned):
        reporter.say(f"assigned the cases anew, because {folders.splits} did not keep the groups together")
    count = len(assigned.folds)
    if count < FOLDS:
        alone = "" if group_of.keys() >= assigned.names else ", single cases included,"
        units = f"groups{alone}" if group_of else "cases"
        reporter.say(f"{count} {units} make {count} folds instead of {FOLDS}")


def _report_outdated_models(folders: DatasetFolders, reporter: Reporter) -> None:
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
