"""The library: which one is taken, what else is refused, and loading it again and again.
SPDX-License-Identifier: MIT
"""

from layers import run_child

import convt3d
from convt3d import _library

USE = "import convt3d, numpy as np; one = np.ones((1,) * 5); convt3d.conv_transpose3d(one, one)"


def copy(path, version):
    """The library as if it were of another version."""
    with open(_library.library._name, "rb") as file:
        content = file.read()
    own = b"\0" + convt3d.__version__.encode() + b"\0"
    assert content.count(own) == 1
    path.write_bytes(content.replace(own, b"\0" + version.encode() + b"\0"))
    return path


def refused(path, *words):
    child = run_child(USE, CONVT3D_LIBRARY=str(path))
    last = child.stderr.splitlines()[-1]
    assert child.returncode == 1 and last.startswith("ImportError: convt3d: "), child.stderr
    for word in (str(path), *words):
        assert word in last, (word, last)


def test_the_library_that_is_named_is_taken(tmp_path):
    path = copy(tmp_path / "another.so", convt3d.__version__)
    script = USE + "; print(convt3d._library.library._name)"
    child = run_child(script, CONVT3D_LIBRARY=str(path))
    assert (child.stdout, child.stderr, child.returncode) == (f"{path}\n", "", 0)


def test_what_is_no_library(tmp_path):
    refused(tmp_path / "absent.so", "No such file")
    refused(tmp_path, "is not its library")
    text = tmp_path / "text.so"
    text.write_text("not a library\n" * 100)
    refused(text, "invalid ELF header")
    text.write_bytes(b"")
    refused(text, "file too short")


def test_another_library():
    refused("libc.so.6", "is not its library", "convt3d_version")


def test_versions(tmp_path):
    own = convt3d.__version__
    major, minor, patch = [int(part) for part in own.split(".")]
    for other in (f"{major}.{minor + 1}.{patch}", f"{major + 1}.{minor}.{patch}"):
        path = copy(tmp_path / other, other)
        refused(path, f"is version {other}, the package {own}")
    path = copy(tmp_path / "patched", f"{major}.{minor}.{patch + 1}")  # compatible
    child = run_child(USE, CONVT3D_LIBRARY=str(path))
    assert (child.stderr, child.returncode) == ("", 0)


STATUS = """
import gc, os, sys, time
import numpy as np

def status(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field + ":"))

def comes_to(field, number):
    "A thread that was joined may be counted for a moment more."
    end = time.monotonic() + 5
    while status(field) != number and time.monotonic() < end:
        time.sleep(0.01)
    return status(field) == number

x, w = np.ones((2, 4, 9, 9, 9), np.float32), np.ones((4, 4, 3, 3, 3), np.float32)
"""


def test_loading_and_unloading(tmp_path):
    """No thread may outlive its code, and nothing is left behind."""
    path = copy(tmp_path / "unloaded.so", convt3d.__version__)
    script = """
import _ctypes
from convt3d import _layer, _library
from convt3d._arrays import pack

y = np.empty((2, 4, 11, 11, 11), np.float32)
os.environ["CONVT3D_LIBRARY"] = sys.argv[1]
before = status("Threads")
for round in range(60):
    _layer.library = _library._load()
    plan = _layer.Plan(_layer.Layer(), 0, 1, x.shape, w.shape, 3)
    y[:] = np.nan
    tensors = [pack("", a, a.dtype) for a in (x, w, y)]
    _layer.run_forward(plan, tensors[0], tensors[1], None, tensors[2])
    assert y.sum() == x.sum() * w.sum() / 4 and y[1, 1, 5, 5, 5] == 108
    assert status("Threads") > before
    del plan
    gc.collect()
    _ctypes.dlclose(_layer.library._handle)
    with open("/proc/self/maps") as file:
        assert "unloaded.so" not in file.read()
    assert comes_to("Threads", before)
    if round == 10:
        resident = status("VmRSS")
        if not os.fork(): # whose handlers are gone as well
            os._exit(0)
        assert os.wait()[1] == 0
assert status("VmRSS") - resident < 2000
"""
    # NumPy's own threads would come and go between.
    child = run_child(STATUS + script, path, OPENBLAS_NUM_THREADS="1")
    assert (child.stdout, child.stderr, child.returncode) == ("", "", 0)


def test_importing_again_and_again():
    script = """
for round in range(30):
    import convt3d
    convt3d.set_num_threads(3)
    y = convt3d.conv_transpose3d(x, w)
    assert y[1, 1, 5, 5, 5] == 108
    threads = status("Threads")
    if round == 0:
        first = threads
    assert threads == first > 1
    for name in [name for name in sys.modules if name.startswith("convt3d")]:
        del sys.modules[name]
    del convt3d
"""
    child = run_child(STATUS + script)
    assert (child.stdout, child.stderr, child.returncode) == ("", "", 0)


def test_leaving_in_the_middle_of_a_call():
    script = """
import threading, time, convt3d

def work():
    while True:
        convt3d.conv_transpose3d(x, w)

for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.2)
print("leaving")
"""
    for _ in range(3):
        child = run_child(STATUS + script)
        assert (child.stdout, child.stderr, child.returncode) == ("leaving\n", "", 0)
