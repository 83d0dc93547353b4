"""vLLM's tokens a second in process: MODEL BATCH_SIZES, run by the Python that vllm_cpu.sh installed.

Measures as `vllm bench latency` does, random prompts of equal length and answers that no end token cuts short, but with one engine for
all points, as each takes a minute to start. What a step of decoding takes is what 40 more tokens take. Prints a line of JSON, {test: rate}.
"""

import json
import random
import statistics
import sys
import time

WARM_UPS, ROUNDS, STEPS = 2, 5, 40


def main():
    from vllm import LLM, SamplingParams

    model, batch_sizes = sys.argv[1], [int(size) for size in sys.argv[2].split(",")]
    engine = LLM(model, dtype="bfloat16", max_model_len=1024, enable_prefix_caching=False, max_num_seqs=max(batch_sizes))
    dice = random.Random(0)

    def seconds(batch_size, input_len, output_len):
        sampling = SamplingParams(ignore_eos=True, max_tokens=output_len, detokenize=False)
        times = []
        for _ in range(WARM_UPS + ROUNDS):
            prompts = [{"prompt_token_ids": [dice.randrange(10_000) for _ in range(input_len)]} for _ in range(batch_size)]
            start = time.perf_counter()
            engine.generate(prompts, sampling, use_tqdm=False)
            times.append(time.perf_counter() - start)
        return statistics.mean(times[WARM_UPS:])

    rates = {"prefill 512": 512 / seconds(1, 512, 1)}
    for batch_size in batch_sizes:
        rates[f"decode B={batch_size}"] = STEPS * batch_size / (seconds(batch_size, 128, 1 + STEPS) - seconds(batch_size, 128, 1))
    print("\n" + json.dumps(rates))


if __name__ == "__main__":
    main()
