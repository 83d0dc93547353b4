"""Many clients at once, and clients that go away."""

import asyncio

import openai


def chat(model, number, **fields):
    fields = {"max_tokens": 8, "temperature": 0.7, "seed": number} | fields
    return {"model": model, "messages": [{"role": "user", "content": f"Say {number}."}]} | fields


async def text_of(stream):
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


async def stream_all(options, model, numbers):
    async with openai.AsyncOpenAI(**options) as client:

        async def one(number):
            stream = await client.chat.completions.create(**chat(model, number), stream=True)
            return await text_of(stream)

        return await asyncio.gather(*[one(number) for number in numbers])


def test_an_answer_is_the_same_alone_and_in_company(options, model):
    together = asyncio.run(stream_all(options, model, range(8)))
    alone = [asyncio.run(stream_all(options, model, [number]))[0] for number in range(8)]
    assert together == alone


def test_a_client_may_leave_in_the_middle(options, client, model):
    async def leave():
        async with openai.AsyncOpenAI(**options) as client:
            stream = await client.chat.completions.create(
                **chat(model, 1, max_tokens=400), stream=True, extra_body={"ignore_eos": True}
            )
            async for chunk in stream:
                if chunk.choices[0].delta.content:
                    break
            await stream.close()

    asyncio.run(leave())
    assert client.chat.completions.create(**chat(model, 2)).choices


def test_a_cancelled_request_is_forgotten(options, client, model):
    async def cancel():
        async with openai.AsyncOpenAI(**options) as client:
            fields = chat(model, 1, max_tokens=400) | {"extra_body": {"ignore_eos": True}}
            task = asyncio.create_task(client.chat.completions.create(**fields))
            await asyncio.wait([task], timeout=0.2)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(cancel())
    assert client.chat.completions.create(**chat(model, 2)).choices
