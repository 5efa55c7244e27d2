"""What completions are worth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from structune.errors import UserError
from structune.tasks.parts.verifiers.choice import AnyVerifier
from structune.tasks.parts.verifiers.extraction import extract, same

GOLD = "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\nShe sold 48+24 = <<48+24=72>>72 clips.\n#### 72"


def verifier(given: Any) -> Any:
    return TypeAdapter(AnyVerifier).validate_python(given)


@pytest.mark.parametrize(
    ("rule", "text", "found"),
    [
        ("whole", "  yes \n", "yes"),
        ("whole", " \n", None),
        ("number", "3 of 4 make 1,234.50 in all.", "1,234.50"),
        ("number", "it is -7", "-7"),
        ("number", "none at all", None),
        ("gsm8k", GOLD, "72"),
        ("gsm8k", "#### 5\nno, rather\n####$ 1,000", "1,000"),
        ("gsm8k", "the answer is 72", None),
        ("gsm8k", "####", None),
        ("choice", "It may be B, but I say (C).", "C"),
        ("choice", "The ANSWER is unknown", None),
        ("choice", "A bird. Answer: D", "D"),
        (r"<answer>(.*?)</answer>", "<answer>a\nb</answer> <answer>c</answer>", "c"),
        (r"<answer>(.*?)</answer>", "<answer>a", None),
    ],
)
def test_the_answer_in_a_text(rule: str, text: str, found: str | None) -> None:
    assert extract(rule, text) == found


@pytest.mark.parametrize(
    ("one", "other", "are"),
    [
        ("1,234", "1234.0", True),
        ("$5", "5.00", True),
        ("5.", "5", True),
        ("50%", "50", True),
        ("5", "50", False),
        ("0.1", "0.10000000000000000001", False),
        ("-3", "3", False),
        ("New  York", "new york\n", True),
        ("five", "5", False),
    ],
)
def test_answers_that_are_the_same(one: str, other: str, are: bool) -> None:
    assert same(one, other) is are
    assert same(other, one) is are


def test_exact_match_of_what_is_extracted() -> None:
    check = verifier({"name": "exact-match", "extract": "gsm8k"})
    assert check.reward("so 48 + 24\n#### 72.0", GOLD, {}) == 1.0
    assert check.reward("so 48 + 24 = 72", GOLD, {}) == 0.0
    assert check.reward("#### 71", GOLD, {}) == 0.0
    assert check.reward("#### 72", "72", {}) == 1.0
    assert verifier("exact-match").reward(" Paris", "paris", {}) == 1.0
    assert verifier("exact-match").reward("", "paris", {}) == 0.0


def test_a_form() -> None:
    found = verifier({"name": "regular-expression", "pattern": r"#### \d+$"})
    assert [found.reward(text, None, {}) for text in ("a\n#### 7", "#### 7 b")] == [1.0, 0.0]
    whole = verifier({"name": "regular-expression", "pattern": r"\d+", "whole": True})
    assert [whole.reward(text, None, {}) for text in (" 12\n", "12 birds")] == [1.0, 0.0]


def test_a_length() -> None:
    words = verifier({"name": "length", "least": 4, "most": 10})
    lengths = (0, 1, 4, 10, 15, 20, 300)
    assert [words.reward("w " * n, None, {}) for n in lengths] == [0.0, 0.25, 1.0, 1.0, 0.5, 0.0, 0.0]
    letters = verifier({"name": "length", "most": 3, "unit": "characters"})
    assert [letters.reward(text, None, {}) for text in ("", " abc ", "abcdef")] == [1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("exact", "exact-match"),
        ({"name": "exact-match", "extract": "gsm"}, "gsm8k"),
        ({"name": "exact-match", "extract": "("}, "no regular expression"),
        ({"name": "exact-match", "extract": "(a)(b)"}, "2 groups"),
        ({"name": "regular-expression", "pattern": "["}, "no regular expression"),
        ({"name": "length", "most": 3, "least": 4}, "exchange them"),
    ],
)
def test_what_is_no_verifier(given: Any, told: str) -> None:
    with pytest.raises(ValidationError) as error:
        verifier(given)
    assert told in str(error.value)


class TestFunction:
    """A user's own."""

    @pytest.fixture
    def code(self, tmp_path: Path) -> Any:
        """Makes a verifier of the code of a file."""

        def make(text: str, name: str = "score") -> Any:
            (tmp_path / "rewards.py").write_text(text)
            return verifier(f"{tmp_path / 'rewards.py'}:{name}")

        return make

    def test_gets_the_completion_and_the_row(self, code: Any) -> None:
        own = code("def score(completion, row):\n    return row['least'] <= len(completion)")
        own.check()
        assert own.reward("abc", None, {"least": 3}) == 1.0
        assert own.reward("ab", None, {"least": 3}) == 0.0

    def test_cannot_change_the_row(self, code: Any) -> None:
        row = {"least": 3}
        code("def score(completion, row):\n    row['least'] = 0\n    return 1").reward("", None, row)
        assert row == {"least": 3}

    def test_of_a_module(self) -> None:
        assert verifier("operator:ne").reward("abc", None, {}) == 1.0

    @pytest.mark.parametrize(
        ("text", "name", "told"),
        [
            ("def other(c, r): ...", "score", "no function 'score' in .*it has other"),
            ("score = 3", "score", "no function 'score'"),
            ("import nothing_at_all", "score", "ModuleNotFoundError.*line 1 of rewards.py"),
            ("def score(:", "score", "SyntaxError"),
            ("def score(completion): ...", "score", "must be callable as"),
            ("def score(completion, row, more): ...", "score", "must be callable as"),
            ("async def score(completion, row): ...", "score", "asynchronous"),
        ],
    )
    def test_is_told_before_it_is_called(self, code: Any, text: str, name: str, told: str) -> None:
        with pytest.raises(UserError, match=f"(?s)task.verifier.function = .*rewards.py:score'.*{told}"):
            code(text, name).check()

    @pytest.mark.parametrize(
        ("given", "told"),
        [
            ("nowhere.py:score", "there is no file 'nowhere.py'"),
            ("no_module_here:score", "for a file of your own write no_module_here.py:score"),
            ("rewards.py:", "names no function"),
        ],
    )
    def test_that_is_not_there(self, given: str, told: str) -> None:
        with pytest.raises(UserError, match=told):
            verifier(given).check()

    @pytest.mark.parametrize(
        ("returned", "told"),
        [
            ("None", "returned None"),
            ("float('nan')", "returned nan"),
            ("float('inf')", "returned inf"),
            ("'1'", "returned '1'"),
            ("[1, 2]", r"returned \[1, 2\]"),
            ("1 / 0", "raised ZeroDivisionError: division by zero .line 2 of rewards.py"),
            ("row['nothing']", "raised KeyError: 'nothing'"),
        ],
    )
    def test_nonsense_is_told_by_name(self, code: Any, returned: str, told: str) -> None:
        own = code(f"def score(completion, row):\n    return {returned}")
        with pytest.raises(UserError, match=f"rewards.py:score'.*{told}.*'some text'.*'id': 7"):
            own.reward("some text", None, {"id": 7})

    def test_numbers_of_numpy(self, code: Any) -> None:
        own = code("import numpy\ndef score(completion, row):\n    return numpy.float32(0.5)")
        assert own.reward("", None, {}) == 0.5

    def test_its_code_is_known_again(self, code: Any) -> None:
        first = code("def score(completion, row):\n    return 1").code()
        again = code("def score(completion, row):\n    return 1").code()
        other = code("def score(completion, row):\n    return 2").code()
        assert first == again != other
        assert verifier("exact-match").code() == ""

    def test_its_file_is_renamed_with_others(self) -> None:
        assert verifier("a.py:score").with_files(lambda name: f"/there/{name}").function == "/there/a.py:score"
        assert verifier("operator:contains").with_files(lambda name: f"/there/{name}").function == "operator:contains"
        assert verifier("/there/a.py:score").about() == "a.py:score"
