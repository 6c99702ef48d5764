"""What a hostile chat template may not do: reach the machine, or use up its time and memory."""

import time

import pytest
from jinja2.exceptions import SecurityError, TemplateError

from ondol.text import template_sandbox
from ondol.text.template_sandbox import CompiledTemplate, RenderTooLarge


def test_text_without_an_end_is_stopped(monkeypatch):
    monkeypatch.setattr(template_sandbox, "MAX_RENDERED_CHARS", 1000)
    with pytest.raises(RenderTooLarge, match="more than 1000 characters"):
        CompiledTemplate("{% for _ in range(1001) %}x{% endfor %}").render({})


def test_loops_inside_loops_are_stopped_also_when_they_write_nothing():
    source = "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}"
    begin_s = time.monotonic()
    with pytest.raises(RenderTooLarge, match="counts more than"):
        CompiledTemplate(source).render({})
    assert time.monotonic() - begin_s < template_sandbox.MAX_RENDER_S


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'x' * 100000000 }}",
        "{{ 100000000 * 'x' }}",
        "{{ [0] * 100000000 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ 'x'.ljust(1000000000) }}",
        "{{ 'x'.zfill(1000000000) }}",
        "{{ 'x' | center(1000000000) }}",
        "{{ lipsum(100000) }}",
        "{% set big = range(10000000) %}{{ big | list | length }}",
    ],
)
def test_a_number_does_not_become_that_much_memory(source):
    with pytest.raises(TemplateError):
        CompiledTemplate(source).render({})


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ raise_exception.__globals__ }}{{ raise_exception.__globals__['json'] }}",
        "{{ ('{0.__class__.__mro__}').format('') }}",
    ],
)
def test_the_machine_behind_the_template_is_out_of_reach(source):
    with pytest.raises((SecurityError, TemplateError)):
        CompiledTemplate(source).render({"messages": []})


def test_ordinary_templates_keep_their_tools():
    source = (
        "{% for x in range(3) %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endfor %}"
        "{% generation %}{{ 'a' * 3 }}{% endgeneration %}{{ '{} {}'.format('b', 'c') }}{{ 7 % 4 }}"
        "{{ {'한글': 1} | tojson(indent=2) }}{{ 'ab' | upper | indent(2) }}{{ strftime_now('%Y') | length }}"
    )
    assert CompiledTemplate(source).render({}) == '02aaab c3{\n  "한글": 1\n}AB4'
