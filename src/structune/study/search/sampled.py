"""A search whose tries are drawn: by Optuna's samplers, or all of a grid. The same number for every method."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from structune.errors import UserError
from structune.study.search.points import Point, RangeSection, SearchSection, Space, listed
from structune.study.search.tries import Try, best_of

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

_AGAIN = 4
"""How often a sampler is asked anew where it comes to a point that was tried; then points are drawn at random."""

_AT_RANDOM = 500


class Choice(NamedTuple):
    """How far a search has come.

    Attributes:
        missing: what to try now, side by side, by the number of the try; none: the search is over.
        best: what scored best; None where numbers ran away everywhere, and before the search is over.
        later: how many tries come after these.
    """

    missing: dict[int, Point]
    best: Point | None
    later: int = 0


Scores = Mapping[int, tuple[Point, float]]
"""Of tries by their number; NaN where numbers ran away."""


def check_sampler(section: SearchSection, space: Space) -> None:
    """Raises `UserError` where Optuna is wanted and not there, or a grid is not what the file says."""
    if section.sampler != "grid":
        _optuna(section.sampler)
    elif (points := len(_grid(space))) != section.trials:
        raise UserError(f"search.trials = {section.trials}: the grid has {points} points; give trials: {points}")


def sampled(space: Space, section: SearchSection, scores: Scores, greater_is_better: bool = True) -> Choice:
    """The tries that are left, and the best of them all at the end.

    The first third of the tries, and three at least, are drawn at random, the same for every method; each of the others
    follows from all before it. Nothing is kept between calls: a try follows from its number, the seed and the scores
    of those before it, on any machine and after any stop. No point is tried twice; where there are fewer than `trials`,
    all are tried.

    Args:
        space: what is searched.
        section: how: the sampler, how many tries, the seed.
        scores: of what was tried; where numbers ran away, the worst of the others counts.
        greater_is_better: what is best, the greatest score or the least.
    """
    sampler, trials = section.sampler, section.trials
    scores = {number: scored for number, scored in scores.items() if number < trials}
    if sampler == "grid":
        wanted = dict(enumerate(_grid(space)))
        missing = {number: point for number, point in wanted.items() if number not in scores}
        return Choice(missing, None) if missing else Choice({}, _best(scores, greater_is_better))
    _optuna(sampler)
    points: dict[int, Point] = {}
    missing = {}
    independent = trials if sampler == "random" else min(trials, max(3, trials // 3))
    for number in range(trials):
        if number in scores:
            points[number] = scores[number][0]
            continue
        if number >= independent and missing:
            return Choice(missing, None, trials - number)
        before = [] if number < independent else [scores[each] for each in range(number) if each in scores]
        tried = {*points.values(), *(point for point, _ in scores.values())}
        name = "random" if number < independent else sampler
        point = _drawn(space, name, (section.seed, number), before, tried, greater_is_better)
        if point is None:
            break
        points[number] = missing[number] = point
        if number >= independent:
            return Choice(missing, None, trials - number - 1)
    return Choice(missing, None) if missing else Choice({}, _best(scores, greater_is_better))


def _best(scores: Scores, greater_is_better: bool) -> Point | None:
    return best_of((Try(point, score, number) for number, (point, score) in scores.items()), greater_is_better)


def _grid(space: Space) -> list[Point]:
    """All points; each range has to say which values it has."""
    if endless := [name for name, each in space.items() if each.values() is None]:
        raise UserError(f"search.ranges.{endless[0]}: a grid wants choices, or a step")
    return listed(space)


def _drawn(
    space: Space,
    sampler: str,
    seed: tuple[int, int],
    before: Sequence[tuple[Point, float]],
    tried: set[Point],
    greater_is_better: bool,
) -> Point | None:
    """A point that was not tried; None: there is none."""
    optuna = _optuna(sampler)
    fine = [score for _, score in before if not math.isnan(score)]
    worst = (min if greater_is_better else max)(fine, default=0.0)
    fixed = {name: values[0] for name, each in space.items() if len(values := each.values() or []) == 1}
    distributions = {name: _distribution(each) for name, each in space.items() if name not in fixed}
    told = [
        optuna.trial.create_trial(
            params={name: point.values()[name] for name in distributions},
            distributions=distributions,
            value=worst if math.isnan(score) else score,
        )
        for point, score in before
    ]
    if not fine:
        sampler, told = "random", []
    for attempt in range(_AGAIN + _AT_RANDOM):
        number = random.Random(repr((*seed, attempt))).randrange(2**32)
        if attempt >= _AGAIN:
            sampler, told = "random", []
        study = optuna.create_study(
            sampler=_made(sampler, number), direction="maximize" if greater_is_better else "minimize"
        )
        study.add_trials(told)
        drawn = study.ask(distributions).params
        given = fixed | {name: space[name].rounded(value) for name, value in drawn.items()}
        if (point := Point.of({name: given[name] for name in space})) not in tried:
            return point
    return None


def _made(sampler: str, seed: int) -> Any:
    samplers = _optuna(sampler).samplers
    if sampler == "random":
        return samplers.RandomSampler(seed=seed)
    if sampler == "tpe":
        return samplers.TPESampler(seed=seed, n_startup_trials=0)
    return samplers.GPSampler(seed=seed, n_startup_trials=0)


def _distribution(each: RangeSection) -> BaseDistribution:
    from optuna import distributions

    if each.choices is not None:
        return distributions.CategoricalDistribution(each.choices)
    low, high = each.ends()
    if each.whole:
        return distributions.IntDistribution(int(low), int(high), each.log, int(each.step or 1))
    return distributions.FloatDistribution(low, high, each.log, each.step)


def _optuna(sampler: str) -> Any:
    """Optuna, which keeps to itself. Raises `UserError` where it is not installed."""
    try:
        import optuna
    except ImportError:
        raise UserError(
            f"search.sampler = {sampler!r}: needs Optuna; `pip install 'structune[study]'`, or take sampler: grid"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
