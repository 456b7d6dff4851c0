"""The page of a trace: one HTML file that loads nothing and runs no scripts."""

from __future__ import annotations

from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup, escape

# System colours follow the reader's light or dark mode by themselves.
_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; color: CanvasText; background: Canvas; max-width: 900px;
       margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.3em; } h2 { font-size: 1.05em; margin: 1.5em 0 0.3em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.1em 1em 0.1em 0; text-align: right; font-weight: normal; }
th { text-align: left; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; font: 15px/1.8 ui-monospace, monospace;
        border: 1px solid GrayText; border-radius: 6px; padding: 0.8em; }
.prompt { color: GrayText; }
.t, .key { border-radius: 3px; box-shadow: inset 1px 0 rgb(128 128 128 / 0.35); padding: 2px 0; }
.t:hover { outline: 2px solid Highlight; }
.t:empty::before { content: "\\b7"; opacity: 0.5; }
.newline::before { content: "\\21b5"; opacity: 0.5; }
.key { padding: 2px 0.5em; margin-right: 0.5em; white-space: nowrap; }
.bar { display: inline-block; height: 0.8em; background: rgb(128 128 128 / 0.6); vertical-align: middle; }
.wide { width: 20em; text-align: left; padding-right: 0; }
.note { color: GrayText; font-size: 0.9em; }
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>specee trace</title>
<style>{{ style }}
{%- for swatch in colours %}
.{{ swatch.name }} { background: {{ swatch.colour }}; border-bottom: {{ swatch.line }}; }
{%- endfor %}
</style>
</head>
<body>
<h1>Where each token came from{% if policy %}: {{ policy }}{% endif %}</h1>
<p class="legend">
{%- for swatch in colours %}<span class="key {{ swatch.name }}">{{ swatch.label }}</span>{% endfor -%}
<span class="key {{ full }}">full model</span><span class="key prompt">prompt</span></p>
<div class="text"><span class="prompt">{{ prompt|verbatim }}</span>
{%- for piece in pieces -%}
<span class="t {{ piece.kind }}{% if newline in piece.text %} newline{% endif %}" title="{{ piece.title }}">
{{- piece.text|verbatim -}}
</span>
{%- endfor -%}
</div>
<p class="note">Coloured tokens were drafted by what the colour stands for, and confirmed by the full model.
Point at a token for more. &middot; is a token whose character a later one completes.</p>
<h2>Summary</h2>
<table>
<tr><th>new tokens</th><td>{{ new_tokens }}</td></tr>
<tr><th>rounds</th><td>{{ statistics.steps|length }}</td></tr>
<tr><th>tokens a round after the first</th><td>{{ "%.2f"|format(statistics.tokens_per_round) }}</td></tr>
<tr><th>drafted</th><td>{{ statistics.acceptance.drafted }}</td></tr>
<tr><th>accepted</th><td>{{ statistics.acceptance.accepted }}</td></tr>
{%- if statistics.acceptance.drafted %}
<tr><th>acceptance</th><td>{{ statistics.acceptance.rate|percent }}</td></tr>
{%- endif %}
</table>
{%- if sources %}
<h2>By source</h2>
<table>
<tr><th></th><th>drafted</th><th>accepted</th><th>acceptance</th></tr>
{%- for label, share in sources %}
<tr><th>{{ label }}</th><td>{{ share.drafted }}</td><td>{{ share.accepted }}</td>
<td>{{ share.rate|percent }}</td></tr>
{%- endfor %}
</table>
<h2>Rounds by accepted drafts</h2>
<table class="histogram">
{%- set most = statistics.accepted_histogram.values()|max %}
{%- for accepted, count in statistics.accepted_histogram.items() %}
<tr><th>{{ accepted }}</th><td>{{ count }}</td>
<td class="wide"><span class="bar" style="width: {{ (count / most)|percent }}"></span></td></tr>
{%- endfor %}
</table>
{%- endif %}
{%- if shares %}
<h2>Time after the prompt: {{ "%.2f"|format(statistics.seconds) }} s</h2>
<table class="shares">
{%- for name, share in shares %}
<tr><th>{{ name }}</th><td>{{ share|percent }}</td>
<td class="wide"><span class="bar" style="width: {{ share|percent }}"></span></td></tr>
{%- endfor %}
</table>
{%- endif %}
</body>
</html>
"""


def render(**values: Any) -> str:
    """The page. Every text among ``values`` is escaped."""
    return _template().render(style=Markup(_STYLE), newline="\n", **values)


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"verbatim": _verbatim, "percent": lambda share: f"{share:.1%}"}
    return environment.from_string(_PAGE)


def _verbatim(text: str) -> Markup:
    """Escaped, and with carriage returns that HTML would not read as line feeds."""
    return Markup(str(escape(text)).replace("\r", "&#13;"))
