"""Chat completions: whole, streamed, several at once, with log probabilities and stops."""

import json
import math


def fold(stream):
    """What a stream adds up to: text and finish reason per choice, and the usage."""
    texts, reasons, usage, ids = {}, {}, None, set()
    for chunk in stream:
        ids.add(chunk.id)
        usage = chunk.usage or usage
        for choice in chunk.choices:
            first = choice.index not in texts
            assert (choice.delta.role == "assistant") == first, "the first delta alone has the role"
            assert choice.index not in reasons, "nothing follows a finish reason"
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
            if choice.finish_reason:
                reasons[choice.index] = choice.finish_reason
    assert len(ids) == 1, "one id throughout"
    return texts, reasons, usage


def test_an_answer_has_the_form_of_the_api(chat):
    answer = chat()
    assert answer.id.startswith("chatcmpl-") and answer.object == "chat.completion"
    (choice,) = answer.choices
    assert choice.message.role == "assistant" and choice.finish_reason in ("stop", "length")
    assert choice.message.refusal is None and choice.logprobs is None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert 0 < answer.usage.completion_tokens <= 12


def test_a_stream_adds_up_to_the_whole_answer(chat):
    whole = chat()
    texts, reasons, usage = fold(chat(stream=True, stream_options={"include_usage": True}))
    assert texts == {0: whole.choices[0].message.content}
    assert reasons == {0: whole.choices[0].finish_reason}
    assert usage.completion_tokens == whole.usage.completion_tokens


def test_usage_comes_in_streams_only_where_it_is_asked_for(chat):
    assert fold(chat(stream=True))[2] is None
    chunks = list(chat(stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == [] and chunks[-1].usage is not None
    assert all(chunk.usage is None and chunk.choices for chunk in chunks[:-1])


def test_several_choices_stream_beside_each_other(chat):
    whole = chat(n=2)
    texts, reasons, _ = fold(chat(n=2, stream=True))
    assert texts == {choice.index: choice.message.content for choice in whole.choices}
    assert sorted(texts) == sorted(reasons) == [0, 1]


def test_logprobs_cover_every_token(chat):
    answer = chat(logprobs=True, top_logprobs=3, temperature=0)
    tokens = answer.choices[0].logprobs.content
    assert len(tokens) == answer.usage.completion_tokens
    for token in tokens:
        assert len(token.top_logprobs) == 3 and token.logprob <= 0
        best = [candidate.logprob for candidate in token.top_logprobs]
        assert best == sorted(best, reverse=True)
        assert math.isclose(token.logprob, best[0], abs_tol=1e-6), "at temperature 0 the best one is taken"
    streamed = [
        token
        for chunk in chat(logprobs=True, top_logprobs=3, temperature=0, stream=True)
        for choice in chunk.choices
        if choice.logprobs
        for token in choice.logprobs.content
    ]
    assert [token.token for token in streamed] == [token.token for token in tokens]


def test_a_stop_string_ends_the_text_before_it(chat):
    full = chat(max_tokens=24).choices[0].message.content
    assert len(full) > 4, f"the model says too little to stop: {full!r}"
    middle = len(full) // 2
    stop = full[middle : middle + 2]
    stopped = chat(max_tokens=24, stop=[stop]).choices[0]
    assert stopped.finish_reason == "stop"
    assert stopped.message.content == full[: full.index(stop)]
    texts, reasons, _ = fold(chat(max_tokens=24, stop=[stop], stream=True))
    assert (texts, reasons) == ({0: stopped.message.content}, {0: "stop"})


def test_a_prompt_asked_again_comes_from_the_cache(chat):
    question = "Repeat after me: " + "the quick brown fox jumps over the lazy dog. " * 8
    chat(question, max_tokens=1)
    usage = chat(question, max_tokens=1).usage
    assert 0 < usage.prompt_tokens_details.cached_tokens < usage.prompt_tokens


def test_fields_of_other_servers_pass_through(chat):
    answer = chat(extra_body={"top_k": 1, "repetition_penalty": 1.0, "min_tokens": 2, "return_token_ids": True})
    greedy = chat(temperature=0, extra_body={"min_tokens": 2})
    assert answer.choices[0].message.content == greedy.choices[0].message.content
    assert len(answer.model_extra["prompt_token_ids"]) == answer.usage.prompt_tokens
    assert len(answer.choices[0].model_extra["token_ids"]) == answer.usage.completion_tokens


def test_text_parts_and_a_whole_conversation_are_accepted(client, model):
    answer = client.chat.completions.create(
        model=model,
        max_completion_tokens=4,
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hello."}, {"type": "text", "text": "Hi?"}]},
            {"role": "assistant", "content": "Hello!"},
            {"role": "user", "content": "Goodbye."},
        ],
    )
    assert answer.usage.completion_tokens <= 4


def test_the_raw_stream_ends_with_done(client, model):
    with client.chat.completions.with_streaming_response.create(
        model=model, messages=[{"role": "user", "content": "Hello"}], max_tokens=3, stream=True
    ) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-accel-buffering"] == "no"
        assert response.headers["x-request-id"]
        lines = [line for line in response.iter_lines() if line and not line.startswith(":")]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    assert all(json.loads(line[6:])["object"] == "chat.completion.chunk" for line in lines[:-1])
