#!/usr/bin/env python3
"""Times convt3d against the libraries that are there, on bench/layers.txt.

Usage: bench/compare.py [--layers A,B] [--directions forward,...] [--peers onednn,...]
                        [--rounds 7] [--threads N] [--out build/bench]
                        [--dtype float32|bfloat16] [--precision highest|high|medium]

Each contender runs in a process of its own and waits while the others run: they take
turns, in every round, on the same data (float32, plain NCDHW in and out unless a
column says otherwise, weights prepacked where the contender can, outputs reused).
With --dtype bfloat16 all have that in memory; with --precision as well, convt3d has
float32, and multiplies it so.  Medians over the rounds; a ratio is a peer's time divided by convt3d's, above 1 where
convt3d is faster. Lines near a limit run more rounds. Results are compared with each
other before anything is timed. Writes tables to standard output, and
results.csv, summary.json and, where matplotlib is there, summary.svg to --out.

SPDX-License-Identifier: MIT
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import layers
import report

HERE = Path(__file__).resolve().parent
# Columns: (peer, variants of it); the fastest variant of a line counts.
COLUMNS = {
    "onednn_dropin": ("onednn", ("direct", "reorder")),
    "onednn_best": ("onednn", ("best", "channels_last", "direct")),
    "torch": ("torch", ("plain",)),
    "onnxruntime": ("onnxruntime", ("plain",)),
    "openvino": ("openvino", ("plain",)),
}
LIMITS = {"onednn_best": 0.85}  # below 1.0 for all others
TURN_SECONDS = 0.02
# Of the largest result: contenders must compute the same thing.
TOLERANCES = {"float32": 1e-4, "bfloat16": 2e-2}


def build_onednn_peer(out):
    """The environment of oneDNN's process; oneDNN is that of DNNL_ROOT, or of this Python's
    environment (the packages onednn and onednn-devel)."""
    root = Path(os.environ.get("DNNL_ROOT", sys.prefix))
    library = out / "libonednn_peer.so"
    folder = next((root / d for d in ("lib", "lib64") if list((root / d).glob("libdnnl.so*"))),
                  root / "lib")  # fmt: skip
    made = subprocess.run(
        ["cc", "-O2", "-shared", "-fPIC", f"-I{root / 'include'}", str(HERE / "onednn_peer.c"),
         f"-L{folder}", "-ldnnl", f"-Wl,-rpath-link,{folder}", "-o", str(library)],
        capture_output=True, text=True, check=False)  # fmt: skip
    if made.returncode:
        print(f"onednn: can't be built against {root}: {made.stderr.strip().splitlines()[-1]}")
        return None
    return {
        "CONVT3D_ONEDNN_PEER": str(library),
        "LD_LIBRARY_PATH": f"{folder}:{os.environ.get('LD_LIBRARY_PATH', '')}",
        # The packages' build reaches the CPU through OpenCL, which has to be told where it is.
        "OCL_ICD_FILENAMES": str(folder / "libintelocl.so"),
    }


class Worker:
    """A contender's process, holding one layer at a time."""

    def __init__(self, peer, threads, environment):
        self.peer, self.error = peer, None
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "peers.py"), peer, str(threads)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, **environment})  # fmt: skip
        hello = self.read()
        self.version, self.error = hello.get("version"), hello.get("error")

    def read(self):
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"error": "the process ended"}

    def ask(self, **request):
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return {"error": "the process ended"}
        return self.read()

    def cpu_ticks(self):
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            return 0
        return int(fields[11]) + int(fields[12])

    def settle(self):
        """Waits until idle: threads of some libraries spin for a while after their work."""
        for _ in range(30):
            before = self.cpu_ticks()
            time.sleep(0.02)
            if self.cpu_ticks() == before:
                return

    def stop(self):
        self.process.kill()
        self.process.wait()


def start_contenders(peers, threads, out, dtype, precision):
    """Our own library, then one process for each variant of each peer."""
    own = {"CONVT3D_BENCH_DTYPE": "float32" if precision else dtype,
           "CONVT3D_BENCH_PRECISION": precision or "highest"}  # fmt: skip
    onednn = build_onednn_peer(out) if "onednn" in peers else None
    if not onednn:
        peers = [p for p in peers if p != "onednn"]
    wanted = [("convt3d", "plain")]
    for peer, variants in COLUMNS.values():
        if peer in peers:
            wanted += [(peer, v) for v in variants if (peer, v) not in wanted]
    workers, versions = {}, {}
    for key in wanted:
        environment = {"CONVT3D_BENCH_DTYPE": dtype, **(onednn if key[0] == "onednn" else {})}
        worker = Worker(key[0], threads, own if key[0] == "convt3d" else environment)
        if worker.error:
            print(f"{key[0]}: not there ({worker.error})")
            worker.stop()
            continue
        workers[key] = worker
        versions[key[0]] = worker.version
    if ("convt3d", "plain") not in workers:
        raise SystemExit("convt3d's own library can't be loaded; run 'make build'")
    return workers, versions


