"""The R package: its version, its installation from a checkout and from a file, and its
numbers, which are those of this build whatever R is told to compile with.

SPDX-License-Identifier: MIT
"""

import json
import os
import re
import shutil
import subprocess

import numpy as np
import pytest

from conftest import TOP, output_of
from test_runner import runner  # noqa: F401 (a fixture)

needs_r = pytest.mark.skipif(not shutil.which("Rscript"), reason="R isn't here")

# What a machine has that has R and a C compiler: by name, so that cmake isn't there.
TOOLS = """R Rscript sh bash make gcc cc as ld ar ranlib nm strip uname tar gzip gunzip xz sed grep egrep awk cat cp cut
    mv rm mkdir rmdir ls ln chmod mktemp dirname basename expr tr sort uniq env test touch date echo which
    readlink head tail find true false wc""".split()

# A layer with every argument, doubled by its own weight, in all that R offers.
LAYER = """
library(convt3d)
stopifnot(!requireNamespace("jsonlite", quietly = TRUE), !nzchar(Sys.which("cmake")))
m <- nn_conv_transpose3d(16, 33, c(3, 5, 2), stride = c(2, 1, 1), padding = c(0, 4, 2))
cat(m(torch_randn(2, 16, 4, 5, 6))$shape, "\\n")
"""
SHAPE = "2 33 9 1 3 \n"


def version_of_header():
    return ".".join(re.findall(r"^#define CONVT3D_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)$",
                               (TOP / "include/convt3d.h").read_text(), re.M))


def test_version_is_the_header_s():
    description = (TOP / "r/DESCRIPTION").read_text()
    assert re.search(r"^Version: (.*)$", description, re.M).group(1) == version_of_header()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of what the package is made from, under git so that leavings show."""
    folder = tmp_path_factory.mktemp("checkout")
    ignore = shutil.ignore_patterns("*.o", "*.so", "core", "Makevars")
    for name in ("include", "src", "r", "tests/golden"):
        shutil.copytree(TOP / name, folder / name, ignore=ignore)
    output_of(["git", "init", "--quiet", folder])
    output_of(["git", "add", "--all"], cwd=folder)
    output_of(["git", "-c", "user.name=a", "-c", "user.email=b", "commit", "-qm", "c"], cwd=folder)
    return folder


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The environment of that machine; compiled without optimisation, which is faster."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "bin").mkdir()
    for tool in TOOLS:
        if shutil.which(tool):
            (folder / "bin" / tool).symlink_to(shutil.which(tool))
    (folder / "Makevars").write_text("CFLAGS = -O0\n")
    return {"PATH": str(folder / "bin"), "HOME": str(folder), "TZ": "UTC", "MAKEFLAGS": "-j2",
            "R_MAKEVARS_USER": str(folder / "Makevars"), "R_LIBS_SITE": str(folder),
            "R_LIBS_USER": str(folder)}


def install(package, folder, env, cwd):
    folder.mkdir()
    output_of(["R", "CMD", "INSTALL", "--no-docs", "--library=%s" % folder, package], env=env,
              cwd=cwd)
    done = subprocess.run(["Rscript", "-"], input=LAYER, stdout=subprocess.PIPE, text=True,
                          env=dict(env, R_LIBS=str(folder)), check=True)
    assert done.stdout == SHAPE


@needs_r
@pytest.mark.parametrize("way", ["from the folder above", "by an absolute path"])
def test_installs_from_a_checkout_and_leaves_nothing(checkout, bare, tmp_path, way):
    if way == "from the folder above":
        install("r", tmp_path / "lib", bare, checkout)
    else:
        install(checkout / "r", tmp_path / "lib", bare, tmp_path)
    assert output_of(["git", "status", "--porcelain"], cwd=checkout) == ""


@needs_r
def test_installs_from_a_source_package(build, checkout, bare, tmp_path):
    env = dict(bare, PATH=os.environ["PATH"])
    output_of(["Rscript", "--vanilla", "bootstrap.R"], cwd=checkout / "r", env=env)
    output_of(["R", "CMD", "build", "--no-build-vignettes", checkout / "r"], cwd=tmp_path, env=env)
    tarball = tmp_path / ("convt3d_%s.tar.gz" % version_of_header())
    names = output_of(["tar", "tzf", tarball]).split()
    assert "convt3d/src/core/kernels/isa.inc" in names
    assert "convt3d/tests/testthat/golden/layers.txt" in names
    assert [name for name in names if re.search(r"[.](o|so)$|bootstrap|Makevars$|/[.]", name)] == []
    install(tarball, tmp_path / "lib", bare, tmp_path)


@needs_r
def test_a_source_package_without_the_library_says_so(checkout, bare, tmp_path):
    shutil.copytree(checkout / "r", tmp_path / "r",
                    ignore=shutil.ignore_patterns("core", "*.o", "*.so"))
    done = subprocess.run(["R", "CMD", "INSTALL", "--library=%s" % tmp_path, tmp_path / "r"],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=bare,
                          check=False)
    assert done.returncode != 0
    assert "src/core is missing: run 'Rscript bootstrap.R'" in done.stdout


# ---- The same numbers ------------------------------------------------------------

RUN = """
library(convt3d)
floats <- function(name, shape) {
  data <- readBin(name, "double", prod(shape), size = 4)
  torch_tensor(aperm(array(data, rev(shape)), length(shape):1))
}
keep <- function(tensor, name) {
  writeBin(as.vector(aperm(array(as_array(tensor), tensor$shape))), name, size = 4)
}
m <- nn_conv_transpose3d(12, 18, c(3, 4, 5), stride = c(2, 1, 2), padding = c(1, 0, 2),
                         groups = 2, dilation = c(1, 2, 1), padding_mode = "circular")
