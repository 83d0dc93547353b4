#!/usr/bin/env python3
"""Tokenmill beside llama.cpp and vLLM on this machine: the same load on each server in turn (A B A B), and each engine in process.

    benches/peers/llama_cpp.sh MODEL.gguf
    benches/peers/vllm_cpu.sh MODEL.gguf
    cargo build --release --workspace --bins --benches
    benches/peers/compare.py --model MODEL.gguf

Each contender runs alone. All servers get the same prompts in a round, other prompts in each round, and answers of one
length. The figures are medians over rounds; a ratio compares ours with the best of the peer's formats for that very
number. Prints Markdown and writes benches/record/<date>-<machine>.json. A peer that is not built is left out, with a word.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TOKENMILL = pathlib.Path("target/release/tokenmill")
# Cores that others may keep busy without a word.
QUIET = 0.15
# Key of a report, what a table calls it, and whether more is better.
METRICS = [
    ("output_throughput", "output tok/s", True),
    ("median_ttft_ms", "TTFT ms p50", False),
    ("median_tpot_ms", "TPOT ms p50", False),
    ("p99_itl_ms", "ITL ms p99", False),
]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--show", metavar="RECORD", help="measure nothing; print the tables of a record")
    parser.add_argument("--model", help="the GGUF file that Tokenmill serves, and the peer too")
    parser.add_argument("--bin", default="target/peers/build/bin", help="where llama.cpp's programs lie")
    parser.add_argument("--peer-models", nargs="*", help="the same model in more formats; default: target/peers/*.gguf")
    parser.add_argument("--clients", default="1,8,16,32")
    parser.add_argument("--input-len", type=int, default=128)
    parser.add_argument("--output-len", type=int, default=128)
    parser.add_argument("--num-prompts", type=int, help="per point; as `tokenmill bench serve` chooses when left out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--activations", default="int16,int8", help="which of Tokenmill's roundings to run")
    parser.add_argument("--vllm", type=pathlib.Path, default="target/peers/vllm", help="folder that vllm_cpu.sh filled")
    parser.add_argument("--patience", type=float, default=60, help="seconds to wait for a quiet machine before each contender")
    parser.add_argument("--retries", type=int, default=2, help="how often to repeat what others disturbed")
    parser.add_argument("--skip", choices=["servers", "in-process"], action="append", default=[])
    parser.add_argument("--record", default="benches/record", help="folder of records")
    args = parser.parse_args()
    if not args.model and not args.show:
        parser.error("--model is wanted")
    found = sorted(str(path) for path in pathlib.Path("target/peers").glob("*.gguf"))
    args.formats = [args.model] + (found if args.peer_models is None else args.peer_models)
    args.clients = [int(number) for number in args.clients.split(",")]
    return args


def contenders(args):
    """(name, is ours, command without its port), in the order in which a round runs them."""
    num_seqs, threads = max(args.clients), str(args.threads)
    length = args.input_len + args.output_len + 64
    ours = [
        (f"tokenmill {rounding}", True,
         [TOKENMILL, "serve", args.model, "--threads", threads, "--activations", rounding, "--port"])
        for rounding in args.activations.split(",")
    ]
    # Slots for all clients, flash attention, and no copies of old prompts on the side: what serves this load best.
    options = ["-c", num_seqs * length, "-np", num_seqs, "-t", threads, "-tb", threads, "-fa", "on", "--cache-ram", 0, "--no-ui"]
    peers = [
        (f"llama.cpp {pathlib.Path(model).stem.lower()}", False,
         [f"{args.bin}/llama-server", "-m", model, *options, "--port"])
        for model in args.formats
    ]
    if has_vllm(args):
        peers.append(("vllm bf16", False,
                      [args.vllm / "venv/bin/python", "-m", "vllm.entrypoints.openai.api_server", "--model", args.vllm / "model",
                       "--dtype", "bfloat16", "--max-model-len", 4 * length, "--max-num-seqs", num_seqs, "--port"]))
    else:
        print(f"SKIPPED: vLLM is not in {args.vllm}; benches/peers/vllm_cpu.sh puts it there", file=sys.stderr)
    # Ours and theirs alternate as far as they go.
    longest = max(len(ours), len(peers))
    return [side[idx] for idx in range(longest) for side in (ours, peers) if idx < len(side)]


def has_vllm(args):
    return (args.vllm / "VERSION").exists() and (args.vllm / "model").exists()


@contextlib.contextmanager
def serving(command):
    """A server that is healthy inside of the block and gone after it; gives its address and process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tempfile.TemporaryFile()
    server = subprocess.Popen([*map(str, command), str(port)], stdout=log, stderr=log, env={**os.environ, **vllm_environment()})
    try:
        await_health(server, f"http://127.0.0.1:{port}", log)
        yield f"http://127.0.0.1:{port}", server.pid
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def vllm_environment():
    """What vLLM alone reads: room for all clients, and a thread for each core."""
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    return {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": cores}


def await_health(server, url, log, seconds=600):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if server.poll() is not None:
            log.seek(0)
            sys.exit(f"{server.args[0]} ended: {log.read()[-800:].decode(errors='replace')}")
        try:
            if urllib.request.urlopen(f"{url}/health", timeout=5).status == 200:
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.05)
    sys.exit(f"{server.args[0]} is not healthy after {seconds} s")


