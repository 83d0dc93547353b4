"""Text completions, as evaluation harnesses use them."""

import math

PROMPT = "The first three planets are"


def complete(client, model, **fields):
    fields = {"prompt": PROMPT, "max_tokens": 8, "temperature": 0.7, "seed": 7} | fields
    return client.completions.create(model=model, **fields)


def test_a_stream_adds_up_to_the_whole_answer(client, model):
    whole = complete(client, model)
    assert whole.id.startswith("cmpl-") and whole.object == "text_completion"
    text, reasons = "", []
    for chunk in complete(client, model, stream=True):
        text += chunk.choices[0].text
        reasons += [chunk.choices[0].finish_reason] if chunk.choices[0].finish_reason else []
    assert (text, reasons) == (whole.choices[0].text, [whole.choices[0].finish_reason])


def test_echo_repeats_the_prompt(client, model):
    plain = complete(client, model).choices[0].text
    assert complete(client, model, echo=True).choices[0].text == PROMPT + plain


def test_a_prompt_is_scored_without_generating(client, model):
    answer = complete(client, model, echo=True, logprobs=1, max_tokens=0, temperature=0)
    (choice,) = answer.choices
    assert (choice.text, choice.finish_reason) == (PROMPT, "length")
    assert answer.usage.completion_tokens == 0
    columns = choice.logprobs
    lengths = {len(c) for c in (columns.tokens, columns.token_logprobs, columns.top_logprobs, columns.text_offset)}
    assert lengths == {answer.usage.prompt_tokens}
    assert columns.token_logprobs[0] is None
    assert all(math.isfinite(value) and value <= 0 for value in columns.token_logprobs[1:])


def test_scores_do_not_depend_on_what_follows(client, model):
    alone = complete(client, model, echo=True, logprobs=0, max_tokens=0, temperature=0)
    both = complete(client, model, echo=True, logprobs=0, max_tokens=4, temperature=0)
    num_prompt_tokens = alone.usage.prompt_tokens
    assert both.choices[0].logprobs.tokens[:num_prompt_tokens] == alone.choices[0].logprobs.tokens
    assert both.choices[0].logprobs.token_logprobs[:num_prompt_tokens] == alone.choices[0].logprobs.token_logprobs


def test_many_prompts_keep_their_order(client, model):
    prompts = [PROMPT, "Once upon a time", "2 + 2 ="]
    together = complete(client, model, prompt=prompts, n=2)
    assert [choice.index for choice in together.choices] == list(range(6))
    alone = [choice.text for prompt in prompts for choice in complete(client, model, prompt=prompt, n=2).choices]
    assert [choice.text for choice in together.choices] == alone


def test_token_ids_are_a_prompt(client, model, options):
    base = options["base_url"].removesuffix("/v1")
    tokens = client.post(f"{base}/tokenize", cast_to=object, body={"prompt": PROMPT})["tokens"]
    by_ids, by_text = (complete(client, model, prompt=prompt) for prompt in (tokens, PROMPT))
    assert by_ids.choices[0].text == by_text.choices[0].text
    back = client.post(f"{base}/detokenize", cast_to=object, body={"tokens": tokens})["prompt"]
    assert PROMPT in back


def test_the_best_of_several_is_kept(client, model):
    answer = complete(client, model, best_of=3, n=1)
    assert len(answer.choices) == 1
    every = complete(client, model, n=3, logprobs=0)
    score = {c.text: sum(c.logprobs.token_logprobs) / len(c.logprobs.token_logprobs) for c in every.choices}
    assert answer.choices[0].text == max(score, key=score.get)
