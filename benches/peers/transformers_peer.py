#!/usr/bin/env python3
"""Tokenmill beside transformers on the same made-up weights: the same greedy tokens, and each one's tokens a second.

    transformers_peer.py TOKENMILL CONFIGS RESULT.json

The 1B shapes are written once (`tokenmill bench dummy`) and loaded by both; the 8B shapes run in transformers with weights
of its own, for speed alone. Each part has its own time; what did not fit is left out of the result, which is written as it grows.
Ends with 77, and why, where this Python cannot run it.
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import urllib.request

try:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
except ImportError as missing:
    print(f"{sys.executable} has no {missing.name}")
    sys.exit(77)
if not torch.cuda.is_available():
    print(f"the torch of {sys.executable} finds no GPU")
    sys.exit(77)

PROMPTS = [[(7 + 13 * prompt + 31 * at) % 128000 for at in range(length)] for prompt, length in enumerate((5, 33, 200))]
NEW_TOKENS = 16
BUDGET = 130.0
STARTED = time.monotonic()


def left():
    return BUDGET - (time.monotonic() - STARTED)


def generate(model, prompt, new_tokens):
    ids = torch.tensor([prompt], device="cuda")
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new_tokens, min_new_tokens=new_tokens,
                         do_sample=False, pad_token_id=0)
    return out[0, len(prompt):].tolist()


def ours(tokenmill, folder):
    """The tokens of a server of ours, which runs in bf16 on the same card."""
    command = [tokenmill, "serve", folder, "--device", "cuda", "--port", "0", "--max-model-len", "1024",
               "--kv-cache-memory", "512MiB"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        said, address = [], None
        for line in server.stderr:
            said.append(line)
            if match := re.search(r"address\s+(http://\S+)", line):
                address = match[1]
                break
        if address is None:
            raise RuntimeError("the server ended: " + "".join(said))
        answers = []
        for prompt in PROMPTS:
            body = {"prompt": prompt, "max_tokens": NEW_TOKENS, "temperature": 0, "ignore_eos": True, "return_token_ids": True}
            request = urllib.request.Request(address + "/completions", json.dumps(body).encode(),
                                             {"content-type": "application/json"})
            with urllib.request.urlopen(request, timeout=60) as answer:
                answers.append(json.load(answer)["choices"][0]["token_ids"])
        return answers
    finally:
        server.kill()
        server.wait()


def same_prefix(a, b):
    return next((at for at, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def equality(tokenmill, config):
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([tokenmill, "bench", "dummy", config, folder], check=True, timeout=max(left(), 1))
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).cuda().eval()
        theirs = [generate(model, prompt, NEW_TOKENS) for prompt in PROMPTS]
        del model
        torch.cuda.empty_cache()
        ours_ = ours(tokenmill, folder)
    prefixes = [same_prefix(a, b) for a, b in zip(ours_, theirs)]
    return {"new_tokens": NEW_TOKENS, "equal_tokens": prefixes, "ours": ours_, "theirs": theirs}


def speed(config, points):
    """Seconds of a prefill and of a decoded token, eagerly, with weights that nobody chose."""
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(config), dtype=torch.bfloat16).eval()
    with torch.inference_mode():
        for batch in (1, 8, 64):
            if left() < 60:
                break
            ids = torch.randint(0, 1000, (batch, 8), device="cuda")
            cache = model(ids, use_cache=True).past_key_values
            step = ids[:, :1]
            times = []
            for _ in range(24):
                torch.cuda.synchronize()
                begin = time.perf_counter()
                model(step, past_key_values=cache, use_cache=True)
                torch.cuda.synchronize()
                times.append(time.perf_counter() - begin)
            seconds = sorted(times[4:])[10]
            points.append({"decode_batch": batch, "seconds": seconds, "tokens_per_second": batch / seconds})
        for length in (512, 8192):
            if left() < 60:
                break
            ids = torch.randint(0, 1000, (1, length), device="cuda")
            times = []
            for _ in range(4):
                torch.cuda.synchronize()
                begin = time.perf_counter()
                model(ids, use_cache=True, logits_to_keep=1)
                torch.cuda.synchronize()
                times.append(time.perf_counter() - begin)
            points.append({"prefill_tokens": length, "seconds": min(times), "tokens_per_second": length / min(times)})
    return points


def main():
    tokenmill, configs, result = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    found = {"torch": torch.__version__, "gpu": torch.cuda.get_device_name()}
    points = found["llama-3.1-8b"] = []
    parts = [("llama-3.1-8b", lambda: speed(configs / "llama-3.1-8b", points)),
             ("equality", lambda: equality(tokenmill, str(configs / "llama-3.2-1b")))]
    failed = []
    for name, part in parts:
        begin = time.monotonic()
        try:
            found[name] = part()
        except Exception as error:
            failed.append(name)
            found[f"{name} failed"] = repr(error)
        torch.cuda.empty_cache()
        print(f"{name}: {time.monotonic() - begin:.0f} s: {found.get(name)} {found.get(f'{name} failed', '')}", flush=True)
        result.write_text(json.dumps(found, indent=1))
    sys.exit(f"failed: {failed}" if failed else 0)


if __name__ == "__main__":
    main()