def others_busy(own_seconds, since):
    """Cores that programs other than ours kept busy since `since`, a (time, busy seconds) of `busy()`."""
    wall, busy_seconds = (now - then for now, then in zip(busy(), since))
    return round(max(0.0, busy_seconds - own_seconds) / wall, 2)


def busy():
    """(time, seconds that all cores were busy since the machine started, taken by other machines included)."""
    user, nice, system, _, _, irq, softirq, steal, *_ = map(int, pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:])
    return time.monotonic(), (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid):
    """CPU time of a process and of those that it started."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    children = pathlib.Path(f"/proc/{pid}/task").glob("*/children")
    return own + sum(cpu_seconds(child) for listed in children for child in listed.read_text().split())


def children_seconds():
    """CPU time of all children that have ended."""
    used = os.times()
    return used.children_user + used.children_system


def await_quiet(args):
    """Waits until others leave the machine alone, but no longer than asked."""
    until = time.monotonic() + args.patience
    while True:
        since = busy()
        time.sleep(1)
        others = others_busy(0.0, since)
        if others <= QUIET or time.monotonic() > until:
            return
        print(f"waiting: others keep {others} cores busy", file=sys.stderr)
        time.sleep(4)


def undisturbed(args, measure):
    """Measures until nobody disturbs it, but no more often than asked; yields every (cores of others, result)."""
    for _ in range(1 + args.retries):
        await_quiet(args)
        others, found = measure()
        yield others, found
        if others <= QUIET:
            return
        print(f"disturbed: others kept {others} cores busy", file=sys.stderr)


def load(args, name, url, seed):
    """Reports of one sweep, as `tokenmill bench serve` writes them."""
    with tempfile.TemporaryDirectory() as folder:
        saved = pathlib.Path(folder) / "report.json"
        command = [TOKENMILL, "bench", "serve", "--base-url", url, "--label", name, "--seed", seed, "--save-json", saved,
                   "--input-len", args.input_len, "--output-len", args.output_len,
                   "--max-concurrency", ",".join(map(str, args.clients))]
        if args.num_prompts:
            command += ["--num-prompts", args.num_prompts]
        subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
        reports = json.loads(saved.read_text())
    return reports if isinstance(reports, list) else [reports]


def servers(args, sides, reports):
    """Appends a report per round, contender and point."""
    for number in range(args.rounds):
        for name, is_ours, command in sides:
            print(f"round {number + 1} of {args.rounds}: {name}", file=sys.stderr)
            def sweep():
                with serving(command) as (url, pid):
                    since, own = busy(), cpu_seconds(pid) + children_seconds()
                    found = load(args, name, url, number)
                    return others_busy(cpu_seconds(pid) + children_seconds() - own, since), found

            for others, found in undisturbed(args, sweep):
                reports += [{"round": number, "is_ours": is_ours, "cores_of_others": others, **report} for report in found]


def output(command, **variables):
    environment = {**os.environ, **variables}
    words = [str(word) for word in command]
    return subprocess.run(words, check=True, capture_output=True, text=True, env=environment).stdout


def peer_in_process(args, model):
    """Tokens a second by name of a test, from llama-bench and llama-batched-bench."""
    rates = {}
    one = output([f"{args.bin}/llama-bench", "-m", model, "-p", 512, "-n", 128, "-t", args.threads, "-fa", "on", "-r", 3, "-o", "json"])
    for row in json.loads(one):
        rates["prefill 512" if row["n_prompt"] else "generate 128 from nothing"] = row["avg_ts"]
    many = ",".join(map(str, args.clients))
    batched = output([f"{args.bin}/llama-batched-bench", "-m", model, "-c", max(args.clients) * 256 + 64, "-t", args.threads, "-fa", "on",
                      "-npp", 128, "-ntg", 128, "-npl", many, "--output-format", "jsonl"])
    for row in filter(lambda line: line.startswith("{"), batched.splitlines()):
        row = json.loads(row)
        rates[f"decode B={row['pl']}"] = row["speed_tg"]
    return rates


def vllm_in_process(args, model):
    """Tokens a second by name of a test."""
    program = pathlib.Path(__file__).with_name("vllm_rates.py")
    said = output([args.vllm / "venv/bin/python", program, model, ",".join(map(str, args.clients))], **vllm_environment())
    return json.loads(next(line for line in said.splitlines() if line.startswith("{")))


def step_bench():
    """The program of `cargo bench --bench step`, built as the server was."""
    command = ["cargo", "build", "--release", "--quiet", "--workspace", "--bins", "--benches", "--message-format=json"]
    built = [json.loads(line) for line in output(command).splitlines()]
    return next(entry["executable"] for entry in built if entry.get("target", {}).get("name") == "step" and entry.get("executable"))


def ours_in_process(args, rounding):
    """Tokens a second by name of a step, and the memory's GB/s in that run."""
    said = output([args.step], TOKENMILL_TEST_MODEL=str(pathlib.Path(args.model).resolve()),
                  TOKENMILL_THREADS=str(args.threads), TOKENMILL_ACTIVATIONS=rounding)
    rows = re.findall(r"^(prefill \d+|decode B=\d+)\s+mean.*?([\d.]+) tok/s", said, re.MULTILINE)
    memory = re.findall(r"read_gbs: ([\d.]+)", said)
    return {name: float(rate) for name, rate in [*rows, *(("memory, GB/s", rate) for rate in memory)]}


