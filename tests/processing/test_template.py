"""Chat templates render as transformers renders them; those that would loop or grow without end are refused."""

import time

import PIL.Image
import pytest
from transformers import AutoTokenizer

from vlm_jax.errors import InputError
from vlm_jax.processing import chat, template, template_bounds

MESSAGES = [
    {"role": "system", "content": "  Be brief.\n"},
    {"role": "user", "content": [{"type": "image", "image": "a.jpg"}, {"type": "text", "text": "What's <it>? 100 %"}]},
    {"role": "assistant", "content": "A cat.\n\nNo: a dog & a bone"},
    {"role": "user", "content": "Sure? {{ braces }}"},
    {"role": "assistant", "content": "<think>hm</think>Yes – ¿sí?"},
]
# ruff: noqa: E501 - templates are easier read in one line
SAME = {
    "loops": "{% for m in messages %}{{ loop.index }}/{{ loop.length }}{{ loop.last }}{{ loop.previtem.role if not "
    "loop.first }}{{ loop.cycle('a', 'b') }}{{ loop.revindex0 }}:{{ m.role }}\n{% else %}none{% endfor %}",
    "loops with tests": "{% for m in messages if m.role == 'user' %}{{ loop.index0 }}{{ m['role'] }}{% endfor %}",
    "break and continue": "{% for m in messages %}{% if loop.index == 2 %}{% continue %}{% endif %}{{ m.role }}"
    "{% if loop.index == 4 %}{% break %}{% endif %}{% endfor %}",
    "namespaces": "{% set ns = namespace(n=0, text='') %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
    "{% set ns.text = ns.text ~ m.role ~ ns.n %}{% endfor %}{{ ns.text }}{{ ns.missing }}",
    "macros": "{% macro say(m, end='!') -%}<{{ m.role|upper }}>{{ caller() if caller else '' }}{{ end }}{%- endmacro %}"
    "{% for m in messages %}{{ say(m) }}{{ say(m, end=loop.index) }}{% endfor %}"
    "{% call say(messages[0]) %}called{% endcall %}",
    "set blocks": "{% set all %}{% for m in messages %}[{{ m.role }}]{% endfor %}{% endset %}{{ all|length }}{{ all }}",
    "filters": "{{ messages|map(attribute='role')|join(', ') }}{{ messages|selectattr('role', 'equalto', 'user')|list|"
    "length }}{{ (messages|rejectattr('role', 'in', ['user'])|first).content|trim }}{{ messages|last|tojson }}"
    "{{ messages[1]|tojson(indent=2) }}{{ 'a,b'|replace(',', '<br>')|upper }}{{ messages[0]|dictsort }}"
    "{{ messages[0].items()|list }}{{ 'x'|center(9) }}{{ 'a\nb'|indent(3) }}{{ nothing|default('d') }}{{ [3,1]|sort }}"
    "{{ '<&>'|e }}{{ '%s-%03d'|format('a', 7) }}{{ '3'|int + 4 }}{{ messages|string|length > 9 }}{{ 3.7|round|int }}",
    "text": "{{ messages[2].content.split('\n\n')[-1].strip() }}{{ messages[4].content.split('</think>')[-1] }}"
    "{{ messages[0].content.lstrip() }}{{ messages[3].content.startswith('Sure') }}{{ 'a' * 3 }}{{ 'a-%s' % 'b' }}"
    "{{ messages[2]['content'][:5] }}{{ '{}|{:>4}'.format('x', 2) }}{{ ','.join(['a', 'b']) }}{{ 'ab'.replace('a', '') }}",
    "numbers": "{{ 2 ** 10 }} {{ 7 // 2 }} {{ 7 % 4 }} {{ 1.5 * 2 }} {{ [1] + [2] }} {{ (1, 2) * 2 }} {{ range(3)|list }}",
    "tests": "{% for m in messages %}{{ m.content is string }}{{ m.content is iterable }}{{ m is mapping }}"
    "{{ m.tool_calls is defined }}{{ m.x is none }}{{ 'user' in m.role }}{% endfor %}"
    "{{ tools is none }}{{ documents }}{{ add_generation_prompt }}{{ bos_token is defined }}{{ eos_token }}",
    "white space": "  {% if true %}\n  {%- for m in messages -%}\n   {{ m.role }} \n{% endfor +%}\n {# comment #}\n  {% endif %}\n",
    "generation": "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}"
    "{% endif %}{% endfor %}",
    "filter blocks": "{% filter upper %}{% for m in messages %}{{ m.role }}{% endfor %}{% endfilter %}"
    "{% with a = 1 %}{{ a }}{% endwith %}{% raw %}{{ kept }}{% endraw %}",
    "images": "{% for m in messages if m.content is not string %}{% for p in m.content %}{% if p.type == 'image' or "
    "'image' in p %}<|image_pad|>{% else %}{{ p.text }}{% endif %}{{ p }}{% endfor %}{% endfor %}",
    "iterators": "{% set it = messages|map(attribute='role') %}{{ it|first }}{{ it|list }}{{ it|list }}",
    "slices and comparisons": "{{ messages[1:]|length }}{{ messages[-1].role == 'user' }}{{ 'user' in messages[0].role }}"
    "{{ messages[0] == messages[0] }}{{ [1, 2] < [1, 3] }}{{ 'x' is in ['x'] }}{{ {'a': 1, 2: 3}[2] }}{{ messages[0]['role'][::-1] }}"
    "{{ 7 - 2.5 }}{{ 7 / 2 }}{{ [3, 1]|max }}{{ [[1], [2]]|sum(start=[]) }}{{ 2.345|round(2) }}{{ ['b', 'b']|unique|list }}",
    "fromkeys": "{{ dict.fromkeys(['a', 'b'], 1) }}",
    "dict": "{% set d = dict(messages[0], more=1) %}{{ d }}{{ d.get('more') }}{{ d.keys()|list }}",
}
ENDLESS = {
    "loops in loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "loops that are filters": "{% for a in range(99999) %}{{ range(99999)|sum }}{% endfor %}",
    "lazy filters": "{% for a in range(99999) %}{% set x = range(99999)|map('string')|list %}{% endfor %}",
    "macros that call themselves": "{% macro f(n) %}{{ f(n - 1) }}{{ f(n - 1) if n else '' }}{% endmacro %}{{ f(99) }}",
    "calls two by two": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(200) }}",
    "recursive loops": "{% for a in [[1, 1]] recursive %}{{ loop([[1, 1], [1, 1]]) }}{% endfor %}",
    "much text": "{% for a in range(99999) %}{% for b in range(99) %}{{ messages[0].content * 9 }}{% endfor %}{% endfor %}",
    "much text in a block": "{% set x %}{% for a in range(99999) %}" + "words " * 999 + "{% endfor %}{% endset %}",
    "a product": "{{ 'a' * 10000000000 }}",
    "a product of a list": "{{ [0] * 10000000000 }}",
    "a product from the left": "{{ 10000000000 * 'a' }}",
    "a power": "{{ 10 ** (10 ** 8) }}",
    "doubling": "{% set n = namespace(x='aa') %}{% for a in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "joining": "{% set n = namespace(x='aa') %}{% for a in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "replacing": "{% set n = namespace(x='aa') %}{% for a in range(9) %}{% set n.x = n.x|replace('a', n.x) %}{% endfor %}",
    "replacing by a method": "{% set x = 'a' * 99999 %}{{ x.replace('a', x) }}",
    "lists in lists": "{% set n = namespace(x=['aa']) %}{% for a in range(99) %}{% set n.x = [n.x, n.x] %}{% endfor %}"
    "{{ n.x }}",
    "join": "{% set x = 'a' * 99999 %}{{ range(99999)|join(x) }}",
    "join by a method": "{% set x = 'a' * 99999 %}{{ x.join(['b'] * 99999) }}",
    "a width": "{{ 'a'|center(10000000000) }}",
    "a width of a method": "{{ 'a'.ljust(10000000000) }}",
    "a width in a form": "{{ '%9999999999d' % 1 }}",
    "a width in a filter's form": "{{ '%9999999999d'|format(1) }}",
    "a width beside a form": "{{ '%*d' % (10000000000, 1) }}",
    "a width in braces": "{{ '{:>9999999999}'.format(1) }}",
    "an indent": "{{ messages|tojson(indent=1000000000) }}",
    "an indent of lines": "{{ ('\n' * 99999)|indent(99999) }}",
    "shared lists compared": "{% set n = namespace(a=[1], b=[1]) %}{% for i in range(60) %}{% set n.a = [n.a, n.a] %}{% set n.b = [n.b, n.b] %}"
    "{% endfor %}{{ n.a == n.b }}",
    "shared lists looked for": "{% set n = namespace(a=[1], b=[1]) %}{% for i in range(60) %}{% set n.a = [n.a, n.a] %}{% set n.b = [n.b, n.b] %}"
    "{% endfor %}{{ n.a in [n.b] }}",
    "shared tuples hashed": "{% set n = namespace(a=(1,)) %}{% for i in range(40) %}{% set n.a = (n.a, n.a) %}{% endfor %}{{ {n.a: 1}|length }}",
    "shared tuples unique": "{% set n = namespace(a=(1,)) %}{% for i in range(40) %}{% set n.a = (n.a, n.a) %}{% endfor %}{{ [n.a]|unique|list }}",
    "shared tuples sorted": "{% set n = namespace(a=(1,)) %}{% for i in range(60) %}{% set n.a = (n.a, n.a) %}{% endfor %}{{ [n.a, n.a]|sort }}",
    "shared tuples as keys": "{% set n = namespace(a=(1,)) %}{% for i in range(40) %}{% set n.a = (n.a, n.a) %}{% endfor %}{{ {}[n.a] }}{{ {}.get(n.a) }}",
    "shared lists tested": "{% set n = namespace(a=[1], b=[1]) %}{% for i in range(60) %}{% set n.a = [n.a, n.a] %}{% set n.b = [n.b, n.b] %}"
    "{% endfor %}{{ n.a is eq(n.b) }}",
    "slices": "{% set a = 'xxxxxxxxxx' * 60000 %}{% for i in range(90000) %}{% set b = a[1:] %}{% set b = a[2:] %}{% endfor %}",
    "slices that are kept": "{% set a = 'xxxxxxxxxx' * 60000 %}{% set n = namespace(l=[]) %}{% for i in range(9000) %}{% set n.l = [n.l, a[1:]] %}{% endfor %}",
    "pieces that are kept": "{% set a = 'xxxxxxxx x' * 60000 %}{% set n = namespace(l=[]) %}{% for i in range(9000) %}{% set n.l = [n.l, a.split(' ')] %}{% endfor %}",
    "lists looked in": "{% set a = range(100000)|list %}{% for i in range(100000) %}{% if -1 in a %}{% endif %}{% endfor %}",
    "texts compared": "{% set a = 'xxxxxxxxxx' * 60000 %}{% set b = a ~ 'x' %}{% for i in range(90000) %}{% if a == b %}{% endif %}{% endfor %}",
    "texts looked in": "{% set a = 'xxxxxxxxxx' * 60000 %}{% set b = a[:99999] ~ 'b' %}{% for i in range(90000) %}{% if b in a %}{% endif %}{% endfor %}",
    "rounding": "{{ 5|round(-999999999) }}",
    "large numbers": "{{ ('fffffffff' * 60000)|int(base=16) // 3 }}",
    "sums of lists": "{% set l = range(99999)|list %}{% set n = namespace(q=[l]) %}{% for i in range(14) %}{% set n.q = n.q + n.q %}{% endfor %}{{ n.q|sum(start=[])|length }}",
    "long literals": "{% for i in range(90000) %}{% set q = [" + "x," * 10000 + "] %}{% endfor %}",
    "long literals in macros": "{% macro f() %}{% set q = ["
    + "x," * 10000
    + "] %}{% endmacro %}{% for i in range(90000) %}{% set q = f() %}{% endfor %}",
    "long chains": "{% for i in range(99999) %}{% set q = i.real" + ".real" * 101 + " %}{% endfor %}",
    "translations": "{{ ('xxxxxxxxxx' * 30000).translate({120: 'bbbbbbbbbbbbbbbbbbbb' * 3000})|length }}",
    "joined bytes": "{{ ('xxxxxxxxxxxxxxxxxxxx' * 3000).encode().join([''.encode()] * 60000)|length }}",
    "formatted bytes": "{{ '%999999999d'.encode() % 1 }}",
    "bytes": "{{ (1).to_bytes(10000000000, 'big') }}",
    "many words": "{{ lipsum(n=100000) }}",
    "a form over and over": "{{ ('{0:>{1}}' * 9999).format('a', 99999) }}",
    "batches": "{{ [1]|batch(10000000000, 'a')|list }}",
}


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder):
    return AutoTokenizer.from_pretrained(tokenizer_folder)


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("generation_prompt", [False, True])
def test_templates_render_as_transformers_renders_them(tokenizer, name, generation_prompt):
    expected = tokenizer.apply_chat_template(
        MESSAGES, chat_template=SAME[name], tokenize=False, add_generation_prompt=generation_prompt
    )
    options = {"generation_prompt": generation_prompt, **tokenizer.special_tokens_map}
    assert template.render(SAME[name], MESSAGES, **options) == expected and expected


