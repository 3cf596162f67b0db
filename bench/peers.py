"""One contender of the benchmark, in a process of its own.

Usage: python peers.py NAME THREADS     (bench/compare.py starts it)

Reads one request a line from standard input, in JSON, and answers each with one:
    {"prepare": STRING, "name": N, "direction": D, "variant": V}
        -> {"implementation": I, "extra_bytes": B, "sample": [numbers]}
    {"run": SECONDS}   runs for about that long, once at least -> {"seconds": S} a run
    {"drop": true}     frees what was prepared -> {}
A contender that can't do what is asked answers {"error": why}.

SPDX-License-Identifier: MIT
"""

import ctypes
import json
import math
import mmap
import os
import statistics
import sys
import time

import numpy

import layers

# What elements of all tensors are, here and in the other contenders' processes; bfloat16
# is in arrays of uint16, since NumPy has no such type.
DTYPE = os.environ.get("CONVT3D_BENCH_DTYPE", "float32")
PRECISION = os.environ.get("CONVT3D_BENCH_PRECISION", "highest")
SAMPLES = 1000
HUGE_PAGE = 1 << 21


def narrow(values):
    """float32 as bfloat16, rounded to nearest."""
    bits = values.view(numpy.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(numpy.uint16)


def wide(values):
    """A result as float32."""
    if values.dtype == numpy.float32:
        return values
    return (values.view(numpy.uint16).astype(numpy.uint32) << 16).view(numpy.float32)


def make_array(shape):
    """Zeros, as good a place as memory has: on a huge page's start, and on huge pages if
    they can be had.  Numpy's own large arrays start 16 bytes behind a page's, which costs
    every contender; frameworks align theirs."""
    element = numpy.dtype(numpy.uint16 if DTYPE == "bfloat16" else numpy.float32)
    size = element.itemsize * math.prod(shape)
    memory = mmap.mmap(-1, size + 2 * HUGE_PAGE)
    memory.madvise(mmap.MADV_HUGEPAGE)
    raw = numpy.frombuffer(memory, numpy.uint8)
    start = -raw.ctypes.data % HUGE_PAGE
    array = raw[start : start + size].view(element).reshape(shape)
    array[...] = 0
    return array


def make_data(layer, direction):
    """The same numbers in every process; what a direction doesn't need is None."""
    shapes = {"input": layer.input_shape, "weight": layer.weight_shape,
              "bias": (layer.out_channels,), "grad_output": layer.output_shape}  # fmt: skip
    needed = {"forward": {"input", "weight"} | ({"bias"} if layer.bias else set()),
              "backward_input": {"grad_output", "weight"},
              "backward_weight": {"input", "grad_output"}}[direction]  # fmt: skip
    data = dict.fromkeys(shapes)
    for seed, (name, shape) in enumerate(shapes.items()):
        if name in needed:
            data[name] = make_array(shape)
            values = numpy.random.default_rng(seed).standard_normal(shape, numpy.float32)
            data[name][...] = narrow(values) if DTYPE == "bfloat16" else values
    return data


def result_shape(layer, direction):
    return {"forward": layer.output_shape, "backward_input": layer.input_shape,
            "backward_weight": layer.weight_shape}[direction]  # fmt: skip


# ---- convt3d -------------------------------------------------------------------


class Tensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("dtype", ctypes.c_int), ("rank", ctypes.c_int32),
                ("size", ctypes.c_int64 * 5), ("stride", ctypes.c_int64 * 5)]  # fmt: skip


class Error(ctypes.Structure):
    _fields_ = [("status", ctypes.c_int), ("text", ctypes.c_char * 508)]


class Run(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t), ("threads", ctypes.c_int32),
                ("scratch", ctypes.c_void_p), ("scratch_size", ctypes.c_size_t),
                ("others", ctypes.c_char * 256)]  # fmt: skip


class Options(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t), ("threads", ctypes.c_int32),
                ("isa", ctypes.c_char_p), ("algorithm", ctypes.c_char_p),
                ("activation", ctypes.c_int), ("negative_slope", ctypes.c_double),
                ("precision", ctypes.c_int)]  # fmt: skip