def in_process(args, results):
    """Appends the rates of each round and contender."""
    args.step = step_bench()
    sides = [(f"tokenmill {rounding}", True, ours_in_process, rounding) for rounding in args.activations.split(",")]
    sides += [(f"llama.cpp {pathlib.Path(model).stem.lower()}", False, peer_in_process, model) for model in args.formats]
    if has_vllm(args):
        sides.append(("vllm bf16", False, vllm_in_process, args.vllm / "model"))
    for number in range(args.rounds):
        for name, is_ours, measure, what in sides:
            print(f"round {number + 1} of {args.rounds}, in process: {name}", file=sys.stderr)

            def rates():
                since, own = busy(), children_seconds()
                found = measure(args, what)
                return others_busy(children_seconds() - own, since), found

            for others, found in undisturbed(args, rates):
                results.append({"round": number, "is_ours": is_ours, "backend": name, "cores_of_others": others, "rates": found})


def medians(rows):
    """{what: {contender: median}} of (what, contender, number, cores of others); disturbed numbers only where there are no
    others."""
    kept = {}
    for what, name, number, others in rows:
        if number is not None:
            kept.setdefault(what, {}).setdefault(name, ([], []))[others > QUIET].append(number)
    return {what: {name: statistics.median(quiet or disturbed) for name, (quiet, disturbed) in by.items()} for what, by in kept.items()}


def table(title, by_what, ours, more_is_better):
    """Markdown, with each contender's median and ours over the peer's best; above 1 ours is better."""
    names = list(dict.fromkeys(name for by in by_what.values() for name in by))
    ratio_heads = [f"{name}: times the best peer" for name in names if name in ours]
    lines = [f"| {title} | {' | '.join([*names, *ratio_heads])} |", "|---|" + "--:|" * (len(names) + len(ratio_heads))]
    ratios = {}
    for what, by in by_what.items():
        theirs = [number for name, number in by.items() if name not in ours]
        best = (max if more_is_better else min)(theirs) if theirs else None
        cells = [f"{by[name]:.1f}" if name in by else "-" for name in names]
        for name in (name for name in names if name in ours):
            number = by.get(name)
            ratio = None if not best or not number else number / best if more_is_better else best / number
            ratios[f"{what}: {name}"] = ratio
            cells.append(f"**{ratio:.2f}**" if ratio else "-")
        lines.append(f"| {what} | {' | '.join(cells)} |")
    return "\n".join(lines), ratios


