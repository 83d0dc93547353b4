#!/usr/bin/env python3
"""Closed-loop load on any OpenAI-compatible server; standard library only.

    closed_loop.py --base-url http://127.0.0.1:8000 --clients 1,8,16,32 --output-tokens 128

Each client streams one completion after another, all of one length (`ignore_eos`), for a fixed number of rounds. Prints
a row per number of clients: output tokens a second over all of them, time to the first token, and the gap between
tokens; with --json the same as one JSON object. Every prompt is different, so that no prefix cache helps.
"""

import argparse
import http.client
import json
import os
import random
import statistics
import threading
import time
import urllib.parse

WORDS = "river stone lamp winter garden engine paper copper morning signal harbor field window silver thread".split()


def prompt_of(words, seed):
    rng = random.Random(seed)
    return " ".join(rng.choice(WORDS) for _ in range(words))


def stream_one(base, model, prompt, output_tokens):
    """One request: (seconds to the first token, gaps between chunks, tokens by the server's own count)."""
    connection = http.client.HTTPConnection(base.hostname, base.port, timeout=600)
    body = {
        "model": model,
        "prompt": prompt,
        "max_tokens": output_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    started = last = time.perf_counter()
    connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        raise RuntimeError(f"{response.status}: {response.read()[:300]!r}")
    first, gaps, tokens = None, [], 0
    for line in response:
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        if "error" in event:
            raise RuntimeError(event["error"])
        if event.get("usage"):
            tokens = event["usage"]["completion_tokens"]
        if event["choices"]:
            now = time.perf_counter()
            if first is None:
                first = now - started
            else:
                gaps.append(now - last)
            last = now
    connection.close()
    return first, gaps, tokens


def measure(base, model, clients, args):
    results, failures, lock = [], [], threading.Lock()

    def client(idx):
        for round_idx in range(args.rounds):
            try:
                seed = f"{args.seed}-{clients}-{idx}-{round_idx}"
                result = stream_one(base, model, prompt_of(args.prompt_words, seed), args.output_tokens)
                with lock:
                    results.append(result)
            except Exception as error:  # a failed request is a result too
                with lock:
                    failures.append(repr(error))

    threads = [threading.Thread(target=client, args=(idx,)) for idx in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    gaps = sorted(gap for _, row, _ in results for gap in row) or [0.0]
    return {
        "clients": clients,
        "completed": len(results),
        "failed": len(failures),
        "first_failure": failures[0] if failures else None,
        "output_lengths": sorted({tokens for _, _, tokens in results}),
        "output_throughput": sum(tokens for _, _, tokens in results) / seconds,
        "median_ttft_ms": 1e3 * statistics.median(first for first, _, _ in results) if results else None,
        "median_itl_ms": 1e3 * statistics.median(gaps),
        "p99_itl_ms": 1e3 * gaps[int(len(gaps) * 0.99)] if len(gaps) > 1 else 1e3 * gaps[0],
        "max_itl_ms": 1e3 * gaps[-1],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", default="http://127.0.0.1:8000")
    parser.add_argument("--model", help="the server's first model when left out")
    parser.add_argument("--clients", default="1,8,16,32")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--prompt-words", type=int, default=100)
    parser.add_argument("--output-tokens", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    base = urllib.parse.urlparse(args.base_url)
    connection = http.client.HTTPConnection(base.hostname, base.port, timeout=10)
    connection.request("GET", "/v1/models")
    model = args.model or json.loads(connection.getresponse().read())["data"][0]["id"]
    stream_one(base, model, prompt_of(args.prompt_words, "warm-up"), 8)
    rows = [measure(base, model, int(clients), args) for clients in args.clients.split(",")]
    if args.json:
        load = os.getloadavg()
        print(json.dumps({"model": model, "load_average": load, "rows": rows}, indent=1))
        return
    print(f"{'clients':>7} {'done':>5} {'failed':>6} {'tok/s':>8} {'TTFT p50':>9} {'ITL p50':>8} {'ITL p99':>8} {'ITL max':>8}")
    for row in rows:
        print(
            f"{row['clients']:7} {row['completed']:5} {row['failed']:6} {row['output_throughput']:8.1f} "
            f"{row['median_ttft_ms'] or 0:7.0f}ms {row['median_itl_ms']:6.1f}ms {row['p99_itl_ms']:6.1f}ms {row['max_itl_ms']:6.1f}ms"
        )
        if row["first_failure"]:
            print(f"        first failure: {row['first_failure']}")


if __name__ == "__main__":
    main()
