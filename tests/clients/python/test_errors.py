"""Mistakes come back as the SDK's own exceptions, and name the parameter."""

import openai
import pytest

HELLO = [{"role": "user", "content": "Hello"}]


def test_an_unknown_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError) as error:
        client.chat.completions.create(model="no/such-model", messages=HELLO)
    assert error.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no/such-model")


@pytest.mark.parametrize(
    ("param", "fields"),
    [
        ("temperature", {"temperature": 3}),
        ("temperature", {"temperature": "hot"}),
        ("top_p", {"top_p": 0}),
        ("n", {"n": 0}),
        ("n", {"n": 1000}),
        ("max_tokens", {"max_tokens": -1}),
        ("stop", {"stop": [""]}),
        ("stop", {"stop": ["a", "b", "c", "d", "e"]}),
        ("top_logprobs", {"logprobs": True, "top_logprobs": 21}),
        ("logit_bias.abc", {"logit_bias": {"abc": 1}}),
        ("messages", {"messages": []}),
        ("messages[0].role", {"messages": [{"role": "robot", "content": "Hello"}]}),
        ("web_search_options", {"web_search_options": {}}),
    ],
)
def test_a_bad_value_names_its_parameter(client, model, param, fields):
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(**({"model": model, "messages": HELLO} | fields))
    assert error.value.param == param
    assert error.value.type == "invalid_request_error"


def test_a_prompt_beyond_the_context_is_refused(client, model):
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": "word " * 1_000_000}])
    assert error.value.code == "context_length_exceeded"


def test_an_unknown_path_is_not_found(client):
    with pytest.raises(openai.NotFoundError):
        client.get("/no/such/path", cast_to=object)


def test_a_mistake_leaves_the_next_request_alone(client, model):
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=model, messages=HELLO, max_tokens=0)
    assert client.chat.completions.create(model=model, messages=HELLO, max_tokens=1).choices