def view(array):
    if array is None:
        return None
    tensor = Tensor(array.ctypes.data, 3 if array.dtype == numpy.uint16 else 1, array.ndim)
    tensor.size[: array.ndim] = array.shape
    tensor.stride[: array.ndim] = [s // array.itemsize for s in array.strides]
    return ctypes.byref(tensor)


class Convt3d:
    """Outputs and scratch reused, weights packed.  A variant other than "plain" is an
    instruction set."""

    def __init__(self, threads):
        path = os.environ.get("CONVT3D_LIBRARY", str(layers.ROOT / "build/libconvt3d.so"))
        self.library, self.threads = ctypes.CDLL(path), threads
        self.library.convt3d_version.restype = ctypes.c_char_p
        self.library.convt3d_plan_scratch_size.restype = ctypes.c_size_t
        self.version = self.library.convt3d_version().decode()

    def call(self, name, *arguments):
        error = Error()
        if getattr(self.library, "convt3d_" + name)(*arguments, ctypes.byref(error)):
            raise RuntimeError(error.text.decode())

    def request(self, layer, direction, isa=None):
        """What plan_create takes."""
        problem = (ctypes.c_char * 512)()  # a convt3d_problem, opaque here
        options = Options()
        self.library.convt3d_options_init(ctypes.byref(options))
        options.threads = self.threads
        options.isa = isa.encode() if isa else None
        options.precision = ("highest", "high", "medium").index(PRECISION)
        text = layer.text + ("bf16" if DTYPE == "bfloat16" else "")
        self.call("problem_parse", text.encode(), problem, None, ctypes.c_size_t(0))
        return problem, layers.DIRECTIONS.index(direction), ctypes.byref(options)

    def make_plan(self, layer, direction, isa=None):
        plan = ctypes.c_void_p()
        self.call("plan_create", *self.request(layer, direction, isa), ctypes.byref(plan))
        return plan

    def scratch(self, layer, direction):
        plan = self.make_plan(layer, direction)
        size = self.library.convt3d_plan_scratch_size(plan, 0, 1)
        self.library.convt3d_plan_free(plan)
        return size

    def prepare(self, layer, direction, variant, data=None, result=None):
        """'data' as of make_data() and the result's array may be shared with other contenders."""
        self.plan, self.packed = ctypes.c_void_p(), ctypes.c_void_p()
        self.plan = self.make_plan(layer, direction, None if variant == "plain" else variant)
        data = make_data(layer, direction) if data is None else data
        if result is None:
            result = make_array(result_shape(layer, direction))
        x, w, b, dy = (view(data[k]) for k in ("input", "weight", "bias", "grad_output"))
        y = view(result)
        if direction != "backward_weight":
            self.call("weights_pack", self.plan, w, ctypes.byref(self.packed))
        db = make_array((layer.out_channels,)) if layer.bias else None
        self.extra_bytes = self.library.convt3d_plan_scratch_size(self.plan, 0, 1)
        how, scratch = Run(), numpy.zeros(self.extra_bytes, numpy.uint8)
        self.library.convt3d_run_init(ctypes.byref(how))
        how.scratch, how.scratch_size = scratch.ctypes.data, self.extra_bytes
        self.keep = data, result, db, how, scratch
        run_options = ctypes.byref(how)
        arguments = {
            "forward": (self.plan, x, None, self.packed, b, y, run_options),
            "backward_input": (self.plan, dy, None, self.packed, y, 0, run_options),
            "backward_weight": (self.plan, x, dy, y, view(db), 0, run_options),
        }[direction]
        function, error = getattr(self.library, "convt3d_" + direction), Error()
        arguments += (ctypes.byref(error),)

        def run():  # little more than the call: some layers take microseconds
            if function(*arguments):
                raise RuntimeError(error.text.decode())

        self.run = run
        self.result = lambda: result
        text = ctypes.create_string_buffer(4096)
        self.library.convt3d_plan_describe(self.plan, text, ctypes.c_size_t(4096))
        return " ".join(line.split(": ", 1)[1] for line in text.value.decode().splitlines()
                        if line.startswith(("isa", "algorithm")))  # fmt: skip

    def drop(self):
        self.library.convt3d_weights_free(self.packed)
        self.library.convt3d_plan_free(self.plan)
        self.run = self.result = self.keep = None


# ---- oneDNN ----------------------------------------------------------------------


class Arguments(ctypes.Structure):
    _fields_ = [(name, ctypes.c_longlong)
                for name in ("batch", "in_channels", "out_channels", "groups")] + [
        (name, ctypes.c_longlong * 3)
        for name in ("size", "kernel", "stride", "padding", "output_padding", "dilation", "out")
    ] + [("bias", ctypes.c_int), ("bfloat16", ctypes.c_int)]  # fmt: skip


class OneDNN:
    """Through its C API (bench/onednn_peer.c)."""

    def __init__(self, threads):
        self.library = ctypes.CDLL(os.environ["CONVT3D_ONEDNN_PEER"])
        for name in ("failure", "version", "implementation"):
            getattr(self.library, "peer_" + name).restype = ctypes.c_char_p
        self.library.peer_implementation.argtypes = [ctypes.c_void_p]
        self.version = self.library.peer_version().decode()

    def check(self, status):
        if status:
            raise RuntimeError(self.library.peer_failure().decode())

    def prepare(self, layer, direction, variant):
        which = layers.DIRECTIONS.index(direction)
        data = make_data(layer, direction)
        buffers = {
            "src": data["input"],
            "weights": data["weight"],
            "bias": data["bias"],
            "dst": data["grad_output"],
        }
        written = ("dst", "src", "weights")[which]
        buffers[written] = make_array(result_shape(layer, direction))
        if layer.bias and buffers["bias"] is None:
            buffers["bias"] = make_array((layer.out_channels,))
        arguments = Arguments(bias=layer.bias, bfloat16=DTYPE == "bfloat16", **{
            name: (ctypes.c_longlong * 3)(*getattr(layer, name))
            for name in ("size", "kernel", "stride", "padding", "output_padding", "dilation", "out")
        }, **{name: getattr(layer, name)
              for name in ("batch", "in_channels", "out_channels", "groups")})  # fmt: skip
        self.peer = ctypes.c_void_p()
        pointers = [None if b is None else ctypes.c_void_p(b.ctypes.data)
                    for b in buffers.values()]  # fmt: skip
        self.keep = buffers
        self.check(self.library.peer_create(ctypes.byref(self.peer), ctypes.byref(arguments), which,
                                            variant.encode(), *pointers))  # fmt: skip
        self.run = lambda: self.check(self.library.peer_run(self.peer, which))
        plain = variant in ("direct", "reorder")
        self.result = lambda: buffers[written] if plain else None
        self.extra_bytes = None
        return self.library.peer_implementation(self.peer).decode()

    def drop(self):
        self.library.peer_destroy(self.peer)
        self.peer = ctypes.c_void_p()
        self.run = self.result = self.keep = None


# ---- PyTorch -----------------------------------------------------------------------


class Torch:
    def __init__(self, threads):
        import torch

        self.torch, self.version = torch, torch.__version__
        torch.set_num_threads(threads)

    def prepare(self, layer, direction, variant):
        torch = self.torch
        data = {k: self.tensor(v) for k, v in make_data(layer, direction).items()}
        x, w, b, dy = (data[k] for k in ("input", "weight", "bias", "grad_output"))
        if direction == "backward_input":
            x = dy.new_empty(1).expand(layer.input_shape)  # only its shape is looked at
        if direction == "backward_weight":
            w = dy.new_empty(1).expand(layer.weight_shape)
        place = (layer.stride, layer.padding, layer.output_padding, layer.groups, layer.dilation)
        mask = [direction == "backward_input", direction == "backward_weight",
                direction == "backward_weight" and layer.bias]  # fmt: skip
        channels = [layer.out_channels] if layer.bias else None

        def run():
            with torch.no_grad():
                if direction == "forward":
                    self.last = torch.nn.functional.conv_transpose3d(x, w, b, *place)
                else:
                    s, p, o, g, d = place
                    self.last = torch.ops.aten.convolution_backward(
                        dy, x, w, channels, s, p, d, True, o, g, mask
                    )[mask.index(True)]

        self.run = run
        self.result = self.last_result
        self.extra_bytes = None
        return "aten"

    def tensor(self, array):
        if array is None or array.dtype == numpy.float32:
            return None if array is None else self.torch.from_numpy(array)
        return self.torch.from_numpy(array.view(numpy.int16)).view(self.torch.bfloat16)

    def last_result(self):
        half = self.last.dtype == self.torch.bfloat16
        return (self.last.view(self.torch.int16) if half else self.last).numpy()

    def drop(self):
        self.run = self.result = self.last = None


# ---- ONNX Runtime and OpenVINO --------------------------------------------------------


def onnx_model(layer, data):
    from onnx import TensorProto, helper, numpy_helper

    names = ["x", "w"] + (["b"] if layer.bias else [])
    node = helper.make_node(
        "ConvTranspose", names, ["y"], kernel_shape=layer.kernel, strides=layer.stride,
        pads=layer.padding * 2, output_padding=layer.output_padding, group=layer.groups,
        dilations=layer.dilation,
    )  # fmt: skip
    values = [numpy_helper.from_array(data["weight"], "w")]
    if layer.bias:
        values.append(numpy_helper.from_array(data["bias"], "b"))
    graph = helper.make_graph(
        [node], "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, layer.input_shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, layer.output_shape)], values,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return model.SerializeToString()


class OnnxRuntime:
    def __init__(self, threads):
        import onnxruntime

        self.module, self.version, self.threads = onnxruntime, onnxruntime.__version__, threads

    def prepare(self, layer, direction, variant):
        if direction != "forward":
            raise RuntimeError("forward only")
        data = make_data(layer, direction)
        options = self.module.SessionOptions()
        options.intra_op_num_threads = self.threads
        session = self.module.InferenceSession(onnx_model(layer, data), options,
                                               providers=["CPUExecutionProvider"])  # fmt: skip
        result = make_array(layer.output_shape)
        binding = session.io_binding()
        binding.bind_cpu_input("x", data["input"])
        binding.bind_output("y", "cpu", 0, numpy.float32, result.shape, result.ctypes.data)
        self.keep = data, session, binding, result
        self.run = lambda: session.run_with_iobinding(binding)
        self.result = lambda: result
        self.extra_bytes = None
        return "CPUExecutionProvider"

    def drop(self):
        self.run = self.result = self.keep = None


class OpenVINO:
    def __init__(self, threads):
        import openvino

        self.module, self.version, self.threads = openvino, openvino.__version__, threads

    def prepare(self, layer, direction, variant):
        if direction != "forward":
            raise RuntimeError("forward only")
        data = make_data(layer, direction)
        core = self.module.Core()
        compiled = core.compile_model(core.read_model(onnx_model(layer, data)), "CPU", {
            "INFERENCE_NUM_THREADS": self.threads, "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY"})  # fmt: skip
        result = make_array(layer.output_shape)
        request = compiled.create_infer_request()
        request.set_input_tensor(self.module.Tensor(data["input"], shared_memory=True))
        request.set_output_tensor(self.module.Tensor(result, shared_memory=True))
        self.keep = data, compiled, request, result
        self.run = request.infer
        self.result = lambda: result
        self.extra_bytes = None
        kinds = {op.get_rt_info()["primitiveType"].astype(str)
                 for op in compiled.get_runtime_model().get_ops()
                 if "econv" in op.get_rt_info()["layerType"].astype(str)}  # fmt: skip
        return ", ".join(sorted(kinds)) or "?"

    def drop(self):
        self.run = self.result = self.keep = None


PEERS = {"convt3d": Convt3d, "onednn": OneDNN, "torch": Torch, "onnxruntime": OnnxRuntime,
         "openvino": OpenVINO}  # fmt: skip


# ---- The worker ---------------------------------------------------------------------------


def sample_of(result):
    """The same places of a result in every process; NaN-free, for a comparison."""
    if result is None:
        return None
    flat = numpy.ascontiguousarray(result).reshape(-1)
    places = numpy.random.default_rng(2).integers(0, flat.size, SAMPLES)
    return [float(v) for v in wide(flat[places])]


def timed_runs(run, seconds):
    times = []
    start = time.perf_counter()
    while not times or time.perf_counter() - start < seconds:
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def answer(peer, request):
    if "prepare" in request:
        layer = layers.parse(request["prepare"], request["name"])
        implementation = peer.prepare(layer, request["direction"], request["variant"])
        peer.run()
        return {"implementation": implementation, "extra_bytes": peer.extra_bytes,
                "sample": sample_of(peer.result())}  # fmt: skip
    if "run" in request:
        return {"seconds": timed_runs(peer.run, request["run"])}
    peer.drop()
    return {}


def main():
    # What libraries print must not get between the answers.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        peer = PEERS[sys.argv[1]](int(sys.argv[2]))
        reply = {"version": peer.version}
    except Exception as problem:  # whatever a missing or broken library raises
        peer, reply = None, {"error": f"{type(problem).__name__}: {problem}"}
    print(json.dumps(reply), file=replies, flush=True)
    for line in sys.stdin if peer else ():
        try:
            reply = answer(peer, json.loads(line))
        except Exception as problem:
            reply = {"error": str(problem)[:300] or type(problem).__name__}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
