from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from axtune.evaluate.intervals import (
    CHRF,
    LOSS,
    MANY,
    MEAN,
    PERPLEXITY,
    mcnemar,
    measure,
    measure_shares,
    newcombe,
    swap_test,
    wilson,
)
from axtune.evaluate.text import chrf, chrf_counts

CELLS = st.integers(min_value=0, max_value=60)


# --- Shares ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [  # Newcombe, Statistics in Medicine 17, 1998, 857-872, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (0, 10, 0.0, 0.2775),
    ],
)
def test_wilsons_interval_as_published(right, n, low, high):
    found = wilson(right, n)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)
    assert found.value == right / n


@pytest.mark.parametrize(
    ("cells", "low", "high"),
    [
        # Altman and others, Statistics with Confidence, 2000, p. 52: a stress test with thallium.
        ((14, 5, 0, 22), 0.011, 0.226),
        # Fagerland, Lydersen and Laake, Statistical Analysis of Contingency Tables, 2017, ch. 8.
        ((59, 6, 16, 80), -0.1186, -0.0046),
        ((1, 1, 7, 12), -0.5069, -0.0256),
    ],
)
def test_newcombes_interval_as_published(cells, low, high):
    found = newcombe(*cells)
    assert (found.low, found.high) == pytest.approx((low, high), abs=6e-4)


@given(both=CELLS, gained=CELLS, lost=CELLS, neither=CELLS)
def test_the_interval_of_a_difference_keeps_its_bounds_and_its_symmetry(
    both, gained, lost, neither
):
    if not both + gained + lost + neither:
        with pytest.raises(ValueError, match="not less than 1"):
            newcombe(both, gained, lost, neither)
        return
    found = newcombe(both, gained, lost, neither)
    assert -1 <= found.low <= found.value <= found.high <= 1
    other_way = newcombe(both, lost, gained, neither)
    assert (other_way.low, other_way.high) == pytest.approx((-found.high, -found.low))
    other_side = newcombe(neither, gained, lost, both)  # wrong for right, old for new
    assert (other_side.low, other_side.high) == pytest.approx((found.low, found.high))


@pytest.mark.parametrize("both", [10, 5, 0])
def test_without_a_discordant_pair_the_interval_says_how_little_is_known(both):
    found = newcombe(both, 0, 0, 10 - both)
    assert found.value == 0
    assert found.low == pytest.approx(-found.high)
    assert 0.1 < found.high < 0.3
    assert mcnemar(0, 0) == 1


def test_mcnemars_test_is_exact():
    assert mcnemar(5, 0) == pytest.approx(2 / 2**5)
    assert mcnemar(6, 0) == mcnemar(0, 6) == pytest.approx(2 / 2**6)
    assert mcnemar(9, 1) == pytest.approx(2 * (1 + 10) / 2**10)


@pytest.mark.parametrize(
    ("gained", "lost", "verdict"),
    [
        (0, 0, "cannot be told"),
        (5, 0, "cannot be told"),
        (12, 0, "better"),
        (0, 12, "worse"),
        (12, 10, "cannot be told"),
        (30, 10, "better"),
    ],
)
def test_what_a_difference_of_shares_says(gained, lost, verdict):
    before = [True] * lost + [False] * gained + [True] * 10 + [False] * 10
    after = [False] * lost + [True] * gained + [True] * 10 + [False] * 10
    found = measure_shares("accuracy", "all", after, before)
    assert found.verdict == verdict
    assert (found.metric, found.category, found.n) == ("accuracy", "all", len(after))
    assert found.value == wilson(sum(after), len(after))
    assert found.before == wilson(sum(before), len(before))
    assert found.difference is not None
    assert found.difference.value == pytest.approx((gained - lost) / len(after))


def test_five_questions_that_all_became_right_do_not_say_better():
    assert measure_shares("accuracy", "all", [True] * 5, [False] * 5).verdict == "cannot be told"


