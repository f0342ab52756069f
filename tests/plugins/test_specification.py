"""Specifications: one text form, read back to equal parameters, with clear errors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpqp_bench.errors import SpecError
from bpqp_bench.plugins.specification import parse_spec
from bpqp_bench.problem.parameters import format_spec, typed_parameters

DEFAULTS = {"eps": 1e-6, "steps": 10, "fixed": False, "mode": "fast"}


def test_parses_name_and_parameters():
    assert parse_spec("qp") == ("qp", {})
    assert parse_spec("qp[]") == ("qp", {})
    assert parse_spec(" qp-active[ margin = 0.1 ,density=0.5] ") == (
        "qp-active",
        {"margin": "0.1", "density": "0.5"},
    )


@pytest.mark.parametrize(
    "text", ["", "qp[", "qp]", "qp[eps]", "qp[=1]", "q p", "qp[a=1]x", "qp[a=[1]]"]
)
def test_malformed_text_is_an_error_that_quotes_it(text):
    with pytest.raises(SpecError) as error:
        parse_spec(text)
    assert repr(text) in str(error.value)


def test_values_take_the_type_of_the_default():
    given_texts = {"eps": "1e-3", "steps": "20", "fixed": "TRUE", "mode": "slow"}
    found = typed_parameters("x", given_texts, DEFAULTS)
    assert found == {"eps": 1e-3, "steps": 20, "fixed": True, "mode": "slow"}
    assert [type(found[key]) for key in found] == [float, int, bool, str]


def test_defaults_are_dropped_however_they_are_written():
    same = {"eps": "0.000001", "steps": "10", "fixed": "no", "mode": "fast"}
    assert typed_parameters("x", same, DEFAULTS) == {}


@pytest.mark.parametrize(
    ("key", "text", "kind"),
    [("eps", "small", "float"), ("steps", "1.5", "int"), ("fixed", "maybe", "bool")],
)
def test_a_value_of_another_type_is_an_error(key, text, kind):
    with pytest.raises(SpecError, match=f"{key}='{text}' of family x is not a {kind}"):
        typed_parameters("family x", {key: text}, DEFAULTS)


def test_an_unknown_key_is_an_error_that_lists_the_known_ones():
    with pytest.raises(SpecError, match="no parameter 'delta'; it has: eps, fixed, mode, steps"):
        typed_parameters("family x", {"delta": "1"}, DEFAULTS)
    with pytest.raises(SpecError, match="it has: none"):
        typed_parameters("family x", {"delta": "1"}, {})


def test_keys_are_sorted_and_flags_lower_case():
    assert format_spec("m", {}) == "m"
    assert format_spec("m", {"b": True, "a": 1e-6, "c": "x"}) == "m[a=1e-06,b=true,c=x]"


def test_different_floats_never_print_alike():
    # "%g" alone keeps six digits, and two settings would share one key in the results.
    assert format_spec("m", {"a": 1e-6}) != format_spec("m", {"a": 1.0000001e-6})


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "eps": st.floats(allow_nan=False, allow_infinity=False),
            "steps": st.integers(),
            "fixed": st.booleans(),
            "mode": st.text("abcxyz-_.0189", min_size=1, max_size=8),
        },
    )
)
def test_what_is_printed_reads_back_the_same(parameters):
    chosen = typed_parameters("x", parameters, DEFAULTS)
    name, texts = parse_spec(format_spec("m", chosen))
    assert name == "m"
    assert typed_parameters("x", texts, DEFAULTS) == chosen
