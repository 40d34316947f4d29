import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raft_text.reasoning.answers import LETTERS, choice, extract_choice, extract_number, same_number
from raft_text.reasoning.numbers import number
from raft_text.reasoning.numerals import as_text, literal
from raft_text.reasoning.stated import final


def every(*strategies):
    return lambda test: settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])(given(*strategies)(test))


SIGNS = {
    "-": lambda text: text,
    "typographic minus": lambda text: text.replace("-", "−"),
}
# Around any number.
DRESSES = [
    "{}",
    " {} ",
    "{}.",
    "**{}**",
    "${}$",
    "\\({}\\)",
    "{} apples",
    "{}kg",
    "{} km/h",
    "{} m^2",
    "{} m²",
    "{}%",
    "{} \\%",
    "{} percent",
    "{} dollars.",
    "{}\\text{{ cm}}",
    "{}^\\circ",
    "({})",
    "x = {}",
    "3 + 4 = {}",
    "about ≈ {}",
    "Tom has {} apples",
    "USD {}",
    "Rs. {}",
    "{}, because it is",
    "{}: done",
    "{} (rounded)",
]
CURRENCIES = ["$", "\\$", "€", "£", "¥", "₹", "US$"]
MARKERS = [
    "Work: 2 + 2 = 4.\nTherefore, the answer is: {}",
    "Therefore, the answer is: {}\n",
    "some steps\n#### {}",
    "So \\boxed{{{}}} it is.",
    "First \\boxed{{1}}, no: $\\boxed{{ {} }}$",
    "The answer is {}",
    "**Final answer:** {}",
    "Answer:\n\n{}\nand more",
    "The answer is 7. No. Therefore, the answer is: {}",
]

whole = st.integers(-(10**12), 10**12)
decimals = st.decimals(min_value=-(10**9), max_value=10**9, allow_nan=False, allow_infinity=False, places=4)


@every(st.one_of(whole, decimals), st.sampled_from(DRESSES), st.sampled_from(MARKERS), st.sampled_from(list(SIGNS)))
def test_plain_numbers_survive_any_dress(value, dress, marker, sign):
    stated = dress.format(SIGNS[sign](f"{value}"))
    assert number(stated) == float(value)
    assert extract_number(marker.format(stated)) == float(value)


@every(st.one_of(whole, decimals), st.sampled_from([",", "{,}", "\\,", "\u202f", "\u2009", "\u00a0"]), st.sampled_from(DRESSES))
def test_thousands_separators(value, separator, dress):
    assert number(dress.format(f"{value:,}".replace(",", separator))) == float(value)


@every(st.integers(-(10**6), 10**6), st.integers(1, 10**6), st.sampled_from(DRESSES))
def test_fractions(top, bottom, dress):
    sign, size = "-" * (top < 0), abs(top)
    forms = [
        f"{sign}{size}/{bottom}",
        f"{sign}{size} / {bottom}",
        f"{sign}\\frac{{{size}}}{{{bottom}}}",
        f"{sign}\\dfrac{{{size}}}{{{bottom}}}",
        f"{sign}\\tfrac {{{size}}} {{{bottom}}}",
        f"\\frac{{{top}}}{{{bottom}}}",
        f"{sign}{size:,}/{bottom:,}",
    ]
    for form in forms:
        assert number(dress.format(form)) == top / bottom, form


@every(st.integers(0, 10**6), st.integers(1, 999), st.integers(1, 999), st.booleans(), st.sampled_from(DRESSES))
def test_mixed_numbers(units, over, under, negative, dress):
    value = (-1 if negative else 1) * (units + over / under)
    sign = "-" * negative
    for form in (
        f"{sign}{units} {over}/{under}",
        f"{sign}{units}\\frac{{{over}}}{{{under}}}",
        f"{sign}{units} and {over}/{under}",
    ):
        assert number(dress.format(form)) == pytest.approx(value, rel=1e-15), form


@every(st.integers(0, 999), st.sampled_from("½⅓¼¾⅔⅛⅞"))
def test_vulgar_fractions(units, sign):
    part = {"½": 1 / 2, "⅓": 1 / 3, "¼": 1 / 4, "¾": 3 / 4, "⅔": 2 / 3, "⅛": 1 / 8, "⅞": 7 / 8}[sign]
    assert number(f"{units}{sign} cups") == pytest.approx(units + part)
    assert number(f"-{sign}") == -part