def test_a_share_alone_has_no_verdict():
    found = measure_shares("accuracy", "parallel", [True, False, True])
    assert (found.before, found.difference, found.verdict) == (None, None, None)


def test_shares_over_several_samples_are_drawn_by_question():
    before = [0.25, 0.5, 0.0, 0.25] * 10
    found = measure_shares("accuracy", "all", [0.75, 1.0, 0.5, 0.5] * 10, before)
    assert found.verdict == "better"
    assert found.value.low < found.value.value == 0.6875 < found.value.high
    # All right in every sample: as much is known as of that many questions, not more.
    assert measure_shares("accuracy", "all", [1.0] * 8).value == wilson(8, 8)


@pytest.mark.parametrize("values", [[], [1.5], [-0.1], [float("nan")]], ids=str)
def test_what_is_no_share_is_refused(values):
    with pytest.raises(ValueError, match=r"question|share|finite"):
        measure_shares("accuracy", "all", values)


def test_other_questions_are_refused():
    with pytest.raises(ValueError, match="3 questions are held against 2"):
        measure_shares("accuracy", "all", [True] * 3, [True] * 2)
    with pytest.raises(ValueError, match="3 questions are held against 2"):
        measure("mean", "all", MEAN, [1.0] * 3, [1.0] * 2)


# --- Everything else ------------------------------------------------------------------------------


def test_the_interval_of_a_mean_is_scipys_bca():
    values = np.random.default_rng(1).lognormal(size=40)
    found = measure("seconds", "all", MEAN, values)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, rng=np.random.default_rng(2)
    ).confidence_interval
    assert found.value.value == pytest.approx(values.mean())
    assert found.value.low == pytest.approx(expected.low, rel=0.05)
    assert found.value.high == pytest.approx(expected.high, rel=0.05)
    assert measure("seconds", "all", MEAN, values) == found  # the draws have a seed


@given(
    values=st.lists(
        st.tuples(*[st.floats(min_value=0, max_value=100)] * 2), min_size=1, max_size=30
    )
)
def test_a_figure_stands_inside_of_its_interval_whatever_the_values(values):
    after, before = zip(*values, strict=True)
    found = measure("mean", "all", MEAN, after, before)
    assert found.difference is not None
    for estimate in (found.value, found.before, found.difference):
        assert estimate is not None
        assert estimate.low <= estimate.value <= estimate.high
        assert np.isfinite([estimate.low, estimate.high]).all()
    assert found.difference.value == pytest.approx(np.mean(after) - np.mean(before), abs=1e-9)
    if len(values) < 10:
        assert found.verdict == "cannot be told"


def test_a_handful_of_questions_that_all_gained_the_same_says_nothing():
    assert measure("mean", "all", MEAN, [9.0] * 9, [1.0] * 9).verdict == "cannot be told"
    assert measure("mean", "all", MEAN, [9.0] * 30, [1.0] * 30).verdict == "better"
    assert measure("mean", "all", MEAN, [1.0] * 30, [9.0] * 30).verdict == "worse"
    assert measure("mean", "all", MEAN, [1.0] * 30, [1.0] * 30).verdict == "cannot be told"


def test_few_questions_have_students_interval() -> None:
    values = [1.0, 2.5, 2.0, 4.0, 3.5]
    found = measure("seconds", "all", MEAN, values).value
    expected = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected)


def test_students_interval_covers_where_the_bootstrap_would_not() -> None:
    rng, covered = np.random.default_rng(0), 0
    for _ in range(400):
        found = measure("mean", "all", MEAN, rng.normal(size=5)).value
        covered += found.low <= 0 <= found.high
    assert covered / 400 > 0.93