def prepare(workers, layer, direction, tolerance):
    """{key: reply} of the contenders that can do this line; compares their results."""
    ready = {}
    for key, worker in workers.items():
        reply = worker.ask(prepare=layer.text, name=layer.name, direction=direction, variant=key[1])
        if "error" in reply:
            if reply["error"] != "forward only":
                print(f"  {layer.name} {direction}: {' '.join(key)} can't: {reply['error']}")
            worker.ask(drop=True)
            continue
        ready[key] = reply
    ours = ready[("convt3d", "plain")]["sample"]
    scale = max(abs(v) for v in ours) or 1
    for key, reply in ready.items():
        if reply["sample"] is None:
            continue
        worst = max(abs(a - b) for a, b in zip(ours, reply["sample"])) / scale
        if not worst <= tolerance:
            raise SystemExit(f"{layer.name} {direction}: {key} differs from convt3d by {worst:.1e}")
    return ready


def run_rounds(workers, ready, rounds, times):
    for _ in range(rounds):
        for key in ready:
            reply = workers[key].ask(run=TURN_SECONDS)
            times.setdefault(key, []).append(reply["seconds"])
            workers[key].settle()


def drop_slow_variants(workers, ready, times):
    """A variant that is far from its column's best has nothing to say."""
    for peer, variants in COLUMNS.values():
        there = [(peer, v) for v in variants if (peer, v) in ready]
        best = min((times[k][0] for k in there), default=0)
        for key in there:
            others = [c for c in COLUMNS.values() if c[0] == key[0] and key[1] in c[1]]
            needed = any(times[key][0] <= 1.5 * min(times[(key[0], v)][0] for v in c[1]
                                                    if (key[0], v) in times) for c in others)
            if times[key][0] > 1.5 * best and not needed:
                workers[key].ask(drop=True)
                del ready[key]


def columns_of(times):
    """{column: (seconds, variant)} of the fastest variants by their medians."""
    medians = {key: statistics.median(t) for key, t in times.items()}
    found = {}
    for column, (peer, variants) in COLUMNS.items():
        there = [(medians[(peer, v)], v) for v in variants if (peer, v) in medians]
        if there:
            found[column] = min(there)
    return medians[("convt3d", "plain")], found


def near_a_limit(times):
    ours, found = columns_of(times)
    return any(abs(seconds / ours / LIMITS.get(column, 1.0) - 1) < 0.1
               for column, (seconds, _) in found.items())  # fmt: skip


def measure(workers, layer, direction, rounds, tolerance):
    ready = prepare(workers, layer, direction, tolerance)
    times = {}
    run_rounds(workers, ready, 1, times)
    drop_slow_variants(workers, ready, times)
    times = {}
    run_rounds(workers, ready, rounds, times)
    if near_a_limit(times):
        run_rounds(workers, ready, rounds, times)
    ours, found = columns_of(times)
    for key in ready:
        workers[key].ask(drop=True)
    return {
        "layer": layer,
        "direction": direction,
        "seconds": ours,
        "extra_bytes": ready[("convt3d", "plain")]["extra_bytes"],
        "implementation": ready[("convt3d", "plain")]["implementation"],
        "peers": {
            column: {"seconds": seconds, "variant": variant,
                     "implementation": ready[(COLUMNS[column][0], variant)]["implementation"]}
            for column, (seconds, variant) in found.items()
        },
    }  # fmt: skip


def measure_machine(threads, out, *words):
    """What bench/machine.c says; 'words' as on its command line."""
    program, source = out / "machine", HERE / "machine.c"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        subprocess.run(["cc", "-O2", "-pthread", "-o", str(program), str(source)], check=True)
    return json.loads(subprocess.run([str(program), str(threads), *words], check=True,
                                     capture_output=True, text=True).stdout)  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", default="", help="names, with commas; all by default")
    parser.add_argument("--directions", default=",".join(layers.DIRECTIONS))
    parser.add_argument("--peers", default="onednn,torch,onnxruntime,openvino")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--dtype", choices=list(TOLERANCES), default="float32")
    parser.add_argument("--precision", choices=("highest", "high", "medium"),
                        help="of float32 in convt3d, whatever the others' dtype")  # fmt: skip
    parser.add_argument("--out", type=Path, default=layers.ROOT / "build/bench")
    args = parser.parse_args()
    known = layers.read()
    names = args.layers.split(",") if args.layers else list(known)
    for name in names:
        if name not in known:
            parser.error(f"{name} is not in bench/layers.txt; there are {' '.join(known)}")
    directions = args.directions.split(",")
    if not set(directions) <= set(layers.DIRECTIONS):
        parser.error(f"--directions: legal are {' '.join(layers.DIRECTIONS)}")
    args.out.mkdir(parents=True, exist_ok=True)

    machine = measure_machine(args.threads, args.out)
    if args.dtype != "float32":
        args.peers = ",".join(p for p in args.peers.split(",") if p in ("onednn", "torch"))
    tolerance = TOLERANCES["bfloat16" if args.precision == "medium" else args.dtype]
    workers, versions = start_contenders(args.peers.split(","), args.threads, args.out,
                                         args.dtype, args.precision)  # fmt: skip
    results = []
    for direction in directions:
        for name in names:
            results.append(measure(workers, known[name], direction, args.rounds, tolerance))
            report.progress(results[-1])
    for worker in workers.values():
        worker.stop()
    run = report.Run(machine, versions, args.threads, args.rounds, results)
    report.print_tables(run)
    report.write_files(run, args.out)


if __name__ == "__main__":
    main()
