#!/usr/bin/env python3
"""Tokenmill beside transformers on the same made-up weights: the same greedy tokens, and each one's tokens a second.

    transformers_peer.py TOKENMILL CONFIGS RESULT.json

The 1B shapes are written once (`tokenmill bench dummy`) and loaded by both; the 8B shapes run in transformers with weights
of its own, for speed alone: in bf16, and with the layers' matrices in FP8 and INT4 by the products that torch itself has. What did
not fit into the time, or is not in torch, stands under `not compared` in the result, which is written as it grows. Ends with 77, and
why, where this Python cannot run it.
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
# What nothing here can be held against, and what torch cannot multiply.
NOT_COMPARED = ["an FP8 KV cache: transformers has none", "greedy tokens in FP8 and INT4: torch rounds activations otherwise",
                "Q4_K, Q6_K and other blocks of GGUF: torch has no products of them"]
INT4_GROUP = 128
BUDGET = 130.0
# Seconds that a model of 1B and a server of ours take.
EQUALITY_SECONDS = 60.0
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


class Fp8Linear(torch.nn.Module):
    """Codes of e4m3 with a scale for each row of x [..., K] and of the matrix [N, K]."""

    def __init__(self, rows, cols):
        super().__init__()
        weight = torch.randn(rows, cols, device="cuda") * 0.02
        scale = weight.abs().amax(1, keepdim=True) / 448
        self.codes, self.scale = (weight / scale).to(torch.float8_e4m3fn), scale.t().contiguous()

    def forward(self, x):
        flat = x.reshape(-1, x.shape[-1])
        scale = flat.abs().amax(1, keepdim=True).float().clamp(min=1e-12) / 448
        codes = (flat / scale).to(torch.float8_e4m3fn)
        y = torch._scaled_mm(codes, self.codes.t(), scale_a=scale, scale_b=self.scale, out_dtype=torch.bfloat16)
        return y.reshape(*x.shape[:-1], -1)


class Int4Linear(torch.nn.Module):
    """Random codes of 4 bits with a scale and a zero for each 128 of a row; x [..., K] stays bf16."""

    def __init__(self, rows, cols):
        super().__init__()
        codes = torch.randint(0, 256, (rows, cols // 2), dtype=torch.uint8, device="cuda")
        self.codes = torch.ops.aten._convert_weight_to_int4pack(codes, 8)
        self.scales = torch.full((cols // INT4_GROUP, rows, 2), 0.002, dtype=torch.bfloat16, device="cuda")

    def forward(self, x):
        flat = x.reshape(-1, x.shape[-1])
        y = torch.ops.aten._weight_int4pack_mm(flat, self.codes, INT4_GROUP, self.scales)
        return y.reshape(*x.shape[:-1], -1)


def matrices(model):
    """Where each matrix of the layers is, and its shape [N, K]."""
    return [(part, name, (child.out_features, child.in_features)) for layer in model.model.layers
            for part in (layer.self_attn, layer.mlp) for name, child in part.named_children() if name.endswith("_proj")]


def seconds(run, times):
    """The median of as many runs, the first few left out."""
    found = []
    for _ in range(times):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        run()
        torch.cuda.synchronize()
        found.append(time.perf_counter() - begin)
    return sorted(found[times // 6:])[len(found[times // 6:]) // 2]


def speed(model, weights, reserve, points, not_compared):
    """Seconds of a decoded token of each sequence and of a prefill, eagerly; leaves `reserve` seconds to others."""
    with torch.inference_mode():
        for batch in (1, 8, 64, 256):
            if left() < reserve:
                not_compared.append(f"{weights}: decode of {batch}: no time was left")
                continue
            ids = torch.randint(0, 1000, (batch, 8), device="cuda")
            cache = model(ids, use_cache=True).past_key_values
            step = ids[:, :1]
            took = seconds(lambda: model(step, past_key_values=cache, use_cache=True), 24)
            points.append({"weights": weights, "decode_batch": batch, "seconds": took, "tokens_per_second": batch / took})
        for length in (512, 8192):
            if left() < reserve:
                not_compared.append(f"{weights}: prefill of {length}: no time was left")
                continue
            ids = torch.randint(0, 1000, (1, length), device="cuda")
            took = seconds(lambda: model(ids, use_cache=True, logits_to_keep=1), 4)
            points.append({"weights": weights, "prefill_tokens": length, "seconds": took, "tokens_per_second": length / took})
    return points


def main():
    tokenmill, configs, result = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    not_compared, points = list(NOT_COMPARED), []
    found = {"torch": torch.__version__, "gpu": torch.cuda.get_device_name(), "llama-3.1-8b": points, "not compared": not_compared}
    large = AutoConfig.from_pretrained(configs / "llama-3.1-8b")
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(large, dtype=torch.bfloat16).eval()

    places = matrices(model)

    def quantized(weights, linear):
        for part, name, shape in places:
            setattr(part, name, linear(*shape))
        return speed(model, weights, 5.0, points, not_compared)

    parts = [("bf16", lambda: speed(model, "bf16", EQUALITY_SECONDS, points, not_compared)),
             ("equality", lambda: found.update(equality=equality(tokenmill, str(configs / "llama-3.2-1b")))),
             ("fp8", lambda: quantized("fp8", Fp8Linear)),
             ("int4", lambda: quantized("int4", Int4Linear))]
    failed = []
    for name, part in parts:
        begin = time.monotonic()
        try:
            part()
        except Exception as error:
            not_compared.append(f"{name}: {type(error).__name__}: {str(error)[:200]}")
            # What a version of torch does not have is missing; the others are there.
            if name not in ("fp8", "int4"):
                failed.append(name)
        torch.cuda.empty_cache()
        print(f"{name}: {time.monotonic() - begin:.0f} s", flush=True)
        result.write_text(json.dumps(found, indent=1))
    print(json.dumps(found))
    sys.exit(f"failed: {failed}" if failed else 0)


if __name__ == "__main__":
    main()