m$weight$copy_(floats("w", c(12, 9, 3, 4, 5)))
m$bias$copy_(floats("b", 18))
x <- floats("x", c(2, 12, 5, 6, 7))
keep(m(x), "r_y")
keep(m$backward(x, floats("dy", m(x)$shape)), "r_dx")
keep(m$weight$grad, "r_dw")
keep(m$bias$grad, "r_db")
torch_manual_seed(3)
keep(nn_conv_transpose3d(12, 18, 3)$weight, "r_init")
"""
ARGUMENTS = ["--stride=2,1,2", "--padding=1,0,2", "--groups=2", "--dilation=1,2,1",
             "--padding-mode=circular"]


def isas(build):
    text = output_of([build / "convt3d", "info"])
    return re.findall(r"^ISA: +(\w+) +yes$", text, re.M)


def first_tensor(path):
    """The bytes of a safetensors file's weight."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    first, last = json.loads(data[8:start])["weight"]["data_offsets"]
    return data[start + first:start + last]


@pytest.fixture(scope="module")
def r_library(request, build, tmp_path_factory):
    """The package as R compiles it, and as it does with flags of a user who likes speed."""
    output_of([TOP / "tools/r-package.sh", build, "install"])
    if request.param == "R's own flags":
        return build / "r/lib"
    folder = tmp_path_factory.mktemp("fast")
    (folder / "Makevars").write_text("CFLAGS = %s\n" % request.param)
    shutil.copytree(build / "r/tree/r", folder / "r")
    output_of(["R", "CMD", "INSTALL", "--no-docs", "--no-test-load", "--library=%s" % folder,
               folder / "r"], env=dict(os.environ, R_MAKEVARS_USER=str(folder / "Makevars"),
                                       MAKEFLAGS="-j2"))
    return folder


@needs_r
@pytest.mark.parametrize("r_library", ["R's own flags", "-O3 -march=native"], indirect=True)
def test_same_bytes_as_this_build(build, r_library, tmp_path):
    rng = np.random.default_rng(1)
    for name, shape in [("w", (12, 9, 3, 4, 5)), ("b", 18), ("x", (2, 12, 5, 6, 7)),
                        ("dy", (2, 18, 9, 12, 13))]:
        array = rng.standard_normal(shape).astype(np.float32)
        np.save(tmp_path / (name + ".npy"), array)
        (tmp_path / name).write_bytes(array.tobytes())
    command = [build / "convt3d"]
    output_of(command + ["init", "--in-channels=12", "--out-channels=18", "--kernel-size=3",
                         "--seed=3", "--output=init.safetensors"], cwd=tmp_path)
    seen = set()
    for isa in isas(build):
        layer = ["--input=x.npy", "--weight=w.npy", "--bias=b.npy", "--isa=" + isa] + ARGUMENTS
        output_of(command + ["forward", "--output=y.npy"] + layer, cwd=tmp_path)
        output_of(command + ["backward", "--grad-output=dy.npy", "--grad-input=dx.npy",
                             "--grad-weight=dw.npy", "--grad-bias=db.npy"] + layer, cwd=tmp_path)
        (tmp_path / "run.R").write_text(RUN)
        output_of(["Rscript", "run.R"], cwd=tmp_path,
                  env=dict(os.environ, R_LIBS=str(r_library), CONVT3D_ISA=isa, TZ="UTC"))
        for name in ("y", "dx", "dw", "db"):
            ours = np.load(tmp_path / (name + ".npy")).tobytes()
            assert (tmp_path / ("r_" + name)).read_bytes() == ours, (isa, name)
        seen.add((tmp_path / "r_y").read_bytes())
        assert (tmp_path / "r_init").read_bytes() == first_tensor(tmp_path / "init.safetensors")
    # Otherwise CONVT3D_ISA has no effect, and nothing was compared.
    assert len(seen) > 1 or isas(build) == ["generic"]