@pytest.mark.parametrize("n", [1, 3, 9, 10, 40])
def test_values_without_spread_leave_room_within_the_range(n: int) -> None:
    share = 1 - 0.025 ** (1 / n)
    counts = [chrf_counts("같은 답입니다", ["같은 답입니다"])] * n
    other = [chrf_counts("다른 말", ["같은 답입니다"])] * n
    found = measure("chrf", "all", CHRF, counts, other)
    assert (found.value.value, found.value.high) == (100, 100)
    assert found.value.low == pytest.approx(100 - 100 * share)
    assert found.difference is not None
    gained = found.difference.value
    low = gained - share * (gained + 100)
    assert found.difference.low == pytest.approx(low if n >= 10 else min(low, 0))
    assert found.difference.high == pytest.approx(gained + share * (100 - gained))
    same = measure("chrf", "all", CHRF, other, other).difference
    assert same is not None
    assert (same.low, same.high) == pytest.approx((-100 * share, 100 * share))
    halves = measure_shares("accuracy", "all", [0.5] * n)
    assert (halves.value.low, halves.value.high) == pytest.approx(
        (0.5 - share / 2, 0.5 + share / 2)
    )


def test_equal_differences_of_different_values_leave_room_as_well() -> None:
    before = [0.25, 0.5, 0.0, 0.25]
    found = measure_shares("accuracy", "all", [one + 0.25 for one in before], before).difference
    assert found is not None
    assert found.low < 0 < 0.25 < found.high


def test_an_interval_keeps_to_what_the_figure_can_be() -> None:
    nats = np.array([[0.1, 10.0], [9.0, 10.0], [0.1, 10.0]])
    loss, perplexity = (measure("m", "all", one, nats).value for one in (LOSS, PERPLEXITY))
    assert (loss.low, perplexity.low) == (0, 1)
    share = measure_shares("accuracy", "all", [0.0, 0.0, 0.75]).value
    assert share.low == 0
    assert share.high <= 1


def test_the_swap_test_is_exact_where_it_can_be():
    assert swap_test([1.0] * 5) == pytest.approx(2 / 2**5)
    assert swap_test([3.0, 2.0, 1.0, 0.0]) == pytest.approx(2 / 2**3)
    assert swap_test([0.0, 0.0]) == 1
    assert swap_test([0.0, 2.0, 0.0]) == 1
    assert swap_test([1.0] * 40) < 0.01
    assert swap_test([1.0, -1.0] * 20) == 1


def test_a_loss_is_the_mean_over_all_tokens_and_lower_is_better():
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, 50, 30)
    before = np.stack([tokens * rng.normal(2.0, 0.1, 30), tokens], axis=1)
    after = before - np.array([0.3, 0.0]) * tokens[:, None]
    loss = measure("loss", "사내 문서", LOSS, after, before)
    assert loss.value.value == pytest.approx(after[:, 0].sum() / tokens.sum())
    assert loss.difference is not None
    assert loss.difference.value == pytest.approx(-0.3)
    assert loss.verdict == "better"
    perplexity = measure("perplexity", "사내 문서", PERPLEXITY, before, after)
    assert perplexity.value.value == pytest.approx(np.exp(before[:, 0].sum() / tokens.sum()))
    assert perplexity.verdict == "worse"
    assert measure("loss", "all", LOSS, before, before).verdict == "cannot be told"


def test_chrf_is_that_of_the_corpus():
    references = [f"주문 {number}번은 내일 도착합니다." for number in range(40)]
    before = np.array([chrf_counts("모릅니다.", [reference]) for reference in references])
    after = np.array([chrf_counts("내일 도착합니다.", [reference]) for reference in references])
    found = measure("chrf", "all", CHRF, after, before)
    assert found.value.value == pytest.approx(float(chrf(after.sum(axis=0))))
    assert found.before is not None
    assert found.difference is not None
    assert found.difference.value == pytest.approx(found.value.value - found.before.value)
    assert found.verdict == "better"


