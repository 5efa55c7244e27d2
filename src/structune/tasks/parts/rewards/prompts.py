"""Rows with a prompt, and with what a verifier compares a completion to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from structune.data.cells import is_binary
from structune.data.examples import Examples
from structune.data.formats.text import lines_of
from structune.data.section import TO_PREDICT, DataSection
from structune.data.table import Table
from structune.errors import UserError
from structune.section import wrong_text
from structune.tasks.parts.chats.messages import Message, is_openai, openai_messages
from structune.tasks.parts.verifiers.verifier import Verifier


def _with_place(template: str) -> str:
    if "{prompt}" not in template:
        raise wrong_text("has no {prompt}, where the prompt of a row would go; put it in")
    return template


class PromptData(DataSection):
    """Where prompts are: the column `prompt` holds texts or lists of messages, `answer` what is right.

    A verifier that compares with nothing needs no answers. A text is the user's message, with `template` around it,
    where it stands in place of `{prompt}`. `system` is the message before each prompt that has none of its own. What is
    longer than `max_length` tokens is cut at the front.
    """

    prompt: str = "prompt"
    answer: str = "answer"
    template: Annotated[str, AfterValidator(_with_place)] = "{prompt}"
    system: str | None = None
    max_length: Annotated[int, Field(ge=8)] = 512

    @model_validator(mode="after")
    def _no_embedded(self) -> PromptData:
        if self.embedded is not None:
            raise ValueError("the embedded data has no prompts; give train, a file, or hub")
        return self

    def read(self, path: str | Path, field: str) -> Table | None:
        """A text file with a prompt on each line, to be answered."""
        prompts = lines_of(path) if field == TO_PREDICT else None
        return None if prompts is None else Table(str(path), {self.prompt: [*prompts.values()]}, [*prompts])


def prompts_of(table: Table, data: PromptData) -> Examples:
    """The column of prompts, with its template and the system's message, as lists of messages.

    Raises:
        UserError: there is no such column, a cell of it is empty, or the last word is not somebody's to be answered.
    """
    prompts: list[list[Message]] = []
    texts = table.column(data.prompt, "prompt")
    for row, cell in enumerate(table.values(data.prompt, "prompt")):
        if is_openai(cell):
            messages = openai_messages(cell)
        else:
            messages = [{"role": "user", "content": data.template.replace("{prompt}", texts[row])}]
        if messages[-1]["role"] == "assistant":
            raise UserError(
                f"data.prompt = {data.prompt!r}: the assistant has the last word in {table.places([row])} of "
                f"{table.source}, and there is nothing to answer; leave its last message out"
            )
        if data.system is not None and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": data.system}, *messages]
        prompts.append(messages)
    return Examples.unlabelled({"prompt": prompts})


def labelled_prompts(table: Table, data: PromptData, verifier: Verifier) -> Examples:
    """Prompts; their labels are the row's answer, where the verifier reads one, and the row.

    Raises:
        UserError: a column is missing, a cell is empty, or an answer is none that the verifier can compare with.
    """
    seen = prompts_of(table, data)
    answers = table.column(data.answer, "answer") if verifier.reads_answer else [None] * len(table)
    for row, answer in enumerate(answers):
        if answer is not None and (wrong := verifier.check_answer(answer)):
            raise UserError(f"data.answer = {data.answer!r}: {wrong} ({table.source}, {table.places([row])})")
    columns = {name: cells for name, cells in table.columns.items() if not any(map(is_binary, cells))}
    rows = [{name: _plain(cells[row]) for name, cells in columns.items()} for row in range(len(table))]
    labels = [{"answer": answer, "row": row} for answer, row in zip(answers, rows, strict=True)]
    groups = (
        [str(prompt) for prompt in seen.inputs["prompt"]] if data.group is None else table.column(data.group, "group")
    )
    return seen.labelled(labels, groups, ["prompt"] * len(table))


def _plain(cell: Any) -> Any:
    """A cell as JSON has it; what JSON has no word for as a text, and nothing for what is missing."""
    if isinstance(cell, float) and cell != cell:
        return None
    return json.loads(json.dumps(cell, default=str))
