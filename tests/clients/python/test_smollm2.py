"""The default model answers as its reference does; runs where TOKENMILL_EXPECT=smollm2."""

import json
import os
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parents[2] / "golden" / "smollm2.json"
QUESTION = "What is the capital of France?"

pytestmark = pytest.mark.skipif(
    os.environ.get("TOKENMILL_EXPECT") != "smollm2", reason="SKIPPED: the default model is not known to be served"
)


@pytest.fixture(scope="module")
def golden():
    rows = json.loads(GOLDEN.read_text())["rows"]
    return next(row for row in rows if row["messages"] == [{"role": "user", "content": QUESTION}])


@pytest.mark.parametrize("stream", [False, True])
def test_the_capital_of_france(client, model, golden, stream):
    answer = client.chat.completions.create(
        model=model,
        messages=golden["messages"],
        temperature=0,
        max_tokens=len(golden["greedy_ids"]),
        stream=stream,
    )
    if stream:
        text = "".join(chunk.choices[0].delta.content or "" for chunk in answer)
    else:
        text = answer.choices[0].message.content
        assert answer.usage.prompt_tokens == len(golden["prompt_ids"])
    assert text == golden["text"]
