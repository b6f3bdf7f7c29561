"""Colours, type and the one style sheet. A segment has the same colour wherever it appears.

Colours are those of Okabe and Ito (https://jfly.uni-koeln.de/color/), which people with any colour vision can tell
apart; a colour never says anything that a word beside it does not say. Must never be repeated elsewhere as literals.
"""

from typing import Any

import altair as alt

from schemas.http_api.outlook import SegmentName

BLUE, SKY, GREEN, ORANGE, VERMILLION, PURPLE = "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7"
INK, MUTED, LINE, SURFACE, PAPER = "#1F2933", "#52606D", "#D9DEE3", "#F5F7F9", "#FFFFFF"
SEGMENT_COLOURS: dict[SegmentName, str] = {
    "high_value": BLUE,
    "medium_high_value": GREEN,
    "medium_value": ORANGE,
    "at_risk": VERMILLION,
}
PLUS, MINUS = BLUE, VERMILLION
"""What adds to a prediction and what takes away; the sign is always written too."""
LINK = "#005F94"
HEAT = ["#F5F9FC", "#CFE3F1", "#8FC1E0", "#3D94C7", "#0072B2", "#004D7A"]
FONT = '"Source Sans", "Source Sans 3", "Source Sans Pro", sans-serif'

STREAMLIT_OPTIONS: dict[str, Any] = {
    "theme.base": "light",
    "theme.primaryColor": BLUE,
    "theme.backgroundColor": PAPER,
    "theme.secondaryBackgroundColor": SURFACE,
    "theme.textColor": INK,
    "theme.linkColor": LINK,
    "theme.borderColor": LINE,
    "theme.showWidgetBorder": True,
    "theme.baseRadius": "8px",
    "theme.baseFontSize": 16,
    "theme.headingFontSizes": ["1.75rem", "1.25rem", "1.05rem"],
    "theme.headingFontWeights": [650, 600, 600],
}

LOGO = f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 196 32" width="196" height="32">
<rect x="1" y="17" width="6" height="12" rx="2" fill="{SKY}"/><rect x="10" y="11" width="6" height="18" rx="2"
fill="{BLUE}"/><rect x="19" y="4" width="6" height="25" rx="2" fill="{GREEN}"/>
<text x="35" y="23" font-family="Source Sans Pro, Source Sans, Helvetica, Arial, sans-serif" font-size="19"
font-weight="600" fill="{INK}">Customer value</text></svg>"""

STYLE = f"""<style>
.stMainBlockContainer {{ max-width: 1240px; padding: 4.5rem 1.5rem 3rem; }}
.clv-lead {{ color: {MUTED}; margin: -.6rem 0 .4rem; max-width: 60rem; }}
.clv-figures {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: .75rem;
  margin: 0; padding: 0 !important; }}
.clv-figures.beside {{ grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); }}
.clv-figures > div {{ border: 1px solid {LINE}; border-radius: 8px; padding: .7rem .9rem .75rem; min-width: 0; }}
.clv-figures dt {{ color: {MUTED}; font-size: .875rem; line-height: 1.3; }}
.clv-figures dd {{ margin: .1rem 0 0; font-size: 1.5rem; font-weight: 600; line-height: 1.25; overflow-wrap: anywhere;
  font-variant-numeric: tabular-nums; }}
.clv-figures dd + dd {{ color: {MUTED}; font-size: .875rem; font-weight: 400; }}
.clv-badge {{ display: inline-flex; align-items: center; gap: .4rem; }}
td .clv-badge {{ white-space: nowrap; }}
.clv-figures .clv-badge {{ font-size: 1.25rem; }}
.clv-badge::before {{ content: ""; flex: none; width: .7em; height: .7em; border-radius: 3px; background: var(--c); }}
.clv-scroll {{ overflow-x: auto; border: 1px solid {LINE}; border-radius: 8px; }}
.clv-scroll table {{ border-collapse: collapse; width: 100%; font-size: .9375rem; font-variant-numeric: tabular-nums; }}
.clv-scroll caption {{ position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }}
.clv-scroll th {{ background: {SURFACE}; color: {MUTED}; font-size: .8125rem; font-weight: 600; text-align: left;
  white-space: nowrap; }}
.clv-scroll th, .clv-scroll td {{ padding: .45rem .75rem; border-bottom: 1px solid {LINE}; vertical-align: baseline; }}
.clv-scroll tbody tr:last-child td {{ border-bottom: 0; }}
.clv-scroll td {{ white-space: nowrap; }}
.clv-scroll td.wide {{ white-space: normal; min-width: 15rem; color: {MUTED}; }}
.clv-scroll a {{ color: {LINK}; }}
.clv-scroll .right {{ text-align: right; }}
.clv-scroll tr.strong td {{ font-weight: 600; background: #EEF6FB; }}
.clv-panel {{ border-left: 4px solid var(--c); background: {SURFACE}; border-radius: 0 8px 8px 0;
  padding: .7rem 1rem .75rem; }}
.clv-panel b {{ display: block; font-size: 1.0625rem; }}
.clv-panel p {{ margin: .15rem 0 0; }}
.clv-panel code {{ overflow-wrap: anywhere; }}
.clv-quiet {{ color: {MUTED}; font-size: .875rem; margin: 0; }}
.st-key-live [data-stale="true"] {{ opacity: 1 !important; }}
a:focus-visible, button:focus-visible, input:focus-visible, [role="button"]:focus-visible, [role="tab"]:focus-visible,
.clv-scroll:focus-visible, summary:focus-visible {{ outline: 3px solid {BLUE} !important; outline-offset: 2px; }}
[data-testid="stMain"]:focus-visible {{ outline: 3px solid {BLUE}; outline-offset: -3px; }}
@media (max-width: 640px) {{
  .stMainBlockContainer {{ padding: 4rem 1rem 2rem; }}
  .clv-figures, .clv-figures.beside {{ grid-template-columns: repeat(2, minmax(0, 1fr)); gap: .5rem; }}
  .clv-figures dd {{ font-size: 1.25rem; }}
  .clv-figures .clv-badge {{ font-size: 1.0625rem; }}
}}
</style>"""


Chart = alt.Chart | alt.LayerChart | alt.FacetChart


def chart_config(chart: Chart) -> Chart:
    """The chart with the product's type and lines."""
    axis = {
        "labelColor": MUTED,
        "titleColor": MUTED,
        "titleFontWeight": "normal",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "gridColor": "#E8ECEF",
        "domainColor": LINE,
        "tickColor": LINE,
        "labelOverlap": True,
    }
    legend = {"labelColor": INK, "titleColor": MUTED, "labelFontSize": 12, "orient": "top", "title": None}
    configured: Chart = (
        chart.configure(font=FONT, background="transparent")
        .configure_axis(**axis)
        .configure_legend(**legend)
        .configure_view(stroke=None)
        .configure_text(font=FONT, fontSize=12, color=INK)
    )
    return configured
