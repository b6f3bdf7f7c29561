"""Tables and figures: what comes from outside stays text."""

from services.dashboard import markup
from services.dashboard.markup import Column, Figure

EVIL = "<img src=x onerror=alert(1)>"


def test_nothing_from_outside_becomes_markup():
    parts = [
        markup.table(EVIL, [Column(EVIL)], [[EVIL]]),
        markup.figures([Figure(EVIL, EVIL, EVIL)]),
        markup.panel(EVIL, EVIL),
        markup.lead(EVIL),
        markup.quiet(EVIL),
        markup.customer_link(f'"{EVIL}').source,
    ]
    assert all("<img" not in part for part in parts)


def test_a_customers_link_survives_any_id():
    assert 'href="/customer?id=a%2Fb%3Fc%26d"' in markup.customer_link("a/b?c&d").source


def test_a_table_has_what_a_screen_reader_needs_and_can_be_scrolled_by_keyboard():
    text = markup.table("Orders", [Column("Day"), Column("Value", right=True)], [["1 May 2026", "$3.00"]], strong=0)
    assert "<caption>Orders</caption>" in text
    assert text.count('scope="col"') == 2
    assert 'tabindex="0"' in text
    assert '<tr class="strong">' in text


def test_a_segment_is_said_in_words_beside_its_colour():
    assert "At risk" in markup.badge("at_risk").source
    assert "At risk" in markup.figures([Figure("Segment", "", "", "at_risk")])