def test_images_in_memory_are_names_of_their_types_as_in_transformers(tokenizer):
    part = {"type": "image", "image": PIL.Image.new("RGB", (2, 2))}
    messages = [{"role": "user", "content": [part, {"type": "image", "image": b"bytes"}], "name": None}]
    text = "{{ messages }}{{ messages[0].content[0].image.save is defined }}"
    expected = tokenizer.apply_chat_template(messages, chat_template=text, tokenize=False)
    assert template.render(text, messages, generation_prompt=False) == expected
    assert "<Image>" in expected and "False" in expected


@pytest.mark.parametrize("name", ENDLESS)
def test_templates_without_an_end_are_refused_soon(tokenizer, name, monkeypatch):
    monkeypatch.setattr(
        template_bounds, "WORK", template_bounds.WORK // 25
    )  # some seconds otherwise, and as many more for each test
    began = time.monotonic()
    with pytest.raises(InputError) as caught:
        chat.render(tokenizer, ENDLESS[name], MESSAGES)
    assert time.monotonic() - began < 30
    (error,) = caught.value.lines
    assert error.startswith("the chat template cannot render this conversation: ") and len(error) < 300


@pytest.mark.parametrize("text", ["{{ ''.__class__ }}", "{% set n = namespace(__x__=1) %}{{ n.__x__ }}",
                                  "{{ messages.append(1) }}", "{% include 'a' %}", "{% for m in messages %}"])  # fmt: skip
def test_what_the_sandbox_refuses_stays_refused(tokenizer, text):
    try:
        expected = tokenizer.apply_chat_template(MESSAGES, chat_template=text, tokenize=False)
    except Exception:
        with pytest.raises(InputError):
            chat.render(tokenizer, text, MESSAGES)
    else:
        assert chat.render(tokenizer, text, MESSAGES) == expected


@pytest.mark.parametrize(("turns", "letters"), [(2, 3_000_000), (400, 2_000), (500, 10)])
def test_long_conversations_are_within_bounds(tokenizer, turns, letters):
    messages = [{"role": ("user", "assistant")[n % 2], "content": "word " * (letters // 5)} for n in range(turns)]
    text = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content|trim|replace('word', 'words') }}"
        "{{ m.content.split(' ')|length }}<|im_end|>\n{% endfor %}"
    )
    expected = tokenizer.apply_chat_template(messages, chat_template=text, tokenize=False)
    assert template.render(text, messages, generation_prompt=False) == expected
