"""Choosing the folds of a dataset: assigned anew, kept from splits.json, or read from a file of the user or of nnU-Net.

No fold may have one group, such as the scans of one patient, on both its training and its validation side.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from autoseg.datasets.dataset import Dataset
from autoseg.datasets.groups import compile_groups
from autoseg.datasets.info import DatasetInfo, info_file
from autoseg.datasets.machine_labels import list_machine_labelled
from autoseg.datasets.names import compose
from autoseg.datasets.nnunet_files import SPLITS_FILE, read_splits
from autoseg.datasets.splits import CrossValidation, Split, Splits, find_leak, list_units, make_splits
from autoseg.datasets.splitting_reports import (
    GroupRule,
    report_assigned,
    report_groups,
    report_loaded,
    report_outdated_models,
)
from autoseg.errors import ArtifactError, DatasetError, UsageError
from autoseg.runtime.json_text import first_mistake, read_json_text
from autoseg.runtime.reporting import Reporter
from autoseg.workspace import DatasetFolders

MOST_REPEATS = 100
"""Repeats of a cross-validation, at most. Decision: nobody trains more than 500 folds but by a slip of the keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRequest:
    """The folds that a user asked for.

    Attributes:
        groups: A regular expression; its first bracket, or whole match, in a case's name is the group of the case. A
            case without a match, or with an empty one, forms a group of its own.
        source: A splits.json, or a splits_final.json of nnU-Net, or the folder that holds the latter.
        repeats: How often all cases are assigned to folds; None for as often as splits.json says.
        leave_one_out: Whether each case, or each group, is a fold of its own.

    Raises:
        UsageError: Options contradict each other, or the number of repeats is impossible.
    """

    groups: str | None = None
    source: Path | None = None
    repeats: int | None = None
    leave_one_out: bool = False

    def __post_init__(self) -> None:
        if self.repeats is not None and not 1 <= self.repeats <= MOST_REPEATS:
            raise UsageError(f"--repeats {self.repeats} is impossible", f"take a number from 1 to {MOST_REPEATS}")
        if self.leave_one_out and self.repeats is not None:
            what = "with --leave-one-out there is one way to assign the cases, which --repeats would repeat"
            raise UsageError(what, "leave one of the two out")
        if self.source is not None and self.asks_for_a_scheme:
            raise UsageError("--splits names the folds", "leave out --repeats and --leave-one-out")

    @property
    def asks_for_a_scheme(self) -> bool:
        """Whether the user said how cases are to be held out."""
        return self.leave_one_out or self.repeats is not None

    def find_scheme(self, saved: Splits | None) -> CrossValidation:
        """Returns how cases are to be held out: as asked, else as those of splits.json were."""
        if self.asks_for_a_scheme or saved is None:
            return CrossValidation(repeats=self.repeats or 1, leave_one_out=self.leave_one_out)
        return saved.scheme


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
    request: SplitRequest = SplitRequest(),
) -> Splits:
    """Returns the folds to train by; nothing is written.

    The first of these that exist: the folds of `source`; those of a splits.json that was edited; those that nnU-Net
    left beside the raw or the preprocessed cases; newly assigned ones. Decision: a splits.json that was not edited is
    not used, because assigning again gives the same folds for the same cases and groups. Cases that were labelled by a
    model are held out by no fold.

    Args:
        names: Names of the cases to train on.
        folders: Folders of the dataset.
        info: Content of dataset.json; its "groups" say which cases belong together, unless those of the request do.
        reporter: Is told what is not as usual.
        request: What the user asked for.

    Raises:
        DatasetError: There is only one case or one group, or dataset.json names unknown cases.
        UsageError: The groups are no regular expression or match no case; the source is missing; loaded folds name
            unknown cases, have one group on both sides or hold out cases that were labelled by a model; or folds are
            loaded, and others were asked for.
        ArtifactError: A file of folds is damaged, or has a case on both sides.
    """
    rule, source = _find_rule(info, request.groups), request.source
    group_of = _group_cases(names, rule)
    _check_groups(names, group_of, folders, rule)
    report_groups(names, group_of, rule, reporter)
    saved = _load_saved_splits(folders, ignore_damage=source is not None)
    _check_known("machine_labelled", set(info.machine_labelled or ()) - set(names), folders)
    machine = list_machine_labelled(names, info)
    assigned = make_splits(names, group_of, scheme=request.find_scheme(saved), only_training=machine)
    loaded = _load_source(source) if source else _select_edited(folders, saved, rule, info) or _load_nnunet(folders)
    if loaded is None:
        report_assigned(assigned, saved, group_of, folders, reporter)
    else:
        if request.asks_for_a_scheme:
            what = f"{loaded.path} says which folds there are"
            raise UsageError(what, "leave out --repeats and --leave-one-out, or remove that file")
        _check_loaded(loaded, names, group_of, folders)
        _check_held_out(loaded, info)
        reporter.say(loaded.remark)
        report_loaded(loaded.splits, names, reporter)
    splits = loaded.splits if loaded else assigned
    if saved not in (None, splits):
        report_outdated_models(folders, reporter)
    return splits


def check_leaks(splits: Splits, folders: DatasetFolders, info: DatasetInfo) -> None:
    """Checks that splits.json, which may have been edited, agrees with dataset.json.

    Raises:
        UsageError: A fold has one group on both sides, or holds out a case that was labelled by a model.
    """
    saved = LoadedSplits(path=folders.splits, splits=splits, remark="")
    _check_held_out(saved, info)
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
    else:
        _check_known("groups", rule.keys() - set(names), folders)


def _check_known(field: str, unknown: Collection[str], folders: DatasetFolders) -> None:
    """Checks that a field of dataset.json names no cases but those of the dataset, and those that --skip leaves out."""
    if not unknown:
        return
    dataset = Dataset.open(folders.raw)
    unknown = set(unknown) - {case.name for case in dataset.cases} - {problem.case for problem in dataset.problems}
    if unknown:
        what = f"{min(unknown)!r}, which {folders.raw.name} does not have ({len(unknown)} such names)"
        raise DatasetError(f'"{field}" in {info_file(folders.raw)} names {what}', "correct the names there")


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


def _select_edited(
    folders: DatasetFolders, saved: Splits | None, rule: GroupRule, info: DatasetInfo
) -> LoadedSplits | None:
    """Returns the folds of splits.json, unless this program assigned them so, with or without the groups."""
    if saved is None:
        return None
    cases = sorted(saved.names)
    group_of = _group_cases(cases, rule)
    machine = list_machine_labelled(cases, info)
    judged = [name for name in cases if name not in machine]
    groupings = [grouping for grouping in ({}, group_of) if len(list_units(judged, grouping)) > 1]
    if any(saved == make_splits(cases, known, scheme=saved.scheme, only_training=machine) for known in groupings):
        return None
    remark = f"kept the folds of {folders.splits}; remove it to have the cases assigned anew"
    return LoadedSplits(path=folders.splits, splits=saved, remark=remark)


def _load_nnunet(folders: DatasetFolders) -> LoadedSplits | None:
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


def _check_held_out(loaded: LoadedSplits, info: DatasetInfo) -> None:
    """Checks that no case is held out that was labelled by a model, which would be judged by a model's own opinion."""
    for number, fold in enumerate(loaded.splits.folds):
        for name in list_machine_labelled(fold.validation, info):
            what = f"{loaded.path}: fold {number} holds out {name!r}, which was labelled by a model"
            raise UsageError(what, loaded.fix)


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
