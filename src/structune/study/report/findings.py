"""What a study comes to so far, in sentences."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence

from structune.study.report.against import AHEAD, BEHIND, NO_DIFFERENCE, Against, Compared
from structune.study.report.cells import Cell
from structune.study.report.figures.small import curves, validation_curves
from structune.study.report.machines import Cost
from structune.study.report.one_rate import AtRate, common_rate, cost
from structune.study.report.optimum import FIXED, INSIDE, LARGEST, LEVEL, ONE, SMALLEST, Optimum
from structune.study.report.score_text import factor, number, titled
from structune.study.report.statistics import FEW, bootstrap_holds_at_most
from structune.tasks.task import Metric


def counted(count: int, what: str, several: str = "") -> str:
    """`1 run`, `2 runs`."""
    return f"{count:,} {what if count == 1 else several or f'{what}s'}"


def progress(cells: Sequence[Cell]) -> str:
    """How much of the study is done."""
    runs, left = sum(len(cell.runs) for cell in cells), sum(cell.runs_left for cell in cells)
    if all(cell.done for cell in cells):
        return f"All of the study is done: {counted(runs, 'run')}"
    scored = sum(1 for cell in cells if cell.seeds)
    more = f"at least {left:,} {'is' if left == 1 else 'are'} left" if left else "test scores are left"
    return f"Not finished: {counted(runs, 'run')} done, {more}; test scores: {scored} of {len(cells)}"


def uneven_seeds(cells: Sequence[Cell]) -> str:
    """Which numbers of seeds scores rest on, where they differ; else nothing."""
    counts = Counter(len(cell.seeds) for cell in cells if cell.seeds)
    if len(counts) < 2:
        return ""
    each = ", ".join(f"{cells_of} on {counted(count, 'seed')}" for count, cells_of in sorted(counts.items()))
    return f"Test scores rest on different numbers of seeds: {each}."


def best(task: str, cells: Sequence[Cell], against: Against | None) -> str:
    """Which method has the best mean score on a task, beside the reference, and whether it is shown to be ahead."""
    own = [cell for cell in cells if cell.task == task and cell.seeds]
    if not own:
        return f"{task}: no test score yet"
    first = _firsts(own)[0]
    score = f"{number(first.score, first.metric)} {titled(first.metric)}"
    if len(own) == 1:
        return f"{task}: only {first.label} has a test score, {score}"
    said = f"{task}: {_named(own)} the best mean, {score}"
    beaten = next((cell for cell in own if against is not None and cell.label == against.reference), None)
    compared = None if against is None else against.of(first)
    if beaten is None or compared is None:
        return said
    return f"{said}; {beaten.label} has {number(beaten.score, beaten.metric)}: {compared.verdict}"


def leaders(cells: Sequence[Cell]) -> list[str]:
    """Which methods have the best mean scores, and on which tasks."""
    by_methods: dict[str, list[str]] = {}
    for task in dict.fromkeys(cell.task for cell in cells):
        own = [cell for cell in cells if cell.task == task and cell.seeds]
        if len(own) > 1:
            first = _firsts(own)[0]
            by_methods.setdefault(_named(own), []).append(f"{task} ({number(first.score, first.metric)})")
    return [f"{labels} the best mean score on {', '.join(tasks)}" for labels, tasks in by_methods.items()]


def _firsts(cells: Sequence[Cell]) -> list[Cell]:
    """Those with the best mean score: more than one where it is the same."""
    first = max(cells, key=lambda cell: cell.upwards)
    return [first, *(cell for cell in cells if cell is not first and cell.upwards == first.upwards)]


def _named(cells: Sequence[Cell]) -> str:
    """The best of these methods, with its verb."""
    *others, last = (cell.label for cell in _firsts(cells))
    if len(others) + 1 == len(cells) > 2:
        return f"all {len(cells)} methods with a score have"
    return f"{', '.join(others)} and {last} have" if others else f"{last} has"


def verdicts(found: Sequence[Compared], reference: str, where: str) -> str:
    """How many are ahead of the reference, behind it, and neither."""
    tested = Counter(one.verdict for one in found if one.p is not None)
    total = sum(tested.values())
    if not total:
        return f"Against {reference}{where} nothing can be tested yet"
    rest = len(found) - total
    not_tested = f"; {rest} could not be tested" if rest else ""
    return (
        f"Against {reference}{where}: {tested[AHEAD]} of {total} ahead, {tested[BEHIND]} behind, for "
        f"{tested[NO_DIFFERENCE]} no difference shown{not_tested}"
    )


def against_notes(found: Against) -> list[str]:
    """What the comparisons rest on."""
    notes = [
        f"“Better by” is how much better a method scores than {found.reference} on the same task and seed, on average; "
        "intervals and p are of the paired t-test, over several tasks with each task's own variance, without those "
        "that have one seed in common where others have more. p is corrected by Holm for all tests of its table."
    ]
    return [*notes, found.why_not_overall] if found.why_not_overall else notes


def unseen(compared: Sequence[Compared]) -> list[str]:
    """How large differences are that these comparisons would not show."""
    widths = [
        factor(one.metric) * (one.gain.interval.high - one.gain.interval.low) / 2
        for one in compared
        if one.gain.interval is not None
    ]
    if not widths:
        return []
    return [
        f"“{NO_DIFFERENCE.capitalize()}” is not “no difference”: half of these intervals are wider than "
        f"±{statistics.median(widths):.2g}, before any correction, and a smaller difference would go unseen."
    ]


def interval_notes(cells: Sequence[Cell]) -> list[str]:
    """What intervals of so few seeds say, and what they leave out."""
    counts = sorted({len(cell.seeds) for cell in cells if len(cell.seeds) > 1})
    notes = []
    if counts:
        notes.append("Intervals are of the mean over seeds, 95 %. By t they hold for normal scores, however few; "
                     "scores that are the same in every seed have none.")  # fmt: skip
    for count in counts:
        if count < FEW:
            notes.append(
                f"A bootstrap of {count} seeds never leaves the lowest and the highest score, and so holds the true "
                f"mean at most {100 * bootstrap_holds_at_most(count):.0f} times in 100, not 95: go by t."
            )
    if any(len(cell.seeds) == 1 for cell in cells):
        notes.append("One seed says nothing of how scores vary with seeds.")
    return [*notes, *_errors_of_examples(cells)]


def _errors_of_examples(cells: Sequence[Cell]) -> list[str]:
    """The standard error of a score as an estimate from its test part."""
    found: dict[str, float] = {}
    for cell in cells:
        for run in cell.scored:
            error = cell.metric.standard_error(cell.score, run["test"].get("examples", 0) or 1)
            if error is not None and "examples" in run["test"]:
                found[cell.task] = max(found.get(cell.task, 0.0), 100 * error)
    if not found:
        return []
    each = ", ".join(f"{error:.1f} on {task}" for task, error in found.items())
    if len(found) > 3:
        each = f"{min(found.values()):.1f} to {max(found.values()):.1f}, by task"
    return [f"That the test part is a sample counts in none of this; one score has a standard error of up to {each}."]


def units(metrics: Mapping[str, Metric]) -> str:
    """What scores are, and on which tasks where they differ."""
    by_title: dict[str, list[str]] = {}
    for task, metric in metrics.items():
        by_title.setdefault(titled(metric), []).append(task)
    if len(by_title) == 1:
        return next(iter(by_title))
    return "; ".join(f"{title} on {', '.join(tasks)}" for title, tasks in by_title.items())


def rates(found: Mapping[tuple[str, str], Optimum]) -> str:
    """How many searches have their optimum inside."""
    if not found:
        return "No rate was tried yet"
    where = Counter(one.where for one in found.values())
    searched = len(found) - where[FIXED]
    if not searched:
        return "All learning rates are fixed by the study's file"
    ends = where[LARGEST] + where[SMALLEST]
    parts = [f"{where[INSIDE]} of {counted(searched, 'search', 'searches')} have the best rate inside what was tried"]
    parts += [f"{ends} at an end of it"] if ends else []
    parts += [f"{where[LEVEL]} score the same at every rate"] if where[LEVEL] else []
    parts += [f"{where[ONE]} with one rate so far"] if where[ONE] else []
    away = sum(bool(one.ran_away) for one in found.values())
    parts += [f"in {away} numbers ran away somewhere"] if away else []
    return ", ".join(parts)


def one_rate(known: Sequence[AtRate]) -> str:
    """What one rate for all methods costs."""
    if not (common := common_rate(known)):
        return ""
    fine, rate = [one for one in common if not math.isinf(one.mean)], common[0].rate
    total = len({one.label for one in known})
    said = f"{rate:.3g}, at which {len(common)} of {counted(total, 'method')} {'was' if total == 1 else 'were'} tried,"
    if not fine:
        return f"At {said} numbers ran away"
    worst, least = max(fine, key=lambda one: one.mean), min(fine, key=lambda one: one.mean)
    costs = cost(worst.mean)
    if len(fine) > 1:
        costs = f"{cost(least.mean)} to {costs}"
        costs += f", the most with {worst.label}" if worst.mean > least.mean else ""
    where = ", on average over tasks" if any(one.tasks > 1 for one in fine) else ""
    lost = f"; in {counted(len(common) - len(fine), 'method')} numbers ran away" if len(fine) < len(common) else ""
    return f"At {said} validation scores are below the best rate's{where}, by {costs}{lost}"


def one_rate_notes(known: Sequence[AtRate]) -> list[str]:
    """What the table of rates shows."""
    several = any(one.tasks > 1 for one in known)
    means = "the mean over tasks on which it was searched, in brackets the most on one. " if several else ""
    return [
        f"How far the validation score at a rate is below that at the best rate{' of the task: ' if several else '. '}"
        f"{means}These are single runs, and the best of several owes part of its lead to chance: some distance is to "
        "be expected of rates that are equally good. Searches in which all scores are the same are left out."
    ]


def losses(cells: Sequence[Cell]) -> str:
    """How many losses fall, and how many on the validation part rise again."""
    ends = [(curve[0][1], curve[-1][1]) for cell in cells for curve in curves(cell)]
    if not ends:
        return "No training losses are recorded"
    fallen = sum(last < first - 0.05 * abs(first) for first, last in ends)
    said = f"The training loss ends more than 5 % lower than it began in {fallen} of {counted(len(ends), 'run')}"
    held_out = [[loss for _, loss in curve] for cell in cells for curve in validation_curves(cell)]
    if not held_out:
        return said
    risen = sum(own[-1] > min(own) + 0.05 * abs(min(own)) for own in held_out)
    return f"{said}, the validation loss more than 5 % above its lowest in {risen} of {len(held_out)}"


def costs_of(device: str, found: Sequence[Cost], reference: str | None) -> str:
    """Between which times steps lie on a device."""
    seconds = sorted(cost.seconds for cost in found)
    said = f"{device}: a step takes {seconds[0]:.3g} to {seconds[-1]:.3g} s"
    beaten = [cost.seconds for cost in found if cost.label == reference]
    return f"{said}, {statistics.fmean(beaten):.3g} s with {reference}" if beaten else said
