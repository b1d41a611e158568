"""Loops are found and cut; what people say is left as it is."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.asr.loops import LOOP, REPEATS, TOO_MANY_WORDS, check, kept_words
from tests import corpus
from tests.asr import prompts

property_test = settings(max_examples=300)

words = st.lists(
    st.sampled_from(["the", "a", "dog", "cat", "sat", "on", "mat", "and", "then", "went", "home", "again", "today"]),
    max_size=12,
)


@pytest.fixture(scope="module")
def spoken():
    try:
        found = prompts.prompts()
    except corpus.Missing as reason:
        pytest.skip(str(reason))
    assert len(found) > 500
    return found


def test_no_false_alarm_on_what_is_said(spoken):
    assert [(each.text, each.seconds) for each in spoken if check(each.text, each.seconds).flag] == []


def test_no_false_alarm_on_what_is_said_together(spoken):
    """Neighbours packed into pieces of 40 s: the prompts are dense speech, many begin alike."""
    text, seconds = [], 0.0
    for each in spoken:
        if seconds + each.seconds > 40:
            found = check(" ".join(text), seconds)
            assert found.flag is None, found
            assert found.text == " ".join(text)
            text, seconds = [], 0.0
        text.append(each.text)
        seconds += each.seconds


def test_every_prompt_in_a_loop_is_found(spoken):
    """A decoder that says the prompt and then its last words again until it may say no more."""
    missed = []
    for each in spoken[::3]:
        unit = " ".join(each.text.split()[-4:])
        times = int(each.seconds * 12) // max(1, len(unit.split())) + 8
        looped = each.text + (" " + unit) * times
        found = check(looped, each.seconds)
        if found.flag != LOOP:
            missed.append(looped[:80])
        else:
            assert found.text.split()[: len(each.text.split())] == each.text.split()
            assert len(found.text.split()) <= 2 * len(each.text.split()) + 4
    assert missed == []


@property_test
@given(words, st.lists(st.sampled_from(["one", "two", "three", "four", "five", "six"]), min_size=1, max_size=8), words)
def test_a_loop_is_cut_to_one(before, unit, after):
    seconds = 0.4 * (len(before) + len(unit) + len(after))
    times = int(seconds * 8 / len(unit)) + 30
    before_text, after_text = " ".join(["so", *before, "said"]), " ".join(["hence", *after])
    text = f"{before_text} {' '.join(unit * times)} {after_text}"
    found = check(text, seconds)
    assert found.flag == LOOP
    assert found.text.startswith(before_text)
    assert found.text.endswith(after_text)
    middle = found.text[len(before_text) : len(found.text) - len(after_text)].split()
    assert middle == unit[: len(middle)]
    assert len(middle) >= 1


@property_test
@given(words, st.floats(0, 60))
def test_what_is_left_is_of_the_text_and_checking_again_changes_nothing(said, seconds):
    text = " ".join(said * 5)
    found = check(text, seconds)
    edges = [edge for stretch in found.kept for edge in stretch]
    assert edges == sorted(edges)
    assert found.text.split() == " ".join(text[start:end] for start, end in found.kept).split()
    if found.flag != LOOP:
        assert found.text == text
    else:
        assert len(found.text) < len(text)
        assert check(found.text, seconds).flag in (None, TOO_MANY_WORDS)
        assert check(found.text, seconds).text == found.text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("No, no, no, no, no!", 1.5),
        ("ha ha ha ha", 0.8),
        ("zero zero zero zero seven", 1.6),
        ("Yeah.", 0.15),
        ("one two three four five six seven eight nine ten", 2.0),
        ("Please hold the line. " * 6, 12.0),
        ("row row row your boat gently down the stream merrily merrily merrily merrily life is but a dream", 7.0),
        ("", 0.0),
        ("  ", 3.0),
        ("私は昨日友達と一緒に東京へ行きました。", 3.0),
        ("Donaudampfschifffahrtsgesellschaftskapitän", 2.2),
        ("https://www.example.org/archive/2020/index", 4.0),
    ],
)
def test_what_people_say_is_left(text, seconds):
    assert check(text, seconds) == (text, None, ((0, len(text)),))


@pytest.mark.parametrize(
    ("text", "seconds", "left"),
    [
        ("thank you. " * 100, 5.0, "thank you."),
        ("Well, I think, " + "I think, " * 80 + "I", 4.0, "Well, I think,"),
        ("The " + "very " * 200 + "end.", 3.0, "The very end."),
        ("a" * 400, 2.0, "a"),
        ("He laughed: " + "ha" * 200, 2.0, "He laughed: ha"),
        ("はい" * 100, 4.0, "はい"),
        ("そう、" + "はい" * 100 + "では", 4.0, "そう、はいでは"),
        ("We go. " + "Thank you for watching. " * 30 + "And " + "so on, " * 60, 4.0, None),
    ],
)
def test_loops_of_all_kinds(text, seconds, left):
    found = check(text, seconds)
    assert found.flag == LOOP
    if left is not None:
        assert found.text == left
    assert len(found.text) < len(text) / 4


def test_what_the_time_could_hold_is_marked_and_left():
    text = "thank you " * 20
    assert check(text, 38.0) == (text, REPEATS, ((0, len(text)),))
    assert check("please hold the line " * 7, 12.0).flag is None


def test_many_words_that_do_not_repeat_are_marked_and_left():
    text = " ".join(f"word{number}" for number in range(60))
    assert check(text, 2.0) == (text, TOO_MANY_WORDS, ((0, len(text)),))


def test_words_go_with_the_text():
    text = "Well I " + "think so " * 40 + "yes"
    each = text.split()
    found = check(text, 3.0)
    assert [each[place] for place in kept_words(text, each, found)] == ["Well", "I", "think", "so", "yes"]
    assert found.text == "Well I think so yes"
    same = check("a b c", 3.0)
    assert kept_words("a b c", ["a", "x", "c"], same) == [0, 1, 2]


def test_a_long_text_takes_no_time(spoken):
    text = " ".join(each.text for each in spoken)
    assert check(text, 1500.0).flag is None