def test_thousands_of_questions_take_a_moment():
    values = np.random.default_rng(0).random((2 * MANY, 2))
    found = measure("mean", "all", MEAN, values[:, 0], values[:, 1]).difference
    assert found is not None
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.sqrt(2 / 12 / (2 * MANY)), rel=0.1)


# --- The interval and the words -------------------------------------------------------------------


@given(both=CELLS, gained=CELLS, lost=CELLS, neither=CELLS)
def test_a_share_is_called_better_exactly_when_its_interval_leaves_0_out(
    both, gained, lost, neither
):
    n = both + gained + lost + neither
    if not n:
        return
    after = [True] * (both + gained) + [False] * (lost + neither)
    before = [True] * both + [False] * gained + [True] * lost + [False] * neither
    found = measure_shares("accuracy", "all", after, before)
    assert says_the_same(found)
    whole = newcombe(both, gained, lost, neither)
    assert found.difference.low <= whole.low
    assert found.difference.high >= whole.high


@given(
    values=st.lists(st.tuples(*[st.floats(min_value=-3, max_value=9)] * 2), min_size=2, max_size=14)
)
def test_a_mean_is_called_better_exactly_when_its_interval_leaves_0_out(values):
    after, before = zip(*values, strict=True)
    assert says_the_same(measure("mean", "all", MEAN, after, before))


def says_the_same(found):
    low, high = found.difference.low, found.difference.high
    if low == high:  # the questions tell no interval
        return True
    return (found.verdict == "cannot be told") is (low <= 0 <= high)


def test_where_the_test_does_not_agree_the_interval_reaches_to_0() -> None:
    """Newcombe's interval of 4 gained of 12 leaves 0 out; McNemar's test says 0.125."""
    assert newcombe(0, 4, 0, 8).low > 0
    found = measure_shares("accuracy", "all", [True] * 4 + [False] * 8, [False] * 12)
    assert (found.difference.low, found.verdict) == (0, "cannot be told")


def test_a_difference_is_no_wider_than_the_figures_let_it_be() -> None:
    """Two models that say the same have equal parts, whose spread is none."""
    texts = ["내일 도착합니다", "모릅니다", "서울은 맑습니다", "네"]
    counts = [chrf_counts(text, ["내일 도착할 예정입니다"]) for text in texts]
    found = measure("chrf", "all", CHRF, counts, counts)
    assert found.difference.value == 0
    assert found.difference.high == pytest.approx(found.value.high - found.value.low)
    assert found.difference.high < 100 * (1 - 0.025 ** (1 / 4))
    for one in (found.value, found.before):
        assert 0 <= one.low <= one.value <= one.high <= 100


def test_one_question_tells_no_interval_of_a_loss() -> None:
    found = measure("loss", "all", LOSS, [(20.0, 10.0)], [(30.0, 10.0)])
    assert not any(one.is_bounded for one in (found.value, found.before, found.difference))
    assert found.verdict == "cannot be told"


# --- Coverage: intervals of models whose difference is known --------------------------------------


@pytest.mark.parametrize(
    ("n", "cells"),
    [
        (20, (0.5, 0.2, 0.1, 0.2)),
        (20, (0.9, 0.05, 0.05, 0.0)),
        (50, (0.3, 0.3, 0.05, 0.35)),
        (149, (0.6, 0.15, 0.05, 0.2)),
    ],
)
def test_the_interval_of_a_difference_of_shares_covers(n, cells):
    truth, count = cells[1] - cells[2], 400
    drawn = np.random.default_rng(0).multinomial(n, cells, count).tolist()
    found = [newcombe(*row) for row in drawn]
    covered = np.mean([one.low <= truth <= one.high for one in found])
    assert covered > 0.92


def test_equal_models_are_seldom_told_apart():
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(300):
        before, after = rng.random((2, 30)) < 0.6
        wrong += measure_shares("accuracy", "all", after, before).verdict != "cannot be told"
    assert wrong <= 0.05 * 300


