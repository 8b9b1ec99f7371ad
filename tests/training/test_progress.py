from __future__ import annotations

import io
import math

import pytest
from rich.console import Console
from support.events import EVENTS

from axtune.training.progress import Report, event_text


def run(console, **options):
    report = Report(console, **options)
    report.say("hello")
    report.table([("model", "tiny")])
    report.begin(4)
    for event in EVENTS:
        report.step(event["step"])
        report.event(event)
    report.end()
    return console.file.getvalue()


class Clock:
    """Time that passes when a test says so."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr("axtune.training.progress.time", made)
    return made


def lines_of(clock, steps, seconds):
    """What a log shows of a run with an event each step and an evaluation at its end."""
    file = io.StringIO()
    report = Report(Console(file=file, force_terminal=False, width=200))
    report.begin(steps)
    for step in range(1, steps + 1):
        clock.now += seconds
        report.step(step)
        report.event({"step": step, "loss": 1.0, "tokens_per_second": 100.0})
    report.event({"step": steps, "eval_loss": 0.5})
    return file.getvalue().splitlines()[1:]


def test_without_a_terminal_a_line_is_printed_now_and_then(clock):
    lines = lines_of(clock, steps=240, seconds=1)
    assert [line.split()[1] for line in lines] == [
        "1/240", "31/240", "61/240", "91/240", "121/240", "151/240", "181/240", "211/240",
        "240/240", "240/240",
    ]  # fmt: skip
    assert lines[0].startswith("step 1/240  loss 1.0000  100 tokens/s")
    assert lines[0].endswith("left")
    assert lines[-1] == "step 240/240  eval loss 0.5000"
    assert len(lines_of(clock, steps=5, seconds=40)) == 6  # slow steps are told one by one


def test_a_log_has_no_control_codes():
    text = run(Console(file=io.StringIO(), force_terminal=False))
    assert "\x1b" not in text
    assert "\r" not in text
    lines = text.splitlines()
    assert lines[0] == "hello"
    assert lines[1].split() == ["model", "tiny"]
    assert lines[2].split() == ["steps", "4"]
    assert lines[3].startswith("step 1/4  loss 8.0000  lr 1.00e-04  1,001 tokens/s")
    assert "step 2/4  eval loss 5.0000" in lines


def test_the_speed_that_is_shown_is_that_of_the_last_while(clock):
    report = Report(Console(file=io.StringIO()), enabled=False)
    report.begin(1000)
    shown = []
    for step in range(200):  # every fourth step is a short one, four times as fast by its tokens
        seconds, speed = (1.0, 400.0) if step % 4 == 0 else (4.0, 100.0)
        clock.now += seconds
        report.event({"loss": 1.0, "tokens_per_second": speed})
        shown.append(report._shown["tokens_per_second"])
    steady = shown[100:]
    assert max(steady) / min(steady) < 1.15
    assert steady[-1] == pytest.approx((400 * 1 + 3 * 400) / 13, rel=0.1)  # tokens over seconds


def test_on_a_terminal_there_is_one_live_line_that_goes_away():
    text = run(Console(file=io.StringIO(), force_terminal=True, width=120))
    assert "step 4/4" in text
    assert "loss 2.0000" in text
    assert "eval loss 3.0000" in text
    assert text.count("\n") < 3 + len(EVENTS)  # redrawn in place, not printed below each other


def test_a_process_that_is_not_the_main_one_prints_nothing():
    for terminal in (True, False):
        file = io.StringIO()
        assert run(Console(file=file, force_terminal=terminal), enabled=False) == ""


def test_time_left_comes_from_the_pace_of_this_session(monkeypatch):
    clock = 100.0
    monkeypatch.setattr("axtune.training.progress.time.monotonic", lambda: clock)
    report = Report(Console(file=io.StringIO()), enabled=False)
    report.begin(total=100, done=40)
    assert report.time_left() == "time left …"
    clock = 120.0
    report.step(50)  # 10 steps in 20 seconds, 50 to go
    assert report.time_left() == "1m 40s left"
    clock = 130.0  # it counts down while a step is being made
    assert report.time_left() == "1m 30s left"


def test_the_first_step_does_not_spoil_the_time_that_is_left(clock):
    report = Report(Console(file=io.StringIO()), enabled=False)
    report.begin(total=100)
    clock.now += 60  # kernels are built, caches filled
    report.step(1)
    assert report.time_left() == "1h 39m left"
    clock.now += 2
    report.step(2)
    assert report.time_left() == "3m 16s left"


def test_a_loss_that_is_not_a_number_is_shown_as_such():
    assert event_text({"loss": math.nan}) == "loss nan"
    assert event_text({"loss": None, "learning_rate": 1e-4}) == "lr 1.00e-04"


def test_a_preference_event_shows_rewards_before_log_probabilities():
    event = {
        "eval_loss": 0.6929,
        "eval_rewards/chosen": 0.0131,
        "eval_rewards/rejected": -0.0001,
        "eval_rewards/margins": 0.0132,
        "eval_rewards/accuracies": 0.5,
    }
    words = "rewards 0.013/0.000  eval margin 0.013  eval accuracy 50%"
    assert event_text(event) == f"eval loss 0.6929  eval {words}"
    trained = {name.removeprefix("eval_"): value for name, value in event.items()}
    trained |= {"logps/chosen": -302.1, "logps/rejected": -239.9, "kl_k3": 0.0}
    assert event_text(trained) == (
        f"loss 0.6929  {words.replace('eval ', '')}  chosen -302.1  rejected -239.9  kl 0.0000"
    )
    assert "rewards" not in event_text({"loss": 1.0, "rewards/chosen": 0.1})  # KTO, one side only


def test_of_the_figures_of_answers_one_is_shown():
    event = {"eval_chrf": 41.25, "eval_exact": 0.5, "eval_tool_accuracy": 0.875}
    assert event_text(event) == "tool accuracy 87.5%"
    assert event_text({"eval_chrf": 41.25}) == "chrf 41.2"
    file = io.StringIO()
    report = Report(Console(file=file, width=200))
    report.begin(4)
    report.event({"step": 2, **event})
    assert "step 2/4  tool accuracy 87.5%" in file.getvalue()


def test_what_holds_the_steps_up_is_shown_instead_of_the_time_left():
    report = Report(Console(file=io.StringIO()), enabled=False)
    report.begin(4)
    report.busy("answers 3/10")
    assert report.live_text().startswith("answers 3/10 ")
    report.busy()
    assert report.live_text().startswith("time left")


def test_the_loss_by_source_stands_beside_the_whole_where_there_is_room():
    event = {"eval_loss": 2.0, "eval_규정.jsonl_loss": 2.5, "eval_chat.jsonl_loss": 1.5}
    assert event_text(event) == "eval loss 2.0000 (규정.jsonl 2.5000, chat.jsonl 1.5000)"
    many = {f"eval_{number}.jsonl_loss": 1.0 for number in range(9)}
    assert event_text({"eval_loss": 2.0, **many}) == "eval loss 2.0000"