def summarize(reports, direct):
    """(Markdown, ratios) of all that was measured."""
    ours = {row["backend"] for row in [*reports, *direct] if row["is_ours"]}
    texts, ratios = [], {}
    for key, title, more_is_better in METRICS:
        by = medians((f"{row['max_concurrency']} at once", row["backend"], row[key], row["cores_of_others"]) for row in reports)
        if by:
            text, ratios[title] = table(title, by, ours, more_is_better)
            texts.append(text)
    by = medians((test, row["backend"], rate, row["cores_of_others"]) for row in direct for test, rate in row["rates"].items())
    if by:
        text, ratios["in process"] = table("in process, tok/s", by, ours, True)
        texts.append(text)
    return "\n\n".join(texts), ratios


def machine():
    fields = dict(re.findall(r"^([^\t:]+?)\s*: (.*)$", pathlib.Path("/proc/cpuinfo").read_text().split("\n\n")[0], re.MULTILINE))
    flags = [flag for flag in fields.get("flags", "").split() if re.match("avx|amx|fma|f16c", flag)]
    return {"cpu": fields.get("model name", "unknown"), "family": fields.get("cpu family"), "model": fields.get("model"), "flags": flags,
            "cores": len(os.sched_getaffinity(0)), "load_average": os.getloadavg()}


def peer_versions(args):
    """What the peers' scripts noted when they built them."""
    notes = {"llama.cpp": pathlib.Path(args.bin).parent / "VERSION", "vllm": args.vllm / "VERSION"}
    return {name: path.read_text().strip() for name, path in notes.items() if path.exists()}


def without_folders(value):
    """The value with each path cut to its last part: a record says which file, not where it lay."""
    if isinstance(value, dict):
        return {key: without_folders(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_folders(inner) for inner in value]
    if isinstance(value, pathlib.Path):
        value = str(value)
    return pathlib.Path(value).name if isinstance(value, str) and value.startswith("/") else value


def main():
    os.chdir(ROOT)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    args = arguments()
    if args.show:
        sys.exit(show(json.loads(pathlib.Path(args.show).read_text()), args.show))
    started = {"date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "machine": machine()}
    reports, direct, sides = [], [], contenders(args)
    try:
        if "servers" not in args.skip:
            servers(args, sides, reports)
        if "in-process" not in args.skip:
            in_process(args, direct)
    except KeyboardInterrupt:
        print("\nINTERRUPTED: this is what was measured until then\n")
    commit = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"], capture_output=True, text=True)
    record = {
        **started,
        "commit": commit.stdout.strip(),
        "command": sys.argv,
        "load_average_after": os.getloadavg(),
        "arguments": vars(args),
        "contenders": [[name, [str(word) for word in command]] for name, _, command in sides],
        "peer_versions": peer_versions(args),
        "ratios": summarize(reports, direct)[1],
        "servers": reports,
        "in_process": direct,
    }
    slug = re.sub(r"[^a-z0-9]+", "-", f"{record['machine']['cpu']} {record['machine']['cores']} cores".lower()).strip("-")
    path = pathlib.Path(args.record) / f"{started['date'].replace(':', '')}-{slug}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(without_folders(record), indent=1) + "\n")
    sys.exit(show(record, path))


def show(record, path):
    """Prints the tables of a record and what makes them doubtful; 1 if something in it cannot be compared."""
    reports, direct = record["servers"], record["in_process"]
    print(summarize(reports, direct)[0])
    wrong = [report for report in reports if report["wrong_lengths"] or report["failed"]]
    for report in wrong:
        print(f"\nNOT COMPARABLE: {report['backend']}, {report['max_concurrency']} at once: {report['warnings']}")
    rows = [*reports, *direct]
    for name in dict.fromkeys(row["backend"] for row in rows):
        others = [row["cores_of_others"] for row in rows if row["backend"] == name]
        if min(others) > QUIET:
            print(f"\nNOT QUIET: {name} never ran undisturbed; others kept {min(others)} to {max(others)} cores busy")
    print(f"\n{record['machine']['cpu']}, {record['machine']['cores']} cores, {record['date']}; {path}")
    return 1 if wrong else 0


if __name__ == "__main__":
    main()