def test_the_bootstrap_of_a_paired_difference_covers_and_errs_seldom():
    rng = np.random.default_rng(0)
    covered, wrong, count = 0, 0, 150
    for _ in range(count):
        shared = rng.gamma(2.0, size=30)  # questions differ more than models do
        before, after = shared + rng.gamma(1.0, 0.5, (2, 30))
        found = measure("mean", "all", MEAN, after, before)
        assert found.difference is not None
        covered += found.difference.low <= 0 <= found.difference.high
        wrong += found.verdict != "cannot be told"
    assert covered / count > 0.87
    assert wrong / count < 0.09


# --- Clusters -------------------------------------------------------------------------------------


@given(
    answers=st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(0, 1)), min_size=1),
)
@settings(max_examples=25, deadline=None)
def test_clusters_of_one_question_change_nothing(answers) -> None:
    after, before, shares = zip(*answers, strict=True)
    alone = [f"rows.jsonl:{number}" for number in range(len(answers))]
    for figures in ((after, before), (after, None), (shares, after)):
        plain = measure_shares("accuracy", "all", *figures)
        assert measure_shares("accuracy", "all", *figures, alone) == plain
    assert measure("m", "all", MEAN, shares, after, alone) == measure(
        "m", "all", MEAN, shares, after
    )


def test_as_many_clusters_as_questions_are_wanted() -> None:
    with pytest.raises(ValueError, match="3 questions are of 2 clusters"):
        measure_shares("accuracy", "all", [True] * 3, clusters=[1, 2])


