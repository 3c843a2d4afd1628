"""Means, deviations and paired tests over the runs of a study."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .errors import McsrError
from .evaluation_conditions import NO_REFERENCE
from .evaluation_study import BASELINE, Case, Run
from .networks import network_class

ENOUGH_SUBJECTS = 6
"""From so many subjects on they are what is compared; below that slices are, which the tables say."""

_RESAMPLINGS = 2000


@dataclass(frozen=True)
class Summary:
    """Scores of one model under one condition at one scale.

    Args:
        level: "pair" and "subject": mean and deviation over slices; "data set": over the means of its subjects.
        name: of the pair, subject or (empty) data set.
        scale: in-plane factor.
        model: name.
        condition: of the reference.
        count: how many slices or subjects.
        mean: by metric.
        deviation: sample standard deviation by metric; NaN for a single value.
        seconds: mean over runs.
    """

    level: str
    name: str
    scale: int
    model: str
    condition: str
    count: int
    mean: dict[str, float]
    deviation: dict[str, float]
    seconds: float


@dataclass(frozen=True)
class Difference:
    """A paired comparison of two runs: the mean of first minus second.

    Args:
        scale: in-plane factor.
        first: model and condition.
        second: the same.
        metric: such as "psnr".
        unit: what was paired: "slices" or "subjects".
        count: how many pairs.
        mean: of the differences.
        low: lower end of its 95 % interval (bootstrap over the units, fixed seed).
        high: upper end.
        p: of the Wilcoxon signed-rank test, after Holm's correction over all comparisons of this metric.
    """

    scale: int
    first: tuple[str, str]
    second: tuple[str, str]
    metric: str
    unit: str
    count: int
    mean: float
    low: float
    high: float
    p: float


def summarise(cases: Sequence[Case], level: str) -> list[Summary]:
    """Scores at one level, in the order of the cases and runs."""
    runs: dict[tuple[str, int, str, str], list[tuple[Case, Run]]] = {}
    for case in cases:
        names = {"pair": case.pair, "subject": case.subject, "data set": ""}
        for run in case.runs:
            runs.setdefault((names[level], case.scale, run.model, run.condition), []).append((case, run))
    return [_summary(level, *key, found) for key, found in runs.items()]


def compare_runs(cases: Sequence[Case], metric: str = "psnr", seed: int = 0) -> list[Difference]:
    """Paired tests: the true reference against every other condition of a model, and the models among each other.

    What is paired is the same target slice, its scores averaged over the references of its session; from
    `ENOUGH_SUBJECTS` on the subjects' means. Slices of one patient are not independent: a small p then tells of this
    patient, not of others.

    Raises:
        McsrError: scipy is not installed.
    """
    found = []
    for scale in dict.fromkeys(case.scale for case in cases):
        tables = _slice_scores([case for case in cases if case.scale == scale], metric)
        for first, second in _comparisons(list(tables)):
            units, differences = _paired(tables[first], tables[second])
            low, high = _interval(differences, seed)
            mean, p = float(differences.mean()), _wilcoxon(differences)
            found.append(Difference(scale, first, second, metric, units, len(differences), mean, low, high, p))
    corrected = holm([difference.p for difference in found])
    return [Difference(**{**vars(d), "p": p}) for d, p in zip(found, corrected, strict=True)]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction, in the order given."""
    order = np.argsort(p_values, kind="stable")
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def _summary(
    level: str, name: str, scale: int, model: str, condition: str, found: Sequence[tuple[Case, Run]]
) -> Summary:
    values: dict[str, np.ndarray] = {}
    for metric in found[0][1].scores:
        by_subject: dict[str, list[np.ndarray]] = {}
        for case, run in found:
            by_subject.setdefault(case.subject, []).append(run.scores[metric])
        slices = [np.concatenate(scores) for scores in by_subject.values()]
        values[metric] = np.array([s.mean() for s in slices]) if level == "data set" else np.concatenate(slices)
    count = len(next(iter(values.values())))
    deviation = {metric: float(v.std(ddof=1)) if count > 1 else float("nan") for metric, v in values.items()}
    mean = {metric: float(v.mean()) for metric, v in values.items()}
    seconds = float(np.mean([run.seconds for _, run in found]))
    return Summary(level, name, scale, model, condition, count, mean, deviation, seconds)


_Key = tuple[str, str]
_Slice = tuple[str, str, str, int]


def _slice_scores(cases: Sequence[Case], metric: str) -> dict[_Key, dict[_Slice, float]]:
    """Score of every target slice, by model and condition; the mean over its references."""
    all_values: dict[_Key, dict[_Slice, list[float]]] = {}
    for case in cases:
        for run in case.runs:
            table = all_values.setdefault((run.model, run.condition), {})
            for number, value in zip(case.slices, run.scores[metric], strict=True):
                table.setdefault((case.subject, case.session, case.target, number), []).append(float(value))
    return {key: {place: float(np.mean(v)) for place, v in table.items()} for key, table in all_values.items()}


def _comparisons(keys: Sequence[_Key]) -> list[tuple[_Key, _Key]]:
    """First against second: conditions within a network, then networks with the true reference and the baseline."""
    true = [key for key in keys if key[1] == "true"]
    found = [(best, other) for best in true for other in keys if other[0] == best[0] and other != best]
    baseline = [(BASELINE, NO_REFERENCE)] if (BASELINE, NO_REFERENCE) in keys else []
    networks = true or [key for key in keys if network_class(key[0]).uses_reference]
    return (
        found + [(network, sinc) for network in networks for sinc in baseline] + list(itertools.combinations(true, 2))
    )


def _paired(first: dict[_Slice, float], second: dict[_Slice, float]) -> tuple[str, np.ndarray]:
    by_subject: dict[str, list[float]] = {}
    for place in first.keys() & second.keys():
        by_subject.setdefault(place[0], []).append(first[place] - second[place])
    if len(by_subject) >= ENOUGH_SUBJECTS:
        return "subjects", np.array([np.mean(by_subject[subject]) for subject in sorted(by_subject)])
    return "slices", np.sort(np.concatenate([np.array(by_subject[subject]) for subject in sorted(by_subject)]))


def _interval(differences: np.ndarray, seed: int) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    means = rng.choice(differences, (_RESAMPLINGS, len(differences))).mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _wilcoxon(differences: np.ndarray) -> float:
    try:
        from scipy.stats import wilcoxon
    except ImportError as error:
        raise McsrError("The paired tests need scipy; run: pip install scipy") from error
    return float(wilcoxon(differences).pvalue) if differences.any() else 1.0