# ---- The counting of its tests ----------------------------------------------------

@pytest.mark.parametrize("status, report, counts", [
    (0, "passed\ta\t\nfailed\tb\t\nskipped\tc\tno weather\n", (1, 1, 1)),
    (0, "passed\ta\t\n", (1, 0, 0)),
    (-9, "", (0, 1, 0)),  # R was ended in the middle
    (1, "passed\ta\t\n", (1, 1, 0)),
    (0, "", (0, 1, 0)),
])
def test_r_tests_are_counted(runner, status, report, counts):  # noqa: F811
    result = runner.count_r("r", status, report)
    assert (result.passed, result.failed, result.skipped) == counts


@needs_r
def test_testthat_s_verdicts(runner, build, tmp_path):  # noqa: F811
    output_of([TOP / "tools/r-package.sh", build, "install"])
    (tmp_path / "test-it.R").write_text(
        'test_that("good", { expect_true(TRUE) })\n'
        'test_that("bad", { expect_true(FALSE); skip("too late") })\n'
        'test_that("error", { stop("e") })\n'
        'test_that("left out", { skip("no\\nweather") })\n'
        'test_that("empty", { })\n'
        'stop("outside")\n')
    status, _ = runner.run(["Rscript", str(TOP / "tools/run-r-tests.R"),
                            str(tmp_path / "test-it.R"), str(tmp_path / "report")],
                           str(tmp_path / "log"), runner.r_environment(str(build)))
    result = runner.count_r("r", status, (tmp_path / "report").read_text())
    assert (result.passed, result.failed, result.skipped) == (1, 3, 2)
    assert result.notes == ["bad", "error", "left out: no weather", "empty: empty test",
                            "outside of any test"]


# ---- What R CMD check says ----------------------------------------------------------

NEW = "* checking CRAN incoming feasibility ... NOTE\nMaintainer: 'A <a@b.c>'\n\nNew submission\n"
FINE = "* checking for hidden files ... OK\n* checking package ... [9s/10s] OK\n"
DONE = "* DONE\nStatus: 1 NOTE\n"


@pytest.mark.parametrize("log, status", [
    (FINE + DONE, 0),
    (NEW + FINE + DONE, 0),
    (NEW, 1),  # ended in the middle
    (NEW + "\nUnknown word: convt\n" + FINE + DONE, 1),
    (NEW.replace("NOTE", "WARNING") + FINE + DONE, 1),
    (FINE + "* checking Rd files ... NOTE\nMaintainer: x\n" + FINE + DONE, 1),
    (FINE + "* checking package ... [9s/10s] WARNING\nx\n" + DONE, 1),
    (FINE + "* checking tests ...\n  Running 'testthat.R' [1s/2s]\n [1s/2s] ERROR\nx\n" + DONE, 1),
    (FINE + "* checking examples ... ERROR\n* DONE\nStatus: 1 ERROR\n", 1),
    (FINE + "* checking the word NOTE ... OK\n" + DONE, 0),
])
def test_findings_of_a_check(tmp_path, log, status):
    (tmp_path / "r/convt3d.Rcheck").mkdir(parents=True)
    (tmp_path / "r/convt3d.Rcheck/00check.log").write_text(log)
    done = subprocess.run([TOP / "tools/r-package.sh", tmp_path, "findings"],
                          stdout=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stdout != "") == (status, status != 0)