@every(decimals, st.integers(-30, 30), st.sampled_from(DRESSES))
def test_scientific_notation(mantissa, exponent, dress):
    value = float(f"{mantissa}e{exponent}")
    raised = str(exponent).translate(str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"))
    forms = [
        f"{mantissa}e{exponent}",
        f"{mantissa}E{exponent:+03d}",
        f"{mantissa} × 10^{exponent}",
        f"{mantissa}*10^{exponent}",
        f"{mantissa} x 10^{exponent}",
        f"{mantissa} \\times 10^{{{exponent}}}",
        f"{mantissa} \\cdot 10^{{{exponent}}}",
        f"{mantissa} × 10{raised}",
    ]
    for form in forms:
        assert number(dress.format(form)) == value, form
    assert number(f"10^{{{exponent}}}") == float(f"1e{exponent}")


@every(decimals, st.sampled_from(CURRENCIES), st.sampled_from(["{}", "{}.", "**{}**", "{} each", "costs {}"]))
def test_currency(value, currency, dress):
    size = abs(value)
    sign = "-" * (value < 0)
    assert number(dress.format(f"{sign}{currency}{size:,}")) == float(value)
    assert number(dress.format(f"{currency}{sign}{size}")) == float(value)


@every(st.floats(allow_nan=False, allow_infinity=False))
def test_what_a_program_returns(value):
    assert literal(repr(value)) == value
    assert literal(as_text(value)) == value
    assert number(repr(value)) == value


@every(st.text(max_size=60))
def test_any_text_is_read_without_an_error(text):
    for value in (number(text), extract_number(text), literal(text)):
        assert value is None or math.isfinite(value)
    assert extract_choice("answer: " + text) in (None, *LETTERS)


@pytest.mark.parametrize(
    "text",
    (
        "",
        "none",
        *("twelve", "3 * 4", "3 × 4", "3 + 4", "2^10", "5 - 3", "3 x 4", "3:4", "3/4/5", "1/0", "12,34", "1.2.3", "1,2345"),
        *("\\sqrt{2}", "2\\sqrt{3}", "√2", "2π", "\\frac{x}{2}", "sqrt(2)", "x2", "A5", "COVID-19", "1e999", "10^9999"),
    ),
)
def test_what_is_no_number(text):
    assert number(text) is None


def test_the_last_marker_counts_and_the_first_number_after_it():
    assert final("The answer is: 3\nTherefore, the answer is: 4 of 10") == "4 of 10"
    assert extract_number("The answer is: 3\nTherefore, the answer is: 4 of 10") == 4
    assert extract_number("\\boxed{3} … Therefore, the answer is: 4") == 4
    assert extract_number("Therefore, the answer is: $\\boxed{\\frac{1}{2}}$ of it") == 0.5
    assert extract_number("\\boxed 7") == 7


@pytest.mark.parametrize(
    "text", ["It is 42.", "Therefore, the answer is:", "Therefore, the answer is:\n \n", "\\boxed{42", "####"]
)
def test_a_text_that_states_no_answer(text):
    assert extract_number(text) is None


def test_the_tolerance_is_absolute():
    assert same_number(10.009, 10)
    assert not same_number(10.02, 10)
    assert not same_number(1_000_000, 1_000_001)
    assert same_number(0.0, 0.005)
    assert same_number(11, 10, tolerance=1)


LETTER_FORMS = [
    "{}",
    "({})",
    "{})",
    "{} )",
    "{}.",
    "**{}**",
    "**({})**",
    "option {}",
    "Option ({})",
    "the correct choice is {}",
    "{}. 12 apples",
    "{} ) rs . 400",
    "{}) a dog",
    "${}$",
    "\\text{{{}}}",
    "\\text{{({})}}",
    "\\mathrm{{{}}}",
    "[{}]",
    '"{}"',
    "{}, since 3 > 2",
]


@every(st.sampled_from(LETTERS + LETTERS.lower()), st.sampled_from(LETTER_FORMS), st.sampled_from(MARKERS))
def test_letters_survive_any_dress(letter, form, marker):
    assert choice(form.format(letter)) == letter.upper()
    assert extract_choice(marker.format(form.format(letter))) == letter.upper()


@pytest.mark.parametrize("text", ["", "F", "12", "a dog", "A dog", "e.g. 5", "cat", "Dave", "\\alpha", "none of these"])
def test_what_is_no_letter(text):
    assert choice(text) is None


@pytest.mark.parametrize(
    "junk",
    [
        *("9", " ", "1,", "1 ", "-", "=", "{", "\\frac", "answer is ", "1/", "$ ", "a", "^{", "\\text{"),
        *("no, ", "is the answer ", "\n", "\\boxed{1}, ", "<answer>", "Question:\n#### 1\n", "answer, ", "wait, ", "* ", "(1 "),
    ],
)
def test_endless_junk_is_read_at_once(junk):
    """A model that runs wild; a slow regular expression would take hours and meet the test's time limit."""
    for text in (junk * 50_000, "Therefore, the answer is: " + junk * 50_000):
        assert extract_number(text) in (None, 1)
        assert extract_choice(text) is None