def test_questions_that_say_the_same_tell_no_more_than_one_of_them() -> None:
    """Four turns that are always right or wrong together, in 40 conversations."""
    once = [True, True, True, False] * 10
    four = [one for one in once for _ in range(4)]
    clusters = [number // 4 for number in range(160)]
    found = measure_shares("accuracy", "all", four, clusters=clusters)
    assert (found.n, found.clusters, found.value.value) == (160, 40, 0.75)
    plain = wilson(30, 40)
    width = (found.value.high - found.value.low) / (plain.high - plain.low)
    assert 1 < width < 1.06  # Student's for 40 clusters
    right = measure_shares("accuracy", "all", [True] * 160, clusters=clusters).value
    expected = wilson(40, 40)
    assert (right.low, right.high) == pytest.approx((expected.low, expected.high))


def test_what_the_questions_of_a_cluster_are_worth_as_published() -> None:
    """The design effect of Kish: 1 + (m - 1) of the correlation within clusters of m."""
    rng = np.random.default_rng(0)
    clusters, m, correlation = 4000, 4, 0.3
    chance = rng.beta(0.5 * (1 / correlation - 1), 0.5 * (1 / correlation - 1), clusters)
    answers = rng.random((clusters, m)) < chance[:, None]
    numbers = np.repeat(np.arange(clusters), m).tolist()
    found = measure_shares("accuracy", "all", answers.ravel().tolist(), clusters=numbers).value
    plain = wilson(int(answers.sum()), clusters * m)
    worse = ((found.high - found.low) / (plain.high - plain.low)) ** 2
    assert worse == pytest.approx(1 + (m - 1) * correlation, rel=0.05)


def test_questions_that_are_less_alike_than_chance_are_worth_no_more() -> None:
    found = measure_shares("m", "all", [True, False] * 40, clusters=[n // 2 for n in range(80)])
    plain = wilson(40, 80)
    assert found.value.high - found.value.low >= plain.high - plain.low


def test_a_share_of_clusters_is_right_by_all_to_the_bit() -> None:
    for n in range(4, 40):
        found = measure_shares(
            "m", "all", [True] * 3 + [False] * (n - 3), clusters=[0, 1, 2] + [2] * (n - 3)
        )
        assert found.value.value == 3 / n
        none = measure_shares("m", "all", [False] * n, clusters=[0, *range(n - 1)]).value
        assert (none.low, none.value) == (0, 0)


@pytest.mark.parametrize("right", [0, 2, 5])
def test_one_conversation_is_as_one_question(right) -> None:
    answers = [True] * right + [False] * (5 - right)
    found = measure_shares("accuracy", "all", answers, [False] * 5, [7] * 5)
    assert found.value.high - found.value.low > 0.75
    assert (found.verdict, found.clusters) == ("cannot be told", 1)
    losses = measure("loss", "all", LOSS, [(2.0, 1.0)] * 3, [(3.0, 1.0), (4.0, 1.0), (9.0, 1.0)])
    assert losses.difference.is_bounded
    one = measure("loss", "all", LOSS, [(2.0, 1.0)] * 3, [(3.0, 1.0)] * 3, ["a"] * 3)
    assert not any(each.is_bounded for each in (one.value, one.before, one.difference))
    assert one.verdict == "cannot be told"


def test_a_few_conversations_of_many_turns_do_not_say_better() -> None:
    clusters = [number // 10 for number in range(60)]
    after, before = [number < 30 for number in range(60)], [False] * 60
    assert measure_shares("accuracy", "all", after, before).verdict == "better"
    assert measure_shares("accuracy", "all", after, before, clusters).verdict == "cannot be told"


def test_figures_are_of_all_questions_whatever_their_clusters() -> None:
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 25, 80).tolist()
    nats = np.column_stack([rng.gamma(2.0, 10.0, 80), rng.integers(5, 50, 80)])
    counts = rng.integers(1, 9, (80, 18))
    for figure, parts in ((LOSS, nats), (PERPLEXITY, nats), (CHRF, counts), (MEAN, nats[:, 0])):
        plain = measure("m", "all", figure, parts, parts**0.9)
        found = measure("m", "all", figure, parts, parts**0.9, numbers)
        assert found.clusters == len(set(numbers)) < 80
        assert found.value.value == pytest.approx(plain.value.value)
        assert found.before.value == pytest.approx(plain.before.value)
        assert found.difference.value == pytest.approx(plain.difference.value)
        assert says_the_same(found)


@pytest.mark.parametrize(("conversations", "share"), [(10, 0.8), (30, 0.5), (60, 0.95)])
def test_the_interval_of_a_share_covers_where_turns_are_alike(conversations, share) -> None:
    rng, count = np.random.default_rng(0), 400
    turns, spread = np.array([1, 2, 3, 8]), 1 / 0.4 - 1  # correlated by 0.4
    covered = np.zeros(2)
    for _ in range(count):
        clusters = np.repeat(np.arange(conversations), rng.choice(turns, conversations))
        chance = rng.beta(share * spread, (1 - share) * spread, conversations)
        right = (rng.random(len(clusters)) < chance[clusters]).tolist()
        for way, of in enumerate((None, clusters.tolist())):
            found = measure_shares("accuracy", "all", right, clusters=of).value
            covered[way] += found.low <= share <= found.high
    old, new = covered / count
    assert old < 0.85
    assert 0.92 < new < 0.98


def test_the_interval_of_a_difference_covers_where_turns_are_alike() -> None:
    """Of equal models, which are each good at conversations of their own."""
    rng, count, conversations = np.random.default_rng(0), 100, 30
    covered, told = np.zeros(2), np.zeros(2)
    for _ in range(count):
        clusters = np.repeat(np.arange(conversations), rng.choice([1, 2, 3, 8], conversations))
        after, before = rng.random((2, len(clusters))) < rng.beta(0.5, 0.5, (2, 30))[:, clusters]
        for way, of in enumerate((None, clusters.tolist())):
            found = measure_shares("accuracy", "all", after.tolist(), before.tolist(), of)
            covered[way] += found.difference.low <= 0 <= found.difference.high
            told[way] += found.verdict != "cannot be told"
    old, new = covered / count
    assert old < 0.85
    assert new > 0.92
    assert told[1] <= 0.08 * count < told[0]
