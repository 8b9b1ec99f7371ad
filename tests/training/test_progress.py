from __future__ import annotations

import io
import math

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


def test_without_a_terminal_every_event_is_a_plain_line():
    text = run(Console(file=io.StringIO(), force_terminal=False))
    lines = text.splitlines()
    assert "\x1b" not in text
    assert "\r" not in text
    assert lines[0] == "hello"
    assert lines[1].split() == ["model", "tiny"]
    assert lines[2].split() == ["steps", "4"]
    assert lines[3].startswith("step 1/4  loss 8.0000  lr 1.00e-04  1,001 tokens/s")
    assert lines[3].endswith("left")
    assert lines[5] == "step 2/4  eval loss 5.0000"
    assert len(lines) == 3 + len(EVENTS)


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
