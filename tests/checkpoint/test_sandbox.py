"""Templates are stopped when they write or compute without bounds."""

from __future__ import annotations

import jinja2
import pytest

from axtune.checkpoint import sandbox


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'a' * 10 ** 10 }}",
        "{{ 'a' | center(10 ** 10) }}",
        "{{ 'a'.ljust(9999999999) }}",
        "{{ '%9999999999d' % 1 }}",
        "{{ 9 ** 999999 }}",
        "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{%endfor%}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    ],
)
def test_it_is_stopped(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "SECONDS", 0.3)
    monkeypatch.setattr(sandbox, "_CHARACTERS", 1 << 20)
    with pytest.raises(jinja2.TemplateRuntimeError), sandbox.time_limit():
        sandbox.BoundedSandbox().from_string(template).render()


def test_what_templates_do_is_as_before() -> None:
    template = "{{ 'a' ~ 1 ~ none }}{{ 'b' * 3 }}{{ 'x' | indent(2, true) }}{{ 2 ** 3 + 1 }}"
    assert sandbox.BoundedSandbox().from_string(template).render() == "a1Nonebbb  x9"
